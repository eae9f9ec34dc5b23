//! Bad samples: counted, listed, and bounded.
//!
//! The reference implementation of Cambrian-1 (arXiv 2406.16860) trains the first sample of the file in
//! place of one that it cannot load, without a word. Here nothing stands in: the sample is missing from
//! its batch, [`Faults`] counts it under its kind and writes it into a list with file and line, and once
//! there are more than [`FaultLimit`] allows, the run ends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{DataError, Place, SampleError};

/// How many faults a message shows.
const SHOWN: usize = 5;

/// What is wrong with a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The line cannot be read from the file.
    Unreadable,
    /// The line is not JSON.
    BrokenJson,
    /// The JSON is no sample, or one that the template cannot render.
    Schema,
    /// Placeholder without picture, picture without placeholder, or several placeholders.
    PlaceholderMismatch,
    /// There is no such picture.
    MissingPicture,
    /// The picture cannot be decoded.
    BrokenPicture,
    /// Nothing could be learned from it.
    NoTrainableToken,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "unreadable",
            Self::BrokenJson => "broken JSON",
            Self::Schema => "not a sample",
            Self::PlaceholderMismatch => "placeholder mismatch",
            Self::MissingPicture => "missing picture",
            Self::BrokenPicture => "broken picture",
            Self::NoTrainableToken => "no trainable token",
        })
    }
}

/// One bad sample; also a line of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What is wrong with it.
    pub kind: FaultKind,
    /// The file of samples.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: u64,
    /// The whole message.
    pub what: String,
}

impl From<&SampleError> for Fault {
    fn from(error: &SampleError) -> Self {
        let Place { file, line } = error.place();
        Self {
            kind: error.kind(),
            file: file.to_path_buf(),
            line: *line,
            what: error.in_full(),
        }
    }
}

/// How many samples may be bad.
///
/// Written as a count (`20`) or as a share (`0.1%`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub enum FaultLimit {
    /// At most that many.
    Count(u64),
    /// At most that share of all samples, from 0 to 1.
    Share(f64),
}

impl FaultLimit {
    /// Number of bad samples that are accepted among `samples`.
    pub fn of(self, samples: usize) -> u64 {
        match self {
            Self::Count(count) => count,
            // Shares are checked to lie between 0 and 1.
            Self::Share(share) => (share * samples as f64).floor() as u64,
        }
    }
}

impl Default for FaultLimit {
    /// One in a thousand.
    fn default() -> Self {
        Self::Share(0.001)
    }
}

impl fmt::Display for FaultLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Share(share) => write!(f, "{}%", share * 100.0),
        }
    }
}

/// A limit that is neither a count nor a share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no limit for bad samples; write a count (`20`) or a share (`0.1%`)")]
pub struct FaultLimitError {
    /// What was found.
    pub found: String,
}

impl FromStr for FaultLimit {
    type Err = FaultLimitError;

    fn from_str(text: &str) -> Result<Self, FaultLimitError> {
        let share = text.strip_suffix('%').map(|number| {
            let percent: f64 = number.trim().parse().ok()?;
            (0.0..=100.0)
                .contains(&percent)
                .then_some(Self::Share(percent / 100.0))
        });
        let limit = match share {
            Some(share) => share,
            None => text.parse().ok().map(Self::Count),
        };
        limit.ok_or_else(|| FaultLimitError {
            found: text.to_owned(),
        })
    }
}

/// A limit as configuration files write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Count(u64),
    Text(String),
}

impl TryFrom<Written> for FaultLimit {
    type Error = FaultLimitError;

    fn try_from(written: Written) -> Result<Self, FaultLimitError> {
        match written {
            Written::Count(count) => Ok(Self::Count(count)),
            Written::Text(text) => text.parse(),
        }
    }
}

impl From<FaultLimit> for String {
    fn from(limit: FaultLimit) -> Self {
        limit.to_string()
    }
}

/// The bad samples of a run; threads share it.
#[derive(Debug)]
pub struct Faults {
    samples: usize,
    limit: FaultLimit,
    list: Option<PathBuf>,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    counts: BTreeMap<FaultKind, u64>,
    first: Vec<Fault>,
    /// Lines already counted; a sample comes again in every epoch.
    lines: HashMap<PathBuf, HashSet<u64>>,
    writer: Option<File>,
}

impl Faults {
    /// Counts bad ones among `samples` samples.
    pub fn new(samples: usize, limit: FaultLimit) -> Self {
        Self {
            samples,
            limit,
            list: None,
            found: Mutex::default(),
        }
    }

