//! Models in GGUF files: a configuration out of the file's metadata.
//!
//! A folder with a GGUF file and a `config.json` is a model folder like any other. Without that file the
//! metadata are turned into one, so that everything behind it is the same; the vocabulary is not, and a
//! tokenizer has to lie beside.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use opabinia_llm::{Tokenizer, TokenizerError};
use opabinia_weights::Checkpoint;
use serde_json::{Map, Value, json};

use crate::ModelError;

/// Keys of the published checkpoints, which a GGUF file is read under.
const EMBEDDINGS: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
/// The table of `llama.cpp` for Llama 3.1's rotary scaling.
const FREQUENCIES: &str = "rope_freqs.weight";

/// What a `config.json` would say, where a folder has a GGUF file in its place.
///
/// # Errors
/// If the file cannot be read, or lacks what a decoder needs.
pub(crate) fn config_of(folder: &Path) -> Result<Option<Map<String, Value>>, ModelError> {
    if folder.join("config.json").exists() || !has_file(folder) {
        return Ok(None);
    }
    let checkpoint = Checkpoint::open(folder)?;
    checkpoint
        .is_gguf()
        .then(|| config(&checkpoint))
        .transpose()
}

/// The tokenizer of a model folder.
///
/// # Errors
/// As [`Tokenizer::from_folder`]; with a GGUF file it is said where a tokenizer comes from.
pub(crate) fn tokenizer(folder: &Path) -> Result<Tokenizer, ModelError> {
    Tokenizer::from_folder(folder).map_err(|error| match error {
        TokenizerError::Missing { folder } if has_file(&folder) => {
            ModelError::GgufTokenizer { folder }
        }
        other => other.into(),
    })
}

/// Whether a folder has a GGUF file.
fn has_file(folder: &Path) -> bool {
    let is_one = |path: &Path| {
        path.extension()
            .is_some_and(|extension| extension == "gguf")
    };
    std::fs::read_dir(folder)
        .is_ok_and(|entries| entries.flatten().any(|entry| is_one(&entry.path())))
}

fn config(checkpoint: &Checkpoint) -> Result<Map<String, Value>, ModelError> {
    if checkpoint.contains(FREQUENCIES) {
        return Err(ModelError::Gguf {
            key: FREQUENCIES.into(),
            found: "there".into(),
            expected:
                "how rotary frequencies are stretched is said by the `config.json` of the model \
                       that the file was made from; put it beside the file"
                    .into(),
        });
    }
    let metadata = Metadata(checkpoint.metadata());
    let vocab = checkpoint
        .info(EMBEDDINGS)
        .and_then(|info| info.shape.first().copied());
    let vocab = vocab.ok_or_else(|| missing("token_embd.weight"))?;
    let heads: usize = metadata.required("llama.attention.head_count")?;
    let hidden: usize = metadata.required("llama.embedding_length")?;
    let head_dim = metadata
        .number("llama.attention.key_length")?
        .or_else(|| hidden.checked_div(heads))
        .unwrap_or_default();
    let kv_heads: usize = metadata
        .number("llama.attention.head_count_kv")?
        .unwrap_or(heads);
    let rotated: usize = metadata
        .number("llama.rope.dimension_count")?
        .unwrap_or(head_dim);
    let mut table = Map::new();
    let mut put = |key: &str, value: Value| table.insert(key.to_owned(), value);
    put("model_type", json!("llama"));
    put("hidden_size", json!(hidden));
    put(
        "num_hidden_layers",
        json!(metadata.required::<usize>("llama.block_count")?),
    );
    put("num_attention_heads", json!(heads));
    put("num_key_value_heads", json!(kv_heads));
    put("head_dim", json!(head_dim));
    put(
        "intermediate_size",
        json!(metadata.required::<usize>("llama.feed_forward_length")?),
    );
    put("vocab_size", json!(vocab));
    put("tie_word_embeddings", json!(!checkpoint.contains(HEAD)));
    put(
        "max_position_embeddings",
        json!(metadata.required::<usize>("llama.context_length")?),
    );
    let eps: f64 = metadata.required("llama.attention.layer_norm_rms_epsilon")?;
    put("rms_norm_eps", json!(eps));
    if let Some(base) = metadata.number::<f64>("llama.rope.freq_base")? {
        put("rope_theta", json!(base));
    }
    if rotated != head_dim {
        put(
            "partial_rotary_factor",
            json!(rotated as f64 / head_dim.max(1) as f64),
        );
    }
    put("rope_scaling", metadata.scaling()?);
    let mut ends = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
        ends.extend(metadata.number::<u32>(key)?);
    }
    ends.dedup();
    if !ends.is_empty() {
        put("eos_token_id", json!(ends));
    }
    if let Some(id) = metadata.number::<u32>("tokenizer.ggml.bos_token_id")? {
        put("bos_token_id", json!(id));
    }
    Ok(table)
}

/// The metadata of a GGUF file.
struct Metadata<'a>(&'a BTreeMap<String, String>);

impl Metadata<'_> {
    fn number<T: FromStr>(&self, key: &str) -> Result<Option<T>, ModelError> {
        let Some(text) = self.0.get(key) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| ModelError::Gguf {
            key: key.into(),
            found: format!("`{text}`"),
            expected: "it must be a number".into(),
        })
    }

    fn required<T: FromStr>(&self, key: &str) -> Result<T, ModelError> {
        self.number(key)?.ok_or_else(|| missing(key))
    }

    /// `rope_scaling` as `config.json` has it.
    fn scaling(&self) -> Result<Value, ModelError> {
        let kind = self.0.get("llama.rope.scaling.type").map(String::as_str);
        Ok(match kind {
            None | Some("none") => Value::Null,
            Some(kind) => {
                let factor: f64 = self.required("llama.rope.scaling.factor")?;
                json!({"type": kind, "factor": factor})
            }
        })
    }
}

fn missing(key: &str) -> ModelError {
    ModelError::Gguf {
        key: key.into(),
        found: "missing".into(),
        expected: "no decoder can be built without it".into(),
    }
}
