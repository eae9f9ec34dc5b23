//! What a world is made of: everything that decides its bytes, and what does not.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{MakeError, Split};
use crate::conversation::Forms;
use crate::picture::{OBJECTS, PictureOptions, SIDES, Subject};
use crate::question::wording::weighted;

/// Most pictures of a split: their names have six digits.
const MOST_PICTURES: usize = 1_000_000;
/// Most samples without a picture: they are in memory at once.
const MOST_TEXTS: usize = 10_000_000;
/// Most turns of a conversation; no picture has more to ask.
const MOST_TURNS: usize = 64;

/// How a world is made. Two worlds with equal options have equal files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MakeOptions {
    /// Everything random comes from it.
    pub seed: u64,
    /// Pictures to learn from.
    pub pictures_train: usize,
    /// Pictures to be examined with.
    pub pictures_test: usize,
    /// Samples without a picture, besides those that describe one.
    pub texts: usize,
    /// Which subjects, in which proportion.
    pub mix: Mix,
    /// Questions per picture in a conversation.
    pub turns: usize,
    /// How questions are asked in conversations. Benchmark questions are always asked for a short
    /// answer, so that a score tells what was seen and not how well letters are looked up.
    pub forms: Forms,
    /// Side of the pictures in pixels.
    pub side: u32,
    /// Most objects in a scene.
    #[serde(default = "most_objects")]
    pub objects: usize,
    /// Writes the truth of the scenes in the formats of COCO, ADE20K and Omni3D, too.
    pub annotations: bool,
    /// Writes what is in each cell of a grid over each picture ([`crate::labels`]), too.
    #[serde(default)]
    pub labels: bool,
    /// Threads, all cores if `None`; the files do not depend on it.
    #[serde(skip)]
    pub threads: Option<usize>,
    /// Replaces another world that is in the folder.
    #[serde(skip)]
    pub force: bool,
}

fn most_objects() -> usize {
    *OBJECTS.end()
}

impl Default for MakeOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            pictures_train: 10_000,
            pictures_test: 1_000,
            texts: 5_000,
            mix: Mix::default(),
            turns: 8,
            forms: Forms::default(),
            side: 256,
            objects: most_objects(),
            annotations: true,
            labels: false,
            threads: None,
            force: false,
        }
    }
}

impl MakeOptions {
    /// How each picture is drawn.
    pub(super) fn picture(&self) -> PictureOptions {
        PictureOptions {
            side: self.side,
            objects: self.objects,
        }
    }

    /// Pictures of a split.
    pub fn pictures(&self, split: Split) -> usize {
        match split {
            Split::Train => self.pictures_train,
            Split::Test => self.pictures_test,
        }
    }

    /// Refuses what cannot be made.
    ///
    /// # Errors
    /// [`MakeError::Option`] names the option and what it may be.
    pub fn check(&self) -> Result<(), MakeError> {
        let within = |option, value: usize, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(MakeError::Option {
                option,
                found: value.to_string(),
                wanted: format!("{least} to {most}"),
            })
        };
        within("pictures", self.pictures_train, 1, MOST_PICTURES)?;
        within("test", self.pictures_test, 0, MOST_PICTURES)?;
        within("texts", self.texts, 0, MOST_TEXTS)?;
        within("turns", self.turns, 1, MOST_TURNS)?;
        let (least, most) = (*SIDES.start() as usize, *SIDES.end() as usize);
        within("side", self.side as usize, least, most)?;
        within("objects", self.objects, *OBJECTS.start(), *OBJECTS.end())?;
        for (option, share) in [
            ("sentences", self.forms.sentences),
            ("letters", self.forms.letters),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Err(MakeError::Option {
                    option,
                    found: share.to_string(),
                    wanted: "a share from 0 to 1".to_owned(),
                });
            }
        }
        self.mix.check()
    }
}

/// Weights of subjects, as in `scene=6,word=2`; subjects that are not named do not occur.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mix(pub BTreeMap<Subject, u32>);

impl Default for Mix {
    /// Half scenes, half documents and charts.
    fn default() -> Self {
        Self(BTreeMap::from([
            (Subject::Scene, 10),
            (Subject::Word, 3),
            (Subject::Lines, 1),
            (Subject::Labels, 1),
            (Subject::Table, 1),
            (Subject::Bar, 3),
            (Subject::Line, 1),
            (Subject::Pie, 1),
        ]))
    }
}

