//! One file of rows, whatever its format.

use std::collections::BTreeSet;
use std::path::Path;

use super::{parquet, text};
use crate::benchmark::definition::Format;
use crate::benchmark::error::BenchmarkError;
use crate::benchmark::row::Row;

/// How a file is read.
#[derive(Clone, Copy)]
pub(in crate::benchmark) struct TableOptions<'a> {
    /// Its format; by its name if there is none.
    pub format: Option<Format>,
    /// Names for the columns of a sheet, in place of its first line.
    pub names: Option<&'a [String]>,
    /// The columns that somebody looks at; formats that can skip the others do.
    pub wanted: &'a BTreeSet<String>,
}

/// A row and its number in the file, from 1; of text formats its line.
pub(in crate::benchmark) type Numbered = Result<(u64, Row), BenchmarkError>;

/// An open file of rows.
pub(in crate::benchmark) struct Table {
    /// All its columns, where the file says so before its rows.
    pub columns: Option<Vec<String>>,
    /// The rows.
    pub rows: Box<dyn Iterator<Item = Numbered>>,
}

/// Opens a file.
pub(in crate::benchmark) fn open(
    path: &Path,
    options: &TableOptions<'_>,
) -> Result<Table, BenchmarkError> {
    let format = options.format.or_else(|| format_of(path));
    let format = format.ok_or_else(|| BenchmarkError::UnknownFormat { path: path.into() })?;
    match format {
        Format::Parquet => parquet::open(path, options.wanted),
        Format::Jsonl => text::open_jsonl(path),
        Format::Json => text::open_json(path),
        Format::Csv => text::open_sheet(path, b',', options.names),
        Format::Tsv => text::open_sheet(path, b'\t', options.names),
    }
}

fn format_of(path: &Path) -> Option<Format> {
    let ending = path.extension()?.to_str()?;
    Some(match ending {
        "parquet" => Format::Parquet,
        "jsonl" => Format::Jsonl,
        "json" => Format::Json,
        "csv" => Format::Csv,
        "tsv" => Format::Tsv,
        _ => return None,
    })
}
