//! The non-linearities of the published networks, under the names their `config.json` use.

use burn::prelude::*;
use burn::tensor::activation;

use crate::{cpu, grad};

/// An elementwise non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x · Φ(x)` with the exact error function.
    Gelu,
    /// GELU through its tanh approximation.
    GeluTanh,
    /// `x · σ(1.702 x)`, of the original CLIP.
    QuickGelu,
    /// `x · σ(x)`.
    Silu,
    /// `max(0, x)`.
    Relu,
}

impl Activation {
    /// Finds an activation by the name that Hugging Face configurations use (`hidden_act`).
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "gelu" => Self::Gelu,
            "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" => Self::GeluTanh,
            "quick_gelu" => Self::QuickGelu,
            "silu" | "swish" => Self::Silu,
            "relu" => Self::Relu,
            _ => return None,
        })
    }

    /// The names [`Activation::by_name`] understands.
    pub const NAMES: &'static [&'static str] = &[
        "gelu",
        "gelu_pytorch_tanh",
        "gelu_new",
        "gelu_fast",
        "quick_gelu",
        "silu",
        "swish",
        "relu",
    ];

    /// Applies the function to every element.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        if cpu::is_plain_f32(&x) {
            return cpu::activate(x, self);
        }
        if grad::takes(&x) {
            return grad::activate(x, self);
        }
        match self {
            Self::Gelu => activation::gelu(x),
            Self::GeluTanh => activation::gelu_approximate(x),
            Self::QuickGelu => x.clone() * activation::sigmoid(x * 1.702),
            Self::Silu => activation::silu(x),
            Self::Relu => activation::relu(x),
        }
    }

    /// `forward(gate) · up`, the gated form of decoders' feed-forward layers.
    pub fn gated<const D: usize>(self, gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
        if cpu::is_plain_f32(&gate) && cpu::is_plain_f32(&up) {
            return cpu::activate_gated(gate, up, self);
        }
        if grad::takes(&gate) && grad::takes(&up) {
            return grad::gated(gate, up, self);
        }
        self.forward(gate) * up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Activation; 5] = [
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::QuickGelu,
        Activation::Silu,
        Activation::Relu,
    ];

    #[test]
    fn every_published_name_is_found() {
        assert!(
            Activation::NAMES
                .iter()
                .all(|name| Activation::by_name(name).is_some())
        );
        assert_eq!(Activation::by_name("mish"), None);
    }

    /// The CPU kernels against Burn's own functions (which the autodiff device uses).
    #[test]
    fn fused_and_differentiable_paths_agree() {
        let values: Vec<f32> = (-4000..4000).map(|i| i as f32 * 0.005).collect();
        for act in ALL {
            let run = |device: Device| {
                let x = Tensor::<1>::from_floats(values.as_slice(), &device);
                act.forward(x).into_data().try_to_vec::<f32>().unwrap()
            };
            let (fused, plain) = (run(Device::flex()), run(Device::flex().autodiff()));
            for ((x, a), b) in values.iter().zip(&fused).zip(&plain) {
                assert!(
                    (a - b).abs() <= 1e-6 + 1e-6 * b.abs(),
                    "{act:?}({x}) = {a}, not {b}"
                );
            }
        }
    }

    #[test]
    fn nan_stays_nan() {
        for act in ALL {
            let x = Tensor::<1>::from_floats([f32::NAN], &Device::flex());
            assert!(act.forward(x).into_scalar::<f32>().is_nan(), "{act:?}");
        }
    }

    #[test]
    fn gated_is_a_product() {
        let device = Device::flex();
        let gate = Tensor::<1>::from_floats([-1.0, 0.0, 2.0], &device);
        let up = Tensor::<1>::from_floats([5.0, 6.0, 7.0], &device);
        let y = Activation::Relu
            .gated(gate, up)
            .into_data()
            .try_to_vec::<f32>()
            .unwrap();
        assert_eq!(y, [0.0, 0.0, 14.0]);
    }

    #[test]
    fn extremes_stay_finite() {
        let x = [-1e30, -100.0, -88.0, 88.0, 100.0, 1e30f32];
        for act in ALL {
            let y = act.forward(Tensor::<1>::from_floats(x, &Device::flex()));
            let y = y.into_data().try_to_vec::<f32>().unwrap();
            assert!(y.iter().all(|v| v.is_finite()), "{act:?}: {y:?}");
            assert_eq!(y[5], 1e30, "{act:?}");
            assert!(y[0].abs() < 1e-30 && y[1].abs() < 1e-30, "{act:?}: {y:?}");
        }
    }
}
