//! Products with a weight that is read in the format it is stored in.

use std::borrow::Cow;

use burn::prelude::*;
use burn::tensor::DType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use opabinia_kernels::{Activations, FEW_ROWS, Options, Packed, Rows, Weights, multiply};
use rayon::prelude::*;

use super::elementwise::{activate_slice, add_slice, rows_per_task};
use super::math::{dot_bf16, dot_f32};
use super::matrix::{self, Matrix, Target};
use super::values::{CHUNK, contiguous, plain, read, slice_of, values};
use super::{is_plain_cpu, is_plain_f32};
use crate::Activation;

/// Rows from which `gemm` is faster than our kernels, by about a tenth: it spends more on turning the
/// weight around, and less on each row. Measured on Zen 4; between, ours are, by as much or more.
const MANY_ROWS: usize = 1024;
/// Rows from which more of them make a row of a packed product no cheaper: several for every thread,
/// and a weight of any size is read in a small part of the time. However many, a row's result is the
/// same to the last bit: each is a sum of its own, in the order of `k`.
pub(crate) const ENOUGH_PACKED: usize = 1024;
/// The same where the weight is turned around and widened in every product. All of so many rows take
/// the same way, and `gemm` divides `k` without a look at them.
pub(crate) const ENOUGH_STORED: usize = 8192;
const _: () = assert!(ENOUGH_PACKED > FEW_ROWS && ENOUGH_STORED >= MANY_ROWS);

/// Weights that are widened to f32 at a time for a product with that many rows.
const WIDENED: usize = 1 << 23;
/// Values of a weight below which reading it is not worth more than one thread.
const SMALL_PRODUCT: usize = 1 << 16;

/// Whether [`linear`] takes this product.
#[must_use]
pub fn linear_applies<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
) -> bool {
    is_plain_f32(x)
        && is_plain_cpu(&weight.device())
        && matches!(weight.dtype(), DType::F32 | DType::BF16 | DType::F16)
        && bias.is_none_or(is_plain_f32)
}

/// `act(x · weightᵀ + bias)` with the weight in f32, bf16 or f16 and everything else in f32: a stored
/// weight is widened, activations are never rounded.
///
/// # Shapes
/// - `x`: `[m, k]`, `weight`: `[n, k]`, `bias`: `[n]`
/// - output: `[m, n]`
///
/// # Panics
/// Where [`linear_applies`] is false, or the shapes do not fit: a wiring mistake.
#[must_use]
pub fn linear(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    act: Option<Activation>,
) -> Tensor<2> {
    let device = x.device();
    let ([m, k], [n, k_weight]) = (x.dims(), weight.dims());
    assert_eq!(
        k, k_weight,
        "a linear layer of width {k_weight} was given width {k}"
    );
    let weight = contiguous(plain(weight));
    let bias = bias.map(|bias| contiguous(plain(bias)));
    let last = Last {
        bias: bias.as_ref().map(values),
        act,
    };
    let values = read(x, |x| match weight.dtype() {
        DType::F32 => product(x, slice_of::<f32>(&weight), [m, k, n], &last),
        DType::BF16 => product(x, slice_of::<bf16>(&weight), [m, k, n], &last),
        DType::F16 => product(x, slice_of::<f16>(&weight), [m, k, n], &last),
        other => panic!("no CPU product with {other:?} weights"),
    });
    Tensor::from_data(TensorData::new(values, [m, n]), &device)
}

/// [`linear`] with a packed weight.
///
/// Somebody chose the format, and with it that activations may be rounded to it: to bf16 for bf16
/// weights where the processor gains by it, to 8 bits for integers.
///
/// # Panics
/// If a tensor is not [plain](super::is_plain_f32), or the shapes do not fit: a wiring mistake.
#[must_use]
pub fn linear_packed(
    x: Tensor<2>,
    weight: &Packed,
    bias: Option<Tensor<1>>,
    act: Option<Activation>,
) -> Tensor<2> {
    let device = x.device();
    let ([m, k], [n, k_weight]) = (x.dims(), weight.shape());
    assert_eq!(
        k, k_weight,
        "a linear layer of width {k_weight} was given width {k}"
    );
    let bias = bias.map(|bias| contiguous(plain(bias)));
    let last = Last {
        bias: bias.as_ref().map(values),
        act,
    };
    let values = read(x, |x| {
        last.multiply(x, m, Weights::Packed(weight), Activations::Rounded)
    });
    Tensor::from_data(TensorData::new(values, [m, n]), &device)
}

