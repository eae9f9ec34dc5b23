//! Scores of models on benchmarks, in per cent, with holes where nothing was measured.
//!
//! Everything here is per cent of full marks, whatever the file says: MME's perception score has
//! 2000 points and is divided by 20, as the paper does before any averaging (Cambrian-1, section
//! 3.1). A score that is missing stays missing; it is never 0 and never filled in.

mod build;
mod csv_file;
mod json_file;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::catalog::{CV_BENCH, CV_BENCH_2D, CV_BENCH_3D, known_benchmark};
use super::error::AnalysisError;
use super::runs::QuestionScore;
use crate::Vision;
use crate::scorer::Protocol;

pub(super) use build::Builder;

/// Scores of models on benchmarks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ScoreTable {
    /// The columns.
    pub benchmarks: Vec<Benchmark>,
    /// The rows.
    pub models: Vec<Model>,
    /// What was left out when the table was read, and why.
    pub notes: Vec<String>,
    /// What runs that are compared were made with differently.
    pub cautions: Vec<String>,
    /// The runs that scores are from; scores of tables are from none.
    pub runs: Vec<RunNote>,
}

/// Where the scores of one model on one benchmark are from, and by whose rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunNote {
    /// The folder.
    pub run: String,
    /// The model.
    pub model: String,
    /// The benchmark.
    pub benchmark: String,
    /// Whose rules judged the answers, if that is known.
    pub protocol: Option<Protocol>,
    /// Questions that count.
    pub questions: usize,
    /// Digest of the files that were read.
    pub data: Option<String>,
    /// What judged: names and digest.
    pub scorer: Option<String>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Benchmark {
    /// What it is called.
    pub name: String,
    /// What it is said to measure.
    pub group: Option<String>,
    /// How many scored questions it has.
    pub questions: Option<u64>,
    /// The score that counts as 100 %.
    pub full_marks: f64,
    /// What guessing gets, in per cent.
    pub chance: Option<f64>,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Model {
    /// What it is called.
    pub name: String,
    /// What it is one of, such as language-supervised encoders.
    pub family: Option<String>,
    /// `[benchmark]`, in per cent, for each way of asking.
    pub scores: BTreeMap<Vision, Vec<Option<f64>>>,
    /// Averages that the file states itself.
    pub printed: Vec<Printed>,
    /// Scores of single questions where they are known, by benchmark and way of asking, in order of
    /// the questions' ids.
    #[serde(skip)]
    pub answers: BTreeMap<String, BTreeMap<Vision, Vec<QuestionScore>>>,
}

/// An average that a file states itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Printed {
    /// Of this group; `None` for the average of everything.
    pub group: Option<String>,
    /// In per cent.
    pub average: f64,
}

/// The part of a table that has no holes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Selection {
    /// Rows that have a score in each of the chosen columns.
    pub models: Vec<usize>,
    /// Columns in which at least half of the rows have a score.
    pub benchmarks: Vec<usize>,
    /// What was left out, and why.
    pub left_out: Vec<String>,
}

impl ScoreTable {
    /// Reads a table: `.csv` (one row for each model, or one for each score) or `.json`.
    ///
    /// # Errors
    /// If the file cannot be read, if a column is missing or unknown, if a score is no number or out
    /// of range, or if a model or a score stands there twice.
    pub fn read(path: &Path) -> Result<Self, AnalysisError> {
        let bytes = std::fs::read(path).map_err(AnalysisError::read(path))?;
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        match extension.to_ascii_lowercase().as_str() {
            "csv" => csv_file::parse(&bytes, path),
            "json" => json_file::parse(&bytes, path),
            _ => Err(AnalysisError::Table {
                path: path.to_owned(),
                problem: "wanted a file that ends in .csv or .json".into(),
            }),
        }
    }

    /// The score of a model with the pictures.
    #[must_use]
    pub fn score(&self, model: usize, benchmark: usize) -> Option<f64> {
        self.score_with(Vision::On, model, benchmark)
    }

    /// The score of a model that was asked in this way.
    #[must_use]
    pub fn score_with(&self, vision: Vision, model: usize, benchmark: usize) -> Option<f64> {
        let scores = self.models.get(model)?.scores.get(&vision)?;
        scores.get(benchmark).copied().flatten()
    }

    /// The scores of some models on a benchmark, with the pictures.
    #[must_use]
    pub fn column(&self, benchmark: usize, models: &[usize]) -> Vec<Option<f64>> {
        models.iter().map(|&m| self.score(m, benchmark)).collect()
    }

