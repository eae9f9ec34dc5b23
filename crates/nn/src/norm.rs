//! Layer norm and root-mean-square norm, with the parameter names of checkpoints.

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;

use crate::{cpu, grad};

/// `(x − mean) / √(var + eps) · weight + bias` over the last dimension.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[d]`.
    pub weight: Param<Tensor<1>>,
    /// `[d]`.
    pub bias: Param<Tensor<1>>,
    eps: f64,
}

impl LayerNorm {
    /// Identity scale and shift. `eps` is part of the architecture: checkpoints say which.
    #[must_use]
    pub fn new(d: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([d], device),
            bias: Initializer::Zeros.init([d], device),
            eps,
        }
    }

    /// Normalises the last dimension; input and output `[.., d]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        let recorded = [&x.device(), &weight.device()]
            .iter()
            .any(|d| d.is_autodiff());
        if recorded && grad::takes(&x) && grad::takes(&weight) && grad::takes(&bias) {
            return grad::layer_norm(x, weight, bias, self.eps as f32);
        }
        burn::tensor::module::layer_norm(x, weight, Some(bias), self.eps)
    }
}

/// `x / √(mean(x²) + eps) · (weight + offset)` over the last dimension.
///
/// The offset is 0, except for Gemma, whose checkpoints store `weight − 1`.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[d]`.
    pub weight: Param<Tensor<1>>,
    eps: f64,
    offset: f64,
}

impl RmsNorm {
    /// A norm that starts as the identity scale.
    #[must_use]
    pub fn new(d: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([d], device),
            eps,
            offset: 0.0,
        }
    }

    /// Gemma's form: the stored weight is the deviation from 1.
    #[must_use]
    pub fn with_unit_offset(d: usize, eps: f64, device: &Device) -> Self {
        Self {
            weight: Initializer::Zeros.init([d], device),
            eps,
            offset: 1.0,
        }
    }

    /// Normalises the last dimension; input and output `[.., d]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let weight = self.weight.val();
        let weight = if self.offset == 0.0 {
            weight
        } else {
            weight + self.offset
        };
        if cpu::is_plain_f32(&x) && cpu::is_plain_f32(&weight) {
            return cpu::rms_norm(x, weight, self.eps as f32);
        }
        if grad::takes(&x) && grad::takes(&weight) {
            return grad::rms_norm(x, weight, self.eps as f32);
        }
        let mean_square = x.clone().square().mean_dim(D - 1);
        x * (mean_square + self.eps).sqrt().recip() * weight.unsqueeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rms_norm_by_hand_on_both_paths() {
        // Squares of (3, 4, 0, 0) average to 6.25, whose root is 2.5.
        for device in [Device::flex(), Device::flex().autodiff()] {
            let norm = RmsNorm::new(4, 0.0, &device);
            let x = Tensor::<2>::from_floats([[3.0, 4.0, 0.0, 0.0]], &device);
            let y = norm.forward(x).into_data().try_to_vec::<f32>().unwrap();
            assert_eq!(y, [1.2, 1.6, 0.0, 0.0]);
        }
    }

    #[test]
    fn unit_offset_adds_one_to_the_stored_weight() {
        let device = Device::flex();
        let norm = RmsNorm::with_unit_offset(2, 0.0, &device);
        let y = norm.forward(Tensor::<2>::from_floats([[2.0, 2.0]], &device));
        assert_eq!(y.into_data().try_to_vec::<f32>().unwrap(), [1.0, 1.0]);
    }

    #[test]
    fn layer_norm_by_hand() {
        let device = Device::flex();
        let norm = LayerNorm::new(2, 0.0, &device);
        let y = norm.forward(Tensor::<2>::from_floats([[1.0, 3.0]], &device));
        assert_eq!(y.into_data().try_to_vec::<f32>().unwrap(), [-1.0, 1.0]);
    }
}
