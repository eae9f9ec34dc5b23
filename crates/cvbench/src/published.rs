//! Reading a CV-Bench: the published one, or one that was built here.
//!
//! The columns are those of the published Parquet files; types of numbers may differ. Pictures are
//! taken from `img/` beside the files if they are there, else out of the files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use opabinia_eval::benchmark::{Cell, PictureData, PictureStore, Row, rows};
use opabinia_eval::{hex, stays_inside};
use sha2::{Digest, Sha256};

use crate::error::CvBenchError;
use crate::question::Question;
use crate::write::PARTS;

/// The columns of a question, the picture apart.
const COLUMNS: [&str; 14] = [
    "idx",
    "type",
    "task",
    "question",
    "choices",
    "answer",
    "prompt",
    "filename",
    "source",
    "source_dataset",
    "source_filename",
    "target_class",
    "target_size",
    "bbox",
];

/// The questions of a folder.
#[derive(Debug)]
pub struct Published {
    root: PathBuf,
    files: Vec<PathBuf>,
    /// In the order of the files.
    pub questions: Vec<Question>,
    stored: HashMap<i64, PictureData>,
}

impl Published {
    /// Reads the questions of a folder or of one file.
    ///
    /// # Errors
    /// If there are none, a file cannot be read, or a row is no question.
    pub fn read(path: &Path) -> Result<Self, CvBenchError> {
        let (root, files) = files(path)?;
        let mut published = Self {
            root,
            files,
            questions: Vec::new(),
            stored: HashMap::new(),
        };
        let mut known = HashMap::new();
        for file in published.files.clone() {
            for row in rows(&file, &COLUMNS)? {
                let (number, row) = row?;
                let question = question(&row).map_err(|problem| CvBenchError::Row {
                    path: file.clone(),
                    row: number,
                    problem,
                })?;
                let place = published.questions.len();
                if known.insert(question.idx, place).is_some() {
                    return Err(CvBenchError::Twice {
                        idx: question.idx,
                        path: file,
                        row: number,
                    });
                }
                published.questions.push(question);
            }
        }
        Ok(published)
    }

    /// Puts the pictures that are not in files of their own into a store.
    ///
    /// # Errors
    /// If a file cannot be read, or a question has no picture.
    pub fn store_pictures(&mut self, store: &mut PictureStore) -> Result<(), CvBenchError> {
        if self
            .questions
            .iter()
            .any(|question| self.file(question).is_none())
        {
            self.unpack(store)?;
        }
        for question in &self.questions {
            if self.file(question).is_none() && !self.stored.contains_key(&question.idx) {
                return Err(CvBenchError::PictureMissing {
                    idx: question.idx,
                    path: self.root.join(&question.filename),
                });
            }
        }
        Ok(())
    }

    fn unpack(&mut self, store: &mut PictureStore) -> Result<(), CvBenchError> {
        for file in &self.files {
            for row in rows(file, &["idx", "image"])? {
                let (_, row) = row?;
                if let (Some(idx), Some(bytes)) = (row.get("idx").and_then(whole), bytes(&row)) {
                    self.stored.insert(idx, store.put(bytes)?);
                }
            }
        }
        Ok(())
    }

    /// The picture of a question, as a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn picture(&self, question: &Question) -> Result<Arc<[u8]>, CvBenchError> {
        if let Some(path) = self.file(question) {
            let bytes = std::fs::read(&path).map_err(CvBenchError::read("the picture", &path))?;
            return Ok(bytes.into());
        }
        match self.stored.get(&question.idx) {
            Some(picture) => Ok(picture.read()?),
            None => Err(CvBenchError::PictureMissing {
                idx: question.idx,
                path: self.root.join(&question.filename),
            }),
        }
    }

    /// The picture's own file, if there is one inside the folder.
    fn file(&self, question: &Question) -> Option<PathBuf> {
        let name = &question.filename;
        let path = self.root.join(name);
        (stays_inside(name) && path.is_file()).then_some(path)
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Digest of all questions: the same questions in the same order have the same.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for question in &self.questions {
            hash.update(question.idx.to_le_bytes());
            hash.update(question.digest());
        }
        hex(hash.finalize())
    }
}

