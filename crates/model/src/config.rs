//! What `config.json` of a checkpoint says about the whole model.
//!
//! Everything is decided here and nothing by the name of a folder. Keys are those of the released
//! checkpoints; a folder without vision keys is a plain language model and is accepted as one.

use std::path::Path;

use opabinia_connector::config::ProjectorConfig;
use opabinia_connector::{ConnectorConfig, InLlmConfig, LayerType, ProjectorKind, SvaConfig};
use opabinia_llm::DecoderConfig;
use opabinia_llm::config::MAX_LAYERS;
use opabinia_nn::Grid;
use serde::Deserialize;
use serde_json::Value;

use crate::{ModelError, gguf};

/// The configuration of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// `model_type` as the file has it.
    pub model_type: String,
    /// The language model.
    pub decoder: DecoderConfig,
    /// Eyes and connector; none for a plain language model.
    pub vision: Option<VisionConfig>,
    /// Longest packed prompt, visual tokens included (`tokenizer_model_max_length`).
    pub max_length: usize,
    /// Tokens that end an answer.
    pub end_ids: Vec<u32>,
    /// The chat template, where the file names one.
    pub conversation_template: Option<String>,
}

/// The vision part of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Published names of the encoders, suffixes included (`mm_vision_tower_aux_list`).
    pub encoders: Vec<String>,
    /// The grid each encoder's features are resampled to.
    pub grids: Vec<Grid>,
    /// Layer of the CLIP encoder whose output is taken (`mm_vision_select_layer`).
    pub select_layer: i64,
    /// The connector, without the encoders' widths, which the weights tell.
    pub connector: ConnectorKeys,
    /// Where visual tokens are assumed to start in the sequence (`image_position`).
    pub image_position: Option<usize>,
    /// Whether `<im_start>` and `<im_end>` surround the visual tokens (`mm_use_im_start_end`).
    pub image_marks: bool,
}

/// The connector's keys.
#[derive(Clone, Debug, PartialEq)]
pub enum ConnectorKeys {
    /// `mm_projector_type` is `sva`.
    Sva {
        /// `vision_hidden_size`.
        width: usize,
        /// `query_num_list`.
        query_grids: Vec<Grid>,
        /// `image_token_len`.
        token_grid: Grid,
        /// `connector_depth`.
        depth: usize,
        /// `sva_layer_type`: `joint` (the default, and the only type released) or `sep`.
        layer_type: LayerType,
        /// Present unless `connector_only`.
        in_llm: Option<InLlmConfig>,
    },
    /// Any other `mm_projector_type`.
    Projector {
        /// Which.
        kind: ProjectorKind,
        /// `image_token_len`.
        token_grid: Grid,
    },
}

#[derive(Deserialize)]
struct Raw {
    model_type: String,
    tokenizer_model_max_length: Option<usize>,
    eos_token_id: Option<Ids>,
    #[serde(alias = "conv_mode")]
    conversation_template: Option<String>,
    mm_vision_tower_aux_list: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct RawVision {
    mm_vision_tower_aux_list: Vec<String>,
    mm_vision_tower_aux_token_len_list: Option<Vec<usize>>,
    mm_projector_type: Option<String>,
    image_token_len: usize,
    image_position: Option<usize>,
    mm_vision_select_layer: Option<i64>,
    #[serde(default)]
    mm_use_im_start_end: bool,
    #[serde(default)]
    mm_use_im_patch_token: bool,
    vision_hidden_size: Option<usize>,
    query_num_list: Option<Vec<usize>>,
    num_query_group: Option<usize>,
    connector_depth: Option<usize>,
    connector_only: Option<bool>,
    sva_layer_type: Option<String>,
    num_of_vision_sampler_layers: Option<usize>,
    start_of_vision_sampler_layers: Option<usize>,
    stride_of_vision_sampler_layers: Option<usize>,
}

/// One id or several, as both kinds of configuration files have it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a token id or a list of them")]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

impl Ids {
    fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

#[derive(Deserialize)]
struct GenerationConfig {
    eos_token_id: Option<Ids>,
}

impl ModelConfig {
    /// Reads `config.json` of a model folder, and `generation_config.json` where there is one. Without
    /// the first, the metadata of a GGUF file take its place.
    ///
    /// # Errors
    /// If a file cannot be read, or describes no model that can be built.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let json = match gguf::config_of(folder)? {
            Some(table) => Value::Object(table),
            None => read_json(&path)?,
        };
        let mut config = Self::from_json(&json).map_err(|error| match error {
            ModelError::Key { key, source, .. } => ModelError::Key { path, key, source },
            other => other,
        })?;
        let path = folder.join("generation_config.json");
        if path.is_file() {
            let json = read_json(&path)?;
            let generation = GenerationConfig::deserialize(&json)
                .map_err(|source| ModelError::Json { path, source })?;
            if let Some(ids) = generation.eos_token_id {
                config.end_ids = ids.into_vec();
            }
        }
        Ok(config)
    }

