//! Products with a weight that is read in the format it is stored in.

use burn::prelude::*;
use burn::tensor::DType;
use gemm::Parallelism;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::math::{dot_bf16, dot_f32};
use super::values::{contiguous, plain, read, slice_of};
use super::{is_plain_cpu, is_plain_f32};

/// Rows up to which a product is bound by reading the weight, so that dot products win.
const FEW_ROWS: usize = 8;
/// Multiply-adds below which a product is not worth more than one thread.
const SMALL_PRODUCT: usize = 1 << 16;
/// Weights that are widened to f32 at a time for a product with many rows.
const PANEL: usize = 1 << 23;
/// Values that one task widens.
const WIDENED: usize = 1 << 15;

/// Whether [`linear`] takes this product: weights in a reduced format always, f32 weights where
/// there are few rows and much to read.
#[must_use]
pub fn linear_applies(x: &Tensor<2>, weight: &Tensor<2>) -> bool {
    if !is_plain_f32(x) || !is_plain_cpu(&weight.device()) {
        return false;
    }
    let [rows, d_in] = x.dims();
    match weight.dtype() {
        DType::BF16 | DType::F16 => true,
        DType::F32 => rows <= FEW_ROWS && weight.dims()[0] * d_in >= SMALL_PRODUCT,
        _ => false,
    }
}

/// `x · weightᵀ` with the weight in f32, bf16 or f16 and everything else in f32.
///
/// # Shapes
/// - `x`: `[m, k]`, `weight`: `[n, k]`
/// - output: `[m, n]`
///
/// # Panics
/// Where [`linear_applies`] is false, or the shapes do not fit: a wiring mistake.
#[must_use]
pub fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let device = x.device();
    let ([m, k], [n, k_weight]) = (x.dims(), weight.dims());
    assert_eq!(
        k, k_weight,
        "a linear layer of width {k_weight} was given width {k}"
    );
    let weight = contiguous(plain(weight));
    let values = read(x, |x| match weight.dtype() {
        DType::F32 => product(x, slice_of::<f32>(&weight), [m, k, n]),
        DType::BF16 => product(x, slice_of::<bf16>(&weight), [m, k, n]),
        DType::F16 => product(x, slice_of::<f16>(&weight), [m, k, n]),
        other => panic!("no CPU product with {other:?} weights"),
    });
    Tensor::from_data(TensorData::new(values, [m, n]), &device)
}

/// A stored weight format: how a row is dotted and how it is widened.
trait Stored: Copy + Send + Sync {
    fn dot(x: &[f32], row: &[Self]) -> f32;
    fn widen(row: &[Self], into: &mut [f32]);
}

impl Stored for f32 {
    fn dot(x: &[f32], row: &[Self]) -> f32 {
        dot_f32(x, row)
    }
    fn widen(row: &[Self], into: &mut [f32]) {
        into.copy_from_slice(row);
    }
}

impl Stored for bf16 {
    fn dot(x: &[f32], row: &[Self]) -> f32 {
        dot_bf16(x, row)
    }
    fn widen(row: &[Self], into: &mut [f32]) {
        row.convert_to_f32_slice(into);
    }
}

impl Stored for f16 {
    fn dot(x: &[f32], row: &[Self]) -> f32 {
        const PART: usize = 512;
        let mut wide = [0f32; PART];
        let mut sum = 0.0;
        for (x, row) in x.chunks(PART).zip(row.chunks(PART)) {
            row.convert_to_f32_slice(&mut wide[..row.len()]);
            sum += dot_f32(x, &wide[..row.len()]);
        }
        sum
    }
    fn widen(row: &[Self], into: &mut [f32]) {
        row.convert_to_f32_slice(into);
    }
}

fn product<W: Stored>(x: &[f32], weight: &[W], [m, k, n]: [usize; 3]) -> Vec<f32> {
    let mut y = vec![0f32; m * n];
    if y.is_empty() || k == 0 {
        return y;
    }
    if m <= FEW_ROWS {
        few_rows(x, weight, &mut y, [m, k, n]);
    } else {
        many_rows(x, weight, &mut y, [m, k, n]);
    }
    y
}

