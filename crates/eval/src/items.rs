//! What is asked, wherever it comes from: a file of questions or benchmarks, in one form.
//!
//! A [`QuestionSet`] is what `world make` writes; [`Questions`] are those of a benchmark. Both become an
//! [`ItemSet`], and [`Items`] holds the sets that are asked in one run. Pictures are known by the digest
//! of their files, each content once over all sets, so that a picture that several benchmarks show is
//! looked at once.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::benchmark::submission::SubmissionForm;
use crate::benchmark::{
    BenchmarkDefinition, Counts, Fault, FileDigest, PictureData, PicturePlace, Questions,
    file_digest,
};
use crate::digest;
use crate::error::EvalError;
use crate::questions::QuestionSet;
use crate::scorer::{self, Aggregate, Gold, Protocol, Scorer};

/// How long an answer to a question of a file may be, in tokens; benchmarks say it themselves.
pub const FILE_MAX_NEW_TOKENS: usize = 32;

/// What stands for the definition of a file of questions, which has none.
const FILE: &str = "a file of questions";

/// One question, ready to be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Unique within its set.
    pub id: String,
    /// Its picture, an index into [`Items::pictures`].
    pub picture: Option<usize>,
    /// Group of the question: the benchmark's, or what the file says.
    pub group: String,
    /// Kind of question: its category, or what the file says.
    pub task: String,
    /// What must be answered together.
    pub unit: Option<String>,
    /// The collection that it is from.
    pub source: Option<String>,
    /// What is asked, without the image placeholder.
    pub prompt: String,
    /// What is right; `None` if only the benchmark's server knows.
    pub gold: Option<Gold>,
    /// How often guessing is right, from 0 to 1.
    pub chance: f64,
}

impl Item {
    /// The right answer, for people; empty where it is not known.
    #[must_use]
    pub fn expected(&self) -> String {
        let right = self.gold.as_ref().and_then(Gold::right_text);
        right.unwrap_or_default().to_owned()
    }
}

/// How the answers of a set are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// How one answer is judged.
    pub scorer: Scorer,
    /// How all become the score of the benchmark.
    pub aggregate: Aggregate,
    /// Which of the two sets of rules counts.
    pub protocol: Protocol,
}

impl Rules {
    /// Digest of what judges; `right` says what is right.
    fn sha256(&self, right: &str) -> String {
        digest::of(format!("{self:?}, code {}, {right}", scorer::VERSION))
    }

    /// What judges, for people: names, and the beginning of the digest.
    #[must_use]
    pub fn stamp(&self, sha256: &str) -> String {
        let Self {
            scorer,
            aggregate,
            protocol,
        } = self;
        let short = sha256.get(..12).unwrap_or(sha256);
        format!("{scorer}, {aggregate}, {protocol} ({short})")
    }

    /// The same with the standard's way of summing up: units by name, not by order.
    pub(crate) fn standard(&self) -> Self {
        Self {
            protocol: Protocol::Standard,
            ..*self
        }
    }
}

/// The questions of one benchmark, or of one file.
#[derive(Clone, Debug)]
pub struct ItemSet {
    /// The benchmark; `None` for a file of questions.
    pub benchmark: Option<String>,
    /// What tables call it.
    pub title: String,
    /// Its group; `None` where every question has its own.
    pub group: Option<String>,
    /// How it is judged.
    pub rules: Rules,
    /// How long an answer may be, in tokens.
    pub max_new_tokens: usize,
    /// The questions, in the order of the files.
    pub items: Vec<Item>,
    /// What became of the rows of the files.
    pub counts: Counts,
    /// Rows that cannot be asked.
    pub faults: Vec<Fault>,
    /// The files that were read.
    pub files: Vec<FileDigest>,
    /// Digest of what is asked and what is right, pictures included.
    pub sha256: String,
    /// Digest of the benchmark's definition as it was understood.
    pub definition_sha256: String,
    /// Digest of what judges: scorer, aggregate, protocol, the tables of the definition that say what is
    /// right, and the version of the code.
    pub scorer_sha256: String,
    /// How many questions there should be, if there is another number.
    pub expected: Option<usize>,
    /// What the benchmark's server wants, if it wants something.
    pub submission: Option<SubmissionForm>,
    /// For each item its place: items with the same picture share one. Numbered by their first item.
    pub(crate) places: Vec<usize>,
    /// For each place its picture, an index into [`Items::pictures`].
    pub(crate) pictures: Vec<Option<usize>>,
}

