//! Next-token training of a Llama-shaped decoder on texts.
//!
//! The decoder is [`opabinia_llm::Decoder`], the one that answers; its folder is an ordinary Llama
//! checkpoint. Weights start normal with deviation `1 / √hidden`, with the two projections that write
//! into the residual stream scaled by `1 / √(2 · layers)`, as in GPT-2. (The usual 0.02 is that of a
//! hidden width of 2500. In a narrow decoder it makes the first scores of attention vanish, and so the
//! gradients that would make a token look at a picture.) [`FirstWeights`] has another start for the
//! attention. How texts become rows is said in [`super::documents`].

use std::path::Path;

use burn::module::Module;
use burn::prelude::*;
use opabinia_data::order::shuffled;
use opabinia_llm::{ChatTemplate, Decoder, DecoderConfig, KvCache, NoHook, Step, Tokenizer};
use opabinia_model::keys;
use opabinia_nn::cross_entropy;
use opabinia_weights::{CheckpointWriter, WeightDtype};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::documents::{Row, documents, pack};
use super::folder::write_json;
use super::mimetic::Mimetic;
use super::start::{Start, plain, start};
use crate::{BatchSize, LossSum, Task, TrainError};

/// What the attention of a new decoder starts as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirstWeights {
    /// Random, as all else.
    #[default]
    Normal,
    /// As training on much would make it (arXiv 2305.09828): the queries of a head equal its keys, so
    /// that a token looks at tokens like itself, and the output projection is the transpose of the
    /// values, so that it takes over what it sees. A small decoder that reads little finds the
    /// answer to *What colour is the ball?* at the ball much sooner from here.
    Mimetic,
}

/// The sizes of a decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderSizes {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width inside the feed-forward layers.
    pub intermediate: usize,
    /// Positions that the model is made for.
    pub max_position: usize,
    /// Base of the rotary frequencies.
    #[serde(default = "default_theta")]
    pub rope_theta: f64,
    /// Whether the head is the embedding table.
    #[serde(default)]
    pub tied_head: bool,
    /// What its attention starts as.
    #[serde(default)]
    pub attention: FirstWeights,
}

fn default_theta() -> f64 {
    10_000.0
}

impl DecoderSizes {
    /// `config.json` of a Llama of these sizes, for transformers.
    #[must_use]
    pub fn config_json(&self, tokenizer: &Tokenizer, template: &str) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": tokenizer.bos_id(),
            "conversation_template": template,
            "eos_token_id": tokenizer.eos_id(),
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": first_deviation(self.hidden),
            "intermediate_size": self.intermediate,
            "max_position_embeddings": self.max_position,
            "mlp_bias": false,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pad_token_id": tokenizer.pad_id(),
            "rms_norm_eps": 1e-5,
            "rope_scaling": null,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tied_head,
            "use_cache": true,
            "vocab_size": tokenizer.vocab_size(),
        })
    }

    /// The decoder's configuration, read from that file like any other.
    ///
    /// # Errors
    /// If the sizes do not fit each other.
    pub fn decoder(&self, tokenizer: &Tokenizer) -> Result<DecoderConfig, TrainError> {
        if self.heads == 0 || !self.hidden.is_multiple_of(self.heads) {
            return Err(TrainError::Refused(format!(
                "{} heads do not divide the decoder's width, {}",
                self.heads, self.hidden
            )));
        }
        DecoderConfig::from_json(&self.config_json(tokenizer, ""))
            .map_err(|source| TrainError::Refused(format!("the decoder's sizes: {source}")))
    }
}

/// Next-token training on packed rows.
#[derive(Debug)]
pub struct LanguageTask {
    rows: Vec<Row>,
    length: usize,
    config: DecoderConfig,
    sizes: DecoderSizes,
    tokenizer: Tokenizer,
}

/// A micro-batch: rows of equal length, padded on the right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguageBatch {
    /// Rows.
    rows: usize,
    /// Tokens of a row.
    length: usize,
    /// `rows · length` ids.
    tokens: Vec<u32>,
    /// Places, in the flattened batch, of tokens whose successor is trained.
    places: Vec<i32>,
    /// Those successors.
    targets: Vec<u32>,
}

impl LanguageTask {
    /// Tokenizes and packs `texts` into rows of `length` tokens.
    ///
    /// # Errors
    /// If the sizes do not fit each other or `length`, or if there is no text to train on.
    pub fn new<S: AsRef<str> + Sync>(
        sizes: DecoderSizes,
        tokenizer: Tokenizer,
        texts: &[S],
        length: usize,
        seed: u64,
    ) -> Result<Self, TrainError> {
        if length < 2 || length > sizes.max_position {
            return Err(TrainError::Refused(format!(
                "rows of {length} tokens do not fit a decoder for {} positions (at least 2)",
                sizes.max_position
            )));
        }
        let config = sizes.decoder(&tokenizer)?;
        let rows = pack(documents(&tokenizer, texts)?, length, seed);
        if rows.iter().all(|row| row.targets() == 0) {
            return Err(TrainError::Refused(format!(
                "the {} texts to train the decoder on hold no tokens",
                texts.len()
            )));
        }
        Ok(Self {
            rows,
            length,
            config,
            sizes,
            tokenizer,
        })
    }

    /// A decoder with first weights.
    #[must_use]
    pub fn module(&self, seed: u64, device: &Device) -> Decoder {
        first_decoder(&self.config, self.sizes.attention, seed, device)
    }

