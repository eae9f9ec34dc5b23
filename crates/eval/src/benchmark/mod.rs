//! Benchmarks: what is asked, where it comes from, what is right.
//!
//! A benchmark is one TOML file ([`BenchmarkDefinition`]). Those of the paper (Cambrian-1, section 3.1,
//! arXiv 2406.16860) are built in, with the prompts of its reference implementation; a folder of the
//! user's adds more, or replaces some ([`Catalogue`]).
//!
//! ```text
//! Catalogue::find(name) ─▶ BenchmarkDefinition
//! BenchmarkDefinition + Library ─ Questions::read ─▶ Vec<BenchmarkQuestion>, Vec<Fault>, Counts
//! questions + answers ─ submission::write ─▶ the file that a benchmark's server wants
//! ```

mod answer;
mod catalogue;
mod check;
mod definition;
mod error;
mod expression;
mod fault;
mod options;
mod picture;
mod picture_finder;
mod places;
mod questions;
mod row;
mod rules;
mod source;
pub mod submission;

pub use catalogue::{Catalogue, Entry};
pub use definition::{
    AnswerKind, BenchmarkDefinition, Chance, ChanceOf, Effective, FieldTable, Format, Group,
    JoinTable, PromptTable, ReferenceTable, RowTable, ScoringTable, SourceTable, SubmissionFormat,
    SubmissionRows, SubmissionTable,
};
pub use error::{BenchmarkError, MissingColumn, Place};
pub use fault::{Fault, FaultKind};
pub use picture::{PictureData, PicturePlace, PictureStore, looks_like_picture};
pub use questions::{BenchmarkQuestion, Counts, Questions};
pub use row::{Cell, Row};
pub(crate) use source::file_digest;
pub use source::{Fetch, FileDigest, Library, Listing, Rows, rows};

/// What stands for a picture in a prompt.
pub const IMAGE_PLACEHOLDER: &str = "<image>";

/// A prompt as the reference gives it to the conversation: the placeholder on a line of its own
/// before the question; nothing before it where there is no picture.
#[must_use]
pub fn with_placeholder(prompt: &str, has_picture: bool) -> String {
    match has_picture {
        true => format!("{IMAGE_PLACEHOLDER}\n{prompt}"),
        false => prompt.to_owned(),
    }
}
