//! Attention in blocks of queries: scores, softmax and sum of one block stay in cache.
//!
//! Heads are read where they lie, whatever the strides, so nothing is permuted before; the output is
//! written with the heads of a position side by side, which is how it is used after. Keys that a
//! mask hides from a whole block are not even multiplied. For the backward pass only the
//! logarithm of each row's sum is kept, and scores are computed again (FlashAttention-2, arXiv
//! 2307.08691, section 3.1).

mod backward;
mod few;
mod forward;
mod seen;
mod softmax;
mod view;

use burn::backend::Flex;
use burn::prelude::*;

use super::values::{Plain, contiguous, from_values, plain, tensor};
use crate::AttentionMask;
use view::{Hidden, View};

/// Queries up to which they are taken one by one. A query's result then does not depend on the others,
/// which checking guessed tokens needs: as many as rows of which products are so.
const FEW_QUERIES: usize = super::FEW_ROWS;

/// Queries of a block under a mask: the fewer, the more keys are hidden from all of them.
const MASKED_BLOCK: usize = 32;

/// The sizes of one call.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    heads: usize,
    /// Query heads that share a key head.
    group: usize,
    queries: usize,
    keys: usize,
    d: usize,
    d_value: usize,
    causal: bool,
}

impl Sizes {
    /// Keys that the query may see, if nothing else hides them.
    fn reach(&self, query: usize) -> usize {
        if self.causal {
            (query + 1 + self.keys)
                .saturating_sub(self.queries)
                .min(self.keys)
        } else {
            self.keys
        }
    }

    fn key_heads(&self) -> usize {
        self.heads / self.group
    }

    /// What scores are multiplied by.
    fn scale(&self) -> f32 {
        1.0 / (self.d as f32).sqrt()
    }

    /// Queries that are looked at together, so that their scores number about `scores`; fewer where a
    /// mask may hide keys from all of them.
    fn block(&self, scores: usize, masked: bool) -> usize {
        let most = if masked { MASKED_BLOCK } else { 128 };
        (scores / self.keys.max(1)).clamp(8, most).min(self.queries)
    }
}

/// One call: what attends to what.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    q: Plain,
    k: Plain,
    v: Plain,
    hidden: Option<(Plain, [usize; 3])>,
    sizes: Sizes,
}

impl Attention {
    /// # Panics
    /// If the shapes do not fit, or the mask is not on the CPU: wiring mistakes.
    pub(crate) fn new(q: Plain, k: Plain, v: Plain, mask: &AttentionMask) -> Self {
        let dims = |x: &Plain| -> [usize; 4] { std::array::from_fn(|i| x.layout().shape()[i]) };
        let ([b, heads, queries, d], [_, kv_heads, keys, _]) = (dims(&q), dims(&k));
        let d_value = dims(&v)[3];
        assert_eq!(
            dims(&k),
            [b, kv_heads, keys, d],
            "keys that do not fit the queries"
        );
        assert_eq!(
            dims(&v),
            [b, kv_heads, keys, d_value],
            "values that do not fit the keys"
        );
        let hidden = match mask {
            AttentionMask::Hidden(hidden) => Some(hidden_keys(hidden.clone())),
            AttentionMask::None | AttentionMask::Causal => None,
        };
        Self {
            q: dense(q),
            k: dense(k),
            v: dense(v),
            hidden,
            sizes: Sizes {
                batch: b,
                heads,
                group: heads / kv_heads,
                queries,
                keys,
                d,
                d_value,
                causal: matches!(mask, AttentionMask::Causal),
            },
        }
    }

    fn views(&self) -> [View<'_>; 3] {
        [&self.q, &self.k, &self.v].map(|x| View::new(x).expect("made dense"))
    }

    fn hidden(&self) -> Option<Hidden<'_>> {
        self.hidden
            .as_ref()
            .map(|(mask, strides)| Hidden::new(mask, *strides))
    }

    fn is_empty(&self) -> bool {
        let Sizes {
            batch,
            heads,
            queries,
            keys,
            d_value,
            ..
        } = self.sizes;
        batch * heads * queries * keys * d_value == 0
    }

    /// The output `[b, h, t, e]`, the heads of a position side by side in memory.
    pub(crate) fn forward(&self) -> Plain {
        self.run(None)
    }

    /// The output, and the logarithm of the sum of the exponentials of each query's scores,
    /// `[b, h, t]`; infinite where a query sees nothing.
    pub(crate) fn forward_with_sums(&self) -> (Plain, Vec<f32>) {
        let Sizes {
            batch,
            heads,
            queries,
            ..
        } = self.sizes;
        let mut sums = vec![f32::INFINITY; batch * heads * queries];
        (self.run(Some(&mut sums)), sums)
    }

    fn run(&self, sums: Option<&mut [f32]>) -> Plain {
        let Sizes {
            batch,
            heads,
            queries,
            d_value,
            ..
        } = self.sizes;
        let mut out = vec![0f32; batch * queries * heads * d_value];
        if !self.is_empty() {
            let call = forward::Call::new(self.views(), self.hidden(), self.sizes);
            call.run(&mut out, sums);
        }
        heads_first(out, [batch, queries, heads, d_value])
    }

    /// The gradients of queries, keys and values from that of the output and
    /// [`forward_with_sums`](Self::forward_with_sums)' sums.
    pub(crate) fn backward(&self, gradient: Plain, sums: &[f32]) -> [Plain; 3] {
        let Sizes {
            batch,
            heads,
            queries,
            keys,
            d,
            d_value,
            ..
        } = self.sizes;
        let kv = self.sizes.key_heads();
        let mut out = [
            vec![0f32; batch * queries * heads * d],
            vec![0f32; batch * keys * kv * d],
            vec![0f32; batch * keys * kv * d_value],
        ];
        if !self.is_empty() {
            let gradient = dense(gradient);
            let call = backward::Call {
                views: self.views(),
                gradient: View::new(&gradient).expect("made dense"),
                hidden: self.hidden(),
                sums,
                sizes: self.sizes,
            };
            call.run(&mut out);
        }
        let [q, k, v] = out;
        [
            heads_first(q, [batch, queries, heads, d]),
            heads_first(k, [batch, keys, kv, d]),
            heads_first(v, [batch, keys, kv, d_value]),
        ]
    }
}

