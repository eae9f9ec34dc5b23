//! Looking at files of samples without changing them: checks and statistics.
//!
//! Both walk over all lines, several parts at a time, and hand what they find on in the order of the
//! files, so that the same files give the same report. Files in other forms are read as a stream.

mod check;
mod histogram;
mod stats;
mod walk;

use std::path::PathBuf;

pub use check::{BadLine, Checked, Trains, check, has_an_answer};
pub use histogram::Histogram;
pub use stats::{SourceStats, Stats, stats};
pub use walk::{LineWithPictures, nth};

use crate::sources::SourceRule;

/// What is looked at.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The files, in order.
    pub files: Vec<PathBuf>,
    /// The folder that paths of pictures start from.
    pub images: Option<PathBuf>,
    /// Whether pictures are decoded.
    pub decode: bool,
    /// Whether pictures inside of files are decoded, whatever is done about others.
    pub decode_inside: bool,
    /// Which source is which.
    pub source: Vec<SourceRule>,
}