impl ItemSet {
    /// What the set is called in records and messages.
    #[must_use]
    pub fn name(&self) -> &str {
        self.benchmark.as_deref().unwrap_or(&self.title)
    }

    /// Digest of all prompts.
    #[must_use]
    pub fn prompt_sha256(&self) -> String {
        let mut hash = Sha256::new();
        for item in &self.items {
            hash.update((item.prompt.len() as u64).to_le_bytes());
            hash.update(&item.prompt);
        }
        digest::hex(hash.finalize())
    }

    /// Digest of the files that were read.
    #[must_use]
    pub fn data_sha256(&self) -> String {
        let files = self.files.iter().map(|file| file.sha256.as_str());
        digest::of(files.collect::<Vec<_>>().join("\n"))
    }
}

/// Everything that is asked in one run.
#[derive(Clone, Debug, Default)]
pub struct Items {
    /// The benchmarks, or one file.
    pub sets: Vec<ItemSet>,
    /// The pictures, each content once, in the order of the first question about it.
    pub pictures: Vec<PictureData>,
    known: HashMap<String, usize>,
}

impl Items {
    /// The questions of a file.
    ///
    /// # Errors
    /// If the file cannot be read again for its digest.
    pub fn of_file(set: &QuestionSet) -> Result<Self, EvalError> {
        let mut items = Self::default();
        let pictures: Vec<usize> = set
            .pictures
            .iter()
            .map(|picture| {
                items.keep(PictureData {
                    sha256: picture.sha256.clone(),
                    place: PicturePlace::File(picture.path.clone()),
                })
            })
            .collect();
        let questions = set.questions.iter().zip(&set.picture_of);
        let list = questions.map(|(question, &picture)| Item {
            id: question.id.clone(),
            picture: pictures.get(picture).copied(),
            group: question.group.clone(),
            task: question.task.clone(),
            unit: None,
            source: None,
            prompt: question.question.clone(),
            gold: Some(question.expected().gold()),
            chance: question.chance,
        });
        let list: Vec<Item> = list.collect();
        let counts = Counts {
            rows: list.len(),
            scored: list.len(),
            ..Counts::default()
        };
        let stem = set.path.file_stem().unwrap_or_default();
        let (places, pictures) = places(&list);
        let rules = Rules {
            scorer: Scorer::ShortAnswer,
            aggregate: Aggregate::Mean,
            protocol: Protocol::Standard,
        };
        items.sets.push(ItemSet {
            benchmark: None,
            title: stem.to_string_lossy().into_owned(),
            group: None,
            rules,
            max_new_tokens: FILE_MAX_NEW_TOKENS,
            items: list,
            counts,
            faults: Vec::new(),
            files: vec![file_digest(&set.path).map_err(EvalError::read("questions", &set.path))?],
            sha256: set.sha256.clone(),
            definition_sha256: digest::of(FILE),
            scorer_sha256: rules.sha256(FILE),
            expected: None,
            submission: None,
            places,
            pictures,
        });
        Ok(items)
    }

