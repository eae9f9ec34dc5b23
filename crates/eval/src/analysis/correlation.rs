//! How alike two benchmarks rank models.
//!
//! Pearson's correlation over models is what Cambrian-1 shows (figure 10, arXiv 2406.16860);
//! Spearman's does not mind a benchmark whose scale is bent; Kendall's counts pairs that change
//! order and measures here how stable a ranking is. Missing scores are left out pair by pair.

use serde::Serialize;

use super::statistics::mean;
use crate::interval::{Interval, Z};

/// Pearson's correlation; `None` of fewer than two pairs, of unequal lengths, or if one side does
/// not vary.
#[must_use]
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() != y.len() || x.len() < 2 {
        return None;
    }
    let (mean_x, mean_y) = (mean(x), mean(y));
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        let (dx, dy) = (x - mean_x, y - mean_y);
        xx += dx * dx;
        yy += dy * dy;
        xy += dx * dy;
    }
    if does_not_vary(xx, mean_x, x.len()) || does_not_vary(yy, mean_y, y.len()) {
        return None;
    }
    Some((xy / (xx * yy).sqrt()).clamp(-1.0, 1.0))
}

/// Whether a sum of squared distances from a mean is only rounding.
pub(super) fn does_not_vary(squares: f64, mean: f64, n: usize) -> bool {
    squares <= n as f64 * (1e-13 * mean.abs()).powi(2)
}

/// Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of their ranks.
#[must_use]
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    pearson(&ranks(x), &ranks(y))
}

/// Ranks from 1, the smallest first; equal values share the mean of their ranks.
#[must_use]
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let value = values[order[start]];
        let equal = order[start..].iter().take_while(|&&i| values[i] == value);
        let end = start + equal.count().max(1);
        let shared = (start + 1 + end) as f64 / 2.0;
        for &i in &order[start..end] {
            ranks[i] = shared;
        }
        start = end;
    }
    ranks
}

/// Kendall's τ_b: pairs in the same order minus pairs in opposite order, over those that can be
/// ordered. `None` of unequal lengths or if one side does not vary.
#[must_use]
pub fn kendall(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() != y.len() {
        return None;
    }
    let order = |a: f64, b: f64| f64::from(i8::from(a > b) - i8::from(a < b));
    let (mut both, mut only_x, mut only_y) = (0.0, 0.0, 0.0);
    for i in 0..x.len() {
        for j in 0..i {
            let (dx, dy) = (order(x[i], x[j]), order(y[i], y[j]));
            both += dx * dy;
            only_x += dx * dx;
            only_y += dy * dy;
        }
    }
    let scale = (only_x * only_y).sqrt();
    (scale > 0.0).then(|| both / scale)
}

/// The 95 % interval of a correlation over `n` pairs, after Fisher's z transformation; `None` of
/// fewer than four pairs.
#[must_use]
pub fn fisher_interval(r: f64, n: usize) -> Option<Interval> {
    if n < 4 {
        return None;
    }
    let half = Z / ((n - 3) as f64).sqrt();
    let z = r.clamp(-1.0, 1.0).atanh();
    Some(Interval {
        low: (z - half).tanh(),
        high: (z + half).tanh(),
    })
}

/// Correlations of columns with each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CorrelationMatrix {
    /// What the columns are called.
    pub names: Vec<String>,
    /// `[column][column]`; `None` where it is not defined.
    pub values: Vec<Vec<Option<f64>>>,
    /// `[column][column]`: over how many pairs.
    pub pairs: Vec<Vec<usize>>,
}

impl CorrelationMatrix {
    /// Correlates each column with each other one over the rows where both have a value.
    #[must_use]
    pub fn of(
        names: &[String],
        columns: &[Vec<Option<f64>>],
        correlation: impl Fn(&[f64], &[f64]) -> Option<f64>,
    ) -> Self {
        let n = columns.len();
        let mut values = vec![vec![None; n]; n];
        let mut pairs = vec![vec![0; n]; n];
        for i in 0..n {
            for j in 0..=i {
                let (x, y) = complete_pairs(&columns[i], &columns[j]);
                let value = correlation(&x, &y);
                // With itself a column is not almost but exactly as it is.
                let value = if i == j { value.map(|_| 1.0) } else { value };
                (values[i][j], values[j][i]) = (value, value);
                (pairs[i][j], pairs[j][i]) = (x.len(), x.len());
            }
        }
        Self {
            names: names.to_vec(),
            values,
            pairs,
        }
    }

    /// Mean correlation of a column with all the others; `None` if it has none.
    #[must_use]
    pub fn mean_with_others(&self, column: usize) -> Option<f64> {
        let row = self.values.get(column)?.iter().enumerate();
        let others: Vec<f64> = row
            .filter(|(other, _)| *other != column)
            .filter_map(|(_, value)| *value)
            .collect();
        (!others.is_empty()).then(|| mean(&others))
    }
}

fn complete_pairs(x: &[Option<f64>], y: &[Option<f64>]) -> (Vec<f64>, Vec<f64>) {
    x.iter().zip(y).filter_map(|(x, y)| x.zip(*y)).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let x = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(pearson(&x, &[2.0, 4.0, 6.0, 8.0]), Some(1.0));
        assert_eq!(pearson(&x, &[8.0, 6.0, 4.0, 2.0]), Some(-1.0));
        // Products of the distances: 1.5·1 + 0.5·0 − 0.5·0 − 1.5·1 … = 1; squares 5 and 5.
        assert!((pearson(&x, &[2.0, 1.0, 4.0, 3.0]).unwrap() - 0.6).abs() < 1e-15);
        assert_eq!(spearman(&x, &[1.0, 10.0, 100.0, 1000.0]), Some(1.0));
        // One of six pairs is turned round.
        assert_eq!(kendall(&x, &[1.0, 2.0, 4.0, 3.0]), Some(4.0 / 6.0));
    }

    #[test]
    fn without_variation_there_is_no_correlation() {
        assert_eq!(pearson(&[0.1; 3], &[1.0, 2.0, 3.0]), None);
        assert_eq!(pearson(&[1.0], &[1.0]), None);
        assert_eq!(pearson(&[1.0, 2.0], &[1.0]), None);
        assert_eq!(kendall(&[1.0, 1.0], &[1.0, 2.0]), None);
    }

    #[test]
    fn equal_values_share_their_ranks() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
        assert!(ranks(&[]).is_empty());
    }

    #[test]
    fn missing_scores_are_left_out_pair_by_pair() {
        let columns = [
            vec![Some(1.0), Some(2.0), None, Some(4.0)],
            vec![Some(1.0), Some(2.0), Some(9.0), Some(4.0)],
            vec![None, None, None, Some(1.0)],
        ];
        let names = ["a", "b", "c"].map(str::to_owned);
        let matrix = CorrelationMatrix::of(&names, &columns, pearson);
        assert_eq!(matrix.values[0][1], Some(1.0));
        assert_eq!(matrix.pairs[0][1], 3);
        assert_eq!(matrix.values[2][2], None);
        assert_eq!(matrix.mean_with_others(0), Some(1.0));
        assert_eq!(matrix.mean_with_others(2), None);
    }

    /// r = 0 with 19 models: tanh(1.96/4).
    #[test]
    fn few_models_say_little_about_a_correlation() {
        let interval = fisher_interval(0.0, 19).unwrap();
        assert!((interval.high - 0.454).abs() < 1e-3, "{interval:?}");
        assert_eq!(interval.low, -interval.high);
        assert_eq!(fisher_interval(0.5, 3), None);
    }
}
