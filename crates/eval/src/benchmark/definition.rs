//! What a benchmark is: one TOML file.
//!
//! A definition says where the rows are ([`SourceTable`]), what of a row is the picture, the options
//! and the answer ([`RowTable`]), what the model is asked ([`PromptTable`]), and how answers become a
//! score ([`ScoringTable`]). Values of a row are written as expressions over its columns, so that a
//! column is named by its name (`answer = "label"`) and anything else is said where it is needed
//! (`category = "(id | split('_'))[1]"`); prompts are templates in the same language, Jinja.
//! `[reference]` holds what the reference implementation of Cambrian-1 (arXiv 2406.16860) does
//! otherwise than the field: under [`Protocol::Reference`] its keys take the place of the others.
//!
//! Unknown keys are errors with the nearest known name, and every expression is compiled when the
//! definition is read, so that a mistake is found before a picture is.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use super::error::BenchmarkError;
use super::{check, places::Places};
use crate::scorer::{Aggregate, Protocol, Scorer};

/// A benchmark as its file says.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BenchmarkDefinition {
    /// What it is called on the command line: lower-case letters, digits and `-`.
    pub name: String,
    /// What it is called in tables.
    pub title: String,
    /// Which of the paper's groups it belongs to.
    pub group: Group,
    /// How many questions there should be; another number is a warning.
    pub questions: Option<usize>,
    /// Where it is from.
    pub home: Option<String>,
    /// Under which licence.
    pub licence: Option<String>,
    /// What else one should know.
    pub notes: Option<String>,
    /// Where the rows are; several are read one after the other.
    pub source: Vec<SourceTable>,
    /// What is what in a row.
    pub row: RowTable,
    /// What the model is asked.
    pub prompt: PromptTable,
    /// How answers become a score.
    pub scoring: ScoringTable,
    /// What the reference does otherwise.
    pub reference: Option<ReferenceTable>,
    /// The file that the benchmark's own server wants.
    pub submission: Option<SubmissionTable>,
}

/// Groups of benchmarks (Cambrian-1, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// General questions about pictures.
    General,
    /// What must be known besides.
    Knowledge,
    /// Reading charts and text.
    ChartOcr,
    /// What must be seen.
    VisionCentric,
    /// None of the paper's groups.
    Other,
}

impl Group {
    /// As it is written in definitions.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::General => "general",
            Self::Knowledge => "knowledge",
            Self::ChartOcr => "chart_ocr",
            Self::VisionCentric => "vision_centric",
            Self::Other => "other",
        }
    }
}

/// Where rows are.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SourceTable {
    /// A data set of the Hugging Face hub, `owner/name`.
    pub hub: Option<String>,
    /// Its configuration; none for the default.
    pub config: Option<String>,
    /// Its split.
    pub split: Option<String>,
    /// Branch, tag or commit; `main` if there is none.
    pub revision: Option<String>,
    /// Which files, relative to the data set, `*` standing for any part of a name. Without them the
    /// hub's usual layouts are tried.
    pub files: Option<Vec<String>>,
    /// The format, where the files' names do not tell.
    pub format: Option<Format>,
    /// Names for the columns of a CSV or TSV file, by position, in place of its first line.
    pub columns: Option<Vec<String>>,
    /// Other names for columns, such as those that are no identifiers: old to new.
    #[serde(default)]
    pub rename: BTreeMap<String, String>,
    /// An archive (tar, not compressed) or a folder that holds the pictures which rows name.
    pub pictures: Option<String>,
    /// More columns, from rows of another file.
    pub join: Option<JoinTable>,
}

/// Columns from another file: where `on` says that both have the same value.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JoinTable {
    /// As in [`SourceTable`]; the same data set if there is none.
    pub hub: Option<String>,
    /// As in [`SourceTable`].
    pub config: Option<String>,
    /// As in [`SourceTable`].
    pub split: Option<String>,
    /// As in [`SourceTable`].
    pub revision: Option<String>,
    /// As in [`SourceTable`].
    pub files: Option<Vec<String>>,
    /// Column here and column there.
    pub on: [String; 2],
}

/// Formats of files of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// One JSON object per line.
    Jsonl,
    /// A JSON list of objects.
    Json,
    /// Comma-separated values.
    Csv,
    /// Tab-separated values.
    Tsv,
}

