//! Questions that only count together: pairs (MMVP, MME) and circles (MMBench).

use std::collections::BTreeMap;

use super::group::{accuracies, accuracy, all_right, grouped, percent};
use super::{Aggregate, Judged, Metric};
use crate::scorer::{Protocol, ScorerError};

/// What two questions must have in common to belong together.
type Key<'a> = (Option<&'a str>, &'a str);

/// The questions by category and unit, of which every one must have the latter.
pub(super) fn units<'q, 'a>(
    aggregate: Aggregate,
    judged: &[&'q Judged<'a>],
    category: impl Fn(&Judged<'a>) -> Option<&'a str>,
) -> Result<BTreeMap<Key<'a>, Vec<&'q Judged<'a>>>, ScorerError> {
    if let Some(lost) = judged.iter().find(|question| question.unit.is_none()) {
        return Err(ScorerError::Missing {
            aggregate,
            id: lost.id.to_owned(),
            field: "unit",
        });
    }
    Ok(grouped(judged, |question| {
        Some((category(question), question.unit?))
    }))
}

/// As [`units`], each of two questions.
pub(super) fn pairs<'q, 'a>(
    aggregate: Aggregate,
    judged: &[&'q Judged<'a>],
    category: impl Fn(&Judged<'a>) -> Option<&'a str>,
) -> Result<BTreeMap<Key<'a>, Vec<&'q Judged<'a>>>, ScorerError> {
    let pairs = units(aggregate, judged, category)?;
    match pairs.iter().find(|(_, questions)| questions.len() != 2) {
        Some(((category, unit), questions)) => Err(ScorerError::Pair {
            aggregate,
            unit: match category {
                Some(category) => format!("{category}/{unit}"),
                None => (*unit).to_owned(),
            },
            found: questions.len(),
        }),
        None => Ok(pairs),
    }
}

/// How many questions are in pairs that are all right, as the reference counts: it adds up right
/// answers line by line and takes one back where a line is odd and so is the count. That is the
/// number of pairs, times two, if the pairs are complete and begin on even lines, and something else
/// if not. `counted` says which of all lines belong to this count.
pub(super) fn paired_by_order<'q, 'a: 'q>(
    judged: impl Iterator<Item = &'q Judged<'a>>,
    counted: impl Fn(&Judged<'a>) -> bool,
) -> usize {
    let mut count: usize = 0;
    for (line, question) in judged.enumerate() {
        if !counted(question) {
            continue;
        }
        let second = line % 2 == 1;
        let first_was_right = count % 2 == 1;
        if question.judgement.score < 1.0 {
            count -= usize::from(second && first_was_right);
        } else if !second || first_was_right {
            count += 1;
        }
    }
    count
}

/// MMVP: share of pairs whose two questions are both right.
pub(super) fn mmvp(protocol: Protocol, judged: &[Judged<'_>]) -> Result<Vec<Metric>, ScorerError> {
    let all: Vec<&Judged<'_>> = judged.iter().collect();
    let share = match protocol {
        Protocol::Standard => {
            let pairs = pairs(Aggregate::MmvpPairs, &all, |_| None)?;
            let right: f64 = pairs.values().map(|pair| all_right(pair)).sum();
            right / pairs.len() as f64
        }
        Protocol::Reference => paired_by_order(judged.iter(), |_| true) as f64 / all.len() as f64,
    };
    Ok(vec![
        percent("pair-accuracy", share, all.len()),
        accuracy("accuracy", &all),
    ])
}

/// MMBench: share of questions that are answered rightly in every rotation of their options. A circle
/// lies within one category.
pub(super) fn circular(judged: &[Judged<'_>]) -> Result<Vec<Metric>, ScorerError> {
    let all: Vec<&Judged<'_>> = judged.iter().collect();
    let circles = units(Aggregate::Circular, &all, |question| question.category)?;
    let mut categories: BTreeMap<&str, (f64, usize, usize)> = BTreeMap::new();
    let mut right = 0.0;
    for ((category, _), circle) in &circles {
        let closed = all_right(circle);
        right += closed;
        if let Some(category) = category {
            let (right, circles, questions) = categories.entry(*category).or_default();
            *right += closed;
            *circles += 1;
            *questions += circle.len();
        }
    }
    let mut metrics = vec![
        percent("circular-accuracy", right / circles.len() as f64, all.len()),
        accuracy("accuracy", &all),
    ];
    metrics.extend(
        categories
            .into_iter()
            .map(|(name, (right, circles, questions))| {
                percent(
                    format!("circular/{name}"),
                    right / circles as f64,
                    questions,
                )
            }),
    );
    let by_category = grouped(&all, |question| question.category);
    metrics.extend(accuracies("category", by_category));
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorer::Judgement;

    fn questions<'a>(units: &[&'a str], judgements: &'a [Judgement]) -> Vec<Judged<'a>> {
        let both = units.iter().zip(judgements);
        both.map(|(unit, judgement)| Judged {
            id: "q",
            unit: (!unit.is_empty()).then_some(*unit),
            picture: None,
            category: None,
            source: None,
            judgement,
        })
        .collect()
    }

    fn judgements(scores: &[u8]) -> Vec<Judgement> {
        let scores = scores.iter();
        scores
            .map(|score| Judgement::new(f64::from(*score), "", ""))
            .collect()
    }

    #[test]
    fn pairs_by_unit_and_by_order() {
        let judgements = judgements(&[1, 1, 1, 0, 0, 1]);
        let adjacent = questions(&["a", "a", "b", "b", "c", "c"], &judgements);
        let headline = |protocol, judged: &[Judged<'_>]| mmvp(protocol, judged).unwrap()[0].value;
        assert!((headline(Protocol::Standard, &adjacent) - 100.0 / 3.0).abs() < 1e-9);
        assert!((headline(Protocol::Reference, &adjacent) - 100.0 / 3.0).abs() < 1e-9);
        let mixed = questions(&["a", "b", "b", "a", "c", "c"], &judgements);
        assert!((headline(Protocol::Standard, &mixed) - 100.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn incomplete_pairs() {
        let judgements = judgements(&[1, 1, 1]);
        let one = questions(&["a", "b", "a"], &judgements);
        let error = mmvp(Protocol::Standard, &one).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("of `b` there are 1 questions, wanted 2"),
            "{said}"
        );
        let three = questions(&["a", "a", "a"], &judgements);
        assert!(mmvp(Protocol::Standard, &three).is_err());
        let none = questions(&["a", "a", ""], &judgements);
        let said = mmvp(Protocol::Standard, &none).unwrap_err().to_string();
        assert!(said.contains("has no unit"), "{said}");
    }

    #[test]
    fn circles_may_have_any_length() {
        let judgements = judgements(&[1, 1, 1, 0, 1]);
        let judged = questions(&["a", "a", "b", "b", "c"], &judgements);
        let metrics = circular(&judged).unwrap();
        assert!((metrics[0].value - 200.0 / 3.0).abs() < 1e-9);
        assert_eq!(metrics[1].value, 80.0);
    }
}
