//! Attention in blocks of queries: scores, softmax and sum of one block stay in cache.
//!
//! Heads are read where they lie, whatever the strides, so nothing is permuted before; the output is
//! written with the heads of a position side by side, which is how it is used after. Keys that a
//! causal mask hides from a whole block are not even multiplied.

use std::ops::Range;

use burn::backend::Flex;
use burn::prelude::*;
use gemm::Parallelism;
use rayon::prelude::*;

use super::math::{dot_f32, exp};
use super::{Level, Plain, Shared, level, per_level, plain};
use crate::AttentionMask;

/// Scores that one task holds.
const BLOCK: usize = 1 << 16;
/// Queries up to which dot products beat a matrix product.
const FEW_QUERIES: usize = 2;
/// Multiply-adds below which tasks are put together.
const SMALL_TASK: usize = 1 << 16;
/// Lanes of a reduction.
const LANES: usize = 16;

/// A `[b, h, n, d]` tensor as it lies in memory, the last dimension dense.
struct View<'a> {
    values: &'a [f32],
    start: usize,
    strides: [usize; 3],
}

impl<'a> View<'a> {
    fn new(tensor: &'a Plain) -> Option<Self> {
        let strides = tensor.layout().strides();
        let dense = |i: usize| usize::try_from(strides[i]).ok();
        if strides[3] != 1 {
            return None;
        }
        Some(Self {
            values: tensor.storage::<f32>(),
            start: tensor.layout().start_offset(),
            strides: [dense(0)?, dense(1)?, dense(2)?],
        })
    }

    /// Everything from row `row` of a head on.
    fn from(&self, batch: usize, head: usize, row: usize) -> &'a [f32] {
        let [b, h, n] = self.strides;
        &self.values[self.start + batch * b + head * h + row * n..]
    }

    /// Distance of two rows.
    fn step(&self) -> usize {
        self.strides[2]
    }
}

/// Which keys are hidden, `[b or 1, h or 1, t or 1, s]`, dense.
struct Hidden<'a> {
    values: &'a [u8],
    strides: [usize; 3],
}

impl Hidden<'_> {
    fn row(&self, batch: usize, head: usize, query: usize, keys: usize) -> &[u8] {
        let [b, h, t] = self.strides;
        let at = batch * b + head * h + query * t;
        &self.values[at..at + keys]
    }
}

/// The sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    heads: usize,
    group: usize,
    queries: usize,
    keys: usize,
    d: usize,
    d_value: usize,
    causal: bool,
}

impl Sizes {
    /// Keys that the last of some queries may see, and so the most that any may.
    fn reach(&self, queries: &Range<usize>) -> usize {
        if self.causal {
            (queries.end + self.keys)
                .saturating_sub(self.queries)
                .min(self.keys)
        } else {
            self.keys
        }
    }
}

/// `softmax(q·kᵀ / √d + mask) · v`; see [`crate::attention`].
///
/// # Shapes
/// - `q`: `[b, h, t, d]`, `k`: `[b, kv, s, d]`, `v`: `[b, kv, s, e]`
/// - output: `[b, h, t, e]`
///
/// # Panics
/// If a tensor is not [plain](super::is_plain_f32).
#[must_use]
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, mask: &AttentionMask) -> Tensor<4> {
    let device = q.device();
    let [b, heads, queries, d] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let d_value = v.dims()[3];
    assert_eq!(
        k.dims(),
        [b, kv_heads, keys, d],
        "keys that do not fit the queries"
    );
    assert_eq!(
        v.dims(),
        [b, kv_heads, keys, d_value],
        "values that do not fit the keys"
    );
    let sizes = Sizes {
        heads,
        group: heads / kv_heads,
        queries,
        keys,
        d,
        d_value,
        causal: matches!(mask, AttentionMask::Causal),
    };
    let (q, k, v) = (dense(plain(q)), dense(plain(k)), dense(plain(v)));
    let hidden = match mask {
        AttentionMask::Hidden(hidden) => Some(hidden_keys(hidden.clone())),
        AttentionMask::None | AttentionMask::Causal => None,
    };
    let hidden = hidden.as_ref().map(|(tensor, strides)| Hidden {
        values: tensor.storage::<u8>(),
        strides: *strides,
    });
    let mut out = vec![0f32; b * queries * heads * d_value];
    if keys > 0 && !out.is_empty() {
        let views = [&q, &k, &v].map(|tensor| View::new(tensor).expect("made dense"));
        run(&views, hidden.as_ref(), sizes, b, &mut out);
    }
    Tensor::<4>::from_data(TensorData::new(out, [b, queries, heads, d_value]), &device)
        .swap_dims(1, 2)
}

