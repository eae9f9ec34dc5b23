//! From queries, keys and values to the output.

use std::ops::Range;

use gemm::Parallelism;
use rayon::prelude::*;

use super::super::matrix::{Matrix, Target, multiply};
use super::super::values::Shared;
use super::seen::{Keys, Seen};
use super::softmax::softmax_row;
use super::view::{Hidden, View};
use super::{FEW_QUERIES, Sizes, few};

/// Scores that one task holds.
const BLOCK: usize = 1 << 16;
/// Multiply-adds below which tasks are put together.
const SMALL_TASK: usize = 1 << 16;
/// Values of the longest vector: a cache line.
const LANES: usize = 16;

/// The operands of one call.
pub(super) struct Call<'a> {
    views: [View<'a>; 3],
    /// The keys once more, turned around, where they are multiplied with several blocks of queries.
    turned: Option<TurnedKeys>,
    hidden: Option<Hidden<'a>>,
    sizes: Sizes,
    /// Queries of a block.
    block: usize,
}

/// What one task works on.
struct Place<'a> {
    batch: usize,
    head: usize,
    rows: Range<usize>,
    keys: Keys<'a>,
}

impl<'a> Call<'a> {
    pub(super) fn new(views: [View<'a>; 3], hidden: Option<Hidden<'a>>, sizes: Sizes) -> Self {
        let block = sizes.block(BLOCK, hidden.is_some());
        let blocks = sizes.queries.div_ceil(block);
        let often = sizes.queries > FEW_QUERIES && blocks * sizes.group > 1;
        Self {
            turned: often.then(|| TurnedKeys::new(&views[1], &sizes)),
            views,
            hidden,
            sizes,
            block,
        }
    }
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
        let block = self.block;
        let blocks = queries.div_ceil(block);
        let seen = Seen::new(self.hidden.as_ref(), &self.sizes, block);
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
                    let keys = seen.of(batch, head, part);
                    let at = Place {
                        batch,
                        head,
                        rows,
                        keys,
                    };
                    self.attend(&at, scores, &out, sums.as_ref());
                },
            );
    }

    fn attend(&self, at: &Place<'_>, scores: &mut [f32], out: &Shared, sums: Option<&Shared>) {
        if self.sizes.queries <= FEW_QUERIES {
            for query in at.rows.clone() {
                self.attend_one(at, query, scores, out, sums);
            }
            return;
        }
        let count = at.keys.count;
        if count == 0 {
            return; // Nothing is seen, and the output is already zero.
        }
        let scores = &mut scores[..at.rows.len() * count];
        self.score(at, scores);
        for (row, query) in scores.chunks_exact_mut(count).zip(at.rows.clone()) {
            hide(
                self.hidden.as_ref(),
                &self.sizes,
                [at.batch, at.head, query],
                at.keys,
                row,
            );
            let log_sum = softmax_row(row, self.sizes.scale());
            self.keep(sums, at, query, log_sum);
        }
        self.sum(at, scores, out);
    }

    /// Keeps the logarithm of a query's sum, if wanted.
    fn keep(&self, sums: Option<&Shared>, at: &Place<'_>, query: usize, log_sum: f32) {
        if let Some(sums) = sums {
            let index = (at.batch * self.sizes.heads + at.head) * self.sizes.queries + query;
            // SAFETY: one value for each query of each head, which no other task has.
            unsafe { sums.0.add(index).write(log_sum) };
        }
    }

    /// One query by itself.
    fn attend_one(
        &self,
        at: &Place<'_>,
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
    fn score(&self, at: &Place<'_>, scores: &mut [f32]) {
        let [q, k, _] = &self.views;
        let Sizes { group, d, .. } = self.sizes;
        let n = at.rows.len();
        let q_rows = q.from(at.batch, at.head, at.rows.start);
        let left = Matrix::strided(q_rows, n, d, q.step());
        for (keys, first) in at.keys.ranges() {
            let right = match &self.turned {
                Some(turned) => turned.head(at.batch, at.head / group, keys.clone()),
                None => {
                    let k_rows = k.from(at.batch, at.head / group, keys.start);
                    Matrix::strided(k_rows, keys.len(), d, k.step()).transposed()
                }
            };
            let target = Target {
                first: scores[first..].as_mut_ptr(),
                step: at.keys.count,
                add: false,
            };
            // SAFETY: `scores` holds `n` rows of `count` values, of which `keys.len()` from `first` on
            // are this range's.
            unsafe { multiply(&left, &right, target, Parallelism::None) };
        }
    }

    /// `weights · v` of a block, into the output.
    fn sum(&self, at: &Place<'_>, weights: &[f32], out: &Shared) {
        let v = &self.views[2];
        let Sizes {
            heads,
            group,
            queries,
            d_value,
            ..
        } = self.sizes;
        let n = at.rows.len();
        let row = ((at.batch * queries + at.rows.start) * heads + at.head) * d_value;
        let step = heads * d_value;
        for (keys, first) in at.keys.ranges() {
            let v_rows = v.from(at.batch, at.head / group, keys.start);
            let left = Matrix::strided(&weights[first..], n, keys.len(), at.keys.count);
            let right = Matrix::strided(v_rows, keys.len(), d_value, v.step());
            // SAFETY: rows `at.rows` of this head in the `[b, t, h, e]` output, which no other task has.
            let target = Target {
                first: unsafe { out.0.add(row) },
                step,
                add: first > 0,
            };
            // SAFETY: `n` rows of `d_value` values, `step` apart, as above.
            unsafe { multiply(&left, &right, target, Parallelism::None) };
        }
    }
}

