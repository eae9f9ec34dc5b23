//! What is done with runs: merging and comparing.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use opabinia_eval::analysis::compare::{Differing, Flip, p_value};
use opabinia_eval::{SetDiff, diff, merge};

use super::run::{VisionArg, table};
use crate::{Outcome, output};

/// See [`merge`].
#[derive(Args)]
pub struct Merge {
    /// Folders of runs of one model.
    #[arg(required = true, value_name = "FOLDER")]
    runs: Vec<PathBuf>,
    /// Folder of the whole; it must not exist, or be empty.
    #[arg(short, long, value_name = "FOLDER")]
    out: PathBuf,
    /// The summary as one JSON object on standard output, instead of the table.
    #[arg(long)]
    json: bool,
}

impl Merge {
    /// Merges, and shows the scores of all.
    pub fn run(self) -> Outcome {
        let merged = merge(&self.runs, &self.out)?;
        let summary = &merged.summary;
        if self.json {
            output::data(&serde_json::to_string(summary)?);
        } else {
            output::data(&table(summary));
        }
        if merged.twice > 0 {
            output::note(&format!(
                "{} questions were asked by several runs; one record of each was kept",
                merged.twice
            ));
        }
        for path in &merged.submissions {
            output::note(&format!("for the benchmark's server: {}", path.display()));
        }
        output::note(&format!(
            "{} of {} questions are there; the run is in {}",
            summary.wanted - summary.unfinished,
            summary.wanted,
            self.out.display()
        ));
        Ok(ExitCode::SUCCESS)
    }
}

/// See [`diff`].
#[derive(Args)]
pub struct Diff {
    /// Folder of a finished run.
    first: PathBuf,
    /// Folder of another; differences are second minus first.
    second: PathBuf,
    /// Which way of asking is compared.
    #[arg(long, value_enum, default_value = "on")]
    vision: VisionArg,
    /// How many flipped questions are shown of each kind; --json has them all.
    #[arg(long, default_value_t = 10)]
    flips: usize,
    /// Everything as one JSON object on standard output.
    #[arg(long)]
    json: bool,
}

impl Diff {
    /// Compares, and shows each benchmark.
    pub fn run(self) -> Outcome {
        let found = diff(&self.first, &self.second, self.vision.into())?;
        if self.json {
            output::data(&serde_json::to_string(&found)?);
            return Ok(ExitCode::SUCCESS);
        }
        for set in &found.sets {
            output::data(&self.shown(set));
        }
        for (names, which) in [(&found.only_first, "first"), (&found.only_second, "second")] {
            if !names.is_empty() {
                output::note(&format!(
                    "only the {which} run was asked {}, which counts nowhere",
                    names.join(", ")
                ));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn shown(&self, set: &SetDiff) -> String {
        let found = &set.comparison;
        let percent = |share: f64| format!("{:.1}", 100.0 * share);
        let mut lines = vec![
            format!("{} ({})", set.benchmark, set.vision),
            format!("  {}", found.verdict()),
            format!(
                "  {} of {} questions: {} and {}",
                found.shared,
                found.shared + found.only_first.len() + found.only_second.len(),
                percent(found.first_mean),
                percent(found.second_mean)
            ),
        ];
        if let Some(test) = found.mcnemar {
            lines.push(format!(
                "  McNemar: {} right only in the first, {} only in the second, {}",
                test.only_first,
                test.only_second,
                p_value(test.p)
            ));
        }
        if let Some(clustered) = found.clustered {
            lines.push(format!(
                "  questions about one picture depend on each other: {} pictures or units",
                clustered.clusters
            ));
        }
        lines.extend(self.flips("gained", &found.gained));
        lines.extend(self.flips("lost", &found.lost));
        for (ids, which) in [(&found.only_first, "first"), (&found.only_second, "second")] {
            if let Some(id) = ids.first() {
                lines.push(format!(
                    "  {} questions only in the {which}, such as {id}; they count nowhere",
                    ids.len()
                ));
            }
        }
        for (count, which) in [
            (set.unscored_first, "first"),
            (set.unscored_second, "second"),
        ] {
            if count > 0 {
                lines.push(format!(
                    "  {count} answers of the {which} were not judged; they count nowhere"
                ));
            }
        }
        match found.differing.as_slice() {
            [] => lines.push("  made with the same prompt, data, weights and settings".to_owned()),
            differing => {
                lines.push("  made with other:".to_owned());
                lines.extend(differing.iter().map(differing_line));
            }
        }
        lines.join("\n")
    }

    fn flips(&self, what: &str, flips: &[Flip]) -> Option<String> {
        if flips.is_empty() {
            return None;
        }
        let shown: Vec<&str> = flips
            .iter()
            .take(self.flips)
            .map(|flip| flip.id.as_str())
            .collect();
        let more = match flips.len() - shown.len() {
            0 => String::new(),
            left => format!(" and {left} more"),
        };
        Some(format!(
            "  {what} {}: {}{more}",
            flips.len(),
            shown.join(", ")
        ))
    }
}

fn differing_line(differing: &Differing) -> String {
    let short = |text: &Option<String>| match text {
        // Digests are told apart by their beginning.
        Some(text) if text.len() == 64 && !text.contains(' ') => text.chars().take(12).collect(),
        Some(text) => text.clone(),
        None => "nothing".to_owned(),
    };
    format!(
        "    {}: {} and {}",
        differing.name,
        short(&differing.first),
        short(&differing.second)
    )
}
