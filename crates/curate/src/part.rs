//! Parts of files, and their indexes.
//!
//! A file is cut into parts of equal size, at the next line break; a part is indexed by itself, on any
//! core or machine, into one Parquet file. A row is one line of the part: where it is, what it is, which
//! source it is of, and the hash of its content; the text stays where it is. Position, a number of
//! 64 bits, is the part in the upper and the row in the lower half, so that the order of positions
//! is the order of lines.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{StringBuilder, UInt8Builder, UInt32Builder, UInt64Builder};
use arrow_array::{
    Array, ArrayRef, RecordBatch, StringArray, UInt8Array, UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::classify::{Class, Classified, Classifier, Lengths};
use crate::error::CurateError;
use crate::sources::Origin;

/// Bytes of a part, about.
pub const PART_BYTES: u64 = 16 << 20;

/// Far above the longest published sample, some hundred kilobytes of code.
const MAX_LINE_BYTES: usize = 64 << 20;

/// Under which key an index says what is not in its rows.
const SUMMARY: &str = "opabinia";

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Number among all parts of all files, from 0.
    pub number: u32,
    /// Number of its file.
    pub file: u32,
    /// First byte; the part begins with the first line that begins there or later.
    pub start: u64,
    /// End; a line that begins before it belongs to the part.
    pub end: u64,
}

/// Cuts files into parts. `sizes` are bytes.
pub fn cut(sizes: &[u64], part_bytes: u64) -> Vec<Part> {
    let mut parts = Vec::new();
    for (file, &size) in sizes.iter().enumerate() {
        let mut start = 0;
        while start < size {
            let end = (start + part_bytes.max(1)).min(size);
            parts.push(Part {
                number: parts.len() as u32,
                file: file as u32,
                start,
                end,
            });
            start = end;
        }
    }
    parts
}

/// What an index says beside its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Lines of the part, and rows of the index.
    pub lines: u64,
    /// Bytes of the part.
    pub bytes: u64,
    /// SHA-256 of the part's bytes, in hexadecimal digits.
    pub sha256: String,
    /// Sources by their keys, with category.
    pub sources: BTreeMap<u64, (String, String)>,
    /// Lines by class.
    pub classes: BTreeMap<String, u64>,
}

/// Key of a source and category in an index.
pub fn source_key(origin: &Origin) -> u64 {
    let mut hash = Sha256::new();
    hash.update((origin.source.len() as u64).to_le_bytes());
    hash.update(&origin.source);
    hash.update(&origin.category);
    let hash: [u8; 32] = hash.finalize().into();
    // 0 is kept for lines without a source.
    u64::from_le_bytes([
        hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7],
    ])
    .max(1)
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
        field("hash_hi", DataType::UInt64),
        field("hash_lo", DataType::UInt64),
        field("words", DataType::UInt32),
        field("answer_words", DataType::UInt32),
        field("turns", DataType::UInt32),
        field("answers", DataType::UInt32),
        field("short_answers", DataType::UInt32),
        text("id"),
        text("image"),
        text("what"),
    ]))
}

#[derive(Default)]
struct Rows {
    pos: UInt64Builder,
    offset: UInt64Builder,
    length: UInt32Builder,
    class: UInt8Builder,
    has_image: UInt8Builder,
    source: UInt64Builder,
    hash_hi: UInt64Builder,
    hash_lo: UInt64Builder,
    lengths: [UInt32Builder; 5],
    id: StringBuilder,
    image: StringBuilder,
    what: StringBuilder,
}

impl Rows {
    fn push(&mut self, pos: u64, offset: u64, length: u32, line: &Classified) {
        let sample = line.sample.as_ref();
        let [hi, lo] = halves(line.content);
        self.pos.append_value(pos);
        self.offset.append_value(offset);
        self.length.append_value(length);
        self.class.append_value(line.class as u8);
        let image = sample.and_then(|sample| sample.image.as_deref());
        self.has_image.append_value(u8::from(image.is_some()));
        self.source
            .append_value(line.origin.as_ref().map_or(0, source_key));
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
        self.image.append_option(image);
        self.what.append_option(line.what.as_deref());
    }

    fn finish(mut self) -> Vec<ArrayRef> {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.pos.finish()),
            Arc::new(self.offset.finish()),
            Arc::new(self.length.finish()),
            Arc::new(self.class.finish()),
            Arc::new(self.has_image.finish()),
            Arc::new(self.source.finish()),
            Arc::new(self.hash_hi.finish()),
            Arc::new(self.hash_lo.finish()),
        ];
        for column in &mut self.lengths {
            columns.push(Arc::new(column.finish()));
        }
        columns.push(Arc::new(self.id.finish()));
        columns.push(Arc::new(self.image.finish()));
        columns.push(Arc::new(self.what.finish()));
        columns
    }
}

