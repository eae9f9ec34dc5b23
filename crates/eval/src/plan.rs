//! What is to be asked, put together so that each picture is looked at once and nothing is asked twice.
//!
//! Looking costs more than answering, so the work is divided by what is *shown*: the questions of a
//! picture, and those of another picture that are asked with this one as the wrong picture, are asked
//! together. Questions that are equal to the model (the same prompt beside the same picture, or the
//! same prompt without one) are one [`Job`], asked once. Which picture is wrong for which is decided
//! over the whole benchmark, so that neither a limit nor the division into shards changes a question.

use std::collections::{HashMap, HashSet};

use opabinia_data::stream::{below, stream};

use crate::error::EvalError;
use crate::items::{ItemSet, Items};
use crate::record::Answered;
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

    /// Whether a place is in this part: parts are ranges, as even as can be.
    fn has(self, place: usize, places: usize) -> bool {
        let part = place as u128 * self.count as u128 / places.max(1) as u128;
        part == self.index as u128
    }
}

/// How a picture is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Appearance {
    /// As it is.
    Itself,
    /// As a grey picture of its size.
    Blank,
    /// Not at all.
    Nothing,
}

/// What is shown with some questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shown {
    /// The picture, an index into [`Items::pictures`]; `None` if there is nothing to see.
    pub picture: Option<usize>,
    /// As what.
    pub as_what: Appearance,
}

/// A question and what it is shown with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Index of the benchmark.
    pub set: usize,
    /// Index of the question in it.
    pub item: usize,
    /// Where the picture comes from.
    pub vision: Vision,
}

/// Questions that are the same to the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Digest of all that the answer depends on.
    pub asked: String,
    /// The questions.
    pub asks: Vec<Ask>,
    /// The answer, if an earlier run has it.
    pub known: Option<Answered>,
}

/// Jobs that show the same picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// What is shown.
    pub shown: Shown,
    /// The jobs.
    pub jobs: Vec<Job>,
}

/// Questions of the first `limit` that are in the shard. A limit in the middle of a unit (a pair, a
/// circle) takes in the rest of it, because half a pair has no score.
pub fn select(set: &ItemSet, limit: Option<usize>, shard: Shard) -> Vec<usize> {
    let limit = limit.unwrap_or(usize::MAX);
    let items = || set.items.iter().enumerate();
    let units: HashSet<&str> = items()
        .take(limit)
        .filter_map(|(_, item)| item.unit.as_deref())
        .collect();
    let wanted = items().filter(|(index, item)| {
        *index < limit
            || item
                .unit
                .as_deref()
                .is_some_and(|unit| units.contains(unit))
    });
    let wanted: Vec<usize> = wanted.map(|(index, _)| index).collect();
    let place = |index: &usize| set.places.get(*index).copied().unwrap_or_default();
    let mut ranks: HashMap<usize, usize> = HashMap::new();
    for index in &wanted {
        let next = ranks.len();
        ranks.entry(place(index)).or_insert(next);
    }
    let in_shard = |index: &usize| shard.has(ranks[&place(index)], ranks.len());
    wanted.into_iter().filter(in_shard).collect()
}

/// Which picture each question is shown with.
pub struct Showing<'a> {
    items: &'a Items,
    /// For each benchmark and each of its places the wrong picture; empty if nobody asks.
    wrong: Vec<Vec<Option<usize>>>,
}

impl<'a> Showing<'a> {
    /// Decides about wrong pictures, where they are wanted.
    ///
    /// # Errors
    /// [`EvalError::NoOtherPicture`] if a benchmark has but one picture.
    pub fn new(items: &'a Items, vision: &[Vision], seed: u64) -> Result<Self, EvalError> {
        if !vision.contains(&Vision::Shuffled) {
            return Ok(Self {
                items,
                wrong: Vec::new(),
            });
        }
        let wrong = items.sets.iter().map(|set| {
            let pictured: Vec<(usize, usize)> = set
                .pictures
                .iter()
                .enumerate()
                .filter_map(|(place, picture)| Some((place, (*picture)?)))
                .collect();
            if pictured.len() == 1 {
                return Err(EvalError::NoOtherPicture {
                    set: set.name().to_owned(),
                });
            }
            let mut wrong = vec![None; set.pictures.len()];
            for (own, other) in wrong_pictures(pictured.len(), seed).into_iter().enumerate() {
                wrong[pictured[own].0] = Some(pictured[other].1);
            }
            Ok(wrong)
        });
        Ok(Self {
            items,
            wrong: wrong.collect::<Result<_, _>>()?,
        })
    }

    /// What a question is shown with.
    pub fn of(&self, ask: Ask) -> Shown {
        let set = &self.items.sets[ask.set];
        let own = set.items[ask.item].picture;
        let (picture, as_what) = match ask.vision {
            _ if own.is_none() => (None, Appearance::Nothing),
            Vision::On => (own, Appearance::Itself),
            Vision::Off => (own, Appearance::Nothing),
            Vision::Shuffled => {
                let place = set.places[ask.item];
                (self.wrong[ask.set][place], Appearance::Itself)
            }
            Vision::Blank => (own, Appearance::Blank),
        };
        Shown { picture, as_what }
    }
}

