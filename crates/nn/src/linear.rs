//! The one linear layer.
//!
//! The weight keeps the checkpoint's orientation `[out, in]`: the product reads it through a
//! transposed view, so no copy is made at load time, and on a CPU every output is a dot product of
//! two contiguous rows. The weight may be stored as bf16 or f16 while activations stay f32; then
//! the product itself widens it (see [`crate::cpu::linear`]).

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;

use crate::cpu;

/// `y = x · weightᵀ + bias`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// A layer with PyTorch's default initialisation: uniform in `±1/√d_in`.
    ///
    /// Nothing is allocated until the parameters are first read, so a layer that is loaded from a
    /// checkpoint right after costs no memory twice.
    #[must_use]
    pub fn new(d_in: usize, d_out: usize, bias: bool, device: &Device) -> Self {
        let bound = 1.0 / (d_in.max(1) as f64).sqrt();
        let uniform = Initializer::Uniform {
            min: -bound,
            max: bound,
        };
        Self {
            weight: uniform.init([d_out, d_in], device),
            bias: bias.then(|| uniform.init([d_out], device)),
        }
    }

    /// Width of the input, without touching the parameter.
    #[must_use]
    pub fn d_in(&self) -> usize {
        self.weight.lazy_shape().dims::<2>()[1]
    }

    /// Width of the output, without touching the parameter.
    #[must_use]
    pub fn d_out(&self) -> usize {
        self.weight.lazy_shape().dims::<2>()[0]
    }

    /// Applies the layer to the last dimension.
    ///
    /// # Shapes
    /// - input: `[.., d_in]`
    /// - output: `[.., d_out]`
    ///
    /// # Panics
    /// If the last dimension is not `d_in`: a wiring mistake, since loading checks shapes.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mut dims = x.dims();
        let d_in = dims[D - 1];
        let rows = dims[..D - 1].iter().product::<usize>();
        // One big matrix product: Burn would otherwise run a batch of small ones.
        let y = self.forward_rows(x.reshape([rows, d_in]));
        dims[D - 1] = y.dims()[1];
        y.reshape(dims)
    }

    fn forward_rows(&self, x: Tensor<2>) -> Tensor<2> {
        apply(x, self.weight.val(), self.bias.as_ref().map(Param::val))
    }
}

/// `x · weightᵀ + bias`, the one product of every linear layer.
///
/// # Shapes
/// - `x`: `[n, d_in]`, `weight`: `[d_out, d_in]`, `bias`: `[d_out]`
/// - output: `[n, d_out]`
pub(crate) fn apply(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let y = if cpu::linear_applies(&x, &weight) {
        cpu::linear(x, weight)
    } else if weight.dtype() == x.dtype() {
        x.matmul(weight.transpose())
    } else if x.device() == Device::flex() {
        // With gradients on a CPU: computed in f32 as without them.
        let weight = weight.cast(x.dtype());
        x.matmul(weight.transpose())
    } else {
        // GPUs multiply in the weight's format; activations come back in their own.
        let dtype = x.dtype();
        x.cast(weight.dtype())
            .matmul(weight.transpose())
            .cast(dtype)
    };
    match bias {
        Some(bias) if cpu::is_plain_f32(&y) && cpu::is_plain_f32(&bias) => cpu::add_bias(y, bias),
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(weight: [[f32; 3]; 2], bias: [f32; 2]) -> Linear {
        let device = Device::flex();
        Linear {
            weight: Param::from_tensor(Tensor::from_floats(weight, &device)),
            bias: Some(Param::from_tensor(Tensor::from_floats(bias, &device))),
        }
    }

    #[test]
    fn rows_of_the_weight_are_outputs() {
        let layer = layer([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]], [10.0, 20.0]);
        let x = Tensor::<3>::from_floats([[[1.0, 2.0, 3.0]]], &Device::flex());
        assert_eq!(
            layer.forward(x).into_data().try_to_vec::<f32>().unwrap(),
            [17.0, 26.0]
        );
    }

    #[test]
    fn reduced_weights_compute_in_f32() {
        let mut layer = layer([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]], [10.0, 20.0]);
        for dtype in [burn::tensor::DType::BF16, burn::tensor::DType::F16] {
            layer.weight = layer.weight.map(|w| w.cast(dtype));
            for rows in [1, 40] {
                let x = Tensor::<2>::from_floats([[1.0, 2.0, 3.0]], &Device::flex());
                let y = layer.forward(x.repeat_dim(0, rows));
                assert_eq!(y.dtype(), burn::tensor::DType::F32);
                let expected: Vec<f32> = [17.0, 26.0].repeat(rows);
                assert_eq!(y.into_data().try_to_vec::<f32>().unwrap(), expected);
            }
        }
    }

    #[test]
    fn gradients_flow_to_weight_and_bias() {
        let device = Device::flex().autodiff();
        let layer = Linear::new(3, 2, true, &device);
        let x = Tensor::<2>::ones([4, 3], &device);
        let grads = layer.forward(x).sum().backward();
        let grad = layer
            .bias
            .as_ref()
            .and_then(|b| b.val().grad(&grads))
            .expect("bias trains");
        assert_eq!(grad.into_data().try_to_vec::<f32>().unwrap(), [4.0, 4.0]);
        assert!(layer.weight.val().grad(&grads).is_some());
    }
}
