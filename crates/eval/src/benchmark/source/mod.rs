//! From a source of a definition to rows: finding the files, reading them, joining columns from
//! others.
//!
//! ```text
//! SourceTable ─ Library::find ─▶ files ─ table::open ─▶ Row, Row, …
//!                                  └─ Join::read ─▶ more columns by key ─┘
//! ```
//!
//! A local folder comes first, then the hub's cache; the network is used only if somebody handed in
//! a [`Fetch`]. Rows are streamed, so that a benchmark with gigabytes of pictures needs the memory of
//! a few rows; of a joined file the pictures are put away while it is read. Every file read is listed
//! with its SHA-256.

mod archive;
mod join;
mod library;
mod parquet;
mod table;
mod text;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(super) use archive::Pictures;
use join::Join;
use library::FileSpec;
pub use library::{Fetch, Library, Listing};
pub(super) use table::Table;
use table::TableOptions;

use super::definition::SourceTable;
use super::error::BenchmarkError;
use super::picture::PictureStore;
use super::row::Row;
use crate::digest;

/// A file that questions come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Its path, relative to the data set.
    pub path: String,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: String,
    /// The data set of the hub and the commit that it is from, `owner/name@commit`, if it lies in the
    /// hub's cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<String>,
}

/// A source that is being read.
pub(super) struct Source<'a> {
    table: &'a SourceTable,
    files: Vec<PathBuf>,
    join: Option<Join>,
    /// The pictures that rows name.
    pub pictures: Pictures,
    /// Every file that is read, and its digest.
    pub digests: Vec<FileDigest>,
}

impl<'a> Source<'a> {
    /// Finds the files of a source, and reads the joined ones. `wanted` are the columns that the
    /// definition uses.
    pub(super) fn open(
        benchmark: &str,
        table: &'a SourceTable,
        library: &Library<'_>,
        wanted: &BTreeSet<String>,
        store: &mut PictureStore,
    ) -> Result<Self, BenchmarkError> {
        let spec = FileSpec::of(table);
        let found = library.find(benchmark, &spec)?;
        let mut digests = digests(&found.root, &found.files)?;
        let join = match &table.join {
            None => None,
            Some(join_table) => {
                let spec = FileSpec::of_join(table, join_table);
                let found = library.find(benchmark, &spec)?;
                digests.extend(self::digests(&found.root, &found.files)?);
                Some(Join::read(join_table, &found.files, wanted, store)?)
            }
        };
        let pictures = Pictures::open(&found.root, table.pictures.as_deref())?;
        if let Some(archive) = pictures.archive() {
            digests.extend(self::digests(&found.root, &[archive.to_owned()])?);
        }
        Ok(Self {
            table,
            files: found.files,
            join,
            pictures,
            digests,
        })
    }

    /// The files of rows, in order.
    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Opens one of the files.
    pub(super) fn rows(
        &self,
        path: &Path,
        wanted: &BTreeSet<String>,
    ) -> Result<Table, BenchmarkError> {
        let mut columns = wanted.clone();
        columns.extend(self.join.as_ref().map(|join| join.here().to_owned()));
        // Files know columns by their old names.
        for (old, new) in &self.table.rename {
            if columns.remove(new) {
                columns.insert(old.clone());
            }
        }
        let options = TableOptions {
            format: self.table.format,
            names: self.table.columns.as_deref(),
            wanted: &columns,
        };
        let mut table = table::open(path, &options)?;
        if let Some(names) = &mut table.columns {
            for name in names.iter_mut() {
                if let Some(new) = self.table.rename.get(name) {
                    name.clone_from(new);
                }
            }
            names.extend(self.join.iter().flat_map(|join| join.columns().to_owned()));
        }
        Ok(table)
    }

    /// A row with the columns' new names and the joined columns.
    pub(super) fn complete(&self, mut row: Row) -> Row {
        for (old, new) in &self.table.rename {
            row.rename(old, &Arc::from(new.as_str()));
        }
        if let Some(join) = &self.join {
            join.add_to(&mut row);
        }
        row
    }
}

/// The digest of one file, under its name.
pub(crate) fn file_digest(path: &Path) -> std::io::Result<FileDigest> {
    let (bytes, sha256) = sha256_of(path)?;
    let name = path.file_name().unwrap_or(path.as_os_str());
    Ok(FileDigest {
        path: name.to_string_lossy().into_owned(),
        bytes,
        sha256,
        hub: None,
    })
}

/// The rows of a file, each with its number in it, from 1; of text formats its line.
pub type Rows = Box<dyn Iterator<Item = Result<(u64, Row), BenchmarkError>>>;

/// Reads a file of rows by itself, in any format that a benchmark may have; formats that can skip
/// columns read only `wanted` ones.
///
/// # Errors
/// If the file cannot be read or its ending names no known format.
pub fn rows(path: &Path, wanted: &[&str]) -> Result<Rows, BenchmarkError> {
    let wanted: BTreeSet<String> = wanted.iter().map(|&column| column.to_owned()).collect();
    let options = TableOptions {
        format: None,
        names: None,
        wanted: &wanted,
    };
    Ok(table::open(path, &options)?.rows)
}

/// Digests of files, with their paths relative to `root`.
fn digests(root: &Path, files: &[PathBuf]) -> Result<Vec<FileDigest>, BenchmarkError> {
    let hub = library::origin(root);
    let digest = |path: &PathBuf| {
        let (bytes, sha256) = sha256_of(path).map_err(BenchmarkError::read("questions", path))?;
        let path = path.strip_prefix(root).unwrap_or(path);
        Ok(FileDigest {
            path: path.display().to_string(),
            bytes,
            sha256,
            hub: hub.clone(),
        })
    };
    files.iter().map(digest).collect()
}

/// Length and SHA-256 of a file.
fn sha256_of(path: &Path) -> std::io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut length = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else {
            break;
        };
        hash.update(part);
        length += count as u64;
    }
    Ok((length, digest::hex(hash.finalize())))
}
