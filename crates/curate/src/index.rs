//! Indexes: what is known of every line of a part, without its text.
//!
//! One Parquet file for each part. A row is one line: where it is, what it is, which source it is of,
//! and the hash of its content; the text stays where it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{StringBuilder, UInt8Builder, UInt32Builder, UInt64Builder};
use arrow_array::{
    Array, ArrayRef, RecordBatch, StringArray, UInt8Array, UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};

use crate::classify::{Class, Classified, Lengths};
use crate::error::CurateError;
use crate::table::write_table;

/// Under which key an index says what is not in its rows.
const SUMMARY: &str = "opabinia";

/// What an index says beside its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Lines of the part, and rows of the index.
    pub lines: u64,
    /// Bytes of the part.
    pub bytes: u64,
    /// SHA-256 of the part's bytes, in hexadecimal digits.
    pub sha256: String,
    /// Sources with their categories, by the keys of both.
    pub sources: BTreeMap<u64, (String, String)>,
    /// Lines by class.
    pub classes: BTreeMap<String, u64>,
}

/// Columns of an index.
pub fn schema() -> SchemaRef {
    let field = |name: &str, kind: DataType| Field::new(name, kind, false);
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        field("pos", DataType::UInt64),
        field("offset", DataType::UInt64),
        field("length", DataType::UInt32),
        field("class", DataType::UInt8),
        field("has_image", DataType::UInt8),
        field("source", DataType::UInt64),
        field("name", DataType::UInt64),
        field("hash_hi", DataType::UInt64),
        field("hash_lo", DataType::UInt64),
        field("words", DataType::UInt32),
        field("answer_words", DataType::UInt32),
        field("turns", DataType::UInt32),
        field("answers", DataType::UInt32),
        field("short_answers", DataType::UInt32),
        text("id"),
        text("what"),
    ]))
}

/// Keys of where a sample comes from; 0 where nothing says it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Keys {
    /// Of source and category.
    pub source: u64,
    /// Of the source's name alone.
    pub name: u64,
}

/// Rows of an index that is being made.
#[derive(Default)]
pub(crate) struct Rows {
    pos: UInt64Builder,
    offset: UInt64Builder,
    length: UInt32Builder,
    class: UInt8Builder,
    has_image: UInt8Builder,
    source: UInt64Builder,
    name: UInt64Builder,
    hash_hi: UInt64Builder,
    hash_lo: UInt64Builder,
    lengths: [UInt32Builder; 5],
    id: StringBuilder,
    what: StringBuilder,
}

impl Rows {
    /// Adds a line of a source with these keys.
    pub fn push(&mut self, pos: u64, offset: u64, length: u32, keys: Keys, line: &Classified) {
        let sample = line.sample.as_ref();
        let [hi, lo] = halves(line.content);
        self.pos.append_value(pos);
        self.offset.append_value(offset);
        self.length.append_value(length);
        self.class.append_value(line.class as u8);
        let has_image = sample.is_some_and(|sample| sample.image.is_some());
        self.has_image.append_value(u8::from(has_image));
        self.source.append_value(keys.source);
        self.name.append_value(keys.name);
        self.hash_hi.append_value(hi);
        self.hash_lo.append_value(lo);
        let Lengths {
            words,
            answer_words,
            turns,
            answers,
            short_answers,
        } = line.lengths;
        let numbers = [words, answer_words, turns, answers, short_answers];
        for (column, number) in self.lengths.iter_mut().zip(numbers) {
            column.append_value(number);
        }
        self.id
            .append_option(sample.and_then(|sample| sample.id.as_deref()));
        self.what.append_option(line.what.as_deref());
    }

    /// Writes them, with what is beside them; the file appears when it is whole.
    pub fn write(self, out: &Path, summary: &Summary) -> Result<(), CurateError> {
        let text = serde_json::to_string(summary).map_err(|error| CurateError::Format {
            path: out.to_owned(),
            problem: error.to_string(),
        })?;
        let pair = (SUMMARY, text);
        write_table("write the index", out, schema(), self.finish(), Some(pair))
    }

    fn finish(mut self) -> Vec<ArrayRef> {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.pos.finish()),
            Arc::new(self.offset.finish()),
            Arc::new(self.length.finish()),
            Arc::new(self.class.finish()),
            Arc::new(self.has_image.finish()),
            Arc::new(self.source.finish()),
            Arc::new(self.name.finish()),
            Arc::new(self.hash_hi.finish()),
            Arc::new(self.hash_lo.finish()),
        ];
        for column in &mut self.lengths {
            columns.push(Arc::new(column.finish()));
        }
        columns.push(Arc::new(self.id.finish()));
        columns.push(Arc::new(self.what.finish()));
        columns
    }
}

