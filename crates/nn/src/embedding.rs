//! Token embeddings: a table that is looked up and, where a model ties its head, multiplied by.

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;
use burn::tensor::DType;

use crate::grad;

/// A table of `vocab` rows of width `d`.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[vocab, d]`.
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    /// Normal initialisation with the standard deviation that transformers use, 0.02.
    #[must_use]
    pub fn new(vocab: usize, d: usize, device: &Device) -> Self {
        let normal = Initializer::Normal {
            mean: 0.0,
            std: 0.02,
        };
        Self {
            weight: normal.init([vocab, d], device),
        }
    }

    /// Looks rows up; always f32, whatever the table is stored as.
    ///
    /// # Shapes
    /// - `ids`: `[n]`, each below `vocab`
    /// - output: `[n, d]`
    pub fn forward(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        let weight = self.weight.val();
        if weight.device().is_autodiff() && grad::takes(&weight) {
            return grad::lookup(weight, ids);
        }
        let rows = weight.select(0, ids);
        if rows.dtype() == DType::F32 {
            rows
        } else {
            rows.cast(DType::F32)
        }
    }

    /// Number of rows, without touching the parameter.
    #[must_use]
    pub fn vocab(&self) -> usize {
        self.weight.lazy_shape().dims::<2>()[0]
    }
}
