//! Runs as the analysis takes them: the records of a finished run folder, a benchmark for each kind of
//! question.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::analysis::{Asked, QuestionScore, RunScores};
use crate::error::EvalError;
use crate::record::{Outcome, Record};
use crate::run_folder;
use crate::vision::Vision;

/// What is needed of `run.json`.
#[derive(Deserialize)]
struct Described {
    model: String,
    settings: BTreeMap<String, IgnoredAny>,
}

/// What is needed of `summary.json`.
#[derive(Deserialize)]
struct Summed {
    unfinished: usize,
}

/// The scores of a finished run; nothing in the folder is changed. Questions that could not be asked
/// count as wrong, as they do in the run's own summary.
///
/// # Errors
/// If the folder is none of a run, if the run is not finished, or if a record is damaged.
pub fn run_scores(folder: &Path) -> Result<Vec<RunScores>, EvalError> {
    let described: Described = read(folder, "run.json")?;
    let summed: Summed = read(folder, "summary.json")?;
    if summed.unfinished > 0 {
        return Err(EvalError::Unfinished {
            path: folder.to_owned(),
            left: summed.unfinished,
        });
    }
    let records = run_folder::read_only(folder)?;
    // Of a question that was asked again the last record counts.
    let mut last: BTreeMap<(&str, Vision), &Record> = BTreeMap::new();
    let current = |record: &&Record| described.settings.contains_key(&record.settings);
    for record in records.iter().filter(current) {
        last.insert((&record.id, record.vision), record);
    }
    let kinds: BTreeSet<(&str, &str)> = last
        .values()
        .map(|record| (record.group.as_str(), record.task.as_str()))
        .collect();
    let scores = kinds.into_iter().map(|(group, task)| {
        let of_kind = last
            .values()
            .filter(|record| record.group == group && record.task == task);
        scores_of(&described.model, group, task, of_kind.copied())
    });
    Ok(scores.collect())
}

fn scores_of<'r>(
    model: &str,
    group: &str,
    task: &str,
    records: impl Iterator<Item = &'r Record>,
) -> RunScores {
    let mut asked: BTreeMap<Vision, Asked> = BTreeMap::new();
    let mut chances: BTreeMap<&str, f64> = BTreeMap::new();
    for record in records {
        chances.insert(&record.id, record.chance);
        let cluster = match &record.outcome {
            Outcome::Answered(answered) => answered.picture.clone(),
            Outcome::Failed { .. } => None,
        };
        let questions = &mut asked.entry(record.vision).or_default().questions;
        questions.push(QuestionScore {
            id: record.id.clone(),
            cluster,
            score: record.score(),
        });
    }
    let chance = 100.0 * chances.values().sum::<f64>() / chances.len().max(1) as f64;
    RunScores {
        model: model.to_owned(),
        family: None,
        benchmark: task.to_owned(),
        group: Some(group.to_owned()),
        chance: Some(chance),
        asked,
    }
}

fn read<T: DeserializeOwned>(folder: &Path, name: &'static str) -> Result<T, EvalError> {
    let path = folder.join(name);
    let bytes = fs::read(&path).map_err(EvalError::read("the run's file", &path))?;
    serde_json::from_slice(&bytes).map_err(|source| EvalError::RunFile { path, source })
}