/// The files of a folder, Parquet before JSONL, or the one file, with the folder.
fn files(path: &Path) -> Result<(PathBuf, Vec<PathBuf>), CvBenchError> {
    if path.is_file() {
        let root = path.parent().unwrap_or(Path::new(".")).to_owned();
        return Ok((root, vec![path.to_owned()]));
    }
    // Older revisions of the published data set have one file.
    let stems: [&[&str]; 2] = [&[PARTS[0].1, PARTS[1].1], &["test"]];
    for ending in ["parquet", "jsonl"] {
        for stems in stems {
            let paths = stems
                .iter()
                .map(|stem| path.join(format!("{stem}.{ending}")));
            let found: Vec<PathBuf> = paths.filter(|path| path.is_file()).collect();
            if !found.is_empty() {
                return Ok((path.to_owned(), found));
            }
        }
    }
    Err(CvBenchError::NotPublished { path: path.into() })
}

fn question(row: &Row) -> Result<Question, String> {
    let missing = |column: &str| format!("the column `{column}` is missing or of another type");
    let optional = |column: &str| row.get(column).and_then(text);
    let wanted = |column: &str| optional(column).ok_or_else(|| missing(column));
    let choices = row.get("choices").and_then(texts);
    let choices = choices.ok_or_else(|| missing("choices"))?;
    let idx = row.get("idx").and_then(whole);
    let task = wanted("task")?.parse::<crate::Task>()?;
    let question = Question {
        idx: idx.ok_or_else(|| missing("idx"))?,
        dimension: optional("type").unwrap_or_else(|| task.dimension().to_owned()),
        task,
        question: wanted("question")?,
        prompt: wanted("prompt")?,
        choices,
        answer: wanted("answer")?,
        filename: optional("filename").unwrap_or_default(),
        source: wanted("source")?,
        source_dataset: optional("source_dataset").unwrap_or_default(),
        source_filename: optional("source_filename").unwrap_or_default(),
        target_class: optional("target_class"),
        target_size: row.get("target_size").and_then(number),
        bbox: row.get("bbox").and_then(boxes),
    };
    if question.dimension != question.task.dimension() {
        return Err(format!(
            "its type is `{}`, and its task is one of `{}`",
            question.dimension,
            question.task.dimension()
        ));
    }
    if !question.filename.is_empty() && !stays_inside(&question.filename) {
        return Err(format!(
            "its file `{}` is outside of the folder",
            question.filename
        ));
    }
    if question.right().is_none() {
        let options = question.choices.len();
        let answer = &question.answer;
        return Err(format!(
            "the answer `{answer}` is none of its {options} options"
        ));
    }
    Ok(question)
}

fn text(cell: &Cell) -> Option<String> {
    match cell {
        Cell::Text(text) => Some(text.clone()),
        _ => None,
    }
}

fn whole(cell: &Cell) -> Option<i64> {
    match cell {
        Cell::Int(value) => Some(*value),
        Cell::Float(value) if value.fract() == 0.0 && value.abs() < 1e15 => Some(*value as i64),
        Cell::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn number(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Int(value) => Some(*value as f64),
        Cell::Float(value) => Some(*value).filter(|value| value.is_finite()),
        Cell::Text(text) => text
            .trim()
            .parse()
            .ok()
            .filter(|value: &f64| value.is_finite()),
        _ => None,
    }
}

fn texts(cell: &Cell) -> Option<Vec<String>> {
    let Cell::List(cells) = cell else { return None };
    cells.iter().map(text).collect()
}

fn boxes(cell: &Cell) -> Option<Vec<Vec<f64>>> {
    let Cell::List(boxes) = cell else { return None };
    let corners = |cell: &Cell| match cell {
        Cell::List(corners) => corners.iter().map(number).collect::<Option<Vec<f64>>>(),
        _ => None,
    };
    boxes.iter().map(corners).collect()
}

fn bytes(row: &Row) -> Option<&Arc<[u8]>> {
    match row.get("image")? {
        Cell::Bytes(bytes) => Some(bytes),
        Cell::Map(entries) => entries.iter().find_map(|(name, cell)| match cell {
            Cell::Bytes(bytes) if name == "bytes" => Some(bytes),
            _ => None,
        }),
        _ => None,
    }
}