fn halves(hash: [u8; 16]) -> [u64; 2] {
    let whole = u128::from_be_bytes(hash);
    [(whole >> 64) as u64, whole as u64]
}

/// The lines of a part: where the first one begins, and all bytes from there to the end of the last.
///
/// # Errors
/// If the file cannot be read.
pub fn read_lines(path: &Path, part: &Part) -> Result<(u64, Vec<u8>), CurateError> {
    let io = || CurateError::io("read", path);
    let mut file = File::open(path).map_err(io())?;
    // One byte before, to see whether a line begins exactly here.
    let from = part.start.saturating_sub(1);
    file.seek(SeekFrom::Start(from)).map_err(io())?;
    let mut bytes = Vec::with_capacity((part.end - from) as usize + 4096);
    let mut reader = file.take(part.end - from);
    reader.read_to_end(&mut bytes).map_err(io())?;
    let skipped = match part.start {
        0 => 0,
        _ => match bytes.iter().position(|&byte| byte == b'\n') {
            Some(at) => at + 1,
            // No line begins in this part.
            None => return Ok((part.end, Vec::new())),
        },
    };
    let starts = from + skipped as u64;
    if starts >= part.end {
        return Ok((part.end, Vec::new()));
    }
    bytes.drain(..skipped);
    let mut file = reader.into_inner();
    let mut chunk = vec![0; 1 << 14];
    while bytes.last() != Some(&b'\n') {
        let read = file.read(&mut chunk).map_err(io())?;
        if read == 0 {
            break;
        }
        let chunk = &chunk[..read];
        match chunk.iter().position(|&byte| byte == b'\n') {
            Some(at) => bytes.extend_from_slice(&chunk[..=at]),
            None => bytes.extend_from_slice(chunk),
        }
    }
    Ok((starts, bytes))
}

/// Columns of a table of bands: a sample, and the key of one of its bands.
fn bands_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("pos", DataType::UInt64, false),
        Field::new("band", DataType::UInt64, false),
    ]))
}

/// Indexes a part into `out`, and the bands of its samples into `bands_out`, which appears when it is whole. `name` is the file's name as rules know
/// it. Messages do not say the line, which only who knows all parts before can tell.
///
/// # Errors
/// If the file cannot be read or the index cannot be written.
pub fn index(
    path: &Path,
    name: &str,
    part: &Part,
    classifier: &Classifier<'_>,
    out: &Path,
    bands_out: Option<&Path>,
) -> Result<Summary, CurateError> {
    let (start, bytes) = read_lines(path, part)?;
    let mut summary = Summary {
        bytes: bytes.len() as u64,
        sha256: hex(&Sha256::digest(&bytes)),
        ..Summary::default()
    };
    let file: Arc<Path> = path.into();
    let mut rows = Rows::default();
    let mut bands = [UInt64Builder::new(), UInt64Builder::new()];
    let mut offset = start;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        // What some editors put in front of UTF-8 is no part of the first line.
        let mark = match offset {
            0 if line.starts_with(b"\xEF\xBB\xBF") => 3,
            _ => 0,
        };
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let text = text.get(mark..).unwrap_or_default();
        let place = opabinia_data::Place::new(Arc::clone(&file), summary.lines + 1);
        let front = format!("{place}: ");
        let mut classified = match text.len() > MAX_LINE_BYTES {
            true => too_long(&place, text.len()),
            false => classifier.classify(text, place, name),
        };
        // The line is not known yet, only its number in the part.
        if let Some(what) = &mut classified.what
            && let Some(rest) = what.strip_prefix(&front)
        {
            *what = rest.to_owned();
        }
        if let Some(origin) = &classified.origin {
            let names = (origin.source.clone(), origin.category.clone());
            summary.sources.insert(source_key(origin), names);
        }
        *summary
            .classes
            .entry(classified.class.name().to_owned())
            .or_default() += 1;
        let begin = offset + mark as u64;
        let pos = position(part.number, summary.lines);
        rows.push(pos, begin, text.len() as u32, &classified);
        for key in classified.bands.into_iter().flatten() {
            bands[0].append_value(pos);
            bands[1].append_value(key);
        }
        summary.lines += 1;
        offset += line.len() as u64;
    }
    // The index comes last: where it is, the bands are too.
    if let Some(path) = bands_out {
        let columns = bands.map(|mut column| Arc::new(column.finish()) as ArrayRef);
        write_table(path, bands_schema(), columns.to_vec(), None)?;
    }
    write(out, rows, &summary)?;
    Ok(summary)
}