/// Reads the weight once, whole, in as many parts as there are threads.
fn few_rows<W: Stored>(x: &[f32], weight: &[W], y: &mut [f32], [m, k, n]: [usize; 3]) {
    let per_task = n
        .div_ceil(4 * rayon::current_num_threads())
        .max(SMALL_PRODUCT / k / 4)
        .max(1);
    // `[n, m]` first, so that each task owns a contiguous part.
    let mut transposed = vec![0f32; n * m];
    transposed
        .par_chunks_mut(per_task * m)
        .zip(weight.par_chunks(per_task * k))
        .for_each(|(y, weight)| {
            for (y, row) in y.chunks_exact_mut(m).zip(weight.chunks_exact(k)) {
                for (y, x) in y.iter_mut().zip(x.chunks_exact(k)) {
                    *y = W::dot(x, row);
                }
            }
        });
    for (i, row) in y.chunks_exact_mut(n).enumerate() {
        for (j, y) in row.iter_mut().enumerate() {
            *y = transposed[j * m + i];
        }
    }
}

/// Widens a panel of weight rows at a time and multiplies it in f32, both on all threads.
///
/// The panel is large, because the product packs `x` anew for each.
fn many_rows<W: Stored>(x: &[f32], weight: &[W], y: &mut [f32], [m, k, n]: [usize; 3]) {
    assert!(x.len() == m * k && weight.len() == n * k && y.len() == m * n);
    let panel_rows = (PANEL / k).clamp(256, 4096).min(n);
    let mut wide = vec![0f32; panel_rows * k];
    for (panel, rows) in weight.chunks(panel_rows * k).enumerate() {
        let wide = &mut wide[..rows.len()];
        wide.par_chunks_mut(WIDENED)
            .zip(rows.par_chunks(WIDENED))
            .for_each(|(wide, rows)| W::widen(rows, wide));
        let (first, width) = (panel * panel_rows, rows.len() / k);
        // SAFETY: reads `m·k` of `x` and `width·k` of `wide`, and writes columns
        // `first..first + width` of the `[m, n]` output; the lengths were checked.
        unsafe {
            gemm::gemm(
                m,
                width,
                k,
                y.as_mut_ptr().add(first),
                1,
                n as isize,
                false,
                x.as_ptr(),
                1,
                k as isize,
                wide.as_ptr(),
                k as isize,
                1,
                0.0,
                1.0,
                false,
                false,
                false,
                Parallelism::Rayon(0),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every level that this processor has, against f64, on sizes around every chunk boundary.
    #[test]
    fn products_match_f64() {
        for (m, k, n) in [
            (1, 1, 1),
            (1, 63, 5),
            (8, 130, 70),
            (9, 64, 257),
            (33, 200, 300),
        ] {
            let value = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0;
            let x: Vec<f32> = (0..m * k).map(value).collect();
            let w: Vec<f32> = (0..n * k).map(|i| value(i + 77)).collect();
            let w16: Vec<bf16> = w.iter().map(|v| bf16::from_f32(*v)).collect();
            let h16: Vec<f16> = w.iter().map(|v| f16::from_f32(*v)).collect();
            let widened: Vec<f32> = w16.iter().copied().map(f32::from).collect();
            let widened_half: Vec<f32> = h16.iter().copied().map(f32::from).collect();
            let cases = [
                (product(&x, &w, [m, k, n]), &w),
                (product(&x, &w16, [m, k, n]), &widened),
                (product(&x, &h16, [m, k, n]), &widened_half),
            ];
            for (y, w) in cases {
                for i in 0..m {
                    for j in 0..n {
                        let exact: f64 = (0..k)
                            .map(|l| f64::from(x[i * k + l]) * f64::from(w[j * k + l]))
                            .sum();
                        let error = (f64::from(y[i * n + j]) - exact).abs();
                        assert!(error < 1e-4, "[{m}, {k}, {n}] at {i}, {j}: {error}");
                    }
                }
            }
        }
    }
}