    /// Trained tokens of an epoch.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.rows.iter().map(Row::targets).sum()
    }

    /// Writes the decoder as a Llama checkpoint: `config.json`, `generation_config.json`,
    /// `model.safetensors`. The tokenizer's files, of which `tokenizer_folder` has the originals,
    /// are copied beside. The weights come last, so a folder that has them is complete.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn finish(
        &self,
        module: &Decoder,
        template: &ChatTemplate,
        tokenizer_folder: &Path,
        folder: &Path,
        dtype: WeightDtype,
    ) -> Result<(), TrainError> {
        let mut config = self.sizes.config_json(&self.tokenizer, &template.name);
        config["torch_dtype"] = json!(dtype.torch_name().unwrap_or("float32"));
        write_json(folder, "config.json", &config)?;
        write_json(
            folder,
            "generation_config.json",
            &self.generation_json(template),
        )?;
        copy_tokenizer(tokenizer_folder, folder)?;
        let mut writer = CheckpointWriter::new(dtype);
        writer.add(&module.valid(), &keys::decoder(&self.config))?;
        writer.write_folder(folder)?;
        Ok(())
    }

    /// What ends an answer: the end of a document, and the template's end of a turn.
    fn generation_json(&self, template: &ChatTemplate) -> Value {
        let end = template.answer_end();
        let end = end.and_then(|marker| self.tokenizer.token_to_id(&marker));
        let mut ends: Vec<u32> = self.tokenizer.eos_id().into_iter().chain(end).collect();
        ends.dedup();
        json!({
            "bos_token_id": self.tokenizer.bos_id(),
            "do_sample": false,
            "eos_token_id": ends,
            "pad_token_id": self.tokenizer.pad_id(),
        })
    }
}

/// Standard deviation of first weights.
fn first_deviation(hidden: usize) -> f64 {
    (hidden as f64).powf(-0.5)
}

/// A decoder with the first weights of the module documentation.
#[must_use]
pub fn first_decoder(
    config: &DecoderConfig,
    attention: FirstWeights,
    seed: u64,
    device: &Device,
) -> Decoder {
    let deviation = first_deviation(config.hidden);
    let residual = deviation / (2.0 * config.layers as f64).sqrt();
    let mimetic = Mimetic::new(config, seed);
    start(Decoder::new(config, device), seed, |path, shape| {
        if attention == FirstWeights::Mimetic
            && let Some(values) = mimetic.values(path)
        {
            return Start::Values(values);
        }
        let writes = path.ends_with(".o_proj.weight") || path.ends_with(".down_proj.weight");
        plain(
            path,
            shape,
            Start::Normal(if writes { residual } else { deviation }),
        )
    })
}

fn copy_tokenizer(from: &Path, to: &Path) -> Result<(), TrainError> {
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let (source, target) = (from.join(name), to.join(name));
        if source == target {
            continue;
        }
        std::fs::copy(&source, &target).map_err(|error| TrainError::Io {
            doing: "copy",
            path: source,
            source: error,
        })?;
    }
    Ok(())
}

impl Task for LanguageTask {
    type Module = Decoder;
    type Batch = LanguageBatch;

    fn samples(&self) -> usize {
        self.rows.len()
    }

    fn plan(&self, seed: u64, epoch: usize, batch: usize) -> Vec<Vec<u32>> {
        shuffled(self.rows.len(), batch.max(1), seed, epoch)
    }

    fn load(
        &self,
        samples: &[u32],
        _random: &mut ChaCha8Rng,
    ) -> Result<Option<LanguageBatch>, TrainError> {
        let rows: Vec<&Row> = samples
            .iter()
            .filter_map(|&sample| self.rows.get(sample as usize))
            .collect();
        // Nothing is gained by padding further than the longest row.
        let length = rows.iter().map(|row| row.tokens.len()).max().unwrap_or(0);
        let length = length.min(self.length);
        let pad = self.tokenizer.pad_id().unwrap_or(0);
        let mut batch = LanguageBatch {
            rows: rows.len(),
            length,
            tokens: Vec::with_capacity(rows.len() * length),
            places: Vec::new(),
            targets: Vec::new(),
        };
        for (index, row) in rows.iter().enumerate() {
            batch.tokens.extend(&row.tokens);
            batch.tokens.resize((index + 1) * length, pad);
            for (place, &token) in row.tokens.iter().enumerate() {
                if row.trained[place] {
                    batch.places.push((index * length + place - 1) as i32);
                    batch.targets.push(token);
                }
            }
        }
        Ok((!batch.targets.is_empty()).then_some(batch))
    }

    fn terms(&self, batch: &LanguageBatch) -> usize {
        batch.targets.len()
    }

    fn size(&self, batch: &LanguageBatch) -> BatchSize {
        BatchSize {
            samples: batch.rows,
            tokens: batch.tokens.len(),
            pictures: 0,
        }
    }

    fn loss(
        &self,
        module: &Decoder,
        batch: &LanguageBatch,
        device: &Device,
    ) -> Result<LossSum, TrainError> {
        let width = module.config().hidden;
        let embeddings = module.embed(&batch.tokens, device);
        let step = Step::contiguous(embeddings.reshape([batch.rows, batch.length, width]), 0);
        let hidden = module.forward(step, &mut KvCache::new(), &mut NoHook);
        let places = Tensor::<1, Int>::from_data(batch.places.as_slice(), device);
        let hidden = hidden
            .reshape([batch.rows * batch.length, width])
            .select(0, places);
        Ok(LossSum {
            sum: cross_entropy(module.logits(hidden), &batch.targets).sum(),
            metrics: Vec::new(),
        })
    }
}
