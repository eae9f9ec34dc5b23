//! A file of JSON lines that is being written.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::WorldError;

/// Writes one JSON object per line, and counts them.
pub(super) struct Lines {
    path: PathBuf,
    file: BufWriter<File>,
    /// Lines so far.
    pub count: usize,
}

impl Lines {
    pub fn create(path: PathBuf) -> Result<Self, WorldError> {
        let file = File::create(&path).map_err(|source| failed(&path, source))?;
        Ok(Self {
            path,
            file: BufWriter::new(file),
            count: 0,
        })
    }

    /// Writes a line that [`line`] has made.
    pub fn push(&mut self, line: &str) -> Result<(), WorldError> {
        self.count += 1;
        writeln!(self.file, "{line}").map_err(|source| failed(&self.path, source))
    }

    /// Writes what is still in memory.
    pub fn finish(mut self) -> Result<usize, WorldError> {
        self.file
            .flush()
            .map_err(|source| failed(&self.path, source))?;
        Ok(self.count)
    }
}

/// A record as a line, without its end.
pub(super) fn line(record: &impl Serialize) -> Result<String, WorldError> {
    serde_json::to_string(record).map_err(|source| WorldError::Json {
        what: "record",
        source,
    })
}

fn failed(path: &Path, source: std::io::Error) -> WorldError {
    WorldError::Write {
        path: path.to_owned(),
        source,
    }
}
