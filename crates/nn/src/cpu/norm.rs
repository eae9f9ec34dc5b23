//! Norms of rows, forwards and backwards.
//!
//! The backward passes compute mean and variance again: a row is in cache, and nothing but the input
//! needs to be kept. Gradients of the scale sum over rows; each task sums its own rows and the sums
//! are added in order, so the result does not depend on the number of threads.

use burn::prelude::*;
use rayon::prelude::*;

use super::elementwise::{add_slice, rows_per_task};
use super::math::{dot_body, fma};
use super::values::{Plain, contiguous, edit, from_values, owned, plain, read, tensor, values};
use super::{Level, level, per_level};

#[inline(always)]
fn rms_norm_body<const FMA: bool>(row: &mut [f32], weight: &[f32], eps: f32) {
    let scale = rms_scale::<FMA>(row, eps);
    for (x, w) in row.iter_mut().zip(weight) {
        *x = *x * scale * *w;
    }
}

per_level! { fn rms_norm_row = rms_norm_body(row: &mut [f32], weight: &[f32], eps: f32) }

/// `1 / √(mean(x²) + eps)`.
#[inline(always)]
fn rms_scale<const FMA: bool>(row: &[f32], eps: f32) -> f32 {
    1.0 / (dot_body::<FMA>(row, row) / row.len() as f32 + eps).sqrt()
}

/// With `r` the scale and `g = gradient · weight`: `dx = r g − r³ x mean(g x)`; adds
/// `gradient · x · r` to the weight's gradient.
#[inline(always)]
fn rms_norm_back_body<const FMA: bool>(
    gradient: &mut [f32],
    x: &[f32],
    weight: &[f32],
    weight_sum: &mut [f32],
    eps: f32,
) {
    let d = x.len();
    let (gradient, weight, weight_sum) = (&mut gradient[..d], &weight[..d], &mut weight_sum[..d]);
    let scale = rms_scale::<FMA>(x, eps);
    let shared = triple_dot::<FMA>(gradient, weight, x) / d as f32 * scale * scale * scale;
    for i in 0..d {
        weight_sum[i] = fma::<FMA>(gradient[i], x[i] * scale, weight_sum[i]);
        gradient[i] = fma::<FMA>(gradient[i] * weight[i], scale, -(x[i] * shared));
    }
}

per_level! {
    fn rms_norm_back_row = rms_norm_back_body(
        gradient: &mut [f32], x: &[f32], weight: &[f32], weight_sum: &mut [f32], eps: f32
    )
}

/// Lanes of partial sums.
const LANES: usize = 32;

/// `Σ a b c`.
#[inline(always)]
fn triple_dot<const FMA: bool>(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    let (c_chunks, c_rest) = c.as_chunks::<LANES>();
    for ((a, b), c) in a_chunks.iter().zip(b_chunks).zip(c_chunks) {
        for i in 0..LANES {
            sums[i] = fma::<FMA>(a[i] * b[i], c[i], sums[i]);
        }
    }
    let rest = a_rest.iter().zip(b_rest).zip(c_rest);
    sums.iter().sum::<f32>() + rest.map(|((a, b), c)| a * b * c).sum::<f32>()
}

/// `Σ a`.
#[inline(always)]
fn sum(a: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (chunks, rest) = a.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            sums[i] += chunk[i];
        }
    }
    sums.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

/// `Σ (a − mean)²`.
#[inline(always)]
fn deviation<const FMA: bool>(a: &[f32], mean: f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (chunks, rest) = a.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            let off = chunk[i] - mean;
            sums[i] = fma::<FMA>(off, off, sums[i]);
        }
    }
    let rest = rest.iter().map(|a| (a - mean) * (a - mean));
    sums.iter().sum::<f32>() + rest.sum::<f32>()
}

/// Mean and `1 / √(variance + eps)`.
#[inline(always)]
fn moments<const FMA: bool>(row: &[f32], eps: f32) -> (f32, f32) {
    let d = row.len() as f32;
    let mean = sum(row) / d;
    (mean, 1.0 / (deviation::<FMA>(row, mean) / d + eps).sqrt())
}

#[inline(always)]
fn layer_norm_body<const FMA: bool>(row: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let (mean, scale) = moments::<FMA>(row, eps);
    for ((x, w), b) in row.iter_mut().zip(weight).zip(bias) {
        *x = fma::<FMA>((*x - mean) * scale, *w, *b);
    }
}

per_level! {
    fn layer_norm_row = layer_norm_body(row: &mut [f32], weight: &[f32], bias: &[f32], eps: f32)
}

/// With `n = (x − mean) r` and `g = gradient · weight`: `dx = r (g − mean(g) − n mean(g n))`; adds
/// `gradient · n` and `gradient` to the gradients of weight and bias, which lie one after the other.
#[inline(always)]
fn layer_norm_back_body<const FMA: bool>(
    gradient: &mut [f32],
    x: &[f32],
    weight: &[f32],
    sums: &mut [f32],
    eps: f32,
) {
    let d = x.len();
    let (mean, scale) = moments::<FMA>(x, eps);
    let (weight_sum, bias_sum) = sums.split_at_mut(d);
    let (gradient, weight, bias_sum) = (&mut gradient[..d], &weight[..d], &mut bias_sum[..d]);
    let mean_gradient = dot_body::<FMA>(gradient, weight) / d as f32;
    // mean(g n) = r (mean(g x) − mean(g) mean(x)), without keeping n.
    let mean_product = scale * (triple_dot_centred::<FMA>(gradient, weight, x, mean) / d as f32);
    for i in 0..d {
        let normal = (x[i] - mean) * scale;
        weight_sum[i] = fma::<FMA>(gradient[i], normal, weight_sum[i]);
        bias_sum[i] += gradient[i];
        let g = fma::<FMA>(gradient[i], weight[i], -mean_gradient);
        gradient[i] = scale * fma::<FMA>(-normal, mean_product, g);
    }
}

