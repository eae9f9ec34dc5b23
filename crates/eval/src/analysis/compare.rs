//! Two runs on the same questions: which is better, how sure that is, and which questions flipped.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::correlation::pearson;
use super::distribution::{t_critical, t_two_sided};
use super::error::AnalysisError;
use super::runs::QuestionScore;
use super::statistics::{
    McNemar, PairedT, Plan, clustered_standard_error, deviation, mcnemar, mean, paired_t,
};
use crate::Interval;

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// What the run is called.
    pub name: String,
    /// The scores of its questions.
    pub questions: Vec<QuestionScore>,
    /// What it was made with: hashes and versions by name (prompt, template, scorer, preprocessing,
    /// data, weights, seed).
    pub stamps: BTreeMap<String, String>,
}

/// Two runs beside each other. Differences are second − first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The first run.
    pub first: String,
    /// The second run.
    pub second: String,
    /// Questions that both were asked.
    pub shared: usize,
    /// Questions that only the first was asked; they count nowhere.
    pub only_first: Vec<String>,
    /// Questions that only the second was asked; they count nowhere.
    pub only_second: Vec<String>,
    /// Mean of the first over the shared questions, from 0 to 1.
    pub first_mean: f64,
    /// Mean of the second over them.
    pub second_mean: f64,
    /// Question by question.
    pub paired: PairedT,
    /// The same, taking into account that questions about one picture depend on each other; `None` if
    /// no two share one.
    pub clustered: Option<Clustered>,
    /// McNemar's test; `None` if scores are not just right and wrong.
    pub mcnemar: Option<McNemar>,
    /// Questions that the second does better.
    pub gained: Vec<Flip>,
    /// Questions that the second does worse.
    pub lost: Vec<Flip>,
    /// What the runs were made with, where it differs.
    pub differing: Vec<Differing>,
    /// Questions that would show a difference of this size with 80 % certainty; `None` if there is
    /// none.
    pub questions_needed: Option<u64>,
}

/// A difference with clusters taken into account.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Clustered {
    /// How many clusters there are.
    pub clusters: usize,
    /// Standard error of the mean difference.
    pub standard_error: f64,
    /// 95 % interval of it, with clusters − 1 degrees of freedom.
    pub interval: Interval,
    /// Probability of a difference at least this large if there is none.
    pub p: f64,
}

/// A question whose score differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flip {
    /// Which question.
    pub id: String,
    /// Its score in the first run.
    pub first: f64,
    /// Its score in the second.
    pub second: f64,
}

/// Something the runs were not made with alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Differing {
    /// What it is.
    pub name: String,
    /// In the first run; `None` if it does not say.
    pub first: Option<String>,
    /// In the second run.
    pub second: Option<String>,
}

impl Comparison {
    /// The p value that counts: with clusters where there are some.
    #[must_use]
    pub fn p(&self) -> f64 {
        self.clustered
            .map_or(self.paired.p, |clustered| clustered.p)
    }

    /// The interval that counts.
    #[must_use]
    pub fn interval(&self) -> Interval {
        self.clustered
            .map_or(self.paired.interval, |clustered| clustered.interval)
    }

    /// What the comparison says, in one sentence.
    #[must_use]
    pub fn verdict(&self) -> String {
        let Interval { low, high } = self.interval();
        let points = |share: f64| format!("{:+.1}", 100.0 * share);
        let (second, first) = (&self.second, &self.first);
        let numbers = format!(
            "{} points, 95 % interval {} to {}, {}",
            points(self.paired.mean),
            points(low),
            points(high),
            p_value(self.p())
        );
        if self.p() < 0.05 {
            let word = if self.paired.mean > 0.0 {
                "better"
            } else {
                "worse"
            };
            return format!("{second} is {word} than {first}: {numbers}.");
        }
        let needed = match self.questions_needed {
            Some(n) if n > self.shared as u64 => {
                format!(" About {n} questions would be needed to be sure of such a difference.")
            }
            _ => String::new(),
        };
        format!("{second} and {first} cannot be told apart: {numbers}.{needed}")
    }
}

/// `p = …` with as many digits as mean something.
#[must_use]
pub fn p_value(p: f64) -> String {
    if p < 0.001 {
        "p < 0.001".into()
    } else {
        format!("p = {p:.3}")
    }
}

/// Compares two runs question by question.
///
/// # Errors
/// If a question stands twice in a run, or if the runs have fewer than two questions in common.
pub fn compare(first: &Side, second: &Side) -> Result<Comparison, AnalysisError> {
    let one = by_id(first)?;
    let other = by_id(second)?;
    let pairs: Vec<(&QuestionScore, &QuestionScore)> = one
        .iter()
        .filter_map(|(id, question)| Some((*question, *other.get(id)?)))
        .collect();
    let before: Vec<f64> = pairs.iter().map(|(a, _)| a.score).collect();
    let after: Vec<f64> = pairs.iter().map(|(_, b)| b.score).collect();
    let paired = paired_t(&after, &before).ok_or_else(|| AnalysisError::NothingInCommon {
        first: first.name.clone(),
        second: second.name.clone(),
    })?;
    let flips = |wanted: fn(f64) -> bool| -> Vec<Flip> {
        let flipped = pairs.iter().filter(|(a, b)| wanted(b.score - a.score));
        let flips = flipped.map(|(a, b)| Flip {
            id: a.id.clone(),
            first: a.score,
            second: b.score,
        });
        flips.collect()
    };
    Ok(Comparison {
        first: first.name.clone(),
        second: second.name.clone(),
        shared: pairs.len(),
        only_first: only(&one, &other),
        only_second: only(&other, &one),
        first_mean: mean(&before),
        second_mean: mean(&after),
        paired,
        clustered: clustered(&pairs, paired.mean),
        mcnemar: mcnemar(&before, &after),
        gained: flips(|change| change > 0.0),
        lost: flips(|change| change < 0.0),
        differing: differing(&first.stamps, &second.stamps),
        questions_needed: needed(&before, &after, paired.mean),
    })
}

