//! Rows from Parquet, in the layout of Hugging Face's data sets: a picture is a structure
//! `{bytes, path}`, options are a list of strings.
//!
//! Columns that a definition does not use are not read. A few rows are decoded at a time, because a
//! row may hold megabytes of picture. The library asserts some of what a damaged file breaks; its
//! panics are caught and are errors like its others.

use std::any::Any;
use std::collections::BTreeSet;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, DataType};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::table::{Numbered, Table};
use crate::benchmark::error::BenchmarkError;
use crate::benchmark::row::{Cell, Row};

/// Rows that are decoded at a time.
const BATCH: usize = 16;

/// Lists and structures may lie in each other this deep.
const MAX_DEPTH: usize = 16;

/// Opens a file; only `wanted` columns are read.
pub(super) fn open(path: &Path, wanted: &BTreeSet<String>) -> Result<Table, BenchmarkError> {
    let file = File::open(path).map_err(BenchmarkError::read("questions", path))?;
    catch_unwind(AssertUnwindSafe(|| open_file(path, file, wanted)))
        .unwrap_or_else(|panic| Err(refused(path)(damage(&*panic))))
}

fn open_file(path: &Path, file: File, wanted: &BTreeSet<String>) -> Result<Table, BenchmarkError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(refused(path))?;
    let fields = builder.schema().fields();
    let columns: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
    let roots = columns.iter().enumerate();
    let roots = roots.filter(|(_, name)| wanted.contains(*name));
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots.map(|(index, _)| index));
    let reader = builder.with_projection(mask).with_batch_size(BATCH);
    let rows = Rows {
        path: path.to_owned(),
        reader: reader.build().map_err(refused(path))?,
        batch: Vec::new().into_iter(),
        number: 0,
        failed: false,
    };
    Ok(Table {
        columns: Some(columns),
        rows: Box::new(rows),
    })
}

fn refused<E>(path: &Path) -> impl FnOnce(E) -> BenchmarkError
where
    E: std::error::Error + Send + Sync + 'static,
{
    let path = path.to_owned();
    move |error| BenchmarkError::Parquet {
        path,
        source: Box::new(error),
    }
}

/// What the library said when it found what it thought impossible.
fn damage(panic: &(dyn Any + Send)) -> ArrowError {
    let said = panic.downcast_ref::<&str>().copied();
    let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    ArrowError::ParquetError(format!(
        "the file is damaged: {}",
        said.unwrap_or("its pages contradict its index")
    ))
}

struct Rows {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    batch: std::vec::IntoIter<Row>,
    number: u64,
    failed: bool,
}

impl Iterator for Rows {
    type Item = Numbered;

    fn next(&mut self) -> Option<Numbered> {
        if self.failed {
            return None;
        }
        loop {
            if let Some(row) = self.batch.next() {
                self.number += 1;
                return Some(Ok((self.number, row)));
            }
            let reader = &mut self.reader;
            let next = catch_unwind(AssertUnwindSafe(|| {
                reader
                    .next()
                    .map(|batch| batch.and_then(|batch| rows_of(&batch)))
            }));
            match next.unwrap_or_else(|panic| Some(Err(damage(&*panic))))? {
                Ok(rows) => self.batch = rows.into_iter(),
                Err(error) => {
                    self.failed = true;
                    return Some(Err(refused(&self.path)(error)));
                }
            }
        }
    }
}

fn rows_of(batch: &RecordBatch) -> Result<Vec<Row>, ArrowError> {
    let schema = batch.schema();
    let names: Vec<Arc<str>> = schema
        .fields()
        .iter()
        .map(|field| Arc::from(field.name().as_str()))
        .collect();
    let row = |index| {
        let cells = names.iter().zip(batch.columns());
        let cells = cells.map(|(name, column)| Ok((Arc::clone(name), cell(column, index, 0)?)));
        Ok(Row::new(cells.collect::<Result<Vec<_>, ArrowError>>()?))
    };
    (0..batch.num_rows()).map(row).collect()
}

