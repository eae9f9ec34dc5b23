//! From a definition and its files to questions.
//!
//! Every row ends as one of four: a question with a right answer, a question without one (test splits,
//! for submission only), left out by `keep`, or faulty. [`Counts`] holds all four, and they add up to
//! the rows that were read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::definition::{BenchmarkDefinition, ChanceOf};
use super::error::{BenchmarkError, MissingColumn, nearest};
use super::expression;
use super::fault::{Fault, FaultKind, Refused};
use super::picture::{PictureData, PictureStore};
use super::picture_finder::PictureFinder;
use super::row::Row;
use super::rules::{Rules, This, Use};
use super::source::{FileDigest, Library, Pictures, Source, Table};
use crate::digest;
use crate::scorer::{Gold, Protocol};

/// One question of a benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchmarkQuestion {
    /// Unique within the benchmark.
    pub id: String,
    /// What must be answered together.
    pub unit: Option<String>,
    /// Kind of question.
    pub category: Option<String>,
    /// The collection that it is from.
    pub source: Option<String>,
    /// What it is about; `None` only if the benchmark has no pictures at all.
    pub picture: Option<PictureData>,
    /// What is asked, without the image placeholder.
    pub prompt: String,
    /// What is right; `None` if only the benchmark's server knows.
    pub gold: Option<Gold>,
    /// How often guessing is right, from 0 to 1.
    pub chance: f64,
    /// What a submission says of it besides the answer.
    pub fields: Vec<(String, serde_json::Value)>,
}

/// What became of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows that were read.
    pub rows: usize,
    /// Left out by `keep`.
    pub left_out: usize,
    /// Listed as faulty.
    pub faulty: usize,
    /// Questions with a right answer.
    pub scored: usize,
    /// Questions without one.
    pub submission_only: usize,
}

impl Counts {
    /// Questions of both kinds.
    #[must_use]
    pub fn questions(&self) -> usize {
        self.scored + self.submission_only
    }

    /// Whether every row is accounted for.
    #[must_use]
    pub fn add_up(&self) -> bool {
        self.rows == self.left_out + self.faulty + self.questions()
    }
}

/// The questions of a benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct Questions {
    /// The benchmark.
    pub benchmark: String,
    /// The rules that they were read by.
    pub protocol: Protocol,
    /// The questions, in the order of the files.
    pub questions: Vec<BenchmarkQuestion>,
    /// Rows that cannot be asked, in the same order; those of incomplete units come last.
    pub faults: Vec<Fault>,
    /// What became of the rows.
    pub counts: Counts,
    /// The files that were read.
    pub files: Vec<FileDigest>,
    /// How many questions there should be, if there is another number.
    pub expected: Option<usize>,
    chance_of: ChanceOf,
}

impl Questions {
    /// Reads the questions of a benchmark; pictures inside its files are put into `store`.
    ///
    /// # Errors
    /// If the files are nowhere or cannot be read, if a column is missing, or if no row is a question.
    pub fn read(
        definition: &BenchmarkDefinition,
        protocol: Protocol,
        library: &Library<'_>,
        store: &mut PictureStore,
    ) -> Result<Self, BenchmarkError> {
        let environment = expression::environment();
        let effective = definition.under(protocol);
        let rules = Rules::new(&environment, definition, &effective)?;
        let uses = rules.uses();
        let mut reader = Reader {
            benchmark: &definition.name,
            wanted: uses.iter().map(|used| used.column.clone()).collect(),
            uses,
            rules,
            pictures: PictureFinder::new(store),
            ids: HashMap::new(),
            questions: Vec::new(),
            positions: Vec::new(),
            faults: Vec::new(),
            counts: Counts::default(),
        };
        let mut files = Vec::new();
        for table in &definition.source {
            let benchmark = &definition.name;
            let source = Source::open(
                benchmark,
                table,
                library,
                &reader.wanted,
                reader.pictures.store,
            )?;
            files.extend_from_slice(&source.digests);
            let (split, config) = (table.split.as_deref(), table.config.as_deref());
            for (path, listed) in source.files().iter().zip(&source.digests) {
                reader.read_file(&source, path, &listed.path, split, config)?;
            }
        }
        if let Some(size) = effective.row.unit_size {
            reader.refuse_incomplete_units(size);
        }
        let counts = reader.counts;
        if reader.questions.is_empty() {
            return Err(BenchmarkError::NoQuestions {
                benchmark: definition.name.clone(),
                rows: counts.rows,
                left_out: counts.left_out,
                faulty: counts.faulty,
                first: reader.faults.first().map(ToString::to_string),
            });
        }
        let found = counts.rows - counts.left_out;
        Ok(Self {
            benchmark: definition.name.clone(),
            protocol,
            questions: reader.questions,
            faults: reader.faults,
            counts,
            files,
            expected: definition.questions.filter(|&expected| expected != found),
            chance_of: effective.scoring.chance_of.unwrap_or_default(),
        })
    }

