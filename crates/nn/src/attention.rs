//! Scaled dot-product attention, the only place where scores are made.
//!
//! Plain CPU tensors go through [`cpu::attention`], which knows grouped heads. Elsewhere keys and
//! values are repeated first and Burn's operator runs, fused on GPUs and differentiable on autodiff
//! devices: its differentiable form does not know grouped heads and computes wrong numbers without
//! saying so.

use burn::prelude::*;
use burn::tensor::{module, ops::AttentionModuleOptions};

use crate::{cpu, grad};

/// Which keys a query may not look at.
#[derive(Clone, Debug)]
pub enum AttentionMask {
    /// Every query sees every key.
    None,
    /// Query `i` of `t` sees key `j` of `s` if `j ≤ i + s − t`, so that a cache may hold earlier
    /// keys.
    Causal,
    /// True where a key is hidden; `[b or 1, 1, t, s]`.
    Hidden(Tensor<4, Bool>),
}

/// `softmax(q·kᵀ / √d + mask) · v`.
///
/// A query that may see no key at all gets zeros.
///
/// # Shapes
/// - `q`: `[b, h, t, d]`
/// - `k`, `v`: `[b, kv, s, d]`, `kv` dividing `h`
/// - output: `[b, h, t, d]`
///
/// # Panics
/// If `kv` does not divide `h`: configurations are checked before modules are built.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, mask: &AttentionMask) -> Tensor<4> {
    let heads = q.dims()[1];
    let kv_heads = k.dims()[1];
    assert!(
        heads.is_multiple_of(kv_heads),
        "{kv_heads} key heads do not divide {heads} heads"
    );
    if [&q, &k, &v].into_iter().all(cpu::is_plain_f32) {
        return cpu::attention(q, k, v, mask);
    }
    if [&q, &k, &v].into_iter().all(grad::takes) {
        return grad::attention(q, k, v, mask);
    }
    let (k, v) = (
        repeat_heads(k, heads / kv_heads),
        repeat_heads(v, heads / kv_heads),
    );
    let options = AttentionModuleOptions {
        is_causal: matches!(mask, AttentionMask::Causal),
        ..Default::default()
    };
    let hidden = match mask {
        AttentionMask::Hidden(hidden) => Some(hidden.clone()),
        AttentionMask::None | AttentionMask::Causal => None,
    };
    module::attention(q, k, v, hidden, None, options)
}

/// `[b, kv, s, d]` → `[b, kv·times, s, d]`, every head next to its copies.
fn repeat_heads(x: Tensor<4>, times: usize) -> Tensor<4> {
    if times == 1 {
        return x;
    }
    let [b, kv, s, d] = x.dims();
    x.unsqueeze_dim::<5>(2)
        .expand([b, kv, times, s, d])
        .reshape([b, kv * times, s, d])
}

/// `[b, t, h·d]` → `[b, h, t, d]`.
#[must_use]
pub fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [b, t, width] = x.dims();
    x.reshape([b, t, heads, width / heads]).swap_dims(1, 2)
}

/// `[b, h, t, d]` → `[b, t, h·d]`.
#[must_use]
pub fn merge_heads(x: Tensor<4>) -> Tensor<3> {
    let [b, h, t, d] = x.dims();
    x.swap_dims(1, 2).reshape([b, t, h * d])
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    fn random(shape: [usize; 4]) -> Vec<f32> {
        Tensor::<4>::random(shape, Distribution::Default, &Device::flex())
            .into_data()
            .try_to_vec()
            .unwrap()
    }

    fn run(device: &Device, mask: &AttentionMask, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
        let tensor = |x: &[f32], shape| Tensor::<1>::from_floats(x, device).reshape(shape);
        let (q, k, v) = (
            tensor(q, [1, 4, 3, 8]),
            tensor(k, [1, 2, 5, 8]),
            tensor(v, [1, 2, 5, 8]),
        );
        attention(q, k, v, mask).into_data().try_to_vec().unwrap()
    }

    /// Grouped heads, causal with two cached keys: the fused and the differentiable form agree.
    #[test]
    fn fused_equals_differentiable() {
        let (q, k, v) = (
            random([1, 4, 3, 8]),
            random([1, 2, 5, 8]),
            random([1, 2, 5, 8]),
        );
        for mask in [AttentionMask::None, AttentionMask::Causal] {
            let fused = run(&Device::flex(), &mask, &q, &k, &v);
            let plain = run(&Device::flex().autodiff(), &mask, &q, &k, &v);
            for (a, b) in fused.iter().zip(&plain) {
                assert!((a - b).abs() < 1e-5, "{mask:?}: {a} {b}");
            }
        }
    }

    /// With equal keys every visible value counts the same, so the output is their mean.
    #[test]
    fn equal_keys_average_the_visible_values() {
        let device = Device::flex();
        let q = Tensor::<4>::ones([1, 1, 1, 1], &device);
        let k = Tensor::<4>::ones([1, 1, 3, 1], &device);
        let v = Tensor::<4>::from_floats([[[[1.0], [3.0], [100.0]]]], &device);
        let hidden = Tensor::<4, Bool>::from_data([[[[false, false, true]]]], &device);
        let y = attention(q, k, v, &AttentionMask::Hidden(hidden));
        assert_eq!(y.into_scalar::<f32>(), 2.0);
    }
}