/// `softmax(q·kᵀ / √d + mask) · v`; see [`crate::attention`].
///
/// # Shapes
/// - `q`: `[b, h, t, d]`, `k`: `[b, kv, s, d]`, `v`: `[b, kv, s, e]`
/// - output: `[b, h, t, e]`
///
/// # Panics
/// If a tensor is not [plain](super::is_plain_f32).
#[must_use]
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, mask: &AttentionMask) -> Tensor<4> {
    tensor(Attention::new(plain(q), plain(k), plain(v), mask).forward())
}

/// `[b, n, h, d]` values seen as `[b, h, n, d]`.
fn heads_first(values: Vec<f32>, shape: [usize; 4]) -> Plain {
    let x: Tensor<4> = tensor(from_values(values, shape));
    plain(x.swap_dims(1, 2))
}

fn dense(x: Plain) -> Plain {
    if View::new(&x).is_some() {
        x
    } else {
        x.to_contiguous()
    }
}

/// The mask as it lies in memory, and its strides with 0 where it is broadcast.
fn hidden_keys(mask: Tensor<4, Bool>) -> (Plain, [usize; 3]) {
    let [b, h, t, s] = mask.dims();
    let mask = match mask.without_autodiff().try_into_primitive::<Flex>() {
        Ok(mask) => contiguous(mask),
        Err(error) => panic!("a CPU kernel was given another backend's mask: {error:?}"),
    };
    let stride = |n: usize, step: usize| if n == 1 { 0 } else { step };
    (mask, [stride(b, h * t * s), stride(h, t * s), stride(t, s)])
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;
    use burn::tensor::module;
    use burn::tensor::ops::AttentionModuleOptions;
    use proptest::prelude::*;

    use super::*;

    fn random(shape: [usize; 4]) -> Tensor<4> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    /// Rows of ten first positions that all see, and questions of seven to thirteen that see
    /// themselves; each sample's begin elsewhere, and no query sees what comes after it.
    fn questions([b, t, s]: [usize; 3]) -> Tensor<4, Bool> {
        let mut hidden = Vec::with_capacity(b * t * s);
        for sample in 0..b {
            let question = |at: usize| at.checked_sub(10).map(|at| at / (7 + 6 * sample));
            for query in 0..t {
                hidden.extend((0..s).map(|key| {
                    let same = question(key).is_none() || question(key) == question(query);
                    key > query || !same
                }));
            }
        }
        Tensor::from_data(TensorData::new(hidden, [b, 1, t, s]), &Device::flex())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Against Burn's own, on grouped heads, permuted layouts and every kind of mask.
        #[test]
        fn the_same_as_burn(
            b in 1usize..3, kv in 1usize..3, group in 1usize..4,
            t in 1usize..150, extra in 0usize..40, kind in 0usize..4,
        ) {
            let (heads, s, d) = (kv * group, t + extra, 12);
            // Positions before heads, as projections leave them.
            let q = random([b, t, heads, d]).swap_dims(1, 2);
            let k = random([b, s, kv, d]).swap_dims(1, 2);
            let v = random([b, kv, s, d]);
            let mask = match kind {
                0 => AttentionMask::None,
                1 => AttentionMask::Causal,
                2 => AttentionMask::Hidden(questions([b, t, s])),
                _ => {
                    let hidden = Tensor::<4>::random([b, 1, t, s], Distribution::Default, &Device::flex());
                    AttentionMask::Hidden(hidden.greater_elem(0.6))
                }
            };
            let hidden = match &mask {
                AttentionMask::Hidden(hidden) => Some(hidden.clone()),
                _ => None,
            };
            let options =
                AttentionModuleOptions { is_causal: kind == 1, ..Default::default() };
            let theirs = module::attention(q.clone(), k.clone(), v.clone(), hidden, None, options);
            let ours = attention(q, k, v, &mask);
            let worst = (ours - theirs).abs().max().into_scalar::<f32>();
            prop_assert!(worst < 2e-5, "{worst}");
        }
    }

    #[test]
    fn a_query_that_sees_nothing_gets_zeros() {
        let device = Device::flex();
        let hidden = Tensor::<4, Bool>::from_data([[[[true, true]]]], &device);
        let y = attention(
            random([1, 1, 1, 4]),
            random([1, 1, 2, 4]),
            random([1, 1, 2, 4]),
            &AttentionMask::Hidden(hidden),
        );
        assert_eq!(y.abs().sum().into_scalar::<f32>(), 0.0);
    }
}