    /// The score that guessing is expected to have, from 0 to 1, over the questions with a right
    /// answer (Cambrian-1, section 3.1).
    #[must_use]
    pub fn chance(&self) -> f64 {
        let scored = || self.questions.iter().filter(|q| q.gold.is_some());
        let per_question = mean(scored().map(|question| question.chance));
        if self.chance_of == ChanceOf::Questions {
            return per_question;
        }
        let mut units: BTreeMap<&str, f64> = BTreeMap::new();
        for question in scored() {
            let unit = question.unit.as_deref().unwrap_or(&question.id);
            *units.entry(unit).or_insert(1.0) *= question.chance;
        }
        let per_unit = mean(units.into_values());
        match self.chance_of {
            ChanceOf::QuestionsAndUnits => f64::midpoint(per_question, per_unit),
            _ => per_unit,
        }
    }

    /// Digest of what is asked and what is right: equal for two runs that can be compared.
    #[must_use]
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        for question in &self.questions {
            let picture = question.picture.as_ref();
            add(&question.id);
            add(question.unit.as_deref().unwrap_or_default());
            add(question.category.as_deref().unwrap_or_default());
            add(question.source.as_deref().unwrap_or_default());
            add(picture.map_or("", |picture| &picture.sha256));
            add(&question.prompt);
            if let Some(gold) = &question.gold {
                gold.answers
                    .iter()
                    .chain(&gold.options)
                    .for_each(|text| add(text));
                add(&format!("{:?} {:?}", gold.right, gold.kind));
            }
        }
        digest::hex(hash.finalize())
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), value| {
        (sum + value, count + 1)
    });
    if count == 0 { 0.0 } else { sum / count as f64 }
}

/// Where a question is from, for faults that are found later.
struct Position {
    file: String,
    row: u64,
}

/// Collects questions from rows.
struct Reader<'e, 's> {
    benchmark: &'e str,
    rules: Rules<'e>,
    uses: Vec<Use>,
    wanted: BTreeSet<String>,
    pictures: PictureFinder<'s>,
    /// Where each id was first.
    ids: HashMap<String, String>,
    questions: Vec<BenchmarkQuestion>,
    positions: Vec<Position>,
    faults: Vec<Fault>,
    counts: Counts,
}

impl Reader<'_, '_> {
    fn read_file(
        &mut self,
        source: &Source<'_>,
        path: &Path,
        name: &str,
        split: Option<&str>,
        config: Option<&str>,
    ) -> Result<(), BenchmarkError> {
        let Table { columns, rows } = source.rows(path, &self.wanted)?;
        if let Some(columns) = &columns {
            self.check_columns(path, columns)?;
        }
        let mut seen = BTreeSet::new();
        for row in rows {
            let (file_row, row) = row?;
            let row = source.complete(row);
            if columns.is_none() {
                seen.extend(row.cells().map(|(name, _)| name.to_string()));
            }
            let this = This {
                number: self.counts.rows,
                file_row,
                split,
                config,
            };
            self.counts.rows += 1;
            self.take(row, this, name, &source.pictures)?;
        }
        if columns.is_none() && !seen.is_empty() {
            self.check_columns(path, &Vec::from_iter(seen))?;
        }
        Ok(())
    }

