//! Error bars: how sure a score is, and whether two scores differ.
//!
//! Scores are the per-question values, usually 0 or 1. Variances are those of a sample (n − 1).
//! Questions about one picture are not independent of each other, so there is a standard error that
//! takes clusters into account; two models that answered the same questions are compared question by
//! question, which is far sharper than to compare two intervals.

use std::collections::{BTreeMap, BTreeSet};

use opabinia_data::stream::{below, stream};
use serde::Serialize;

use super::distribution::{ln_choose, normal_cdf, normal_quantile, t_critical, t_two_sided};
use crate::Interval;

/// The mean; 0 of nothing.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The standard deviation of a sample (n − 1); `None` of fewer than two values.
#[must_use]
pub fn deviation(values: &[f64]) -> Option<f64> {
    (values.len() > 1).then(|| (squares(values) / (values.len() - 1) as f64).sqrt())
}

/// The standard error of the mean, s/√n; `None` of fewer than two values.
#[must_use]
pub fn standard_error(values: &[f64]) -> Option<f64> {
    deviation(values).map(|s| s / (values.len() as f64).sqrt())
}

/// The standard error of the mean where values of one cluster may depend on each other:
/// SE² = s²/n + (1/n²) · Σ over clusters of [(Σd)² − Σd²], d being the distance from the mean.
///
/// `None` of fewer than two values, or if there is not one cluster for each value.
#[must_use]
pub fn clustered_standard_error<C: Ord>(values: &[f64], clusters: &[C]) -> Option<f64> {
    if values.len() != clusters.len() {
        return None;
    }
    let n = values.len() as f64;
    let plain = standard_error(values)?;
    let centre = mean(values);
    let mut sums: BTreeMap<&C, (f64, f64)> = BTreeMap::new();
    for (value, cluster) in values.iter().zip(clusters) {
        let distance = value - centre;
        let (sum, squares) = sums.entry(cluster).or_default();
        *sum += distance;
        *squares += distance * distance;
    }
    let together: f64 = sums
        .values()
        .map(|(sum, squares)| sum * sum - squares)
        .sum();
    Some((plain * plain + together / (n * n)).max(0.0).sqrt())
}

/// Fewer clusters of questions than this make no interval: whatever they say, the next ones may say
/// otherwise.
pub const FEWEST_CLUSTERS: usize = 10;

/// What never happened in n trials happens in at most 3/n of all, at 95 % (the rule of three).
pub const RULE_OF_THREE: f64 = 3.0;

/// The 95 % interval of a mean, mean ± t · s/√n; `None` of fewer than two values.
#[must_use]
pub fn mean_interval(values: &[f64]) -> Option<Interval> {
    let half = standard_error(values)? * t_critical(0.05, values.len() as f64 - 1.0);
    let centre = mean(values);
    Some(Interval {
        low: centre - half,
        high: centre + half,
    })
}

/// The 95 % interval about `centre` of a mean over questions, in points, where those of one cluster
/// depend on each other. Questions that are all alike are no certainty: then it is as wide as the rule
/// of three wants. `None` of fewer than [`FEWEST_CLUSTERS`] clusters.
#[must_use]
pub fn points_interval<C: Ord>(centre: f64, points: &[f64], clusters: &[C]) -> Option<Interval> {
    let error = clustered_standard_error(points, clusters)?;
    let count = clusters.iter().collect::<BTreeSet<_>>().len();
    if count < FEWEST_CLUSTERS {
        return None;
    }
    let half = match error > 0.0 {
        true => error * t_critical(0.05, count as f64 - 1.0),
        false => 100.0 * RULE_OF_THREE / count as f64,
    };
    Some(Interval {
        low: centre - half,
        high: centre + half,
    })
}

/// The 95 % interval of `mean(one) − mean(other)` for two independent samples (Welch); `None` where one
/// has fewer than two values, or nothing varies.
#[must_use]
pub fn welch_interval(one: &[f64], other: &[f64]) -> Option<Interval> {
    let square = |values: &[f64]| standard_error(values).map(|error| error * error);
    let (first, second) = (square(one)?, square(other)?);
    let sum = first + second;
    if sum <= 0.0 {
        return None;
    }
    let freedom = |square: f64, n: usize| square * square / (n as f64 - 1.0);
    let freedom = sum * sum / (freedom(first, one.len()) + freedom(second, other.len()));
    let half = t_critical(0.05, freedom) * sum.sqrt();
    let centre = mean(one) - mean(other);
    Some(Interval {
        low: centre - half,
        high: centre + half,
    })
}

