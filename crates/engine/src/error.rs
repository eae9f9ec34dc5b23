//! What can go wrong in the engine: with its own files, and with one job.

use std::path::PathBuf;

/// The engine cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A file could not be read or written.
    #[error("cannot {doing} `{}`", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The state could not be read or written.
    #[error("cannot use the state of the run")]
    State(#[from] rusqlite::Error),
    /// The state holds what no version of this program writes.
    #[error("the state of the run is damaged: {0}")]
    Damaged(String),
    /// A plan cannot be used.
    #[error("{place}: {problem}")]
    Plan {
        /// File, and line where one can be named.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// The folder belongs to another plan.
    #[error(
        "`{}` holds a run of another plan, or a replay; fields may be added, and budgets, rates, time-outs and \
         filters may change, but the rest needs a new folder",
        folder.display()
    )]
    OtherPlan {
        /// The folder.
        folder: PathBuf,
    },
    /// Another process works in the folder.
    #[error("`{}` is in use by another process", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// There is no run.
    #[error("there is no run in `{}`: no `state.sqlite`", folder.display())]
    NoRun {
        /// The folder.
        folder: PathBuf,
    },
    /// A served model cannot be asked.
    #[error(transparent)]
    Endpoint(#[from] opabinia_endpoint::EndpointError),
    /// A picture of the pool could not be written.
    #[error(transparent)]
    Image(#[from] opabinia_image::ImageError),
    /// A pool to compare with cannot be read.
    #[error(transparent)]
    Data(#[from] opabinia_data::DataError),
    /// A pool to compare with is no text.
    #[error(
        "cannot compare with `{file}` of `filters.pools`: it is {what}, and pools are read as lines of JSON; \
         write it as lines by `opabinia data convert {file} --out FOLDER`, and name the files of that folder",
        file = path.display()
    )]
    PackedPool {
        /// The file.
        path: PathBuf,
        /// What its first bytes say.
        what: &'static str,
    },
    /// Somebody asked for an end before anything was asked.
    #[error("interrupted")]
    Interrupted,
    /// A replay was to be made in the folder that it is to be compared with.
    #[error("a replay of `{}` needs another folder, and this is the same folder", folder.display())]
    SameFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// The replayed pool is not the one that was made.
    #[error("the replay differs from the run in {}", differing.join(", "))]
    Differs {
        /// The files.
        differing: Vec<String>,
    },
}

impl EngineError {
    /// For `map_err` of file operations.
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

/// Why a run stopped before its end; the same command goes on from there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// A budget is used up.
    #[error("the budget of {what} is used up: {spent} of {limit}; raise `budget.{what}` to go on")]
    Budget {
        /// `tokens`, `money` or `requests`.
        what: &'static str,
        /// What was spent.
        spent: String,
        /// What may be.
        limit: String,
    },
    /// A host fails again and again.
    #[error("`{host}` failed {times} times in a row, the last time with: {reason}")]
    HostDown {
        /// The host.
        host: String,
        /// How often.
        times: u32,
        /// The last failure.
        reason: String,
    },
    /// A service says no to whoever asks.
    #[error("a service that the plan names refuses to answer: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// Somebody asked for it.
    #[error("interrupted")]
    Interrupted,
}

/// Why a job has no result.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It failed for good, or for this time.
    Failed(Failure),
    /// The run stops; the job stays to be done.
    Stop(Stop),
    /// A replay has no answer to this; the job stays to be done.
    Unrecorded,
    /// The engine itself cannot go on.
    Engine(EngineError),
}

/// A failure that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Whether another time could be better.
    pub transient: bool,
    /// A word for counting, such as `status` or `robots`.
    pub kind: &'static str,
    /// What happened.
    pub message: String,
}

impl Failure {
    pub(crate) fn lasting(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            transient: false,
            kind,
            message: message.into(),
        }
    }

    pub(crate) fn passing(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            transient: true,
            kind,
            message: message.into(),
        }
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl<E: Into<EngineError>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Engine(error.into())
    }
}
