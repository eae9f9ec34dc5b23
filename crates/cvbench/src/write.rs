//! The folder of a CV-Bench, in the layout of the published one.
//!
//! ```text
//! test_2d.parquet  test_3d.parquet   questions with their pictures
//! test_2d.jsonl    test_3d.jsonl     questions, naming their pictures
//! img/2D/count/coco_1.png            the pictures
//! ```
//!
//! The folder is written under another name and renamed when it is complete.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, Float64Builder, Int64Builder, ListBuilder, StringBuilder,
};
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::json;

use crate::error::CvBenchError;
use crate::question::Question;

/// Rows of a row group, and so pictures in memory.
pub(crate) const GROUP: usize = 64;
/// The files of questions by `type`.
pub(crate) const PARTS: [(&str, &str); 2] = [("2D", "test_2d"), ("3D", "test_3d")];
/// What was built and how.
pub(crate) const REPORT: &str = "report.json";
/// The decisions of a review, where no other place is given.
pub const DECISIONS: &str = "review.sqlite";
/// What a review left.
pub(crate) const REVISION: &str = "revision.json";

/// A folder that is being written.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    part: PathBuf,
    finished: bool,
}

impl Target {
    /// Begins a folder; one that is there is replaced only if `replace` and it is a CV-Bench.
    pub fn begin(path: &Path, replace: bool) -> Result<Self, CvBenchError> {
        // `OUT/` is `OUT`: what is being written lies beside it, not inside.
        let path: &Path = &path.components().collect::<PathBuf>();
        if is_filled(path) {
            if !replace {
                return Err(CvBenchError::Exists { path: path.into() });
            }
            let ours = [REPORT, REVISION].map(|name| path.join(name).is_file());
            if ours == [false; 2] {
                return Err(CvBenchError::NotOurs { path: path.into() });
            }
            if path.join(DECISIONS).exists() {
                return Err(CvBenchError::Reviewed { path: path.into() });
            }
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        let part = PathBuf::from(name);
        if part.exists() {
            fs::remove_dir_all(&part).map_err(CvBenchError::write(&part))?;
        }
        fs::create_dir_all(&part).map_err(CvBenchError::write(&part))?;
        Ok(Self {
            path: path.into(),
            part,
            finished: false,
        })
    }

    /// Where to write now.
    pub fn folder(&self) -> &Path {
        &self.part
    }

    /// Puts the folder in its place.
    pub fn finish(mut self) -> Result<(), CvBenchError> {
        if self.path.exists() {
            fs::remove_dir_all(&self.path).map_err(CvBenchError::write(&self.path))?;
        }
        fs::rename(&self.part, &self.path).map_err(CvBenchError::write(&self.path))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Target {
    /// A folder that was not finished is of no use to anybody.
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_dir_all(&self.part);
        }
    }
}

fn is_filled(path: &Path) -> bool {
    match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => path.exists(),
    }
}

/// Writes a small file.
pub(crate) fn write_file(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), CvBenchError> {
    let path = folder.join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(CvBenchError::write(parent))?;
    }
    fs::write(&path, bytes).map_err(CvBenchError::write(&path))
}

/// Gives the PNG files of some questions, in order.
pub(crate) type Pictures<'a> = dyn FnMut(&[&Question]) -> Result<Vec<Vec<u8>>, CvBenchError> + 'a;

/// Writes the two files of one part, row group by row group.
pub(crate) fn write_part(
    folder: &Path,
    stem: &str,
    questions: &[&Question],
    pictures: &mut Pictures<'_>,
) -> Result<(), CvBenchError> {
    let lines = folder.join(format!("{stem}.jsonl"));
    let file = File::create(&lines).map_err(CvBenchError::write(&lines))?;
    let mut out = BufWriter::new(file);
    let path = folder.join(format!("{stem}.parquet"));
    let mut table = Table::create(&path)?;
    for group in questions.chunks(GROUP) {
        let bytes = pictures(group)?;
        for (question, picture) in group.iter().zip(&bytes) {
            write_file(folder, &question.filename, picture)?;
            let line = serde_json::to_string(question).map_err(CvBenchError::json(&lines))?;
            writeln!(out, "{line}").map_err(CvBenchError::write(&lines))?;
        }
        table.add(group, &bytes)?;
    }
    out.flush().map_err(CvBenchError::write(&lines))?;
    table.finish()
}

/// A Parquet file that is being written.
struct Table {
    path: PathBuf,
    writer: ArrowWriter<File>,
}

