//! Means over questions and over groups of them.

use std::collections::BTreeMap;

use super::{Judged, Metric, Unit};

/// Mean score of at least one question, from 0 to 1.
pub(super) fn mean(judged: &[&Judged<'_>]) -> f64 {
    total(judged) / judged.len() as f64
}

/// Sum of the scores.
pub(super) fn total(judged: &[&Judged<'_>]) -> f64 {
    judged.iter().map(|judged| judged.judgement.score).sum()
}

/// 1 if all are right, else 0; of chances, the chance that all are.
pub(super) fn all_right(judged: &[&Judged<'_>]) -> f64 {
    judged.iter().map(|judged| judged.judgement.score).product()
}

/// Mean score in percent.
pub(super) fn accuracy(name: impl Into<String>, judged: &[&Judged<'_>]) -> Metric {
    percent(name, mean(judged), judged.len())
}

/// A share of 1 in percent.
pub(super) fn percent(name: impl Into<String>, share: f64, questions: usize) -> Metric {
    Metric {
        name: name.into(),
        value: 100.0 * share,
        unit: Unit::Percent,
        questions,
    }
}

/// Points of the benchmark's own.
pub(super) fn points(name: impl Into<String>, value: f64, questions: usize) -> Metric {
    Metric {
        name: name.into(),
        value,
        unit: Unit::Points,
        questions,
    }
}

/// The questions by their key, keys sorted, those without one left out.
pub(super) fn grouped<'q, 'a, K: Ord>(
    judged: &[&'q Judged<'a>],
    key: impl Fn(&'q Judged<'a>) -> Option<K>,
) -> BTreeMap<K, Vec<&'q Judged<'a>>> {
    let mut groups: BTreeMap<K, Vec<_>> = BTreeMap::new();
    for question in judged {
        if let Some(key) = key(question) {
            groups.entry(key).or_default().push(*question);
        }
    }
    groups
}

/// Mean score of each category, by the name that `name` gives it.
pub(super) fn per_category(judged: &[&Judged<'_>], name: fn(&str) -> &str) -> Vec<Metric> {
    let groups = grouped(judged, |question| question.category.map(name));
    accuracies("category", groups)
}

/// Mean score of each group.
pub(super) fn accuracies(kind: &str, groups: BTreeMap<&str, Vec<&Judged<'_>>>) -> Vec<Metric> {
    let groups = groups.into_iter();
    groups
        .map(|(name, judged)| accuracy(format!("{kind}/{name}"), &judged))
        .collect()
}