fn dense(tensor: Plain) -> Plain {
    if View::new(&tensor).is_some() {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// The mask as it lies in memory, and its strides with 0 where it is broadcast.
fn hidden_keys(mask: Tensor<4, Bool>) -> (Plain, [usize; 3]) {
    let [b, h, t, s] = mask.dims();
    let tensor = match mask.try_into_primitive::<Flex>() {
        Ok(tensor) => tensor.to_contiguous(),
        Err(error) => panic!("a CPU kernel was given another backend's mask: {error:?}"),
    };
    let stride = |n: usize, step: usize| if n == 1 { 0 } else { step };
    (
        tensor,
        [stride(b, h * t * s), stride(h, t * s), stride(t, s)],
    )
}

fn run(
    views: &[View<'_>; 3],
    hidden: Option<&Hidden<'_>>,
    sizes: Sizes,
    b: usize,
    out: &mut [f32],
) {
    let Sizes {
        heads,
        queries,
        keys,
        d,
        ..
    } = sizes;
    let block = (BLOCK / keys).clamp(8, 128).min(queries);
    let blocks = queries.div_ceil(block);
    let together = (SMALL_TASK / (block * keys * d).max(1)).max(1);
    let out = Shared(out.as_mut_ptr());
    (0..b * heads * blocks)
        .into_par_iter()
        .with_min_len(together)
        .for_each_init(
            || vec![0f32; block * keys],
            |scores, task| {
                let (batch, rest) = (task / (heads * blocks), task % (heads * blocks));
                let (head, part) = (rest / blocks, rest % blocks);
                let rows = part * block..((part + 1) * block).min(queries);
                let at = Place { batch, head, rows };
                attend(views, hidden, sizes, &at, scores, &out);
            },
        );
}

/// What one task works on.
struct Place {
    batch: usize,
    head: usize,
    rows: Range<usize>,
}

fn attend(
    [q, k, v]: &[View<'_>; 3],
    hidden: Option<&Hidden<'_>>,
    sizes: Sizes,
    at: &Place,
    scores: &mut [f32],
    out: &Shared,
) {
    let Sizes {
        heads,
        group,
        d,
        d_value,
        ..
    } = sizes;
    let (n, reach) = (at.rows.len(), sizes.reach(&at.rows));
    let q_rows = q.from(at.batch, at.head, at.rows.start);
    let k_rows = k.from(at.batch, at.head / group, 0);
    let v_rows = v.from(at.batch, at.head / group, 0);
    if reach == 0 {
        return; // Nothing is seen, and the output is already zero.
    }
    let scores = &mut scores[..n * reach];
    if n <= FEW_QUERIES {
        for (i, row) in scores.chunks_exact_mut(reach).enumerate() {
            let q_row = &q_rows[i * q.step()..i * q.step() + d];
            for (j, score) in row.iter_mut().enumerate() {
                *score = dot_f32(q_row, &k_rows[j * k.step()..j * k.step() + d]);
            }
        }
    } else {
        let left = Matrix {
            values: q_rows,
            rows: n,
            cols: d,
            row_step: q.step(),
            col_step: 1,
        };
        let right = Matrix {
            values: k_rows,
            rows: d,
            cols: reach,
            row_step: 1,
            col_step: k.step(),
        };
        // SAFETY: `scores` holds `n · reach` values.
        unsafe { multiply(&left, &right, scores.as_mut_ptr(), reach) };
    }
    for (i, row) in scores.chunks_exact_mut(reach).enumerate() {
        let query = at.rows.start + i;
        let seen = sizes.reach(&(query..query + 1));
        row[seen..].fill(f32::NEG_INFINITY);
        if let Some(hidden) = hidden {
            let hidden = hidden.row(at.batch, at.head, query, reach);
            for (score, hidden) in row.iter_mut().zip(hidden) {
                *score = if *hidden != 0 {
                    f32::NEG_INFINITY
                } else {
                    *score
                };
            }
        }
        softmax_row(row, 1.0 / (d as f32).sqrt());
    }
    // SAFETY: rows `at.rows` of this head in the `[b, t, h, e]` output, which no other task has.
    let first = unsafe {
        out.0
            .add(((at.batch * sizes.queries + at.rows.start) * heads + at.head) * d_value)
    };
    let step = heads * d_value;
    if n <= FEW_QUERIES {
        for (i, row) in scores.chunks_exact(reach).enumerate() {
            // SAFETY: as above; `d_value` values of row `i`.
            let sum = unsafe { std::slice::from_raw_parts_mut(first.add(i * step), d_value) };
            for (j, weight) in row.iter().enumerate() {
                add_scaled(sum, &v_rows[j * v.step()..j * v.step() + d_value], *weight);
            }
        }
    } else {
        let left = Matrix {
            values: scores,
            rows: n,
            cols: reach,
            row_step: reach,
            col_step: 1,
        };
        let right = Matrix {
            values: v_rows,
            rows: reach,
            cols: d_value,
            row_step: v.step(),
            col_step: 1,
        };
        // SAFETY: `n` rows of `d_value` values, `step` apart, as above.
        unsafe { multiply(&left, &right, first, step) };
    }
}

/// A matrix somewhere in a slice.
struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    cols: usize,
    row_step: usize,
    col_step: usize,
}

impl Matrix<'_> {
    /// # Panics
    /// If the last value lies outside the slice.
    fn check(&self) {
        let last = (self.rows - 1) * self.row_step + (self.cols - 1) * self.col_step;
        assert!(last < self.values.len(), "a matrix outside its tensor");
    }
}

/// `out = left · right` on this thread, rows of `out` `step` apart.
///
/// # Safety
/// `out` is valid for writes of `left.rows` rows of `right.cols` values.
unsafe fn multiply(left: &Matrix<'_>, right: &Matrix<'_>, out: *mut f32, step: usize) {
    left.check();
    right.check();
    // SAFETY: both inputs were checked to lie inside their slices, the caller vouches for `out`.
    unsafe {
        gemm::gemm(
            left.rows,
            right.cols,
            left.cols,
            out,
            1,
            step as isize,
            false,
            left.values.as_ptr(),
            left.col_step as isize,
            left.row_step as isize,
            right.values.as_ptr(),
            right.col_step as isize,
            right.row_step as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[inline(always)]
fn add_scaled_body<const FMA: bool>(sum: &mut [f32], x: &[f32], scale: f32) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum = super::math::fma::<FMA>(*x, scale, *sum);
    }
}

per_level! { fn add_scaled = add_scaled_body(sum: &mut [f32], x: &[f32], scale: f32) }

/// Softmax of `scale · row`; all zeros where every score is minus infinity.
#[inline(always)]
fn softmax_body<const FMA: bool>(row: &mut [f32], scale: f32) {
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
        return;
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
}

/// `e^(scale · (score − max))`, exactly zero where the score is minus infinity.
#[inline(always)]
fn weight<const FMA: bool>(score: f32, max: f32, scale: f32) -> f32 {
    let e = exp::<FMA>((score - max) * scale);
    let e = if score == f32::NEG_INFINITY { 0.0 } else { e };
    if score.is_nan() { f32::NAN } else { e }
}

per_level! { fn softmax_row = softmax_body(row: &mut [f32], scale: f32) }

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;
    use burn::tensor::module;
    use burn::tensor::ops::AttentionModuleOptions;
    use proptest::prelude::*;

    use super::*;

    fn random(shape: [usize; 4]) -> Tensor<4> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Against Burn's own, on grouped heads, permuted layouts and every kind of mask.
        #[test]
        fn the_same_as_burn(
            b in 1usize..3, kv in 1usize..3, group in 1usize..4,
            t in 1usize..40, extra in 0usize..40, kind in 0usize..3,
        ) {
            let (heads, s, d) = (kv * group, t + extra, 12);
            // Positions before heads, as projections leave them.
            let q = random([b, t, heads, d]).swap_dims(1, 2);
            let k = random([b, s, kv, d]).swap_dims(1, 2);
            let v = random([b, kv, s, d]);
            let mask = match kind {
                0 => AttentionMask::None,
                1 => AttentionMask::Causal,
                _ => {
                    let hidden = Tensor::<4>::random([b, 1, t, s], Distribution::Default, &Device::flex());
                    AttentionMask::Hidden(hidden.greater_elem(0.6))
                }
            };
            let hidden = match &mask {
                AttentionMask::Hidden(hidden) => Some(hidden.clone()),
                _ => None,
            };
            let options =
                AttentionModuleOptions { is_causal: kind == 1, ..Default::default() };
            let theirs = module::attention(q.clone(), k.clone(), v.clone(), hidden, None, options);
            let ours = attention(q, k, v, &mask);
            let worst = (ours - theirs).abs().max().into_scalar::<f32>();
            prop_assert!(worst < 2e-5, "{worst}");
        }
    }

    #[test]
    fn a_query_that_sees_nothing_gets_zeros() {
        let device = Device::flex();
        let hidden = Tensor::<4, Bool>::from_data([[[[true, true]]]], &device);
        let y = attention(
            random([1, 1, 1, 4]),
            random([1, 1, 2, 4]),
            random([1, 1, 2, 4]),
            &AttentionMask::Hidden(hidden),
        );
        assert_eq!(y.abs().sum().into_scalar::<f32>(), 0.0);
    }

    #[test]
    fn nan_is_not_hidden() {
        let mut row = [1.0, f32::NAN, f32::NEG_INFINITY];
        softmax_row(&mut row, 1.0);
        assert!(row[0].is_nan() || row[1].is_nan());
    }
}
