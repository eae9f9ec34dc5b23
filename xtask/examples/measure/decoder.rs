//! A language model of the shape of Llama-3 8B.
//!
//! All 32 layers are the same and do not fit into every memory, so [`LAYERS`] of them are timed
//! and stand for all; the output head is there once and timed apart:
//! `seconds = layers · 32 / LAYERS + head`.

use std::time::Instant;

use burn::prelude::*;
use opabinia_llm::{Decoder, DecoderConfig, DecoderFamily, KvCache, NoHook, Step};
use opabinia_nn::Activation;

use crate::weights::{activations, count, fill};
use crate::{Fallible, WeightFormat, Workload};

/// Layers of the whole model.
pub(crate) const ALL_LAYERS: usize = 32;
/// Layers that are built.
const LAYERS: usize = 4;
/// Tokens of the prompt: a square picture's visual tokens and row ends, and a question.
const PROMPT: usize = 700;
/// Tokens that a pass decodes after the prompt.
const ANSWER: usize = 8;
/// Tokens of a question that follows another one about the same picture.
const FOLLOWS: usize = 50;
/// Tokens of the answer to a whole question.
const WHOLE_ANSWER: usize = 64;
/// Conversations that are answered together.
const BATCH: usize = 8;
/// How many times as long the long prompt is.
const LONGER: usize = 4;

/// What of a prompt has to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prompt {
    /// All of it.
    Whole,
    /// The last tokens; those before are in the cache.
    Follows,
}

pub(crate) fn config(smoke: bool) -> DecoderConfig {
    DecoderConfig {
        family: DecoderFamily::Llama,
        hidden: 4096,
        layers: if smoke { 1 } else { LAYERS },
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        intermediate: 14_336,
        vocab: if smoke { 1024 } else { 128_256 },
        norm_eps: 1e-5,
        rope_theta: 500_000.0,
        rope_scaling: None,
        tied_head: false,
        attention_bias: false,
        sliding_window: None,
        activation: Activation::Silu,
        max_position: 8192,
    }
}

pub(crate) fn workload(
    name: &str,
    dtype: WeightFormat,
    smoke: bool,
    device: &Device,
) -> Fallible<Workload> {
    let model = |rows, times| Model::new(rows, times, dtype, smoke, device);
    match name {
        "prefill" => Ok(prefill(model(1, 1))),
        "prefill-long" => Ok(prefill(model(1, LONGER))),
        "decode" => decode(model(1, 1), Guesses::None),
        "guesses" => decode(model(1, 1), Guesses::AllRight),
        "batch" => decode(model(BATCH, 1), Guesses::None),
        _ => Err(format!("there is no language model workload `{name}`").into()),
    }
}

/// How an answer is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guesses {
    /// One token at a time.
    None,
    /// All tokens of it at once: after the first, each was guessed, and each guess was right.
    AllRight,
}

struct Model {
    decoder: Decoder,
    /// `[b, t, d]`.
    prompt: Tensor<3>,
}

/// Seconds of the layers that were built and of the head.
#[derive(Default)]
struct Parts {
    layers: f64,
    head: f64,
}

impl Model {
    /// With prompts of `times` · [`PROMPT`] tokens.
    fn new(rows: usize, times: usize, dtype: WeightFormat, smoke: bool, device: &Device) -> Self {
        let tokens = times * if smoke { PROMPT / 10 } else { PROMPT };
        Self {
            decoder: fill(Decoder::new(&config(smoke), device), dtype),
            prompt: activations([rows, tokens, 4096], device),
        }
    }

    /// The first tokens of every row, `[b, n, d]`.
    fn tokens(&self, n: usize) -> Tensor<3> {
        let [rows, _, width] = self.prompt.dims();
        self.prompt.clone().slice([0..rows, 0..n, 0..width])
    }

