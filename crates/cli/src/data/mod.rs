//! `data`: looking at samples, and making mixtures of them.

mod check;
#[cfg(feature = "cluster")]
mod cluster;
mod convert;
mod curate;
mod rewrite;
mod show;
mod stats;
mod steps;
mod why;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use opabinia_curate::Watch;
use opabinia_curate::convert::Kind;
use opabinia_curate::look::Files;
use opabinia_curate::recipe::SourcesFile;

pub use self::show::BRANCH;
use crate::failure::Failure;
use crate::progress::Stages;
use crate::{Outcome, interrupt};

/// The verbs of `data`.
#[derive(Subcommand)]
pub enum Data {
    /// Check samples: schema, turns, placeholders, pictures, and whether anything can be learned.
    Check(check::Check),
    /// Count samples by source and category, and measure them.
    Stats(stats::StatsVerb),
    /// Show a sample as the model will see it.
    Show(show::Show),
    /// Turn other formats into lines of samples, or lines into other formats.
    Convert(convert::Convert),
    /// Make a mixture as a recipe says.
    Curate(curate::Curate),
    /// Keep at most so many samples of each source.
    Balance(steps::Balance),
    /// Mix categories by ratios to a total.
    Mix(steps::MixVerb),
    /// Keep the same sample once.
    Dedup(steps::DedupVerb),
    /// Drop samples that benchmarks ask or show.
    Decontaminate(steps::DecontaminateVerb),
    /// Add format prompts to the questions of sources that need them.
    Prompt(steps::PromptVerb),
    /// Have a served model write short answers out as sentences.
    Rewrite(rewrite::RewriteVerb),
    /// Work for the curations of a cluster.
    #[cfg(feature = "cluster")]
    Executor(cluster::ExecutorVerb),
    /// Hand the plans of curations to executors.
    #[cfg(feature = "cluster")]
    Scheduler(cluster::SchedulerVerb),
    /// Say what became of a sample in a mixture, and why.
    Why(why::Why),
}

impl Data {
    /// Does it.
    pub fn run(self) -> Outcome {
        match self {
            Self::Check(verb) => verb.run(),
            Self::Stats(verb) => verb.run(),
            Self::Show(verb) => verb.run(),
            Self::Convert(verb) => verb.run(),
            Self::Curate(verb) => verb.run(),
            Self::Balance(verb) => verb.run(),
            Self::Mix(verb) => verb.run(),
            Self::Dedup(verb) => verb.run(),
            Self::Decontaminate(verb) => verb.run(),
            Self::Prompt(verb) => verb.run(),
            Self::Rewrite(verb) => verb.run(),
            #[cfg(feature = "cluster")]
            Self::Executor(verb) => verb.run(),
            #[cfg(feature = "cluster")]
            Self::Scheduler(verb) => verb.run(),
            Self::Why(verb) => verb.run(),
        }
    }
}

/// Files to look at.
#[derive(Args)]
struct FilesArgs {
    /// Files of samples: one JSON object per line, or any other form that `data convert` reads.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Folder that the samples' pictures are in; without it, pictures are not looked for.
    #[arg(long)]
    images: Option<PathBuf>,
    /// TOML file that says which source is which; without it, a sample's own `source` does.
    #[arg(long)]
    sources: Option<PathBuf>,
}

impl FilesArgs {
    /// Whether no file can have pictures inside.
    fn all_outside(&self) -> Result<bool, Failure> {
        for file in &self.files {
            if !matches!(Kind::of(file)?, Kind::Lines) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn look(&self, decode: bool) -> Result<Files, Failure> {
        if decode && self.images.is_none() && self.all_outside()? {
            return Err(
                Failure::new("pictures cannot be decoded without `--images`")
                    .hint("name the folder that the samples' pictures are in"),
            );
        }
        let source = match &self.sources {
            Some(path) => SourcesFile::read(path)?.source,
            None => Vec::new(),
        };
        Ok(Files {
            files: self.files.clone(),
            images: self.images.clone(),
            decode,
            source,
            ..Files::default()
        })
    }
}

/// Runs something long under the eyes of whoever started it.
fn watched<T>(
    quiet: bool,
    work: impl FnOnce(&Watch<'_>) -> Result<T, opabinia_curate::CurateError>,
) -> Result<T, Failure> {
    interrupt::watch()?;
    let shown = (!quiet).then(Stages::new);
    let done = work(&Watch {
        progress: &|progress| {
            if let Some(shown) = &shown {
                shown.update(progress.stage, progress.done, progress.total);
            }
        },
        cancelled: &interrupt::asked,
    });
    if let Some(shown) = &shown {
        shown.finish();
    }
    done.map_err(Failure::from)
}

/// Bytes as people write them: `4GiB`, `512MiB`, `1000000`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("write a number and a unit: `4GiB`, `512MiB`".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "write a number and a unit: `4GiB`".to_owned())?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "that is too much".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        assert_eq!(parse_bytes("4GiB"), Ok(4 << 30));
        assert_eq!(parse_bytes("12 MB"), Ok(12_000_000));
        assert_eq!(parse_bytes("7"), Ok(7));
        for wrong in [
            "",
            "GiB",
            "4 GIB",
            "99999999999999999999GiB",
            "18446744073709551615GiB",
            "-1",
        ] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
