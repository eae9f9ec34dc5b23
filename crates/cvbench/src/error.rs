//! What can go wrong.

use std::io;
use std::path::{Path, PathBuf};

use opabinia_eval::benchmark::BenchmarkError;
use opabinia_eval::scorer::ScorerError;
use thiserror::Error;

/// A failure of building, reading, reviewing or scoring.
#[derive(Debug, Error)]
pub enum CvBenchError {
    /// A file or folder cannot be read.
    #[error("cannot read {what} {}", path.display())]
    Read {
        /// What it is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Annotations are not the JSON that their format wants.
    #[error("{} are no {format} annotations", path.display())]
    Annotations {
        /// The file.
        path: PathBuf,
        /// What was expected.
        format: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// There is no picture to ask about.
    #[error("{what} in {}, of {faults} faulty entries the first is: {first}", path.display())]
    NoPictures {
        /// What is missing.
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// Entries that could not be used.
        faults: usize,
        /// One of them.
        first: String,
    },
    /// No source was named.
    #[error("no annotations were named, so there is nothing to build from")]
    NoSources,
    /// No question could be made.
    #[error("none of {candidates} candidates became a question")]
    NoQuestions {
        /// How many there were.
        candidates: usize,
    },
    /// A file of rules does not follow its format.
    #[error("{} are no rules: {problem}", path.display())]
    Rules {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A value of the rules cannot be worked with.
    #[error("the rule `{rule}` is {found}, but {wanted}")]
    Rule {
        /// Its name.
        rule: &'static str,
        /// Its value.
        found: String,
        /// What would do.
        wanted: &'static str,
    },
    /// The output folder holds something.
    #[error("{} is there already", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The output folder holds decisions of people.
    #[error("{} holds the decisions of a review, so it is not replaced", path.display())]
    Reviewed {
        /// The folder.
        path: PathBuf,
    },
    /// The output folder holds something that this program did not build.
    #[error("{} holds other files than a CV-Bench, so it is not replaced", path.display())]
    NotOurs {
        /// The folder.
        path: PathBuf,
    },
    /// A picture cannot be drawn on or stored.
    #[error("cannot make the picture {name}")]
    Picture {
        /// Its name.
        name: String,
        /// Why.
        source: opabinia_image::ImageError,
    },
    /// A Parquet file cannot be written.
    #[error("cannot write {}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why.
        source: parquet::errors::ParquetError,
    },
    /// Columns do not fit together.
    #[error("cannot lay out the columns of {}", path.display())]
    Columns {
        /// The file.
        path: PathBuf,
        /// Why.
        source: arrow_schema::ArrowError,
    },
    /// Something cannot be written as JSON.
    #[error("cannot write {} as JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A run of `eval` cannot be read, or has questions left.
    #[error(transparent)]
    Run(#[from] opabinia_eval::EvalError),
    /// Rows cannot be read.
    #[error(transparent)]
    Rows(#[from] BenchmarkError),
    /// There is no CV-Bench.
    #[error("{} holds no test_2d or test_3d, as .parquet or .jsonl", path.display())]
    NotPublished {
        /// The folder.
        path: PathBuf,
    },
    /// A row of a CV-Bench cannot be a question.
    #[error("row {row} of {}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// From 1.
        row: u64,
        /// Why.
        problem: String,
    },
    /// Two rows have one number.
    #[error("two questions have the number {idx}, the second in row {row} of {}", path.display())]
    Twice {
        /// The number.
        idx: i64,
        /// The file.
        path: PathBuf,
        /// From 1.
        row: u64,
    },
    /// A picture of a question is nowhere.
    #[error("question {idx} has no picture: neither inside its file nor at {}", path.display())]
    PictureMissing {
        /// The question.
        idx: i64,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A run of other benchmarks.
    #[error("the run `{}` was asked no CV-Bench", path.display())]
    NoBench {
        /// The run's folder.
        path: PathBuf,
    },
    /// A line of answers cannot be used.
    #[error("{place} of {}: {problem}", path.display())]
    Answer {
        /// The file.
        path: PathBuf,
        /// The line or the question.
        place: String,
        /// Why.
        problem: String,
    },
    /// Not every question has an answer.
    #[error("{missing} of {questions} questions have no answer, the first is question {first}")]
    Unanswered {
        /// How many.
        missing: usize,
        /// Of how many.
        questions: usize,
        /// The first of them.
        first: i64,
    },
    /// The figures cannot be computed.
    #[error(transparent)]
    Scores(#[from] ScorerError),
    /// The database of decisions fails.
    #[error("the database of decisions {} failed", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The database belongs to other questions.
    #[error(
        "{} holds decisions about other questions (its digest is {found}, that of these is {wanted})",
        path.display()
    )]
    OtherQuestions {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What these say.
        wanted: String,
    },
    /// A file is no database of decisions.
    #[error("{} is no database of decisions: {problem}", path.display())]
    NotDecisions {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A decision cannot be kept.
    #[error("{problem}")]
    Decision {
        /// Why.
        problem: String,
    },
    /// The page cannot be served.
    #[error("cannot serve the page at {address}")]
    Serve {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
}

impl CvBenchError {
    /// Why something could not be read.
    pub(crate) fn read(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { what, path, source }
    }

    /// Why something could not be written.
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }

    /// Why something is no JSON.
    pub(crate) fn json(path: &Path) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Json { path, source }
    }
}