/// Keys with the positions side by side, `[b, kv, d, s]`.
///
/// `gemm` wants them so: rows of keys it would gather value by value, for every block of queries anew;
/// of columns it copies whole vectors.
struct TurnedKeys {
    values: Vec<f32>,
    /// Distance of two rows.
    step: usize,
    d: usize,
    heads: usize,
}

impl TurnedKeys {
    fn new(keys: &View<'_>, sizes: &Sizes) -> Self {
        let (d, heads) = (sizes.d, sizes.key_heads());
        // Whole vectors, and an odd number of cache lines, so that rows share no set of a cache.
        let step = sizes.keys.next_multiple_of(LANES) | LANES;
        let mut values = vec![0f32; sizes.batch * heads * d * step];
        values
            .par_chunks_mut((d * step).max(1))
            .enumerate()
            .for_each(|(i, head)| {
                let rows = keys.from(i / heads, i % heads, 0);
                turn(rows, keys.step(), sizes.keys, head, step);
            });
        Self {
            values,
            step,
            d,
            heads,
        }
    }

    /// Some keys of a head, `[d, n]`.
    fn head(&self, batch: usize, head: usize, keys: Range<usize>) -> Matrix<'_> {
        let first = (batch * self.heads + head) * self.d * self.step + keys.start;
        Matrix::strided(&self.values[first..], self.d, keys.len(), self.step)
    }
}

/// Writes `count` rows, `row_step` apart, as columns of `out`, whose rows are `step` apart and are as
/// wide as a row has values.
fn turn(rows: &[f32], row_step: usize, count: usize, out: &mut [f32], step: usize) {
    for first in (0..count).step_by(LANES) {
        let some = LANES.min(count - first);
        for (j, out) in out.chunks_exact_mut(step).enumerate() {
            for (i, out) in out[first..first + some].iter_mut().enumerate() {
                *out = rows[(first + i) * row_step + j];
            }
        }
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

/// Makes minus infinity of the scores that a query may not see; `scores` are those of `keys`.
pub(super) fn hide(
    hidden: Option<&Hidden<'_>>,
    sizes: &Sizes,
    [batch, head, query]: [usize; 3],
    keys: Keys<'_>,
    scores: &mut [f32],
) {
    let Some(hidden) = hidden else {
        // All keys are one range from the first on.
        let seen = sizes.reach(query).min(scores.len());
        scores[seen..].fill(f32::NEG_INFINITY);
        return;
    };
    let row = hidden.row(batch, head, query, sizes.keys);
    for (range, first) in keys.ranges() {
        let scores = &mut scores[first..first + range.len()];
        for (score, hidden) in scores.iter_mut().zip(&row[range]) {
            *score = if *hidden != 0 {
                f32::NEG_INFINITY
            } else {
                *score
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::prelude::*;
    use burn::tensor::Distribution;

    use super::super::super::values::{Plain, plain};
    use super::*;

    fn random(shape: [usize; 4]) -> Plain {
        plain(Tensor::<4>::random(
            shape,
            Distribution::Normal(0.0, 1.0),
            &Device::flex(),
        ))
    }

    #[test]
    fn keys_are_turned_by_hand() {
        let (rows, mut out) = ([1.0, 2.0, 9.0, 3.0, 4.0, 9.0, 5.0, 6.0], [0.0; 8]);
        turn(&rows, 3, 3, &mut out, 4);
        assert_eq!(out, [1.0, 3.0, 5.0, 0.0, 2.0, 4.0, 6.0, 0.0]);
    }

    /// Several blocks of queries, grouped heads, earlier keys: turning keys around changes no bit.
    #[test]
    fn turned_keys_change_no_bit() {
        for (causal, queries, keys) in [(false, 300, 300), (true, 270, 411), (true, 40, 1030)] {
            let (batch, kv, group, d, d_value) = (2, 2, 3, 24, 40);
            let heads = kv * group;
            let tensors = [
                random([batch, heads, queries, d]),
                random([batch, kv, keys, d]),
                random([batch, kv, keys, d_value]),
            ];
            let sizes = Sizes {
                batch,
                heads,
                group,
                queries,
                keys,
                d,
                d_value,
                causal,
            };
            let run = |turned: bool| {
                let views = tensors.each_ref().map(|x| View::new(x).expect("dense"));
                let mut call = Call::new(views, None, sizes);
                assert!(call.turned.is_some());
                if !turned {
                    call.turned = None;
                }
                let mut out = vec![0f32; batch * queries * heads * d_value];
                call.run(&mut out, None);
                out
            };
            assert!(run(true) == run(false), "{causal}, {queries}, {keys}");
        }
    }

    #[test]
    fn what_is_read_once_is_not_turned() {
        let sizes = |queries, group| Sizes {
            batch: 1,
            heads: group,
            group,
            queries,
            keys: 50,
            d: 4,
            d_value: 4,
            causal: false,
        };
        for (queries, group, expected) in [
            (FEW_QUERIES, 4, false),
            (40, 1, false),
            (40, 2, true),
            (200, 1, true),
        ] {
            let tensors = [random([1, group, queries, 4]), random([1, 1, 50, 4])];
            let [q, k] = tensors.each_ref().map(|x| View::new(x).expect("dense"));
            let v = View::new(&tensors[1]).expect("dense");
            let call = Call::new([q, k, v], None, sizes(queries, group));
            assert_eq!(call.turned.is_some(), expected, "{queries}, {group}");
        }
    }
}
