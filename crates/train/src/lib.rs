//! The two-stage recipe: from a TOML file to a checkpoint.

pub mod clip;
pub mod compare;
pub mod engine;
pub mod error;
pub mod groups;
pub mod job;
pub mod lexical;
pub mod lora;
pub mod optimizer;
pub mod parallel;
pub mod pretrain;
pub mod recipe;
pub mod scaling;
pub mod schedule;
pub mod stage;
pub mod task;

pub use error::TrainError;
pub use task::{BatchSize, LossSum, Metric, Task};
