//! From queries, keys and values to the output.

use std::ops::Range;

use gemm::Parallelism;
use rayon::prelude::*;

use super::super::matrix::{Matrix, Target, multiply};
use super::super::values::Shared;
use super::softmax::softmax_row;
use super::view::{Hidden, View};
use super::{FEW_QUERIES, Sizes, few};

/// Scores that one task holds.
const BLOCK: usize = 1 << 16;
/// Multiply-adds below which tasks are put together.
const SMALL_TASK: usize = 1 << 16;

/// The operands of one call.
pub(super) struct Call<'a> {
    pub(super) views: [View<'a>; 3],
    pub(super) hidden: Option<Hidden<'a>>,
    pub(super) sizes: Sizes,
}

/// What one task works on.
struct Place {
    batch: usize,
    head: usize,
    rows: Range<usize>,
}

impl Call<'_> {
    /// Writes the output, `[b, t, h, e]`, all zeros before, and, if wanted, the logarithms of the
    /// sums, `[b, h, t]`.
    pub(super) fn run(&self, out: &mut [f32], mut sums: Option<&mut [f32]>) {
        let Sizes {
            batch,
            heads,
            queries,
            keys,
            d,
            ..
        } = self.sizes;
        let block = self.sizes.block(BLOCK);
        let blocks = queries.div_ceil(block);
        let together = (SMALL_TASK / (block * keys * d).max(1)).max(1);
        let out = Shared(out.as_mut_ptr());
        let sums = sums.as_mut().map(|sums| Shared(sums.as_mut_ptr()));
        (0..batch * heads * blocks)
            .into_par_iter()
            .with_min_len(together)
            .for_each_init(
                || vec![0f32; block * keys],
                |scores, task| {
                    let (batch, rest) = (task / (heads * blocks), task % (heads * blocks));
                    let (head, part) = (rest / blocks, rest % blocks);
                    let rows = part * block..((part + 1) * block).min(queries);
                    let at = Place { batch, head, rows };
                    self.attend(&at, scores, &out, sums.as_ref());
                },
            );
    }

    fn attend(&self, at: &Place, scores: &mut [f32], out: &Shared, sums: Option<&Shared>) {
        let (n, reach) = (at.rows.len(), self.sizes.reach(at.rows.end - 1));
        if reach == 0 {
            return; // Nothing is seen, and the output is already zero.
        }
        let scores = &mut scores[..n * reach];
        if self.sizes.queries <= FEW_QUERIES {
            for query in at.rows.clone() {
                self.attend_one(at, query, scores, out, sums);
            }
            return;
        }
        self.score(at, reach, scores);
        for (i, row) in scores.chunks_exact_mut(reach).enumerate() {
            let query = at.rows.start + i;
            hide(
                self.hidden.as_ref(),
                &self.sizes,
                at.batch,
                at.head,
                query,
                row,
            );
            let log_sum = softmax_row(row, self.sizes.scale());
            self.keep(sums, at, query, log_sum);
        }
        self.sum(at, reach, scores, out);
    }

    /// Keeps the logarithm of a query's sum, if wanted.
    fn keep(&self, sums: Option<&Shared>, at: &Place, query: usize, log_sum: f32) {
        if let Some(sums) = sums {
            let index = (at.batch * self.sizes.heads + at.head) * self.sizes.queries + query;
            // SAFETY: one value for each query of each head, which no other task has.
            unsafe { sums.0.add(index).write(log_sum) };
        }
    }

    /// One query by itself.
    fn attend_one(
        &self,
        at: &Place,
        query: usize,
        scores: &mut [f32],
        out: &Shared,
        sums: Option<&Shared>,
    ) {
        let Sizes {
            heads,
            queries,
            d_value,
            ..
        } = self.sizes;
        let reach = self.sizes.reach(query);
        if reach == 0 {
            return;
        }
        let one = one_query(
            &self.views,
            self.hidden.as_ref(),
            &self.sizes,
            [at.batch, at.head, query],
        );
        let first = ((at.batch * queries + query) * heads + at.head) * d_value;
        // SAFETY: this query's row of this head in the `[b, t, h, e]` output, which no other task has.
        let row = unsafe { std::slice::from_raw_parts_mut(out.0.add(first), d_value) };
        let log_sum = few::forward(&one, &mut scores[..reach], row);
        self.keep(sums, at, query, log_sum);
    }

    /// `q · kᵀ` of a block.
    fn score(&self, at: &Place, reach: usize, scores: &mut [f32]) {
        let [q, k, _] = &self.views;
        let Sizes { group, d, .. } = self.sizes;
        let n = at.rows.len();
        let q_rows = q.from(at.batch, at.head, at.rows.start);
        let k_rows = k.from(at.batch, at.head / group, 0);
        let left = Matrix::strided(q_rows, n, d, q.step());
        let right = Matrix::strided(k_rows, reach, d, k.step()).transposed();
        let target = Target {
            first: scores.as_mut_ptr(),
            step: reach,
            add: false,
        };
        // SAFETY: `scores` holds `n · reach` values.
        unsafe { multiply(&left, &right, target, Parallelism::None) };
    }

    /// `weights · v` of a block, into the output.
    fn sum(&self, at: &Place, reach: usize, weights: &[f32], out: &Shared) {
        let v = &self.views[2];
        let Sizes {
            heads,
            group,
            queries,
            d_value,
            ..
        } = self.sizes;
        let n = at.rows.len();
        let v_rows = v.from(at.batch, at.head / group, 0);
        let first = ((at.batch * queries + at.rows.start) * heads + at.head) * d_value;
        let step = heads * d_value;
        // SAFETY: rows `at.rows` of this head in the `[b, t, h, e]` output, which no other task has.
        let first = unsafe { out.0.add(first) };
        let left = Matrix::dense(weights, n, reach);
        let right = Matrix::strided(v_rows, reach, d_value, v.step());
        let target = Target {
            first,
            step,
            add: false,
        };
        // SAFETY: `n` rows of `d_value` values, `step` apart, as above.
        unsafe { multiply(&left, &right, target, Parallelism::None) };
    }
}

/// One query of a head, with what it may look at.
pub(super) fn one_query<'a>(
    [q, k, v]: &[View<'a>; 3],
    hidden: Option<&'a Hidden<'_>>,
    sizes: &Sizes,
    [batch, head, query]: [usize; 3],
) -> few::Query<'a> {
    let key_head = head / sizes.group;
    let rows = |view: &View<'a>, width: usize| few::Rows {
        values: view.from(batch, key_head, 0),
        step: view.step(),
        width,
    };
    few::Query {
        q: &q.from(batch, head, query)[..sizes.d],
        keys: rows(k, sizes.d),
        values: rows(v, sizes.d_value),
        hidden: hidden.map(|hidden| hidden.row(batch, head, query, sizes.reach(query))),
        scale: sizes.scale(),
    }
}

/// Makes minus infinity of the scores that `query` may not see.
pub(super) fn hide(
    hidden: Option<&Hidden<'_>>,
    sizes: &Sizes,
    batch: usize,
    head: usize,
    query: usize,
    scores: &mut [f32],
) {
    let seen = sizes.reach(query).min(scores.len());
    scores[seen..].fill(f32::NEG_INFINITY);
    if let Some(hidden) = hidden {
        let hidden = hidden.row(batch, head, query, scores.len());
        for (score, hidden) in scores.iter_mut().zip(hidden) {
            *score = if *hidden != 0 {
                f32::NEG_INFINITY
            } else {
                *score
            };
        }
    }
}