    /// The scores of a selection without holes, `[benchmark][model]`.
    #[must_use]
    pub fn complete_columns(&self, selection: &Selection) -> Vec<Vec<f64>> {
        let benchmarks = selection.benchmarks.iter();
        benchmarks
            .map(|&b| {
                self.column(b, &selection.models)
                    .into_iter()
                    .flatten()
                    .collect()
            })
            .collect()
    }

    /// The groups of the benchmarks, in the order in which they first appear.
    #[must_use]
    pub fn groups(&self) -> Vec<String> {
        first_appearances(self.benchmarks.iter().filter_map(|b| b.group.as_ref()))
    }

    /// The families of the models, in the order in which they first appear.
    #[must_use]
    pub fn families(&self) -> Vec<String> {
        first_appearances(self.models.iter().filter_map(|m| m.family.as_ref()))
    }

    /// The holes: model and benchmark.
    #[must_use]
    pub fn missing(&self) -> Vec<(usize, usize)> {
        let all =
            (0..self.models.len()).flat_map(|m| (0..self.benchmarks.len()).map(move |b| (m, b)));
        all.filter(|&(m, b)| self.score(m, b).is_none()).collect()
    }

    /// Chooses a part without holes: first the benchmarks that at least half of the models were
    /// asked, then the models that were asked all of these.
    #[must_use]
    pub fn selection(&self) -> Selection {
        let mut left_out = Vec::new();
        let all: Vec<usize> = (0..self.models.len()).collect();
        let measured = |b: usize| self.column(b, &all).iter().flatten().count();
        let (benchmarks, rare): (Vec<usize>, Vec<usize>) =
            (0..self.benchmarks.len()).partition(|&b| 2 * measured(b) >= all.len());
        for b in rare {
            let (name, n) = (&self.benchmarks[b].name, measured(b));
            let of = all.len();
            left_out.push(format!(
                "benchmark {name}: only {n} of {of} models have a score"
            ));
        }
        let holes = |m: usize| {
            let holes = benchmarks.iter().filter(|&&b| self.score(m, b).is_none());
            holes.count()
        };
        let (models, gappy): (Vec<usize>, Vec<usize>) = all.iter().partition(|&&m| holes(m) == 0);
        for m in gappy {
            let (name, n, of) = (&self.models[m].name, holes(m), benchmarks.len());
            left_out.push(format!("model {name}: no score on {n} of {of} benchmarks"));
        }
        Selection {
            models,
            benchmarks,
            left_out,
        }
    }

    /// The same table with CV-Bench as one column, the mean of its halves, as the paper's figure 10
    /// has it. A table without both halves, or with the whole already, stays as it is.
    #[must_use]
    pub fn with_whole_cv_bench(&self) -> Self {
        let place = |name| self.benchmarks.iter().position(|b| b.name == name);
        let (None, Some(flat), Some(deep)) =
            (place(CV_BENCH), place(CV_BENCH_2D), place(CV_BENCH_3D))
        else {
            return self.clone();
        };
        let mut table = self.clone();
        table.benchmarks[flat] = Benchmark {
            name: CV_BENCH.into(),
            questions: sum_of_both(&self.benchmarks[flat], &self.benchmarks[deep], |b| {
                b.questions
            }),
            chance: mean_of_both(self.benchmarks[flat].chance, self.benchmarks[deep].chance),
            ..self.benchmarks[flat].clone()
        };
        table.benchmarks.remove(deep);
        for model in &mut table.models {
            for scores in model.scores.values_mut() {
                scores[flat] = mean_of_both(scores[flat], scores[deep]);
                scores.remove(deep);
            }
        }
        table
    }

    /// All tables beside each other. A model whose name stands in several of them is called
    /// `input: name` in each.
    ///
    /// # Errors
    /// If the tables contradict each other about a benchmark, or if two inputs have one name and
    /// the same model.
    pub fn merged(inputs: Vec<(String, Self)>) -> Result<Self, AnalysisError> {
        let labels = short_labels(inputs.iter().map(|(label, _)| label.as_str()));
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for model in inputs.iter().flat_map(|(_, table)| &table.models) {
            *times.entry(model.name.clone()).or_default() += 1;
        }
        let mut builder = Builder::default();
        let (mut notes, mut cautions, mut runs) = (Vec::new(), Vec::new(), Vec::new());
        for ((input, table), label) in inputs.into_iter().zip(labels) {
            notes.extend(table.notes.iter().cloned());
            cautions.extend(table.cautions.iter().cloned());
            runs.extend(table.runs.iter().cloned());
            let prefix = |name: &str| match times.get(name) {
                Some(2..) => format!("{label}: {name}"),
                _ => name.to_owned(),
            };
            builder
                .table(table, prefix)
                .map_err(|problem| AnalysisError::Conflict { input, problem })?;
        }
        Ok(Self {
            notes,
            cautions,
            runs,
            ..builder.finish()
        })
    }
}

