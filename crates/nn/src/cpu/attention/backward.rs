//! From the gradient of the output to those of queries, keys and values.
//!
//! With weights `w = softmax(s)` and output `o = w v`: `dv = wᵀ do`, `dw = do vᵀ`,
//! `ds = w (dw − Σ w dw)`, `dq = ds k`, `dk = dsᵀ q`. A task owns a key head, so sums over queries
//! need neither locks nor another order.

use std::ops::Range;

use gemm::Parallelism;
use rayon::prelude::*;

use super::super::matrix::{Matrix, Target, multiply};
use super::super::values::Shared;
use super::few::RowsOut;
use super::forward::{hide, one_query};
use super::seen::{Keys, Seen};
use super::softmax::softmax_back_row;
use super::view::{Hidden, View};
use super::{FEW_QUERIES, Sizes, few};

/// Scores that one task holds, twice.
const BLOCK: usize = 1 << 15;
/// Multiply-adds below which tasks are put together.
const SMALL_TASK: usize = 1 << 15;

/// The operands of one call.
pub(super) struct Call<'a> {
    pub(super) views: [View<'a>; 3],
    pub(super) gradient: View<'a>,
    pub(super) hidden: Option<Hidden<'a>>,
    /// `[b, h, t]`.
    pub(super) sums: &'a [f32],
    pub(super) sizes: Sizes,
}

/// What one block works on.
struct Place<'a> {
    batch: usize,
    head: usize,
    rows: Range<usize>,
    keys: Keys<'a>,
}

/// The outputs, `[b, n, h, d]` each.
type Gradients = [Shared; 3];

