//! Norms over the last dimension.

use burn::prelude::*;

use super::{Pullback, input, record};
use crate::cpu::norm::{layer_norm_back, layer_normed, rms_norm_back, rms_normed};
use crate::cpu::values::{Plain, contiguous, from_values, values};

/// What is kept: the input and the scale.
#[derive(Clone, Debug)]
struct Norm {
    x: Plain,
    weight: Plain,
    eps: f32,
}

/// `x / √(mean(x²) + eps) · weight`.
pub(crate) fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f32) -> Tensor<D> {
    record([input(x), input(weight)], |[x, weight], _| {
        let (x, weight) = (contiguous(x), contiguous(weight));
        let y = rms_normed(x.clone(), values(&weight), eps);
        (y, Norm { x, weight, eps })
    })
}

impl Pullback<2> for Norm {
    fn pull(self, gradient: Plain, _: [bool; 2]) -> [Option<Plain>; 2] {
        let weight = values(&self.weight);
        let (of_x, of_weight) = rms_norm_back(gradient, &self.x, weight, self.eps);
        [Some(of_x), Some(from_values(of_weight, [weight.len()]))]
    }
}

/// `(x − mean) / √(variance + eps) · weight + bias`.
pub(crate) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f32,
) -> Tensor<D> {
    let inputs = [input(x), input(weight), input(bias)];
    record(inputs, |[x, weight, bias], _| {
        let (x, weight) = (contiguous(x), contiguous(weight));
        let y = layer_normed(x.clone(), values(&weight), values(&contiguous(bias)), eps);
        (y, Norm { x, weight, eps })
    })
}

impl Pullback<3> for Norm {
    fn pull(self, gradient: Plain, _: [bool; 3]) -> [Option<Plain>; 3] {
        let weight = values(&self.weight);
        let (of_x, mut of_weight) = layer_norm_back(gradient, &self.x, weight, self.eps);
        let of_bias = of_weight.split_off(weight.len());
        [
            Some(of_x),
            Some(from_values(of_weight, [weight.len()])),
            Some(from_values(of_bias, [weight.len()])),
        ]
    }
}
