//! Parquet: Hugging Face data sets with pictures inside, and this program's own.
//!
//! Our own columns are what samples have, the picture as Hugging Face data sets have it, and as JSON in
//! `extra` whatever the columns cannot say: other keys, numbers as names, lists. A mark in the file's
//! metadata says that it is ours, and then every record comes back as it was.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, ListBuilder, RecordBatch, StringArray,
    StringBuilder, StructArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::arrow::json::LineDelimitedWriter;
use opabinia_data::parse_json;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value, json};

use super::read::{Sink, record};
use super::{Form, Incoming};
use crate::error::CurateError;

/// Under which key a file says that this program wrote it.
const MARK: &str = "opabinia";

/// Which columns it has.
const LAYOUT: &str = "samples 1";

/// Rows that are read at once.
const ROWS: usize = 64;

/// Rows that are written at once.
const ROWS_WRITTEN: usize = 256;

/// Bytes that are written at once, if one row has not more. (Offsets in a column have 31 bits.)
const BYTES_WRITTEN: usize = 1 << 26;

/// Reads a Parquet file to its end.
pub fn parquet(path: &Path, position: &AtomicU64, sink: Sink<'_>) -> Result<(), CurateError> {
    let failed = || CurateError::parquet("read", path);
    let format = |problem: String| CurateError::Format {
        path: path.to_owned(),
        problem,
    };
    let file = File::open(path).map_err(CurateError::io("read", path))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed())?;
    let pairs = reader.metadata().file_metadata().key_value_metadata();
    let is_ours = pairs
        .into_iter()
        .flatten()
        .any(|pair| pair.key == MARK && pair.value.as_deref() == Some(LAYOUT));
    let (bytes, rows) = (
        path.metadata().map_or(0, |about| about.len()),
        reader.metadata().file_metadata().num_rows().max(1) as u64,
    );
    // Columns are read in pieces, so rows say how far it is.
    let mut seen = 0;
    let step = &mut |read: usize| {
        seen += read as u64;
        position.store(bytes * seen.min(rows) / rows, Ordering::Relaxed);
    };
    if is_ours {
        return ours(path, reader, step, sink);
    }
    let mut number = 0;
    for batch in reader.with_batch_size(ROWS).build().map_err(failed())? {
        let batch = batch.map_err(|error| format(error.to_string()))?;
        step(batch.num_rows());
        let (rest, mut pictures) = without_pictures(&batch).map_err(|e| format(e.to_string()))?;
        let mut text = Vec::new();
        let mut writer = LineDelimitedWriter::new(&mut text);
        writer
            .write(&rest)
            .map_err(|error| format(error.to_string()))?;
        writer.finish().map_err(|error| format(error.to_string()))?;
        let mut values = text.split(|&byte| byte == b'\n');
        for row in 0..batch.num_rows() {
            number += 1;
            let value = match rest.num_columns() {
                0 => json!({}),
                _ => serde_json::from_slice(values.next().unwrap_or_default())
                    .map_err(|error| format(format!("row {number}: {error}")))?,
            };
            let own = pictures.remove(&row).unwrap_or_default();
            let mut value = with_parsed_turns(value);
            if let Value::Object(fields) = &mut value
                && !fields.contains_key("image")
                && let Some(names) = names_of(&own)
            {
                fields.insert("image".to_owned(), names);
            }
            let bytes = own.into_iter().filter_map(|picture| picture.bytes);
            sink(record(value, bytes.collect()))?;
        }
    }
    Ok(())
}

/// Turns that are kept as a text of JSON, as this program writes them into Parquet.
fn with_parsed_turns(mut value: Value) -> Value {
    for key in ["conversations", "messages", "texts"] {
        if let Some(turns) = value.get_mut(key)
            && let Some(text) = turns.as_str()
            && let Ok(parsed @ Value::Array(_)) = parse_json(text.as_bytes())
        {
            *turns = parsed;
        }
    }
    value
}

/// A picture of a row: its bytes, if it is inside of the file, and what it is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Inside {
    bytes: Option<Vec<u8>>,
    path: Option<String>,
}

/// Pictures by the row they are in.
type PicturesByRow = BTreeMap<usize, Vec<Inside>>;

