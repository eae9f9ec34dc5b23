//! One row of a file of questions, whatever format the file has.
//!
//! All readers give the same [`Row`], an ordered list of named [`Cell`]s, so that a definition does
//! not care whether its questions lie in Parquet, TSV or JSON.

use std::sync::Arc;

use super::picture::PictureData;

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Nothing.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes, of a picture as a rule.
    Bytes(Arc<[u8]>),
    /// A picture that has been put away.
    Picture(PictureData),
    /// Several values.
    List(Vec<Self>),
    /// Named values, in order.
    Map(Vec<(String, Self)>),
}

/// A row: named cells in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    cells: Vec<(Arc<str>, Cell)>,
}

impl Row {
    /// A row of these cells. Of cells with the same name the first counts.
    pub fn new(cells: impl IntoIterator<Item = (Arc<str>, Cell)>) -> Self {
        Self {
            cells: cells.into_iter().collect(),
        }
    }

    /// The cell of a column.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<&Cell> {
        let mut cells = self.cells.iter();
        cells
            .find(|(name, _)| &**name == column)
            .map(|(_, cell)| cell)
    }

    /// Names and cells, in order.
    pub fn cells(&self) -> impl Iterator<Item = (&Arc<str>, &Cell)> {
        self.cells.iter().map(|(name, cell)| (name, cell))
    }

    /// Adds a cell, unless there is one of that name.
    pub fn add(&mut self, column: &Arc<str>, cell: Cell) {
        if self.get(column).is_none() {
            self.cells.push((Arc::clone(column), cell));
        }
    }

    /// Gives a column another name.
    pub fn rename(&mut self, from: &str, to: &Arc<str>) {
        let mut cells = self.cells.iter_mut();
        if let Some((name, _)) = cells.find(|(name, _)| &**name == from) {
            *name = Arc::clone(to);
        }
    }

    /// The row with every cell changed by `change`.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn try_map<E>(self, mut change: impl FnMut(Cell) -> Result<Cell, E>) -> Result<Self, E> {
        let cells = self.cells.into_iter();
        let cells = cells.map(|(name, cell)| Ok((name, change(cell)?)));
        Ok(Self {
            cells: cells.collect::<Result<_, E>>()?,
        })
    }
}

impl From<serde_json::Value> for Cell {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(whole) => Self::Int(whole),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Self::Text(text),
            serde_json::Value::Array(items) => {
                Self::List(items.into_iter().map(Self::from).collect())
            }
            serde_json::Value::Object(entries) => {
                let entries = entries.into_iter();
                Self::Map(entries.map(|(key, value)| (key, value.into())).collect())
            }
        }
    }
}

impl Cell {
    /// The picture of a cell in the layout of Hugging Face's data sets, `{bytes, path}`: its bytes,
    /// or where there are none its path.
    pub(super) fn packed_picture(&self) -> Option<PackedPicture<'_>> {
        let entries = match self {
            Self::Bytes(bytes) => return Some(PackedPicture::Bytes(bytes)),
            Self::Map(entries) => entries,
            _ => return None,
        };
        let known = |(name, _): &(String, Self)| name == "bytes" || name == "path";
        if entries.is_empty() || !entries.iter().all(known) {
            return None;
        }
        let entry = |wanted| entries.iter().find(|(name, _)| name == wanted);
        match (entry("bytes"), entry("path")) {
            (Some((_, Self::Bytes(bytes))), _) => Some(PackedPicture::Bytes(bytes)),
            (_, Some((_, Self::Text(path)))) => Some(PackedPicture::Path(path)),
            _ => None,
        }
    }
}

/// A picture as a data set packs it.
pub(super) enum PackedPicture<'a> {
    /// The file itself.
    Bytes(&'a Arc<[u8]>),
    /// Its name.
    Path(&'a str),
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_becomes_cells() {
        let cell = Cell::from(json!({"b": [1, 2.5, null, true], "a": "x", "big": u64::MAX}));
        let Cell::Map(entries) = cell else { panic!() };
        let list = vec![Cell::Int(1), Cell::Float(2.5), Cell::Null, Cell::Bool(true)];
        assert!(entries.contains(&("b".into(), Cell::List(list))));
        assert!(entries.contains(&("a".into(), Cell::Text("x".into()))));
        assert!(entries.contains(&("big".into(), Cell::Float(u64::MAX as f64))));
    }

    #[test]
    fn pictures_are_told_from_other_maps() {
        let bytes = Cell::Bytes(Arc::from(*b"abc"));
        let map = |entries: &[(&str, Cell)]| {
            let entries = entries.iter();
            Cell::Map(entries.map(|(k, v)| ((*k).into(), v.clone())).collect())
        };
        let packed = map(&[("bytes", bytes.clone()), ("path", Cell::Null)]);
        assert!(matches!(
            packed.packed_picture(),
            Some(PackedPicture::Bytes(_))
        ));
        let named = map(&[("bytes", Cell::Null), ("path", Cell::Text("a.png".into()))]);
        assert!(matches!(
            named.packed_picture(),
            Some(PackedPicture::Path("a.png"))
        ));
        assert!(map(&[("path", Cell::Null)]).packed_picture().is_none());
        assert!(
            map(&[("bytes", bytes), ("size", Cell::Null)])
                .packed_picture()
                .is_none()
        );
        assert!(map(&[]).packed_picture().is_none());
    }

    #[test]
    fn the_first_of_a_name_counts() {
        let name: Arc<str> = "a".into();
        let mut row = Row::new([(Arc::clone(&name), Cell::Int(1))]);
        row.add(&name, Cell::Int(2));
        assert_eq!(row.get("a"), Some(&Cell::Int(1)));
        row.rename("a", &"b".into());
        assert_eq!((row.get("a"), row.get("b")), (None, Some(&Cell::Int(1))));
    }
}
