//! Reading: what a file is, and its samples one by one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::arrow::json::LineDelimitedWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::Incoming;
use super::normalise::{normalise, show_picture};
use crate::error::CurateError;

/// Who takes what was read.
pub type Sink<'a> = &'a mut dyn FnMut(Incoming) -> Result<(), CurateError>;

/// Where the name of the tar format stands in a header.
const TAR_MAGIC: usize = 257;

/// Most bytes of one member of a tar file, and of one line.
const MAX_BYTES: u64 = 256 << 20;

/// Rows of a Parquet file that are in memory at once.
const ROWS: usize = 64;

/// Reads a file to its end.
///
/// # Errors
/// If it cannot be read, breaks off, or `sink` fails.
pub fn read(path: &Path, sink: Sink<'_>) -> Result<(), CurateError> {
    let io = || CurateError::io("read", path);
    let mut file = File::open(path).map_err(io())?;
    let mut start = [0; 4];
    let there = read_some(&mut file, &mut start).map_err(io())?;
    if start[..there] == *b"PAR1" {
        return parquet(path, sink);
    }
    let file = File::open(path).map_err(io())?;
    let mut reader: Box<dyn BufRead> = Box::new(BufReader::with_capacity(1 << 20, file));
    // A tar file may be compressed, and what is inside is told by its own first bytes.
    if start[..there].starts_with(&[0x1F, 0x8B]) {
        reader = Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(reader)));
    } else if start[..there] == [0x28, 0xB5, 0x2F, 0xFD] {
        let decoder = zstd::stream::read::Decoder::with_buffer(reader).map_err(io())?;
        reader = Box::new(BufReader::new(decoder));
    }
    let mut head = vec![0; TAR_MAGIC + 5];
    let there = read_some(&mut reader, &mut head).map_err(io())?;
    head.truncate(there);
    if head.starts_with(b"PAR1") {
        return Err(CurateError::Format {
            path: path.to_owned(),
            problem: "it is Parquet inside of gzip or Zstandard; unpack it first".to_owned(),
        });
    }
    let is_tar = head.get(TAR_MAGIC..TAR_MAGIC + 5) == Some(b"ustar");
    let text = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&head);
    let is_array = text.trim_ascii_start().first() == Some(&b'[');
    let skip = head.len() - text.len();
    let whole = std::io::Cursor::new(head.clone()).chain(reader);
    let mut whole = BufReader::with_capacity(1 << 20, whole);
    if is_tar {
        return tar(path, whole, sink);
    }
    whole.consume_exact(skip).map_err(io())?;
    match is_array {
        true => array(path, whole, sink),
        false => lines(path, whole, sink),
    }
}

trait ConsumeExact {
    fn consume_exact(&mut self, bytes: usize) -> std::io::Result<()>;
}

impl<R: Read> ConsumeExact for R {
    fn consume_exact(&mut self, bytes: usize) -> std::io::Result<()> {
        let mut skipped = vec![0; bytes];
        self.read_exact(&mut skipped)
    }
}

