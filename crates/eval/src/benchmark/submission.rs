//! The files that servers of benchmarks with hidden answers want.

use std::collections::HashMap;
use std::hash::BuildHasher;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::definition::{BenchmarkDefinition, SubmissionFormat, SubmissionRows, SubmissionTable};
use super::error::BenchmarkError;
use super::questions::BenchmarkQuestion;

/// All that a submission is made of besides answers, so that whoever has only a run can write it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct SubmissionForm {
    /// What the server wants.
    pub table: SubmissionTable,
    /// All questions, in order.
    pub questions: Vec<SubmissionQuestion>,
}

/// A question as a submission knows it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct SubmissionQuestion {
    /// Its id.
    pub id: String,
    /// Whether only the server knows its right answer.
    pub unanswered: bool,
    /// What is said of it besides the model's answer.
    pub fields: Vec<(String, Value)>,
}

impl SubmissionForm {
    /// The form of a benchmark; `None` if it takes no submissions.
    #[must_use]
    pub fn of(definition: &BenchmarkDefinition, questions: &[BenchmarkQuestion]) -> Option<Self> {
        let entry = |question: &BenchmarkQuestion| SubmissionQuestion {
            id: question.id.clone(),
            unanswered: question.gold.is_none(),
            fields: question.fields.clone(),
        };
        Some(Self {
            table: definition.submission.clone()?,
            questions: questions.iter().map(entry).collect(),
        })
    }

    /// Whether any question is for submission.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.questions.iter().any(|question| self.takes(question))
    }

    fn takes(&self, question: &SubmissionQuestion) -> bool {
        match self.table.rows {
            SubmissionRows::All => true,
            SubmissionRows::Unanswered => question.unanswered,
        }
    }

    /// The text of the file for `benchmark`. `answers` are the model's, by the questions' ids.
    ///
    /// # Errors
    /// If an answer is missing: a server would count it as wrong.
    pub fn text<S: BuildHasher>(
        &self,
        benchmark: &str,
        answers: &HashMap<String, String, S>,
    ) -> Result<String, BenchmarkError> {
        let refuse = |problem: String| BenchmarkError::Submission {
            benchmark: benchmark.to_owned(),
            problem,
        };
        let mut rows = Vec::new();
        let mut missing = Vec::new();
        for question in self
            .questions
            .iter()
            .filter(|question| self.takes(question))
        {
            match answers.get(&question.id) {
                Some(answer) if self.table.lower_case => {
                    rows.push((question, answer.to_lowercase()));
                }
                Some(answer) => rows.push((question, answer.clone())),
                None => missing.push(question.id.as_str()),
            }
        }
        if let Some(first) = missing.first() {
            let problem = format!(
                "{} of {} questions have no answer, `{first}` first; finish the run",
                missing.len(),
                missing.len() + rows.len()
            );
            return Err(refuse(problem));
        }
        if rows.is_empty() {
            return Err(refuse("none of the questions is for submission".to_owned()));
        }
        match self.table.format {
            SubmissionFormat::JsonList => Ok(list(&self.table, rows).to_string()),
            SubmissionFormat::JsonMap => map(rows).map_err(refuse),
            SubmissionFormat::Csv => sheet(&self.table, &rows, b',').map_err(refuse),
            SubmissionFormat::Tsv => sheet(&self.table, &rows, b'\t').map_err(refuse),
        }
    }
}

/// The text of a submission. `answers` are the model's, by the questions' ids.
///
/// # Errors
/// If the benchmark takes no submissions, or an answer is missing: a server would count it as wrong.
pub fn text<S: BuildHasher>(
    definition: &BenchmarkDefinition,
    questions: &[BenchmarkQuestion],
    answers: &HashMap<String, String, S>,
) -> Result<String, BenchmarkError> {
    match SubmissionForm::of(definition, questions) {
        Some(form) => form.text(&definition.name, answers),
        None => Err(BenchmarkError::Submission {
            benchmark: definition.name.clone(),
            problem: "its definition has no `[submission]`".to_owned(),
        }),
    }
}

fn list(table: &SubmissionTable, rows: Vec<(&SubmissionQuestion, String)>) -> Value {
    let key = table.answer.clone().unwrap_or_default();
    let entries = rows.into_iter().map(|(question, answer)| {
        let mut entry: Map<String, Value> = question.fields.iter().cloned().collect();
        entry.insert(key.clone(), answer.into());
        Value::Object(entry)
    });
    Value::Array(entries.collect())
}

/// From the first field to the answer.
fn map(rows: Vec<(&SubmissionQuestion, String)>) -> Result<String, String> {
    let mut entries = Map::new();
    for (question, answer) in rows {
        let key = question.fields.first().map(|(_, value)| written(value));
        let key = key.unwrap_or_else(|| question.id.clone());
        if entries.insert(key.clone(), answer.into()).is_some() {
            return Err(format!("two questions are called `{key}`"));
        }
    }
    Ok(Value::Object(entries).to_string())
}

fn sheet(
    table: &SubmissionTable,
    rows: &[(&SubmissionQuestion, String)],
    separator: u8,
) -> Result<String, String> {
    let mut builder = csv::WriterBuilder::new();
    let mut writer = builder.delimiter(separator).from_writer(Vec::new());
    let names = table.fields.iter().map(|field| field.name.as_str());
    let failed = |error: csv::Error| error.to_string();
    writer
        .write_record(names.chain(table.answer.as_deref()))
        .map_err(failed)?;
    for (question, answer) in rows {
        let cells = question.fields.iter().map(|(_, value)| written(value));
        let cells = cells.chain([answer.clone()]);
        writer.write_record(cells).map_err(failed)?;
    }
    let bytes = writer.into_inner().map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

/// A value in a cell: text without quotes, nothing as nothing.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
