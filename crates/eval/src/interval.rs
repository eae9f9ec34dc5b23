//! How sure a share is.
//!
//! Wilson's score interval: unlike the textbook's p ± 1.96·√(p(1−p)/n) it stays between 0 and 1 and
//! is right for small n and for shares near 0 and 1 (E. B. Wilson, 1927).

use serde::{Deserialize, Serialize};

/// The 97.5 % quantile of the normal distribution: half of a 95 % interval, in standard errors.
pub const Z: f64 = 1.959_963_984_540_054;

/// A range of shares.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// The 95 % interval of a share that was measured on `n` questions; everything for `n` = 0.
#[must_use]
pub fn wilson(share: f64, n: usize) -> Interval {
    wilson_of(share, n as f64)
}

/// The same of a number of questions that are worth `n` independent right-or-wrong ones. Where
/// questions share pictures or scores lie between 0 and 1, that is share · (1 − share) / SE², with a
/// standard error that takes clusters into account.
#[must_use]
pub fn wilson_of(share: f64, n: f64) -> Interval {
    // Not a number counts as nothing.
    if n.is_nan() || n <= 0.0 {
        return Interval {
            low: 0.0,
            high: 1.0,
        };
    }
    let spread = Z * Z / n;
    let centre = share + spread / 2.0;
    let half = Z
        * (share * (1.0 - share) / n + spread / (4.0 * n))
            .max(0.0)
            .sqrt();
    Interval {
        low: ((centre - half) / (1.0 + spread)).max(0.0),
        high: ((centre + half) / (1.0 + spread)).min(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(share: f64, n: usize, low: f64, high: f64) {
        let found = wilson(share, n);
        assert!((found.low - low).abs() < 5e-4, "{found:?}");
        assert!((found.high - high).abs() < 5e-4, "{found:?}");
    }

    #[test]
    fn clusters_widen() {
        let (all, half) = (wilson_of(0.5, 100.0), wilson_of(0.5, 50.0));
        assert_eq!(all, wilson(0.5, 100));
        assert!(half.low < all.low && half.high > all.high);
        assert_eq!(wilson_of(0.5, f64::NAN), wilson(0.5, 0));
    }

    /// None of n: the upper end is z² / (n + z²).
    #[test]
    fn textbook_values() {
        check(0.0, 10, 0.0, 0.2775);
        check(1.0, 10, 0.7225, 1.0);
        check(0.5, 100, 0.4038, 0.5962);
        check(0.8, 20, 0.5840, 0.9193);
        check(0.3, 0, 0.0, 1.0);
    }
}
