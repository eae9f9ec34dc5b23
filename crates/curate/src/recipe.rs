//! The recipe of a pool: what is read, what is dropped, how much of what is kept, where it goes.
//!
//! A recipe is one TOML file. The steps it asks for are always taken in one order, whatever the order
//! in the file: duplicates, caps of single sources, the cap of all, quotas of categories, format prompts,
//! longer answers.
//! The released 7M mixture of Cambrian-1 (arXiv 2406.16860, section 4.2) is none of them alone. Tables
//! that several recipes share (sources, ratios, format prompts) may lie in files of their own, named by
//! a path from the recipe's folder; inputs and outputs are named from the working folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use opabinia_data::FaultLimit;
use opabinia_data::mixture::Shortfall;
use serde::{Deserialize, Serialize};

use crate::error::CurateError;
use crate::prompt::Prompt;
use crate::sources::SourceRule;
use crate::toml_file::read_toml;

/// What a curation does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// Decides which samples are kept where not all are.
    pub seed: u64,
    /// Names of categories; of two equal claims to a sample, the earlier category's wins.
    pub categories: Vec<String>,
    /// A file of sources, after those of the recipe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<PathBuf>,
    /// Sources of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<SourceRule>,
    /// What is read.
    pub input: Input,
    /// What samples are kept away from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decontaminate: Option<Decontaminate>,
    /// What counts as a duplicate; nothing if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dedup: Option<Dedup>,
    /// Limits of sources.
    pub cap: Caps,
    /// Quotas of categories.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mix: Option<Mix>,
    /// Format prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<Prompts>,
    /// Short answers that a served model writes out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewriting>,
    /// What is written.
    pub output: Output,
}

/// What is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Input {
    /// Files of samples. Of duplicates, the one in the earlier file is kept.
    pub files: Vec<PathBuf>,
    /// The folder that paths of pictures start from; pictures are not looked for if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    /// Whether every picture is decoded.
    pub decode: bool,
    /// Where a sample with a picture must show it.
    pub placeholders: Placeholders,
    /// How many samples may be bad.
    pub max_bad: FaultLimit,
}

impl Default for Input {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            images: None,
            decode: false,
            placeholders: Placeholders::default(),
            max_bad: FaultLimit::Share(1.0),
        }
    }
}

/// Where a sample with a picture must show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placeholders {
    /// In exactly one question: what training takes.
    #[default]
    Once,
    /// Anywhere, any number of times.
    Anywhere,
}

/// What counts as a duplicate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dedup {
    /// Whether the same turns about the same picture are kept once.
    pub exact: bool,
    /// What makes two pictures the same.
    pub pictures: Pictures,
    /// How alike texts about the same picture may be, from 0 to 1: the share of common shingles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near: Option<f64>,
}

/// What makes two pictures the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pictures {
    /// Their path.
    #[default]
    Path,
    /// Their pixels.
    Pixels,
    /// What they look like: equal difference hashes.
    Looks,
}

/// What samples are kept away from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Decontaminate {
    /// Files of JSON lines with a `question`, `text` or `prompt`, or with samples.
    pub questions: Vec<PathBuf>,
    /// Folders of a benchmark's pictures.
    pub images: Vec<PathBuf>,
    /// Questions of fewer words are asked everywhere, and do not count.
    pub min_words: usize,
    /// Bits in which difference hashes of pictures that look alike may differ, at most 3.
    pub distance: u32,
}

impl Default for Decontaminate {
    fn default() -> Self {
        Self {
            questions: Vec::new(),
            images: Vec::new(),
            min_words: 8,
            distance: 0,
        }
    }
}

/// Limits of sources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Caps {
    /// At most that many samples of every source, in all its categories: the threshold *t* of the paper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<u64>,
    /// At most that many samples of single sources; before the cap of all.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, u64>,
}

/// Quotas of categories.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// Size of the mixture, in samples.
    pub total: u64,
    /// What happens where a category has too few.
    #[serde(default, with = "shortfall")]
    pub shortfall: Shortfall,
    /// Weights of categories; they need not add up to anything. A category without one gets nothing.
    pub ratios: Ratios,
}

/// Weights of categories, in the recipe or in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ratios {
    /// Category to weight.
    Table(BTreeMap<String, f64>),
    /// A file with a table `ratios`.
    File(PathBuf),
}

mod shortfall {
    use opabinia_data::mixture::Shortfall;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Name {
        Report,
        Redistribute,
    }

    pub fn serialize<S: Serializer>(value: &Shortfall, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Shortfall::Report => Name::Report,
            Shortfall::Redistribute => Name::Redistribute,
        }
        .serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Shortfall, D::Error> {
        Ok(match Name::deserialize(from)? {
            Name::Report => Shortfall::Report,
            Name::Redistribute => Shortfall::Redistribute,
        })
    }
}

/// Format prompts: their texts, and which source gets which.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prompts {
    /// A file with tables `prompt` and `sources`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The texts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompt: Vec<Prompt>,
    /// Names of prompts by source.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, Vec<String>>,
}