impl Call<'_> {
    /// Writes the gradients of queries, keys and values; all zeros before.
    pub(super) fn run(&self, out: &mut [Vec<f32>; 3]) {
        let Sizes {
            batch,
            group,
            queries,
            keys,
            d,
            ..
        } = self.sizes;
        let kv = self.sizes.key_heads();
        let block = self.sizes.block(BLOCK, self.hidden.is_some());
        let seen = Seen::new(self.hidden.as_ref(), &self.sizes, block);
        let together = (SMALL_TASK / (group * queries * keys * d).max(1)).max(1);
        let out = out.each_mut().map(|out| Shared(out.as_mut_ptr()));
        (0..batch * kv)
            .into_par_iter()
            .with_min_len(together)
            .for_each_init(
                || [vec![0f32; block * keys], vec![0f32; block * keys]],
                |scratch, task| {
                    self.key_head([task / kv, task % kv], (block, &seen), scratch, &out);
                },
            );
    }

    /// All blocks of all query heads of one key head, the last block first.
    fn key_head(
        &self,
        [batch, key_head]: [usize; 2],
        (block, seen): (usize, &Seen),
        scratch: &mut [Vec<f32>; 2],
        out: &Gradients,
    ) {
        let Sizes { group, queries, .. } = self.sizes;
        if queries <= FEW_QUERIES {
            for head in key_head * group..(key_head + 1) * group {
                for query in 0..queries {
                    self.one([batch, head, query], scratch, out);
                }
            }
            return;
        }
        for head in key_head * group..(key_head + 1) * group {
            for part in (0..queries.div_ceil(block)).rev() {
                let at = Place {
                    batch,
                    head,
                    rows: part * block..((part + 1) * block).min(queries),
                    keys: seen.of(batch, head, part),
                };
                self.block(&at, scratch, out);
            }
        }
    }

    /// One query by itself; adds to outputs that were zero.
    fn one(
        &self,
        at @ [batch, head, query]: [usize; 3],
        [scores, gradients]: &mut [Vec<f32>; 2],
        [dq, dk, dv]: &Gradients,
    ) {
        let Sizes {
            heads,
            group,
            queries,
            keys,
            d,
            d_value,
            ..
        } = self.sizes;
        let (kv, reach) = (self.sizes.key_heads(), self.sizes.reach(query));
        if reach == 0 {
            return;
        }
        let one = one_query(&self.views, self.hidden.as_ref(), &self.sizes, at);
        let key_row = batch * keys * kv + head / group;
        let query_row = (batch * queries + query) * heads + head;
        // SAFETY: the query's row and its key head's rows in the `[b, n, h, d]` outputs, which belong
        // to this task.
        let mut out = unsafe {
            few::Gradients {
                query: RowsOut::new(dq.0.add(query_row * d), d, d),
                keys: RowsOut::new(dk.0.add(key_row * d), kv * d, d),
                values: RowsOut::new(dv.0.add(key_row * d_value), kv * d_value, d_value),
            }
        };
        few::backward(
            &one,
            &self.gradient.from(batch, head, query)[..d_value],
            self.sums[(batch * heads + head) * queries + query],
            &mut scores[..reach],
            &mut gradients[..reach],
            &mut out,
        );
    }

    fn block(&self, at: &Place<'_>, [scores, gradients]: &mut [Vec<f32>; 2], out: &Gradients) {
        let (n, count) = (at.rows.len(), at.keys.count);
        if count == 0 {
            return; // Nothing was seen, and the gradients are already zero.
        }
        let (scores, gradients) = (&mut scores[..n * count], &mut gradients[..n * count]);
        self.scores(at, scores, gradients);
        let both = scores
            .chunks_exact_mut(count)
            .zip(gradients.chunks_exact_mut(count));
        let sums = (at.batch * self.sizes.heads + at.head) * self.sizes.queries;
        for ((scores, gradients), query) in both.zip(at.rows.clone()) {
            hide(
                self.hidden.as_ref(),
                &self.sizes,
                [at.batch, at.head, query],
                at.keys,
                scores,
            );
            let log_sum = self.sums[sums + query];
            softmax_back_row(scores, gradients, self.sizes.scale(), log_sum);
        }
        self.products(at, scores, gradients, out);
    }

    /// `q · kᵀ` and `do · vᵀ`.
    fn scores(&self, at: &Place<'_>, scores: &mut [f32], gradients: &mut [f32]) {
        let [q, k, v] = &self.views;
        let Sizes { d, d_value, .. } = self.sizes;
        let pairs = [(q, k, d, scores), (&self.gradient, v, d_value, gradients)];
        for (left, right, width, into) in pairs {
            let left = self.query_rows(left, at, width);
            for (keys, first) in at.keys.ranges() {
                let right = self.key_rows(right, at, keys, width).transposed();
                let target = Target {
                    first: into[first..].as_mut_ptr(),
                    step: at.keys.count,
                    add: false,
                };
                // SAFETY: both hold a row of `count` values for each query of the block, of which
                // `keys.len()` from `first` on are this range's.
                unsafe { multiply(&left, &right, target, Parallelism::None) };
            }
        }
    }

    /// `dv += wᵀ do`, `dk += dsᵀ q`, `dq = ds k`.
    fn products(
        &self,
        at: &Place<'_>,
        weights: &[f32],
        gradients: &[f32],
        [dq, dk, dv]: &Gradients,
    ) {
        let [q, k, _] = &self.views;
        let Sizes {
            heads,
            group,
            queries,
            keys,
            d,
            d_value,
            ..
        } = self.sizes;
        let (n, kv) = (at.rows.len(), self.sizes.key_heads());
        let query_row = (at.batch * queries + at.rows.start) * heads + at.head;
        for (range, first) in at.keys.ranges() {
            let [weights, gradients] = [weights, gradients]
                .map(|all| Matrix::strided(&all[first..], n, range.len(), at.keys.count));
            let key_row = (at.batch * keys + range.start) * kv + at.head / group;
            // SAFETY: rows `at.rows` of the queries' gradients and rows `range` of the keys' and values'
            // in the `[b, n, h, d]` outputs; they belong to this task's key head, and hold zeros or what
            // an earlier block or range of the task has written.
            unsafe {
                let target = |out: &Shared, row: usize, heads: usize, width: usize, add| Target {
                    first: out.0.add(row * width),
                    step: heads * width,
                    add,
                };
                multiply(
                    &weights.transposed(),
                    &self.query_rows(&self.gradient, at, d_value),
                    target(dv, key_row, kv, d_value, true),
                    Parallelism::None,
                );
                multiply(
                    &gradients.transposed(),
                    &self.query_rows(q, at, d),
                    target(dk, key_row, kv, d, true),
                    Parallelism::None,
                );
                multiply(
                    &gradients,
                    &self.key_rows(k, at, range, d),
                    target(dq, query_row, heads, d, first > 0),
                    Parallelism::None,
                );
            }
        }
    }

    fn query_rows<'b>(&self, view: &View<'b>, at: &Place<'_>, width: usize) -> Matrix<'b> {
        let rows = view.from(at.batch, at.head, at.rows.start);
        Matrix::strided(rows, at.rows.len(), width, view.step())
    }

    fn key_rows<'b>(
        &self,
        view: &View<'b>,
        at: &Place<'_>,
        keys: Range<usize>,
        width: usize,
    ) -> Matrix<'b> {
        let rows = view.from(at.batch, at.head / self.sizes.group, keys.start);
        Matrix::strided(rows, keys.len(), width, view.step())
    }
}
