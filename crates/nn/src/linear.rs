//! The one linear layer.
//!
//! The weight keeps the checkpoint's orientation `[out, in]`: the product reads it through a
//! transposed view, so no copy is made at load time. The weight may be stored as bf16 or f16 while
//! activations stay f32; then the product itself widens it (see [`crate::cpu::linear`]). A [`ComputeType`](crate::ComputeType)
//! chosen by the caller rounds both factors of the product instead, and an adapter
//! ([`Lora`]) may stand beside the weight.

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;
use burn::tensor::DType;

use crate::lora::{self, Lora, LoraShape};
use crate::packed::PackedSlot;
use crate::{Activation, compute, cpu, grad};

/// `y = x · weightᵀ + bias`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// What is learnt on top of the weight; checkpoints of whole models have none.
    pub lora: Option<Lora>,
    /// The weight in the order of the CPU's kernels, in place of the parameter.
    #[module(skip)]
    pub packed: PackedSlot,
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
        let weight = uniform.init([d_out, d_in], device);
        Self {
            packed: PackedSlot::of(weight.id),
            weight,
            bias: bias.then(|| uniform.init([d_out], device)),
            lora: None,
        }
    }

    /// A layer without bias that multiplies by a weight (`[out, in]`) which somebody else has too.
    #[must_use]
    pub fn from_weight(weight: Param<Tensor<2>>) -> Self {
        Self {
            weight,
            bias: None,
            lora: None,
            packed: PackedSlot::default(),
        }
    }

    /// Puts an adapter beside the weight, which from now on does not train, nor does the bias.
    ///
    /// The layer computes what it did before, until the adapter is trained. The same `seed` gives the
    /// same adapter.
    #[must_use]
    pub fn with_lora(self, shape: LoraShape, seed: u64) -> Self {
        let [d_out, d_in] = self.weight.lazy_shape().dims::<2>();
        let lora = Lora::new([d_out, d_in], shape, seed, &self.weight.lazy_device());
        Self {
            weight: self.weight.set_require_grad(false),
            bias: self.bias.map(|bias| bias.set_require_grad(false)),
            lora: Some(lora),
            packed: self.packed,
        }
    }

    /// Folds the adapter, if there is one, into the weight: one product instead of three, and the
    /// keys of an ordinary checkpoint. The weight keeps its type and does not train. Nothing can be
    /// added to a packed weight: there the adapter stays.
    #[must_use]
    pub fn merge_lora(self) -> Self {
        if self.packed.get().is_some() {
            return self;
        }
        let Some(lora) = self.lora else { return self };
        let change = lora.change();
        Self {
            weight: self.weight.map(|weight| lora::added(weight, change)),
            bias: self.bias,
            lora: None,
            packed: self.packed,
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
        let Some(lora) = &self.lora else {
            return self.base(x, None);
        };
        self.base(x.clone(), None) + lora.forward(x)
    }

    /// [`forward`](Self::forward), then an activation function; on a CPU in one pass.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_then<const D: usize>(&self, x: Tensor<D>, act: Activation) -> Tensor<D> {
        if self.lora.is_some() {
            return act.forward(self.forward(x));
        }
        self.base(x, Some(act))
    }

    /// From how many rows on more of them make a row no cheaper. A row's result is then the same to
    /// the last bit, whatever their number; `None` where that is not so: with gradients, on other
    /// devices, in a shorter [`ComputeType`](crate::ComputeType), and with an adapter.
    pub(crate) fn enough_rows<const D: usize>(&self, x: &Tensor<D>) -> Option<usize> {
        let bias = self.bias.as_ref().map(Param::val);
        let plain = cpu::is_plain_f32(x) && bias.as_ref().is_none_or(cpu::is_plain_f32);
        if self.lora.is_some() || !plain {
            return None;
        }
        if self.packed.get().is_some() {
            return Some(cpu::ENOUGH_PACKED);
        }
        let weight = self.weight.val();
        let takes = cpu::linear_applies(x, &weight, bias.as_ref());
        (takes && compute::reduced(x, &weight).is_none()).then_some(cpu::ENOUGH_STORED)
    }

    /// The layer without its adapter.
    fn base<const D: usize>(&self, x: Tensor<D>, act: Option<Activation>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(Param::val);
        let finish = |y: Tensor<D>| match act {
            Some(act) => act.forward(y),
            None => y,
        };
        if let Some(packed) = self.packed.get() {
            if cpu::is_plain_f32(&x) && bias.as_ref().is_none_or(cpu::is_plain_f32) {
                return folded(x, |rows| cpu::linear_packed(rows, &packed, bias, act));
            }
            // Somewhere else, or with gradients: the values, made for this once.
            let values = TensorData::new(packed.to_rows(), packed.shape());
            let weight = Tensor::from_data(values, &x.device());
            return finish(apply(x, weight, bias));
        }
        let weight = self.weight.val();
        if act.is_some()
            && cpu::linear_applies(&x, &weight, bias.as_ref())
            && compute::reduced(&x, &weight).is_none()
        {
            return folded(x, |rows| cpu::linear(rows, weight, bias, act));
        }
        finish(apply(x, weight, bias))
    }
}

