//! What each block of queries looks at.

use std::ops::Range;

use rayon::prelude::*;

use super::view::Hidden;
use super::{FEW_QUERIES, Sizes};

/// Hidden keys that are not worth a product of their own: so few between seen ones are multiplied, too.
const GAP: usize = 16;

/// For each block of queries the ranges of keys that one of them sees, in order; what a mask hides from
/// the whole block is left out. Questions that stand side by side in a row and do not see each other
/// cost what they see, and no more.
pub(super) struct Seen {
    ranges: Vec<Vec<Range<usize>>>,
    /// Masks apart from each other for batches and heads: 0 where they share one.
    strides: [usize; 2],
    blocks: usize,
}

impl Seen {
    pub(super) fn new(hidden: Option<&Hidden<'_>>, sizes: &Sizes, block: usize) -> Self {
        let blocks = sizes.queries.div_ceil(block);
        let rows = |part: usize| part * block..((part + 1) * block).min(sizes.queries);
        // A few queries are taken one by one, and skip nothing.
        let Some(hidden) = hidden.filter(|_| sizes.queries > FEW_QUERIES) else {
            let reach = |part: usize| Range {
                start: 0,
                end: sizes.reach(rows(part).end - 1),
            };
            let ranges =
                (0..blocks).map(|part| Vec::from_iter(Some(reach(part)).filter(|r| !r.is_empty())));
            return Self {
                ranges: ranges.collect(),
                strides: [0, 0],
                blocks,
            };
        };
        let [batches, heads] = hidden.distinct(sizes);
        let ranges = (0..batches * heads * blocks)
            .into_par_iter()
            .map(|i| {
                let (mask, part) = (i / blocks, i % blocks);
                let (batch, head) = (mask / heads, mask % heads);
                let mut from_all = vec![true; sizes.keys];
                for query in rows(part) {
                    let row = hidden.row(batch, head, query, sizes.keys);
                    for (all, one) in from_all.iter_mut().zip(row) {
                        *all &= *one != 0;
                    }
                }
                ranges(&from_all)
            })
            .collect();
        let stride = |count: usize, step: usize| if count == 1 { 0 } else { step };
        Self {
            ranges,
            strides: [stride(batches, heads), stride(heads, 1)],
            blocks,
        }
    }

    /// What block number `part` of a head sees.
    pub(super) fn of(&self, batch: usize, head: usize, part: usize) -> Keys<'_> {
        let mask = batch * self.strides[0] + head * self.strides[1];
        let ranges = &self.ranges[mask * self.blocks + part];
        Keys {
            ranges,
            count: ranges.iter().map(Range::len).sum(),
        }
    }
}

/// Keys that a block of queries sees. Its scores lie side by side.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    ranges: &'a [Range<usize>],
    /// How many they are.
    pub(super) count: usize,
}

impl<'a> Keys<'a> {
    /// Each range, and how many scores lie before it.
    pub(super) fn ranges(self) -> impl Iterator<Item = (Range<usize>, usize)> + 'a {
        let mut before = 0;
        self.ranges.iter().map(move |range| {
            let first = before;
            before += range.len();
            (range.clone(), first)
        })
    }
}

/// Runs of keys that are not hidden from all.
fn ranges(hidden: &[bool]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for key in (0..hidden.len()).filter(|key| !hidden[*key]) {
        match ranges.last_mut() {
            Some(last) if key - last.end < GAP => last.end = key + 1,
            _ => ranges.push(key..key + 1),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_gaps_are_multiplied_and_large_ones_are_not() {
        let mut hidden = vec![true; 60];
        for key in [3, 4, 9, 40, 59] {
            hidden[key] = false;
        }
        // From 9 to 40 there are 30 hidden keys, from 40 to 59 there are 18.
        assert_eq!(ranges(&hidden), [3..10, 40..41, 59..60]);
        hidden[50] = false;
        assert_eq!(ranges(&hidden), [3..10, 40..60]);
        assert!(ranges(&[true; 4]).is_empty());
    }
}
