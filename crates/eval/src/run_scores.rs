//! Runs as the analysis takes them: the records of a finished run folder, as benchmarks.
//!
//! Of a file of questions each kind counts as a benchmark; a benchmark counts as itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::analysis::catalog::{PUBLISHED_GROUPS, known_benchmark};
use crate::analysis::{Asked, QuestionFacts, QuestionScore, RunScores};
use crate::description::{RunDescription, SetDescription};
use crate::digest;
use crate::error::EvalError;
use crate::figure::Figure;
use crate::record::Record;
use crate::run_folder;
use crate::vision::Vision;

/// The scores of a finished run; nothing in the folder is changed. Questions that could not be asked
/// count as wrong, as they do in the run's own summary; answers that nobody judged are named apart.
///
/// # Errors
/// If the folder is none of a run, if the run is not finished, or if a record is damaged.
pub fn run_scores(folder: &Path) -> Result<Vec<RunScores>, EvalError> {
    let (description, records) = finished(folder)?;
    let current = description.current(&records);
    let mut scores = Vec::new();
    for (set, records) in description.sets.iter().zip(current) {
        let before = scores.len();
        match &set.benchmark {
            Some(_) => scores.push(of_benchmark(&description.model, set, &records)),
            None => scores.extend(of_file(&description.model, &records)),
        }
        for scores in scores.iter_mut().skip(before) {
            scores.run = folder.display().to_string();
            scores.protocol = Some(set.rules.protocol);
            scores.stamps = stamps(set);
        }
    }
    Ok(scores)
}

/// What a finished run holds.
///
/// # Errors
/// As [`run_scores`].
pub(crate) fn finished(folder: &Path) -> Result<(RunDescription, Vec<Record>), EvalError> {
    let description = RunDescription::read(folder)?;
    let records = run_folder::read_only(folder)?;
    let found: usize = description.current(&records).iter().map(Vec::len).sum();
    let left = description.wanted().saturating_sub(found);
    if left > 0 {
        return Err(EvalError::Unfinished {
            path: folder.to_owned(),
            left,
        });
    }
    Ok((description, records))
}

/// The score of one question.
pub(crate) fn question_score(record: &Record) -> Option<QuestionScore> {
    Some(QuestionScore {
        id: record.id.clone(),
        cluster: record.cluster().map(str::to_owned),
        score: record.score()?,
    })
}

/// What the scores of a set were made with, beside the model: what must be the same, or be listed, where
/// runs are compared. Of ways of asking that were set differently all values count.
fn stamps(set: &SetDescription) -> BTreeMap<String, String> {
    let kept = |(name, _): &(&String, &String)| {
        // Questions are compared one by one, and a definition says more than what was asked.
        !matches!(name.as_str(), "prompt" | "questions" | "definition")
    };
    let mut stamps: BTreeMap<String, String> = BTreeMap::new();
    let ways = set.ways.values().flat_map(|way| &way.stamps);
    for (name, value) in set.stamps.iter().chain(ways).filter(kept) {
        let known = stamps.entry(name.clone()).or_default();
        if known.is_empty() {
            known.clone_from(value);
        } else if !known.split(" and ").any(|part| part == value) {
            known.push_str(&format!(" and {value}"));
        }
    }
    stamps
}

/// What the questions are.
fn facts(records: &[&Record]) -> BTreeMap<String, QuestionFacts> {
    let facts = records.iter().map(|record| {
        let facts = QuestionFacts {
            prompt: digest::of(&record.prompt),
            picture: record.own_picture.clone(),
            answer: record.expected.clone(),
        };
        (record.id.clone(), facts)
    });
    facts.collect()
}

fn of_file(model: &str, records: &[&Record]) -> Vec<RunScores> {
    let kinds: BTreeSet<(&str, &str)> = records
        .iter()
        .map(|record| (record.group.as_str(), record.task.as_str()))
        .collect();
    let scores = kinds.into_iter().map(|(group, task)| {
        let of_kind: Vec<&Record> = records
            .iter()
            .copied()
            .filter(|record| record.group == group && record.task == task)
            .collect();
        RunScores {
            model: model.to_owned(),
            benchmark: task.to_owned(),
            group: Some(group_title(group).unwrap_or(group).to_owned()),
            chance: Some(100.0 * Figure::of_mean(&of_kind).chance),
            facts: facts(&of_kind),
            asked: asked(&of_kind),
            ..RunScores::default()
        }
    });
    scores.collect()
}

fn of_benchmark(model: &str, set: &SetDescription, records: &[&Record]) -> RunScores {
    let mut asked = asked(records);
    let figure = Figure::of_benchmark(&set.rules, records).ok();
    for (vision, score) in figure.iter().flat_map(|figure| &figure.scores) {
        if let Some(asked) = asked.get_mut(vision) {
            asked.headline = Some(100.0 * score.mean);
        }
    }
    // The paper's benchmarks have the paper's groups.
    let group = match known_benchmark(&set.title) {
        Some(_) => None,
        None => {
            let group = set.group.as_deref();
            group.map(|group| group_title(group).unwrap_or("Other").to_owned())
        }
    };
    RunScores {
        model: model.to_owned(),
        benchmark: set.title.clone(),
        group,
        chance: figure.map(|figure| 100.0 * figure.chance),
        facts: facts(records),
        asked,
        ..RunScores::default()
    }
}

/// One of the paper's groups as reports call it.
fn group_title(name: &str) -> Option<&'static str> {
    let [general, knowledge, chart_ocr, vision_centric] = PUBLISHED_GROUPS;
    Some(match name {
        "general" => general,
        "knowledge" => knowledge,
        "chart_ocr" => chart_ocr,
        "vision_centric" => vision_centric,
        _ => return None,
    })
}

fn asked(records: &[&Record]) -> BTreeMap<Vision, Asked> {
    let mut asked: BTreeMap<Vision, Asked> = BTreeMap::new();
    for record in records {
        let asked = asked.entry(record.vision).or_default();
        match question_score(record) {
            Some(score) => asked.questions.push(score),
            None => asked.unjudged.push(record.id.clone()),
        }
    }
    asked
}
