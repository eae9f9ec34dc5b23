//! Answers to a CV-Bench, and what they score.
//!
//! Accuracy_2D = (COCO + ADE20K) / 2, Accuracy_3D = Omni3D, CV-Bench = (2D + 3D) / 2 (Cambrian-1,
//! section 3.3); the plain mean over all questions is there too, under the name `micro`. Every figure
//! has a 95 % interval and the score that guessing has: a mean of means has the normal interval of
//! independent parts, a plain share Wilson's.

mod answers;

use std::collections::{BTreeMap, HashSet};

use opabinia_eval::scorer::{Aggregate, Judged, Judgement, Metric, Protocol};
use opabinia_eval::{Z, wilson};
use serde::Serialize;

use crate::error::CvBenchError;
use crate::question::Question;

pub use answers::{Answer, ScoreOptions, read_answers, read_run};

/// The figures of one way of showing the pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// What was shown.
    pub vision: String,
    /// Answers.
    pub answers: usize,
    /// Questions without one.
    pub unanswered: usize,
    /// Questions that could not be asked; they count as wrong.
    pub failed: usize,
    /// Answers in which nothing usable was found.
    pub unparsed: usize,
    /// Scores that were there already and were not judged here.
    pub as_given: usize,
    /// Whose rules judged, each once; `not stated` for scores of which nobody says.
    pub protocols: Vec<String>,
    /// `overall`, `2D`, `3D`, `micro`, `source/…` and `task/…`.
    pub figures: Vec<Figure>,
}

/// A figure in percent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end of its 95 % interval.
    pub high: f64,
    /// What guessing scores, if the options are known.
    pub chance: Option<f64>,
    /// How many questions it is made of.
    pub questions: usize,
}

/// The figures, for each way of showing the pictures in the order that they come in.
///
/// # Errors
/// If there are no answers, if some questions have none, or if a task and a source are not known.
pub fn score(
    answers: &[Answer],
    questions: Option<&[Question]>,
    options: ScoreOptions,
) -> Result<Vec<Scores>, CvBenchError> {
    let mut visions: Vec<&str> = Vec::new();
    for answer in answers {
        if !visions.contains(&answer.vision.as_str()) {
            visions.push(&answer.vision);
        }
    }
    if visions.is_empty() {
        visions.push("on");
    }
    let of = |vision: &str| {
        let answers = answers.iter().filter(|answer| answer.vision == vision);
        scores(vision, &answers.collect::<Vec<_>>(), questions, options)
    };
    visions.into_iter().map(of).collect()
}

fn scores(
    vision: &str,
    answers: &[&Answer],
    questions: Option<&[Question]>,
    options: ScoreOptions,
) -> Result<Scores, CvBenchError> {
    let there: HashSet<&str> = answers.iter().map(|answer| answer.id.as_str()).collect();
    let questions = questions.unwrap_or_default();
    let missing = questions.iter().filter(|question| {
        let id = question.idx.to_string();
        !there.contains(id.as_str())
    });
    let missing: Vec<i64> = missing.map(|question| question.idx).collect();
    if let (Some(&first), false) = (missing.first(), options.partial) {
        return Err(CvBenchError::Unanswered {
            missing: missing.len(),
            questions: questions.len(),
            first,
        });
    }
    let metrics = metrics(answers, |answer| answer.judgement.clone())?;
    let guessed = match answers.iter().all(|answer| answer.chance.is_some()) {
        true => self::metrics(answers, |answer| {
            Judgement::new(answer.chance.unwrap_or(0.0), "", "")
        })?,
        false => Vec::new(),
    };
    let figures = metrics.iter().filter(|metric| metric.name != "unparsed");
    let figures = figures.map(|metric| figure(metric, answers, &guessed));
    Ok(Scores {
        vision: vision.to_owned(),
        answers: answers.len(),
        unanswered: missing.len(),
        failed: answers.iter().filter(|answer| answer.failed).count(),
        unparsed: answers
            .iter()
            .filter(|answer| !answer.judgement.parsed)
            .count(),
        as_given: answers.iter().filter(|answer| answer.as_given).count(),
        protocols: protocols(answers),
        figures: figures.collect(),
    })
}