    /// Adds the questions of a benchmark.
    ///
    /// # Errors
    /// If a benchmark of this name is among them already.
    pub fn add(
        &mut self,
        definition: &BenchmarkDefinition,
        questions: Questions,
    ) -> Result<(), EvalError> {
        let name = &definition.name;
        if self
            .sets
            .iter()
            .any(|set| set.benchmark.as_ref() == Some(name))
        {
            return Err(EvalError::TwiceNamed { name: name.clone() });
        }
        let sha256 = questions.sha256();
        let submission = SubmissionForm::of(definition, &questions.questions);
        let effective = definition.under(questions.protocol);
        let group = definition.group.name();
        let mut list = Vec::with_capacity(questions.questions.len());
        for question in questions.questions {
            list.push(Item {
                picture: question.picture.map(|picture| self.keep(picture)),
                group: group.to_owned(),
                task: question.category.unwrap_or_default(),
                id: question.id,
                unit: question.unit,
                source: question.source,
                prompt: question.prompt,
                gold: question.gold,
                chance: question.chance,
            });
        }
        let (places, pictures) = places(&list);
        let rules = Rules {
            scorer: effective.scoring.scorer.unwrap_or(Scorer::ShortAnswer),
            aggregate: effective.scoring.aggregate.unwrap_or(Aggregate::Mean),
            protocol: questions.protocol,
        };
        // Debug forms name every field, so that comments and the order of keys make no difference.
        let right = format!("{:?}{:?}", effective.row, effective.scoring);
        self.sets.push(ItemSet {
            benchmark: Some(name.clone()),
            title: definition.title.clone(),
            group: Some(group.to_owned()),
            rules,
            max_new_tokens: effective
                .prompt
                .max_new_tokens
                .unwrap_or(FILE_MAX_NEW_TOKENS),
            items: list,
            counts: questions.counts,
            faults: questions.faults,
            files: questions.files,
            sha256,
            definition_sha256: digest::of(format!("{effective:?}")),
            scorer_sha256: rules.sha256(&right),
            expected: questions.expected,
            submission,
            places,
            pictures,
        });
        Ok(())
    }

    /// How many questions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sets.iter().map(|set| set.items.len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn keep(&mut self, picture: PictureData) -> usize {
        if let Some(&known) = self.known.get(&picture.sha256) {
            return known;
        }
        let index = self.pictures.len();
        self.known.insert(picture.sha256.clone(), index);
        self.pictures.push(picture);
        index
    }
}

/// For each item its place, and for each place its picture. Items without a picture have a place each.
fn places(items: &[Item]) -> (Vec<usize>, Vec<Option<usize>>) {
    let mut pictures = Vec::new();
    let mut known: HashMap<usize, usize> = HashMap::new();
    let places = items.iter().map(|item| {
        let mut new = || {
            pictures.push(item.picture);
            pictures.len() - 1
        };
        match item.picture {
            Some(picture) => *known.entry(picture).or_insert_with(new),
            None => new(),
        }
    });
    (places.collect(), pictures)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Questions with prompts of their own about these pictures.
    pub fn set_of(pictures: &[Option<usize>]) -> Items {
        let list = pictures.iter().enumerate().map(|(index, &picture)| Item {
            id: format!("q{index}"),
            picture,
            group: "general".into(),
            task: "check".into(),
            unit: None,
            source: None,
            prompt: format!("Is it {index}?"),
            gold: Some(Gold::text("yes")),
            chance: 0.5,
        });
        let list: Vec<Item> = list.collect();
        let (places, pictures) = places(&list);
        let count = pictures.iter().flatten().max().map_or(0, |last| last + 1);
        let picture = |index: usize| PictureData {
            sha256: index.to_string(),
            place: PicturePlace::Memory([].into()),
        };
        Items {
            pictures: (0..count).map(picture).collect(),
            known: HashMap::new(),
            sets: vec![ItemSet {
                benchmark: None,
                title: "questions".into(),
                group: None,
                rules: Rules {
                    scorer: Scorer::ShortAnswer,
                    aggregate: Aggregate::Mean,
                    protocol: Protocol::Standard,
                },
                max_new_tokens: FILE_MAX_NEW_TOKENS,
                items: list,
                counts: Counts::default(),
                faults: Vec::new(),
                files: Vec::new(),
                sha256: String::new(),
                definition_sha256: String::new(),
                scorer_sha256: String::new(),
                expected: None,
                submission: None,
                places,
                pictures,
            }],
        }
    }

    #[test]
    fn items_about_one_picture_share_a_place() {
        let items = set_of(&[Some(7), None, Some(3), Some(7), None]);
        assert_eq!(items.sets[0].places, [0, 1, 2, 0, 3]);
        assert_eq!(items.sets[0].pictures, [Some(7), None, Some(3), None]);
    }
}
