//! The folder of a run: what was asked how, one record per question, the summary.
//!
//! ```text
//! DIR/run.json        model, benchmarks, settings, versions, what is wanted
//! DIR/records.jsonl   a line per question and vision, in the order they were answered
//! DIR/summary.json    scores, intervals, visual gain, counts
//!
//! All three describe the whole folder, whatever the last command asked.
//! ```
//!
//! Records are appended whole and at once, so a killed run loses at most the questions it was
//! answering. Of a line that a crash cut short the beginning is thrown away.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::description::RunDescription;
use crate::error::EvalError;
use crate::record::Record;
use crate::submissions;
use crate::summary::{SUMMARY_FILE, Summary};

/// The file of records.
pub(crate) const RECORDS: &str = "records.jsonl";

/// A run's folder, open for writing by nobody else.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    file: File,
    records: Vec<Record>,
}

impl RunFolder {
    /// Opens the folder of an earlier run, or makes a new one.
    ///
    /// # Errors
    /// If it cannot be read or written, holds other files, is in use, or has a damaged record.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, EvalError> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(EvalError::write(&path))?;
        let records = path.join(RECORDS);
        if !records.exists() {
            let mut entries = fs::read_dir(&path).map_err(EvalError::read("the run", &path))?;
            if entries.next().is_some() {
                return Err(EvalError::NotARun { path });
            }
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&records)
            .map_err(EvalError::write(&records))?;
        lock(&file, &records)?;
        let known = read_records(&mut file, &records)?;
        Ok(Self {
            path,
            file,
            records: known,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records of earlier runs, whatever their settings.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Keeps a record.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&mut self, record: Record) -> Result<(), EvalError> {
        let mut line = serde_json::to_vec(&record).map_err(|source| EvalError::Json {
            what: "a record",
            source,
        })?;
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.flush());
        written.map_err(EvalError::write(&self.path.join(RECORDS)))?;
        self.records.push(record);
        Ok(())
    }

    /// Sums up the whole folder, and writes that beside the records.
    ///
    /// # Errors
    /// If the folder does not say what was asked, or cannot be written.
    pub fn summarise(&self) -> Result<Summary, EvalError> {
        let description = RunDescription::read(&self.path)?;
        let summary = Summary::of(&description, &self.records);
        self.write_json(SUMMARY_FILE, &summary)?;
        Ok(summary)
    }

    /// Writes the files for the servers of benchmarks of which every question has an answer. Returns
    /// their paths.
    ///
    /// # Errors
    /// If the folder does not say what was asked, or a file cannot be made or written.
    pub fn write_submissions(&self) -> Result<Vec<PathBuf>, EvalError> {
        let description = RunDescription::read(&self.path)?;
        let names = submissions::write(&self.path, &description, &self.records)?;
        Ok(names.iter().map(|name| self.path.join(name)).collect())
    }

    /// Writes a file beside the records, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write_json(
        &self,
        name: &'static str,
        content: &impl Serialize,
    ) -> Result<(), EvalError> {
        let mut text = serde_json::to_vec_pretty(content)
            .map_err(|source| EvalError::Json { what: name, source })?;
        text.push(b'\n');
        let path = self.path.join(name);
        let temporary = self.path.join(format!("{name}.part"));
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(EvalError::write(&path))
    }
}

/// Keeps other processes out until the file is closed. Where locks are not known, the folder is
/// taken on trust.
fn lock(file: &File, path: &Path) -> Result<(), EvalError> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(EvalError::Busy {
            path: path.to_owned(),
        }),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

/// Reads all lines, and takes away an unfinished last one.
fn read_records(file: &mut File, path: &Path) -> Result<Vec<Record>, EvalError> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.read_to_end(&mut bytes))
        .map_err(EvalError::read("records", path))?;
    let whole = bytes
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    if whole < bytes.len() {
        bytes.truncate(whole);
        file.set_len(whole as u64).map_err(EvalError::write(path))?;
    }
    parse(&bytes, path)
}

/// The records of a run, without opening it for writing. An unfinished last line is left out.
pub(crate) fn read_only(folder: &Path) -> Result<Vec<Record>, EvalError> {
    let path = folder.join(RECORDS);
    let bytes = fs::read(&path).map_err(EvalError::read("records", &path))?;
    let whole = bytes
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    parse(bytes.get(..whole).unwrap_or_default(), &path)
}

/// The records of a run that count, and what it says of itself: of each question and way of asking the
/// last record that was made with the settings that the run has now.
///
/// # Errors
/// If the folder is none of a run, or has a damaged record.
pub fn current_records(folder: &Path) -> Result<(RunDescription, Vec<Record>), EvalError> {
    let description = RunDescription::read(folder)?;
    let records = read_only(folder)?;
    let current = description.current(&records);
    let current = current.into_iter().flatten().cloned().collect();
    Ok((description, current))
}

fn parse(bytes: &[u8], path: &Path) -> Result<Vec<Record>, EvalError> {
    let numbered = bytes.split(|&byte| byte == b'\n').zip(1..);
    numbered
        .filter(|(text, _)| !text.trim_ascii().is_empty())
        .map(|(text, line)| {
            serde_json::from_slice(text).map_err(|source| EvalError::Record {
                path: path.to_owned(),
                line,
                source,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Outcome;
    use crate::vision::Vision;

    fn record(id: &str) -> Record {
        Record {
            benchmark: None,
            id: id.into(),
            index: 0,
            settings: "s".into(),
            vision: Vision::On,
            group: "general".into(),
            task: "check".into(),
            unit: None,
            source: None,
            own_picture: None,
            prompt: "Is it?".into(),
            expected: "yes".into(),
            chance: 0.5,
            outcome: Outcome::Failed {
                error: "damaged".into(),
            },
        }
    }

    #[test]
    fn records_are_there_again_and_half_a_line_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/run");
        let mut folder = RunFolder::open(&path).unwrap();
        folder.append(record("1")).unwrap();
        folder.append(record("2")).unwrap();
        assert!(matches!(
            RunFolder::open(&path),
            Err(EvalError::Busy { .. })
        ));
        drop(folder);

        let file = path.join(RECORDS);
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() - 9]).unwrap();
        let mut folder = RunFolder::open(&path).unwrap();
        assert_eq!(folder.records(), [record("1")]);
        folder.append(record("3")).unwrap();
        drop(folder);
        let folder = RunFolder::open(&path).unwrap();
        assert_eq!(folder.records(), [record("1"), record("3")]);
    }

    #[test]
    fn other_folders_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.txt"), "mine").unwrap();
        let error = RunFolder::open(folder.path()).unwrap_err();
        assert!(matches!(error, EvalError::NotARun { .. }), "{error}");
    }

    #[test]
    fn a_damaged_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(RECORDS), "{}\n").unwrap();
        let error = RunFolder::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("records.jsonl:1"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn damaged_records_never_panic(at in 0usize..200, byte: u8) {
            let mut bytes = serde_json::to_vec(&record("1")).unwrap();
            let length = bytes.len();
            bytes[at % length] = byte;
            let _ = parse(&bytes, Path::new(RECORDS));
        }
    }
}
