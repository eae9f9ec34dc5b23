//! Softmax of a row of scores, and back.

use super::super::math::{exp, fma};
use super::super::{Level, level, per_level};

/// Lanes of a reduction.
const LANES: usize = 16;

/// Softmax of `scale · row`; all zeros where every score is minus infinity. Returns the logarithm of
/// the sum of the exponentials of `scale · row`, infinity in that case.
#[inline(always)]
pub(super) fn softmax_body<const FMA: bool>(row: &mut [f32], scale: f32) -> f32 {
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (max, value) in maxima.iter_mut().zip(chunk) {
            *max = if *value > *max { *value } else { *max };
        }
    }
    let larger = |a: f32, b: &f32| if *b > a { *b } else { a };
    let max = maxima.iter().chain(rest).fold(f32::NEG_INFINITY, larger);
    if max == f32::NEG_INFINITY && !row.iter().any(|value| value.is_nan()) {
        row.fill(0.0);
        return f32::INFINITY;
    }
    let mut sums = [0f32; LANES];
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *value = weight::<FMA>(*value, max, scale);
            *sum += *value;
        }
    }
    let mut sum: f32 = sums.iter().sum();
    for value in rest {
        *value = weight::<FMA>(*value, max, scale);
        sum += *value;
    }
    let share = 1.0 / sum;
    for value in row {
        *value *= share;
    }
    max * scale + sum.ln()
}

/// `e^(scale · (score − max))`, exactly zero where the score is minus infinity.
#[inline(always)]
fn weight<const FMA: bool>(score: f32, max: f32, scale: f32) -> f32 {
    let e = exp::<FMA>((score - max) * scale);
    let e = if score == f32::NEG_INFINITY { 0.0 } else { e };
    if score.is_nan() { f32::NAN } else { e }
}

per_level! { pub(super) fn softmax_row = softmax_body(row: &mut [f32], scale: f32) -> f32 }

/// From scores and the gradient of the weights to weights and the gradient of the scores.
///
/// `scores` becomes `w = e^(scale · score − log_sum)`, `gradient` becomes
/// `scale · w (gradient − Σ w gradient)`.
#[inline(always)]
pub(super) fn softmax_back_body<const FMA: bool>(
    scores: &mut [f32],
    gradient: &mut [f32],
    scale: f32,
    log_sum: f32,
) {
    let gradient = &mut gradient[..scores.len()];
    let mut sums = [0f32; LANES];
    {
        let (scores, scores_rest) = scores.as_chunks_mut::<LANES>();
        let (gradients, gradients_rest) = gradient.as_chunks::<LANES>();
        for (scores, gradients) in scores.iter_mut().zip(gradients) {
            for i in 0..LANES {
                scores[i] = known_weight::<FMA>(scores[i], scale, log_sum);
                sums[i] = fma::<FMA>(scores[i], gradients[i], sums[i]);
            }
        }
        for (score, gradient) in scores_rest.iter_mut().zip(gradients_rest) {
            *score = known_weight::<FMA>(*score, scale, log_sum);
            sums[0] += *score * gradient;
        }
    }
    let sum: f32 = sums.iter().sum();
    for (weight, gradient) in scores.iter().zip(gradient) {
        *gradient = scale * weight * (*gradient - sum);
    }
}

/// `e^(scale · score − log_sum)`, exactly zero where the score is minus infinity.
#[inline(always)]
fn known_weight<const FMA: bool>(score: f32, scale: f32, log_sum: f32) -> f32 {
    let e = exp::<FMA>(score * scale - log_sum);
    if score == f32::NEG_INFINITY { 0.0 } else { e }
}

per_level! {
    pub(super) fn softmax_back_row = softmax_back_body(
        scores: &mut [f32], gradient: &mut [f32], scale: f32, log_sum: f32
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_not_hidden() {
        let mut row = [1.0, f32::NAN, f32::NEG_INFINITY];
        softmax_row(&mut row, 1.0);
        assert!(row[0].is_nan() || row[1].is_nan());
    }

    /// Two equal scores: each weighs a half, and the sum of exponentials is 2 e².
    #[test]
    fn weights_come_back_from_the_sum() {
        let scores = [4.0, 4.0, f32::NEG_INFINITY];
        let mut row = scores;
        let log_sum = softmax_row(&mut row, 0.5);
        assert!((log_sum - (2.0 + 2f32.ln())).abs() < 1e-6);
        let (mut again, mut gradient) = (scores, [1.0, 3.0, 100.0]);
        softmax_back_row(&mut again, &mut gradient, 0.5, log_sum);
        for (a, b) in again.iter().zip(row) {
            assert!((a - b).abs() < 1e-6);
        }
        // w (g − mean g) · ½ = ½ (1 − 2) ½.
        for (a, b) in gradient.iter().zip([-0.25, 0.25, 0.0]) {
            assert!((a - b).abs() < 1e-6, "{gradient:?}");
        }
    }
}