impl Prompts {
    /// Reads a file of format prompts.
    ///
    /// # Errors
    /// If it cannot be read, or does not say what it should.
    pub fn read(path: &Path) -> Result<Self, CurateError> {
        read_toml(path, "read the format prompts")
    }
}

/// Short answers that a served model writes out, as `data rewrite` has it done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rewriting {
    /// Address of the server, such as `http://localhost:8000/v1`.
    pub url: String,
    /// The model's name on the server.
    pub model: String,
    /// Environment variable that holds the server's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_variable: Option<String>,
    /// Names of sources whose samples are rewritten; all if there is none.
    pub sources: Vec<String>,
    /// Answers of at most so many words are short.
    pub max_words: usize,
    /// Tokens that an answer may have.
    pub max_tokens: usize,
    /// The server calls this limit `max_completion_tokens`.
    pub max_completion_tokens: bool,
    /// Requests at the same time.
    pub concurrency: usize,
    /// Seconds that one attempt may take.
    pub timeout_seconds: u64,
    /// How often a failed attempt is made again.
    pub retries: u32,
    /// Tokens of all questions and answers together, over all runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_tokens: Option<u64>,
    /// Requests over all runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_requests: Option<u64>,
    /// Whether answers that the budget does not reach stay as they are.
    pub finish: bool,
    /// The file in which answers are kept, from the working folder; `OUT.answers.jsonl` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers: Option<PathBuf>,
}

impl Default for Rewriting {
    fn default() -> Self {
        Self {
            url: String::new(),
            model: String::new(),
            key_variable: None,
            sources: Vec::new(),
            max_words: 3,
            max_tokens: 200,
            max_completion_tokens: false,
            concurrency: 4,
            timeout_seconds: 120,
            retries: 5,
            budget_tokens: None,
            budget_requests: None,
            finish: false,
            answers: None,
        }
    }
}

impl Rewriting {
    /// What decides about the samples that come out, and nothing of how the server is reached. A budget decides
    /// only where it may end the work.
    pub(crate) fn identity(&self) -> Self {
        let budget = |most: Option<u64>| most.filter(|_| self.finish);
        Self {
            model: self.model.clone(),
            sources: self.sources.clone(),
            max_words: self.max_words,
            max_tokens: self.max_tokens,
            finish: self.finish,
            budget_tokens: budget(self.budget_tokens),
            budget_requests: budget(self.budget_requests),
            ..Self::default()
        }
    }
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Output {
    /// Samples of a shard; the last one may have fewer.
    pub shard_samples: u64,
}

impl Default for Output {
    fn default() -> Self {
        Self {
            shard_samples: 100_000,
        }
    }
}

/// A file of sources.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcesFile {
    /// Names of categories, in their order.
    #[serde(default)]
    pub categories: Vec<String>,
    /// The rules, in their order.
    pub source: Vec<SourceRule>,
}

impl SourcesFile {
    /// Reads a file of sources.
    ///
    /// # Errors
    /// If it cannot be read, or does not say what it should.
    pub fn read(path: &Path) -> Result<Self, CurateError> {
        read_toml(path, "read the sources")
    }
}

/// A file of ratios.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RatiosFile {
    ratios: BTreeMap<String, f64>,
}

impl Recipe {
    /// Reads a recipe and the files it names.
    ///
    /// # Errors
    /// If a file cannot be read, or does not say what it should.
    pub fn read(path: &Path) -> Result<Self, CurateError> {
        let recipe: Self = read_toml(path, "read the recipe")?;
        let folder = path.parent().unwrap_or(Path::new(""));
        recipe.resolved(&path.display().to_string(), folder)
    }

