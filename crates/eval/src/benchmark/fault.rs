//! Rows that cannot be asked: counted, listed, never dropped in silence.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::BenchmarkError;

/// What is wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// It lacks a column that other rows have.
    MissingColumn,
    /// A value is not what the definition expects, such as options that are no list.
    WrongType,
    /// An earlier row has the same id.
    DuplicateId,
    /// There is no right answer, or none that can be used.
    MissingAnswer,
    /// The right answer is none of the options.
    AnswerNotAnOption,
    /// There is no picture.
    MissingPicture,
    /// What should be a picture is none.
    NotAPicture,
    /// The text that would be asked is empty.
    EmptyPrompt,
    /// Others of its unit are missing.
    IncompleteUnit,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingColumn => "missing column",
            Self::WrongType => "wrong type",
            Self::DuplicateId => "duplicate id",
            Self::MissingAnswer => "missing answer",
            Self::AnswerNotAnOption => "answer is not an option",
            Self::MissingPicture => "missing picture",
            Self::NotAPicture => "not a picture",
            Self::EmptyPrompt => "empty prompt",
            Self::IncompleteUnit => "incomplete unit",
        })
    }
}

/// One row that cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What is wrong.
    pub kind: FaultKind,
    /// The file, relative to the data set.
    pub file: String,
    /// The row, from 1; of text formats the line.
    pub row: u64,
    /// Its id, if that much is known.
    pub id: Option<String>,
    /// What was found, and what should be there.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            file,
            row,
            what,
            ..
        } = self;
        write!(f, "{file}:{row}: {kind}: {what}")
    }
}

/// Why a row is no question.
pub(super) enum Refused {
    /// A fault of the row.
    Fault(FaultKind, String),
    /// The end of reading.
    Error(BenchmarkError),
}

impl From<(FaultKind, String)> for Refused {
    fn from((kind, what): (FaultKind, String)) -> Self {
        Self::Fault(kind, what)
    }
}

impl From<BenchmarkError> for Refused {
    fn from(error: BenchmarkError) -> Self {
        Self::Error(error)
    }
}
