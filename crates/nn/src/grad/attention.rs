//! Attention that keeps queries, keys, values and one number a query.

use burn::prelude::*;

use super::{Pullback, input, record};
use crate::AttentionMask;
use crate::cpu::attention::Attention;
use crate::cpu::values::Plain;

/// See [`crate::attention`]; knows grouped heads.
pub(crate) fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: &AttentionMask,
) -> Tensor<4> {
    record([input(q), input(k), input(v)], |[q, k, v], _| {
        let call = Attention::new(q, k, v, mask);
        let (y, sums) = call.forward_with_sums();
        (y, Attend { call, sums })
    })
}

#[derive(Clone, Debug)]
struct Attend {
    call: Attention,
    sums: Vec<f32>,
}

impl Pullback<3> for Attend {
    fn pull(self, gradient: Plain, _: [bool; 3]) -> [Option<Plain>; 3] {
        self.call.backward(gradient, &self.sums).map(Some)
    }
}
