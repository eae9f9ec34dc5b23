//! The ledger: for every line of every input, what became of it and why.
//!
//! One Parquet file for each part of the inputs, so that it is written and searched side by side. What
//! it says adds up: the manifest's totals are counted while it is written.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{StringBuilder, UInt64Builder};
use arrow_array::{Array, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rayon::prelude::*;

use crate::classify::Class;
use crate::copy::shard_name;
use crate::counts::Limits;
use crate::error::CurateError;
use crate::index::{Index, Row};
use crate::job::{Job, index_path};
use crate::manifest::Counts;
use crate::part::{Part, position};
use crate::select::{Decisions, Outcome};
use crate::sources::Origin;
use crate::table::write_table;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    /// File, as the recipe names it.
    pub file: String,
    /// Its line, from 1.
    pub line: u64,
    /// The sample's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Its category.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// `kept`, or which step dropped it.
    pub outcome: String,
    /// Why.
    pub why: String,
    /// The shard it is in, if it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
    /// Its line there, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard_line: Option<u64>,
}

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let number = |name: &str| Field::new(name, DataType::UInt64, true);
    Arc::new(Schema::new(vec![
        text("file"),
        number("line"),
        text("id"),
        text("source"),
        text("category"),
        text("outcome"),
        text("why"),
        text("shard"),
        number("shard_line"),
    ]))
}

/// What the reasons are made of.
pub struct Reasons<'a> {
    /// The job.
    pub job: &'a Job,
    /// Path of `job.json`.
    pub job_path: &'a Path,
    /// All parts.
    pub parts: &'a [Part],
    /// Line of the first row of each part, from 1.
    pub first_lines: &'a [u64],
    /// What becomes of every line.
    pub decisions: &'a Decisions,
    /// Sources by key.
    pub origins: &'a BTreeMap<u64, Origin>,
    /// What is left of each source and category.
    pub limits: &'a BTreeMap<Origin, Limits>,
    /// What is left of whole sources, by their names.
    pub of_sources: &'a BTreeMap<String, Limits>,
}

impl Reasons<'_> {
    /// Writes the ledger of a part into `folder` and counts it. `kept_before` samples of other parts
    /// are in the shards before.
    ///
    /// # Errors
    /// If the index cannot be read or the ledger cannot be written.
    pub fn write(
        &self,
        number: usize,
        kept_before: u64,
        folder: &Path,
    ) -> Result<Counts, CurateError> {
        let Some(part) = self.parts.get(number) else {
            return Ok(Counts::default());
        };
        let index = Index::read(&index_path(self.job_path, part.number))?;
        let named = self.job.files[part.file as usize]
            .named
            .display()
            .to_string();
        let shard_samples = self.job.recipe.output.shard_samples;
        let mut counts = Counts::default();
        let mut kept = kept_before;
        let mut texts: [StringBuilder; 7] = Default::default();
        let mut numbers: [UInt64Builder; 2] = Default::default();
        for (row, line) in index.rows()?.iter().enumerate() {
            let outcome = self.decisions.outcome(number, row, line.class);
            let origin = self.origins.get(&line.source);
            counts.add(outcome, line);
            let (shard, at) = match outcome {
                Outcome::Kept => {
                    kept += 1;
                    let place = kept - 1;
                    let shard = shard_name(place / shard_samples);
                    (Some(shard), Some(place % shard_samples + 1))
                }
                _ => (None, None),
            };
            let why = self.why(number, row, outcome, line, origin);
            let values = [
                Some(named.as_str()),
                line.id,
                origin.map(|origin| origin.source.as_str()),
                origin.map(|origin| origin.category.as_str()),
                Some(outcome.name()),
                Some(why.as_str()),
                shard.as_deref(),
            ];
            for (column, value) in texts.iter_mut().zip(values) {
                column.append_option(value);
            }
            numbers[0].append_value(self.line(number, row));
            numbers[1].append_option(at);
        }
        let out = folder.join(format!("part-{:05}.parquet", part.number));
        write(&out, texts, numbers)?;
        Ok(counts)
    }

    fn line(&self, part: usize, row: usize) -> u64 {
        self.first_lines.get(part).copied().unwrap_or(1) + row as u64
    }

    fn why(
        &self,
        part: usize,
        row: usize,
        outcome: Outcome,
        line: &Row<'_>,
        origin: Option<&Origin>,
    ) -> String {
        let limits = origin.and_then(|origin| self.limits.get(origin));
        let limits = limits.copied().unwrap_or_default();
        let name = |pick: fn(&Origin) -> &String| origin.map_or("", |origin| pick(origin).as_str());
        let (source, category) = (name(|o| &o.source), name(|o| &o.category));
        let whole = self.of_sources.get(source).copied().unwrap_or_default();
        match outcome {
            Outcome::Kept => String::new(),
            Outcome::Class(Class::Blank) => "the line is blank".to_owned(),
            Outcome::Class(_) => line.what.unwrap_or_default().to_owned(),
            Outcome::Duplicate | Outcome::NearDuplicate => {
                let same = match outcome {
                    Outcome::Duplicate => "same picture and turns as",
                    _ => "same picture and almost the same words as",
                };
                let position = position(part as u32, row as u64);
                match self.decisions.first_of(position) {
                    Some(first) => {
                        let (part, row) = ((first >> 32) as usize, (first & 0xFFFF_FFFF) as usize);
                        let file = self.parts.get(part).map(|part| part.file as usize);
                        let file = file.and_then(|file| self.job.files.get(file));
                        let file = file.map(|file| file.named.display().to_string());
                        format!(
                            "{same} `{}:{}`",
                            file.unwrap_or_default(),
                            self.line(part, row)
                        )
                    }
                    None => format!("{same} an earlier line"),
                }
            }
            Outcome::Cap => format!(
                "the cap of `{source}` keeps {} of its samples, and this one comes later in the \
                 order of the seed",
                whole.own
            ),
            Outcome::CapAll => format!(
                "the cap of all sources keeps {} samples of `{source}`, and this one comes later in \
                 the order of the seed",
                whole.all
            ),
            Outcome::Quota => format!(
                "the quota of `{category}` leaves {} samples to `{source}`, and this one comes later \
                 in the order of the seed",
                limits.quota
            ),
        }
    }
}

