//! Principal components of a feature grid: what an encoder sees, as colours.
//!
//! The features of one picture are centred, and the directions in which they vary most are found
//! by orthogonal iteration, without ever forming the `d × d` covariance (an encoder of several
//! stages has features of width 5760). Starting directions and signs are fixed, so the same
//! features always give the same picture.

use burn::prelude::*;

use crate::FeatureGrid;

/// Rounds of the iteration; more change no colour.
const ROUNDS: usize = 24;
/// Share of values beyond each end of the colour scale.
const CLIPPED: f32 = 0.01;

/// Projects the features of the first picture on their first `components` principal components.
///
/// Returns one value per component and cell, `[cells, components]`, row-major, in no particular
/// unit.
#[must_use]
pub fn principal_components(grid: &FeatureGrid, components: usize) -> Vec<f32> {
    let [_, n, d] = grid.features.dims();
    let k = components.min(d);
    let x = grid
        .features
        .clone()
        .slice([0..1, 0..n, 0..d])
        .reshape([n, d]);
    let x = x.clone() - x.mean_dim(0);
    let mut basis = start(d, k, &x.device()); // [d, k]
    for _ in 0..ROUNDS {
        basis = orthonormal(x.clone().transpose().matmul(x.clone().matmul(basis)));
    }
    let values: Vec<f32> = x.matmul(basis).into_data().iter::<f32>().collect();
    with_fixed_signs(values, k, components)
}

/// Directions that are no multiple of each other, the same every time.
fn start(d: usize, k: usize, device: &Device) -> Tensor<2> {
    let value = |i: usize| {
        let (row, column) = (i / k, i % k);
        ((row * (2 * column + 1)) as f32 * 0.7 + column as f32).cos()
    };
    let values: Vec<f32> = (0..d * k).map(value).collect();
    Tensor::from_data(TensorData::new(values, [d, k]), device)
}

/// Gram–Schmidt over the columns; a direction in which nothing varies becomes zero.
fn orthonormal(columns: Tensor<2>) -> Tensor<2> {
    let [d, k] = columns.dims();
    let mut kept: Vec<Tensor<2>> = Vec::with_capacity(k);
    for i in 0..k {
        let mut column = columns.clone().slice([0..d, i..i + 1]);
        // Twice, because once leaves rounding behind.
        for other in kept.iter().chain(kept.clone().iter()) {
            let share = other.clone().transpose().matmul(column.clone());
            column = column - other.clone().matmul(share);
        }
        let norm = column.clone().square().sum().sqrt().into_scalar::<f32>();
        kept.push(if norm > 1e-12 {
            column / norm
        } else {
            column * 0.0
        });
    }
    Tensor::cat(kept, 1)
}

/// Turns each component so that its largest value is positive, and fills up missing ones.
fn with_fixed_signs(values: Vec<f32>, k: usize, components: usize) -> Vec<f32> {
    let sign = |component: usize| {
        let column = values.iter().skip(component).step_by(k);
        let extreme = column
            .copied()
            .fold(0f32, |a, b| if b.abs() > a.abs() { b } else { a });
        if extreme < 0.0 { -1.0 } else { 1.0 }
    };
    let signs: Vec<f32> = (0..k).map(sign).collect();
    let row = |row: &[f32]| {
        let mut turned: Vec<f32> = row.iter().zip(&signs).map(|(v, s)| v * s).collect();
        turned.resize(components, 0.0);
        turned
    };
    values.chunks_exact(k).flat_map(row).collect()
}

/// The first three principal components as red, green and blue, one colour per cell.
///
/// Each component is stretched so that all but the outermost hundredth of its values fit.
#[must_use]
pub fn colours(grid: &FeatureGrid) -> Vec<[u8; 3]> {
    let values = principal_components(grid, 3);
    let scale = |component: usize| {
        let mut column: Vec<f32> = values.iter().skip(component).step_by(3).copied().collect();
        column.sort_by(f32::total_cmp);
        let at = |share: f32| column[((column.len() - 1) as f32 * share) as usize];
        (at(CLIPPED), at(1.0 - CLIPPED))
    };
    if values.is_empty() {
        return Vec::new();
    }
    let scales = [scale(0), scale(1), scale(2)];
    let (rows, _) = values.as_chunks::<3>();
    let colour = |row: &[f32; 3]| {
        std::array::from_fn(|i| {
            let (low, high) = scales[i];
            let share = if high > low {
                (row[i] - low) / (high - low)
            } else {
                0.5
            };
            (share.clamp(0.0, 1.0) * 255.0).round() as u8
        })
    };
    rows.iter().map(colour).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Grid;

    /// Points on a line in three dimensions: one component holds everything.
    #[test]
    fn a_line_has_one_component() {
        let device = Device::flex();
        let points = [
            [3.0, 0.0, 4.0],
            [-3.0, 0.0, -4.0],
            [0.0, 0.0, 0.0],
            [6.0, 0.0, 8.0],
        ];
        let x = Tensor::<2>::from_floats(points, &device).reshape([1, 4, 3]);
        let values = principal_components(&FeatureGrid::new(x, Grid::square(2)), 3);
        let first: Vec<f32> = values.iter().step_by(3).copied().collect();
        // Distances from the mean (1.5, 0, 2), along the line.
        for (a, b) in first.iter().zip([2.5, -7.5, -2.5, 7.5]) {
            assert!((a.abs() - f32::abs(b)).abs() < 1e-4, "{first:?}");
        }
        assert!(
            values.iter().skip(1).step_by(3).all(|v| v.abs() < 1e-3),
            "{values:?}"
        );
    }

    #[test]
    fn equal_features_are_grey() {
        let x = Tensor::ones([1, 4, 5], &Device::flex());
        let grid = FeatureGrid::new(x, Grid::square(2));
        assert!(colours(&grid).iter().all(|colour| *colour == [128; 3]));
    }
}
