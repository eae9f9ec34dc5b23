//! What can go wrong between a table of scores and a report.

use std::io;
use std::path::{Path, PathBuf};

/// An analysis could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AnalysisError {
    /// A file cannot be read.
    #[error("cannot read the scores `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A line of a table is not what it should be.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What was found, and what should be there.
        problem: String,
    },
    /// A file as a whole is not a table of scores.
    #[error("`{}` is no table of scores: {problem}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What was found, and what should be there.
        problem: String,
    },
    /// Inputs contradict each other.
    #[error("cannot put `{input}` beside the other scores: {problem}")]
    Conflict {
        /// The later input.
        input: String,
        /// What contradicts.
        problem: String,
    },
    /// There is nothing to analyse.
    #[error("there are no scores to analyse; name a table of scores or a run")]
    NoScores,
    /// Two runs that are to be compared share no question.
    #[error(
        "cannot compare `{first}` with `{second}`: they have fewer than two questions in common"
    )]
    NothingInCommon {
        /// The first run.
        first: String,
        /// The second run.
        second: String,
    },
    /// A question stands twice in a run.
    #[error("`{run}` has the question `{question}` twice; its records are damaged, judge it anew")]
    DuplicateQuestion {
        /// The run.
        run: String,
        /// The question's id.
        question: String,
    },
    /// An option is out of range.
    #[error("cannot analyse: `{option}` is {found}, wanted {wanted}")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        wanted: &'static str,
    },
    /// A result cannot be written as JSON.
    #[error("cannot write {what} as JSON")]
    Json {
        /// What it is.
        what: &'static str,
        /// What the writer said.
        #[source]
        source: serde_json::Error,
    },
    /// A plot cannot be written as PNG.
    #[error("cannot encode the picture `{}`", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// What the encoder said.
        #[source]
        source: png::EncodingError,
    },
}

impl AnalysisError {
    /// For `map_err` where something is read.
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }

    /// For `map_err` where something is written.
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }
}
