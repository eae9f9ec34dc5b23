//! The numbers under a plot, as CSV and JSON.

use serde_json::{Map, Value};

use crate::analysis::error::AnalysisError;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Text(String),
    Number(f64),
    Count(u64),
    Missing,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Cell {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        if number.is_finite() {
            Self::Number(number)
        } else {
            Self::Missing
        }
    }
}

impl From<usize> for Cell {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Missing, Into::into)
    }
}

/// Rows that are all as long as the header.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DataTable {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Cell>>,
}

impl DataTable {
    pub fn new(columns: &[&str]) -> Self {
        Self {
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// As CSV; missing values are empty.
    pub fn csv(&self) -> String {
        let header = self.columns.iter().map(|name| quoted(name));
        let mut out = header.collect::<Vec<_>>().join(",") + "\n";
        for row in &self.rows {
            let cells = row.iter().map(|cell| match cell {
                Cell::Text(text) => quoted(text),
                Cell::Number(number) => rounded(*number).to_string(),
                Cell::Count(count) => count.to_string(),
                Cell::Missing => String::new(),
            });
            out += &(cells.collect::<Vec<_>>().join(",") + "\n");
        }
        out
    }

    /// As a JSON list of objects; missing values are `null`.
    pub fn json(&self) -> Result<String, AnalysisError> {
        let object = |row: &Vec<Cell>| {
            let values = row.iter().map(|cell| match cell {
                Cell::Text(text) => Value::from(text.as_str()),
                Cell::Number(number) => Value::from(rounded(*number)),
                Cell::Count(count) => Value::from(*count),
                Cell::Missing => Value::Null,
            });
            let object: Map<String, Value> = self.columns.iter().cloned().zip(values).collect();
            Value::Object(object)
        };
        let list: Vec<Value> = self.rows.iter().map(object).collect();
        serde_json::to_string_pretty(&list).map_err(|source| AnalysisError::Json {
            what: "the numbers of a plot",
            source,
        })
    }
}

/// Six digits behind the point are more than any score has.
fn rounded(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

/// A cell of a CSV file.
pub(crate) fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats() {
        let mut data = DataTable::new(&["name", "score", "n", "gap"]);
        data.rows.push(vec![
            "a, \"b\"".into(),
            0.1.into(),
            3usize.into(),
            None::<f64>.into(),
        ]);
        assert_eq!(data.csv(), "name,score,n,gap\n\"a, \"\"b\"\"\",0.1,3,\n");
        let json: Value = serde_json::from_str(&data.json().unwrap()).unwrap();
        assert_eq!(json[0]["name"], "a, \"b\"");
        assert_eq!(json[0]["gap"], Value::Null);
        assert_eq!(Cell::from(f64::NAN), Cell::Missing);
    }
}