    /// As [`Faults::new`], with every fault written to `list` as a line of JSON. A list that is
    /// there already is gone on with: what it names is counted, and not counted again.
    ///
    /// # Errors
    /// If the list cannot be read or written.
    pub fn with_list(
        samples: usize,
        limit: FaultLimit,
        list: impl Into<PathBuf>,
    ) -> Result<Self, DataError> {
        let list = list.into();
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&list)
            .map_err(DataError::io("open the list of bad samples", &list))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(DataError::io("read the list of bad samples", &list))?;
        let mut found = Found::default();
        for line in bytes.split(|&byte| byte == b'\n') {
            // A line that a killed run left unfinished names nothing; its sample comes again.
            if let Ok(fault) = serde_json::from_slice::<Fault>(line) {
                found.add(fault);
            }
        }
        if bytes.last().is_some_and(|&byte| byte != b'\n') {
            file.write_all(b"\n")
                .map_err(DataError::io("write the list of bad samples", &list))?;
        }
        found.writer = Some(file);
        Ok(Self {
            samples,
            limit,
            list: Some(list),
            found: Mutex::new(found),
        })
    }

    /// Counts a bad sample, unless it was counted before.
    ///
    /// # Errors
    /// [`DataError::TooManyFaults`] once there are more than the limit allows, and an error if the
    /// list cannot be written.
    pub fn record(&self, error: &SampleError) -> Result<(), DataError> {
        let fault = Fault::from(error);
        let mut found = self.found();
        let line = serde_json::json!(fault).to_string() + "\n";
        if found.add(fault)
            && let (Some(writer), Some(list)) = (&mut found.writer, &self.list)
        {
            writer
                .write_all(line.as_bytes())
                .map_err(DataError::io("write the list of bad samples", list))?;
        }
        if found.total() <= self.limit.of(self.samples) {
            return Ok(());
        }
        Err(DataError::TooManyFaults {
            summary: found.summary(self.samples),
            limit: self.limit.to_string(),
            listed: self.examples(&found),
        })
    }

    /// Keeps what is good and counts what is not.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn keep<T>(&self, result: Result<T, SampleError>) -> Result<Option<T>, DataError> {
        match result {
            Ok(good) => Ok(Some(good)),
            Err(error) => self.record(&error).map(|()| None),
        }
    }

    /// Number of bad samples.
    pub fn total(&self) -> u64 {
        self.found().total()
    }

    /// Number of bad samples of each kind that occurred.
    pub fn counts(&self) -> BTreeMap<FaultKind, u64> {
        self.found().counts.clone()
    }

    /// The first few bad samples.
    pub fn first(&self) -> Vec<Fault> {
        self.found().first.clone()
    }

    /// How many of which kind, in one line.
    pub fn summary(&self) -> String {
        self.found().summary(self.samples)
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first messages, and where the others are.
    fn examples(&self, found: &Found) -> String {
        let mut text = String::new();
        for fault in &found.first {
            text += "\n  ";
            text += &fault.what;
        }
        if let Some(list) = &self.list {
            text += &format!("\n  all of them are listed in `{}`", list.display());
        }
        text
    }
}

impl Found {
    /// Whether the fault is a new one.
    fn add(&mut self, fault: Fault) -> bool {
        let lines = self.lines.entry(fault.file.clone()).or_default();
        if !lines.insert(fault.line) {
            return false;
        }
        *self.counts.entry(fault.kind).or_default() += 1;
        if self.first.len() < SHOWN {
            self.first.push(fault);
        }
        true
    }

    fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    fn summary(&self, samples: usize) -> String {
        let kinds: Vec<String> = self
            .counts
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        let kinds = match kinds.is_empty() {
            true => String::new(),
            false => format!(" ({})", kinds.join(", ")),
        };
        format!(
            "{} of {samples} samples cannot be used{kinds}",
            self.total()
        )
    }
}

/// Reads a list that [`Faults::with_list`] wrote; unfinished lines are left out.
///
/// # Errors
/// If it cannot be read.
pub fn read_list(path: &Path) -> Result<Vec<Fault>, DataError> {
    let bytes = std::fs::read(path).map_err(DataError::io("read the list of bad samples", path))?;
    Ok(bytes
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: u64) -> SampleError {
        SampleError::NoTrainableToken {
            place: Place::new(Path::new("s.jsonl"), line),
            what: "the answer is empty".to_owned(),
        }
    }

    #[test]
    fn a_limit_is_a_count_or_a_share() {
        assert_eq!("20".parse(), Ok(FaultLimit::Count(20)));
        assert_eq!("0.5%".parse(), Ok(FaultLimit::Share(0.005)));
        assert_eq!(FaultLimit::Share(0.005).to_string(), "0.5%");
        assert_eq!(FaultLimit::Share(0.005).of(1000), 5);
        for wrong in ["", "-1", "0.5", "101%", "NaN%", "many"] {
            assert!(wrong.parse::<FaultLimit>().is_err(), "{wrong}");
        }
        let read: FaultLimit = serde_json::from_str("7").unwrap();
        assert_eq!(read, FaultLimit::Count(7));
        let read: FaultLimit = serde_json::from_str("\"1%\"").unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), "\"1%\"");
    }

    #[test]
    fn one_too_many_ends_it_with_examples() {
        let faults = Faults::new(100, "2%".parse().unwrap());
        faults.record(&error(1)).unwrap();
        faults.record(&error(1)).unwrap();
        assert_eq!(faults.keep(Ok(7)).unwrap(), Some(7));
        assert_eq!(faults.keep::<u8>(Err(error(5))).unwrap(), None);
        let message = faults.record(&error(9)).unwrap_err().to_string();
        assert!(
            message.starts_with(
                "3 of 100 samples cannot be used (3 no trainable token); more than `data.max_bad` (2%) \
                 allows\n  `s.jsonl:1`: no trainable token: the answer is empty\n"
            ),
            "{message}"
        );
        assert_eq!(faults.counts()[&FaultKind::NoTrainableToken], 3);
    }

    #[test]
    fn a_list_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("bad.jsonl");
        let open = || Faults::with_list(10, FaultLimit::Count(9), &list).unwrap();
        open().record(&error(1)).unwrap();
        let mut torn = OpenOptions::new().append(true).open(&list).unwrap();
        torn.write_all(b"{\"kind\": \"broken_js").unwrap();
        let faults = open();
        assert_eq!(faults.total(), 1);
        faults.record(&error(1)).unwrap();
        faults.record(&error(2)).unwrap();
        assert_eq!(faults.total(), 2);
        let listed = read_list(&list).unwrap();
        assert_eq!(listed, faults.first());
        assert_eq!(
            (listed[1].line, listed[1].kind),
            (2, FaultKind::NoTrainableToken)
        );
    }
}