/// What is done to the values of a product before they are written.
#[derive(Default)]
struct Last<'a> {
    bias: Option<&'a [f32]>,
    act: Option<Activation>,
}

/// A stored weight format: how a row is dotted, and what the kernels call it.
trait Stored: Copy + Send + Sync {
    /// Whether values are f32 as they are.
    const WIDE: bool;
    fn dot(x: &[f32], row: &[Self]) -> f32;
    fn rows(weight: &[Self]) -> Rows<'_>;
    /// Values as f32; borrowed where they are.
    fn widened(weight: &[Self]) -> Cow<'_, [f32]>;
}

/// Widens on all threads.
fn widened<W: Sync>(weight: &[W], widen: impl Fn(&[W], &mut [f32]) + Sync) -> Vec<f32> {
    const PART: usize = 1 << 15;
    let mut wide = vec![0f32; weight.len()];
    wide.par_chunks_mut(PART)
        .zip(weight.par_chunks(PART))
        .for_each(|(wide, weight)| widen(weight, wide));
    wide
}

impl Stored for f32 {
    const WIDE: bool = true;
    fn dot(x: &[f32], row: &[Self]) -> f32 {
        dot_f32(x, row)
    }
    fn rows(weight: &[Self]) -> Rows<'_> {
        Rows::F32(weight)
    }
    fn widened(weight: &[Self]) -> Cow<'_, [f32]> {
        Cow::Borrowed(weight)
    }
}

impl Stored for bf16 {
    const WIDE: bool = false;
    fn dot(x: &[f32], row: &[Self]) -> f32 {
        dot_bf16(x, row)
    }
    fn rows(weight: &[Self]) -> Rows<'_> {
        Rows::Bf16(weight)
    }
    fn widened(weight: &[Self]) -> Cow<'_, [f32]> {
        widened(weight, HalfFloatSliceExt::convert_to_f32_slice).into()
    }
}

impl Stored for f16 {
    const WIDE: bool = false;
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
    fn rows(weight: &[Self]) -> Rows<'_> {
        Rows::F16(weight)
    }
    fn widened(weight: &[Self]) -> Cow<'_, [f32]> {
        widened(weight, HalfFloatSliceExt::convert_to_f32_slice).into()
    }
}

fn product<W: Stored>(x: &[f32], weight: &[W], [m, k, n]: [usize; 3], last: &Last<'_>) -> Vec<f32> {
    // Dot products read rows where they lie; packing them is only worth it for many products.
    if m <= FEW_ROWS && k > 0 && n > 0 {
        let mut y = vec![0f32; m * n];
        few_rows(x, weight, &mut y, [m, k, n]);
        last.apply(&mut y, n);
        return y;
    }
    if m >= MANY_ROWS && k > 0 && n > 0 {
        let mut y = many_rows(x, weight, [m, k, n]);
        last.apply(&mut y, n);
        return y;
    }
    let weights = Weights::Rows(W::rows(weight), [n, k]);
    last.multiply(x, m, weights, Activations::Exact)
}

impl Last<'_> {
    /// The product by the kernels, with all that comes last.
    fn multiply(
        &self,
        x: &[f32],
        m: usize,
        weights: Weights<'_>,
        activations: Activations,
    ) -> Vec<f32> {
        let activate = |row: &mut [f32]| {
            if let Some(act) = self.act {
                activate_slice(row, act);
            }
        };
        let options = Options {
            bias: self.bias,
            finish: self.act.is_some().then_some(&activate),
            activations,
            ..Options::default()
        };
        multiply(x, m, weights, options)
    }

    /// The bias and the activation function of finished rows of `n` values.
    fn apply(&self, y: &mut [f32], n: usize) {
        if self.bias.is_none() && self.act.is_none() {
            return;
        }
        let finish = |part: &mut [f32]| {
            for row in part.chunks_exact_mut(n) {
                if let Some(bias) = self.bias {
                    add_slice(row, bias);
                }
            }
            if let Some(act) = self.act {
                activate_slice(part, act);
            }
        };
        if y.len() <= CHUNK {
            finish(y);
        } else {
            y.par_chunks_mut(rows_per_task(n) * n).for_each(finish);
        }
    }
}