impl Table {
    fn create(path: &Path) -> Result<Self, CvBenchError> {
        let file = File::create(path).map_err(CvBenchError::write(path))?;
        let columns = |source| CvBenchError::Columns {
            path: path.into(),
            source,
        };
        let schema = batch(&[], &[]).map_err(columns)?.schema();
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(GROUP))
            .build();
        let writer = ArrowWriter::try_new(file, schema, Some(properties));
        Ok(Self {
            path: path.into(),
            writer: writer.map_err(failed(path))?,
        })
    }

    fn add(&mut self, questions: &[&Question], pictures: &[Vec<u8>]) -> Result<(), CvBenchError> {
        let batch = batch(questions, pictures).map_err(|source| CvBenchError::Columns {
            path: self.path.clone(),
            source,
        })?;
        self.writer.write(&batch).map_err(failed(&self.path))
    }

    fn finish(self) -> Result<(), CvBenchError> {
        self.writer.close().map_err(failed(&self.path))?;
        Ok(())
    }
}

fn failed(path: &Path) -> impl FnOnce(parquet::errors::ParquetError) -> CvBenchError {
    let path = path.to_owned();
    move |source| CvBenchError::Parquet { path, source }
}

/// Rows as columns, in the order of the published files.
fn batch(questions: &[&Question], pictures: &[Vec<u8>]) -> Result<RecordBatch, ArrowError> {
    let text = |of: &dyn Fn(&Question) -> Option<&str>| {
        let mut column = StringBuilder::new();
        for question in questions {
            column.append_option(of(question));
        }
        Arc::new(column.finish()) as ArrayRef
    };
    let mut idx = Int64Builder::new();
    let mut sizes = Float64Builder::new();
    for question in questions {
        idx.append_value(question.idx);
        sizes.append_option(question.target_size);
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("idx", Arc::new(idx.finish())),
        ("type", text(&|question| Some(&question.dimension))),
        ("task", text(&|question| Some(question.task.name()))),
        ("image", image(questions, pictures)?),
        ("question", text(&|question| Some(&question.question))),
        ("choices", choices(questions)),
        ("answer", text(&|question| Some(&question.answer))),
        ("prompt", text(&|question| Some(&question.prompt))),
        ("filename", text(&|question| Some(&question.filename))),
        ("source", text(&|question| Some(&question.source))),
        (
            "source_dataset",
            text(&|question| Some(&question.source_dataset)),
        ),
        (
            "source_filename",
            text(&|question| Some(&question.source_filename)),
        ),
        (
            "target_class",
            text(&|question| question.target_class.as_deref()),
        ),
        ("target_size", Arc::new(sizes.finish())),
        ("bbox", boxes(questions)),
    ];
    let fields = columns.iter();
    let fields = fields.map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    let schema = Schema::new_with_metadata(fields.collect::<Vec<_>>(), metadata());
    let columns = columns.into_iter().map(|(_, column)| column);
    RecordBatch::try_new(Arc::new(schema), columns.collect())
}

fn image(questions: &[&Question], pictures: &[Vec<u8>]) -> Result<ArrayRef, ArrowError> {
    let (mut bytes, mut paths) = (BinaryBuilder::new(), StringBuilder::new());
    for (question, picture) in questions.iter().zip(pictures) {
        bytes.append_value(picture);
        paths.append_value(&question.filename);
    }
    let fields = Fields::from(vec![
        Field::new("bytes", DataType::Binary, true),
        Field::new("path", DataType::Utf8, true),
    ]);
    let columns: Vec<ArrayRef> = vec![Arc::new(bytes.finish()), Arc::new(paths.finish())];
    Ok(Arc::new(StructArray::try_new(fields, columns, None)?))
}

fn choices(questions: &[&Question]) -> ArrayRef {
    let mut column = ListBuilder::new(StringBuilder::new());
    for question in questions {
        for choice in &question.choices {
            column.values().append_value(choice);
        }
        column.append(true);
    }
    Arc::new(column.finish())
}

fn boxes(questions: &[&Question]) -> ArrayRef {
    let mut column = ListBuilder::new(ListBuilder::new(Float64Builder::new()));
    for question in questions {
        for corners in question.bbox.iter().flatten() {
            column.values().values().append_slice(corners);
            column.values().append(true);
        }
        column.append(question.bbox.is_some());
    }
    Arc::new(column.finish())
}

/// What the `datasets` library wants to know of the columns.
fn metadata() -> HashMap<String, String> {
    let value = |dtype: &str| json!({"dtype": dtype, "_type": "Value"});
    let list = |feature: serde_json::Value| json!({"feature": feature, "_type": "Sequence"});
    let features = json!({
        "idx": value("int64"), "type": value("string"), "task": value("string"),
        "image": {"_type": "Image"}, "question": value("string"),
        "choices": list(value("string")), "answer": value("string"), "prompt": value("string"),
        "filename": value("string"), "source": value("string"),
        "source_dataset": value("string"), "source_filename": value("string"),
        "target_class": value("string"), "target_size": value("float64"),
        "bbox": list(list(value("float64"))),
    });
    let info = json!({"info": {"features": features}});
    HashMap::from([("huggingface".to_owned(), info.to_string())])
}