    /// Decodes [`ANSWER`] tokens of every row; what the cache had before is what it has after.
    fn decode(&self, guesses: Guesses, cache: &mut KvCache) -> Fallible<Parts> {
        let (before, mut parts) = (cache.len(), Parts::default());
        let at_once = match guesses {
            Guesses::None => 1,
            Guesses::AllRight => ANSWER,
        };
        for _ in 0..ANSWER / at_once {
            self.run(self.tokens(at_once), at_once, cache, &mut parts)?;
        }
        cache.truncate(before);
        Ok(parts)
    }

    /// Without the embedding table, which is a lookup and stays unmade.
    fn parameters(&self) -> u64 {
        let config = self.decoder.config();
        count(&self.decoder) - (config.vocab * config.hidden) as u64
    }

    fn prompt_len(&self) -> usize {
        self.prompt.dims()[1]
    }

    /// What the whole model would take.
    fn scaled(&self, parts: &Parts) -> f64 {
        let built = self.decoder.config().layers;
        parts.layers * ALL_LAYERS as f64 / built as f64 + parts.head
    }

    /// Runs embeddings `[b, t, d]`, and the head on the last `scored` of them.
    fn run(
        &self,
        embeddings: Tensor<3>,
        scored: usize,
        cache: &mut KvCache,
        parts: &mut Parts,
    ) -> Fallible<()> {
        let device = embeddings.device();
        let [b, t, d] = embeddings.dims();
        let start = Instant::now();
        let step = Step::contiguous(embeddings, cache.len());
        let hidden = self.decoder.forward(step, cache, &mut NoHook);
        device.sync()?;
        parts.layers += start.elapsed().as_secs_f64();

        let start = Instant::now();
        let last = hidden.slice([0..b, t - scored..t, 0..d]);
        let last = last.reshape([b * scored, d]);
        let _logits = self.decoder.logits(last);
        device.sync()?;
        parts.head += start.elapsed().as_secs_f64();
        Ok(())
    }
}

/// The whole prompt at once.
fn prefill(model: Model) -> Workload {
    Workload {
        parameters: model.parameters(),
        amount: model.prompt_len() as f64,
        losses: Vec::new(),
        pass: Box::new(move || {
            let mut parts = Parts::default();
            model.run(model.prompt.clone(), 1, &mut KvCache::new(), &mut parts)?;
            Ok(model.scaled(&parts))
        }),
    }
}

/// [`ANSWER`] tokens of every row, after the prompt.
fn decode(model: Model, guesses: Guesses) -> Fallible<Workload> {
    let mut cache = KvCache::new();
    model.run(model.prompt.clone(), 1, &mut cache, &mut Parts::default())?;
    Ok(Workload {
        parameters: model.parameters(),
        amount: (ANSWER * model.prompt.dims()[0]) as f64,
        losses: Vec::new(),
        pass: Box::new(move || Ok(model.scaled(&model.decode(guesses, &mut cache)?))),
    })
}

/// A prompt, or the end of one, and an answer of [`WHOLE_ANSWER`] tokens, of which a few are run.
pub(crate) fn answer(
    prompt: Prompt,
    dtype: WeightFormat,
    smoke: bool,
    device: &Device,
) -> Fallible<Workload> {
    let model = Model::new(1, 1, dtype, smoke, device);
    let [_, tokens, width] = model.prompt.dims();
    let known = match prompt {
        Prompt::Whole => 0,
        Prompt::Follows => tokens.saturating_sub(FOLLOWS),
    };
    let part = |range| model.prompt.clone().slice([0..1, range, 0..width]);
    let mut cache = KvCache::new();
    if known > 0 {
        model.run(part(0..known), 1, &mut cache, &mut Parts::default())?;
    }
    let unread = part(known..tokens);
    Ok(Workload {
        parameters: model.parameters(),
        amount: 1.0,
        losses: Vec::new(),
        pass: Box::new(move || {
            let mut parts = Parts::default();
            model.run(unread.clone(), 1, &mut cache, &mut parts)?;
            let answer = model.decode(Guesses::None, &mut cache)?;
            cache.truncate(known);
            let times = WHOLE_ANSWER as f64 / ANSWER as f64;
            Ok(model.scaled(&parts) + times * model.scaled(&answer))
        }),
    })
}
