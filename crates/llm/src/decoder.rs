//! One decoder for the Llama, Phi-3, Mistral and Gemma families.
//!
//! The families differ in constants, not in structure: grouped-query attention with rotary
//! embedding, a gated feed-forward layer, norms before both, a residual around both. Embeddings go
//! in and hidden states come out, so whoever packs visual tokens between words does it outside; a
//! [`LayerHook`] is called after each layer, which is where a connector's in-LLM layers act.

use burn::module::Module;
use burn::prelude::*;
use opabinia_nn::attention::{AttentionMask, attention, merge_heads, split_heads};
use opabinia_nn::rotary::RotaryTable;
use opabinia_nn::{Embedding, GatedMlp, Linear, RmsNorm, Rotary};

use crate::cache::{KvCache, Slot};
use crate::config::{DecoderConfig, DecoderFamily};

/// A decoder-only language model.
#[derive(Module, Debug)]
pub struct Decoder {
    /// Token embeddings.
    pub embed_tokens: Embedding,
    /// The layers, in order.
    pub layers: Vec<DecoderLayer>,
    /// Before the head.
    pub norm: RmsNorm,
    /// Absent where the embedding table is the head.
    pub lm_head: Option<Linear>,
    #[module(skip)]
    config: DecoderConfig,
}

/// One layer.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// Before attention.
    pub input_layernorm: RmsNorm,
    /// Attention.
    pub self_attn: SelfAttention,
    /// Before the feed-forward layer.
    pub post_attention_layernorm: RmsNorm,
    /// The feed-forward layer.
    pub mlp: GatedMlp,
}

/// Grouped-query attention with rotary embedding.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// `hidden → heads · d`.
    pub q_proj: Linear,
    /// `hidden → kv · d`.
    pub k_proj: Linear,
    /// `hidden → kv · d`.
    pub v_proj: Linear,
    /// `heads · d → hidden`.
    pub o_proj: Linear,
    heads: usize,
    kv_heads: usize,
}

/// What happens between two layers.
pub trait LayerHook {
    /// Changes the hidden states that layer `layer` put out.
    ///
    /// # Shapes
    /// - `hidden`: `[b, t, d]`, slots `first_slot .. first_slot + t` of every row
    fn after_layer(&mut self, layer: usize, first_slot: usize, hidden: Tensor<3>) -> Tensor<3>;
}

/// Changes nothing.
#[derive(Debug, Default)]
pub struct NoHook;

impl LayerHook for NoHook {
    fn after_layer(&mut self, _: usize, _: usize, hidden: Tensor<3>) -> Tensor<3> {
        hidden
    }
}

/// The tokens of one forward pass, after those the cache holds.
#[derive(Clone, Debug)]
pub struct Step {
    /// `[b, t, d]`.
    pub embeddings: Tensor<3>,
    /// `b` rows of `t` slots.
    pub slots: Vec<Vec<Slot>>,
}

impl Step {
    /// Sequences without padding that go on at position `start`.
    #[must_use]
    pub fn contiguous(embeddings: Tensor<3>, start: usize) -> Self {
        let [b, t, _] = embeddings.dims();
        let row = (start..start + t).map(Slot::at).collect();
        Self {
            embeddings,
            slots: vec![row; b],
        }
    }
}

/// What all layers of one forward pass share.
#[derive(Clone, Debug)]
pub struct Pass {
    table: RotaryTable,
    mask: AttentionMask,
    /// Slots that were in the cache before.
    pub first_slot: usize,
}

impl Decoder {
    /// A decoder with random weights; nothing is allocated until they are read.
    #[must_use]
    pub fn new(config: &DecoderConfig, device: &Device) -> Self {
        Self {
            embed_tokens: Embedding::new(config.vocab, config.hidden, device),
            layers: (0..config.layers)
                .map(|_| DecoderLayer::new(config, device))
                .collect(),
            norm: norm(config, device),
            lm_head: (!config.tied_head)
                .then(|| Linear::new(config.hidden, config.vocab, false, device)),
            config: config.clone(),
        }
    }

    /// The configuration it was built from.
    #[must_use]
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Looks token embeddings up; `[n]` ids to `[n, d]`.
    #[must_use]
    pub fn embed(&self, ids: &[u32], device: &Device) -> Tensor<2> {
        let ids: Vec<i32> = ids.iter().map(|&id| id.cast_signed()).collect();
        self.embed_tokens
            .forward(Tensor::from_data(ids.as_slice(), device))
    }

    /// Runs the layers over new tokens and remembers their keys and values.
    ///
    /// # Shapes
    /// - `step.embeddings`: `[b, t, d]`
    /// - output: `[b, t, d]`, after the final norm
    ///
    /// # Panics
    /// If the step has another batch than the cache.
    pub fn forward(&self, step: Step, cache: &mut KvCache, hook: &mut dyn LayerHook) -> Tensor<3> {
        let (mut x, pass) = self.begin(step, cache);
        for index in 0..self.layers.len() {
            x = self.layer(index, x, &pass, cache);
            x = hook.after_layer(index, pass.first_slot, x);
        }
        self.norm.forward(x)
    }

