//! How far long work is.

/// What is being done, and how much of it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// In a word or two, for people.
    pub what: &'static str,
    /// Pieces that are done.
    pub done: usize,
    /// Pieces in all.
    pub total: usize,
}