/// What is what in a row; every value is an expression over the row's columns.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RowTable {
    /// Which rows are questions; all if there is none.
    pub keep: Option<String>,
    /// The question's name; its running number, from 0, if there is none.
    pub id: Option<String>,
    /// The picture: of a list the first. Without this key the benchmark has no pictures.
    pub picture: Option<String>,
    /// The list of options.
    pub options: Option<String>,
    /// The right answer, or a list of right answers.
    pub answer: Option<String>,
    /// How the answer is written; as text if nothing is said.
    pub answer_is: Option<AnswerKind>,
    /// Kind of question, for scores by category.
    pub category: Option<String>,
    /// What scorers distinguish besides, such as open questions from those with options.
    pub kind: Option<String>,
    /// What must be answered together: a pair, a circle of rotated options.
    pub unit: Option<String>,
    /// How many questions a unit has, where all have the same number. Questions of units that are
    /// incomplete are faulty.
    pub unit_size: Option<usize>,
    /// The collection that a row of a mixed benchmark is from.
    pub source: Option<String>,
}

/// How the right answer is written. Where a row has no options, every kind is text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerKind {
    /// The text that is right, or several such texts.
    #[default]
    Text,
    /// The letter of the right option, in brackets or not.
    Letter,
    /// As [`AnswerKind::Letter`], but the options that were read may lack the right one.
    UncheckedLetter,
    /// The number of the right option, from 0.
    Index,
    /// The text of the right option.
    Option,
}

/// What the model is asked: `body`, a line break, `suffix`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PromptTable {
    /// Template of the question.
    pub body: Option<String>,
    /// Template of what is asked for; nothing, and no line break, if it is empty.
    pub suffix: Option<String>,
    /// How many tokens the answer may have.
    pub max_new_tokens: Option<usize>,
}

/// How answers become a score.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ScoringTable {
    /// How one answer is judged; a scorer knows both protocols.
    pub scorer: Option<Scorer>,
    /// The way from judged answers to the score of the benchmark.
    pub aggregate: Option<Aggregate>,
    /// How often guessing is right.
    pub chance: Option<Chance>,
    /// What guessing must get right: every question, or all of a unit.
    pub chance_of: Option<ChanceOf>,
}

/// How often guessing answers one question rightly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Chance {
    /// Always this often, from 0 to 1.
    Fixed(f64),
    /// One in the number of options; never where there are none.
    Options,
    /// Every second time.
    YesNo,
    /// As [`Chance::Options`], and every second time where the answer is yes or no.
    OptionsOrYesNo,
}

/// Whose chance the benchmark's score is compared with (facts of the metric, not of a question).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChanceOf {
    /// The mean over questions.
    #[default]
    Questions,
    /// The mean over units, of which all questions must be right.
    Units,
    /// The mean of both, for scores that are the sum of both (MME).
    QuestionsAndUnits,
}

/// What the reference does otherwise.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReferenceTable {
    /// Over [`BenchmarkDefinition::row`].
    pub row: RowTable,
    /// Over [`BenchmarkDefinition::prompt`].
    pub prompt: PromptTable,
    /// Over [`BenchmarkDefinition::scoring`].
    pub scoring: ScoringTable,
}

/// The file that the benchmark's own server wants.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SubmissionTable {
    /// Its format.
    pub format: SubmissionFormat,
    /// Which questions are in it.
    #[serde(default)]
    pub rows: SubmissionRows,
    /// What is said of each question before the answer, in order.
    #[serde(default)]
    pub fields: Vec<FieldTable>,
    /// The field that gets the model's answer; unused in a JSON map.
    pub answer: Option<String>,
    /// Whether answers are written in lower case.
    #[serde(default)]
    pub lower_case: bool,
    /// Where it is handed in.
    pub home: Option<String>,
}

/// Formats of submissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubmissionFormat {
    /// A list of objects.
    JsonList,
    /// An object from the first field to the answer.
    JsonMap,
    /// A sheet, comma-separated.
    Csv,
    /// A sheet, tab-separated.
    Tsv,
}

impl SubmissionFormat {
    /// How such a file's name ends.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::JsonList | Self::JsonMap => "json",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
        }
    }
}

/// Which questions are handed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubmissionRows {
    /// All.
    #[default]
    All,
    /// Those whose right answer is not known.
    Unanswered,
}

/// One field of a submission.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FieldTable {
    /// What it is called.
    pub name: String,
    /// Its value, an expression.
    pub value: String,
}

