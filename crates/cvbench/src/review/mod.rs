//! Review by people: a page on this machine where questions are accepted, rejected or mended with the
//! keyboard, as every question of CV-Bench was (Cambrian-1, appendix).
//!
//! ```text
//! Published + Decisions ─ serve ─▶ page ─ keys ─▶ Decisions (SQLite) ─▶ JSONL, or a revised CV-Bench
//! ```
//!
//! The page is one file without anything from elsewhere, and works without a mouse. Decisions are only
//! ever added: undoing one is a row of its own, so that who decided what and when stays known.

mod decisions;
mod guard;
mod server;

pub use decisions::{Counts, Decision, Decisions, Mended, Verdict};
pub use server::{Review, serve};
