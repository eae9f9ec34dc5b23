//! CV-Bench: annotations of pictures become questions that need sight, people review them, and
//! answers are scored (Cambrian-1, section 3.3 and appendix, arXiv 2406.16860).
//!
//! ```text
//! COCO, ADE20K, Omni3D files ─ source ─▶ Corpus: pictures with classes, boxes and solids
//! Corpus + Rules ─ candidate ─▶ everything that could be asked, or why not
//! candidates ─ select ─▶ a balanced choice of the wanted size
//! choice + pictures ─ build ─▶ folder: Parquet, JSONL, pictures with boxes, report
//! folder ─ Published::read ─▶ questions ─ review ─▶ decisions ─ revise ─▶ folder
//! folder + answers ─ score ─▶ the formula of the paper
//! ```
//!
//! What this crate decides:
//!
//! - **Nothing is dropped silently.** Every candidate has exactly one fate, and the report's counts
//!   add up; a broken annotation is a listed fault.
//! - **Same files, rules and seed, same bytes**, for any number of threads.
//! - **What the paper leaves open is a rule with a value**, written beside the result.
//! - **What people decide is kept apart from what was built**, in a database that is only ever added
//!   to.

pub mod build;
pub mod candidate;
mod compose;
mod draw;
mod error;
mod geometry;
mod progress;
mod published;
mod question;
mod report;
pub mod review;
mod revise;
mod rules;
pub mod score;
mod select;
pub mod source;
mod stream;
mod wording;
mod write;

pub use build::{Built, build};
pub use error::CvBenchError;
pub use geometry::{Box2, Solid};
pub use progress::Progress;
pub use published::Published;
pub use question::{Question, Task};
pub use report::{Cell, Report, Spread, summarise};
pub use revise::{Revised, revise};
pub use rules::{Anchor, Plural, Rules};
pub use select::Fate;
pub use write::DECISIONS;
