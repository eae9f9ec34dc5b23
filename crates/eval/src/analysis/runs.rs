//! Scores of runs, question by question, as the analysis takes them.
//!
//! Whoever reads run folders fills these structs in; the analysis knows nothing of folders.

mod same;

use std::collections::BTreeMap;

use serde::Serialize;

use super::error::AnalysisError;
use super::statistics::mean;
use super::table::{Benchmark, Builder, RunNote, ScoreTable};
use crate::Vision;
use crate::scorer::Protocol;

/// What one model did on one benchmark.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RunScores {
    /// The run, as messages call it: its folder.
    pub run: String,
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
    /// Whose rules judged the answers; `None` if that is not known.
    pub protocol: Option<Protocol>,
    /// What the scores were made with, by name: hashes of data and scorer, the judge, the seed.
    pub stamps: BTreeMap<String, String>,
    /// What each question is, by its id; empty if that is not known.
    pub facts: BTreeMap<String, QuestionFacts>,
    /// The scores for each way of asking.
    pub asked: BTreeMap<Vision, Asked>,
}

/// What a question is: two runs are about the same questions only where this is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QuestionFacts {
    /// Digest of what was asked, template not included.
    pub prompt: String,
    /// Digest of its picture's file.
    pub picture: Option<String>,
    /// The right answer, as text.
    pub answer: String,
}

/// The scores of all questions that were asked in one way.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Asked {
    /// One for each question that was judged.
    pub questions: Vec<QuestionScore>,
    /// Questions whose answers nobody judged; they count nowhere.
    pub unjudged: Vec<String>,
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

/// The table of some runs, with what was left out and what differs between the runs.
///
/// # Errors
/// If a run was asked a question twice, if runs are of different questions of a benchmark or were judged
/// by different rules, or if a question was asked with its picture but not without it.
pub(super) fn table_of(runs: Vec<RunScores>) -> Result<ScoreTable, AnalysisError> {
    let mut benchmarks: Vec<(String, Vec<RunScores>)> = Vec::new();
    for run in runs {
        match benchmarks
            .iter_mut()
            .find(|(name, _)| *name == run.benchmark)
        {
            Some((_, known)) => known.push(run),
            None => benchmarks.push((run.benchmark.clone(), vec![run])),
        }
    }
    let mut builder = Builder::default();
    let mut table = ScoreTable::default();
    for (_, runs) in benchmarks {
        for run in same::comparable(runs, &mut table.notes, &mut table.cautions)? {
            table.runs.push(RunNote::of(&run));
            let input = run.run.clone();
            add(&mut builder, run).map_err(|problem| AnalysisError::Conflict { input, problem })?;
        }
    }
    Ok(ScoreTable {
        notes: table.notes,
        cautions: table.cautions,
        runs: table.runs,
        ..builder.finish()
    })
}

impl RunNote {
    fn of(run: &RunScores) -> Self {
        let stamp = |name| run.stamps.get(name).cloned();
        Self {
            run: run.run.clone(),
            model: run.model.clone(),
            benchmark: Benchmark::named(&run.benchmark).name,
            protocol: run.protocol,
            questions: questions_of(run),
            data: stamp("data"),
            scorer: stamp("scorer"),
        }
    }
}

/// Questions that were judged in every way of asking.
fn questions_of(run: &RunScores) -> usize {
    let counts = run.asked.values().map(|asked| asked.questions.len());
    counts.max().unwrap_or(0)
}

fn add(builder: &mut Builder, run: RunScores) -> Result<(), String> {
    let questions = questions_of(&run) as u64;
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run on `Quiz`: ids and scores with the pictures and without.
    pub fn run(model: &str, on: &[(&str, f64)], off: &[(&str, f64)]) -> RunScores {
        let asked = |scores: &[(&str, f64)]| Asked {
            questions: scores
                .iter()
                .map(|(id, score)| QuestionScore {
                    id: (*id).into(),
                    cluster: None,
                    score: *score,
                })
                .collect(),
            ..Asked::default()
        };
        let facts = on.iter().map(|(id, _)| {
            let facts = QuestionFacts {
                prompt: format!("{id}?"),
                picture: Some("p".into()),
                answer: "yes".into(),
            };
            ((*id).to_owned(), facts)
        });
        RunScores {
            run: format!("runs/{model}"),
            model: model.into(),
            benchmark: "Quiz".into(),
            group: Some("Vision".into()),
            chance: Some(25.0),
            protocol: Some(Protocol::Standard),
            stamps: [("scorer", "s"), ("data", "d")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            facts: facts.collect(),
            asked: BTreeMap::from([(Vision::On, asked(on)), (Vision::Off, asked(off))]),
            ..RunScores::default()
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
        assert_eq!(
            (table.runs[1].run.as_str(), table.runs[1].protocol),
            ("runs/b", Some(Protocol::Standard))
        );
        assert!(table.cautions.is_empty() && table.notes.is_empty());
    }
}