/// Widens some rows of the weight at a time and multiplies them in f32, both on all threads.
fn many_rows<W: Stored>(x: &[f32], weight: &[W], [m, k, n]: [usize; 3]) -> Vec<f32> {
    assert!(x.len() == m * k && weight.len() == n * k);
    let mut y = Vec::with_capacity(m * n);
    let at_a_time = if W::WIDE { n } else { (WIDENED / k).max(256) };
    let x = Matrix::dense(x, m, k);
    for first in (0..n).step_by(at_a_time) {
        let columns = at_a_time.min(n - first);
        let wide = W::widened(&weight[first * k..(first + columns) * k]);
        let target = Target {
            first: y.spare_capacity_mut()[first..].as_mut_ptr().cast(),
            step: n,
            add: false,
        };
        let weight = Matrix::dense(&wide, columns, k).transposed();
        // SAFETY: `y` has room for `m` rows of `n` values; these columns are written once, here.
        unsafe { matrix::multiply(&x, &weight, target, matrix::threads()) };
    }
    // SAFETY: every column of every row was written.
    unsafe { y.set_len(m * n) };
    y
}

/// Reads the weight once, whole, in as many parts as there are threads.
fn few_rows<W: Stored>(x: &[f32], weight: &[W], y: &mut [f32], [m, k, n]: [usize; 3]) {
    let per_task = n
        .div_ceil(4 * rayon::current_num_threads())
        .max(SMALL_PRODUCT / k / 4)
        .max(1);
    if n * k < SMALL_PRODUCT {
        for (y, x) in y.chunks_exact_mut(n).zip(x.chunks_exact(k)) {
            for (y, row) in y.iter_mut().zip(weight.chunks_exact(k)) {
                *y = W::dot(x, row);
            }
        }
        return;
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use opabinia_kernels::Format;

    use super::*;

    /// Guessed tokens are checked together: whatever the weight, a row must come out to the last bit as
    /// it does alone.
    #[test]
    fn few_rows_do_not_depend_on_each_other() {
        fn alone_and_together(k: usize, n: usize, product: impl Fn(&[f32], usize) -> Vec<f32>) {
            let x: Vec<f32> = (0..FEW_ROWS * k)
                .map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0)
                .collect();
            let alone: Vec<f32> = x.chunks(k).flat_map(|x| product(x, 1)).collect();
            for m in 1..=FEW_ROWS {
                assert_eq!(product(&x[..m * k], m), alone[..m * n], "{m} rows");
            }
        }
        // One weight that is not worth more than one thread, and one that is.
        for (k, n) in [(70, 33), (700, 300)] {
            let w: Vec<f32> = (0..n * k)
                .map(|i| ((i * 53) % 89) as f32 / 44.0 - 1.0)
                .collect();
            let w16: Vec<bf16> = w.iter().map(|v| bf16::from_f32(*v)).collect();
            let h16: Vec<f16> = w.iter().map(|v| f16::from_f32(*v)).collect();
            let last = Last::default();
            alone_and_together(k, n, |x, m| product(x, &w, [m, k, n], &last));
            alone_and_together(k, n, |x, m| product(x, &w16, [m, k, n], &last));
            alone_and_together(k, n, |x, m| product(x, &h16, [m, k, n], &last));
            for format in Format::ALL {
                let packed = Packed::pack(Rows::F32(&w), [n, k], format).unwrap();
                alone_and_together(k, n, |x, m| {
                    last.multiply(x, m, Weights::Packed(&packed), Activations::Rounded)
                });
            }
        }
    }

    /// Every level that this processor has, against f64, on sizes around every chunk boundary.
    #[test]
    fn products_match_f64() {
        for (m, k, n) in [
            (1, 1, 1),
            (1, 63, 5),
            (FEW_ROWS, 130, 70),
            (FEW_ROWS + 1, 64, 257),
            (33, 200, 300),
            (MANY_ROWS, 40, 30),
        ] {
            let value = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0;
            let x: Vec<f32> = (0..m * k).map(value).collect();
            let w: Vec<f32> = (0..n * k).map(|i| value(i + 77)).collect();
            let w16: Vec<bf16> = w.iter().map(|v| bf16::from_f32(*v)).collect();
            let h16: Vec<f16> = w.iter().map(|v| f16::from_f32(*v)).collect();
            let widened: Vec<f32> = w16.iter().copied().map(f32::from).collect();
            let widened_half: Vec<f32> = h16.iter().copied().map(f32::from).collect();
            let cases = [
                (product(&x, &w, [m, k, n], &Last::default()), &w),
                (product(&x, &w16, [m, k, n], &Last::default()), &widened),
                (
                    product(&x, &h16, [m, k, n], &Last::default()),
                    &widened_half,
                ),
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