/// The 95 % interval of the mean by resampling: the middle 95 % of the means of `resamples` samples
/// drawn with replacement. `None` of no values.
///
/// `seed` and `name` choose the stream of random numbers.
#[must_use]
pub fn bootstrap_interval(
    values: &[f64],
    resamples: usize,
    seed: u64,
    name: &str,
) -> Option<Interval> {
    if values.is_empty() || resamples == 0 {
        return None;
    }
    let mut random = stream(seed, name, 0);
    let mut means: Vec<f64> = (0..resamples)
        .map(|_| {
            let draw = || values[below(&mut random, values.len() as u64) as usize];
            std::iter::repeat_with(draw).take(values.len()).sum::<f64>() / values.len() as f64
        })
        .collect();
    Some(middle_95(&mut means))
}

/// The middle 95 % of some values, between neighbours in proportion; sorts them.
///
/// # Panics
/// If there are no values.
#[must_use]
pub(crate) fn middle_95(values: &mut [f64]) -> Interval {
    values.sort_by(f64::total_cmp);
    Interval {
        low: quantile(values, 0.025),
        high: quantile(values, 0.975),
    }
}

/// The `p`-quantile of sorted values, between neighbours in proportion.
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let place = p * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

/// A paired t test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PairedT {
    /// Pairs.
    pub n: usize,
    /// Mean of first − second.
    pub mean: f64,
    /// Standard error of that mean.
    pub standard_error: f64,
    /// 95 % interval of the mean, with n − 1 degrees of freedom.
    pub interval: Interval,
    /// Mean over standard error; 0 if both are 0.
    pub t: f64,
    /// Probability of a difference at least this large if there is none.
    pub p: f64,
}

/// Compares two lists of scores pair by pair; `None` of fewer than two pairs or of unequal lengths.
#[must_use]
pub fn paired_t(first: &[f64], second: &[f64]) -> Option<PairedT> {
    if first.len() != second.len() {
        return None;
    }
    let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - b).collect();
    let error = standard_error(&differences)?;
    let freedom = (differences.len() - 1) as f64;
    let mean = mean(&differences);
    let t = if mean == 0.0 { 0.0 } else { mean / error };
    let half = t_critical(0.05, freedom) * error;
    Some(PairedT {
        n: differences.len(),
        mean,
        standard_error: error,
        interval: Interval {
            low: mean - half,
            high: mean + half,
        },
        t,
        p: t_two_sided(t, freedom),
    })
}

/// McNemar's exact test of two lists of right and wrong answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct McNemar {
    /// Pairs of which only the first is right.
    pub only_first: u64,
    /// Pairs of which only the second is right.
    pub only_second: u64,
    /// Probability of a split at least this uneven if both are equally good.
    pub p: f64,
}

/// Counts the pairs that differ, and how likely such a split is by chance (binomial, both sides).
/// `None` if a score is neither 0 nor 1, or if the lengths differ.
#[must_use]
pub fn mcnemar(first: &[f64], second: &[f64]) -> Option<McNemar> {
    let binary = |value: &f64| *value == 0.0 || *value == 1.0;
    if first.len() != second.len() || !first.iter().chain(second).all(binary) {
        return None;
    }
    let count = |wanted: f64| {
        let pairs = first.iter().zip(second);
        pairs.filter(|(a, b)| *a - *b == wanted).count() as u64
    };
    let (only_first, only_second) = (count(1.0), count(-1.0));
    let n = only_first + only_second;
    let ln_half = 0.5_f64.ln() * n as f64;
    let tail: f64 = (0..=only_first.min(only_second))
        .map(|k| (ln_choose(n, k) + ln_half).exp())
        .sum();
    Some(McNemar {
        only_first,
        only_second,
        p: (2.0 * tail).min(1.0),
    })
}

/// A planned comparison of two models on the same questions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The difference that should be found, in units of the score.
    pub effect: f64,
    /// Standard deviation of the first model's scores over questions; 0.5 is the most that 0 and 1
    /// can have.
    pub first_deviation: f64,
    /// That of the second model.
    pub second_deviation: f64,
    /// Correlation of the two models' scores over questions.
    pub correlation: f64,
    /// Probability of finding a difference where there is none.
    pub alpha: f64,
    /// Probability of finding the difference if it is there.
    pub power: f64,
}

impl Plan {
    /// SD of the differences: √(s₁² + s₂² − 2·ρ·s₁·s₂).
    #[must_use]
    pub fn difference_deviation(&self) -> f64 {
        let (a, b) = (self.first_deviation, self.second_deviation);
        (a * a + b * b - 2.0 * self.correlation * a * b)
            .max(0.0)
            .sqrt()
    }