/// Applies `f` to the rows of `x`: one big matrix product, where Burn would run a batch of small ones.
fn folded<const D: usize>(x: Tensor<D>, f: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Tensor<D> {
    let mut dims = x.dims();
    let rows = dims[..D - 1].iter().product::<usize>();
    let y = f(x.reshape([rows, dims[D - 1]]));
    dims[D - 1] = y.dims()[1];
    y.reshape(dims)
}

/// `x · weightᵀ + bias`, the one product of every linear layer.
///
/// # Shapes
/// - `x`: `[.., d_in]`, `weight`: `[d_out, d_in]`, `bias`: `[d_out]`
/// - output: `[.., d_out]`
pub(crate) fn apply<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    if let Some(dtype) = compute::reduced(&x, &weight) {
        return apply_reduced(x, weight, bias, dtype);
    }
    let recorded = x.device().is_autodiff() || weight.device().is_autodiff();
    if recorded && grad::takes(&x) && grad::takes(&weight) && bias.as_ref().is_none_or(grad::takes)
    {
        return grad::linear(x, weight, bias);
    }
    folded(x, |rows| apply_to_rows(rows, weight, bias))
}

/// The product with both factors rounded to `dtype`; the rest stays as it is.
fn apply_reduced<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    dtype: DType,
) -> Tensor<D> {
    let (mut dims, full) = (x.dims(), x.dtype());
    let rows = dims[..D - 1].iter().product::<usize>();
    let x = x.reshape([rows, dims[D - 1]]).cast(dtype);
    let y = x.matmul(weight.cast(dtype).transpose()).cast(full);
    dims[D - 1] = y.dims()[1];
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
    .reshape(dims)
}

fn apply_to_rows(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    if cpu::linear_applies(&x, &weight, bias.as_ref()) {
        return cpu::linear(x, weight, bias, None);
    }
    let y = if weight.dtype() == x.dtype() {
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
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ComputeType;

    fn layer(weight: [[f32; 3]; 2], bias: [f32; 2]) -> Linear {
        let device = Device::flex();
        Linear {
            weight: Param::from_tensor(Tensor::from_floats(weight, &device)),
            bias: Some(Param::from_tensor(Tensor::from_floats(bias, &device))),
            lora: None,
            packed: PackedSlot::default(),
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
        for dtype in [DType::BF16, DType::F16] {
            layer.weight = layer.weight.map(|w| w.cast(dtype));
            for rows in [1, 40] {
                let x = Tensor::<2>::from_floats([[1.0, 2.0, 3.0]], &Device::flex());
                let y = layer.forward(x.repeat_dim(0, rows));
                assert_eq!(y.dtype(), DType::F32);
                let expected: Vec<f32> = [17.0, 26.0].repeat(rows);
                assert_eq!(y.into_data().try_to_vec::<f32>().unwrap(), expected);
            }
        }
    }

    /// 1/3 has no short form: what comes out shows what was multiplied, and the gradient arrives.
    #[test]
    fn a_compute_type_rounds_the_factors_only() {
        let third = 1.0 / 3.0f32;
        let layer = layer([[1.0, 0.0, 0.0], [0.0; 3]], [third, 0.0]);
        for device in [Device::flex(), Device::flex().autodiff()] {
            let x = Tensor::<1>::from_floats([third, 0.0, 0.0], &device).reshape([1, 3]);
            for (kind, rounded) in [
                (ComputeType::F32, third),
                (ComputeType::Bf16, half::bf16::from_f32(third).to_f32()),
                (ComputeType::F16, half::f16::from_f32(third).to_f32()),
            ] {
                let layer = if device.is_autodiff() {
                    layer.clone().train()
                } else {
                    layer.clone()
                };
                let y = compute::with(kind, || layer.forward(x.clone()));
                assert_eq!(y.dtype(), DType::F32);
                if device.is_autodiff() {
                    let gradients = y.clone().sum().backward();
                    let gradient = layer.weight.val().grad(&gradients).expect("trains");
                    assert_eq!(gradient.dtype(), DType::F32);
                    let gradient = gradient.into_data().try_to_vec::<f32>().unwrap();
                    assert_eq!(gradient, [rounded, 0.0, 0.0, rounded, 0.0, 0.0]);
                }
                let y = y
                    .without_autodiff()
                    .into_data()
                    .try_to_vec::<f32>()
                    .unwrap();
                assert_eq!(y, [rounded + third, 0.0], "{kind:?}");
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