/// Groups what is to be asked by what is shown. `asked` is the digest of what an answer depends on,
/// `known` the answer that an earlier run has.
pub fn plan(
    showing: &Showing<'_>,
    asks: &[Ask],
    asked: impl Fn(Ask, Shown) -> String,
    known: impl Fn(&str) -> Option<Answered>,
) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    // Of questions without any picture each has a unit, so that workers can share them.
    let mut of_shown: HashMap<(Shown, Option<(usize, usize)>), usize> = HashMap::new();
    let mut jobs: HashMap<String, (usize, usize)> = HashMap::new();
    for &ask in asks {
        let shown = showing.of(ask);
        let asked = asked(ask, shown);
        if let Some(&(unit, job)) = jobs.get(&asked) {
            units[unit].jobs[job].asks.push(ask);
            continue;
        }
        let alone = shown.picture.is_none().then_some((ask.set, ask.item));
        let unit = *of_shown.entry((shown, alone)).or_insert_with(|| {
            units.push(Unit {
                shown,
                jobs: Vec::new(),
            });
            units.len() - 1
        });
        jobs.insert(asked.clone(), (unit, units[unit].jobs.len()));
        units[unit].jobs.push(Job {
            known: known(&asked),
            asked,
            asks: vec![ask],
        });
    }
    units
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
    use super::*;
    use crate::items::tests::set_of;

    /// Seven questions about four pictures.
    fn items() -> Items {
        set_of(&[0, 0, 1, 2, 2, 2, 3].map(Some))
    }

    fn asks(items: &Items) -> Vec<Ask> {
        let questions = 0..items.sets[0].items.len();
        let all = questions.flat_map(|item| {
            Vision::ALL.map(|vision| Ask {
                set: 0,
                item,
                vision,
            })
        });
        all.collect()
    }

    fn planned(items: &Items) -> Vec<Unit> {
        let showing = Showing::new(items, &Vision::ALL, 0).unwrap();
        // As the real digest: prompt, picture and its appearance.
        let asked = |ask: Ask, shown: Shown| {
            let prompt = &items.sets[0].items[ask.item].prompt;
            let picture = shown
                .picture
                .filter(|_| shown.as_what != Appearance::Nothing);
            format!("{prompt} {picture:?} {:?}", shown.as_what)
        };
        plan(&showing, &asks(items), asked, |_| None)
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
        let items = items();
        let set = &items.sets[0];
        let parts = |count| -> Vec<Vec<usize>> {
            (0..count)
                .map(|index| select(set, None, Shard { index, count }))
                .collect()
        };
        assert_eq!(parts(1), [[0, 1, 2, 3, 4, 5, 6]]);
        assert_eq!(parts(2), [vec![0, 1, 2], vec![3, 4, 5, 6]]);
        for count in 1..9 {
            assert_eq!(parts(count).concat(), (0..7).collect::<Vec<_>>());
        }
        assert_eq!(select(set, Some(4), Shard::WHOLE), [0, 1, 2, 3]);
        let many = Shard {
            index: 0,
            count: usize::MAX,
        };
        assert_eq!(select(set, None, many), [0, 1], "the first picture");
        let second = Shard { index: 1, count: 2 };
        assert_eq!(
            select(set, Some(4), second),
            [3],
            "two pictures, one picture"
        );
        assert_eq!(select(set, Some(99), Shard::WHOLE).len(), 7);
    }

    #[test]
    fn a_limit_takes_whole_units() {
        let mut items = items();
        for (item, unit) in items.sets[0].items.iter_mut().zip("aabcbca".chars()) {
            item.unit = Some(unit.to_string());
        }
        assert_eq!(select(&items.sets[0], Some(1), Shard::WHOLE), [0, 1, 6]);
        assert_eq!(
            select(&items.sets[0], Some(3), Shard::WHOLE),
            [0, 1, 2, 4, 6]
        );
    }

    #[test]
    fn a_picture_is_shown_once() {
        let items = items();
        let units = planned(&items);
        assert_eq!(units.len(), 4 * 3, "itself, blank, nothing");
        let asked: usize = units.iter().flat_map(|unit| &unit.jobs).count();
        assert_eq!(asked, 7 * 4, "all prompts differ");
        for unit in &units {
            for ask in unit.jobs.iter().flat_map(|job| &job.asks) {
                let own = items.sets[0].items[ask.item].picture == unit.shown.picture;
                assert_eq!(own, ask.vision != Vision::Shuffled);
            }
        }
    }

    /// Without pictures equal prompts are equal questions; with them they are where the picture is.
    #[test]
    fn equal_questions_are_one_job() {
        let mut items = items();
        for item in &mut items.sets[0].items {
            item.prompt = "Is it?".into();
        }
        let units = planned(&items);
        let jobs = |as_what| {
            let units = units.iter().filter(|unit| unit.shown.as_what == as_what);
            let jobs: Vec<&Job> = units.flat_map(|unit| &unit.jobs).collect();
            let asks: usize = jobs.iter().map(|job| job.asks.len()).sum();
            (jobs.len(), asks)
        };
        assert_eq!(jobs(Appearance::Nothing), (1, 7));
        assert_eq!(jobs(Appearance::Blank), (4, 7));
        let (shown, asks) = jobs(Appearance::Itself);
        assert_eq!(shown, 4, "own and wrong pictures are the same pictures");
        assert_eq!(asks, 14);
    }

    /// Without a picture every way of asking is the same.
    #[test]
    fn nothing_to_see() {
        let items = set_of(&[None, Some(0), Some(1)]);
        let units = planned(&items);
        let blind: Vec<&Unit> = units.iter().filter(|u| u.shown.picture.is_none()).collect();
        assert_eq!((blind.len(), blind[0].jobs.len()), (1, 1));
        assert_eq!(blind[0].jobs[0].asks.len(), 4);
    }

    #[test]
    fn one_picture_has_no_wrong_one() {
        let items = set_of(&[Some(0), Some(0)]);
        assert!(Showing::new(&items, &[Vision::On], 0).is_ok());
        let error = Showing::new(&items, &[Vision::Shuffled], 0).err().unwrap();
        assert!(error.to_string().contains("same picture"), "{error}");
    }
}
