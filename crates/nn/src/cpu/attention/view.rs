//! Heads and masks as they lie in memory.

use super::super::values::Plain;
use super::Sizes;

/// A `[b, h, n, d]` tensor as it lies in memory, the last dimension dense.
pub(super) struct View<'a> {
    values: &'a [f32],
    start: usize,
    strides: [usize; 3],
}

impl<'a> View<'a> {
    /// `None` if the last dimension is not dense, or a stride is negative.
    pub(super) fn new(tensor: &'a Plain) -> Option<Self> {
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
    pub(super) fn from(&self, batch: usize, head: usize, row: usize) -> &'a [f32] {
        let [b, h, n] = self.strides;
        &self.values[self.start + batch * b + head * h + row * n..]
    }

    /// Distance of two rows.
    pub(super) fn step(&self) -> usize {
        self.strides[2]
    }
}

/// Which keys are hidden, `[b or 1, h or 1, t or 1, s]`, dense.
pub(super) struct Hidden<'a> {
    values: &'a [u8],
    strides: [usize; 3],
}

impl<'a> Hidden<'a> {
    /// A contiguous mask and its strides, 0 where it is broadcast.
    pub(super) fn new(mask: &'a Plain, strides: [usize; 3]) -> Self {
        let (start, end) = mask.layout().contiguous_offsets().expect("made contiguous");
        Self {
            values: &mask.storage::<u8>()[start..end],
            strides,
        }
    }

    /// How many masks of their own batches and heads have: 1 where they share one.
    pub(super) fn distinct(&self, sizes: &Sizes) -> [usize; 2] {
        let [b, h, _] = self.strides;
        let count = |stride: usize, n: usize| if stride == 0 { 1 } else { n };
        [count(b, sizes.batch), count(h, sizes.heads)]
    }

    pub(super) fn row(&self, batch: usize, head: usize, query: usize, keys: usize) -> &[u8] {
        let [b, h, t] = self.strides;
        let at = batch * b + head * h + query * t;
        &self.values[at..at + keys]
    }
}
