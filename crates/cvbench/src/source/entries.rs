//! Entries of a list that are read one at a time, so that a bad one costs itself alone.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Fault;
use crate::error::CvBenchError;

/// An entry, or what is there in its place.
#[derive(Debug)]
pub(super) enum Entry<T> {
    /// As it should be.
    Good(T),
    /// Something else, and why.
    Bad(Value, String),
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Entry<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(match T::deserialize(&value) {
            Ok(entry) => Self::Good(entry),
            Err(error) => Self::Bad(value, error.to_string()),
        })
    }
}

/// One value or a list of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany<T> {
    /// A list.
    Many(Vec<T>),
    /// One.
    One(T),
}

impl<T> OneOrMany<T> {
    /// As a list.
    pub fn into_vec(self) -> Vec<T> {
        match self {
            Self::Many(values) => values,
            Self::One(value) => vec![value],
        }
    }
}

/// A number of an entry that is broken elsewhere.
pub(super) fn number_in(value: &Value, key: &str) -> Option<u64> {
    value.get(key)?.as_u64()
}

/// Reads a JSON file, and its digest.
pub(super) fn read_json<T: DeserializeOwned>(
    path: &Path,
    format: &'static str,
) -> Result<(T, String), CvBenchError> {
    let bytes = fs::read(path).map_err(CvBenchError::read("annotations", path))?;
    let digest = opabinia_eval::hex(Sha256::digest(&bytes));
    let file = serde_json::from_slice(&bytes).map_err(|source| CvBenchError::Annotations {
        path: path.to_owned(),
        format,
        source,
    })?;
    Ok((file, digest))
}

/// Lists faults of a file.
pub(super) struct Faults<'a> {
    pub file: &'a Path,
    pub list: Vec<Fault>,
}

impl Faults<'_> {
    /// One more.
    pub fn add(&mut self, entry: String, problem: impl Into<String>) {
        self.list.push(Fault {
            file: self.file.display().to_string(),
            entry,
            problem: problem.into(),
        });
    }
}