/// Fills `bytes` as far as the file goes.
fn read_some(from: &mut impl Read, bytes: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match from.read(&mut bytes[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

fn record(value: Value, mut pictures: Vec<Vec<u8>>) -> Incoming {
    let record = normalise(value, &mut pictures);
    Incoming::Record { record, pictures }
}

fn lines(path: &Path, mut reader: impl BufRead, sink: Sink<'_>) -> Result<(), CurateError> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(MAX_BYTES).read_until(b'\n', &mut line);
        if read.map_err(CurateError::io("read", path))? == 0 {
            return Ok(());
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        sink(match serde_json::from_slice(text) {
            Ok(value) => record(value, Vec::new()),
            Err(_) => Incoming::Line(text.to_vec()),
        })?;
    }
}

/// Hands elements of a sequence on as they come.
struct Elements<'a, 'b> {
    sink: Sink<'a>,
    failed: &'b mut Option<CurateError>,
}

impl<'de> Visitor<'de> for Elements<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of samples")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(value) = elements.next_element::<Value>()? {
            if let Err(error) = (self.sink)(record(value, Vec::new())) {
                *self.failed = Some(error);
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

fn array(path: &Path, reader: impl Read, sink: Sink<'_>) -> Result<(), CurateError> {
    let mut failed = None;
    let mut json = serde_json::Deserializer::from_reader(reader);
    let read = json.deserialize_seq(Elements {
        sink,
        failed: &mut failed,
    });
    if let Some(error) = failed {
        return Err(error);
    }
    read.and_then(|()| json.end()).map_err(|error| CurateError::Format {
        path: path.to_owned(),
        problem: format!("the array of samples breaks off: {error}; mend the file, or write one object per line"),
    })
}

/// One sample of a WebDataset file: members with one key.
#[derive(Default)]
struct Members {
    key: String,
    json: Option<Vec<u8>>,
    text: Option<Vec<u8>>,
    pictures: Vec<Vec<u8>>,
}

impl Members {
    fn finish(self, sink: Sink<'_>) -> Result<(), CurateError> {
        if self.json.is_none() && self.text.is_none() && self.pictures.is_empty() {
            return Ok(());
        }
        let mut value = match (self.json, self.text) {
            (Some(json), _) => match serde_json::from_slice(&json) {
                Ok(value @ Value::Object(_)) => value,
                _ => return sink(Incoming::Line(one_line(&json))),
            },
            (None, Some(text)) => {
                let text = String::from_utf8_lossy(&text).trim().to_owned();
                json!({"conversations": [
                    {"from": "human", "value": "<image>"}, {"from": "gpt", "value": text}]})
            }
            (None, None) => json!({}),
        };
        if let Value::Object(record) = &mut value
            && !record.contains_key("id")
        {
            record.insert("id".to_owned(), Value::String(self.key));
        }
        sink(record(value, self.pictures))
    }
}

fn one_line(bytes: &[u8]) -> Vec<u8> {
    let flat = |byte: &u8| match byte {
        b'\n' | b'\r' => b' ',
        other => *other,
    };
    bytes.iter().map(flat).collect()
}

fn tar(path: &Path, reader: impl Read, sink: Sink<'_>) -> Result<(), CurateError> {
    let io = || CurateError::io("read the tar file", path);
    let mut archive = tar::Archive::new(reader);
    let mut members = Members::default();
    for entry in archive.entries().map_err(io())? {
        let mut entry = entry.map_err(io())?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        // The key ends at the first dot behind the last slash.
        let base = name.rfind('/').map_or(0, |slash| slash + 1);
        let dot = name[base..].find('.').map_or(name.len(), |dot| base + dot);
        let (key, ending) = name.split_at(dot);
        let ending = ending.trim_start_matches('.').to_lowercase();
        if key != members.key {
            std::mem::take(&mut members).finish(sink)?;
            key.clone_into(&mut members.key);
        }
        if entry.size() > MAX_BYTES {
            return Err(CurateError::Format {
                path: path.to_owned(),
                problem: format!(
                    "`{name}` has {} bytes, the limit is {MAX_BYTES}",
                    entry.size()
                ),
            });
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(io())?;
        match ending.rsplit('.').next().unwrap_or_default() {
            "json" => members.json = Some(bytes),
            "txt" | "caption" => members.text = Some(bytes),
            "jpg" | "jpeg" | "png" | "webp" | "gif" | "bmp" | "tif" | "tiff" => {
                members.pictures.push(bytes);
            }
            _ => {}
        }
    }
    members.finish(sink)
}

fn parquet(path: &Path, sink: Sink<'_>) -> Result<(), CurateError> {
    let failed = || CurateError::parquet("read", path);
    let format = |problem: String| CurateError::Format {
        path: path.to_owned(),
        problem,
    };
    let file = File::open(path).map_err(CurateError::io("read", path))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed())?;
    for batch in reader.with_batch_size(ROWS).build().map_err(failed())? {
        let batch = batch.map_err(|error| format(error.to_string()))?;
        let (rest, pictures) = without_pictures(&batch).map_err(|e| format(e.to_string()))?;
        let mut text = Vec::new();
        let mut writer = LineDelimitedWriter::new(&mut text);
        writer
            .write(&rest)
            .map_err(|error| format(error.to_string()))?;
        writer.finish().map_err(|error| format(error.to_string()))?;
        let mut values = text.split(|&byte| byte == b'\n');
        for row in 0..batch.num_rows() {
            let value = match rest.num_columns() {
                0 => json!({}),
                _ => serde_json::from_slice(values.next().unwrap_or_default())
                    .map_err(|error| format(format!("row {}: {error}", row + 1)))?,
            };
            let own = pictures.get(&row).cloned().unwrap_or_default();
            let mut value = with_parsed_turns(value);
            // A picture that is not inside has at least a name.
            if own.is_empty()
                && let Some(path) = path_of(&batch, row)
                && let Value::Object(fields) = &mut value
            {
                fields.insert("image".to_owned(), Value::String(path));
            }
            sink(record(value, own))?;
        }
    }
    Ok(())
}

/// Turns that are kept as a text of JSON, as this program writes them into Parquet.
fn with_parsed_turns(mut value: Value) -> Value {
    for key in ["conversations", "messages", "texts"] {
        if let Some(turns) = value.get_mut(key)
            && let Some(text) = turns.as_str()
            && let Ok(parsed @ Value::Array(_)) = serde_json::from_str(text)
        {
            *turns = parsed;
        }
    }
    value
}

/// Encoded pictures by the row they are in.
type PicturesByRow = BTreeMap<usize, Vec<Vec<u8>>>;

/// Splits a batch into what JSON can hold, and the bytes of pictures by row.
fn without_pictures(
    batch: &RecordBatch,
) -> Result<(RecordBatch, PicturesByRow), datafusion::arrow::error::ArrowError> {
    let mut pictures = PicturesByRow::new();
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let found = (0..column.len()).map(|row| bytes_of(column, row));
        let found: Vec<Vec<Vec<u8>>> = found.collect();
        if found.iter().all(Vec::is_empty) && !holds_bytes(field.data_type()) {
            fields.push(field.clone());
            columns.push(ArrayRef::clone(column));
            continue;
        }
        for (row, own) in found.into_iter().enumerate() {
            pictures.entry(row).or_default().extend(own);
        }
    }
    let schema = std::sync::Arc::new(Schema::new(fields));
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
fn bytes_of(column: &ArrayRef, row: usize) -> Vec<Vec<u8>> {
    if !holds_bytes(column.data_type()) || column.is_null(row) {
        return Vec::new();
    }
    match column.data_type() {
        DataType::Binary => vec![column.as_binary::<i32>().value(row).to_vec()],
        DataType::LargeBinary => vec![column.as_binary::<i64>().value(row).to_vec()],
        DataType::BinaryView => vec![column.as_binary_view().value(row).to_vec()],
        DataType::Struct(_) => {
            let all: &StructArray = column.as_struct();
            all.column_by_name("bytes")
                .map_or_else(Vec::new, |bytes| bytes_of(bytes, row))
        }
        DataType::List(_) => in_list(&column.as_list::<i32>().value(row)),
        DataType::LargeList(_) => in_list(&column.as_list::<i64>().value(row)),
        _ => Vec::new(),
    }
}

/// The path in a structure of bytes and path.
fn path_of(batch: &RecordBatch, row: usize) -> Option<String> {
    let columns = batch.columns().iter();
    let mut structures = columns.filter(|column| {
        matches!(column.data_type(), DataType::Struct(_)) && holds_bytes(column.data_type())
    });
    let all: &StructArray = structures.next()?.as_struct_opt()?;
    let paths = all.column_by_name("path")?.as_string_opt::<i32>()?;
    paths.is_valid(row).then(|| paths.value(row).to_owned())
}

fn in_list(list: &ArrayRef) -> Vec<Vec<u8>> {
    (0..list.len())
        .flat_map(|row| bytes_of(list, row))
        .collect()
}

/// Shows a picture that came inside of the file.
pub fn with_picture(record: &mut Value, path: &str) {
    if let Value::Object(fields) = record {
        fields.shift_remove("images");
        fields.insert("image".to_owned(), Value::String(path.to_owned()));
    }
    show_picture(record);
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<Incoming>, CurateError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        let mut found = Vec::new();
        read(&path, &mut |incoming| {
            found.push(incoming);
            Ok(())
        })?;
        Ok(found)
    }

    fn ids(bytes: &[u8]) -> Vec<i64> {
        let id = |incoming: &Incoming| match incoming {
            Incoming::Record { record, .. } => record["id"].as_i64().unwrap(),
            Incoming::Line(_) => -1,
        };
        all(bytes).unwrap().iter().map(id).collect()
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn bytes_say_what_a_file_is() {
        let lines = b"{\"id\": 1}\n\nnonsense\r\n{\"id\": 2}";
        assert_eq!(ids(lines), [1, -1, 2]);
        assert_eq!(ids(b" \n[{\"id\": 3}, {\"id\": 4}]\n"), [3, 4]);
        assert_eq!(ids(&gz(lines)), [1, -1, 2]);
        // Two members, one behind the other, are one file.
        assert_eq!(
            ids(&[gz(b"{\"id\": 5}\n"), gz(b"{\"id\": 6}\n")].concat()),
            [5, 6]
        );
        assert_eq!(
            ids(&zstd::encode_all(&b"[{\"id\": 7}]"[..], 1).unwrap()),
            [7]
        );
        let cut = all(b"[{\"id\": 3}, {\"id\"").unwrap_err().to_string();
        assert!(cut.contains("breaks off"), "{cut}");
        assert!(all(&gz(lines)[..20]).is_err());
    }

    #[test]
    fn members_with_one_key_are_one_sample() {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in [
            ("a/1.json", &b"{\"id\": 8}"[..]),
            ("a/1.jpg", b"JPG"),
            ("a/2.txt", b"a caption\n"),
            ("a/2.png", b"PNG"),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, bytes).unwrap();
        }
        let bytes = tar.into_inner().unwrap();
        for bytes in [gz(&bytes), bytes] {
            let found = all(&bytes).unwrap();
            let Incoming::Record { record, pictures } = &found[0] else {
                panic!()
            };
            assert_eq!(
                (&record["id"], pictures.as_slice()),
                (&json!(8), &[b"JPG".to_vec()][..])
            );
            let Incoming::Record { record, .. } = &found[1] else {
                panic!()
            };
            assert_eq!(record["conversations"][1]["value"], "a caption");
            assert_eq!(record["id"], "a/2");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0..5) {
            let front: &[u8] = [&b""[..], b"PAR1", b"[", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"][kind as usize];
            let _ = all(&[front, &bytes].concat());
        }
    }
}