impl Mix {
    fn check(&self) -> Result<(), MakeError> {
        let total: u64 = self.0.values().map(|&weight| u64::from(weight)).sum();
        if (1..=1_000_000).contains(&total) {
            return Ok(());
        }
        Err(MakeError::Option {
            option: "mix",
            found: self.to_string(),
            wanted: "weights that add up to 1 to 1000000, such as `scene=6,word=1`".to_owned(),
        })
    }

    /// A subject in proportion to the weights.
    pub(super) fn draw(&self, random: &mut ChaCha8Rng) -> Subject {
        let weights: Vec<(Subject, u32)> = self.0.iter().map(|(&s, &w)| (s, w)).collect();
        // `check` has refused a mix of nothing.
        weighted(&weights, random).unwrap_or(Subject::Scene)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|(s, w)| format!("{}={w}", s.name()))
            .collect();
        f.write_str(&parts.join(","))
    }
}

/// A mix that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MixError {
    /// A part is not `NAME=NUMBER`.
    #[error("`{part}` is not a subject and its weight, wanted for instance `scene=6`")]
    Part {
        /// What was found.
        part: String,
    },
    /// There is no such subject.
    #[error("no subject is called `{name}`; there are {}", names())]
    Subject {
        /// What was found.
        name: String,
    },
    /// A subject has two weights.
    #[error("`{name}` is given twice")]
    Twice {
        /// Which.
        name: String,
    },
}

fn names() -> String {
    Subject::ALL.map(Subject::name).join(", ")
}

impl FromStr for Mix {
    type Err = MixError;

    fn from_str(text: &str) -> Result<Self, MixError> {
        let mut mix = BTreeMap::new();
        for part in text.split(',') {
            let bad = || MixError::Part {
                part: part.to_owned(),
            };
            let (name, weight) = part.split_once('=').ok_or_else(bad)?;
            let weight: u32 = weight.trim().parse().map_err(|_| bad())?;
            let name = name.trim();
            let subject = subject(name)?;
            if mix.insert(subject, weight).is_some() {
                return Err(MixError::Twice {
                    name: name.to_owned(),
                });
            }
        }
        Ok(Self(mix))
    }
}

/// The subject of this name.
///
/// # Errors
/// [`MixError::Subject`] lists the names.
pub fn subject(name: &str) -> Result<Subject, MixError> {
    Subject::ALL
        .into_iter()
        .find(|subject| subject.name() == name)
        .ok_or_else(|| MixError::Subject {
            name: name.to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mix_is_read_and_written() {
        let mix: Mix = "scene=6, word=1".parse().unwrap();
        assert_eq!(
            mix.0,
            BTreeMap::from([(Subject::Scene, 6), (Subject::Word, 1)])
        );
        assert_eq!(mix.to_string(), "scene=6,word=1");
        assert_eq!(Mix::default().to_string().parse(), Ok(Mix::default()));
    }

    #[test]
    fn a_wrong_mix_is_refused_by_name() {
        let refused = |text: &str| text.parse::<Mix>().unwrap_err().to_string();
        assert!(
            refused("scenes=1").contains("`scenes`"),
            "{}",
            refused("scenes=1")
        );
        assert!(refused("scenes=1").contains("labels"), "names are listed");
        assert!(refused("scene").contains("scene=6"));
        assert!(refused("scene=-1").contains("scene=-1"));
        assert!(refused("scene=1,scene=2").contains("twice"));
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let refused = |options: MakeOptions| options.check().unwrap_err().to_string();
        let default = MakeOptions::default;
        assert!(default().check().is_ok());
        let none = MakeOptions {
            pictures_train: 0,
            ..default()
        };
        assert!(refused(none).contains("`pictures`"));
        let narrow = MakeOptions {
            side: 3,
            ..default()
        };
        assert!(refused(narrow).contains("`side` is 3"));
        let crowded = MakeOptions {
            objects: 9,
            ..default()
        };
        assert!(refused(crowded).contains("`objects` is 9"));
        let empty = MakeOptions {
            mix: "scene=0".parse().unwrap(),
            ..default()
        };
        assert!(refused(empty).contains("`mix`"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn any_text_is_a_mix_or_an_error(text in "[a-z=,0-9 -]{0,40}") {
            if let Ok(mix) = text.parse::<Mix>() {
                prop_assert_eq!(mix.to_string().parse(), Ok(mix));
            }
        }
    }
}
