//! Attention of one query at a time: where there are few, as in decoding and in the windows of a
//! connector, no matrix product is worth its preparation.

use super::super::math::{dot_body, fma};
use super::super::{Level, level, per_level};
use super::softmax::{softmax_back_body, softmax_body};

/// Rows somewhere in a slice.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) step: usize,
    pub(super) width: usize,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.step..][..self.width]
    }
}

/// Rows somewhere in an output that tasks share.
pub(super) struct RowsOut {
    first: *mut f32,
    step: usize,
    width: usize,
}

impl RowsOut {
    /// # Safety
    /// Every row that is used is valid for reads and writes, and nobody else uses it meanwhile.
    pub(super) unsafe fn new(first: *mut f32, step: usize, width: usize) -> Self {
        Self { first, step, width }
    }

    #[inline(always)]
    fn row(&mut self, index: usize) -> &mut [f32] {
        // SAFETY: promised to `new`.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(index * self.step), self.width) }
    }
}

/// One query and what it may look at.
pub(super) struct Query<'a> {
    /// `[d]`.
    pub(super) q: &'a [f32],
    pub(super) keys: Rows<'a>,
    pub(super) values: Rows<'a>,
    /// One for each key, where some are hidden.
    pub(super) hidden: Option<&'a [u8]>,
    /// What scores are multiplied by.
    pub(super) scale: f32,
}

impl Query<'_> {
    /// `scores[j] = q · kⱼ`, minus infinity where a key is hidden.
    #[inline(always)]
    fn score<const FMA: bool>(&self, scores: &mut [f32]) {
        for (j, score) in scores.iter_mut().enumerate() {
            *score = dot::<FMA>(self.q, self.keys.row(j));
        }
        if let Some(hidden) = self.hidden {
            for (score, hidden) in scores.iter_mut().zip(hidden) {
                *score = if *hidden != 0 {
                    f32::NEG_INFINITY
                } else {
                    *score
                };
            }
        }
    }
}

/// Lanes of a short dot product.
const LANES: usize = 8;

/// A dot product that is quick for short rows too.
#[inline(always)]
fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    if a.len() >= 64 {
        return dot_body::<FMA>(a, b);
    }
    let mut sums = [0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            sums[i] = fma::<FMA>(a[i], b[i], sums[i]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[inline(always)]
fn add_scaled<const FMA: bool>(sum: &mut [f32], x: &[f32], scale: f32) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum = fma::<FMA>(*x, scale, *sum);
    }
}

/// Adds the query's output to `out`, and gives the logarithm of its sum of exponentials.
#[inline(always)]
fn forward_body<const FMA: bool>(query: &Query<'_>, scores: &mut [f32], out: &mut [f32]) -> f32 {
    query.score::<FMA>(scores);
    let log_sum = softmax_body::<FMA>(scores, query.scale);
    for (j, weight) in scores.iter().enumerate() {
        add_scaled::<FMA>(out, query.values.row(j), *weight);
    }
    log_sum
}

per_level! {
    pub(super) fn forward = forward_body(
        query: &Query<'_>, scores: &mut [f32], out: &mut [f32]
    ) -> f32
}

/// The gradients of one query's operands; those of keys and values are added to.
pub(super) struct Gradients {
    pub(super) query: RowsOut,
    pub(super) keys: RowsOut,
    pub(super) values: RowsOut,
}

/// Adds to the gradients, from that of the query's output.
#[inline(always)]
fn backward_body<const FMA: bool>(
    query: &Query<'_>,
    gradient: &[f32],
    log_sum: f32,
    scores: &mut [f32],
    score_gradients: &mut [f32],
    out: &mut Gradients,
) {
    query.score::<FMA>(scores);
    for (j, of_weight) in score_gradients.iter_mut().enumerate() {
        *of_weight = dot::<FMA>(gradient, query.values.row(j));
    }
    softmax_back_body::<FMA>(scores, score_gradients, query.scale, log_sum);
    let of_query = out.query.row(0);
    for (j, (weight, of_score)) in scores.iter().zip(score_gradients.iter()).enumerate() {
        add_scaled::<FMA>(out.values.row(j), gradient, *weight);
        add_scaled::<FMA>(out.keys.row(j), query.q, *of_score);
        add_scaled::<FMA>(of_query, query.keys.row(j), *of_score);
    }
}

per_level! {
    pub(super) fn backward = backward_body(
        query: &Query<'_>,
        gradient: &[f32],
        log_sum: f32,
        scores: &mut [f32],
        score_gradients: &mut [f32],
        out: &mut Gradients
    )
}
