//! From a configuration back to the keys of `config.json`.
//!
//! The keys are those of the released checkpoints, so the reference reads what is written here; what
//! it never looks at while answering (which learning rates it was trained with) is left out, or kept
//! as it was in a file that is written again.

use opabinia_connector::{LayerType, ProjectorKind};
use opabinia_llm::{DecoderConfig, DecoderFamily};
use opabinia_nn::{Activation, Grid, RotaryScaling};
use serde_json::{Map, Value, json};

use crate::ModelConfig;
use crate::config::{ConnectorKeys, VisionConfig};

type Table = Map<String, Value>;

impl ModelConfig {
    /// The keys of `config.json` that say what this configuration says;
    /// [`from_json`](Self::from_json) reads them back.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        let mut table = decoder(&self.decoder);
        table.insert("model_type".into(), json!(self.model_type));
        if let Some(class) = architecture(self) {
            table.insert("architectures".into(), json!([class]));
        }
        let end = match self.end_ids.as_slice() {
            [] => Value::Null,
            [id] => json!(id),
            ids => json!(ids),
        };
        table.insert("eos_token_id".into(), end);
        table.insert("tokenizer_model_max_length".into(), json!(self.max_length));
        table.insert("tokenizer_padding_side".into(), json!("right"));
        if let Some(template) = &self.conversation_template {
            table.insert("conversation_template".into(), json!(template));
        }
        if let Some(vision) = &self.vision {
            table.extend(vision.to_json());
        }
        table
    }
}

/// The class of the reference, or of transformers for a plain language model.
fn architecture(config: &ModelConfig) -> Option<String> {
    let family = match DecoderFamily::by_model_type(&config.model_type)? {
        DecoderFamily::Llama => "Llama",
        DecoderFamily::Phi3 => "Phi3",
        DecoderFamily::Mistral => "Mistral",
        DecoderFamily::Gemma => "Gemma",
    };
    let multimodal = config.model_type.starts_with("cambrian_");
    let prefix = if multimodal { "Cambrian" } else { "" };
    Some(format!("{prefix}{family}ForCausalLM"))
}

fn decoder(config: &DecoderConfig) -> Table {
    let mut table = object(json!({
        "hidden_act": activation(config.activation),
        "hidden_size": config.hidden,
        "intermediate_size": config.intermediate,
        "max_position_embeddings": config.max_position,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": config.norm_eps,
        "rope_scaling": rope_scaling(config.rope_scaling),
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied_head,
        "use_cache": true,
        "vocab_size": config.vocab,
    }));
    if config.family == DecoderFamily::Llama || config.attention_bias {
        table.insert("attention_bias".into(), json!(config.attention_bias));
    }
    if config.head_dim * config.heads != config.hidden || config.family == DecoderFamily::Gemma {
        table.insert("head_dim".into(), json!(config.head_dim));
    }
    if matches!(config.family, DecoderFamily::Phi3 | DecoderFamily::Mistral) {
        table.insert("sliding_window".into(), json!(config.sliding_window));
    }
    table
}

fn activation(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_pytorch_tanh",
        Activation::QuickGelu => "quick_gelu",
        Activation::Silu => "silu",
        Activation::Relu => "relu",
    }
}

fn rope_scaling(scaling: Option<RotaryScaling>) -> Value {
    match scaling {
        None => Value::Null,
        Some(RotaryScaling::Linear { factor }) => json!({"type": "linear", "factor": factor}),
        Some(RotaryScaling::Dynamic { factor, .. }) => {
            json!({"type": "dynamic", "factor": factor})
        }
        Some(RotaryScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position,
        }) => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position,
        }),
    }
}

impl VisionConfig {
    fn to_json(&self) -> Table {
        let lengths: Vec<usize> = self.grids.iter().map(Grid::len).collect();
        let mut table = object(json!({
            "image_aspect_ratio": "pad",
            "image_token_len": self.connector.token_grid().len(),
            "mm_use_im_patch_token": false,
            "mm_use_im_start_end": self.image_marks,
            "mm_vision_select_feature": "patch",
            "mm_vision_select_layer": self.select_layer,
            "mm_vision_tower_aux_list": self.encoders,
            "mm_vision_tower_aux_token_len_list": lengths,
            "use_mm_proj": true,
            "vision_tower_aux_token_len_list": lengths,
        }));
        if let Some(position) = self.image_position {
            table.insert("image_position".into(), json!(position));
        }
        table.extend(self.connector.to_json());
        table
    }
}

