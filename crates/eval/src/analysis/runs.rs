//! Scores of runs, question by question, as the analysis takes them.
//!
//! Whoever reads run folders fills these structs in; the analysis knows nothing of folders.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::error::AnalysisError;
use super::statistics::mean;
use super::table::{Benchmark, Builder, ScoreTable};
use crate::Vision;

/// What one model did on one benchmark.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunScores {
    /// What the model is called.
    pub model: String,
    /// What it is one of, if anything.
    pub family: Option<String>,
    /// What the benchmark is called.
    pub benchmark: String,
    /// Its group; `None` takes that of the known benchmark of this name.
    pub group: Option<String>,
    /// What guessing gets, in per cent; `None` takes what is known beforehand.
    pub chance: Option<f64>,
    /// The scores for each way of asking.
    pub asked: BTreeMap<Vision, Asked>,
}

/// The scores of all questions that were asked in one way.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Asked {
    /// One for each question.
    pub questions: Vec<QuestionScore>,
    /// The benchmark's own score in per cent where it is not the mean over questions, as with MME's
    /// pairs or CV-Bench's formula.
    pub headline: Option<f64>,
}

/// The score of one answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QuestionScore {
    /// Which question it is.
    pub id: String,
    /// What it shares with others that makes them depend on each other: its picture.
    pub cluster: Option<String>,
    /// From 0 to 1.
    pub score: f64,
}

impl Asked {
    /// The benchmark's score in per cent; `None` of no questions.
    #[must_use]
    pub fn percent(&self) -> Option<f64> {
        let scores: Vec<f64> = self.questions.iter().map(|q| q.score).collect();
        let of_questions = (!scores.is_empty()).then(|| 100.0 * mean(&scores));
        self.headline.or(of_questions)
    }
}

/// The table of some runs.
///
/// # Errors
/// If a run was asked a question twice, if models were asked different questions of a benchmark, or
/// if a question was asked with its picture but not without it.
pub(super) fn table_of(runs: Vec<RunScores>) -> Result<ScoreTable, AnalysisError> {
    let mut builder = Builder::default();
    let mut asked_before: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for run in runs {
        let ids = question_ids(&run)?;
        let (other, theirs) = asked_before
            .entry(run.benchmark.clone())
            .or_insert_with(|| (run.model.clone(), ids.clone()));
        if *theirs != ids {
            return Err(AnalysisError::Conflict {
                input: run.model.clone(),
                problem: format!(
                    "of {} it was asked {} questions and `{other}` {}, with {} in common; judge both \
                     on the same questions",
                    run.benchmark,
                    ids.len(),
                    theirs.len(),
                    ids.intersection(theirs).count()
                ),
            });
        }
        let input = run.model.clone();
        add(&mut builder, run, ids.len() as u64)
            .map_err(|problem| AnalysisError::Conflict { input, problem })?;
    }
    Ok(builder.finish())
}

fn add(builder: &mut Builder, run: RunScores, questions: u64) -> Result<(), String> {
    let known = Benchmark::named(&run.benchmark);
    let name = known.name.clone();
    let benchmark = builder.benchmark(Benchmark {
        group: run.group.or(known.group),
        questions: Some(questions),
        full_marks: 100.0,
        chance: run.chance.or(known.chance),
        name: known.name,
    })?;
    let model = match builder.model(&run.model) {
        Some(model) => model,
        None => builder.new_model(&run.model, run.family)?,
    };
    for (vision, asked) in run.asked {
        if let Some(percent) = asked.percent() {
            builder.marks(vision, model, benchmark, percent)?;
        }
        builder.answers(model, &name, vision, asked.questions);
    }
    Ok(())
}

/// The questions of a run, the same for each way of asking.
fn question_ids(run: &RunScores) -> Result<BTreeSet<String>, AnalysisError> {
    let mut first: Option<(Vision, BTreeSet<String>)> = None;
    for (vision, asked) in &run.asked {
        let mut ids = BTreeSet::new();
        for question in &asked.questions {
            if !ids.insert(question.id.clone()) {
                return Err(AnalysisError::DuplicateQuestion {
                    run: run.model.clone(),
                    question: question.id.clone(),
                });
            }
        }
        match &first {
            Some((before, theirs)) if *theirs != ids => {
                return Err(AnalysisError::Conflict {
                    input: run.model.clone(),
                    problem: format!(
                        "of {} it was asked {} questions for `{before}` and {} for `{vision}`; finish \
                         the run",
                        run.benchmark,
                        theirs.len(),
                        ids.len()
                    ),
                });
            }
            Some(_) => {}
            None => first = Some((*vision, ids)),
        }
    }
    Ok(first.map(|(_, ids)| ids).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(model: &str, on: &[(&str, f64)], off: &[(&str, f64)]) -> RunScores {
        let asked = |scores: &[(&str, f64)]| Asked {
            questions: scores
                .iter()
                .map(|(id, score)| QuestionScore {
                    id: (*id).into(),
                    cluster: None,
                    score: *score,
                })
                .collect(),
            headline: None,
        };
        RunScores {
            model: model.into(),
            family: None,
            benchmark: "Quiz".into(),
            group: Some("Vision".into()),
            chance: Some(25.0),
            asked: BTreeMap::from([(Vision::On, asked(on)), (Vision::Off, asked(off))]),
        }
    }

    #[test]
    fn runs_become_a_table() {
        let mut second = run("b", &[("1", 1.0), ("2", 1.0)], &[("1", 0.0), ("2", 1.0)]);
        second.asked.entry(Vision::On).or_default().headline = Some(80.0);
        let first = run("a", &[("1", 1.0), ("2", 0.0)], &[("2", 0.0), ("1", 0.0)]);
        let table = table_of(vec![first, second]).unwrap();
        assert_eq!(table.score(0, 0), Some(50.0));
        assert_eq!(table.score(1, 0), Some(80.0));
        assert_eq!(table.score_with(Vision::Off, 1, 0), Some(50.0));
        assert_eq!(table.benchmarks[0].questions, Some(2));
        assert_eq!(table.models[0].answers["Quiz"][&Vision::On].len(), 2);
    }

    #[test]
    fn other_questions_are_refused() {
        let first = run("a", &[("1", 1.0)], &[("1", 1.0)]);
        let other = run("b", &[("2", 1.0)], &[("2", 1.0)]);
        let error = table_of(vec![first.clone(), other])
            .unwrap_err()
            .to_string();
        assert!(error.contains("with 0 in common"), "{error}");
        let unfinished = run("b", &[("1", 1.0)], &[]);
        let error = table_of(vec![unfinished]).unwrap_err().to_string();
        assert!(
            error.contains("1 questions for `on` and 0 for `off`"),
            "{error}"
        );
        let twice = run("b", &[("1", 1.0), ("1", 1.0)], &[("1", 1.0)]);
        let error = table_of(vec![twice]).unwrap_err();
        assert!(matches!(error, AnalysisError::DuplicateQuestion { .. }));
        assert!(matches!(
            table_of(vec![first.clone(), first]),
            Err(AnalysisError::Conflict { .. })
        ));
    }
}