    /// Every column that the definition uses must be there.
    fn check_columns(&self, path: &Path, columns: &[String]) -> Result<(), BenchmarkError> {
        let missing = self
            .uses
            .iter()
            .find(|used| !columns.contains(&used.column));
        match missing {
            None => Ok(()),
            Some(Use { key, column }) => {
                Err(BenchmarkError::MissingColumn(Box::new(MissingColumn {
                    benchmark: self.benchmark.to_owned(),
                    key: key.clone(),
                    column: column.clone(),
                    path: path.to_owned(),
                    nearest: nearest(column, columns.iter().map(String::as_str)),
                    columns: columns.to_vec(),
                })))
            }
        }
    }

    /// Makes a question of a row, or counts it elsewhere.
    fn take(
        &mut self,
        row: Row,
        this: This<'_>,
        file: &str,
        pictures: &Pictures,
    ) -> Result<(), BenchmarkError> {
        let mut id = None;
        match self.question(row, this, file, pictures, &mut id) {
            Ok(None) => self.counts.left_out += 1,
            Ok(Some(question)) => {
                match question.gold {
                    Some(_) => self.counts.scored += 1,
                    None => self.counts.submission_only += 1,
                }
                self.questions.push(question);
                self.positions.push(Position {
                    file: file.to_owned(),
                    row: this.file_row,
                });
            }
            Err(Refused::Error(error)) => return Err(error),
            Err(Refused::Fault(kind, what)) => {
                self.counts.faulty += 1;
                self.faults.push(Fault {
                    kind,
                    file: file.to_owned(),
                    row: this.file_row,
                    id,
                    what,
                });
            }
        }
        Ok(())
    }

    /// The question of a row; `None` if it is left out. `known_id` is its id as soon as it has one.
    fn question(
        &mut self,
        row: Row,
        this: This<'_>,
        file: &str,
        pictures: &Pictures,
        known_id: &mut Option<String>,
    ) -> Result<Option<BenchmarkQuestion>, Refused> {
        if let Some(used) = self
            .uses
            .iter()
            .find(|used| row.get(&used.column).is_none())
        {
            let what = format!("no `{}`, which `{}` uses", used.column, used.key);
            return Err(Refused::Fault(FaultKind::MissingColumn, what));
        }
        if !self.rules.keeps(&row, this)? {
            return Ok(None);
        }
        let id = self.rules.id(&row, this)?;
        *known_id = Some(id.clone());
        let here = format!("{file}:{}", this.file_row);
        if let Some(first) = self.ids.get(&id) {
            let what = format!("`{id}`, which {first} has already");
            return Err(Refused::Fault(FaultKind::DuplicateId, what));
        }
        self.ids.insert(id.clone(), here);
        let mut draft = self.rules.draft(&row, this)?;
        let picture = match draft.picture.take() {
            Some(value) => Some(self.pictures.find(&id, &value, pictures)?),
            None => None,
        };
        let sha256 = picture.as_ref().map(|picture| picture.sha256.as_str());
        let said = self.rules.say(&row, this, draft, sha256)?;
        Ok(Some(BenchmarkQuestion {
            id,
            unit: said.unit,
            category: said.category,
            source: said.source,
            picture,
            prompt: said.prompt,
            gold: said.gold,
            chance: said.chance,
            fields: said.fields,
        }))
    }

    /// Moves questions whose unit is not complete to the faults.
    fn refuse_incomplete_units(&mut self, size: usize) {
        let mut found: HashMap<String, usize> = HashMap::new();
        for question in &self.questions {
            *found.entry(unit_of(question).to_owned()).or_default() += 1;
        }
        let questions = std::mem::take(&mut self.questions);
        let positions = std::mem::take(&mut self.positions);
        for (question, position) in questions.into_iter().zip(positions) {
            let unit = unit_of(&question);
            let count = found.get(unit).copied().unwrap_or_default();
            if count == size {
                self.questions.push(question);
                self.positions.push(position);
                continue;
            }
            match question.gold {
                Some(_) => self.counts.scored -= 1,
                None => self.counts.submission_only -= 1,
            }
            self.counts.faulty += 1;
            self.faults.push(Fault {
                kind: FaultKind::IncompleteUnit,
                file: position.file,
                row: position.row,
                what: format!("unit `{unit}` has {count} good questions, wanted {size}"),
                id: Some(question.id),
            });
        }
    }
}

fn unit_of(question: &BenchmarkQuestion) -> &str {
    question.unit.as_deref().unwrap_or(&question.id)
}