impl Benchmark {
    /// A benchmark of this name with all that is known about it beforehand.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match known_benchmark(name) {
            Some(known) => Self {
                name: known.name.into(),
                group: Some(known.group.into()),
                questions: Some(known.questions),
                full_marks: known.full_marks,
                chance: known.chance,
            },
            None => Self {
                name: name.trim().into(),
                group: None,
                questions: None,
                full_marks: 100.0,
                chance: None,
            },
        }
    }
}

/// Names in the order in which they first appear.
fn first_appearances<'n>(names: impl Iterator<Item = &'n String>) -> Vec<String> {
    let mut known: Vec<String> = Vec::new();
    for name in names {
        if !known.contains(name) {
            known.push(name.clone());
        }
    }
    known
}

/// Labels cut at their first `_` if they can still be told apart.
fn short_labels<'l>(labels: impl Iterator<Item = &'l str>) -> Vec<String> {
    let long: Vec<&str> = labels.collect();
    let cut = |label: &'l str| label.split_once('_').map_or(label, |(first, _)| first);
    let short: Vec<&str> = long.iter().map(|label| cut(label)).collect();
    let distinct =
        (0..short.len()).all(|i| !short[i].is_empty() && !short[..i].contains(&short[i]));
    let chosen = if distinct { short } else { long };
    chosen.into_iter().map(str::to_owned).collect()
}

fn mean_of_both(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.zip(other).map(|(a, b)| f64::midpoint(a, b))
}

fn sum_of_both(
    one: &Benchmark,
    other: &Benchmark,
    value: impl Fn(&Benchmark) -> Option<u64>,
) -> Option<u64> {
    value(one)?.checked_add(value(other)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> ScoreTable {
        csv_file::parse(text.as_bytes(), Path::new("scores.csv")).unwrap()
    }

    #[test]
    fn a_selection_has_no_holes_and_says_what_it_left_out() {
        let table = table("model,MMB,rare,GQA\na,1,,3\nb,1,2,3\nc,1,,3\nd,,,3\n");
        let selection = table.selection();
        assert_eq!(selection.benchmarks, [0, 2]);
        assert_eq!(selection.models, [0, 1, 2]);
        assert_eq!(
            selection.left_out,
            [
                "benchmark rare: only 1 of 4 models have a score",
                "model d: no score on 1 of 2 benchmarks"
            ]
        );
        assert_eq!(table.missing(), [(0, 1), (2, 1), (3, 0), (3, 1)]);
        assert_eq!(table.complete_columns(&selection), [[1.0; 3], [3.0; 3]]);
    }

    #[test]
    fn halves_of_cv_bench_become_one() {
        let whole = table("model,CVBench_2D,CVBench_3D,GQA\na,50,60,1\nb,50,,1\n");
        let whole = whole.with_whole_cv_bench();
        let names: Vec<&str> = whole.benchmarks.iter().map(|b| b.name.as_str()).collect();
        assert_eq!(names, ["CV-Bench", "GQA"]);
        assert_eq!(whole.score(0, 0), Some(55.0));
        assert_eq!(whole.score(1, 0), None);
        assert_eq!(whole.benchmarks[0].questions, Some(2_638));
        assert_eq!(whole, whole.with_whole_cv_bench());
    }

    #[test]
    fn inputs_stand_beside_each_other() {
        let one = table("model,GQA\na,1\nb,2\n");
        let other = table("model,GQA,MMB\na,3,4\nc,5,6\n");
        let inputs = vec![
            ("table09_x".into(), one.clone()),
            ("table10_y".into(), other),
        ];
        let merged = ScoreTable::merged(inputs).unwrap();
        let names: Vec<&str> = merged.models.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["table09: a", "b", "table10: a", "c"]);
        assert_eq!(merged.score(1, 1), None);
        assert_eq!(merged.score(3, 1), Some(6.0));
        let twice = ScoreTable::merged(vec![("x".into(), one.clone()), ("x".into(), one)]);
        let error = twice.unwrap_err().to_string();
        assert!(error.contains("model `x: a` stands there twice"), "{error}");
    }

    #[test]
    fn unknown_endings_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.xlsx");
        std::fs::write(&path, "x").unwrap();
        let error = ScoreTable::read(&path).unwrap_err().to_string();
        assert!(error.contains(".csv or .json"), "{error}");
        let error = ScoreTable::read(&folder.path().join("no.csv")).unwrap_err();
        assert!(matches!(error, AnalysisError::Read { .. }));
    }
}