fn too_long(place: &opabinia_data::Place, bytes: usize) -> Classified {
    let error = opabinia_data::SampleError::TooLong {
        place: place.clone(),
        bytes: bytes as u64,
        limit: MAX_LINE_BYTES as u64,
    };
    Classified {
        class: Class::BrokenJson,
        what: Some(error.in_full()),
        sample: None,
        origin: None,
        content: [0; 16],
        lengths: Lengths::default(),
        bands: None,
    }
}

/// Position of a row of a part.
pub fn position(part: u32, row: u64) -> u64 {
    u64::from(part) << 32 | row
}

fn write(out: &Path, rows: Rows, summary: &Summary) -> Result<(), CurateError> {
    let columns = rows.finish();
    let text = serde_json::json!(summary).to_string();
    write_table(out, schema(), columns, Some(text))
}

/// Writes a Parquet file that appears when it is whole, with a summary beside its rows.
fn write_table(
    out: &Path,
    schema: SchemaRef,
    columns: Vec<ArrayRef>,
    summary: Option<String>,
) -> Result<(), CurateError> {
    let parquet = || CurateError::parquet("write the index", out);
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns);
    let batch = batch.map_err(|error| CurateError::Format {
        path: out.to_owned(),
        problem: error.to_string(),
    })?;
    let pairs = summary.map(|text| vec![KeyValue::new(SUMMARY.to_owned(), text)]);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(pairs)
        .build();
    let temporary = temporary(out);
    let file = File::create(&temporary).map_err(CurateError::io("write the index", &temporary))?;
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).map_err(parquet())?;
    writer.write(&batch).map_err(parquet())?;
    writer.close().map_err(parquet())?;
    std::fs::rename(&temporary, out).map_err(CurateError::io("write the index", out))
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
    /// Key of its source; 0 is none.
    pub source: u64,
    /// Its lengths.
    pub lengths: Lengths,
    /// Its name.
    pub id: Option<&'a str>,
    /// Path of its picture.
    pub image: Option<&'a str>,
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
        let image = cast::<StringArray>(column("image"))?;
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
                image: text(image, i).map(|i| image.value(i)),
                what: text(what, i).map(|i| what.value(i)),
            })
        };
        (0..self.len()).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::recipe::Placeholders;
    use crate::sources::Rules;

    fn all_lines(text: &[u8], part_bytes: u64) -> Vec<(u64, Vec<u8>)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.jsonl");
        std::fs::write(&path, text).unwrap();
        let rules = Rules::new(&[]);
        let classifier = Classifier {
            rules: &rules,
            pictures: None,
            decode: false,
            placeholders: Placeholders::Once,
            compare: None,
        };
        let mut lines = Vec::new();
        for part in cut(&[text.len() as u64], part_bytes) {
            let out = folder.path().join(format!("{}.parquet", part.number));
            let summary = index(&path, "s.jsonl", &part, &classifier, &out, None).unwrap();
            assert_eq!(read_summary(&out).unwrap(), summary);
            let read = Index::read(&out).unwrap();
            for row in read.rows().unwrap() {
                let at = row.offset as usize;
                lines.push((row.offset, text[at..at + row.length as usize].to_vec()));
            }
        }
        lines
    }

    #[test]
    fn a_line_belongs_to_the_part_it_begins_in() {
        let text = b"{}\n\n[1, 2]\nlast";
        let expected: Vec<(u64, Vec<u8>)> = vec![
            (0, b"{}".to_vec()),
            (3, b"".to_vec()),
            (4, b"[1, 2]".to_vec()),
            (11, b"last".to_vec()),
        ];
        for part_bytes in 1..20 {
            assert_eq!(all_lines(text, part_bytes), expected, "{part_bytes}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn parts_hold_every_byte_once(text in "[a\n]{1,40}", part_bytes in 1_u64..12) {
            let lines: Vec<Vec<u8>> = all_lines(text.as_bytes(), part_bytes).into_iter().map(|l| l.1).collect();
            let expected: Vec<Vec<u8>> = text.lines().map(|l| l.as_bytes().to_vec()).collect();
            prop_assert_eq!(lines, expected);
        }
    }
}
