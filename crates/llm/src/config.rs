//! What a decoder looks like, read from the `config.json` of its family.

use opabinia_nn::{Activation, RotaryScaling};
use serde::Deserialize;
use serde_json::Value;

/// The decoder families; all are one network with small differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderFamily {
    /// Llama 2 and 3, Vicuna, Yi, Nous-Hermes.
    Llama,
    /// Phi-3: fused projections in the file, a sliding window.
    Phi3,
    /// Mistral: a sliding window.
    Mistral,
    /// Gemma: scaled embeddings, norms that store `weight − 1`, a tied head.
    Gemma,
}

impl DecoderFamily {
    /// Finds a family by `model_type`, with or without the `cambrian_` of multimodal checkpoints.
    #[must_use]
    pub fn by_model_type(model_type: &str) -> Option<Self> {
        Some(
            match model_type.strip_prefix("cambrian_").unwrap_or(model_type) {
                "llama" => Self::Llama,
                "phi3" => Self::Phi3,
                "mistral" => Self::Mistral,
                "gemma" => Self::Gemma,
                _ => return None,
            },
        )
    }

    /// The `model_type`s that [`DecoderFamily::by_model_type`] knows, without prefix.
    pub const MODEL_TYPES: &'static [&'static str] = &["llama", "phi3", "mistral", "gemma"];
}

/// Layers beyond which a configuration is a mistake.
pub const MAX_LAYERS: usize = 1024;

/// Widths, heads and rows beyond which a configuration is a mistake.
const MAX_SIZE: usize = 1 << 20;

/// A decoder's shape and constants.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Which family.
    pub family: DecoderFamily,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width inside the feed-forward layers.
    pub intermediate: usize,
    /// Rows of the embedding table.
    pub vocab: usize,
    /// Of every norm.
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched.
    pub rope_scaling: Option<RotaryScaling>,
    /// Whether the head is the embedding table.
    pub tied_head: bool,
    /// Whether the attention projections have biases.
    pub attention_bias: bool,
    /// Keys this many positions back, and more, are hidden.
    pub sliding_window: Option<usize>,
    /// In the feed-forward layers.
    pub activation: Activation,
    /// Positions the model was trained for.
    pub max_position: usize,
}

/// Why a decoder cannot be built from a configuration.
#[derive(Debug, thiserror::Error)]
pub enum DecoderConfigError {
    /// A key is missing or has the wrong type.
    #[error("`{key}` in the language model's configuration cannot be used")]
    Json {
        /// The key; `.` if it is missing.
        key: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Not a family that is built.
    #[error(
        "`model_type` is `{found}`, and the language models that can be built are {}",
        DecoderFamily::MODEL_TYPES.join(", ")
    )]
    Family {
        /// What the file says.
        found: String,
    },
    /// A value that no network of this kind can have.
    #[error("`{key}` is {found}, but {expected}")]
    Value {
        /// The key in `config.json`.
        key: &'static str,
        /// What it holds.
        found: String,
        /// What it should.
        expected: String,
    },
}

#[derive(Deserialize)]
struct Raw {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: usize,
    vocab_size: usize,
    #[serde(default = "default_eps")]
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    /// The newer spelling of the two above in one table.
    rope_parameters: Option<Value>,
    partial_rotary_factor: Option<f64>,
    #[serde(default)]
    mlp_bias: bool,
    tie_word_embeddings: Option<bool>,
    #[serde(default)]
    attention_bias: bool,
    sliding_window: Option<usize>,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    max_position_embeddings: Option<usize>,
}

fn default_eps() -> f64 {
    1e-6
}

