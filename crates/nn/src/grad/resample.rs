//! Resampling along one axis.

use burn::prelude::*;

use super::{Pullback, input, record};
use crate::cpu::resample::{resample as forward, resample_back};
use crate::cpu::values::{Plain, contiguous, from_values, values};
use crate::resample::Taps;

/// Resamples dimension `dim` of a tensor; see [`Taps::apply`].
pub(crate) fn resample(x: Tensor<4>, taps: &Taps, dim: usize) -> Tensor<4> {
    let shape = x.dims();
    let inner = shape[dim + 1..].iter().product();
    record([input(x)], |[x], _| {
        let y = forward(values(&contiguous(x)), taps.table(), shape[dim], inner);
        let mut y_shape = shape;
        y_shape[dim] = taps.outputs();
        let kept = Resample {
            taps: taps.clone(),
            shape,
            dim,
        };
        (from_values(y, y_shape), kept)
    })
}

#[derive(Clone, Debug)]
struct Resample {
    taps: Taps,
    shape: [usize; 4],
    dim: usize,
}

impl Pullback<1> for Resample {
    fn pull(self, gradient: Plain, _: [bool; 1]) -> [Option<Plain>; 1] {
        let inner = self.shape[self.dim + 1..].iter().product();
        let gradient = contiguous(gradient);
        let x = resample_back(
            values(&gradient),
            self.taps.table(),
            self.shape[self.dim],
            inner,
        );
        [Some(from_values(x, self.shape))]
    }
}
