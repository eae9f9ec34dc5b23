//! The ledger: what was dropped, where and why, and what was kept.

use std::collections::BTreeMap;

use serde::Serialize;

/// One line.
#[derive(Clone, Debug, Serialize)]
struct Entry {
    unit: String,
    what: String,
    kept: bool,
    reason: String,
    why: String,
}

/// What became of everything, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger(Vec<Entry>);

impl Ledger {
    /// Notes that something is not used.
    pub(super) fn drop(&mut self, unit: &str, what: &str, reason: &str, why: impl Into<String>) {
        self.0.push(Entry {
            unit: unit.to_owned(),
            what: what.to_owned(),
            kept: false,
            reason: reason.to_owned(),
            why: why.into(),
        });
    }

    /// Notes that a question is in the pool.
    pub(super) fn keep(&mut self, id: &str) {
        self.0.push(Entry {
            unit: "question".to_owned(),
            what: id.to_owned(),
            kept: true,
            reason: "kept".to_owned(),
            why: String::new(),
        });
    }

    /// How often each reason is there, by unit.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for entry in &self.0 {
            let name = format!("{}: {}", entry.unit, entry.reason);
            *counts.entry(name).or_default() += 1;
        }
        counts
    }

    /// One JSON object per line.
    pub(super) fn lines(&self) -> Result<String, serde_json::Error> {
        let mut text = String::new();
        for entry in &self.0 {
            text += &serde_json::to_string(entry)?;
            text.push('\n');
        }
        Ok(text)
    }
}