impl BenchmarkDefinition {
    /// Reads a definition; `path` is only named in errors.
    ///
    /// # Errors
    /// If the text is no TOML, has an unknown key, a value that cannot be used, or an expression that
    /// does not compile.
    pub fn parse(text: &str, path: &Path) -> Result<Self, BenchmarkError> {
        let places = Places { path, text };
        let definition: Self = toml::from_str(text).map_err(|error| places.explain(&error))?;
        check::definition(&definition, &places)?;
        Ok(definition)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and if the file cannot be read.
    pub fn read(path: &Path) -> Result<Self, BenchmarkError> {
        let text = std::fs::read_to_string(path);
        Self::parse(
            &text.map_err(BenchmarkError::read("definition", path))?,
            path,
        )
    }

    /// The definition under a protocol: for the reference, its keys in place of the others.
    #[must_use]
    pub fn under(&self, protocol: Protocol) -> Effective {
        let mut effective = Effective {
            row: self.row.clone(),
            prompt: self.prompt.clone(),
            scoring: self.scoring.clone(),
        };
        if let (Protocol::Reference, Some(reference)) = (protocol, &self.reference) {
            effective.row.take(&reference.row);
            effective.prompt.take(&reference.prompt);
            effective.scoring.take(&reference.scoring);
        }
        effective
    }
}

/// What counts under a protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// What is what in a row.
    pub row: RowTable,
    /// What the model is asked.
    pub prompt: PromptTable,
    /// How answers become a score.
    pub scoring: ScoringTable,
}

/// Takes over the values of `over` that are there.
macro_rules! take {
    ($base:expr, $over:expr, $($key:ident),+) => {
        $(if $over.$key.is_some() { $base.$key.clone_from(&$over.$key); })+
    };
}

impl RowTable {
    fn take(&mut self, over: &Self) {
        take!(
            self, over, keep, id, picture, options, answer, answer_is, category, kind, unit,
            unit_size, source
        );
    }

    /// Every expression with its key.
    pub(super) fn expressions(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("keep", &self.keep),
            ("id", &self.id),
            ("picture", &self.picture),
            ("options", &self.options),
            ("answer", &self.answer),
            ("category", &self.category),
            ("kind", &self.kind),
            ("unit", &self.unit),
            ("source", &self.source),
        ];
        all.into_iter()
            .filter_map(|(key, text)| Some((key, text.as_deref()?)))
    }
}

impl PromptTable {
    fn take(&mut self, over: &Self) {
        take!(self, over, body, suffix, max_new_tokens);
    }

    /// Every template with its key.
    pub(super) fn templates(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [("body", &self.body), ("suffix", &self.suffix)];
        all.into_iter()
            .filter_map(|(key, text)| Some((key, text.as_deref()?)))
    }
}

impl ScoringTable {
    fn take(&mut self, over: &Self) {
        take!(self, over, scorer, aggregate, chance, chance_of);
    }
}

const CHANCES: &str = "a number from 0 to 1, `options`, `yes-no` or `options-or-yes-no`";

impl<'de> Deserialize<'de> for Chance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ChanceVisitor;
        impl Visitor<'_> for ChanceVisitor {
            type Value = Chance;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(CHANCES)
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Chance, E> {
                let fits = (0.0..=1.0).contains(&value);
                fits.then_some(Chance::Fixed(value))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Float(value), &self))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Chance, E> {
                match value {
                    0 => Ok(Chance::Fixed(0.0)),
                    1 => Ok(Chance::Fixed(1.0)),
                    _ => Err(E::invalid_value(de::Unexpected::Signed(value), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Chance, E> {
                match value {
                    "options" => Ok(Chance::Options),
                    "yes-no" => Ok(Chance::YesNo),
                    "options-or-yes-no" => Ok(Chance::OptionsOrYesNo),
                    _ => Err(E::invalid_value(de::Unexpected::Str(value), &self)),
                }
            }
        }
        deserializer.deserialize_any(ChanceVisitor)
    }
}

impl Serialize for Chance {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(share) => serializer.serialize_f64(*share),
            Self::Options => serializer.serialize_str("options"),
            Self::YesNo => serializer.serialize_str("yes-no"),
            Self::OptionsOrYesNo => serializer.serialize_str("options-or-yes-no"),
        }
    }
}
