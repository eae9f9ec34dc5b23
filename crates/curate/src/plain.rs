//! Plain copies of inputs that are no lines of samples.
//!
//! Ranges of bytes can be copied only from plain lines. An input in another form (an array, Parquet, a
//! tar file, something compressed, chat messages) is written as lines into the work folder first, as a
//! stream, and the copy goes away with that folder. The number of a sample in such a file stands for its
//! line. Pictures inside of a file are not unpacked by the way: a pool's shards name pictures by their paths,
//! so they must lie somewhere first, and the complaint says by which command they do.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::convert::{Incoming, read};
use crate::error::CurateError;
use crate::job::{InputFile, Job};
use crate::run::{Progress, Watch};
use crate::table::temporary;

/// Lines in place of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlainCopy {
    /// Where they are.
    pub path: PathBuf,
    /// Their size.
    pub bytes: u64,
}

/// Makes the copies that a job needs in `folder`, unless they are there: whoever kept the folder saw to
/// it that it belongs to the same inputs.
///
/// # Errors
/// If an input cannot be read, has pictures inside, or the copy cannot be written.
pub(crate) fn make(job: &mut Job, folder: &Path, watch: &Watch<'_>) -> Result<(), CurateError> {
    let others = job.files.iter().filter(|file| !file.kind.is_lines());
    let total: u64 = others.map(|file| file.bytes).sum();
    let mut before = 0;
    let mut copies = Vec::new();
    for (number, file) in job.files.iter().enumerate() {
        if file.kind.is_lines() {
            copies.push(None);
            continue;
        }
        std::fs::create_dir_all(folder).map_err(CurateError::io("make the folder", folder))?;
        let path = folder.join(format!("{number:05}.jsonl"));
        if !path.exists() {
            copy(file, &path, before, total, watch)?;
        }
        let about = path.metadata().map_err(CurateError::io("read", &path))?;
        copies.push(Some(PlainCopy {
            bytes: about.len(),
            path,
        }));
        before += file.bytes;
    }
    job.copies = copies;
    Ok(())
}

fn copy(
    file: &InputFile,
    to: &Path,
    before: u64,
    total: u64,
    watch: &Watch<'_>,
) -> Result<(), CurateError> {
    let temporary = temporary(to);
    let io = || CurateError::io("write", &temporary);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&temporary).map_err(io())?);
    let position = AtomicU64::new(0);
    let mut count = 0_u64;
    read(&file.path, &position, &mut |incoming| {
        count += 1;
        if count.is_multiple_of(1024) {
            (watch.progress)(Progress {
                stage: "unpack",
                done: before + position.load(Ordering::Relaxed),
                total,
            });
            if (watch.cancelled)() {
                return Err(CurateError::Interrupted);
            }
        }
        let line = match incoming {
            Incoming::Record { pictures, .. } if !pictures.is_empty() => {
                return Err(CurateError::PicturesInside {
                    path: file.named.clone(),
                });
            }
            Incoming::Record { record, .. } => record.to_string().into_bytes(),
            Incoming::Line(line) => line,
            Incoming::Blank => Vec::new(),
            Incoming::LeftOut => return Ok(()),
        };
        out.write_all(&line).map_err(io())?;
        out.write_all(b"\n").map_err(io())
    })?;
    out.flush().map_err(io())?;
    std::fs::rename(&temporary, to).map_err(CurateError::io("write", to))
}
