//! Resampling along one axis, forwards and backwards.

use burn::prelude::*;
use rayon::prelude::*;

use super::elementwise::rows_per_task;
use super::math::fma;
use super::values::{contiguous, from_values, plain, tensor, values};
use super::{Level, level, per_level};

/// Which input positions count for each output position of an axis, and how much.
#[derive(Clone, Copy)]
pub(crate) struct TapTable<'a> {
    /// Taps of each output.
    pub(crate) taps: usize,
    /// `[outputs · taps]`.
    pub(crate) indices: &'a [usize],
    /// `[outputs · taps]`.
    pub(crate) weights: &'a [f32],
}

impl TapTable<'_> {
    fn of(&self, output: usize) -> impl Iterator<Item = (usize, f32)> {
        let range = output * self.taps..(output + 1) * self.taps;
        let weights = self.weights[range.clone()].iter().copied();
        self.indices[range].iter().copied().zip(weights)
    }

    fn outputs(&self) -> usize {
        self.indices.len() / self.taps
    }
}

#[inline(always)]
fn add_scaled_body<const FMA: bool>(sum: &mut [f32], x: &[f32], scale: f32) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum = fma::<FMA>(*x, scale, *sum);
    }
}

per_level! { pub(super) fn add_scaled = add_scaled_body(sum: &mut [f32], x: &[f32], scale: f32) }

/// `[outer, inputs, inner]` → `[outer, outputs, inner]`.
pub(crate) fn resample(x: &[f32], table: TapTable<'_>, inputs: usize, inner: usize) -> Vec<f32> {
    let outputs = table.outputs();
    let outer = x.len() / (inputs * inner).max(1);
    let mut out = vec![0f32; outer * outputs * inner];
    out.par_chunks_mut(inner.max(1))
        .with_min_len(rows_per_task(inner))
        .enumerate()
        .for_each(|(row, sum)| {
            let (block, output) = (row / outputs, row % outputs);
            for (index, weight) in table.of(output) {
                let from = (block * inputs + index) * inner;
                add_scaled(sum, &x[from..from + inner], weight);
            }
        });
    out
}

/// [`resample`] along dimension `dim` of a plain tensor.
///
/// # Panics
/// If the tensor is not [plain](super::is_plain_f32).
pub(crate) fn along(x: Tensor<4>, table: TapTable<'_>, dim: usize) -> Tensor<4> {
    let mut shape = x.dims();
    let inner = shape[dim + 1..].iter().product();
    let y = resample(values(&contiguous(plain(x))), table, shape[dim], inner);
    shape[dim] = table.outputs();
    tensor(from_values(y, shape))
}

/// The gradient of [`resample`]'s input: `[outer, outputs, inner]` → `[outer, inputs, inner]`.
pub(crate) fn resample_back(
    gradient: &[f32],
    table: TapTable<'_>,
    inputs: usize,
    inner: usize,
) -> Vec<f32> {
    let outputs = table.outputs();
    let outer = gradient.len() / (outputs * inner).max(1);
    let mut out = vec![0f32; outer * inputs * inner];
    out.par_chunks_mut((inputs * inner).max(1))
        .zip(gradient.par_chunks((outputs * inner).max(1)))
        .with_min_len(rows_per_task(inputs * inner))
        .for_each(|(out, gradient)| {
            for (output, row) in gradient.chunks_exact(inner).enumerate() {
                for (index, weight) in table.of(output) {
                    let sum = &mut out[index * inner..(index + 1) * inner];
                    add_scaled(sum, row, weight);
                }
            }
        });
    out
}
