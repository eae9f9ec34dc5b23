//! WebDataset: tar files whose members belong together by the part of their name before the first dot.

use std::fs::File;
use std::io::{BufWriter, Read};
use std::path::Path;

use opabinia_data::parse_json;
use serde_json::{Value, json};

use super::normalise::insert_free;
use super::read::{MAX_BYTES, Sink, one_line, record};
use super::write::ending_of;
use super::{Form, Incoming};
use crate::error::CurateError;

/// The owner's name in headers of members that this program wrote.
const OWNER: &str = "opabinia";

/// One sample: members with one key.
#[derive(Default)]
struct Members {
    key: String,
    ours: bool,
    json: Option<Vec<u8>>,
    /// What its ending is, and the text.
    text: Option<(String, Vec<u8>)>,
    line: Option<Vec<u8>>,
    pictures: Vec<Vec<u8>>,
}

impl Members {
    fn finish(self, sink: Sink<'_>) -> Result<(), CurateError> {
        if let Some(line) = self.line {
            sink(Incoming::Line(line))?;
        }
        let parsed = self.json.as_deref().map(parse_json);
        let mut value = match (parsed, &self.text) {
            (Some(Ok(value)), _) if self.ours => value,
            (Some(Ok(value @ Value::Object(_))), _) => value,
            (Some(_), _) => {
                let json = self.json.unwrap_or_default();
                sink(Incoming::Line(one_line(&json)))?;
                // A line has no place for what stands beside it.
                let beside = self.pictures.len() + usize::from(self.text.is_some());
                return (0..beside).try_for_each(|_| sink(Incoming::LeftOut));
            }
            (None, Some((_, text))) => {
                let text = String::from_utf8_lossy(text).trim().to_owned();
                json!({"conversations": [
                    {"from": "human", "value": "<image>"}, {"from": "gpt", "value": text}]})
            }
            (None, None) if self.pictures.is_empty() => return Ok(()),
            (None, None) => json!({}),
        };
        if self.ours {
            return sink(Incoming::Record {
                record: value,
                pictures: self.pictures,
                form: Form::Ours,
            });
        }
        if let Value::Object(record) = &mut value {
            if !record.contains_key("id") {
                record.insert("id".to_owned(), Value::String(self.key));
            }
            // A text beside the JSON is kept under its ending.
            if let Some((ending, text)) = self.text.filter(|_| self.json.is_some()) {
                let text = Value::String(String::from_utf8_lossy(&text).into_owned());
                if record.get(&ending) != Some(&text) {
                    insert_free(record, &ending, text);
                }
            }
        }
        sink(record(value, self.pictures))
    }
}

/// Reads a tar file to its end.
pub fn tar(path: &Path, reader: impl Read, sink: Sink<'_>) -> Result<(), CurateError> {
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
            members.ours = entry.header().username().ok().flatten() == Some(OWNER);
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
        // Of two members of one kind, the later one counts.
        let left_out = match ending.rsplit('.').next().unwrap_or_default() {
            "json" => members.json.replace(bytes).is_some(),
            "line" if members.ours => members.line.replace(bytes).is_some(),
            ending @ ("txt" | "caption") => {
                let text = (ending.to_owned(), bytes);
                members.text.replace(text).is_some()
            }
            "jpg" | "jpeg" | "png" | "webp" | "gif" | "bmp" | "tif" | "tiff" => {
                members.pictures.push(bytes);
                false
            }
            _ if members.ours => {
                members.pictures.push(bytes);
                false
            }
            _ => true,
        };
        if left_out {
            sink(Incoming::LeftOut)?;
        }
    }
    members.finish(sink)
}

/// A tar file that is being written.
pub type Tar = tar::Builder<BufWriter<File>>;

/// Writes the members of a sample: its JSON, then its pictures in their order.
pub fn put_sample(
    tar: &mut Tar,
    path: &Path,
    number: u64,
    record: &Value,
    pictures: &[Vec<u8>],
) -> Result<(), CurateError> {
    put(
        tar,
        path,
        &format!("{number:09}.json"),
        record.to_string().as_bytes(),
    )?;
    for (i, picture) in pictures.iter().enumerate() {
        let ending = ending_of(picture);
        let name = match i {
            0 => format!("{number:09}.{ending}"),
            _ => format!("{number:09}.{i}.{ending}"),
        };
        put(tar, path, &name, picture)?;
    }
    Ok(())
}

/// Writes a line that is no JSON.
pub fn put_line(tar: &mut Tar, path: &Path, number: u64, line: &[u8]) -> Result<(), CurateError> {
    put(tar, path, &format!("{number:09}.line"), line)
}

fn put(tar: &mut Tar, path: &Path, name: &str, bytes: &[u8]) -> Result<(), CurateError> {
    // Nothing of when and by whom: same inputs, same bytes.
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    let io = || CurateError::io("write", path);
    header.set_username(OWNER).map_err(io())?;
    tar.append_data(&mut header, name, bytes).map_err(io())
}
