//! What checkpoints call the parameters of the modules that are trained.

use opabinia_connector::ConnectorConfig;
use opabinia_llm::DecoderConfig;
use opabinia_model::keys;
use opabinia_weights::KeyMap;

/// Checkpoint names of a whole model's parameters.
pub(super) struct NetworkNames {
    decoder: KeyMap,
    connector: Option<KeyMap>,
}

impl NetworkNames {
    pub(super) fn new(decoder: &DecoderConfig, connector: Option<&ConnectorConfig>) -> Self {
        Self {
            decoder: keys::decoder(decoder),
            connector: connector.map(keys::connector),
        }
    }

    /// The name for a module path of the network.
    pub(super) fn of(&self, path: &str) -> String {
        match (path.split_once('.'), &self.connector) {
            (Some(("decoder", rest)), _) => self.decoder.file_key(rest).key,
            (Some(("connector", rest)), Some(map)) => map.file_key(rest).key,
            (Some(("encoders", rest)), _) => {
                let (index, rest) = rest.split_once('.').unwrap_or((rest, ""));
                format!("model.vision_tower_aux_list.{index}.vision_tower.{rest}")
            }
            _ => path.to_owned(),
        }
    }
}

/// The name for a module path of a decoder alone.
pub(super) fn decoder(config: &DecoderConfig) -> impl Fn(&str) -> String {
    let map = keys::decoder(config);
    move |path| map.file_key(path).key
}