fn by_id(side: &Side) -> Result<BTreeMap<&str, &QuestionScore>, AnalysisError> {
    let mut questions = BTreeMap::new();
    for question in &side.questions {
        if questions.insert(question.id.as_str(), question).is_some() {
            return Err(AnalysisError::DuplicateQuestion {
                run: side.name.clone(),
                question: question.id.clone(),
            });
        }
    }
    Ok(questions)
}

fn only(
    these: &BTreeMap<&str, &QuestionScore>,
    those: &BTreeMap<&str, &QuestionScore>,
) -> Vec<String> {
    let ids = these.keys().filter(|id| !those.contains_key(*id));
    ids.map(|id| (*id).to_owned()).collect()
}

fn clustered(pairs: &[(&QuestionScore, &QuestionScore)], mean: f64) -> Option<Clustered> {
    let names: Vec<&str> = pairs
        .iter()
        .map(|(question, _)| question.cluster.as_deref().unwrap_or(&question.id))
        .collect();
    let clusters = names.iter().collect::<BTreeSet<_>>().len();
    if clusters == pairs.len() || clusters < 2 {
        return None;
    }
    let differences: Vec<f64> = pairs.iter().map(|(a, b)| b.score - a.score).collect();
    let error = clustered_standard_error(&differences, &names)?;
    let freedom = (clusters - 1) as f64;
    let half = t_critical(0.05, freedom) * error;
    let t = if mean == 0.0 { 0.0 } else { mean / error };
    Some(Clustered {
        clusters,
        standard_error: error,
        interval: Interval {
            low: mean - half,
            high: mean + half,
        },
        p: t_two_sided(t, freedom),
    })
}

/// Everything that is not the same on both sides.
fn differing(
    first: &BTreeMap<String, String>,
    second: &BTreeMap<String, String>,
) -> Vec<Differing> {
    let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    names
        .into_iter()
        .filter(|name| first.get(*name) != second.get(*name))
        .map(|name| Differing {
            name: name.clone(),
            first: first.get(name).cloned(),
            second: second.get(name).cloned(),
        })
        .collect()
}

fn needed(before: &[f64], after: &[f64], effect: f64) -> Option<u64> {
    let plan = Plan {
        effect,
        first_deviation: deviation(before)?,
        second_deviation: deviation(after)?,
        correlation: pearson(before, after).unwrap_or(0.0),
        alpha: 0.05,
        power: 0.8,
    };
    plan.questions()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &str, scores: &[(&str, &str, f64)], stamps: &[(&str, &str)]) -> Side {
        Side {
            name: name.into(),
            questions: scores
                .iter()
                .map(|(id, cluster, score)| QuestionScore {
                    id: (*id).into(),
                    cluster: (!cluster.is_empty()).then(|| (*cluster).into()),
                    score: *score,
                })
                .collect(),
            stamps: stamps
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
        }
    }

    #[test]
    fn flips_and_differences_are_listed() {
        let first = side(
            "old",
            &[
                ("1", "p", 0.0),
                ("2", "p", 1.0),
                ("3", "q", 1.0),
                ("9", "", 1.0),
            ],
            &[("prompt", "a"), ("seed", "1")],
        );
        let second = side(
            "new",
            &[
                ("3", "q", 0.0),
                ("1", "p", 1.0),
                ("2", "p", 1.0),
                ("7", "", 0.0),
            ],
            &[("prompt", "b"), ("seed", "1"), ("weights", "w")],
        );
        let found = compare(&first, &second).unwrap();
        assert_eq!((found.shared, found.paired.mean), (3, 0.0));
        assert_eq!(
            (&found.only_first[..], &found.only_second[..]),
            (&["9".to_owned()][..], &["7".to_owned()][..])
        );
        assert_eq!(
            (found.gained[0].id.as_str(), found.lost[0].id.as_str()),
            ("1", "3")
        );
        let names: Vec<&str> = found.differing.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["prompt", "weights"]);
        assert_eq!(found.clustered.unwrap().clusters, 2);
        assert_eq!(found.mcnemar.unwrap().p, 1.0);
        assert!(
            found.verdict().contains("cannot be told apart"),
            "{}",
            found.verdict()
        );
    }

    #[test]
    fn a_clear_difference_is_called_one() {
        let ids: Vec<String> = (0..40).map(|i| i.to_string()).collect();
        let scores = |right: usize| -> Vec<(&str, &str, f64)> {
            let ids = ids.iter().enumerate();
            ids.map(|(i, id)| (id.as_str(), "", f64::from(u8::from(i < right))))
                .collect()
        };
        let found = compare(&side("a", &scores(10), &[]), &side("b", &scores(30), &[])).unwrap();
        assert!(found.p() < 0.001);
        assert_eq!(found.gained.len(), 20);
        assert!(
            found
                .verdict()
                .starts_with("b is better than a: +50.0 points")
        );
    }

    #[test]
    fn nothing_in_common_is_refused() {
        let (a, b) = (
            side("a", &[("1", "", 1.0)], &[]),
            side("b", &[("2", "", 1.0)], &[]),
        );
        assert!(matches!(
            compare(&a, &b),
            Err(AnalysisError::NothingInCommon { .. })
        ));
        let twice = side("c", &[("1", "", 1.0), ("1", "", 1.0)], &[]);
        assert!(matches!(
            compare(&twice, &a),
            Err(AnalysisError::DuplicateQuestion { .. })
        ));
    }
}
