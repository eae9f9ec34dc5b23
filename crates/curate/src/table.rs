//! Tables and texts that appear when they are whole.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde::Serialize;

use crate::error::CurateError;

/// Writes a Parquet file that appears when it is whole; `beside` is kept in its metadata.
///
/// # Errors
/// If the columns do not fit the schema, or the file cannot be written.
pub fn write_table(
    doing: &'static str,
    out: &Path,
    schema: SchemaRef,
    columns: Vec<ArrayRef>,
    beside: Option<(&str, String)>,
) -> Result<(), CurateError> {
    let parquet = || CurateError::parquet(doing, out);
    let batch = RecordBatch::try_new(SchemaRef::clone(&schema), columns);
    let batch = batch.map_err(|error| CurateError::Format {
        path: out.to_owned(),
        problem: error.to_string(),
    })?;
    let pairs = beside.map(|(key, text)| vec![KeyValue::new(key.to_owned(), text)]);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(pairs)
        .build();
    let temporary = temporary(out);
    let file = File::create(&temporary).map_err(CurateError::io(doing, &temporary))?;
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).map_err(parquet())?;
    writer.write(&batch).map_err(parquet())?;
    writer.close().map_err(parquet())?;
    std::fs::rename(&temporary, out).map_err(CurateError::io(doing, out))
}

/// Writes a value as JSON into a file that appears when it is whole.
///
/// # Errors
/// If it cannot be written as JSON, or at all.
pub fn write_json(out: &Path, value: &impl Serialize) -> Result<(), CurateError> {
    let text = serde_json::to_string(value).map_err(|error| CurateError::Format {
        path: out.to_owned(),
        problem: format!("cannot be written as JSON: {error}"),
    })?;
    write_text(out, &text)
}

/// Writes a text into a file that appears when it is whole.
///
/// # Errors
/// If it cannot be written.
pub fn write_text(out: &Path, text: &str) -> Result<(), CurateError> {
    let temporary = temporary(out);
    let io = || CurateError::io("write", out);
    std::fs::write(&temporary, text).map_err(io())?;
    std::fs::rename(&temporary, out).map_err(io())
}

/// Name that a file has until it is whole; no other process writes the same.
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
