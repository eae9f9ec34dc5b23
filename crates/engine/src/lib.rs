//! The internet data engine: fields and topics become new samples from the web, with provenance
//! (Cambrian-1, arXiv 2406.16860, section 4.1).
//!
//! ```text
//! plan ─ fields ─▶ subfields ─▶ topics ─▶ pages ─▶ sections with pictures and captions
//!      ─▶ pictures ─▶ questions and answers ─▶ agreement ─▶ filters ─▶ pool
//! ```
//!
//! What this crate decides:
//!
//! - **A run is a function of its plan and of what was answered.** Everything from outside comes through
//!   one door that archives it; [`replay`] makes the same pool, byte for byte, without a network.
//! - **Nothing is asked twice.** Jobs are rows of a database, known by what they are about; a run that was
//!   killed goes on.
//! - **Nothing is dropped silently.** Each page, section, picture and question that is not used is in the
//!   ledger, with the reason.

#![forbid(unsafe_code)]

mod agreement;
mod ask;
mod charset;
mod error;
mod files;
mod filter;
mod html;
mod known;
mod outside;
mod page;
mod picture;
mod plan;
mod pool;
mod prompts;
mod run;
mod search;
mod stages;
mod store;
mod web;
mod wiki;

pub use error::{EngineError, Stop};
pub use html::{Figure, Section, plain, sections};
pub use known::KnownPool;
pub use page::sample_page;
pub use plan::{
    AgreementTable, BudgetTable, Field, FiltersTable, Finder, LlmTable, PicturesTable, Plan,
    QuestionsTable, Rate, SearchTable, SectionsTable, Structured, Svg, TopicsTable, WebTable,
    WikiTable,
};
pub use pool::Summary;
pub use run::{Progress, Report, RunOptions, replay, run, status};
pub use store::{Cost, StageStatus};