    /// The first part of [`forward`](Self::forward): what goes into the first layer, `[b, t, d]`, and
    /// what all layers share. The slots of the step are in the cache afterwards.
    ///
    /// # Panics
    /// If the step has another batch than the cache.
    #[must_use]
    pub fn begin(&self, step: Step, cache: &mut KvCache) -> (Tensor<3>, Pass) {
        let device = step.embeddings.device();
        let positions: Vec<Vec<usize>> = step
            .slots
            .iter()
            .map(|row| row.iter().map(|slot| slot.position).collect())
            .collect();
        let rotary = Rotary::new(
            self.config.head_dim,
            self.config.rope_theta,
            self.config.rope_scaling,
        );
        let pass = Pass {
            table: rotary.table(shared_rows(&positions), &device),
            first_slot: cache.len(),
            mask: cache.extend(&step.slots, self.config.sliding_window, &device),
        };
        let x = match self.config.family {
            DecoderFamily::Gemma => step.embeddings * (self.config.hidden as f64).sqrt(),
            _ => step.embeddings,
        };
        (x, pass)
    }

    /// One layer alone, `[b, t, d]` to `[b, t, d]`, for whoever keeps less than all of them
    /// (gradient checkpointing). The cache is one that [`begin`](Self::begin) has prepared and that
    /// holds the keys of the layers before, or of none.
    #[must_use]
    pub fn layer(&self, index: usize, x: Tensor<3>, pass: &Pass, cache: &mut KvCache) -> Tensor<3> {
        self.layers[index].forward(x, &pass.table, &pass.mask, index, cache)
    }

    /// Scores of the next token; hidden states `[n, d]` to `[n, vocab]`.
    #[must_use]
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => Linear::from_weight(self.embed_tokens.weight.clone()).forward(hidden),
        }
    }
}

/// One row if all are equal, so that tables are made once.
fn shared_rows(positions: &[Vec<usize>]) -> &[Vec<usize>] {
    match positions {
        [first, rest @ ..] if rest.iter().all(|row| row == first) => &positions[..1],
        _ => positions,
    }
}

fn norm(config: &DecoderConfig, device: &Device) -> RmsNorm {
    match config.family {
        DecoderFamily::Gemma => RmsNorm::with_unit_offset(config.hidden, config.norm_eps, device),
        _ => RmsNorm::new(config.hidden, config.norm_eps, device),
    }
}

