//! The files for the servers of benchmarks with hidden answers, out of a run.
//!
//! A run keeps what such a file says of each question besides the answer, so that it can be written
//! wherever all answers are: after the last command, or where shards are merged.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::description::RunDescription;
use crate::error::EvalError;
use crate::record::Record;
use crate::vision::Vision;

/// Writes a file for each benchmark that wants one and of which every question has an answer; each
/// appears whole. Returns their names.
///
/// # Errors
/// If one cannot be made or written.
pub fn write(
    folder: &Path,
    description: &RunDescription,
    records: &[Record],
) -> Result<Vec<PathBuf>, EvalError> {
    let mut written = Vec::new();
    let current = description.current(records);
    for (set, records) in description.sets.iter().zip(current) {
        let (Some(form), Some(name)) = (&set.submission, &set.benchmark) else {
            continue;
        };
        let shown = records.iter().filter(|record| record.vision == Vision::On);
        let answers: HashMap<String, String> = shown
            .filter_map(|record| Some((record.id.clone(), record.answered()?.answer.clone())))
            .collect();
        let complete = form
            .questions
            .iter()
            .all(|question| answers.contains_key(&question.id));
        if !complete || !form.is_wanted() {
            continue;
        }
        let text = form.text(name, &answers)?;
        let file = format!("submission-{name}.{}", form.table.format.extension());
        let (path, part) = (folder.join(&file), folder.join(format!("{file}.part")));
        fs::write(&part, text)
            .and_then(|()| fs::rename(&part, &path))
            .map_err(EvalError::write(&path))?;
        written.push(PathBuf::from(file));
    }
    Ok(written)
}