    /// Reads the value of a `config.json`.
    ///
    /// # Errors
    /// If it describes no model that can be built.
    pub fn from_json(json: &Value) -> Result<Self, ModelError> {
        if !json.is_object() {
            return Err(wrong(
                ".",
                "no table".into(),
                "a configuration is a table of keys".into(),
            ));
        }
        let raw: Raw = part(json)?;
        let decoder = DecoderConfig::from_json(json)?;
        let vision = match &raw.mm_vision_tower_aux_list {
            Some(list) if !list.is_empty() => Some(VisionConfig::from_json(json)?),
            _ => None,
        };
        if let Some(vision) = &vision {
            vision.check_in_llm(&decoder)?;
        }
        Ok(Self {
            model_type: raw.model_type,
            max_length: raw
                .tokenizer_model_max_length
                .unwrap_or(decoder.max_position),
            decoder,
            vision,
            end_ids: raw.eos_token_id.map(Ids::into_vec).unwrap_or_default(),
            conversation_template: raw.conversation_template,
        })
    }
}

impl VisionConfig {
    fn from_json(json: &Value) -> Result<Self, ModelError> {
        let raw: RawVision = part(json)?;
        let encoders = raw.mm_vision_tower_aux_list.clone();
        let lengths = required(
            "mm_vision_tower_aux_token_len_list",
            raw.mm_vision_tower_aux_token_len_list.clone(),
        )?;
        if lengths.len() != encoders.len() {
            return Err(wrong(
                "mm_vision_tower_aux_token_len_list",
                format!("{} numbers", lengths.len()),
                format!(
                    "there are {} encoders in `mm_vision_tower_aux_list`",
                    encoders.len()
                ),
            ));
        }
        let grids = lengths
            .into_iter()
            .map(|n| square("mm_vision_tower_aux_token_len_list", n))
            .collect::<Result<_, _>>()?;
        if raw.mm_use_im_patch_token {
            return Err(wrong(
                "mm_use_im_patch_token",
                "true".into(),
                "prompts with patch tokens are not built; no released checkpoint has them".into(),
            ));
        }
        Ok(Self {
            encoders,
            grids,
            select_layer: raw.mm_vision_select_layer.unwrap_or(-2),
            image_position: raw.image_position,
            image_marks: raw.mm_use_im_start_end,
            connector: ConnectorKeys::from_raw(&raw)?,
        })
    }

    /// In-LLM layers follow layers that the decoder has.
    pub(crate) fn check_in_llm(&self, decoder: &DecoderConfig) -> Result<(), ModelError> {
        let ConnectorKeys::Sva {
            in_llm: Some(layers),
            ..
        } = &self.connector
        else {
            return Ok(());
        };
        let last = layers.last_decoder_layer();
        if last < decoder.layers {
            return Ok(());
        }
        Err(wrong(
            "num_of_vision_sampler_layers",
            layers.count.to_string(),
            format!(
                "from `start_of_vision_sampler_layers` {} in steps of {} the last would follow \
                 decoder layer {last}, and `num_hidden_layers` is {}",
                layers.start, layers.stride, decoder.layers
            ),
        ))
    }