/// What a record calls its pictures: those that are inside of the file if there are some, and else those
/// that have a name alone. Nothing if one has no name.
fn names_of(pictures: &[Inside]) -> Option<Value> {
    let any_inside = pictures.iter().any(|picture| picture.bytes.is_some());
    let meant = pictures
        .iter()
        .filter(|picture| picture.bytes.is_some() || !any_inside);
    let names: Vec<&str> = meant
        .map(|picture| picture.path.as_deref().filter(|path| !path.is_empty()))
        .collect::<Option<_>>()?;
    match names.as_slice() {
        [] => None,
        [one] => Some(json!(one)),
        several => Some(json!(several)),
    }
}

/// Splits a batch into what JSON can hold, and the pictures by row.
fn without_pictures(
    batch: &RecordBatch,
) -> Result<(RecordBatch, PicturesByRow), datafusion::arrow::error::ArrowError> {
    let mut pictures = PicturesByRow::new();
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if !holds_bytes(field.data_type()) {
            fields.push(field.clone());
            columns.push(ArrayRef::clone(column));
            continue;
        }
        for row in 0..column.len() {
            let own = inside(column, row);
            pictures.entry(row).or_default().extend(own);
        }
    }
    let schema = Arc::new(Schema::new(fields));
    let options =
        datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let rest = RecordBatch::try_new_with_options(schema, columns, &options)?;
    Ok((rest, pictures))
}

/// Whether a type is bytes, or a structure with bytes, or a list of either.
fn holds_bytes(kind: &DataType) -> bool {
    match kind {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => true,
        DataType::Struct(fields) => fields
            .iter()
            .any(|field| field.name() == "bytes" && holds_bytes(field.data_type())),
        DataType::List(field) | DataType::LargeList(field) => holds_bytes(field.data_type()),
        _ => false,
    }
}

/// The pictures of a row of a column that holds bytes.
fn inside(column: &ArrayRef, row: usize) -> Vec<Inside> {
    if !holds_bytes(column.data_type()) || column.is_null(row) {
        return Vec::new();
    }
    let nameless = |bytes: &[u8]| {
        vec![Inside {
            bytes: Some(bytes.to_vec()),
            path: None,
        }]
    };
    match column.data_type() {
        DataType::Binary => nameless(column.as_binary::<i32>().value(row)),
        DataType::LargeBinary => nameless(column.as_binary::<i64>().value(row)),
        DataType::BinaryView => nameless(column.as_binary_view().value(row)),
        DataType::Struct(_) => {
            let all: &StructArray = column.as_struct();
            let bytes = all.column_by_name("bytes");
            let bytes = bytes.map_or_else(Vec::new, |bytes| inside(bytes, row));
            let picture = Inside {
                bytes: bytes.into_iter().find_map(|found| found.bytes),
                path: all.column_by_name("path").and_then(|path| text(path, row)),
            };
            // Without either, a structure is how some files say that there is no picture.
            match picture == Inside::default() {
                true => Vec::new(),
                false => vec![picture],
            }
        }
        DataType::List(_) => in_list(&column.as_list::<i32>().value(row)),
        DataType::LargeList(_) => in_list(&column.as_list::<i64>().value(row)),
        _ => Vec::new(),
    }
}

/// A text of a column of texts.
fn text(column: &ArrayRef, row: usize) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    let short = column.as_string_opt::<i32>().map(|texts| texts.value(row));
    let long = || column.as_string_opt::<i64>().map(|texts| texts.value(row));
    let view = || column.as_string_view_opt().map(|texts| texts.value(row));
    short.or_else(long).or_else(view).map(str::to_owned)
}

fn in_list(list: &ArrayRef) -> Vec<Inside> {
    (0..list.len()).flat_map(|row| inside(list, row)).collect()
}

/// Texts that are columns of their own.
const TEXTS: [&str; 3] = ["id", "source", "category"];

fn picture_fields() -> Fields {
    vec![
        Field::new("bytes", DataType::Binary, true),
        Field::new("path", DataType::Utf8, true),
    ]
    .into()
}

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let more = Field::new_list_field(DataType::Binary, true);
    Arc::new(Schema::new(vec![
        text("id"),
        text("source"),
        text("category"),
        text("conversations"),
        text("extra"),
        Field::new("image", DataType::Struct(picture_fields()), true),
        Field::new("more_images", DataType::List(Arc::new(more)), true),
        Field::new("line", DataType::Binary, true),
    ]))
}

