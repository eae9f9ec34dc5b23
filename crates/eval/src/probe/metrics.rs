//! What is measured: shares of right classes, and average precision of labels.

use opabinia_data::stream::{below, stream};

use crate::analysis::statistics::middle_95;
use crate::interval::Interval;

/// The class of the largest score; of equal ones the first.
#[must_use]
pub fn best(scores: &[f64]) -> usize {
    let mut best = 0;
    for (class, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = class;
        }
    }
    best
}

/// Whether the right class is among the `n` largest scores; of equal ones the first come first.
#[must_use]
pub fn among_best(scores: &[f64], right: usize, n: usize) -> bool {
    let Some(mine) = scores.get(right) else {
        return false;
    };
    let before = scores
        .iter()
        .enumerate()
        .filter(|(class, score)| *score > mine || (*score == mine && *class < right));
    before.count() < n
}

/// A label's pictures from the surest to the least sure, pictures of one score together.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// Pictures of one score, and whether each has the label.
    groups: Vec<Vec<(usize, bool)>>,
}

impl Ranking {
    /// Ranks pictures by a label's scores.
    #[must_use]
    pub fn of(scores: &[f64], has: &[bool]) -> Self {
        let mut order: Vec<usize> = (0..scores.len().min(has.len())).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
        let mut groups: Vec<Vec<(usize, bool)>> = Vec::new();
        let mut last = None;
        for picture in order {
            let entry = (picture, has[picture]);
            match groups.last_mut() {
                Some(group) if last == Some(scores[picture]) => group.push(entry),
                _ => groups.push(vec![entry]),
            }
            last = Some(scores[picture]);
        }
        Self { groups }
    }

    /// Average precision, Σ (recallₙ − recallₙ₋₁) · precisionₙ over the scores that occur, as
    /// scikit-learn has it; pictures count `times` each. `None` if none has the label.
    #[must_use]
    pub fn average_precision(&self, times: impl Fn(usize) -> f64) -> Option<f64> {
        let (mut seen, mut right, mut sum) = (0.0, 0.0, 0.0);
        for group in &self.groups {
            let mut new = 0.0;
            for (picture, has) in group {
                let count = times(*picture);
                seen += count;
                new += if *has { count } else { 0.0 };
            }
            right += new;
            if new > 0.0 {
                sum += new * right / seen;
            }
        }
        (right > 0.0).then(|| sum / right)
    }
}

/// The mean of average precisions; labels that no picture has do not count.
#[must_use]
pub fn mean_average_precision(rankings: &[&Ranking], times: impl Fn(usize) -> f64) -> Option<f64> {
    let found: Vec<f64> = rankings
        .iter()
        .filter_map(|ranking| ranking.average_precision(&times))
        .collect();
    (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64)
}

/// The middle 95 % of a measure over `draws` draws of as many pictures, with replacement. `measure` is
/// told how often each was drawn. `None` of no pictures.
#[must_use]
pub fn bootstrap(
    pictures: usize,
    draws: usize,
    seed: u64,
    measure: impl Fn(&[f64]) -> Option<f64>,
) -> Option<Interval> {
    if pictures == 0 {
        return None;
    }
    let mut random = stream(seed, "probe.intervals", 0);
    let mut found: Vec<f64> = (0..draws)
        .filter_map(|_| {
            let mut times = vec![0.0; pictures];
            for _ in 0..pictures {
                times[below(&mut random, pictures as u64) as usize] += 1.0;
            }
            measure(&times)
        })
        .collect();
    (!found.is_empty()).then(|| middle_95(&mut found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn precision(scores: &[f64], has: &[bool]) -> Option<f64> {
        Ranking::of(scores, has).average_precision(|_| 1.0)
    }

    #[track_caller]
    fn close(found: Option<f64>, wanted: f64) {
        assert!((found.unwrap() - wanted).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn average_precision_by_hand() {
        // Right at ranks 1 and 3: (1/1 + 2/3) / 2.
        close(
            precision(&[0.9, 0.8, 0.7], &[true, false, true]),
            (1.0 + 2.0 / 3.0) / 2.0,
        );
        // scikit-learn's example: 0.1 0.4 0.35 0.8, the last two right.
        close(
            precision(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]),
            (1.0 + 2.0 / 3.0) / 2.0,
        );
        // All equal: one step, precision is the share.
        close(precision(&[0.5; 4], &[true, false, false, true]), 0.5);
        assert_eq!(precision(&[0.5; 2], &[false; 2]), None);
    }

    #[test]
    fn drawing_a_picture_twice_is_having_it_twice() {
        let ranking = Ranking::of(&[0.9, 0.8, 0.7], &[true, false, true]);
        let twice = precision(&[0.9, 0.8, 0.8, 0.7], &[true, false, false, true]);
        let times = [1.0, 2.0, 1.0];
        close(
            ranking.average_precision(|picture| times[picture]),
            twice.unwrap(),
        );
    }

    #[test]
    fn equal_scores_fall_to_the_first() {
        assert_eq!(best(&[1.0, 3.0, 3.0]), 1);
        assert!(among_best(&[3.0, 3.0, 1.0], 0, 1));
        assert!(!among_best(&[3.0, 3.0, 1.0], 1, 1) && among_best(&[3.0, 3.0, 1.0], 1, 2));
        assert!(!among_best(&[], 0, 5));
    }

    #[test]
    fn an_interval_is_around_the_measure() {
        let hits = [1.0, 1.0, 1.0, 0.0];
        let mean = |times: &[f64]| {
            let sum: f64 = times.iter().zip(hits).map(|(n, hit)| n * hit).sum();
            Some(sum / 4.0)
        };
        let found = bootstrap(4, 200, 1, mean).unwrap();
        assert!(found.low <= 0.5 && found.high == 1.0, "{found:?}");
        assert_eq!(Some(found), bootstrap(4, 200, 1, mean));
        assert_eq!(bootstrap(0, 200, 1, mean), None);
    }
}