    /// The smallest number of questions: ⌈((z₁₋α⁄₂ + z_power) · SD / effect)²⌉; `None` if no number
    /// is enough, as for an effect of 0.
    #[must_use]
    pub fn questions(&self) -> Option<u64> {
        let root = self.z() * self.difference_deviation() / self.effect;
        let n = (root * root).ceil();
        (n.is_finite() && n < 1e18).then_some(n as u64)
    }

    /// The probability of finding the effect with `n` questions.
    #[must_use]
    pub fn power_with(&self, n: u64) -> f64 {
        let error = self.difference_deviation() / (n as f64).sqrt();
        normal_cdf(self.effect / error - normal_quantile(1.0 - self.alpha / 2.0))
    }

    /// The smallest difference that `n` questions find with the wanted power.
    #[must_use]
    pub fn detectable_with(&self, n: u64) -> f64 {
        self.z() * self.difference_deviation() / (n as f64).sqrt()
    }

    fn z(&self) -> f64 {
        normal_quantile(1.0 - self.alpha / 2.0) + normal_quantile(self.power)
    }
}

/// Sum of squared distances from the mean.
fn squares(values: &[f64]) -> f64 {
    let centre = mean(values);
    values.iter().map(|v| (v - centre) * (v - centre)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0, 0, 1, 1: mean ½, squares 4·¼ = 1, s² = ⅓, standard error √(⅓/4).
    #[test]
    fn by_hand() {
        let values = [0.0, 0.0, 1.0, 1.0];
        assert_eq!(mean(&values), 0.5);
        assert!((standard_error(&values).unwrap() - (1.0_f64 / 12.0).sqrt()).abs() < 1e-15);
        // Two clusters of two equal values: cross terms are 2·(2·½·½) = 1, over n² = 16.
        let clustered = clustered_standard_error(&values, &["a", "a", "b", "b"]).unwrap();
        assert!((clustered * clustered - (1.0 / 12.0 + 1.0 / 16.0)).abs() < 1e-15);
        // Each for itself: nothing is added.
        let alone = clustered_standard_error(&values, &[1, 2, 3, 4]).unwrap();
        assert!((alone - standard_error(&values).unwrap()).abs() < 1e-15);
    }

    #[test]
    fn too_little_to_say_anything() {
        assert_eq!(mean(&[]), 0.0);
        assert_eq!(standard_error(&[1.0]), None);
        assert_eq!(clustered_standard_error(&[1.0, 0.0], &[1]), None);
        assert_eq!(paired_t(&[1.0], &[0.0]), None);
        assert_eq!(paired_t(&[1.0, 0.0], &[0.0]), None);
        assert_eq!(mcnemar(&[0.5], &[1.0]), None, "neither right nor wrong");
        assert_eq!(bootstrap_interval(&[], 10, 0, "x"), None);
    }

    /// Three against none: 2 · (½)³ = ¼.
    #[test]
    fn mcnemar_by_hand() {
        let found = mcnemar(&[1.0, 1.0, 1.0, 0.0], &[0.0, 0.0, 0.0, 0.0]).unwrap();
        assert_eq!((found.only_first, found.only_second), (3, 0));
        assert!((found.p - 0.25).abs() < 1e-13);
        assert_eq!(mcnemar(&[1.0], &[1.0]).unwrap().p, 1.0);
    }

    #[test]
    fn always_the_same_difference_is_certain() {
        let found = paired_t(&[1.0, 2.0, 3.0], &[0.0, 1.0, 2.0]).unwrap();
        assert_eq!((found.mean, found.standard_error, found.p), (1.0, 0.0, 0.0));
    }

    #[test]
    fn resampling_is_repeatable_and_covers_the_mean() {
        let values: Vec<f64> = (0..100).map(|i| f64::from(i % 4 / 3)).collect();
        let found = bootstrap_interval(&values, 500, 7, "test").unwrap();
        assert_eq!(Some(found), bootstrap_interval(&values, 500, 7, "test"));
        assert_ne!(Some(found), bootstrap_interval(&values, 500, 8, "test"));
        assert!(found.low < 0.25 && 0.25 < found.high, "{found:?}");
        // ± 1.96 · √(¼·¾/100) = ± 0.085
        assert!((found.high - found.low - 0.17).abs() < 0.03, "{found:?}");
    }

    #[test]
    fn more_questions_find_smaller_differences() {
        let plan = Plan {
            effect: 0.05,
            first_deviation: 0.5,
            second_deviation: 0.5,
            correlation: 0.5,
            alpha: 0.05,
            power: 0.8,
        };
        let n = plan.questions().unwrap();
        assert!(plan.power_with(n) >= 0.8 && plan.power_with(n - 1) < 0.8);
        assert!(plan.detectable_with(n) <= 0.05);
        assert_eq!(
            Plan {
                effect: 0.0,
                ..plan
            }
            .questions(),
            None
        );
    }
}
