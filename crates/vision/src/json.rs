//! Typed access to a `config.json`: every complaint names the file and the key.
//!
//! Published configurations are read leniently where their libraries are: keys that do not matter
//! for the vision network are passed over, and absent keys have the default of the library that
//! wrote the file.

use std::path::Path;

use opabinia_nn::Activation;
use serde_json::{Map, Value};

use crate::error::VisionError;

/// Widths, depths and picture sides beyond this are mistakes, and could not be allocated.
const MAX_SIZE: u64 = 65_535;

/// One table of a configuration.
pub(crate) struct Fields<'a> {
    path: &'a Path,
    /// Keys of the tables around this one, each followed by a dot.
    prefix: String,
    table: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The outermost table.
    pub(crate) fn root(value: &'a Value, path: &'a Path) -> Result<Self, VisionError> {
        match value {
            Value::Object(table) => Ok(Self {
                path,
                prefix: String::new(),
                table,
            }),
            other => Err(VisionError::Key {
                path: path.to_path_buf(),
                key: "the whole file".to_owned(),
                found: brief(other),
                wanted: "a table".to_owned(),
            }),
        }
    }

    /// An error about a value.
    pub(crate) fn refuse(&self, key: &str, wanted: impl Into<String>) -> VisionError {
        VisionError::Key {
            path: self.path.to_path_buf(),
            key: format!("{}{key}", self.prefix),
            found: self
                .table
                .get(key)
                .map_or_else(|| "nothing".to_owned(), brief),
            wanted: wanted.into(),
        }
    }

    /// Says that the file describes something unknown.
    pub(crate) fn unsupported(&self, found: impl Into<String>) -> VisionError {
        VisionError::UnsupportedFamily {
            path: self.path.to_path_buf(),
            found: found.into(),
        }
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// A table inside this one.
    pub(crate) fn table(&self, key: &str) -> Result<Option<Self>, VisionError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(table)) => Ok(Some(Self {
                path: self.path,
                prefix: format!("{}{key}.", self.prefix),
                table,
            })),
            Some(_) => Err(self.refuse(key, "a table")),
        }
    }

    /// A table that must be there.
    pub(crate) fn required_table(&self, key: &str) -> Result<Self, VisionError> {
        self.table(key)?.ok_or_else(|| self.refuse(key, "a table"))
    }

    /// A size from 1 to 65 535.
    pub(crate) fn size(&self, key: &str, default: usize) -> Result<usize, VisionError> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        size_of(value).ok_or_else(|| self.refuse(key, format!("a number from 1 to {MAX_SIZE}")))
    }

    /// A side of a picture in pixels.
    pub(crate) fn side(&self, key: &str, default: u32) -> Result<u32, VisionError> {
        // `size` admits nothing that does not fit.
        self.size(key, default as usize).map(|side| side as u32)
    }

    /// One size for each of the four stages of a network.
    pub(crate) fn sizes(&self, key: &str, default: [usize; 4]) -> Result<[usize; 4], VisionError> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        let sizes: Option<Vec<usize>> = value
            .as_array()
            .and_then(|values| values.iter().map(size_of).collect());
        sizes
            .and_then(|sizes| sizes.try_into().ok())
            .ok_or_else(|| self.refuse(key, format!("four numbers from 1 to {MAX_SIZE}")))
    }

    /// A positive number, at most a million.
    pub(crate) fn positive(&self, key: &str, default: f64) -> Result<f64, VisionError> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        match value.as_f64() {
            Some(number) if number > 0.0 && number <= 1e6 => Ok(number),
            _ => Err(self.refuse(key, "a positive number")),
        }
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, VisionError> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        value
            .as_bool()
            .ok_or_else(|| self.refuse(key, "true or false"))
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, VisionError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_str()
            .map(Some)
            .ok_or_else(|| self.refuse(key, "a text"))
    }

    /// A non-linearity under its transformers name.
    pub(crate) fn activation(
        &self,
        key: &str,
        default: Activation,
    ) -> Result<Activation, VisionError> {
        let Some(name) = self.text(key)? else {
            return Ok(default);
        };
        Activation::by_name(name)
            .ok_or_else(|| self.refuse(key, format!("one of {}", Activation::NAMES.join(", "))))
    }

    /// The value of a key; `null` counts as absent.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.table.get(key).filter(|value| !value.is_null())
    }
}

fn size_of(value: &Value) -> Option<usize> {
    let size = value
        .as_u64()
        .filter(|size| (1..=MAX_SIZE).contains(size))?;
    usize::try_from(size).ok()
}

/// A value in at most forty characters.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_name_the_file_and_the_nested_key() {
        let value = json!({"vision_config": {"hidden_size": "wide"}});
        let root = Fields::root(&value, Path::new("x/config.json")).unwrap();
        let vision = root.table("vision_config").unwrap().unwrap();
        assert_eq!(
            vision.size("hidden_size", 768).unwrap_err().to_string(),
            "cannot use `vision_config.hidden_size` in x/config.json: found \"wide\", wanted a \
             number from 1 to 65535"
        );
        assert_eq!(vision.size("num_hidden_layers", 12).unwrap(), 12);
    }

    #[test]
    fn absurd_numbers_are_refused() {
        let value = json!({"a": 0, "b": 1e30, "c": -3, "d": [1, 2, 3], "e": 0.0});
        let root = Fields::root(&value, Path::new("config.json")).unwrap();
        assert!(["a", "b", "c"].iter().all(|key| root.size(key, 1).is_err()));
        assert!(root.sizes("d", [1; 4]).is_err());
        assert!(root.positive("e", 1.0).is_err() && root.positive("c", 1.0).is_err());
    }
}
