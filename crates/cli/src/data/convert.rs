//! `data convert`: other formats in and out.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use opabinia_curate::CurateError;
use opabinia_curate::convert::{Conversion, To, convert};
use serde_json::json;

use super::watched;
use crate::{Outcome, output};

/// Turn files of other formats into lines of samples, or lines into other formats.
///
/// Read are JSON lines, arrays of JSON, ShareGPT and chat messages, Parquet with pictures inside, and
/// WebDataset tar files, all but Parquet also inside of gzip or Zstandard. The bytes decide, not the name.
/// What this program wrote as Parquet or WebDataset comes back as it was.
#[derive(Args)]
pub struct Convert {
    /// Files, in order.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Folder to write.
    #[arg(short, long)]
    out: PathBuf,
    /// What is written.
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    to: Format,
    /// Folder of the samples' pictures, to put them inside of Parquet and WebDataset files.
    #[arg(long)]
    images: Option<PathBuf>,
    /// Samples of a shard.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    shard_samples: u64,
    /// Print what came of it as JSON.
    #[arg(long)]
    json: bool,
    /// No progress.
    #[arg(short, long)]
    quiet: bool,
}

/// What is written.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// One JSON object per line; pictures from inside of the files go to `images/`.
    Jsonl,
    /// Parquet, with pictures inside.
    Parquet,
    /// Tar files of `KEY.json` and `KEY.jpg`.
    Webdataset,
}

impl Convert {
    /// Does it.
    pub fn run(self) -> Outcome {
        let conversion = Conversion {
            files: self.files,
            images: self.images,
            to: match self.to {
                Format::Jsonl => To::Lines,
                Format::Parquet => To::Parquet,
                Format::Webdataset => To::WebDataset,
            },
            shard_samples: self.shard_samples,
        };
        let converted = watched(self.quiet, |watch| {
            match convert(&conversion, &self.out, watch) {
                Err(CurateError::Interrupted) => Ok(None),
                converted => converted.map(Some),
            }
        });
        let Some(converted) = converted? else {
            output::note("interrupted; the same command begins again");
            return Ok(ExitCode::from(130));
        };
        if self.json {
            output::data(&json!(converted).to_string());
            return Ok(ExitCode::SUCCESS);
        }
        output::data(&format!(
            "{} samples in {} shards, {} pictures from inside of the files",
            converted.samples,
            converted.shards.len(),
            converted.pictures
        ));
        if converted.left_out > 0 {
            output::note(&format!(
                "{} members are left out: they are neither text nor picture, one of several of their kind, or \
                 beside one that is no JSON",
                converted.left_out
            ));
        }
        if converted.lines > 0 {
            output::note(&format!(
                "{} lines are no JSON and stay as they are; `data check` says where",
                converted.lines
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}
