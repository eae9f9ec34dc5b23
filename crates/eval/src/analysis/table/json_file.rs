//! Tables of scores as JSON: facts of benchmarks, then scores of models by the benchmarks' names.
//!
//! ```json
//! {
//!   "benchmarks": [{ "name": "Quiz", "group": "Vision", "questions": 120, "chance": 25 }],
//!   "models": [{ "name": "a", "scores": { "Quiz": 60 }, "without_picture": { "Quiz": 30 } }]
//! }
//! ```
//!
//! Benchmarks that are known beforehand need not be described.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::{Benchmark, Builder, ScoreTable};
use crate::Vision;
use crate::analysis::error::AnalysisError;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    benchmarks: Vec<Facts>,
    models: Vec<Scores>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    questions: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    full_marks: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chance: Option<f64>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scores {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    family: Option<String>,
    scores: Marks,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    without_picture: Marks,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    wrong_picture: Marks,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    blank_picture: Marks,
}

/// Marks by benchmark, in the file's order; `null` is a missing score.
type Marks = Map<String, serde_json::Value>;

/// Reads a table; `path` is only named in errors.
pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<ScoreTable, AnalysisError> {
    let file: File = serde_json::from_slice(bytes).map_err(|error| AnalysisError::Line {
        path: path.to_owned(),
        line: error.line() as u64,
        problem: error.to_string(),
    })?;
    build(file).map_err(|problem| AnalysisError::Table {
        path: path.to_owned(),
        problem,
    })
}

fn build(file: File) -> Result<ScoreTable, String> {
    let mut builder = Builder::default();
    let mut facts = BTreeMap::new();
    for described in file.benchmarks {
        let benchmark = benchmark(described);
        let place = builder.benchmark(benchmark.clone())?;
        if facts.insert(benchmark.name.clone(), place).is_some() {
            return Err(format!("benchmark `{}` is described twice", benchmark.name));
        }
    }
    for row in file.models {
        let model = builder.new_model(&row.name, row.family)?;
        for (vision, marks) in [
            (Vision::On, row.scores),
            (Vision::Off, row.without_picture),
            (Vision::Shuffled, row.wrong_picture),
            (Vision::Blank, row.blank_picture),
        ] {
            for (name, value) in marks {
                let benchmark = Benchmark::named(&name);
                let place = match facts.get(&benchmark.name) {
                    Some(place) => *place,
                    None => builder.benchmark(benchmark)?,
                };
                if let Some(marks) = number(&value, &row.name, &name)? {
                    builder.marks(vision, model, place, marks)?;
                }
            }
        }
    }
    Ok(builder.finish())
}

fn number(value: &serde_json::Value, model: &str, benchmark: &str) -> Result<Option<f64>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let number = value
        .as_f64()
        .ok_or_else(|| format!("`{model}` has {value} on {benchmark}, wanted a number or null"))?;
    Ok(Some(number))
}

fn benchmark(facts: Facts) -> Benchmark {
    let known = Benchmark::named(&facts.name);
    Benchmark {
        group: facts.group.or(known.group),
        questions: facts.questions.or(known.questions),
        full_marks: facts.full_marks.unwrap_or(known.full_marks),
        chance: facts.chance.or(known.chance),
        name: known.name,
    }
}

impl ScoreTable {
    /// The table as JSON that [`ScoreTable::read`] reads again, scores in units of full marks.
    ///
    /// # Errors
    /// If the writer fails, which it has no reason to.
    pub fn to_json(&self) -> Result<String, AnalysisError> {
        let benchmarks = self.benchmarks.iter().map(|benchmark| Facts {
            name: benchmark.name.clone(),
            group: benchmark.group.clone(),
            questions: benchmark.questions,
            full_marks: Some(benchmark.full_marks),
            chance: benchmark.chance,
        });
        let models = self.models.iter().enumerate().map(|(model, row)| Scores {
            name: row.name.clone(),
            family: row.family.clone(),
            scores: self.marks(Vision::On, model),
            without_picture: self.marks(Vision::Off, model),
            wrong_picture: self.marks(Vision::Shuffled, model),
            blank_picture: self.marks(Vision::Blank, model),
        });
        let file = File {
            benchmarks: benchmarks.collect(),
            models: models.collect(),
        };
        serde_json::to_string_pretty(&file).map_err(|source| AnalysisError::Json {
            what: "the scores",
            source,
        })
    }

    fn marks(&self, vision: Vision, model: usize) -> Marks {
        let marks = self
            .benchmarks
            .iter()
            .enumerate()
            .filter_map(|(b, benchmark)| {
                let percent = self.score_with(vision, model, b)?;
                // Twelve digits: dividing and multiplying again must not invent new ones.
                let marks = percent * benchmark.full_marks / 100.0;
                let marks = (marks * 1e9).round() / 1e9;
                Some((benchmark.name.clone(), marks.into()))
            });
        marks.collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<ScoreTable, AnalysisError> {
        parse(text.as_bytes(), Path::new("scores.json"))
    }

    const EXAMPLE: &str = r#"{
        "benchmarks": [{"name": "Quiz", "questions": 120, "full_marks": 10, "chance": 25}],
        "models": [
            {"name": "a", "family": "f", "scores": {"Quiz": 6, "MME_P": 1500}, "without_picture": {"Quiz": 3}},
            {"name": "b", "scores": {"GQA": 61.3, "Quiz": null}}
        ]
    }"#;

    #[test]
    fn what_is_written_reads_back() {
        let table = read(EXAMPLE).unwrap();
        assert_eq!(table.score(0, 0), Some(60.0));
        assert_eq!(table.score(0, 1), Some(75.0));
        assert_eq!(table.score(1, 0), None);
        assert_eq!(table.score_with(Vision::Off, 0, 0), Some(30.0));
        assert_eq!(read(&table.to_json().unwrap()).unwrap(), table);
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn faults_are_named() {
        refused("{", "scores.json:1: EOF");
        refused(r#"{"model": []}"#, "unknown field `model`");
        refused(
            r#"{"models": [{"name": "a", "scores": {"GQA": "x"}}]}"#,
            "`a` has \"x\" on GQA, wanted a number",
        );
        refused(
            r#"{"benchmarks": [{"name": "q"}, {"name": "q"}], "models": []}"#,
            "described twice",
        );
        refused(
            r#"{"models": [{"name": "a", "scores": {"MMB": 1, "MMBench": 2}}]}"#,
            "stands there twice",
        );
    }

    proptest! {
        #[test]
        fn no_damage_panics(cut in 0usize..300, byte in any::<u8>()) {
            let mut bytes = EXAMPLE.as_bytes().to_vec();
            let place = cut % bytes.len();
            bytes[place] = byte;
            let _ = parse(&bytes, Path::new("x.json"));
            let _ = parse(&bytes[..place], Path::new("x.json"));
        }
    }
}
