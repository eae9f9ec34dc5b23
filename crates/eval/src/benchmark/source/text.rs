//! Rows from text: JSON lines, a JSON list, comma- and tab-separated sheets.
//!
//! A file that breaks its own format is an error with the line, not a smaller benchmark.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::table::{Numbered, Table};
use crate::benchmark::error::BenchmarkError;
use crate::benchmark::row::{Cell, Row};

/// Some programs begin a text with this.
const BYTE_ORDER_MARK: &str = "\u{feff}";

fn open(path: &Path) -> Result<BufReader<File>, BenchmarkError> {
    let file = File::open(path).map_err(BenchmarkError::read("questions", path))?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

fn broken(path: &Path, line: u64, problem: impl ToString) -> BenchmarkError {
    BenchmarkError::Broken {
        path: path.to_owned(),
        line,
        problem: problem.to_string(),
    }
}

/// One JSON object per line; blank lines are skipped.
pub(super) fn open_jsonl(path: &Path) -> Result<Table, BenchmarkError> {
    let rows = json_lines(open(path)?, path.to_owned());
    Ok(Table {
        columns: None,
        rows: Box::new(rows),
    })
}

fn json_lines(reader: impl BufRead, path: PathBuf) -> impl Iterator<Item = Numbered> {
    let lines = reader.split(b'\n').zip(1..);
    lines.filter_map(move |(line, number)| {
        let line = match line {
            Ok(line) => line,
            Err(error) => return Some(Err(BenchmarkError::read("questions", &path)(error))),
        };
        let bytes = line.strip_prefix(BYTE_ORDER_MARK.as_bytes());
        let bytes = bytes.unwrap_or(&line).trim_ascii();
        if bytes.is_empty() {
            return None;
        }
        let row = serde_json::from_slice(bytes).map_err(|error| broken(&path, number, error));
        Some(row.and_then(|value| object(value, &path, number)))
    })
}

/// A JSON list of objects.
pub(super) fn open_json(path: &Path) -> Result<Table, BenchmarkError> {
    let mut text = String::new();
    let read = open(path)?.read_to_string(&mut text);
    read.map_err(BenchmarkError::read("questions", path))?;
    let rows = json_list(&text, path)?;
    let path = path.to_owned();
    let rows = rows.into_iter().zip(1..);
    Ok(Table {
        columns: None,
        rows: Box::new(rows.map(move |(value, number)| object(value, &path, number))),
    })
}

fn json_list(text: &str, path: &Path) -> Result<Vec<Value>, BenchmarkError> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    match serde_json::from_str(text) {
        Ok(Value::Array(rows)) => Ok(rows),
        Ok(_) => Err(broken(path, 1, "not a JSON list of objects")),
        Err(error) => Err(broken(path, error.line() as u64, error)),
    }
}

fn object(value: Value, path: &Path, number: u64) -> Numbered {
    let Value::Object(entries) = value else {
        return Err(broken(path, number, "not a JSON object"));
    };
    let entries = entries.into_iter();
    let cells = entries.map(|(name, value)| (Arc::from(name), Cell::from(value)));
    Ok((number, Row::new(cells)))
}

/// A sheet with a first line of names, in place of which `names` may stand. Cells are text.
pub(super) fn open_sheet(
    path: &Path,
    separator: u8,
    names: Option<&[String]>,
) -> Result<Table, BenchmarkError> {
    sheet(open(path)?, path, separator, names)
}

fn sheet(
    reader: impl Read + 'static,
    path: &Path,
    separator: u8,
    names: Option<&[String]>,
) -> Result<Table, BenchmarkError> {
    let mut builder = csv::ReaderBuilder::new();
    let mut reader = builder.delimiter(separator).from_reader(reader);
    let header = reader
        .headers()
        .map_err(|error| sheet_error(path, &error))?;
    let found: Vec<String> = header.iter().map(|name| column_name(name).into()).collect();
    let columns = match names {
        Some(names) if names.len() == found.len() => names.to_vec(),
        Some(names) => {
            let (wanted, found) = (names.len(), found.len());
            let problem = format!("{found} columns, but `columns` names {wanted}");
            return Err(broken(path, 1, problem));
        }
        None => found,
    };
    let keys: Vec<Arc<str>> = columns
        .iter()
        .map(|name| Arc::from(name.as_str()))
        .collect();
    let path = path.to_owned();
    let rows = reader.into_records().map(move |record| {
        let record = record.map_err(|error| sheet_error(&path, &error))?;
        let line = record.position().map_or(0, csv::Position::line);
        let cells = keys.iter().zip(&record);
        let cells = cells.map(|(key, text)| (Arc::clone(key), Cell::Text(text.to_owned())));
        Ok((line, Row::new(cells)))
    });
    Ok(Table {
        columns: Some(columns),
        rows: Box::new(rows),
    })
}