/// Reads a file that this program wrote.
fn ours(
    path: &Path,
    reader: ParquetRecordBatchReaderBuilder<File>,
    step: &mut dyn FnMut(usize),
    sink: Sink<'_>,
) -> Result<(), CurateError> {
    let format = |problem: String| CurateError::Format {
        path: path.to_owned(),
        problem,
    };
    let reader = reader.with_batch_size(ROWS).build();
    let mut number = 0;
    for batch in reader.map_err(CurateError::parquet("read", path))? {
        let batch = batch.map_err(|error| format(error.to_string()))?;
        step(batch.num_rows());
        let columns =
            Columns::of(&batch).ok_or_else(|| format("a column is missing".to_owned()))?;
        for row in 0..batch.num_rows() {
            number += 1;
            let incoming = columns.row(row);
            sink(incoming.map_err(|error| format(format!("row {number}: {error}")))?)?;
        }
    }
    Ok(())
}

/// The columns of a batch of ours.
struct Columns<'a> {
    texts: [&'a StringArray; 3],
    conversations: &'a StringArray,
    extra: &'a StringArray,
    bytes: &'a BinaryArray,
    paths: &'a StringArray,
    more: &'a ArrayRef,
    line: &'a BinaryArray,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        let text = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>();
        let image = batch.column_by_name("image")?.as_struct_opt()?;
        let [id, source, category] = TEXTS.map(text);
        Some(Self {
            texts: [id?, source?, category?],
            conversations: text("conversations")?,
            extra: text("extra")?,
            bytes: image.column_by_name("bytes")?.as_binary_opt::<i32>()?,
            paths: image.column_by_name("path")?.as_string_opt::<i32>()?,
            more: batch.column_by_name("more_images")?,
            line: batch.column_by_name("line")?.as_binary_opt::<i32>()?,
        })
    }

    fn row(&self, row: usize) -> Result<Incoming, serde_json::Error> {
        if self.line.is_valid(row) {
            return Ok(Incoming::Line(self.line.value(row).to_vec()));
        }
        let mut record = Map::new();
        let own = |array: &StringArray| array.is_valid(row).then(|| array.value(row).to_owned());
        for (name, column) in TEXTS.into_iter().zip(self.texts) {
            if let Some(text) = own(column) {
                record.insert(name.to_owned(), Value::String(text));
            }
        }
        if let Some(path) = own(self.paths) {
            record.insert("image".to_owned(), Value::String(path));
        }
        if let Some(text) = own(self.conversations) {
            record.insert("conversations".to_owned(), serde_json::from_str(&text)?);
        }
        if let Some(text) = own(self.extra) {
            record.extend(serde_json::from_str::<Map<String, Value>>(&text)?);
        }
        let first = self
            .bytes
            .is_valid(row)
            .then(|| self.bytes.value(row).to_vec());
        let more = inside(self.more, row).into_iter();
        let more = more.filter_map(|picture| picture.bytes);
        Ok(Incoming::Record {
            record: Value::Object(record),
            pictures: first.into_iter().chain(more).collect(),
            form: Form::Ours,
        })
    }
}

/// A file of ours that is being written.
pub struct Shard {
    writer: ArrowWriter<File>,
    path: PathBuf,
    texts: [StringBuilder; 5],
    bytes: BinaryBuilder,
    paths: StringBuilder,
    more: ListBuilder<BinaryBuilder>,
    line: BinaryBuilder,
    rows: usize,
    /// Bytes of the rows that are not written yet.
    held: usize,
}

impl Shard {
    /// Begins a file.
    pub fn create(file: File, path: PathBuf) -> Result<Self, CurateError> {
        let mark = KeyValue::new(MARK.to_owned(), LAYOUT.to_owned());
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_key_value_metadata(Some(vec![mark]))
            .build();
        let writer = ArrowWriter::try_new(file, schema(), Some(properties));
        Ok(Self {
            writer: writer.map_err(CurateError::parquet("write", &path))?,
            path,
            texts: Default::default(),
            bytes: BinaryBuilder::new(),
            paths: StringBuilder::new(),
            more: ListBuilder::new(BinaryBuilder::new()),
            line: BinaryBuilder::new(),
            rows: 0,
            held: 0,
        })
    }

