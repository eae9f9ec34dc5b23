//! What can go wrong between pictures with labels and the score of an encoder.

use std::io;
use std::path::{Path, PathBuf};

use opabinia_data::{DataError, FaultLimit};
use opabinia_image::PrepareError;
use opabinia_vision::VisionError;

/// A probe could not be made. A picture that cannot be used is no error but listed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A file or folder cannot be read.
    #[error("cannot read {what} `{}`", path.display())]
    Read {
        /// What was to be read.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Annotations that are none.
    #[error("`{}` is no COCO file of instances", path.display())]
    Annotations {
        /// The file.
        path: PathBuf,
        /// What the reader found.
        #[source]
        source: serde_json::Error,
    },
    /// Pictures and labels that cannot be used.
    #[error("cannot probe with `{}`: {problem}", path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What was found, and what is wanted.
        problem: String,
    },
    /// An option is out of range.
    #[error("cannot probe: `{option}` is {found}, wanted {wanted}")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        wanted: &'static str,
    },
    /// More pictures cannot be used than may be.
    #[error(
        "{bad} of {of} pictures and entries cannot be used, and at most {limit} may: {examples}; \
         `--max-bad` allows for more"
    )]
    TooManyFaults {
        /// How many so far.
        bad: usize,
        /// Of how many.
        of: usize,
        /// How many may be.
        limit: FaultLimit,
        /// The first of them.
        examples: String,
    },
    /// Pictures do not make a batch for an encoder.
    #[error("cannot prepare `{}` for `{encoder}`", path.display())]
    Prepare {
        /// The first of them.
        path: PathBuf,
        /// The encoder's name.
        encoder: String,
        /// Why.
        #[source]
        source: PrepareError,
    },
    /// Features cannot be taken from the device.
    #[error("the features of `{encoder}` are no numbers of 32 bits: {problem}")]
    Features {
        /// The encoder's name.
        encoder: String,
        /// What the tensor says.
        problem: String,
    },
    /// An encoder cannot do what was asked of it.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// The cache of features cannot be used.
    #[error("cannot use the cache of features")]
    Cache(#[source] DataError),
}

impl ProbeError {
    /// For `map_err` where something is read.
    pub(super) fn read(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { what, path, source }
    }
}
