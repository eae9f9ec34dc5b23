//! Counts of numbers of any size.

use serde::Serialize;

/// Counts by powers of two: `counts[0]` are zeros, `counts[i]` those of 2^(i−1) to 2^i − 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Histogram {
    /// The counts.
    pub counts: Vec<u64>,
    /// How many were counted.
    pub total: u64,
    /// Their sum.
    pub sum: u64,
    /// The largest.
    pub max: u64,
}

impl Histogram {
    /// Counts a number.
    pub fn add(&mut self, number: u64) {
        let slot = (u64::BITS - number.leading_zeros()) as usize;
        if self.counts.len() <= slot {
            self.counts.resize(slot + 1, 0);
        }
        self.counts[slot] += 1;
        self.total += 1;
        self.sum = self.sum.saturating_add(number);
        self.max = self.max.max(number);
    }

    /// The mean; 0 of nothing.
    pub fn mean(&self) -> f64 {
        match self.total {
            0 => 0.0,
            total => self.sum as f64 / total as f64,
        }
    }

    /// What a slot counts: the smallest and the largest number.
    pub fn range(slot: usize) -> (u64, u64) {
        match slot {
            0 => (0, 0),
            _ => {
                let low = 1_u64 << (slot - 1).min(63);
                (low, low.saturating_mul(2).saturating_sub(1))
            }
        }
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (to, from) in self.counts.iter_mut().zip(&other.counts) {
            *to += from;
        }
        self.total += other.total;
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_powers_of_two() {
        let mut histogram = Histogram::default();
        [0, 1, 2, 3, 4, u64::MAX]
            .into_iter()
            .for_each(|n| histogram.add(n));
        assert_eq!(histogram.counts[..4], [1, 1, 2, 1]);
        assert_eq!(Histogram::range(3), (4, 7));
        assert_eq!(Histogram::range(64).0, 1 << 63);
    }
}