fn halves(hash: [u8; 16]) -> [u64; 2] {
    let whole = u128::from_be_bytes(hash);
    [(whole >> 64) as u64, whole as u64]
}

/// The index of a part, read.
#[derive(Debug)]
pub struct Index {
    batch: RecordBatch,
    path: PathBuf,
}

/// One row of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// First byte in the file.
    pub offset: u64,
    /// Bytes of the line, without its line break.
    pub length: u32,
    /// What it is.
    pub class: Class,
    /// Hash of its content, in two halves.
    pub hash: [u64; 2],
    /// Whether it has a picture.
    pub has_image: bool,
    /// Key of its source and category; 0 is none.
    pub source: u64,
    /// Its lengths.
    pub lengths: Lengths,
    /// Its name.
    pub id: Option<&'a str>,
    /// Why it is no sample, without the place.
    pub what: Option<&'a str>,
}

/// Reads only what an index says beside its rows.
///
/// # Errors
/// If the file cannot be read or is no index.
pub fn read_summary(path: &Path) -> Result<Summary, CurateError> {
    let file = File::open(path).map_err(CurateError::io("read the index", path))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(CurateError::parquet("read the index", path))?;
    let pairs = reader.metadata().file_metadata().key_value_metadata();
    let text = pairs
        .into_iter()
        .flatten()
        .find(|pair| pair.key == SUMMARY)
        .and_then(|pair| pair.value.as_deref());
    text.and_then(|text| serde_json::from_str(text).ok())
        .ok_or_else(|| no_index(path))
}

fn no_index(path: &Path) -> CurateError {
    CurateError::Format {
        path: path.to_owned(),
        problem: "not an index of this program; remove it, and run the command again".to_owned(),
    }
}

impl Index {
    /// Reads all rows of a part.
    ///
    /// # Errors
    /// If the file cannot be read or is no index.
    pub fn read(path: &Path) -> Result<Self, CurateError> {
        let parquet = || CurateError::parquet("read the index", path);
        let file = File::open(path).map_err(CurateError::io("read the index", path))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)
            .map_err(parquet())?
            .with_batch_size(1 << 16)
            .build()
            .map_err(parquet())?;
        let batches = reader
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| no_index(path))?;
        let batch = datafusion::arrow::compute::concat_batches(&schema(), &batches)
            .map_err(|_| no_index(path))?;
        Ok(Self {
            batch,
            path: path.to_owned(),
        })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Whether the part has no line.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All rows, in the order of lines.
    ///
    /// # Errors
    /// If a column is not what it should be.
    pub fn rows(&self) -> Result<Vec<Row<'_>>, CurateError> {
        self.try_rows().ok_or_else(|| no_index(&self.path))
    }

    fn try_rows(&self) -> Option<Vec<Row<'_>>> {
        let column = |name: &str| self.batch.column_by_name(name);
        fn cast<A: Array + 'static>(column: Option<&ArrayRef>) -> Option<&A> {
            column?.as_any().downcast_ref()
        }
        let u64s = |name: &str| cast::<UInt64Array>(column(name));
        let u32s = |name: &str| cast::<UInt32Array>(column(name));
        let u8s = |name: &str| cast::<UInt8Array>(column(name));
        let (offset, source) = (u64s("offset")?, u64s("source")?);
        let (hash_hi, hash_lo) = (u64s("hash_hi")?, u64s("hash_lo")?);
        let (length, class, has_image) = (u32s("length")?, u8s("class")?, u8s("has_image")?);
        let (words, answer_words) = (u32s("words")?, u32s("answer_words")?);
        let (turns, answers, short) = (u32s("turns")?, u32s("answers")?, u32s("short_answers")?);
        let id = cast::<StringArray>(column("id"))?;
        let what = cast::<StringArray>(column("what"))?;
        let text = |array: &'_ StringArray, i: usize| array.is_valid(i).then_some(i);
        let row = |i: usize| {
            Some(Row {
                offset: offset.value(i),
                length: length.value(i),
                class: Class::from_number(class.value(i))?,
                hash: [hash_hi.value(i), hash_lo.value(i)],
                has_image: has_image.value(i) != 0,
                source: source.value(i),
                lengths: Lengths {
                    words: words.value(i),
                    answer_words: answer_words.value(i),
                    turns: turns.value(i),
                    answers: answers.value(i),
                    short_answers: short.value(i),
                },
                id: text(id, i).map(|i| id.value(i)),
                what: text(what, i).map(|i| what.value(i)),
            })
        };
        (0..self.len()).map(row).collect()
    }
}
