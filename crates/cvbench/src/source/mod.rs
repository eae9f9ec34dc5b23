//! Annotated pictures, whatever format their annotations have.
//!
//! Three formats are read, as their publishers write them: COCO instances, the full release of
//! ADE20K, and Omni3D. Each becomes the same [`Annotated`]; what a question may be made of is
//! decided later ([`crate::candidate`]), by the same rules for all. An entry that cannot be used is
//! a listed [`Fault`]; where it is known which picture and class it was about, that is remembered,
//! because a count over it would be a guess.

mod ade20k;
mod coco;
mod entries;
mod omni3d;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::CvBenchError;
use crate::geometry::{Box2, Solid};
use crate::rules::OmniRules;

/// A format of annotations, which is also what CV-Bench's column `source` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// <https://cocodataset.org/#format-data>
    #[serde(rename = "COCO")]
    Coco,
    /// <https://github.com/CSAILVision/ADE20K>
    #[serde(rename = "ADE20K")]
    Ade20k,
    /// <https://github.com/facebookresearch/omni3d>
    Omni3D,
}

impl Family {
    /// As in the column `source`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Coco => "COCO",
            Self::Ade20k => "ADE20K",
            Self::Omni3D => "Omni3D",
        }
    }
}

/// Files of annotations, and where their pictures are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSpec {
    /// Their format.
    pub family: Family,
    /// A JSON file, or for ADE20K a folder that is searched for them.
    pub annotations: PathBuf,
    /// The folder that names of pictures are relative to; for ADE20K the folder of the annotations
    /// if there is none.
    pub pictures: Option<PathBuf>,
    /// What the column `source_dataset` says; by the annotations if there is none.
    pub collection: Option<String>,
    /// Which of its pictures count, in the order of their names.
    pub part: Part,
}

/// Some of the pictures of a source, so that two formats can describe one set of pictures and still
/// ask about different ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All of them.
    #[default]
    All,
    /// The first, the third and so on.
    Odd,
    /// The second, the fourth and so on.
    Even,
}

/// A thing in a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// What it is called.
    pub class: String,
    /// What has the same group means the same, whatever it is called.
    pub group: String,
    /// Where it is; `None` if the annotation does not say so.
    pub place: Option<Box2>,
    /// Several things under one annotation.
    pub crowd: bool,
    /// Where it is in space.
    pub solid: Option<Solid>,
    /// Why it may not be asked about by the rules of its format.
    pub ignored: Option<&'static str>,
}

/// A picture and what is in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotated {
    /// The format that says so.
    pub family: Family,
    /// The data set.
    pub collection: String,
    /// The picture's name in it.
    pub name: String,
    /// The picture's file.
    pub path: PathBuf,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// What is in it.
    pub instances: Vec<Instance>,
    /// Every word for anything in it, parts of things included.
    pub words: BTreeSet<String>,
    /// Whether an entry about it was broken so that nobody knows its class.
    pub unclear: bool,
}

/// An entry that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The file.
    pub file: String,
    /// The entry in it.
    pub entry: String,
    /// What is wrong.
    pub problem: String,
}

/// What is ignored by the rules of a format, and how much was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// Pictures.
    pub pictures: usize,
    /// Pictures that [`Part`] left out.
    pub left_out: usize,
    /// Instances in the pictures that count.
    pub instances: usize,
    /// Of these, how many are ignored for what reason.
    pub ignored: BTreeMap<String, usize>,
}

/// All pictures that may be asked about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Corpus {
    /// In the order of the sources, and of names within.
    pub pictures: Vec<Annotated>,
    /// Entries that cannot be used.
    pub faults: Vec<Fault>,
    /// By data set.
    pub read: BTreeMap<String, Read>,
    /// The files of annotations, with their digests.
    pub files: Vec<(String, String)>,
}

impl Corpus {
    /// Reads all annotations of some sources. `progress` is told how many are done.
    ///
    /// # Errors
    /// If a file cannot be read, is of another format, or describes no picture.
    pub fn read(
        sources: &[SourceSpec],
        rules: &OmniRules,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self, CvBenchError> {
        let mut corpus = Self::default();
        for (done, spec) in sources.iter().enumerate() {
            progress(done);
            let mut found = match spec.family {
                Family::Coco => coco::read(spec)?,
                Family::Ade20k => ade20k::read(spec)?,
                Family::Omni3D => omni3d::read(spec, rules)?,
            };
            if found.pictures.is_empty() {
                return Err(CvBenchError::NoPictures {
                    what: "there is no annotated picture",
                    path: spec.annotations.clone(),
                    faults: found.faults.len(),
                    first: first(&found.faults),
                });
            }
            found.pictures.sort_by(|a, b| a.name.cmp(&b.name));
            corpus.add(spec.part, found);
        }
        progress(sources.len());
        Ok(corpus)
    }

    fn add(&mut self, part: Part, found: Found) {
        self.faults.extend(found.faults);
        self.files.extend(found.files);
        for (place, picture) in found.pictures.into_iter().enumerate() {
            let read = self.read.entry(picture.collection.clone()).or_default();
            read.pictures += 1;
            let counts = match part {
                Part::All => true,
                Part::Odd => place % 2 == 0,
                Part::Even => place % 2 == 1,
            };
            if !counts {
                read.left_out += 1;
                continue;
            }
            read.instances += picture.instances.len();
            for instance in &picture.instances {
                if let Some(reason) = instance.ignored {
                    *read.ignored.entry(reason.to_owned()).or_default() += 1;
                }
            }
            self.pictures.push(picture);
        }
    }
}

fn first(faults: &[Fault]) -> String {
    let fault = faults.first();
    fault.map_or_else(
        || "none".to_owned(),
        |fault| format!("{}: {}", fault.entry, fault.problem),
    )
}

/// What one source gives.
#[derive(Debug, Default)]
struct Found {
    pictures: Vec<Annotated>,
    faults: Vec<Fault>,
    files: Vec<(String, String)>,
}

/// The words of a name in lower case, which stand for each other if the last ones are equal.
pub(crate) fn head_noun(class: &str) -> String {
    let last = class.split_whitespace().next_back().unwrap_or(class);
    last.to_lowercase()
}
