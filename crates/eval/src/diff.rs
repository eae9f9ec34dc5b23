//! Two runs on the same questions: which is better, which questions flipped, what they were made with.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Serialize;

use crate::analysis::compare::{Comparison, Side, compare};
use crate::description::{RunDescription, SetDescription};
use crate::error::EvalError;
use crate::record::Record;
use crate::run_scores::{finished, question_score};
use crate::vision::Vision;

/// The comparison of one benchmark.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SetDiff {
    /// The benchmark, as tables call it.
    pub benchmark: String,
    /// What was shown.
    pub vision: Vision,
    /// Answers that nobody judged, of the first run; they count nowhere.
    pub unscored_first: usize,
    /// The same of the second run.
    pub unscored_second: usize,
    /// The comparison, over questions.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// The comparison of two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunDiff {
    /// Each benchmark that both were asked.
    pub sets: Vec<SetDiff>,
    /// Benchmarks that only the first was asked.
    pub only_first: Vec<String>,
    /// Benchmarks that only the second was asked.
    pub only_second: Vec<String>,
}

/// Compares two runs, benchmark by benchmark, in one way of asking.
///
/// # Errors
/// If a folder is none of a run, if a run is not finished, if the same id stands for different
/// questions, or if the runs have no questions in common.
pub fn diff(first: &Path, second: &Path, vision: Vision) -> Result<RunDiff, EvalError> {
    let (one, one_records) = finished(first)?;
    let (other, other_records) = finished(second)?;
    let refuse = |problem: String| EvalError::Diff {
        first: first.to_owned(),
        second: second.to_owned(),
        problem,
    };
    let (one_name, other_name) = names(&one, &other, first, second);
    let one_current = one.current(&one_records);
    let other_current = other.current(&other_records);
    let mut sets = Vec::new();
    let mut only_first = Vec::new();
    for (set, records) in one.sets.iter().zip(&one_current) {
        let place = other
            .sets
            .iter()
            .position(|candidate| candidate.benchmark == set.benchmark);
        let theirs =
            place.and_then(|place| Some((other.sets.get(place)?, other_current.get(place)?)));
        let Some((other_set, other_records)) = theirs else {
            only_first.push(set.name().to_owned());
            continue;
        };
        let shown = |records: &[&Record]| -> HashMap<String, Record> {
            let records = records.iter().filter(|record| record.vision == vision);
            records
                .map(|record| (record.id.clone(), (*record).clone()))
                .collect()
        };
        let (mine, theirs) = (shown(records), shown(other_records));
        if let Some(problem) = conflict(&mine, &theirs) {
            return Err(refuse(format!("of `{}` {problem}", set.name())));
        }
        if mine.is_empty() || theirs.is_empty() {
            return Err(refuse(format!(
                "`{}` was not asked with `--vision {vision}` in both runs",
                set.name()
            )));
        }
        let comparison = compare(
            &side(&one_name, &one, set, vision, &mine),
            &side(&other_name, &other, other_set, vision, &theirs),
        )?;
        sets.push(SetDiff {
            benchmark: set.title.clone(),
            vision,
            unscored_first: unscored(&mine),
            unscored_second: unscored(&theirs),
            comparison,
        });
    }
    if sets.is_empty() {
        return Err(refuse("they have no benchmark in common".to_owned()));
    }
    let known = |set: &&SetDescription| {
        let mut sets = one.sets.iter();
        !sets.any(|known| known.benchmark == set.benchmark)
    };
    let only_second = other.sets.iter().filter(known);
    Ok(RunDiff {
        sets,
        only_first,
        only_second: only_second.map(|set| set.name().to_owned()).collect(),
    })
}

/// What the runs are called: their models, or where those are called the same, their folders.
fn names(
    one: &RunDescription,
    other: &RunDescription,
    first: &Path,
    second: &Path,
) -> (String, String) {
    if one.model != other.model {
        return (one.model.clone(), other.model.clone());
    }
    (first.display().to_string(), second.display().to_string())
}

/// The same id must mean the same question: another right answer makes it another one.
fn conflict(mine: &HashMap<String, Record>, theirs: &HashMap<String, Record>) -> Option<String> {
    let mut ids: Vec<&String> = mine.keys().collect();
    ids.sort_unstable();
    ids.into_iter().find_map(|id| {
        let (mine, theirs) = (mine.get(id)?, theirs.get(id)?);
        let other_answer = mine.expected != theirs.expected;
        let other_picture = mine.own_picture != theirs.own_picture;
        (other_answer || other_picture).then(|| {
            let what = if other_answer {
                format!(
                    "has the answer `{}` in one run and `{}` in the other",
                    mine.expected, theirs.expected
                )
            } else {
                "is about different pictures".to_owned()
            };
            format!("the question `{id}` {what}: the runs are of different question sets")
        })
    })
}

fn unscored(records: &HashMap<String, Record>) -> usize {
    let records = records.values();
    records.filter(|record| record.score().is_none()).count()
}

fn side(
    name: &str,
    run: &RunDescription,
    set: &SetDescription,
    vision: Vision,
    records: &HashMap<String, Record>,
) -> Side {
    let mut questions: Vec<_> = records.values().filter_map(question_score).collect();
    questions.sort_by(|one, other| one.id.cmp(&other.id));
    let mut stamps: BTreeMap<String, String> = run.stamps.clone();
    stamps.insert("version".to_owned(), run.version.clone());
    stamps.extend(set.stamps.clone());
    if let Some(way) = set.ways.get(&vision) {
        stamps.extend(way.stamps.clone());
    }
    Side {
        name: name.to_owned(),
        questions,
        stamps,
    }
}
