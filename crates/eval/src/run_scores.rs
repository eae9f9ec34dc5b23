//! Runs as the analysis takes them: the records of a finished run folder, as benchmarks.
//!
//! Of a file of questions each kind counts as a benchmark; a benchmark counts as itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::analysis::catalog::{PUBLISHED_GROUPS, known_benchmark};
use crate::analysis::{Asked, QuestionScore, RunScores};
use crate::description::{RunDescription, SetDescription};
use crate::error::EvalError;
use crate::figure::Figure;
use crate::record::Record;
use crate::run_folder;
use crate::vision::Vision;

/// The scores of a finished run; nothing in the folder is changed. Questions that could not be asked
/// count as wrong, as they do in the run's own summary; answers that nobody judged are left out.
///
/// # Errors
/// If the folder is none of a run, if the run is not finished, or if a record is damaged.
pub fn run_scores(folder: &Path) -> Result<Vec<RunScores>, EvalError> {
    let (description, records) = finished(folder)?;
    let current = description.current(&records);
    let mut scores = Vec::new();
    for (set, records) in description.sets.iter().zip(current) {
        match &set.benchmark {
            Some(_) => scores.push(of_benchmark(&description.model, set, &records)),
            None => scores.extend(of_file(&description.model, &records)),
        }
    }
    // A benchmark of which nothing could be scored says nothing.
    scores.retain(|scores: &RunScores| !scores.asked.is_empty());
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
            family: None,
            benchmark: task.to_owned(),
            group: Some(group.to_owned()),
            chance: Some(100.0 * Figure::of_mean(&of_kind).chance),
            asked: asked(&of_kind),
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
        None => set.group.as_deref().map(group_title),
    };
    RunScores {
        model: model.to_owned(),
        family: None,
        benchmark: set.title.clone(),
        group,
        chance: figure.map(|figure| 100.0 * figure.chance),
        asked,
    }
}

/// A group of definitions as reports call it.
fn group_title(name: &str) -> String {
    let [general, knowledge, chart_ocr, vision_centric] = PUBLISHED_GROUPS;
    match name {
        "general" => general,
        "knowledge" => knowledge,
        "chart_ocr" => chart_ocr,
        "vision_centric" => vision_centric,
        _ => "Other",
    }
    .to_owned()
}

fn asked(records: &[&Record]) -> BTreeMap<Vision, Asked> {
    let mut asked: BTreeMap<Vision, Asked> = BTreeMap::new();
    for record in records {
        if let Some(score) = question_score(record) {
            asked
                .entry(record.vision)
                .or_default()
                .questions
                .push(score);
        }
    }
    asked
}
