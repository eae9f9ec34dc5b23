//! From a pool of samples to a mixture: the data pillar's workshop.
//!
//! Pillar 4 of Cambrian-1 (arXiv 2406.16860, section 4): ten million samples become seven by caps,
//! ratios and format prompts. One pass reads every line and writes an index ([`part`]); everything is
//! decided over the index alone ([`plan`], [`select`], [`counts`]); the text is then copied once, by
//! ranges of bytes ([`copy`]), and a [`ledger`] says of every line what became of it. Same inputs, same
//! recipe: same bytes, whatever the number of threads.

pub mod benchmarks;
pub mod classify;
#[cfg(feature = "cluster")]
pub mod cluster;
pub mod convert;
pub mod copy;
pub mod counts;
pub mod error;
mod hash;
pub mod index;
pub mod job;
pub mod ledger;
pub mod lines;
pub mod look;
pub mod looks;
pub mod manifest;
pub mod minhash;
pub mod near;
pub mod page;
pub mod part;
mod partial;
pub mod places;
pub mod plain;
pub mod plan;
pub mod prompt;
pub mod recipe;
mod recipe_check;
pub mod rewrite;
pub mod run;
pub mod select;
pub mod sources;
mod strangers;
mod summaries;
pub mod table;
mod toml_file;

pub use error::CurateError;
pub use manifest::Manifest;
pub use recipe::Recipe;
pub use run::{Options, Progress, Watch, curate};
