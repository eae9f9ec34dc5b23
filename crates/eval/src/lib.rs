//! The evaluation protocol: a model and a benchmark become scores.
//!
//! Most benchmarks of multimodal models can be answered in part without looking (Cambrian-1, section
//! 3.1, arXiv 2406.16860), so a score alone says little about vision. Here every question may be
//! asked several times, with its picture, without it, with another one's ([`Vision`]), and what is
//! reported beside the score is the visual gain ([`summary`]).
//!
//! ```text
//! questions.jsonl ─ QuestionSet::read ─▶ QuestionSet ─┐
//! benchmark files ─ Questions::read ─▶ Questions ─────┴─▶ Items
//! Items + Candidate ─ evaluate ─▶ Record per question and vision, in a RunFolder
//! RunFolder ─ Summary::of ─▶ rows with intervals and visual gain, as JSON, table, Markdown
//! RunFolders ─ merge ─▶ one, ─ diff ─▶ which is better and what differs, ─ run_scores ─▶ analysis
//! ```
//!
//! Beside it stands the traditional protocol, classifiers on frozen features: [`probe`].

pub mod analysis;
mod batches;
pub mod benchmark;
mod candidate;
mod description;
mod diff;
mod digest;
pub mod endpoint;
mod error;
mod examiner;
mod feature_cache;
mod figure;
mod interval;
mod items;
mod judge;
mod judging;
mod merge;
mod plan;
pub mod probe;
mod questions;
mod ranges;
mod record;
mod resample;
mod respondent;
mod run;
mod run_folder;
mod run_scores;
pub mod scorer;
mod settings;
mod submissions;
pub mod summary;
mod vision;

pub use candidate::{Candidate, Who};
pub use description::{Invocation, RunDescription, SetDescription, Way};
pub use diff::{RunDiff, SetDiff, diff};
pub use digest::hex;
pub use error::{EvalError, in_full};
pub use figure::{Figure, Scale, Score};
pub use interval::{Interval, Z, wilson, wilson_of};
pub use items::{Item, ItemSet, Items, Rules};
pub use judging::JudgeModel;
pub use merge::{Merged, merge};
pub use plan::Shard;
pub use questions::{PictureFile, Question, QuestionSet};
pub use ranges::Ranges;
pub use record::{Answered, Outcome, Record, Unscored};
pub use run::{EvalOptions, Evaluation, Progress, evaluate};
pub use run_folder::{RunFolder, current_records};
pub use run_scores::run_scores;
pub use scorer::{Expected, Scorer};
pub use summary::Summary;
pub use vision::Vision;

pub use opabinia_data::stays_inside;
