//! POPE: accuracy, and how far a model says yes to what is not there.
//!
//! Yes is the positive class. An answer that is neither yes nor no counts as no. lmms-eval leaves such
//! answers out of the recall instead; that is `recall-answered`, with the F1 that follows from it.

use super::group::{accuracy, per_category, percent};
use super::{Aggregate, Judged, Metric};
use crate::scorer::ScorerError;

#[derive(Default)]
struct Counts {
    true_yes: usize,
    false_yes: usize,
    false_no: usize,
    /// Questions whose answer is yes, answered by neither.
    unanswered: usize,
}

pub(super) fn metrics(judged: &[Judged<'_>]) -> Result<Vec<Metric>, ScorerError> {
    let all: Vec<&Judged<'_>> = judged.iter().collect();
    let mut counts = Counts::default();
    for question in judged {
        let is_yes = right_is_yes(question)?;
        match (is_yes, question.judgement.extracted.as_str()) {
            (true, "yes") => counts.true_yes += 1,
            (false, "yes") => counts.false_yes += 1,
            (true, "no") => counts.false_no += 1,
            (true, _) => counts.unanswered += 1,
            (false, _) => {}
        }
    }
    let said_yes = counts.true_yes + counts.false_yes;
    let answered = counts.true_yes + counts.false_no;
    let is_yes = answered + counts.unanswered;
    let precision = share(counts.true_yes, said_yes);
    let recall = share(counts.true_yes, is_yes);
    let recall_answered = share(counts.true_yes, answered);
    let figure = |name: &str, share: f64| percent(name, share, all.len());
    let mut metrics = vec![
        accuracy("accuracy", &all),
        figure("precision", precision),
        figure("recall", recall),
        figure("f1", f1(precision, recall)),
        figure("recall-answered", recall_answered),
        figure("f1-answered", f1(precision, recall_answered)),
        figure("yes-said", share(said_yes, all.len())),
        figure("yes-right", share(is_yes, all.len())),
    ];
    metrics.extend(per_category(&all, |category| category));
    Ok(metrics)
}

/// 0 of nothing.
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Harmonic mean; 0 if both are 0.
fn f1(precision: f64, recall: f64) -> f64 {
    let sum = precision + recall;
    if sum > 0.0 {
        2.0 * precision * recall / sum
    } else {
        0.0
    }
}

fn right_is_yes(question: &Judged<'_>) -> Result<bool, ScorerError> {
    let expected = question.judgement.expected.trim();
    match expected.to_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(ScorerError::NotYesNo {
            aggregate: Aggregate::Pope,
            id: question.id.to_owned(),
            found: expected.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorer::Judgement;

    #[test]
    fn yes_is_positive() {
        let judgements: Vec<Judgement> = [
            ("yes", "yes"),
            ("yes", "yes"),
            ("yes", "no"),
            ("no", "yes"),
            ("maybe", "yes"),
            ("no", "no"),
        ]
        .iter()
        .map(|(said, right)| Judgement::new(f64::from(u8::from(said == right)), *said, *right))
        .collect();
        let question = |judgement| Judged {
            id: "q",
            unit: None,
            picture: None,
            category: None,
            source: None,
            judgement,
        };
        let judged: Vec<_> = judgements.iter().map(question).collect();
        let values: Vec<f64> = metrics(&judged).unwrap().iter().map(|m| m.value).collect();
        let two_thirds = 200.0 / 3.0;
        let wanted = [
            50.0,
            two_thirds,
            50.0,
            400.0 / 7.0,
            two_thirds,
            two_thirds,
            50.0,
            two_thirds,
        ];
        for (value, wanted) in values.iter().zip(wanted) {
            assert!((value - wanted).abs() < 1e-9, "{values:?}");
        }
        let odd = Judgement::new(1.0, "red", "red");
        assert!(metrics(&[question(&odd)]).is_err());
    }
}
