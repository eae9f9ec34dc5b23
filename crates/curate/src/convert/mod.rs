//! Other formats in and out.
//!
//! Curation reads one form, a JSON object per line with its picture beside it, because ranges of bytes
//! can be copied from it. Everything else that users bring is turned into it once, as a stream: arrays of
//! LLaVA JSON, ShareGPT and chat messages, Parquet of Hugging Face data sets with pictures inside,
//! WebDataset tar files, each of them compressed or not. The bytes decide what a file is, not its name.
//!
//! What cannot be understood is not lost: it stays a line, and `data check` says what is wrong with it.
//! What this program wrote into Parquet or WebDataset comes back as it was, to the last key.

mod array;
mod kind;
mod normalise;
mod parquet;
mod read;
mod webdataset;
mod write;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde_json::Value;

pub use kind::Kind;
pub use normalise::normalise;
pub use read::read;
pub use write::{To, name_inside};

use crate::error::CurateError;
use crate::partial::{Leftover, Marked};
use crate::run::{Progress, Watch};

/// A file that says whose folder this is while it is not whole.
const MARK: &str = ".conversion";

/// A sample on its way, with what is inside of its file.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// A JSON object.
    Record {
        /// What it says.
        record: Value,
        /// Its pictures, encoded.
        pictures: Vec<Vec<u8>>,
        /// Whose form it has.
        form: Form,
    },
    /// What is no JSON, as one line; it stays as it is.
    Line(Vec<u8>),
    /// A member of a WebDataset file that samples have no place for: it is neither text nor picture, one of
    /// several of its kind, or belongs to one that is no JSON.
    LeftOut,
    /// A line with nothing on it.
    Blank,
}

/// Whose form a record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// This program wrote it: nothing of it is changed.
    Ours,
    /// Somebody else did: a picture that came inside is shown in the first question.
    Foreign,
}

/// What is converted.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// Files, in order.
    pub files: Vec<PathBuf>,
    /// The folder that pictures beside the files are in; only WebDataset and Parquet take them along.
    pub images: Option<PathBuf>,
    /// What is written.
    pub to: To,
    /// Samples of a shard.
    pub shard_samples: u64,
}

/// What came of a conversion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Converted {
    /// Samples and lines written.
    pub samples: u64,
    /// Pictures that were inside of the inputs, and are files now.
    pub pictures: u64,
    /// Lines that are no JSON, and stay as they are.
    pub lines: u64,
    /// Members of WebDataset files that were left out: those that are neither text nor picture, one of several
    /// of their kind, or beside one that is no JSON.
    pub left_out: u64,
    /// The shards, in order.
    pub shards: Vec<String>,
}

/// Converts files into the folder `out`, which appears when it is whole.
///
/// # Errors
/// If an input cannot be read to its end, the output cannot be written, or somebody asked for an end;
/// what was written by then is thrown away by the next try.
pub fn convert(
    conversion: &Conversion,
    out: &Path,
    watch: &Watch<'_>,
) -> Result<Converted, CurateError> {
    let partial = Marked::open(out, MARK, Leftover::Remove)?;
    let mut writer = write::Writer::new(partial.folder(), conversion);
    let (position, total) = (AtomicU64::new(0), total_bytes(&conversion.files)?);
    let mut before = 0;
    let mut count = 0_u64;
    for file in &conversion.files {
        position.store(0, Ordering::Relaxed);
        let shown = |before: u64| {
            (watch.progress)(Progress {
                stage: "convert",
                done: before + position.load(Ordering::Relaxed),
                total,
            });
        };
        read(file, &position, &mut |incoming| {
            count += 1;
            if count.is_multiple_of(256) {
                shown(before);
            }
            if (watch.cancelled)() {
                return Err(CurateError::Interrupted);
            }
            writer.put(incoming)
        })?;
        before += file.metadata().map_or(0, |about| about.len());
        position.store(0, Ordering::Relaxed);
        shown(before);
    }
    let converted = writer.finish()?;
    partial.publish()?;
    Ok(converted)
}

fn total_bytes(files: &[PathBuf]) -> Result<u64, CurateError> {
    let size = |file: &PathBuf| {
        let about = file.metadata();
        about
            .map(|about| about.len())
            .map_err(CurateError::io("read", file))
    };
    files.iter().map(size).sum()
}