fn write(
    out: &Path,
    texts: [StringBuilder; 7],
    numbers: [UInt64Builder; 2],
) -> Result<(), CurateError> {
    let [file, id, source, category, outcome, why, shard] = texts.map(|mut c| c.finish());
    let [line, shard_line] = numbers.map(|mut c| c.finish());
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(file),
        Arc::new(line),
        Arc::new(id),
        Arc::new(source),
        Arc::new(category),
        Arc::new(outcome),
        Arc::new(why),
        Arc::new(shard),
        Arc::new(shard_line),
    ];
    write_table("write the ledger", out, schema(), columns, None)
}

/// Entries that `wanted` asks for, in the order of the inputs, at most `limit`. `pool` is the folder
/// that a curation wrote.
///
/// # Errors
/// If the folder has no ledger, or it cannot be read.
pub fn find(
    pool: &Path,
    limit: usize,
    wanted: &(dyn Fn(&Entry) -> bool + Sync),
) -> Result<Vec<Entry>, CurateError> {
    let folder = pool.join("ledger");
    let listed = std::fs::read_dir(&folder).map_err(CurateError::io("find the ledger", &folder))?;
    let mut files: Vec<PathBuf> = listed
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    let found: Vec<Vec<Entry>> = files
        .par_iter()
        .map(|file| find_in(file, wanted))
        .collect::<Result<_, _>>()?;
    Ok(found.into_iter().flatten().take(limit).collect())
}

fn find_in(
    path: &Path,
    wanted: &(dyn Fn(&Entry) -> bool + Sync),
) -> Result<Vec<Entry>, CurateError> {
    let parquet = || CurateError::parquet("read the ledger", path);
    let file = File::open(path).map_err(CurateError::io("read the ledger", path))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(parquet())?;
    let mut found = Vec::new();
    for batch in reader.build().map_err(parquet())? {
        let batch = batch.map_err(|error| CurateError::Format {
            path: path.to_owned(),
            problem: error.to_string(),
        })?;
        let entries = entries(&batch).ok_or_else(|| CurateError::Format {
            path: path.to_owned(),
            problem: "not a ledger of this program".to_owned(),
        })?;
        found.extend(entries.into_iter().filter(|entry| wanted(entry)));
    }
    Ok(found)
}

fn entries(batch: &RecordBatch) -> Option<Vec<Entry>> {
    let text = |name: &str| {
        batch
            .column_by_name(name)?
            .as_any()
            .downcast_ref::<StringArray>()
    };
    let number = |name: &str| {
        batch
            .column_by_name(name)?
            .as_any()
            .downcast_ref::<UInt64Array>()
    };
    let (file, id, source, category) = (
        text("file")?,
        text("id")?,
        text("source")?,
        text("category")?,
    );
    let (outcome, why, shard) = (text("outcome")?, text("why")?, text("shard")?);
    let (line, shard_line) = (number("line")?, number("shard_line")?);
    let own = |array: &StringArray, i: usize| array.is_valid(i).then(|| array.value(i).to_owned());
    let entry = |i: usize| Entry {
        file: own(file, i).unwrap_or_default(),
        line: line.value(i),
        id: own(id, i),
        source: own(source, i),
        category: own(category, i),
        outcome: own(outcome, i).unwrap_or_default(),
        why: own(why, i).unwrap_or_default(),
        shard: own(shard, i),
        shard_line: shard_line.is_valid(i).then(|| shard_line.value(i)),
    };
    Some((0..batch.num_rows()).map(entry).collect())
}
