//! What is to be asked, put together so that each picture is looked at once.
//!
//! Looking costs more than answering, so the work is divided by what is *shown*: the questions of a
//! picture, and those of another picture that are asked with this one as the wrong picture, are asked
//! together. Which picture is wrong for which is decided over the whole set, so that neither a limit
//! nor the division into shards changes a question.

use std::collections::BTreeMap;

use opabinia_data::stream::{below, stream};

use crate::error::EvalError;
use crate::questions::QuestionSet;
use crate::vision::Vision;

/// A part of the questions, for dividing an evaluation among machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which part, from 0.
    pub index: usize,
    /// How many parts there are.
    pub count: usize,
}

impl Shard {
    /// Everything.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Whether a picture is in this part: parts are ranges, as even as can be.
    fn has(self, picture: usize, pictures: usize) -> bool {
        picture * self.count / pictures.max(1) == self.index
    }
}

/// What is shown with some questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    /// The picture; where nothing of it is shown, the one that the questions belong to.
    pub picture: usize,
    /// As what.
    pub as_what: Appearance,
}

/// How a picture is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Appearance {
    /// As it is.
    Itself,
    /// As a grey picture of its size.
    Blank,
    /// Not at all.
    Nothing,
}

/// A question and what it is shown with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Index of the question.
    pub question: usize,
    /// Where the picture comes from.
    pub vision: Vision,
}

/// Questions that are asked with the same picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The picture.
    pub shown: Shown,
    /// The questions.
    pub asks: Vec<Ask>,
}

/// Questions of the first `limit` that are in the shard.
pub fn select(set: &QuestionSet, limit: Option<usize>, shard: Shard) -> Vec<usize> {
    let count = limit.map_or(set.questions.len(), |limit| limit.min(set.questions.len()));
    // Pictures are numbered by their first question, so those of the first questions come first.
    let pictures = set.picture_of[..count]
        .iter()
        .max()
        .map_or(0, |last| last + 1);
    (0..count)
        .filter(|&question| shard.has(set.picture_of[question], pictures))
        .collect()
}

/// Groups what is to be asked by what is shown.
///
/// # Errors
/// [`EvalError::NoOtherPicture`] if wrong pictures are wanted and there is but one.
pub fn plan(
    set: &QuestionSet,
    asks: impl IntoIterator<Item = Ask>,
    seed: u64,
) -> Result<Vec<Unit>, EvalError> {
    let wrong = wrong_pictures(set.pictures.len(), seed);
    let mut units: BTreeMap<Shown, Vec<Ask>> = BTreeMap::new();
    for ask in asks {
        let own = set.picture_of[ask.question];
        let (picture, as_what) = match ask.vision {
            Vision::On => (own, Appearance::Itself),
            Vision::Off => (own, Appearance::Nothing),
            Vision::Shuffled if set.pictures.len() < 2 => {
                return Err(EvalError::NoOtherPicture {
                    path: set.path.clone(),
                });
            }
            Vision::Shuffled => (wrong[own], Appearance::Itself),
            Vision::Blank => (own, Appearance::Blank),
        };
        units
            .entry(Shown { picture, as_what })
            .or_default()
            .push(ask);
    }
    let units = units.into_iter();
    Ok(units.map(|(shown, asks)| Unit { shown, asks }).collect())
}

/// For every picture another one, each used once: Sattolo's shuffle, whose result is one cycle
/// through all pictures.
fn wrong_pictures(pictures: usize, seed: u64) -> Vec<usize> {
    let mut random = stream(seed, "eval.wrong-pictures", 0);
    let mut wrong: Vec<usize> = (0..pictures).collect();
    for last in (1..pictures).rev() {
        let other = below(&mut random, last as u64) as usize;
        wrong.swap(last, other);
    }
    wrong
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::questions::{PictureFile, Question};

    /// Seven questions about four pictures.
    fn set() -> QuestionSet {
        let picture_of = vec![0, 0, 1, 2, 2, 2, 3];
        let question = Question {
            id: "id".into(),
            image: "a.png".into(),
            group: "general".into(),
            task: "check".into(),
            question: "Is it?".into(),
            choices: None,
            answer: "yes".into(),
            chance: 0.5,
        };
        let picture = PictureFile {
            path: PathBuf::new(),
            sha256: String::new(),
        };
        QuestionSet {
            path: PathBuf::new(),
            questions: vec![question; picture_of.len()],
            pictures: vec![picture; 4],
            picture_of,
            sha256: String::new(),
        }
    }

    #[test]
    fn no_picture_is_its_own_wrong_one() {
        for pictures in 2..40 {
            for seed in 0..5 {
                let wrong = wrong_pictures(pictures, seed);
                assert!(wrong.iter().enumerate().all(|(own, other)| own != *other));
                let mut sorted = wrong.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..pictures).collect::<Vec<_>>());
            }
        }
        assert_eq!(wrong_pictures(20, 1), wrong_pictures(20, 1));
        assert_ne!(wrong_pictures(20, 1), wrong_pictures(20, 2));
    }

    #[test]
    fn shards_divide_the_questions_by_picture() {
        let set = set();
        let parts = |count| -> Vec<Vec<usize>> {
            (0..count)
                .map(|index| select(&set, None, Shard { index, count }))
                .collect()
        };
        assert_eq!(parts(1), [[0, 1, 2, 3, 4, 5, 6]]);
        assert_eq!(parts(2), [vec![0, 1, 2], vec![3, 4, 5, 6]]);
        for count in 1..9 {
            assert_eq!(parts(count).concat(), (0..7).collect::<Vec<_>>());
        }
        assert_eq!(select(&set, Some(4), Shard::WHOLE), [0, 1, 2, 3]);
        let second = Shard { index: 1, count: 2 };
        assert_eq!(
            select(&set, Some(4), second),
            [3],
            "two pictures, one picture"
        );
        assert_eq!(select(&set, Some(99), Shard::WHOLE).len(), 7);
    }

    #[test]
    fn a_picture_is_shown_once() {
        let set = set();
        let asks = (0..7).flat_map(|question| Vision::ALL.map(|vision| Ask { question, vision }));
        let units = plan(&set, asks, 0).unwrap();
        assert_eq!(units.len(), 4 * 3, "itself, blank, nothing");
        let asked: usize = units.iter().map(|unit| unit.asks.len()).sum();
        assert_eq!(asked, 7 * 4);
        for unit in units {
            for ask in unit.asks {
                let own = set.picture_of[ask.question] == unit.shown.picture;
                assert_eq!(own, ask.vision != Vision::Shuffled);
            }
        }
    }

    #[test]
    fn one_picture_has_no_wrong_one() {
        let mut set = set();
        set.pictures.truncate(1);
        set.picture_of.fill(0);
        let ask = |vision| {
            [Ask {
                question: 0,
                vision,
            }]
        };
        assert!(plan(&set, ask(Vision::On), 0).is_ok());
        let error = plan(&set, ask(Vision::Shuffled), 0).unwrap_err();
        assert!(error.to_string().contains("same picture"), "{error}");
    }
}
