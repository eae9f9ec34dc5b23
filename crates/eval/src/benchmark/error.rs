//! What can go wrong between the name of a benchmark and its questions.
//!
//! What is wrong with a single row is no error but a [`Fault`](super::Fault): counted and listed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Below this, names have nothing to do with each other.
const SIMILAR: f64 = 0.6;

/// The questions of a benchmark could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BenchmarkError {
    /// A file cannot be read.
    #[error("cannot read the {what} `{}`", path.display())]
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
    /// A definition is no TOML, or a value is of another kind.
    #[error("{place}: {message}")]
    Toml {
        /// Where.
        place: Place,
        /// What the parser says.
        message: String,
    },
    /// A name that definitions do not know.
    #[error(
        "{place}: definitions of benchmarks know no `{name}` here{}; allowed: {}",
        did_you_mean(nearest.as_deref()),
        allowed.join(", ")
    )]
    UnknownKey {
        /// Where.
        place: Place,
        /// What was found.
        name: String,
        /// The most similar name that is known.
        nearest: Option<String>,
        /// All that are known.
        allowed: Vec<String>,
    },
    /// A value of a definition that cannot be used.
    #[error("{place}: `{key}` cannot be used: {problem}")]
    Value {
        /// Where.
        place: Place,
        /// The key.
        key: String,
        /// What is wrong, and what should be there.
        problem: String,
    },
    /// No benchmark has this name.
    #[error("there is no benchmark `{name}`{}", did_you_mean(nearest.as_deref()))]
    UnknownBenchmark {
        /// What was asked for.
        name: String,
        /// The most similar name that is known.
        nearest: Option<String>,
    },
    /// The files of a benchmark are nowhere.
    #[error(
        "the questions of `{benchmark}` are not here: no {wanted}; looked in {}",
        looked.join(", ")
    )]
    NotFound {
        /// The benchmark.
        benchmark: String,
        /// What was looked for.
        wanted: String,
        /// Where.
        looked: Vec<String>,
    },
    /// Of a file in parts some are missing.
    #[error(
        "`{}` is one of {expected} parts, but only {found} are there; fetch the others",
        path.display()
    )]
    MissingParts {
        /// One of those that are there.
        path: PathBuf,
        /// How many there should be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A definition uses a column that the file does not have.
    #[error(transparent)]
    MissingColumn(Box<MissingColumn>),
    /// A file is not what its name says.
    #[error("{}:{line}: {problem}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// The line or row, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A Parquet file cannot be understood.
    #[error("cannot read `{}` as Parquet; fetch it again", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The reader's reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nobody reads this format.
    #[error(
        "`{}` has no known format; wanted .parquet, .jsonl, .json, .csv or .tsv, or `format` in \
         the definition",
        path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The hub did not give a file.
    #[error("cannot fetch `{file}` of the data set `{repo}` ({revision}): {problem}")]
    Hub {
        /// The data set.
        repo: String,
        /// Its revision.
        revision: String,
        /// The file, or what else was asked for.
        file: String,
        /// What happened.
        problem: String,
    },
    /// A file has no question.
    #[error(
        "benchmark `{benchmark}` has no questions: {rows} rows, {left_out} left out by `keep`, \
         {faulty} faulty{}",
        first.as_ref().map(|fault| format!("; the first: {fault}")).unwrap_or_default()
    )]
    NoQuestions {
        /// The benchmark.
        benchmark: String,
        /// How many rows there are.
        rows: usize,
        /// How many `keep` left out.
        left_out: usize,
        /// How many cannot be used.
        faulty: usize,
        /// The first that cannot be used.
        first: Option<String>,
    },
    /// A submission cannot be written.
    #[error("cannot write a submission of `{benchmark}`: {problem}")]
    Submission {
        /// The benchmark.
        benchmark: String,
        /// What is missing.
        problem: String,
    },
}

/// A definition uses a column that the file does not have.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{}` has no column `{column}`, which `{key}` of benchmark `{benchmark}` uses{}; its columns: {}",
    path.display(),
    did_you_mean(nearest.as_deref()),
    columns.join(", ")
)]
pub struct MissingColumn {
    /// The benchmark.
    pub benchmark: String,
    /// Which key of its definition.
    pub key: String,
    /// The column.
    pub column: String,
    /// The file.
    pub path: PathBuf,
    /// The most similar column.
    pub nearest: Option<String>,
    /// All columns.
    pub columns: Vec<String>,
}

/// Where in a definition something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1, where one can be named.
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        match self.line {
            Some(line) => write!(f, ":{line}"),
            None => Ok(()),
        }
    }
}

impl BenchmarkError {
    /// For `map_err` where something is read.
    pub(super) fn read(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { what, path, source }
    }

    /// For `map_err` where something is written.
    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }
}

/// The known name that is most like this one, if any is.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let known = known.into_iter();
    let rated = known.map(|known| (strsim::jaro_winkler(known, name), known));
    rated
        .filter(|(similarity, _)| *similarity > SIMILAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known.to_owned())
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest
        .map(|name| format!(", did you mean `{name}`?"))
        .unwrap_or_default()
}