impl ConnectorKeys {
    fn to_json(&self) -> Table {
        match self {
            Self::Sva {
                width,
                query_grids,
                depth,
                layer_type,
                in_llm,
                ..
            } => {
                let queries: Vec<usize> = query_grids.iter().map(Grid::len).collect();
                let mut table = object(json!({
                    "connector_depth": depth,
                    "connector_only": in_llm.is_none(),
                    "mm_projector_type": "sva",
                    "num_query_group": queries.len(),
                    "query_num_list": queries,
                    "vision_hidden_size": width,
                }));
                if let Some(layers) = in_llm {
                    table.extend(object(json!({
                        "num_of_vision_sampler_layers": layers.count,
                        "start_of_vision_sampler_layers": layers.start,
                        "stride_of_vision_sampler_layers": layers.stride,
                    })));
                }
                if *layer_type == LayerType::Separate {
                    table.insert("sva_layer_type".into(), json!("sep"));
                }
                table
            }
            // The reference reads the aggregator's keys whatever the connector is.
            Self::Projector { kind, token_grid } => object(json!({
                "connector_depth": 1,
                "connector_only": true,
                "mm_projector_type": projector(*kind),
                "num_query_group": 1,
                "query_num_list": [token_grid.len()],
            })),
        }
    }
}

fn projector(kind: ProjectorKind) -> String {
    match kind {
        ProjectorKind::Linear => "linear".into(),
        ProjectorKind::Mlp { layers } => format!("mlp{layers}x_gelu"),
        ProjectorKind::Identity => "identity".into(),
        ProjectorKind::SqueezeExcite => "se_mlp".into(),
        ProjectorKind::CAbstractor => "CAbstractor".into(),
    }
}

/// The table that a literal is.
fn object(value: Value) -> Table {
    match value {
        Value::Object(table) => table,
        other => panic!("{other} is no table"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use opabinia_connector::InLlmConfig;

    use super::*;

    fn golden(case: &str) -> PathBuf {
        let root = match std::env::var_os("OPABINIA_GOLDEN") {
            Some(root) => root.into(),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
        };
        root.join(case).join("config.json")
    }

    fn read(config: &ModelConfig) -> ModelConfig {
        ModelConfig::from_json(&Value::Object(config.to_json())).unwrap()
    }

    /// What the reference wrote is understood and written with the same keys and values.
    #[test]
    fn the_references_files_are_written_as_they_were() {
        for case in [
            "cambrian_llama_sva",
            "cambrian_llama_g2",
            "cambrian_llama_mlp2x_gelu",
            "cambrian_mistral",
            "cambrian_phi3",
        ] {
            let text = std::fs::read_to_string(golden(case)).unwrap();
            let theirs: Value = serde_json::from_str(&text).unwrap();
            let config = ModelConfig::from_json(&theirs).unwrap();
            assert_eq!(read(&config), config, "{case}");
            for (key, value) in config.to_json() {
                // Written by training, which not every tiny model went through.
                if key != "use_mm_proj" || theirs.get(&key).is_some() {
                    assert_eq!(theirs.get(&key), Some(&value), "{case}: {key}");
                }
            }
        }
    }

    #[test]
    fn every_choice_survives() {
        let text = std::fs::read_to_string(golden("cambrian_llama_sva")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let mut config = ModelConfig::from_json(&json).unwrap();
        config.end_ids = vec![1, 2];
        config.conversation_template = Some("llama_3".into());
        config.decoder.head_dim = 8;
        config.decoder.attention_bias = true;
        for scaling in [
            RotaryScaling::Linear { factor: 2.0 },
            RotaryScaling::Dynamic {
                factor: 2.0,
                max_position: config.decoder.max_position,
            },
            RotaryScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position: 512,
            },
        ] {
            config.decoder.rope_scaling = Some(scaling);
            assert_eq!(read(&config), config);
        }
        let grid = Grid::square(6);
        let connectors = [
            ConnectorKeys::Sva {
                width: 64,
                query_grids: vec![grid, Grid::square(3)],
                token_grid: grid,
                depth: 2,
                layer_type: LayerType::Separate,
                in_llm: None,
            },
            ConnectorKeys::Sva {
                width: 64,
                query_grids: vec![grid],
                token_grid: grid,
                depth: 1,
                layer_type: LayerType::Joint,
                in_llm: Some(InLlmConfig {
                    count: 2,
                    start: 1,
                    stride: 2,
                }),
            },
            ConnectorKeys::Projector {
                kind: ProjectorKind::Mlp { layers: 3 },
                token_grid: grid,
            },
            ConnectorKeys::Projector {
                kind: ProjectorKind::CAbstractor,
                token_grid: grid,
            },
        ];
        for connector in connectors {
            if let Some(vision) = &mut config.vision {
                vision.connector = connector;
                vision.image_position = None;
            }
            assert_eq!(read(&config), config);
        }
    }
}
