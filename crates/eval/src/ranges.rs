//! Sets of numbers as ranges: which questions of a benchmark are wanted.

use serde::{Deserialize, Serialize};

/// Numbers, as ranges that neither touch nor overlap, in order: `[[0, 3], [7, 8]]` is 0, 1, 2 and 7.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ranges(Vec<[usize; 2]>);

impl Ranges {
    /// Some numbers, in any order.
    pub fn of(numbers: impl IntoIterator<Item = usize>) -> Self {
        let ranges = numbers.into_iter().map(|number| [number, number + 1]);
        Self::joined(ranges.collect())
    }

    /// The numbers of both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::joined([&self.0[..], &other.0[..]].concat())
    }

    /// How many numbers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let lengths = self.0.iter().map(|[from, to]| to.saturating_sub(*from));
        lengths.fold(0, usize::saturating_add)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a number is among them.
    #[must_use]
    pub fn has(&self, number: usize) -> bool {
        let mut ranges = self.0.iter();
        ranges.any(|[from, to]| (*from..*to).contains(&number))
    }

    fn joined(mut ranges: Vec<[usize; 2]>) -> Self {
        ranges.sort_unstable();
        let mut joined: Vec<[usize; 2]> = Vec::new();
        for [from, to] in ranges {
            match joined.last_mut() {
                Some([_, end]) if from <= *end => *end = to.max(*end),
                _ => joined.push([from, to]),
            }
        }
        Self(joined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_by_hand() {
        let some = Ranges::of([7, 0, 2, 1]);
        assert_eq!(some.0, [[0, 3], [7, 8]]);
        assert_eq!(some.len(), 4);
        assert!(some.has(2) && some.has(7) && !some.has(3));
        let both = some.union(&Ranges::of([3, 4, 8, 20]));
        assert_eq!(both.0, [[0, 5], [7, 9], [20, 21]]);
        assert!(Ranges::default().is_empty());
        assert_eq!(some.union(&some), some);
    }
}