impl DecoderConfig {
    /// Reads the decoder's part of a `config.json`; other keys are somebody else's.
    ///
    /// # Errors
    /// If a key is missing, of the wrong type or of an impossible value.
    pub fn from_json(json: &Value) -> Result<Self, DecoderConfigError> {
        let raw: Raw = read(json, "")?;
        let family = DecoderFamily::by_model_type(&raw.model_type).ok_or_else(|| {
            DecoderConfigError::Family {
                found: raw.model_type.clone(),
            }
        })?;
        let max_position = raw.max_position_embeddings.unwrap_or(2048);
        refuse_unbuilt(&raw)?;
        let heads = sized("num_attention_heads", raw.num_attention_heads)?;
        let head_dim = match raw.head_dim {
            Some(head_dim) => head_dim,
            None => raw.hidden_size / heads,
        };
        let config = Self {
            family,
            hidden: sized("hidden_size", raw.hidden_size)?,
            layers: raw.num_hidden_layers,
            heads,
            kv_heads: sized(
                "num_key_value_heads",
                raw.num_key_value_heads.unwrap_or(heads),
            )?,
            head_dim: sized("head_dim", head_dim)?,
            intermediate: sized("intermediate_size", raw.intermediate_size)?,
            vocab: sized("vocab_size", raw.vocab_size)?,
            norm_eps: raw.rms_norm_eps,
            rope_theta: raw
                .rope_theta
                .or_else(|| raw.rope_parameters.as_ref()?.get("rope_theta")?.as_f64())
                .unwrap_or(10_000.0),
            rope_scaling: rope_scaling(
                raw.rope_scaling.as_ref().or(raw.rope_parameters.as_ref()),
                max_position,
            )?,
            tied_head: raw
                .tie_word_embeddings
                .unwrap_or(family == DecoderFamily::Gemma),
            attention_bias: raw.attention_bias,
            sliding_window: match family {
                DecoderFamily::Phi3 | DecoderFamily::Mistral => raw.sliding_window,
                DecoderFamily::Llama | DecoderFamily::Gemma => None,
            },
            activation: activation(family, raw.hidden_activation.or(raw.hidden_act))?,
            max_position,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), DecoderConfigError> {
        let wrong = |key, found: usize, expected: String| {
            Err(DecoderConfigError::Value {
                key,
                found: found.to_string(),
                expected,
            })
        };
        if !(1..=MAX_LAYERS).contains(&self.layers) {
            let expected = format!("it must be from 1 to {MAX_LAYERS}");
            return wrong("num_hidden_layers", self.layers, expected);
        }
        for (key, value) in [
            ("rms_norm_eps", self.norm_eps),
            ("rope_theta", self.rope_theta),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(DecoderConfigError::Value {
                    key,
                    found: value.to_string(),
                    expected: "it must be a number above 0".into(),
                });
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let expected = format!("it must divide `num_attention_heads`, {}", self.heads);
            return wrong("num_key_value_heads", self.kv_heads, expected);
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(2) {
            let expected = "rotary embedding needs an even width of heads".into();
            return wrong("head_dim", self.head_dim, expected);
        }
        if self.sliding_window == Some(0) {
            return wrong(
                "sliding_window",
                0,
                "a token must at least see itself".into(),
            );
        }
        Ok(())
    }

    /// Parameters of the decoder, the head counted once.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let mut attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads);
        if self.attention_bias {
            attention += self.head_dim * (self.heads + 2 * self.kv_heads) + self.hidden;
        }
        let layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden;
        let tables = if self.tied_head { 1 } else { 2 };
        self.layers * layer + self.hidden + tables * self.vocab * self.hidden
    }

    /// Bytes of keys and values that one token leaves in an f32 cache.
    #[must_use]
    pub fn cache_bytes_per_token(&self) -> usize {
        2 * self.layers * self.kv_heads * self.head_dim * size_of::<f32>()
    }
}

/// Options that change the network and are in no released checkpoint of these families.
fn refuse_unbuilt(raw: &Raw) -> Result<(), DecoderConfigError> {
    let not_built = |key, found: String| {
        let expected = "networks with that option are not built".to_owned();
        Err(DecoderConfigError::Value {
            key,
            found,
            expected,
        })
    };
    match raw.partial_rotary_factor {
        Some(factor) if factor != 1.0 => not_built("partial_rotary_factor", factor.to_string()),
        _ if raw.mlp_bias => not_built("mlp_bias", "true".into()),
        _ => Ok(()),
    }
}

/// Reads a table and names the key that does not fit.
fn read<'a, T: Deserialize<'a>>(json: &'a Value, table: &str) -> Result<T, DecoderConfigError> {
    serde_path_to_error::deserialize(json).map_err(|error| DecoderConfigError::Json {
        key: format!("{table}{}", error.path()),
        source: error.into_inner(),
    })
}

/// A width or a count that some network may have.
fn sized(key: &'static str, value: usize) -> Result<usize, DecoderConfigError> {
    if (1..=MAX_SIZE).contains(&value) {
        return Ok(value);
    }
    Err(DecoderConfigError::Value {
        key,
        found: value.to_string(),
        expected: format!("it must be from 1 to {MAX_SIZE}"),
    })
}

fn activation(
    family: DecoderFamily,
    name: Option<String>,
) -> Result<Activation, DecoderConfigError> {
    let name = match (family, name) {
        // Gemma's first configurations say "gelu" and mean the tanh approximation it was trained
        // with.
        (DecoderFamily::Gemma, _) => return Ok(Activation::GeluTanh),
        (_, Some(name)) => name,
        (_, None) => return Ok(Activation::Silu),
    };
    Activation::by_name(&name).ok_or_else(|| DecoderConfigError::Value {
        key: "hidden_act",
        found: format!("`{name}`"),
        expected: format!("it must be one of {}", Activation::NAMES.join(", ")),
    })
}

#[derive(Deserialize)]
struct RawScaling {
    #[serde(alias = "type")]
    rope_type: String,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
}

fn rope_scaling(
    json: Option<&Value>,
    max_position: usize,
) -> Result<Option<RotaryScaling>, DecoderConfigError> {
    let Some(json) = json.filter(|json| !json.is_null()) else {
        return Ok(None);
    };
    // Newer files hold the kind under both names; either is enough.
    let mut json = json.clone();
    if let Some(map) = json.as_object_mut()
        && map.contains_key("rope_type")
    {
        map.remove("type");
    }
    let raw: RawScaling = read(&json, "rope_scaling.")?;
    let factor = raw.factor.unwrap_or(1.0);
    if !(factor.is_finite() && factor >= 1.0) {
        return Err(DecoderConfigError::Value {
            key: "rope_scaling.factor",
            found: factor.to_string(),
            expected: "it must be a number of at least 1".into(),
        });
    }
    Ok(match raw.rope_type.as_str() {
        "default" => None,
        "linear" => Some(RotaryScaling::Linear { factor }),
        "dynamic" => Some(RotaryScaling::Dynamic {
            factor,
            max_position,
        }),
        "llama3" => Some(RotaryScaling::Llama3 {
            factor,
            low_freq_factor: raw.low_freq_factor.unwrap_or(1.0),
            high_freq_factor: raw.high_freq_factor.unwrap_or(4.0),
            original_max_position: raw.original_max_position_embeddings.unwrap_or(8192),
        }),
        other => {
            return Err(DecoderConfigError::Value {
                key: "rope_scaling.type",
                found: format!("`{other}`"),
                expected: "the kinds that are built are default, linear, dynamic and llama3".into(),
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn llama() -> Value {
        json!({
            "model_type": "cambrian_llama", "hidden_size": 4096, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
            "vocab_size": 128_256, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0,
            "rope_scaling": null, "tie_word_embeddings": false, "hidden_act": "silu"
        })
    }

    /// The published count of Llama-3-8B.
    #[test]
    fn llama_3_8b_has_eight_billion_parameters() {
        let config = DecoderConfig::from_json(&llama()).unwrap();
        assert_eq!(config.parameters(), 8_030_261_248);
        assert_eq!(config.head_dim, 128);
    }

    #[test]
    fn errors_name_the_key() {
        let with = |key: &str, value: Value| {
            let mut json = llama();
            json[key] = value;
            DecoderConfig::from_json(&json).unwrap_err().to_string()
        };
        assert!(with("num_key_value_heads", json!(5)).contains("num_key_value_heads"));
        assert!(with("num_attention_heads", json!(0)).contains("num_attention_heads"));
        assert!(with("model_type", json!("bloom")).contains("bloom"));
        assert!(with("hidden_act", json!("snake")).contains("snake"));
        assert!(with("rope_scaling", json!({"type": "yarn"})).contains("yarn"));
        assert!(with("vocab_size", json!("many")).contains("`vocab_size`"));
    }

    #[test]
    fn options_that_are_not_built_are_refused() {
        for (key, value) in [
            ("partial_rotary_factor", json!(0.75)),
            ("mlp_bias", json!(true)),
        ] {
            let mut json = llama();
            json[key] = value;
            let error = DecoderConfig::from_json(&json).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    /// transformers 5 writes base and scaling in one table.
    #[test]
    fn the_newer_spelling_of_rotary_settings_means_the_same() {
        let mut old = llama();
        old["rope_scaling"] = json!({"rope_type": "llama3", "factor": 8.0});
        let mut new = llama();
        let keys = new.as_object_mut().unwrap();
        keys.remove("rope_theta");
        keys.remove("rope_scaling");
        new["rope_parameters"] =
            json!({"rope_theta": 500_000.0, "rope_type": "llama3", "factor": 8.0});
        assert_eq!(
            DecoderConfig::from_json(&old).unwrap(),
            DecoderConfig::from_json(&new).unwrap()
        );
        new["rope_parameters"] = json!({"rope_theta": 500_000.0, "rope_type": "default"});
        assert_eq!(
            DecoderConfig::from_json(&llama()).unwrap(),
            DecoderConfig::from_json(&new).unwrap()
        );
    }

    #[test]
    fn rope_scaling_is_read_in_both_spellings() {
        let mut json = llama();
        json["rope_scaling"] = json!({"type": "linear", "factor": 2.0});
        let config = DecoderConfig::from_json(&json).unwrap();
        assert_eq!(
            config.rope_scaling,
            Some(RotaryScaling::Linear { factor: 2.0 })
        );
        json["rope_scaling"] = json!({"type": "x", "rope_type": "llama3", "factor": 8.0});
        assert!(matches!(
            DecoderConfig::from_json(&json).unwrap().rope_scaling,
            Some(RotaryScaling::Llama3 { factor: 8.0, .. })
        ));
    }
}