/// Whose rules judged, each once.
fn protocols(answers: &[&Answer]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for answer in answers {
        let name = answer.protocol.map_or("not stated", Protocol::name);
        if names.iter().all(|known| known != name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn metrics(
    answers: &[&Answer],
    judgement: impl Fn(&Answer) -> Judgement,
) -> Result<Vec<Metric>, CvBenchError> {
    let judgements: Vec<Judgement> = answers.iter().map(|answer| judgement(answer)).collect();
    let judged = answers.iter().zip(&judgements);
    let judged: Vec<Judged<'_>> = judged
        .map(|(answer, judgement)| Judged {
            id: &answer.id,
            unit: None,
            picture: None,
            category: answer.task.as_deref(),
            source: answer.source.as_deref(),
            judgement,
        })
        .collect();
    Ok(Aggregate::CvBench.metrics(&judged)?)
}

fn figure(metric: &Metric, answers: &[&Answer], guessed: &[Metric]) -> Figure {
    let chance = guessed.iter().find(|other| other.name == metric.name);
    let (low, high) = match deviation(&metric.name, answers) {
        Some(deviation) => {
            let half = 100.0 * Z * deviation;
            (
                (metric.value - half).max(0.0),
                (metric.value + half).min(100.0),
            )
        }
        None => {
            let interval = wilson(metric.value / 100.0, metric.questions);
            (100.0 * interval.low, 100.0 * interval.high)
        }
    };
    Figure {
        name: metric.name.clone(),
        value: metric.value,
        low,
        high,
        chance: chance.map(|chance| chance.value),
        questions: metric.questions,
    }
}

/// Standard error of a mean of means, as a share; nothing for a plain mean.
fn deviation(name: &str, answers: &[&Answer]) -> Option<f64> {
    let parts: &[&str] = match name {
        "overall" => &["2D", "3D"],
        "2D" => &["2D"],
        "3D" => &["3D"],
        _ => return None,
    };
    let mut variance = 0.0;
    for part in parts {
        let mut sources: BTreeMap<Option<&str>, Vec<f64>> = BTreeMap::new();
        for answer in answers.iter().filter(|answer| dimension(answer) == *part) {
            let scores = sources.entry(answer.source.as_deref()).or_default();
            scores.push(answer.judgement.score);
        }
        let weight = 1.0 / (parts.len() * sources.len().max(1)) as f64;
        let of_means = sources.values().map(|scores| variance_of_mean(scores));
        variance += weight * weight * of_means.sum::<f64>();
    }
    Some(variance.sqrt())
}

fn dimension(answer: &Answer) -> &'static str {
    let task = answer.task.as_deref();
    match (task, answer.source.as_deref()) {
        (Some("Count" | "Relation" | "2D"), _) => "2D",
        (Some("Depth" | "Distance" | "3D"), _) => "3D",
        (_, Some("COCO" | "ADE20K")) => "2D",
        _ => "3D",
    }
}

/// s² / n with the variance of n − 1 degrees of freedom; of one score the largest there could be.
fn variance_of_mean(scores: &[f64]) -> f64 {
    let count = scores.len() as f64;
    if scores.len() < 2 {
        return 0.25;
    }
    let mean = scores.iter().sum::<f64>() / count;
    let squares = scores.iter().map(|score| (score - mean) * (score - mean));
    squares.sum::<f64>() / (count - 1.0) / count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two of four in one source: variance of the mean is (4 · ¼ / 3) / 4 = 1/12.
    #[test]
    fn means_of_means_have_intervals() {
        assert!((variance_of_mean(&[1.0, 1.0, 0.0, 0.0]) - 1.0 / 12.0).abs() < 1e-12);
        assert_eq!(variance_of_mean(&[1.0]), 0.25);
    }
}