    /// The connector's configuration, given the widths of the encoders and of the decoder.
    ///
    /// # Errors
    /// If the numbers contradict each other.
    pub fn connector(
        &self,
        widths: &[usize],
        hidden: usize,
    ) -> Result<ConnectorConfig, ModelError> {
        let config = match &self.connector {
            ConnectorKeys::Sva {
                width,
                query_grids,
                token_grid,
                depth,
                layer_type,
                in_llm,
            } => ConnectorConfig::Sva(SvaConfig {
                encoder_widths: widths.to_vec(),
                encoder_grids: self.grids.clone(),
                width: *width,
                hidden,
                query_grids: query_grids.clone(),
                token_grid: *token_grid,
                depth: *depth,
                layer_type: *layer_type,
                in_llm: *in_llm,
            }),
            ConnectorKeys::Projector { kind, token_grid } => {
                if self.grids.windows(2).any(|pair| pair[0] != pair[1]) {
                    return Err(wrong(
                        "mm_vision_tower_aux_token_len_list",
                        format!("{:?}", self.grids.iter().map(Grid::len).collect::<Vec<_>>()),
                        "a projector concatenates features, so all must be equal".into(),
                    ));
                }
                let features = self.grids[0];
                let made = match kind {
                    ProjectorKind::CAbstractor => Grid {
                        rows: features.rows.div_ceil(2),
                        cols: features.cols.div_ceil(2),
                    },
                    _ => features,
                };
                if made != *token_grid {
                    return Err(wrong(
                        "image_token_len",
                        token_grid.len().to_string(),
                        format!(
                            "this `mm_projector_type` makes {} tokens of {features} features",
                            made.len()
                        ),
                    ));
                }
                ConnectorConfig::Projector(ProjectorConfig {
                    kind: *kind,
                    input: widths.iter().sum(),
                    hidden,
                    token_grid: *token_grid,
                })
            }
        };
        config.check()?;
        Ok(config)
    }
}

impl ConnectorKeys {
    fn from_raw(raw: &RawVision) -> Result<Self, ModelError> {
        let token_grid = square("image_token_len", raw.image_token_len)?;
        // The reference's default where the key is missing.
        let name = raw.mm_projector_type.as_deref().unwrap_or("linear");
        if name != "sva" {
            let kind = ProjectorKind::by_name(name).ok_or_else(|| {
                wrong(
                    "mm_projector_type",
                    format!("`{name}`"),
                    "it must be sva, linear, mlpNx_gelu, identity, se_mlp or CAbstractor".into(),
                )
            })?;
            return Ok(Self::Projector { kind, token_grid });
        }
        let query_grids = required("query_num_list", raw.query_num_list.clone())?
            .into_iter()
            .map(|n| square("query_num_list", n))
            .collect::<Result<_, _>>()?;
        let groups = raw.query_num_list.as_ref().map_or(0, Vec::len);
        if raw.num_query_group.is_some_and(|stated| stated != groups) {
            return Err(wrong(
                "num_query_group",
                raw.num_query_group.unwrap_or(0).to_string(),
                format!("`query_num_list` has {groups} of them"),
            ));
        }
        let in_llm = match raw.connector_only {
            Some(false) => Some(InLlmConfig {
                count: layers(
                    "num_of_vision_sampler_layers",
                    required(
                        "num_of_vision_sampler_layers",
                        raw.num_of_vision_sampler_layers,
                    )?,
                )?,
                start: required(
                    "start_of_vision_sampler_layers",
                    raw.start_of_vision_sampler_layers,
                )?,
                stride: required(
                    "stride_of_vision_sampler_layers",
                    raw.stride_of_vision_sampler_layers,
                )?,
            }),
            Some(true) | None => None,
        };
        Ok(Self::Sva {
            width: required("vision_hidden_size", raw.vision_hidden_size)?,
            query_grids,
            token_grid,
            depth: layers("connector_depth", raw.connector_depth.unwrap_or(1))?,
            layer_type: layer_type(raw.sva_layer_type.as_deref())?,
            in_llm,
        })
    }

    /// The grid of visual tokens of a square picture.
    #[must_use]
    pub fn token_grid(&self) -> Grid {
        match self {
            Self::Sva { token_grid, .. } | Self::Projector { token_grid, .. } => *token_grid,
        }
    }
}

fn layer_type(name: Option<&str>) -> Result<LayerType, ModelError> {
    match name {
        None | Some("joint") => Ok(LayerType::Joint),
        Some("sep") => Ok(LayerType::Separate),
        Some(other) => Err(wrong(
            "sva_layer_type",
            format!("`{other}`"),
            "it must be joint or sep".into(),
        )),
    }
}

/// A number of layers that can be built.
fn layers(key: &str, count: usize) -> Result<usize, ModelError> {
    if (1..=MAX_LAYERS).contains(&count) {
        return Ok(count);
    }
    Err(wrong(
        key,
        count.to_string(),
        format!("it must be from 1 to {MAX_LAYERS}"),
    ))
}

fn square(key: &str, tokens: usize) -> Result<Grid, ModelError> {
    Grid::from_token_count(tokens).ok_or_else(|| {
        wrong(
            key,
            tokens.to_string(),
            "token counts must be squares from 1 to 512²".into(),
        )
    })
}

