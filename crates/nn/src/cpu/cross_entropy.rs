//! Cross entropy over a vocabulary, with its gradient made in the same pass.
//!
//! The gradient of a row is `softmax − one-hot`. Making it forwards costs one exponential per score
//! instead of two, and it takes the place of the scores, so that a step holds one table of the size
//! `[n, vocab]`, not three.

use rayon::prelude::*;

use super::elementwise::rows_per_task;
use super::math::exp;
use super::values::{Plain, contiguous, edit, owned, values};
use super::{Level, level, per_level};

/// Lanes of a reduction.
const LANES: usize = 32;

#[inline(always)]
fn max_of(row: &[f32]) -> f32 {
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (max, value) in maxima.iter_mut().zip(chunk) {
            *max = if *value > *max { *value } else { *max };
        }
    }
    let larger = |a: f32, b: &f32| if *b > a { *b } else { a };
    maxima.iter().chain(rest).fold(f32::NEG_INFINITY, larger)
}

/// The loss of one row, from its largest score, the sum of exponentials relative to that, and the
/// target's score. NaN if there is one among the scores.
fn loss(max: f32, sum: f32, target: f32) -> f32 {
    max - target + sum.ln()
}

/// `Σ e^(x − max)`, and `row` becomes the terms.
#[inline(always)]
fn exponentials_body<const FMA: bool>(row: &mut [f32], max: f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *value = term::<FMA>(*value, max);
            *sum += *value;
        }
    }
    for value in rest {
        *value = term::<FMA>(*value, max);
        sums[0] += *value;
    }
    sums.iter().sum()
}

/// `Σ e^(x − max)`.
#[inline(always)]
fn sum_body<const FMA: bool>(row: &[f32], max: f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += term::<FMA>(*value, max);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|x| term::<FMA>(*x, max)).sum::<f32>()
}

#[inline(always)]
fn term<const FMA: bool>(x: f32, max: f32) -> f32 {
    let e = exp::<FMA>(x - max);
    if x.is_nan() { f32::NAN } else { e }
}

#[inline(always)]
fn loss_body<const FMA: bool>(row: &[f32], target: usize) -> f32 {
    let max = max_of(row);
    loss(max, sum_body::<FMA>(row, max), row[target])
}

per_level! { fn row_loss = loss_body(row: &[f32], target: usize) -> f32 }

#[inline(always)]
fn loss_and_gradient_body<const FMA: bool>(row: &mut [f32], target: usize) -> f32 {
    let (max, score) = (max_of(row), row[target]);
    let sum = exponentials_body::<FMA>(row, max);
    let share = 1.0 / sum;
    for value in row.iter_mut() {
        *value *= share;
    }
    row[target] -= 1.0;
    loss(max, sum, score)
}

per_level! {
    fn row_loss_and_gradient = loss_and_gradient_body(row: &mut [f32], target: usize) -> f32
}

#[inline(always)]
fn scale_body<const FMA: bool>(row: &mut [f32], factor: f32) {
    for value in row {
        *value *= factor;
    }
}

per_level! { fn scale_row = scale_body(row: &mut [f32], factor: f32) }

/// Losses of rows of scores.
///
/// # Shapes
/// - `scores`: `[n, vocab]`, `targets`: `n` ids below `vocab`
/// - output: `n` losses in nats
///
/// # Panics
/// If a target is not below `vocab`.
pub(crate) fn losses(scores: Plain, targets: &[u32]) -> Vec<f32> {
    let scores = contiguous(scores);
    let vocab = scores.layout().shape()[1];
    values(&scores)
        .par_chunks(vocab.max(1))
        .zip(targets)
        .with_min_len(rows_per_task(vocab))
        .map(|(row, target)| row_loss(row, *target as usize))
        .collect()
}

/// Losses as [`losses`], and their gradients in place of the scores.
///
/// # Panics
/// As [`losses`].
pub(crate) fn losses_and_gradients(scores: Plain, targets: &[u32]) -> (Vec<f32>, Plain) {
    let vocab = scores.layout().shape()[1];
    let mut scores = owned(scores);
    let losses = scores
        .storage_mut::<f32>()
        .par_chunks_mut(vocab.max(1))
        .zip(targets)
        .with_min_len(rows_per_task(vocab))
        .map(|(row, target)| row_loss_and_gradient(row, *target as usize))
        .collect();
    (losses, scores)
}

/// Multiplies every row of `[n, vocab]` by its factor.
pub(crate) fn scale_rows(x: Plain, factors: &[f32]) -> Plain {
    let vocab = x.layout().shape()[1].max(1);
    let rows = rows_per_task(vocab);
    edit(x, rows * vocab, |task, chunk| {
        let factors = factors[task * rows..].iter();
        for (row, factor) in chunk.chunks_exact_mut(vocab).zip(factors) {
            scale_row(row, *factor);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores whose exponentials are 1, 2, 3 and 4 of 10.
    #[test]
    fn a_row_by_hand() {
        let scores = [1f32, 2.0, 3.0, 4.0].map(f32::ln);
        let expected = -(0.3f32.ln());
        assert!((row_loss(&scores, 2) - expected).abs() < 1e-6);
        let mut row = scores;
        assert!((row_loss_and_gradient(&mut row, 2) - expected).abs() < 1e-6);
        for (a, b) in row.iter().zip([0.1, 0.2, -0.7, 0.4]) {
            assert!((a - b).abs() < 1e-6, "{row:?}");
        }
    }

    #[test]
    fn nan_is_a_nan_loss() {
        assert!(row_loss(&[0.0, f32::NAN], 0).is_nan());
        assert!(row_loss_and_gradient(&mut [f32::NAN, 0.0], 1).is_nan());
    }
}