    /// Takes in the tables of other files and checks the whole. `place` is what errors call the recipe,
    /// `folder` is where paths of tables start.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn resolved(mut self, place: &str, folder: &Path) -> Result<Self, CurateError> {
        if let Some(file) = self.sources.take() {
            let read = SourcesFile::read(&folder.join(file))?;
            self.source.extend(read.source);
            if self.categories.is_empty() {
                self.categories = read.categories;
            }
        }
        if let Some(mix) = &mut self.mix
            && let Ratios::File(file) = &mix.ratios
        {
            let read: RatiosFile = read_toml(&folder.join(file), "read the ratios")?;
            mix.ratios = Ratios::Table(read.ratios);
        }
        if let Some(prompts) = &mut self.prompts
            && let Some(file) = prompts.file.take()
        {
            let read = Prompts::read(&folder.join(file))?;
            prompts.prompt.extend(read.prompt);
            for (source, names) in read.sources {
                prompts.sources.entry(source).or_insert(names);
            }
        }
        match self.complaint() {
            None => Ok(self),
            Some(problem) => Err(CurateError::Recipe {
                place: place.to_owned(),
                problem,
            }),
        }
    }

    /// The recipe with all defaults, as TOML.
    ///
    /// # Errors
    /// If it cannot be written as TOML: a fault of this program.
    pub fn to_toml(&self) -> Result<String, CurateError> {
        toml::to_string(self).map_err(|error| CurateError::Recipe {
            place: "the recipe".to_owned(),
            problem: error.to_string(),
        })
    }

    /// The cap of a source: its own in `cap.sources`, or else in its rule.
    pub fn own_cap(&self, source: &str) -> Option<u64> {
        let ruled = || {
            let rule = self.source.iter().find(|rule| rule.name == source);
            rule.and_then(|rule| rule.cap)
        };
        self.cap.sources.get(source).copied().or_else(ruled)
    }

    /// Names of the prompts that a source gets.
    pub fn prompts_of(&self, source: &str) -> &[String] {
        let named = self
            .prompts
            .as_ref()
            .and_then(|prompts| prompts.sources.get(source));
        let ruled = || self.source.iter().find(|rule| rule.name == source);
        match named {
            Some(names) => names,
            None => ruled().map_or(&[], |rule| &rule.prompts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool.toml");
        std::fs::write(&path, text).unwrap();
        let error = Recipe::read(&path).unwrap_err().to_string();
        error.replace(&folder.path().display().to_string(), "")
    }

    const INPUT: &str = "[input]\nfiles = ['a.jsonl']\n";

    #[test]
    fn a_complaint_says_where_and_what() {
        assert!(complaint("").contains("names no file"));
        let typing = complaint("[input]\nfiels = ['a']");
        assert!(
            typing.starts_with("/pool.toml:2: unknown field `fiels`"),
            "{typing}"
        );
        assert!(typing.ends_with("did you mean `files`?"), "{typing}");
        let mix = |ratios: &str| {
            complaint(&format!(
                "categories = ['OCR', 'Math']\n{INPUT}[mix]\ntotal = 5\nratios = {ratios}"
            ))
        };
        assert!(mix("{OCRR = 1}").ends_with("did you mean `OCR`?"));
        assert!(mix("{OCR = 0}").contains("no category"));
        assert!(mix("{OCR = -1.0}").contains("0 or more"));
        assert!(mix("'none.toml'").contains("read the ratios"));
        let prompts = format!("{INPUT}[prompts.sources]\nDVQA = ['wrod']\n[[prompts.prompt]]\n");
        let prompts = complaint(&(prompts + "name = 'word'\ntext = 'One word.'"));
        assert!(prompts.ends_with("did you mean `word`?"), "{prompts}");
        let idle = |table: &str| complaint(&format!("{INPUT}images = 'i'\n{table}\n"));
        for table in ["[dedup]", "[dedup]\nexact = false"] {
            let empty = idle(table);
            assert!(
                empty.contains("`dedup` asks for nothing; write `exact"),
                "{empty}"
            );
        }
        for pictures in ["looks", "pixels"] {
            let alone = idle(&format!("[dedup]\npictures = '{pictures}'"));
            assert!(
                alone.contains("`dedup.pictures` says what makes"),
                "{alone}"
            );
        }
        for table in ["[decontaminate]", "[decontaminate]\ndistance = 2"] {
            let empty = idle(table);
            assert!(empty.contains("`decontaminate` names nothing"), "{empty}");
        }
        let rewrite = |table: &str| complaint(&format!("{INPUT}[rewrite]\n{table}"));
        assert!(rewrite("url = 'localhost'").contains("`rewrite.url` is \"localhost\""));
        assert!(rewrite("url = 'http://h'").contains("`rewrite.model`"));
        let none = rewrite("url = 'http://h'\nmodel = 'm'\nconcurrency = 0");
        assert!(none.contains("1 or more"), "{none}");
    }

    #[test]
    fn a_step_that_drops_something_is_taken() {
        let read = |table: &str| {
            let recipe: Recipe =
                toml::from_str(&format!("{INPUT}images = 'i'\n{table}\n")).unwrap();
            recipe.resolved("test", Path::new(""))
        };
        for table in [
            "[dedup]\nexact = true",
            "[dedup]\nnear = 0.8\npictures = 'looks'",
            "[dedup]\nexact = true\npictures = 'pixels'",
            "[decontaminate]\nquestions = ['q']",
            "[decontaminate]\nimages = ['b']",
        ] {
            assert!(read(table).is_ok(), "{table}");
        }
    }

    #[test]
    fn tables_of_other_files_are_taken_in() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "s.toml",
            "categories = ['OCR']\n[[source]]\nname = 'A'\ncap = 7",
        );
        write("r.toml", "[ratios]\nOCR = 2");
        let tables = "sources = 's.toml'\n[[source]]\nname = 'B'\n";
        let mix = "[mix]\ntotal = 3\nratios = 'r.toml'\nshortfall = 'redistribute'\n[cap.sources]\nB = 9\n";
        write("pool.toml", &format!("{tables}{INPUT}{mix}"));
        let recipe = Recipe::read(&folder.path().join("pool.toml")).unwrap();
        assert_eq!(
            (recipe.own_cap("A"), recipe.own_cap("B")),
            (Some(7), Some(9))
        );
        assert_eq!(recipe.source[0].name, "B");
        let again: Recipe = toml::from_str(&recipe.to_toml().unwrap()).unwrap();
        assert_eq!(again, recipe);
    }
}