impl DecoderLayer {
    fn new(config: &DecoderConfig, device: &Device) -> Self {
        Self {
            input_layernorm: norm(config, device),
            self_attn: SelfAttention::new(config, device),
            post_attention_layernorm: norm(config, device),
            mlp: GatedMlp::new(
                config.hidden,
                config.intermediate,
                config.activation,
                device,
            ),
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        table: &RotaryTable,
        mask: &AttentionMask,
        index: usize,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        let normed = self.input_layernorm.forward(x.clone());
        let x = x + self.self_attn.forward(normed, table, mask, index, cache);
        let normed = self.post_attention_layernorm.forward(x.clone());
        x + self.mlp.forward(normed)
    }
}

impl SelfAttention {
    fn new(config: &DecoderConfig, device: &Device) -> Self {
        let linear = |d_in, d_out, bias| Linear::new(d_in, d_out, bias, device);
        let (queries, keys) = (
            config.heads * config.head_dim,
            config.kv_heads * config.head_dim,
        );
        Self {
            q_proj: linear(config.hidden, queries, config.attention_bias),
            k_proj: linear(config.hidden, keys, config.attention_bias),
            v_proj: linear(config.hidden, keys, config.attention_bias),
            o_proj: linear(queries, config.hidden, config.attention_bias),
            heads: config.heads,
            kv_heads: config.kv_heads,
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        table: &RotaryTable,
        mask: &AttentionMask,
        layer: usize,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        let rotated = |x: Tensor<3>, heads: usize| {
            let [b, t, width] = x.dims();
            table
                .rotate(x.reshape([b, t, heads, width / heads]))
                .swap_dims(1, 2)
        };
        let q = rotated(self.q_proj.forward(x.clone()), self.heads);
        let k = rotated(self.k_proj.forward(x.clone()), self.kv_heads);
        let v = split_heads(self.v_proj.forward(x), self.kv_heads);
        let (k, v) = cache.append(layer, k, v);
        self.o_proj.forward(merge_heads(attention(q, k, v, mask)))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;
    use proptest::prelude::*;

    use super::*;

    fn tiny(family: DecoderFamily, sliding_window: Option<usize>) -> DecoderConfig {
        DecoderConfig {
            family,
            hidden: 16,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 4,
            intermediate: 24,
            vocab: 32,
            norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: None,
            tied_head: family == DecoderFamily::Gemma,
            attention_bias: false,
            sliding_window,
            activation: opabinia_nn::Activation::Silu,
            max_position: 128,
        }
    }

    fn values(x: Tensor<3>) -> Vec<f32> {
        x.into_data().try_to_vec().unwrap()
    }

    fn close(a: &[f32], b: &[f32]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Tokens one at a time, in chunks, or all at once: the same hidden states.
        #[test]
        fn cached_decoding_is_full_recomputation(
            length in 2usize..24,
            cut in 1usize..23,
            window in prop::option::of(1usize..12),
            gemma in any::<bool>(),
        ) {
            let device = Device::flex();
            let family = if gemma { DecoderFamily::Gemma } else { DecoderFamily::Llama };
            let model = Decoder::new(&tiny(family, window), &device);
            let x = Tensor::<3>::random([1, length, 16], Distribution::Normal(0.0, 1.0), &device);
            let full = model.forward(
                Step::contiguous(x.clone(), 0), &mut KvCache::new(), &mut NoHook);
            let full = values(full);

            let cut = cut.min(length - 1);
            let mut cache = KvCache::new();
            let mut parts = Vec::new();
            let ranges = std::iter::once(0..cut).chain((cut..length).map(|i| i..i + 1));
            for range in ranges {
                let part = x.clone().slice([0..1, range.clone(), 0..16]);
                let step = Step::contiguous(part, range.start);
                parts.extend(values(model.forward(step, &mut cache, &mut NoHook)));
            }
            prop_assert!(close(&full, &parts));

            // Forgetting the end and saying it again changes nothing.
            cache.truncate(cut);
            let rest = x.slice([0..1, cut..length, 0..16]);
            let rest = model.forward(Step::contiguous(rest, cut), &mut cache, &mut NoHook);
            prop_assert!(close(&full[cut * 16..], &values(rest)));
        }

        /// A batch of two unequal lengths, right-padded, then one more token each: as two singles.
        #[test]
        fn a_padded_batch_is_its_singles(long in 2usize..12, short in 1usize..11) {
            let device = Device::flex();
            let model = Decoder::new(&tiny(DecoderFamily::Llama, None), &device);
            let short = short.min(long);
            let random = |t| Tensor::<3>::random([1, t, 16], Distribution::Normal(0.0, 1.0), &device);
            let (a, b, next_a, next_b) = (random(long), random(short), random(1), random(1));

            let single = |x: Tensor<3>, next: Tensor<3>| {
                let mut cache = KvCache::new();
                let t = x.dims()[1];
                let _ = model.forward(Step::contiguous(x, 0), &mut cache, &mut NoHook);
                values(model.forward(Step::contiguous(next, t), &mut cache, &mut NoHook))
            };
            let expected = [single(a.clone(), next_a.clone()), single(b.clone(), next_b.clone())];

            let padding = Tensor::zeros([1, long - short, 16], &device);
            let padded = if long == short { b } else { Tensor::cat(vec![b, padding], 1) };
            let row = |filled: usize| {
                (0..long).map(|position| Slot { filled: position < filled, ..Slot::at(position) }).collect()
            };
            let mut cache = KvCache::new();
            let step = Step {
                embeddings: Tensor::cat(vec![a, padded], 0),
                slots: vec![row(long), row(short)],
            };
            let _ = model.forward(step, &mut cache, &mut NoHook);
            let step = Step {
                embeddings: Tensor::cat(vec![next_a, next_b], 0),
                slots: vec![
                    vec![Slot::at(long)],
                    vec![Slot::at(short)],
                ],
            };
            let next = values(model.forward(step, &mut cache, &mut NoHook));
            prop_assert!(close(&next, &expected.concat()));
        }
    }

    #[test]
    fn counted_parameters_are_the_modules() {
        for family in [DecoderFamily::Llama, DecoderFamily::Gemma] {
            for attention_bias in [false, true] {
                let config = DecoderConfig {
                    attention_bias,
                    ..tiny(family, None)
                };
                let model = Decoder::new(&config, &Device::flex());
                assert_eq!(model.num_params(), config.parameters());
            }
        }
    }

    /// The differentiable path is the same function, and every parameter gets a gradient.
    #[test]
    fn training_walks_the_same_path() {
        let config = tiny(DecoderFamily::Llama, None);
        let device = Device::flex().autodiff();
        let model = Decoder::new(&config, &device);
        let x = Tensor::<3>::random([1, 5, 16], Distribution::Default, &Device::flex());
        let run = |model: &Decoder, x: Tensor<3>| {
            model.forward(Step::contiguous(x, 0), &mut KvCache::new(), &mut NoHook)
        };
        let trained = run(&model, Tensor::from_inner(x.clone()));
        let grads = model
            .logits(trained.clone().reshape([5, 16]))
            .sum()
            .backward();
        assert!(
            model.layers[0]
                .self_attn
                .k_proj
                .weight
                .val()
                .grad(&grads)
                .is_some()
        );
        let inferred = run(&model.valid(), x);
        assert!(close(&values(trained.inner()), &values(inferred)));
    }
}
