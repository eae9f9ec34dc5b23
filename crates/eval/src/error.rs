//! What can go wrong between a file of questions and a table of scores.

use std::io;
use std::path::{Path, PathBuf};

/// An evaluation could not be made. That a single question could not be asked is no error but a
/// [`crate::Record`] that says so.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A file cannot be read.
    #[error("cannot read {what} `{}`", path.display())]
    Read {
        /// What was to be read.
        what: &'static str,
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
    /// A line of the questions is not a question.
    #[error("{}:{line}: not a question", path.display())]
    NotAQuestion {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A question has a value that cannot be used.
    #[error("{}:{line}: {problem}", path.display())]
    Question {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What was found, and what should be there.
        problem: String,
    },
    /// There is nothing to ask.
    #[error("there are no questions in `{}`", path.display())]
    NoQuestions {
        /// The file.
        path: PathBuf,
    },
    /// An option is out of range.
    #[error("cannot evaluate: `{option}` is {found}, wanted {wanted}")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        wanted: &'static str,
    },
    /// Every question has the same picture, so there is no wrong one.
    #[error(
        "cannot show wrong pictures: all questions of `{set}` have the same picture; leave out \
         `shuffled`"
    )]
    NoOtherPicture {
        /// The benchmark, or the file of questions.
        set: String,
    },
    /// A benchmark is asked for twice.
    #[error("the benchmark `{name}` is named twice")]
    TwiceNamed {
        /// Its name.
        name: String,
    },
    /// The questions of a benchmark could not be had.
    #[error(transparent)]
    Benchmark(#[from] crate::benchmark::BenchmarkError),
    /// A served model is not to be reached, so no question can be asked.
    #[error(
        "the served model does not answer, so the run stops here; the same command goes on where it \
         stands"
    )]
    Endpoint(#[source] opabinia_endpoint::EndpointError),
    /// Runs cannot be put together.
    #[error("cannot merge `{}`: {problem}", path.display())]
    Merge {
        /// The folder that does not fit.
        path: PathBuf,
        /// What is different.
        problem: String,
    },
    /// Runs cannot be compared.
    #[error("cannot compare `{}` with `{}`: {problem}", first.display(), second.display())]
    Diff {
        /// The first folder.
        first: PathBuf,
        /// The second folder.
        second: PathBuf,
        /// Why.
        problem: String,
    },
    /// The comparison of two runs failed.
    #[error(transparent)]
    Analysis(#[from] crate::analysis::AnalysisError),
    /// A folder that is to be made is there.
    #[error("`{}` exists; name a new folder", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A run of an earlier version.
    #[error(
        "`{}` was written by another version of this program; run `opabinia eval` again",
        path.display()
    )]
    OtherFormat {
        /// The file.
        path: PathBuf,
    },
    /// A model without vision cannot be judged with pictures.
    #[error("the model has no vision encoders, so only `off` can be asked of it")]
    NoVision,
    /// The folder has files, but none of an evaluation.
    #[error("`{}` holds other files; name a new folder for the run", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// Somebody else writes into the run's folder.
    #[error(
        "another evaluation is writing `{}`; wait for it, or name another folder",
        path.display()
    )]
    Busy {
        /// The locked file.
        path: PathBuf,
    },
    /// A record of an earlier run cannot be understood.
    #[error(
        "{}:{line}: not a record of an evaluation; remove the line, and its question is asked again",
        path.display()
    )]
    Record {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A file of a run cannot be understood.
    #[error("`{}` is not what an evaluation writes; run `opabinia eval` again", path.display())]
    RunFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A run has questions that were not asked yet.
    #[error(
        "the run `{}` is not finished: {left} questions are left; give its `opabinia eval` command \
         again",
        path.display()
    )]
    Unfinished {
        /// The folder.
        path: PathBuf,
        /// Questions, each way of asking counted.
        left: usize,
    },
    /// Something cannot be written as JSON.
    #[error("cannot write {what} as JSON")]
    Json {
        /// What it is.
        what: &'static str,
        /// What the writer said.
        #[source]
        source: serde_json::Error,
    },
    /// Threads could not be started.
    #[error("cannot start {threads} threads; ask for fewer workers")]
    Threads {
        /// How many were wanted.
        threads: usize,
        /// The system's reason.
        #[source]
        source: rayon::ThreadPoolBuildError,
    },
}

impl EvalError {
    /// For `map_err` where something is read.
    pub(crate) fn read(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { what, path, source }
    }

    /// For `map_err` where something is written.
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }
}

/// An error and its causes in one line.
pub fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        // Transparent errors repeat their source's text.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}
