//! The files that servers of benchmarks with hidden answers want.

use std::collections::HashMap;
use std::hash::BuildHasher;

use serde_json::{Map, Value};

use super::definition::{BenchmarkDefinition, SubmissionFormat, SubmissionRows, SubmissionTable};
use super::error::BenchmarkError;
use super::questions::BenchmarkQuestion;

/// The text of a submission. `answers` are the model's, by the questions' ids.
///
/// # Errors
/// If the benchmark takes no submissions, or an answer is missing: a server would count it as wrong.
pub fn text<S: BuildHasher>(
    definition: &BenchmarkDefinition,
    questions: &[BenchmarkQuestion],
    answers: &HashMap<String, String, S>,
) -> Result<String, BenchmarkError> {
    let refuse = |problem: String| BenchmarkError::Submission {
        benchmark: definition.name.clone(),
        problem,
    };
    let table = definition.submission.as_ref();
    let table = table.ok_or_else(|| refuse("its definition has no `[submission]`".to_owned()))?;
    let handed_in = |question: &&BenchmarkQuestion| match table.rows {
        SubmissionRows::All => true,
        SubmissionRows::Unanswered => question.gold.is_none(),
    };
    let mut rows = Vec::new();
    let mut missing = Vec::new();
    for question in questions.iter().filter(handed_in) {
        match answers.get(&question.id) {
            Some(answer) if table.lower_case => rows.push((question, answer.to_lowercase())),
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
    match table.format {
        SubmissionFormat::JsonList => Ok(list(table, rows).to_string()),
        SubmissionFormat::JsonMap => map(rows).map_err(refuse),
        SubmissionFormat::Csv => sheet(table, &rows, b',').map_err(refuse),
        SubmissionFormat::Tsv => sheet(table, &rows, b'\t').map_err(refuse),
    }
}

fn list(table: &SubmissionTable, rows: Vec<(&BenchmarkQuestion, String)>) -> Value {
    let key = table.answer.clone().unwrap_or_default();
    let entries = rows.into_iter().map(|(question, answer)| {
        let mut entry: Map<String, Value> = question.fields.iter().cloned().collect();
        entry.insert(key.clone(), answer.into());
        Value::Object(entry)
    });
    Value::Array(entries.collect())
}

/// From the first field to the answer.
fn map(rows: Vec<(&BenchmarkQuestion, String)>) -> Result<String, String> {
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
    rows: &[(&BenchmarkQuestion, String)],
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
