//! `data why`: what became of a sample.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use opabinia_curate::ledger::{self, Entry};
use serde_json::json;

use crate::failure::Failure;
use crate::{Outcome, output};

/// Say what became of a sample in a mixture, and why.
#[derive(Args)]
pub struct Why {
    /// The sample's `id`, or where it is written: `FILE:LINE`.
    sample: String,
    /// Folder that `data curate` wrote.
    #[arg(long)]
    pool: PathBuf,
    /// Print entries of the ledger as JSON.
    #[arg(long)]
    json: bool,
    /// Show at most that many; an `id` may occur often.
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

impl Why {
    /// Does it.
    pub fn run(self) -> Outcome {
        let place = self.sample.rsplit_once(':');
        let place = place.and_then(|(file, line)| Some((file, line.parse::<u64>().ok()?)));
        let is_meant = |entry: &Entry| {
            let at = place.is_some_and(|(file, line)| {
                let same = entry.file == file || std::path::Path::new(&entry.file).ends_with(file);
                line == entry.line && same
            });
            at || entry.id.as_deref() == Some(self.sample.as_str())
        };
        let found = ledger::find(&self.pool, self.limit, &is_meant)?;
        if found.is_empty() {
            return Err(Failure::new(format!(
                "no sample `{}` in the ledger of `{}`",
                self.sample,
                self.pool.display()
            ))
            .hint("name its `id`, or its file and line as `FILE:LINE`"));
        }
        for entry in &found {
            match self.json {
                true => output::data(&json!(entry).to_string()),
                false => output::data(&sentence(entry)),
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn sentence(entry: &Entry) -> String {
    let id = entry
        .id
        .as_ref()
        .map(|id| format!(" (id {id})"))
        .unwrap_or_default();
    let of = entry
        .source
        .as_ref()
        .map(|source| format!(" of `{source}`"))
        .unwrap_or_default();
    let place = format!("{}:{}{id}{of}", entry.file, entry.line);
    match (&entry.shard, entry.shard_line) {
        (Some(shard), Some(line)) => format!("{place}: kept, `{shard}:{line}`"),
        _ => format!("{place}: dropped ({}): {}", entry.outcome, entry.why),
    }
}
