//! Low-rank adapters of linear layers (LoRA, arXiv 2106.09685).
//!
//! `y = x Wᵀ + b + (α/r) (x Aᵀ) Bᵀ` with `A` of `r` rows and `B` of `r` columns: `W` rests, and what
//! is learnt is `r (d_in + d_out)` numbers. `B` starts at zero, so training starts at the model that
//! was loaded. Without an adapter a layer has the keys of an ordinary checkpoint; with one it has
//! `lora.a` and `lora.b` besides.

use burn::module::{Initializer, Module, Param, ParamId};
use burn::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::dropout::dropout;
use crate::linear;

/// What an adapter looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraShape {
    /// Rank `r`, at least 1.
    pub rank: usize,
    /// `α`: what the adapter adds is scaled by `α / r`.
    pub alpha: f64,
    /// Share of the adapter's input that is dropped while training; see [`crate::dropout`].
    pub dropout: f64,
}

/// The adapter of one linear layer.
#[derive(Module, Debug)]
pub struct Lora {
    /// `[r, in]`.
    pub a: Param<Tensor<2>>,
    /// `[out, r]`, zero before training.
    pub b: Param<Tensor<2>>,
    scale: f64,
    dropout: f64,
}

impl Lora {
    /// An adapter for a weight `[out, in]`: `A` uniform in `±1/√in` as in PEFT, `B` zero.
    pub(crate) fn new(
        [d_out, d_in]: [usize; 2],
        shape: LoraShape,
        seed: u64,
        device: &Device,
    ) -> Self {
        let LoraShape {
            rank,
            alpha,
            dropout,
        } = shape;
        let values = move |device: &Device, trains: bool| {
            let bound = 1.0 / (d_in.max(1) as f32).sqrt();
            let mut stream = ChaCha8Rng::seed_from_u64(seed);
            let values = (0..rank * d_in).map(|_| stream.random_range(-bound..=bound));
            let values = TensorData::new(values.collect::<Vec<f32>>(), [rank, d_in]);
            Tensor::from_data(values, device).set_require_grad(trains)
        };
        Self {
            a: Param::uninitialized(
                ParamId::new(),
                values,
                device.clone(),
                true,
                Shape::new([rank, d_in]),
            ),
            b: Initializer::Zeros.init([d_out, rank], device),
            scale: alpha / rank.max(1) as f64,
            dropout,
        }
    }

    /// What is added to the layer's output: `[.., in]` → `[.., out]`.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let x = dropout(x, self.dropout);
        let down = linear::apply(x, self.a.val(), None) * self.scale;
        linear::apply(down, self.b.val(), None)
    }

    /// What is added to the weight, `[out, in]`, without a graph.
    pub(crate) fn change(&self) -> Tensor<2> {
        let (a, b) = (self.a.val(), self.b.val());
        b.without_autodiff().matmul(a.without_autodiff()) * self.scale
    }
}

/// The weight with a change (f32) added, in its own type and on its own device.
pub(crate) fn added(weight: Tensor<2>, change: Tensor<2>) -> Tensor<2> {
    let (recorded, dtype) = (weight.device().is_autodiff(), weight.dtype());
    let sum = (weight.without_autodiff().cast(change.dtype()) + change).cast(dtype);
    if recorded {
        Tensor::from_inner(sum)
    } else {
        sum
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;

    use super::*;
    use crate::{Linear, dropout};

    const SHAPE: LoraShape = LoraShape {
        rank: 2,
        alpha: 3.0,
        dropout: 0.0,
    };

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.without_autodiff().into_data().try_to_vec().unwrap()
    }

    fn trained(layer: Linear) -> Linear {
        let mut layer = layer.with_lora(SHAPE, 5);
        let lora = layer.lora.as_mut().unwrap();
        lora.b = lora.b.clone().map(|b| Tensor::ones_like(&b.inner()));
        layer
    }

    #[test]
    fn an_untrained_adapter_changes_nothing_and_only_it_trains() {
        let device = Device::flex().autodiff();
        let plain = Linear::new(6, 4, true, &device);
        let x = Tensor::<2>::random([3, 6], burn::tensor::Distribution::Default, &device);
        let before = values(plain.forward(x.clone()));
        let layer = plain.with_lora(SHAPE, 5);
        let y = layer.forward(x);
        assert_eq!(values(y.clone()), before);
        let gradients = y.sum().backward();
        let lora = layer.lora.as_ref().unwrap();
        assert!(lora.b.val().grad(&gradients).is_some());
        assert!(lora.a.val().grad(&gradients).is_some());
        assert!(layer.weight.val().grad(&gradients).is_none());
    }

    #[test]
    fn the_seed_decides_the_adapter() {
        let device = Device::flex();
        let a = |seed| {
            let layer = Linear::new(6, 4, false, &device).with_lora(SHAPE, seed);
            values(layer.lora.unwrap().a.val())
        };
        assert_eq!(a(1), a(1));
        assert_ne!(a(1), a(2));
        assert!(a(1).iter().all(|v| v.abs() <= 1.0 / 6f32.sqrt()));
    }

    #[test]
    fn merging_keeps_the_function() {
        let device = Device::flex();
        let layer = trained(Linear::new(6, 4, true, &device));
        let x = Tensor::<2>::random([3, 6], burn::tensor::Distribution::Default, &device);
        let before = values(layer.forward(x.clone()));
        let merged = layer.merge_lora();
        assert!(merged.lora.is_none());
        for (a, b) in values(merged.forward(x)).iter().zip(before) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }

    #[test]
    fn merging_keeps_the_type_of_the_weight() {
        let mut layer = trained(Linear::new(6, 4, false, &Device::flex()));
        layer.weight = layer.weight.map(|weight| weight.cast(DType::BF16));
        assert_eq!(layer.merge_lora().weight.val().dtype(), DType::BF16);
    }

    #[test]
    fn dropout_acts_on_the_adapter_alone() {
        let shape = LoraShape {
            dropout: 0.5,
            ..SHAPE
        };
        let device = Device::flex();
        let layer = Linear::new(6, 4, true, &device).with_lora(shape, 5);
        let x = Tensor::<2>::ones([3, 6], &device);
        let still = values(layer.forward(x.clone()));
        assert_eq!(still, values(dropout::with_seed(1, || layer.forward(x))));
    }
}
