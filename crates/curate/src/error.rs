//! Why a curation, or a look at a pool, could not be made. What is wrong with a single sample is no
//! error: it is counted, listed and kept in the ledger.

use std::io;
use std::path::{Path, PathBuf};

/// A curation ended early.
#[derive(Debug, thiserror::Error)]
pub enum CurateError {
    /// A file or folder cannot be read or written.
    #[error("cannot {doing} `{}`", .path.display())]
    Io {
        /// What was being done: "read", "write", ….
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A TOML file cannot be used.
    #[error("{place}: {problem}")]
    Recipe {
        /// File, and line where it is known.
        place: String,
        /// What was found, and what is wanted.
        problem: String,
    },
    /// A path that this program would have to write down is no text.
    #[error("the path `{}` is not UTF-8; rename it, or make a link to it whose name is", .path.display())]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// Pictures are inside of a file whose lines are wanted.
    #[error(
        "`{0}` has pictures inside, and samples of a pool name theirs by a path; unpack it once by \
         `opabinia data convert '{0}' --out FOLDER`, then name `FOLDER/samples-*.jsonl` in its place and \
         `FOLDER/images` as the folder of pictures",
        .path.display()
    )]
    PicturesInside {
        /// The file.
        path: PathBuf,
    },
    /// A file is not what its name or place promises.
    #[error("`{}`: {problem}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
    },
    /// The output is there already and belongs to something else.
    #[error("`{}` is there already and {what}; name another folder, or remove it", .path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// What it holds.
        what: &'static str,
    },
    /// Too many samples cannot be used.
    #[error("{bad} of {lines} samples cannot be used ({kinds}); `input.max_bad` allows {limit}")]
    TooManyBad {
        /// Number of those.
        bad: u64,
        /// Number of all.
        lines: u64,
        /// How many of which kind.
        kinds: String,
        /// The limit.
        limit: String,
    },
    /// The counts of a mixture cannot be computed.
    #[error("cannot mix: {problem}")]
    Mix {
        /// Why not.
        problem: String,
    },
    /// Totals do not add up: a fault of this program.
    #[error("the ledger does not add up: {what}; nothing was written")]
    DoesNotAddUp {
        /// Which numbers.
        what: String,
    },
    /// The query engine failed.
    #[error("cannot {doing}")]
    Query {
        /// What was being done.
        doing: &'static str,
        /// What it says.
        source: Box<datafusion::error::DataFusionError>,
    },
    /// A Parquet file cannot be read or written.
    #[error("cannot {doing} `{}`", .path.display())]
    Parquet {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the library says.
        source: parquet::errors::ParquetError,
    },
    /// A file of samples or pictures cannot be used.
    #[error(transparent)]
    Data(#[from] opabinia_data::DataError),
    /// Who rewrites answers does not answer.
    #[error("the model that rewrites answers cannot be asked; what it said is kept")]
    Author {
        /// What happened.
        source: Box<opabinia_endpoint::EndpointError>,
    },
    /// The budget of rewriting ends before the last answer.
    #[error(
        "the budget of `rewrite` is used up after {requests} answers and {tokens} tokens, and some are not written \
         yet; a larger one goes on from here, and with `finish = true` the others stay as they are"
    )]
    OutOfBudget {
        /// Answers of the model, over all runs.
        requests: u64,
        /// Tokens of questions and answers.
        tokens: u64,
    },
    /// This program was built without clusters.
    #[error(
        "this program was built without clusters; build it with `cargo build --release --features cluster`"
    )]
    NoCluster,
    /// The URL of a cluster's scheduler is none.
    #[error("`{url}` is no address of a scheduler; wanted such as `df://localhost:50050`")]
    ClusterUrl {
        /// What was given.
        url: String,
    },
    /// A scheduler or executor ended.
    #[error("cannot {doing}")]
    Cluster {
        /// What was being done.
        doing: &'static str,
        /// What it says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Somebody asked for an end.
    #[error("interrupted")]
    Interrupted,
}

impl CurateError {
    /// For `map_err` on file operations.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }

    /// For `map_err` on operations of Parquet files.
    pub(crate) fn parquet(
        doing: &'static str,
        path: &Path,
    ) -> impl FnOnce(parquet::errors::ParquetError) -> Self {
        let path = path.to_owned();
        move |source| Self::Parquet {
            doing,
            path,
            source,
        }
    }

    /// For `map_err` on queries.
    pub(crate) fn query(
        doing: &'static str,
    ) -> impl FnOnce(datafusion::error::DataFusionError) -> Self {
        move |source| Self::Query {
            doing,
            source: Box::new(source),
        }
    }
}
