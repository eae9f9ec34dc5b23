//! The one door through which scores come into a table: it finds duplicates, contradictions and
//! scores that cannot be, whatever the file's layout. Problems are plain sentences; the readers add
//! file and line.

use std::collections::BTreeMap;

use super::{Benchmark, Model, Printed, ScoreTable};
use crate::Vision;
use crate::analysis::runs::QuestionScore;

/// A table that is being put together.
#[derive(Debug, Default)]
pub(in crate::analysis) struct Builder {
    table: ScoreTable,
}

impl Builder {
    /// The column of a benchmark, made if it is new.
    pub fn benchmark(&mut self, benchmark: Benchmark) -> Result<usize, String> {
        check_facts(&benchmark)?;
        let known = &mut self.table.benchmarks;
        let Some(place) = known.iter().position(|b| b.name == benchmark.name) else {
            known.push(benchmark);
            for model in &mut self.table.models {
                for scores in model.scores.values_mut() {
                    scores.push(None);
                }
            }
            return Ok(self.table.benchmarks.len() - 1);
        };
        let name = &benchmark.name;
        let before = &mut known[place];
        agree(name, "group", &mut before.group, benchmark.group)?;
        agree(
            name,
            "questions",
            &mut before.questions,
            benchmark.questions,
        )?;
        agree(name, "chance", &mut before.chance, benchmark.chance)?;
        let mut full_marks = Some(before.full_marks);
        agree(
            name,
            "full marks",
            &mut full_marks,
            Some(benchmark.full_marks),
        )?;
        Ok(place)
    }

    /// A new row.
    pub fn new_model(&mut self, name: &str, family: Option<String>) -> Result<usize, String> {
        let name = name.trim();
        if name.is_empty() {
            return Err("a model without a name".into());
        }
        if self.model(name).is_some() {
            return Err(format!(
                "model `{name}` stands there twice; give each its own name"
            ));
        }
        self.table.models.push(Model {
            name: name.into(),
            family,
            scores: BTreeMap::from([(Vision::On, vec![None; self.table.benchmarks.len()])]),
            printed: Vec::new(),
            answers: BTreeMap::new(),
        });
        Ok(self.table.models.len() - 1)
    }

    /// The row of a model of this name.
    pub fn model(&self, name: &str) -> Option<usize> {
        self.table
            .models
            .iter()
            .position(|model| model.name == name.trim())
    }

    /// One score, in units of the benchmark's full marks.
    pub fn marks(
        &mut self,
        vision: Vision,
        model: usize,
        benchmark: usize,
        marks: f64,
    ) -> Result<(), String> {
        let Benchmark {
            name, full_marks, ..
        } = &self.table.benchmarks[benchmark];
        if !(0.0..=*full_marks).contains(&marks) {
            return Err(format!(
                "{marks} on {name}: wanted 0 to {full_marks}; other full marks can be stated in the \
                 column `full_marks` of a table with one row for each score"
            ));
        }
        let percent = marks * 100.0 / full_marks;
        self.percent(vision, model, benchmark, percent)
    }

    /// One score in per cent.
    pub fn percent(
        &mut self,
        vision: Vision,
        model: usize,
        benchmark: usize,
        percent: f64,
    ) -> Result<(), String> {
        let width = self.table.benchmarks.len();
        let row = &mut self.table.models[model];
        let scores = row
            .scores
            .entry(vision)
            .or_insert_with(|| vec![None; width]);
        if scores[benchmark].is_some() {
            let benchmark = &self.table.benchmarks[benchmark].name;
            let heading = vision.heading();
            return Err(format!(
                "{heading} of `{}` on {benchmark} stands there twice",
                row.name
            ));
        }
        scores[benchmark] = Some(percent);
        Ok(())
    }

    /// An average that the file states.
    pub fn printed(&mut self, model: usize, group: Option<String>, average: f64) {
        self.table.models[model]
            .printed
            .push(Printed { group, average });
    }

    /// The scores of single questions.
    pub fn answers(
        &mut self,
        model: usize,
        benchmark: &str,
        vision: Vision,
        mut questions: Vec<QuestionScore>,
    ) {
        questions.sort_by(|a, b| a.id.cmp(&b.id));
        let answers = &mut self.table.models[model].answers;
        let of_benchmark = answers.entry(benchmark.to_owned()).or_default();
        of_benchmark.insert(vision, questions);
    }

    /// All of another table, its models renamed.
    pub fn table(
        &mut self,
        other: ScoreTable,
        rename: impl Fn(&str) -> String,
    ) -> Result<(), String> {
        let places: Vec<usize> = other
            .benchmarks
            .into_iter()
            .map(|benchmark| self.benchmark(benchmark))
            .collect::<Result<_, _>>()?;
        for model in other.models {
            let row = self.new_model(&rename(&model.name), model.family)?;
            for (vision, scores) in model.scores {
                for (&place, score) in places.iter().zip(scores) {
                    if let Some(score) = score {
                        self.percent(vision, row, place, score)?;
                    }
                }
            }
            self.table.models[row].printed = model.printed;
            self.table.models[row].answers = model.answers;
        }
        Ok(())
    }

    /// What has been put together.
    pub fn finish(self) -> ScoreTable {
        self.table
    }
}

fn check_facts(benchmark: &Benchmark) -> Result<(), String> {
    let Benchmark {
        name,
        full_marks,
        chance,
        ..
    } = benchmark;
    if name.is_empty() {
        return Err("a benchmark without a name".into());
    }
    if !(full_marks.is_finite() && *full_marks > 0.0) {
        return Err(format!(
            "full marks of {name} are {full_marks}, wanted more than 0"
        ));
    }
    match chance {
        Some(chance) if !(0.0..=100.0).contains(chance) => Err(format!(
            "chance of {name} is {chance}, wanted per cent from 0 to 100"
        )),
        _ => Ok(()),
    }
}

/// Takes over a fact that was not known before.
fn agree<T: PartialEq + std::fmt::Debug>(
    benchmark: &str,
    what: &str,
    before: &mut Option<T>,
    now: Option<T>,
) -> Result<(), String> {
    match (&before, &now) {
        (Some(before), Some(now)) if before != now => Err(format!(
            "{what} of {benchmark} is {now:?} here and {before:?} elsewhere"
        )),
        (None, Some(_)) => {
            *before = now;
            Ok(())
        }
        _ => Ok(()),
    }
}
