//! Resampling of channels-last grids along one axis at a time, differentiable everywhere.
//!
//! A resampling is a table of taps: for each output position, which input positions count and how
//! much. Two such passes, rows then columns, are a 2-D interpolation. Nothing is antialiased, as in
//! `torch.nn.functional.interpolate` with its defaults.

use burn::prelude::*;

use crate::cpu::resample::TapTable;
use crate::{cpu, grad};

/// Input positions and weights for each output position of one axis; `taps` per output.
#[derive(Clone, Debug, PartialEq)]
pub struct Taps {
    taps: usize,
    /// `[outputs · taps]`.
    indices: Vec<usize>,
    /// `[outputs · taps]`.
    weights: Vec<f32>,
}

impl Taps {
    /// Linear interpolation with half-pixel centres (`align_corners = False`).
    #[must_use]
    pub fn linear(input: usize, output: usize) -> Self {
        let scale = input as f32 / output as f32;
        let (mut indices, mut weights) = (Vec::new(), Vec::new());
        for i in 0..output {
            let source = ((i as f32 + 0.5) * scale - 0.5).max(0.0);
            let low = (source as usize).min(input - 1);
            let high = (low + 1).min(input - 1);
            let part = source - low as f32;
            indices.extend([low, high]);
            weights.extend([1.0 - part, part]);
        }
        Self {
            taps: 2,
            indices,
            weights,
        }
    }

    /// Cubic convolution with `a = −0.75` and clamped borders, as PyTorch's `bicubic`.
    ///
    /// `scale` is output positions per input position *as the caller states it*: PyTorch uses a
    /// given `scale_factor` itself for the coordinates, even where it is not exactly
    /// `output / input`.
    #[must_use]
    pub fn cubic(input: usize, output: usize, scale: f64) -> Self {
        let step = (1.0 / scale) as f32;
        let last = input as f32 - 1.0;
        let (mut indices, mut weights) = (Vec::new(), Vec::new());
        for i in 0..output {
            let source = (i as f32 + 0.5) * step - 0.5;
            let floor = source.floor();
            let part = source - floor;
            for tap in 0..4 {
                let position = (floor + tap as f32 - 1.0).clamp(0.0, last);
                indices.push(position as usize);
                weights.push(cubic_weight((part + 1.0 - tap as f32).abs()));
            }
        }
        Self {
            taps: 4,
            indices,
            weights,
        }
    }

    pub(crate) fn table(&self) -> TapTable<'_> {
        TapTable {
            taps: self.taps,
            indices: &self.indices,
            weights: &self.weights,
        }
    }

    /// Number of output positions.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.indices.len() / self.taps
    }

    /// Resamples dimension `dim` of a `[b, rows, cols, d]` grid.
    pub fn apply(&self, x: Tensor<4>, dim: usize) -> Tensor<4> {
        if cpu::is_plain_f32(&x) {
            return cpu::resample::along(x, self.table(), dim);
        }
        if grad::takes(&x) {
            return grad::resample(x, self, dim);
        }
        self.apply_by_selection(x, dim)
    }

    /// The same of Burn's operators.
    fn apply_by_selection(&self, x: Tensor<4>, dim: usize) -> Tensor<4> {
        let device = x.device();
        let mut shape = [1; 4];
        shape[dim] = self.outputs();
        let mut sum: Option<Tensor<4>> = None;
        for tap in 0..self.taps {
            let every = |n: usize| (tap..n).step_by(self.taps);
            let n = self.indices.len();
            let picks: Vec<i64> = every(n).map(|i| self.indices[i] as i64).collect();
            let weights: Vec<f32> = every(n).map(|i| self.weights[i]).collect();
            let picks = Tensor::<1, Int>::from_data(picks.as_slice(), &device);
            let weights = Tensor::<1>::from_floats(weights.as_slice(), &device).reshape(shape);
            let part = x.clone().select(dim, picks) * weights;
            sum = Some(match sum {
                Some(sum) => sum + part,
                None => part,
            });
        }
        sum.expect("a resampling has at least one tap")
    }
}

fn cubic_weight(distance: f32) -> f32 {
    const A: f32 = -0.75;
    let x = distance;
    if x <= 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
    } else {
        0.0
    }
}

/// Bilinear resampling, `align_corners = False`: `[b, rows, cols, d]` → `[b, to.0, to.1, d]`.
#[must_use]
pub fn bilinear(x: Tensor<4>, to: (usize, usize)) -> Tensor<4> {
    let [_, rows, cols, _] = x.dims();
    let x = if rows == to.0 {
        x
    } else {
        Taps::linear(rows, to.0).apply(x, 1)
    };
    if cols == to.1 {
        x
    } else {
        Taps::linear(cols, to.1).apply(x, 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resample(taps: &Taps, values: &[f32]) -> Vec<f32> {
        let x = Tensor::<1>::from_floats(values, &Device::flex()).reshape([1, values.len(), 1, 1]);
        taps.apply(x, 1).into_data().try_to_vec().unwrap()
    }

    #[test]
    fn doubling_a_line_by_hand() {
        // Half-pixel centres: outputs look at −0.25 (clamped), 0.25, 0.75, 1.25 (clamped).
        assert_eq!(
            resample(&Taps::linear(2, 4), &[0.0, 4.0]),
            [0.0, 1.0, 3.0, 4.0]
        );
    }

    #[test]
    fn halving_a_line_averages_neighbours() {
        assert_eq!(
            resample(&Taps::linear(4, 2), &[0.0, 2.0, 4.0, 8.0]),
            [1.0, 6.0]
        );
    }

    #[test]
    fn cubic_keeps_values_at_their_own_positions_and_sums_to_one() {
        let same = Taps::cubic(5, 5, 1.0);
        assert_eq!(
            resample(&same, &[1.0, 7.0, 3.0, -2.0, 5.0]),
            [1.0, 7.0, 3.0, -2.0, 5.0]
        );
        for y in resample(&Taps::cubic(5, 9, 9.1 / 5.0), &[1.0; 5]) {
            assert!((y - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn equal_sizes_are_untouched() {
        let x = Tensor::<4>::random(
            [1, 3, 4, 2],
            burn::tensor::Distribution::Default,
            &Device::flex(),
        );
        assert_eq!(bilinear(x.clone(), (3, 4)).into_data(), x.into_data());
    }
}
