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
const ALL_LAYERS: usize = 32;
/// Layers that are built.
const LAYERS: usize = 4;
/// Tokens of the prompt: a square picture's visual tokens and row ends, and a question.
const PROMPT: usize = 700;
/// Tokens that a pass decodes after the prompt.
const ANSWER: usize = 8;

fn config(smoke: bool) -> DecoderConfig {
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
        // The embedding table is only a lookup; as the head it is the one large matrix beside the
        // layers.
        tied_head: true,
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
    let model = Model {
        decoder: fill(Decoder::new(&config(smoke), device), dtype),
        prompt: activations([1, if smoke { PROMPT / 10 } else { PROMPT }, 4096], device),
    };
    match name {
        "prefill" => Ok(prefill(model)),
        "decode" => decode(model),
        _ => Err(format!("there is no language model workload `{name}`").into()),
    }
}

struct Model {
    decoder: Decoder,
    /// `[1, t, d]`.
    prompt: Tensor<3>,
}

/// Seconds of the layers that were built and of the head.
#[derive(Default)]
struct Parts {
    layers: f64,
    head: f64,
}

impl Model {
    fn prompt_len(&self) -> usize {
        self.prompt.dims()[1]
    }

    /// What the whole model would take.
    fn scaled(&self, parts: &Parts) -> f64 {
        let built = self.decoder.config().layers;
        parts.layers * ALL_LAYERS as f64 / built as f64 + parts.head
    }

    /// Runs embeddings `[1, t, d]` and the head on the last of them.
    fn run(&self, embeddings: Tensor<3>, cache: &mut KvCache, parts: &mut Parts) -> Fallible<()> {
        let device = embeddings.device();
        let [_, t, d] = embeddings.dims();
        let start = Instant::now();
        let step = Step::contiguous(embeddings, cache.len());
        let hidden = self.decoder.forward(step, cache, &mut NoHook);
        device.sync()?;
        parts.layers += start.elapsed().as_secs_f64();

        let start = Instant::now();
        let last = hidden.slice([0..1, t - 1..t, 0..d]).reshape([1, d]);
        let _logits = self.decoder.logits(last);
        device.sync()?;
        parts.head += start.elapsed().as_secs_f64();
        Ok(())
    }
}

/// The whole prompt at once.
fn prefill(model: Model) -> Workload {
    Workload {
        parameters: count(&model.decoder),
        amount: model.prompt_len() as f64,
        losses: Vec::new(),
        pass: Box::new(move || {
            let mut parts = Parts::default();
            model.run(model.prompt.clone(), &mut KvCache::new(), &mut parts)?;
            Ok(model.scaled(&parts))
        }),
    }
}

/// One token at a time, after the prompt.
fn decode(model: Model) -> Fallible<Workload> {
    let mut cache = KvCache::new();
    model.run(model.prompt.clone(), &mut cache, &mut Parts::default())?;
    let token = model.prompt.clone().slice([0..1, 0..1, 0..4096]);
    Ok(Workload {
        parameters: count(&model.decoder),
        amount: ANSWER as f64,
        losses: Vec::new(),
        pass: Box::new(move || {
            let mut parts = Parts::default();
            for _ in 0..ANSWER {
                model.run(token.clone(), &mut cache, &mut parts)?;
            }
            cache.truncate(model.prompt_len());
            Ok(model.scaled(&parts))
        }),
    })
}