    /// Writes a sample with its pictures.
    pub fn put(&mut self, record: Value, pictures: Vec<Vec<u8>>) -> Result<(), CurateError> {
        let Value::Object(mut fields) = record else {
            return self.put_line(record.to_string().as_bytes());
        };
        let mut columns: Vec<Option<String>> = Vec::new();
        for name in TEXTS {
            columns.push(match fields.get(name) {
                Some(Value::String(_)) => taken(&mut fields, name),
                // For people to read; what it is exactly is kept with the other keys.
                Some(Value::Number(number)) => Some(number.to_string()),
                _ => None,
            });
        }
        columns.push(match fields.get("conversations") {
            Some(Value::Array(_)) => fields.shift_remove("conversations").map(|c| c.to_string()),
            _ => None,
        });
        let path = match fields.get("image") {
            Some(Value::String(_)) => taken(&mut fields, "image"),
            _ => None,
        };
        columns.push((!fields.is_empty()).then(|| Value::Object(fields).to_string()));
        let texts = columns.iter().flatten().map(String::len).sum::<usize>();
        self.make_room(texts + pictures.iter().map(Vec::len).sum::<usize>())?;
        for (column, text) in self.texts.iter_mut().zip(columns) {
            column.append_option(text);
        }
        self.paths.append_option(path);
        let mut pictures = pictures.into_iter();
        self.bytes.append_option(pictures.next());
        let more: Vec<Vec<u8>> = pictures.collect();
        more.iter()
            .for_each(|picture| self.more.values().append_value(picture));
        self.more.append(!more.is_empty());
        self.line.append_null();
        self.count()
    }

    /// Writes a line that is no sample.
    pub fn put_line(&mut self, line: &[u8]) -> Result<(), CurateError> {
        self.make_room(line.len())?;
        self.texts.iter_mut().for_each(StringBuilder::append_null);
        self.paths.append_null();
        self.bytes.append_null();
        self.more.append(false);
        self.line.append_value(line);
        self.count()
    }

    /// Writes what is held if a row of so many bytes would make it too much.
    fn make_room(&mut self, bytes: usize) -> Result<(), CurateError> {
        if i32::try_from(bytes).is_err() {
            return Err(CurateError::Format {
                path: self.path.clone(),
                problem: format!(
                    "a sample has {bytes} bytes with its pictures, more than a row can; leave it out, or \
                     write WebDataset"
                ),
            });
        }
        if self.rows > 0 && self.held + bytes > BYTES_WRITTEN {
            self.flush()?;
        }
        self.held += bytes;
        Ok(())
    }

    fn count(&mut self) -> Result<(), CurateError> {
        self.rows += 1;
        match self.rows == ROWS_WRITTEN {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), CurateError> {
        let mut columns: Vec<ArrayRef> = Vec::new();
        for text in &mut self.texts {
            columns.push(Arc::new(text.finish()));
        }
        let format = |error: datafusion::arrow::error::ArrowError| CurateError::Format {
            path: self.path.clone(),
            problem: error.to_string(),
        };
        let inner: Vec<ArrayRef> =
            vec![Arc::new(self.bytes.finish()), Arc::new(self.paths.finish())];
        let pictures = StructArray::try_new(picture_fields(), inner, None).map_err(format)?;
        columns.push(Arc::new(pictures));
        columns.push(Arc::new(self.more.finish()));
        columns.push(Arc::new(self.line.finish()));
        let batch = RecordBatch::try_new(schema(), columns).map_err(format)?;
        (self.rows, self.held) = (0, 0);
        self.writer
            .write(&batch)
            .map_err(CurateError::parquet("write", &self.path))
    }

    /// Ends the file.
    pub fn finish(mut self) -> Result<(), CurateError> {
        self.flush()?;
        self.writer
            .close()
            .map(|_| ())
            .map_err(CurateError::parquet("write", &self.path))
    }
}

fn taken(fields: &mut Map<String, Value>, name: &str) -> Option<String> {
    match fields.shift_remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}
