//! The files of a model folder that are not weights.
//!
//! A model that is written must be readable by whoever read the old one, so what this program does
//! not understand in its configuration, and its tokenizer to the byte, go with it. They are read
//! when the model is loaded, not when it is saved: a training run must be able to save after hours,
//! whatever became of the folder it began from.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::config::read_json;
use crate::{ModelError, gguf};

/// Names of a tokenizer's files; a folder has some of them.
const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
];

/// What lay beside the weights of a model.
#[derive(Clone, Debug, Default)]
pub struct Companions {
    /// `config.json`.
    pub(crate) config: Map<String, Value>,
    /// `generation_config.json`, empty where there is none.
    pub(crate) generation: Map<String, Value>,
    /// Names and contents of the tokenizer's files.
    tokenizer: Vec<(&'static str, Vec<u8>)>,
}

impl Companions {
    /// Reads what a model folder has of them.
    ///
    /// # Errors
    /// If a file that is there cannot be read, or is not JSON where it should be.
    pub(crate) fn read(folder: &Path) -> Result<Self, ModelError> {
        let mut tokenizer = Vec::new();
        for name in TOKENIZER_FILES {
            let path = folder.join(name);
            if path.is_file() {
                let bytes = fs::read(&path).map_err(|source| ModelError::Io { path, source })?;
                tokenizer.push((name, bytes));
            }
        }
        Ok(Self {
            config: match gguf::config_of(folder)? {
                Some(config) => config,
                None => table(&folder.join("config.json"))?,
            },
            generation: table(&folder.join("generation_config.json"))?,
            tokenizer,
        })
    }

    /// Writes the tokenizer's files.
    ///
    /// # Errors
    /// If one cannot be written.
    pub(crate) fn write_tokenizer(&self, folder: &Path) -> Result<(), ModelError> {
        for (name, bytes) in &self.tokenizer {
            write_file(&folder.join(name), bytes)?;
        }
        Ok(())
    }
}

/// The keys of a JSON file, none if there is no file.
fn table(path: &Path) -> Result<Map<String, Value>, ModelError> {
    if !path.is_file() {
        return Ok(Map::new());
    }
    match read_json(path)? {
        Value::Object(table) => Ok(table),
        other => {
            let source = serde::de::Error::custom(format!("expected a table, found {other}"));
            Err(ModelError::Json {
                path: path.into(),
                source,
            })
        }
    }
}

/// Writes a JSON file.
pub(crate) fn write_json(path: &Path, table: Map<String, Value>) -> Result<(), ModelError> {
    let text = format!("{:#}\n", Value::Object(table));
    write_file(path, text.as_bytes())
}

/// Writes a file that appears whole or not at all.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.part", std::process::id()));
    let temporary: PathBuf = path.with_file_name(name);
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|source| ModelError::Write {
            path: path.into(),
            source,
        })
}
