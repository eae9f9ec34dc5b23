//! Random weights of any size, at once.
//!
//! Burn would draw every number from one serial generator in f32 and keep both formats in memory
//! while it converts. A benchmark wants ordinary numbers (no infinities, no denormals, nothing that
//! compresses), quickly, and a peak that is that of the network.

use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::DType;
use half::bf16;
use opabinia_nn::packed::{self, Packed, Rows};
use opabinia_weights::{WeightDtype, parameters};
use rayon::prelude::*;

use crate::WeightFormat;

/// Fills the weights of linear layers (rank 2, called `weight`, as when a checkpoint is loaded);
/// what is left is small and keeps its initialiser.
pub(crate) fn fill<M: Module>(module: M, format: WeightFormat) -> M {
    module.map(&mut Filler {
        format,
        // A table is looked up, not multiplied: no peer has one, and it stays unmade.
        leave: Some("embed_tokens"),
        packed: Some(format.loaded()),
        path: Vec::new(),
    })
}

/// Fills all weights, tables too, for a checkpoint: packed as `format` says, or bf16 tensors.
pub(crate) fn fill_for_file<M: Module>(module: M, format: Option<WeightFormat>) -> M {
    module.map(&mut Filler {
        format: format.unwrap_or(WeightFormat::Bf16),
        leave: None,
        packed: format.map(WeightFormat::loaded),
        path: Vec::new(),
    })
}

/// Numbers in all parameters of a module.
pub(crate) fn count<M: Module>(module: &M) -> u64 {
    let numbers = |shape: &[usize]| shape.iter().map(|n| *n as u64).product::<u64>();
    parameters(module)
        .iter()
        .map(|parameter| numbers(&parameter.shape))
        .sum()
}

struct Filler {
    format: WeightFormat,
    /// A module whose weights are left alone.
    leave: Option<&'static str>,
    /// What weights of linear layers are packed as if they are loaded; tensors if none.
    packed: Option<WeightDtype>,
    path: Vec<String>,
}

impl ModuleMapper for Filler {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let left = self
            .leave
            .is_some_and(|left| self.path.iter().any(|name| name == left));
        if D != 2 || left || self.path.last().is_none_or(|name| name != "weight") {
            return param;
        }
        let shape = param.lazy_shape().as_slice().to_vec();
        let count = shape.iter().product();
        // PyTorch's bound for a linear layer.
        let bound = 1.0 / (shape[1] as f32).sqrt();
        let packing = |dtype: WeightDtype| dtype.packing(&self.path.join("."));
        if let Some(format) = self.packed.and_then(packing)
            && packed::can_be_packed(param.id)
        {
            let values = uniform(count, bound);
            // Ordinary numbers can be packed as anything.
            if let Ok(packed) = Packed::pack(Rows::F32(&values), [shape[0], shape[1]], format)
                && packed::fill(param.id, packed)
            {
                return param;
            }
        }
        let (data, dtype) = match self.format {
            WeightFormat::F32 => (TensorData::new(uniform(count, bound), shape), DType::F32),
            WeightFormat::Bf16 | WeightFormat::Int8 | WeightFormat::Int4 => {
                let values: Vec<bf16> = uniform_as(count, bound, bf16::from_f32);
                (TensorData::new(values, shape), DType::BF16)
            }
        };
        let (device, id) = (param.lazy_device(), param.id);
        param.transform_for_load(Tensor::from_data(data, (&device, dtype)), id)
    }
}

/// `count` numbers between `-bound` and `bound`.
pub(crate) fn uniform(count: usize, bound: f32) -> Vec<f32> {
    uniform_as(count, bound, |x| x)
}

/// A hash of its index is each number's value, so all can be made at the same time.
fn uniform_as<T: Send>(count: usize, bound: f32, to: impl Fn(f32) -> T + Sync) -> Vec<T> {
    let value = |i: usize| {
        // The finaliser of splitmix64.
        let mut x = (i as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = (x >> 40) as f32 / (1u64 << 24) as f32;
        to((2.0 * unit - 1.0) * bound)
    };
    (0..count).into_par_iter().map(value).collect()
}

/// Activations in the range of normalised ones.
pub(crate) fn activations<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let values = uniform(shape.iter().product(), 1.0);
    Tensor::from_data(TensorData::new(values, shape), device)
}