per_level! {
    fn layer_norm_back_row = layer_norm_back_body(
        gradient: &mut [f32], x: &[f32], weight: &[f32], sums: &mut [f32], eps: f32
    )
}

/// `Σ a b (c − mean)`.
#[inline(always)]
fn triple_dot_centred<const FMA: bool>(a: &[f32], b: &[f32], c: &[f32], mean: f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    let (c_chunks, c_rest) = c.as_chunks::<LANES>();
    for ((a, b), c) in a_chunks.iter().zip(b_chunks).zip(c_chunks) {
        for i in 0..LANES {
            sums[i] = fma::<FMA>(a[i] * b[i], c[i] - mean, sums[i]);
        }
    }
    let rest = a_rest.iter().zip(b_rest).zip(c_rest);
    sums.iter().sum::<f32>() + rest.map(|((a, b), c)| a * b * (c - mean)).sum::<f32>()
}

/// Root-mean-square norm over the last dimension; `weight` is `[d]`.
///
/// # Panics
/// If a tensor is not [plain](super::is_plain_f32).
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f32) -> Tensor<D> {
    tensor(read(weight, |weight| rms_normed(plain(x), weight, eps)))
}

/// [`rms_norm`] of a tensor of any rank.
pub(crate) fn rms_normed(x: Plain, weight: &[f32], eps: f32) -> Plain {
    for_rows(x, weight.len(), |row| rms_norm_row(row, weight, eps))
}

/// Layer norm over the last dimension; `weight` and `bias` are `[d]`.
pub(crate) fn layer_normed(x: Plain, weight: &[f32], bias: &[f32], eps: f32) -> Plain {
    for_rows(x, weight.len(), |row| {
        layer_norm_row(row, weight, bias, eps);
    })
}

fn for_rows(x: Plain, width: usize, f: impl Fn(&mut [f32]) + Sync) -> Plain {
    if width == 0 {
        return x;
    }
    edit(x, rows_per_task(width) * width, |_, chunk| {
        chunk.chunks_exact_mut(width).for_each(&f);
    })
}

/// The gradients of [`rms_norm`]'s input and weight from that of its output; `x` is contiguous.
pub(crate) fn rms_norm_back(
    gradient: Plain,
    x: &Plain,
    weight: &[f32],
    eps: f32,
) -> (Plain, Vec<f32>) {
    back(
        gradient,
        x,
        weight.len(),
        weight.len(),
        |gradient, x, sums| {
            rms_norm_back_row(gradient, x, weight, sums, eps);
        },
    )
}

/// The gradients of [`layer_normed`]'s input and, one after the other, weight and bias.
pub(crate) fn layer_norm_back(
    gradient: Plain,
    x: &Plain,
    weight: &[f32],
    eps: f32,
) -> (Plain, Vec<f32>) {
    back(
        gradient,
        x,
        weight.len(),
        2 * weight.len(),
        |gradient, x, sums| {
            layer_norm_back_row(gradient, x, weight, sums, eps);
        },
    )
}

/// Tasks among which rows are divided where their sums are wanted.
const TASKS: usize = 16;

/// Calls `f(gradient row, x row, sums)` for every row and adds the sums of all tasks.
fn back(
    gradient: Plain,
    x: &Plain,
    width: usize,
    sums: usize,
    f: impl Fn(&mut [f32], &[f32], &mut [f32]) + Sync,
) -> (Plain, Vec<f32>) {
    let x_values = values(x);
    if x_values.is_empty() {
        return (gradient, vec![0.0; sums]);
    }
    let rows = (x_values.len() / width)
        .div_ceil(TASKS)
        .max(rows_per_task(width));
    let tasks = x_values.len().div_ceil(rows * width);
    let mut partial = vec![0f32; tasks * sums];
    let mut gradient = owned(gradient);
    gradient
        .storage_mut::<f32>()
        .par_chunks_mut(rows * width)
        .zip(x_values.par_chunks(rows * width))
        .zip(partial.par_chunks_mut(sums))
        .for_each(|((gradient, x), sums)| {
            let both = gradient.chunks_exact_mut(width).zip(x.chunks_exact(width));
            both.for_each(|(gradient, x)| f(gradient, x, sums));
        });
    (gradient, added(&partial, sums))
}

/// The sum of all chunks of `width`, in order.
pub(crate) fn added(partial: &[f32], width: usize) -> Vec<f32> {
    let mut sum = vec![0f32; width];
    for part in partial.chunks_exact(width.max(1)) {
        add_slice(&mut sum, part);
    }
    sum
}

/// Sums of the columns of rows of `width`: the gradient of a bias.
pub(crate) fn column_sums(x: Plain, width: usize) -> Plain {
    let x = contiguous(x);
    let values = values(&x);
    if values.is_empty() {
        return from_values(vec![0.0; width], [width]);
    }
    let rows = (values.len() / width)
        .div_ceil(TASKS)
        .max(rows_per_task(width));
    let parts: Vec<Vec<f32>> = values
        .par_chunks(rows * width)
        .map(|rows| added(rows, width))
        .collect();
    from_values(added(&parts.concat(), width), [width])
}
