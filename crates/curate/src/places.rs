//! Where the samples of a source and category stand among all samples of the source.
//!
//! A cap is one of a source, whatever its categories: it keeps those samples of the source that come first
//! in the order of the seed. What is left of one category is therefore the beginning of its samples in the
//! same order, and a count says all of it.

/// The places that samples of one source and category have among all samples of the source, from 1, in the
/// order of the seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Places {
    /// All of them, up to this one: the source has no other category.
    Whole(u64),
    /// Some of them, ascending: the source has other categories, too.
    Among(Vec<u32>),
}

impl Places {
    /// How many samples there are.
    pub fn count(&self) -> u64 {
        match self {
            Self::Whole(count) => *count,
            Self::Among(places) => places.len() as u64,
        }
    }

    /// How many of them are among the first `cap` of the source.
    pub fn within(&self, cap: u64) -> u64 {
        match self {
            Self::Whole(count) => cap.min(*count),
            Self::Among(places) => places.partition_point(|&place| u64::from(place) <= cap) as u64,
        }
    }

    /// The place of the last one, if the first `count` of them are kept; 0 if none is.
    pub fn last_of(&self, count: u64) -> u64 {
        match self {
            Self::Whole(all) => count.min(*all),
            Self::Among(places) => {
                let kept = usize::try_from(count).unwrap_or(usize::MAX);
                let kept = places.get(..kept).unwrap_or(places);
                kept.last().map_or(0, |&place| u64::from(place))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source of five samples, of which the first and the fourth are of one category.
    #[test]
    fn a_cap_takes_the_first_of_the_source() {
        let some = Places::Among(vec![1, 4]);
        assert_eq!([0, 1, 3, 4, 9].map(|cap| some.within(cap)), [0, 1, 1, 2, 2]);
        assert_eq!([0, 1, 2, 9].map(|count| some.last_of(count)), [0, 1, 4, 4]);
        let all = Places::Whole(5);
        assert_eq!([0, 3, 9].map(|cap| all.within(cap)), [0, 3, 5]);
        assert_eq!([0, 3, 9].map(|count| all.last_of(count)), [0, 3, 5]);
        assert_eq!((some.count(), all.count()), (2, 5));
    }

    /// Nothing was kept of a category: no sample of it has the place 0.
    #[test]
    fn no_sample_is_no_place() {
        let none = Places::Among(Vec::new());
        assert_eq!((none.count(), none.within(7), none.last_of(7)), (0, 0, 0));
    }
}
