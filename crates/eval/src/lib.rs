//! The evaluation protocol: a model and a benchmark become scores.
//!
//! Most benchmarks of multimodal models can be answered in part without looking (Cambrian-1, section
//! 3.1, arXiv 2406.16860), so a score alone says little about vision. Here every question may be
//! asked several times, with its picture, without it, with another one's ([`Vision`]), and what is
//! reported beside the score is the visual gain ([`summary`]).
//!
//! ```text
//! questions.jsonl ─ QuestionSet::read ─▶ QuestionSet
//! QuestionSet + Candidate ─ evaluate ─▶ Record per question and vision, in a RunFolder
//! Records ─ Summary::of ─▶ rows with intervals and visual gain, as JSON, table, Markdown
//! ```

pub mod analysis;
pub mod benchmark;
mod candidate;
mod digest;
pub mod endpoint;
mod error;
mod examiner;
mod interval;
mod judge;
mod plan;
mod questions;
mod record;
mod run;
mod run_folder;
mod run_scores;
pub mod scorer;
mod settings;
pub mod summary;
mod vision;

pub use candidate::Candidate;
pub use error::EvalError;
pub use interval::{Interval, wilson};
pub use plan::Shard;
pub use questions::{PictureFile, Question, QuestionSet};
pub use record::{Answered, Outcome, Record};
pub use run::{EvalOptions, Evaluation, Progress, evaluate};
pub use run_folder::RunFolder;
pub use run_scores::run_scores;
pub use scorer::{Expected, Scorer};
pub use summary::Summary;
pub use vision::Vision;