/// One value of a column.
fn cell(column: &ArrayRef, row: usize, depth: usize) -> Result<Cell, ArrowError> {
    if column.is_null(row) {
        return Ok(Cell::Null);
    }
    if depth > MAX_DEPTH {
        let problem = format!("lists and structures are nested more than {MAX_DEPTH} deep");
        return Err(ArrowError::ParquetError(problem));
    }
    let list = |items: ArrayRef| -> Result<Cell, ArrowError> {
        let items = (0..items.len()).map(|item| cell(&items, item, depth + 1));
        Ok(Cell::List(items.collect::<Result<_, _>>()?))
    };
    Ok(match column.data_type() {
        DataType::Null => Cell::Null,
        DataType::Boolean => Cell::Bool(column.as_boolean().value(row)),
        DataType::Int8 => Cell::Int(column.as_primitive::<Int8Type>().value(row).into()),
        DataType::Int16 => Cell::Int(column.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int32 => Cell::Int(column.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Cell::Int(column.as_primitive::<Int64Type>().value(row)),
        DataType::UInt8 => Cell::Int(column.as_primitive::<UInt8Type>().value(row).into()),
        DataType::UInt16 => Cell::Int(column.as_primitive::<UInt16Type>().value(row).into()),
        DataType::UInt32 => Cell::Int(column.as_primitive::<UInt32Type>().value(row).into()),
        DataType::UInt64 => {
            let value = column.as_primitive::<UInt64Type>().value(row);
            i64::try_from(value).map_or(Cell::Float(value as f64), Cell::Int)
        }
        DataType::Float16 => Cell::Float(column.as_primitive::<Float16Type>().value(row).to_f64()),
        DataType::Float32 => Cell::Float(column.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => Cell::Float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => Cell::Text(column.as_string::<i32>().value(row).to_owned()),
        DataType::LargeUtf8 => Cell::Text(column.as_string::<i64>().value(row).to_owned()),
        DataType::Utf8View => Cell::Text(column.as_string_view().value(row).to_owned()),
        DataType::Binary => Cell::Bytes(column.as_binary::<i32>().value(row).into()),
        DataType::LargeBinary => Cell::Bytes(column.as_binary::<i64>().value(row).into()),
        DataType::BinaryView => Cell::Bytes(column.as_binary_view().value(row).into()),
        DataType::List(_) => list(column.as_list::<i32>().value(row))?,
        DataType::LargeList(_) => list(column.as_list::<i64>().value(row))?,
        DataType::FixedSizeList(..) => list(column.as_fixed_size_list().value(row))?,
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(column.as_struct().columns());
            let entries = columns
                .map(|(field, column)| Ok((field.name().clone(), cell(column, row, depth + 1)?)));
            Cell::Map(entries.collect::<Result<_, ArrowError>>()?)
        }
        // Dates, decimals, dictionaries: as they are written.
        _ => {
            let options = FormatOptions::default();
            let written = ArrayFormatter::try_new(column, &options)?;
            Cell::Text(written.value(row).try_to_string()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use arrow_array::builder::{ListBuilder, StringBuilder};
    use arrow_array::types::Int32Type as Key;
    use arrow_array::{
        ArrowPrimitiveType, BinaryArray, BooleanArray, DictionaryArray, Float64Array, Int64Array,
        PrimitiveArray, StringArray, StructArray,
    };
    use arrow_schema::{Field, Fields};
    use parquet::arrow::ArrowWriter;
    use parquet::basic::Compression;
    use parquet::file::properties::WriterProperties;
    use proptest::prelude::*;

    use super::*;

    /// Three rows as Hugging Face's libraries write them.
    fn batch() -> RecordBatch {
        let bytes = BinaryArray::from_opt_vec(vec![
            Some(b"one".as_slice()),
            None,
            Some(b"three".as_slice()),
        ]);
        let paths = StringArray::from(vec![Some("1.png"), None, None]);
        let fields = Fields::from(vec![
            Field::new("bytes", DataType::Binary, true),
            Field::new("path", DataType::Utf8, true),
        ]);
        let images = StructArray::new(
            fields,
            vec![Arc::new(bytes), Arc::new(paths)],
            Some(vec![true, false, true].into()),
        );
        let mut options = ListBuilder::new(StringBuilder::new());
        options.append_value([Some("a"), Some("b")]);
        options.append_null();
        options.append_value([Some("c"), None]);
        let kinds: DictionaryArray<Key> = vec![Some("x"), None, Some("x")].into_iter().collect();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("image", Arc::new(images)),
            ("options", Arc::new(options.finish())),
            ("index", Arc::new(Int64Array::from(vec![7, 8, 9]))),
            (
                "share",
                Arc::new(Float64Array::from(vec![0.5, 1.0, f64::NAN])),
            ),
            (
                "good",
                Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
            ),
            ("kind", Arc::new(kinds)),
            ("question", Arc::new(StringArray::from(vec!["p", "q", "r"]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn written(compression: Compression) -> Vec<u8> {
        let batch = batch();
        let properties = WriterProperties::builder()
            .set_compression(compression)
            .build();
        let mut bytes = Vec::new();
        let mut writer =
            ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes
    }

    fn read(bytes: &[u8], wanted: &[&str]) -> Result<(Vec<String>, Vec<Row>), BenchmarkError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.parquet");
        fs::write(&path, bytes).unwrap();
        let wanted = wanted.iter().map(|&name| name.to_owned()).collect();
        let table = open(&path, &wanted)?;
        let mut rows = Vec::new();
        for (row, expected) in table.rows.zip(1..) {
            let (number, row) = row?;
            assert_eq!(number, expected);
            rows.push(row);
        }
        Ok((table.columns.unwrap(), rows))
    }

    const ALL: [&str; 7] = [
        "image", "options", "index", "share", "good", "kind", "question",
    ];

    #[test]
    fn every_kind_of_column() {
        for compression in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::ZSTD(Default::default()),
        ] {
            let (columns, rows) = read(&written(compression), &ALL).unwrap();
            assert_eq!(columns, ALL);
            let text = |text: &str| Cell::Text(text.to_owned());
            let image = rows[0].get("image").unwrap();
            let expected = [
                ("bytes".to_owned(), Cell::Bytes(Arc::from(*b"one"))),
                ("path".to_owned(), text("1.png")),
            ];
            assert_eq!(image, &Cell::Map(expected.into()));
            assert_eq!(rows[1].get("image"), Some(&Cell::Null));
            let options = Cell::List(vec![text("a"), text("b")]);
            assert_eq!(rows[0].get("options"), Some(&options));
            assert_eq!(rows[1].get("options"), Some(&Cell::Null));
            let options = Cell::List(vec![text("c"), Cell::Null]);
            assert_eq!(rows[2].get("options"), Some(&options));
            assert_eq!(rows[2].get("index"), Some(&Cell::Int(9)));
            assert_eq!(rows[0].get("share"), Some(&Cell::Float(0.5)));
            assert_eq!(rows[2].get("good"), Some(&Cell::Bool(false)));
            assert_eq!(rows[0].get("kind"), Some(&text("x")));
            assert_eq!(rows[1].get("kind"), Some(&Cell::Null));
            assert_eq!(rows[1].get("question"), Some(&text("q")));
        }
    }

    #[test]
    fn only_wanted_columns_are_read() {
        let bytes = written(Compression::UNCOMPRESSED);
        let (columns, rows) = read(&bytes, &["index", "no such column"]).unwrap();
        assert_eq!(columns.len(), 7);
        assert_eq!(rows[0].cells().count(), 1);
        let (_, rows) = read(&bytes, &[]).unwrap();
        assert_eq!(rows.len(), 3, "rows without columns are rows");
    }

    #[test]
    fn numbers_of_every_width() {
        fn first<T: ArrowPrimitiveType>(value: T::Native) -> Cell {
            let column: ArrayRef = Arc::new(PrimitiveArray::<T>::from_value(value, 1));
            cell(&column, 0, 0).unwrap()
        }
        assert_eq!(first::<Int8Type>(-3), Cell::Int(-3));
        assert_eq!(first::<UInt32Type>(u32::MAX), Cell::Int(u32::MAX.into()));
        assert_eq!(first::<UInt64Type>(u64::MAX), Cell::Float(u64::MAX as f64));
        assert_eq!(first::<Float32Type>(0.25), Cell::Float(0.25));
        let date = first::<arrow_array::types::Date32Type>(0);
        assert_eq!(date, Cell::Text("1970-01-01".to_owned()));
    }

    #[test]
    fn what_is_no_parquet_is_refused() {
        let message = read(b"no parquet", &ALL).unwrap_err().to_string();
        assert!(message.contains("rows.parquet` as Parquet"), "{message}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn damaged_files_never_panic(at in any::<prop::sample::Index>(), byte: u8, cut in 0usize..40) {
            let mut bytes = written(Compression::SNAPPY);
            let place = at.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(bytes.len() - cut.saturating_sub(20));
            let _ = read(&bytes, &ALL);
        }
    }
}
