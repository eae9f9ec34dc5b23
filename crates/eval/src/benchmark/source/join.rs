//! Columns from another file: GQA keeps questions and pictures apart.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use super::table::{self, TableOptions};
use crate::benchmark::definition::JoinTable;
use crate::benchmark::error::{BenchmarkError, nearest};
use crate::benchmark::picture::PictureStore;
use crate::benchmark::row::{Cell, PackedPicture, Row};

/// Rows of another file, by the value that they share with ours.
pub(super) struct Join {
    here: String,
    columns: Vec<String>,
    rows: HashMap<String, Row>,
}

impl Join {
    /// Reads the other file, and puts its pictures away.
    pub(super) fn read(
        join: &JoinTable,
        files: &[PathBuf],
        wanted: &BTreeSet<String>,
        store: &mut PictureStore,
    ) -> Result<Self, BenchmarkError> {
        let [here, there] = &join.on;
        let mut wanted = wanted.clone();
        wanted.insert(there.clone());
        let options = TableOptions {
            format: None,
            names: None,
            wanted: &wanted,
        };
        let mut rows = HashMap::new();
        let mut columns = BTreeSet::new();
        for path in files {
            for row in table::open(path, &options)?.rows {
                let (number, row) = row?;
                columns.extend(row.cells().map(|(name, _)| name.to_string()));
                let key = row.get(there).and_then(key).ok_or_else(|| {
                    let known: Vec<&str> = row.cells().map(|(name, _)| &**name).collect();
                    let similar = nearest(there, known.iter().copied());
                    let similar = similar.map(|name| format!(", did you mean `{name}`?"));
                    BenchmarkError::Broken {
                        path: path.clone(),
                        line: number,
                        problem: format!(
                            "no text or number in `{there}`, by which it is joined{}",
                            similar.unwrap_or_default()
                        ),
                    }
                })?;
                let row = row.try_map(|cell| put_away(cell, store))?;
                if rows.insert(key.clone(), row).is_some() {
                    return Err(BenchmarkError::Broken {
                        path: path.clone(),
                        line: number,
                        problem: format!("`{there}` is `{key}` a second time"),
                    });
                }
            }
        }
        Ok(Self {
            here: here.clone(),
            columns: columns.into_iter().collect(),
            rows,
        })
    }

    /// The column of our rows by which they are joined.
    pub(super) fn here(&self) -> &str {
        &self.here
    }

    /// The columns that come from the other file.
    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Adds the other row's columns; nothing where there is no such row.
    pub(super) fn add_to(&self, row: &mut Row) {
        let other = row.get(&self.here).and_then(key);
        let other = other.and_then(|key| self.rows.get(&key));
        for name in &self.columns {
            let cell = other.and_then(|other| other.get(name));
            row.add(
                &Arc::from(name.as_str()),
                cell.cloned().unwrap_or(Cell::Null),
            );
        }
    }
}

fn key(cell: &Cell) -> Option<String> {
    match cell {
        Cell::Text(text) => Some(text.clone()),
        Cell::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A cell without the bytes of pictures, which are kept in the store.
fn put_away(cell: Cell, store: &mut PictureStore) -> Result<Cell, BenchmarkError> {
    if let Some(PackedPicture::Bytes(bytes)) = cell.packed_picture() {
        return Ok(Cell::Picture(store.put(bytes)?));
    }
    Ok(match cell {
        Cell::List(items) => {
            let items = items.into_iter().map(|item| put_away(item, store));
            Cell::List(items.collect::<Result<_, _>>()?)
        }
        cell => cell,
    })
}