fn column_name(name: &str) -> &str {
    name.trim_start_matches(BYTE_ORDER_MARK).trim()
}

fn sheet_error(path: &Path, error: &csv::Error) -> BenchmarkError {
    let line = error.position().map_or(1, csv::Position::line);
    broken(path, line, error)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn lines(text: &str) -> Result<Vec<(u64, Row)>, BenchmarkError> {
        json_lines(Cursor::new(text.to_owned()), "q.jsonl".into()).collect()
    }

    fn read_sheet(
        text: &[u8],
        separator: u8,
        names: Option<&[String]>,
    ) -> Result<Vec<(u64, Row)>, BenchmarkError> {
        let reader = Cursor::new(text.to_vec());
        sheet(reader, Path::new("q.csv"), separator, names)?
            .rows
            .collect()
    }

    fn text<'a>(row: &'a Row, column: &str) -> &'a str {
        match row.get(column) {
            Some(Cell::Text(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn json_lines_have_the_numbers_of_the_file() {
        let rows = lines("\u{feff}{\"a\": 1}\r\n\n{\"a\": \"x\"}").unwrap();
        assert_eq!((rows[0].0, rows[1].0), (1, 3));
        assert_eq!(rows[0].1.get("a"), Some(&Cell::Int(1)));
        assert_eq!(text(&rows[1].1, "a"), "x");
        let error = lines("{}\n[]\n").unwrap_err().to_string();
        assert_eq!(error, "q.jsonl:2: not a JSON object");
        let error = lines("{}\n\n{\"a\": \n").unwrap_err().to_string();
        assert!(error.starts_with("q.jsonl:3: EOF"), "{error}");
    }

    #[test]
    fn a_json_list_is_a_list() {
        let path = Path::new("q.json");
        assert_eq!(json_list("[{}, {}]", path).unwrap().len(), 2);
        let error = json_list("{\"data\": []}", path).unwrap_err().to_string();
        assert_eq!(error, "q.json:1: not a JSON list of objects");
        assert!(
            json_list("[{},\n x]", path)
                .unwrap_err()
                .to_string()
                .starts_with("q.json:2:")
        );
    }

    #[test]
    fn sheets_have_quoted_cells_and_names() {
        let bytes = "\u{feff}id , question\n1,\"a, \"\"b\"\"\nc\"\n2,d\n".as_bytes();
        let rows = read_sheet(bytes, b',', None).unwrap();
        assert_eq!(text(&rows[0].1, "question"), "a, \"b\"\nc");
        assert_eq!((text(&rows[1].1, "id"), rows[1].0), ("2", 4));
        let names = ["n".to_owned(), "q".to_owned()];
        let rows = read_sheet(b"lndex\tQ\n7\tx\n", b'\t', Some(&names)).unwrap();
        assert_eq!((text(&rows[0].1, "n"), text(&rows[0].1, "q")), ("7", "x"));
        let error = read_sheet(b"a\n1\n", b',', Some(&names)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "q.csv:1: 1 columns, but `columns` names 2"
        );
        let error = read_sheet(b"a,b\n1,2\n3\n", b',', None)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("q.csv:3:"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = json_lines(Cursor::new(bytes.clone()), "q".into()).count();
            let _ = read_sheet(&bytes, b'\t', None);
            let _ = json_list(&String::from_utf8_lossy(&bytes), Path::new("q"));
        }

        #[test]
        fn sheets_come_back(cells in proptest::collection::vec("[a-z,\"\n é]{1,6}", 2..6)) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["a", "b"]).unwrap();
            for pair in cells.chunks_exact(2) {
                writer.write_record(pair).unwrap();
            }
            let rows = read_sheet(&writer.into_inner().unwrap(), b',', None).unwrap();
            prop_assert_eq!(rows.len(), cells.len() / 2);
            for ((_, row), pair) in rows.iter().zip(cells.chunks_exact(2)) {
                prop_assert_eq!(text(row, "a"), &pair[0]);
                prop_assert_eq!(text(row, "b"), &pair[1]);
            }
        }
    }
}