fn required<T>(key: &str, value: Option<T>) -> Result<T, ModelError> {
    value.ok_or_else(|| {
        wrong(
            key,
            "missing".into(),
            "a model with vision encoders needs it".into(),
        )
    })
}

fn wrong(key: &str, found: String, expected: String) -> ModelError {
    ModelError::Config {
        key: key.into(),
        found,
        expected,
    }
}

fn part<'a, T: Deserialize<'a>>(json: &'a Value) -> Result<T, ModelError> {
    serde_path_to_error::deserialize(json).map_err(|error| ModelError::Key {
        path: "config.json".into(),
        key: error.path().to_string(),
        source: error.into_inner(),
    })
}

/// Reads a JSON file of a model folder.
pub(crate) fn read_json(path: &Path) -> Result<Value, ModelError> {
    let text = std::fs::read_to_string(path).map_err(|source| ModelError::Io {
        path: path.into(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|source| ModelError::Json {
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cambrian_8b() -> Value {
        json!({
            "model_type": "cambrian_llama", "hidden_size": 4096, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
            "vocab_size": 128_256, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0,
            "eos_token_id": [128_001, 128_009], "tokenizer_model_max_length": 2048,
            "mm_vision_tower_aux_list": [
                "siglip/CLIP-ViT-SO400M-14-384", "openai/clip-vit-large-patch14-336",
                "facebook/dinov2-giant-res378", "clip-convnext-XXL-multi-stage"],
            "mm_vision_tower_aux_token_len_list": [576, 576, 576, 9216],
            "vision_tower_aux_token_len_list": [576, 576, 576, 9216],
            "image_token_len": 576, "num_query_group": 1, "query_num_list": [576],
            "connector_depth": 3, "image_position": 91, "vision_hidden_size": 1024,
            "connector_only": false, "mm_projector_type": "sva",
            "num_of_vision_sampler_layers": 10, "start_of_vision_sampler_layers": 0,
            "stride_of_vision_sampler_layers": 3, "mm_vision_select_layer": -2
        })
    }

    #[test]
    fn the_released_8b_is_understood() {
        let config = ModelConfig::from_json(&cambrian_8b()).unwrap();
        assert_eq!(config.end_ids, [128_001, 128_009]);
        let vision = config.vision.unwrap();
        let connector = vision.connector(&[1152, 1024, 1536, 5760], 4096).unwrap();
        let ConnectorConfig::Sva(sva) = connector else {
            panic!("not an SVA")
        };
        assert_eq!(sva.window_sides(Grid::square(24)), [1, 1, 1, 4]);
        assert_eq!(
            sva.in_llm,
            Some(InLlmConfig {
                count: 10,
                start: 0,
                stride: 3
            })
        );
    }

    #[test]
    fn mistakes_name_their_key() {
        let with = |key: &str, value: Value| {
            let mut json = cambrian_8b();
            json[key] = value;
            ModelConfig::from_json(&json).unwrap_err().to_string()
        };
        assert!(with("image_token_len", json!(575)).contains("`image_token_len`"));
        assert!(with("query_num_list", json!([575])).contains("`query_num_list`"));
        assert!(with("mm_projector_type", json!("magic")).contains("magic"));
        assert!(with("stride_of_vision_sampler_layers", Value::Null).contains("stride_of"));
        assert!(with("mm_vision_tower_aux_token_len_list", json!([576])).contains("4 encoders"));
    }

    /// The abstractor halves the sides, so 24² features make 144 tokens and no other number.
    #[test]
    fn token_counts_are_those_the_projector_makes() {
        let connector = |tokens: usize| {
            let mut json = cambrian_8b();
            json["mm_projector_type"] = json!("CAbstractor");
            json["mm_vision_tower_aux_token_len_list"] = json!([576, 576, 576, 576]);
            json["image_token_len"] = json!(tokens);
            let vision = ModelConfig::from_json(&json).unwrap().vision.unwrap();
            vision.connector(&[1152, 1024, 1536, 5760], 4096)
        };
        assert!(connector(144).is_ok());
        let error = connector(576).unwrap_err().to_string();
        assert!(
            error.contains("`image_token_len`") && error.contains("144"),
            "{error}"
        );
    }

    #[test]
    fn a_plain_language_model_has_no_eyes() {
        let mut json = cambrian_8b();
        json.as_object_mut()
            .unwrap()
            .remove("mm_vision_tower_aux_list");
        assert_eq!(ModelConfig::from_json(&json).unwrap().vision, None);
    }
}
