//! From what is asked to the words, the options and the boxes of a question.
//!
//! Places of right answers are dealt like cards: of each number of options, every letter comes once
//! before any comes twice. The same holds for which of two things is named first, and for the place of
//! a count among the numbers around it; otherwise the middle number would be right too often.

use std::collections::BTreeMap;

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::candidate::{Form, Side};
use crate::draw::{Colour, Mark};
use crate::geometry::Box2;
use crate::question::{Question, Task, lettered};
use crate::rules::Rules;
use crate::select::Chosen;
use crate::source::{Annotated, Family, Instance};
use crate::stream::stream;
use crate::wording;

/// How many options a count may have, as in the published questions.
const COUNT_OPTIONS: [usize; 3] = [4, 5, 6];

/// A question, and what is drawn into its picture.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Composed {
    pub question: Question,
    pub picture: usize,
    pub marks: Vec<Mark>,
}

/// Writes the questions of one task.
pub(crate) struct Composer<'a> {
    task: Task,
    rules: &'a Rules,
    letters: Dealer,
    mentions: Dealer,
    sizes: Dealer,
    windows: Dealer,
    chance: ChaCha8Rng,
    /// Questions about each data set so far.
    numbers: BTreeMap<String, usize>,
}

/// Deals numbers below a bound, each once before any twice.
struct Dealer {
    chance: ChaCha8Rng,
    hands: BTreeMap<usize, Vec<usize>>,
}

impl Dealer {
    fn new(seed: u64, task: Task, name: &str) -> Self {
        Self {
            chance: stream(seed, &format!("{name}/{}", task.name())),
            hands: BTreeMap::new(),
        }
    }

    fn deal(&mut self, bound: usize) -> usize {
        let hand = self.hands.entry(bound).or_default();
        if hand.is_empty() {
            hand.extend(0..bound);
            hand.shuffle(&mut self.chance);
        }
        hand.pop().unwrap_or(0)
    }
}

/// What a form says, before its options have letters.
struct Said {
    question: String,
    right: String,
    wrong: Vec<String>,
    /// Objects in the order of their mention.
    mentioned: Vec<usize>,
    boxed: usize,
    target: Option<(String, Option<f64>)>,
}

impl<'a> Composer<'a> {
    pub fn new(task: Task, rules: &'a Rules) -> Self {
        let dealer = |name| Dealer::new(rules.seed, task, name);
        Self {
            task,
            rules,
            letters: dealer("letters"),
            mentions: dealer("mentions"),
            sizes: dealer("sizes"),
            windows: dealer("windows"),
            chance: stream(rules.seed, &format!("options/{}", task.name())),
            numbers: BTreeMap::new(),
        }
    }

    /// The question with this number; nothing if the picture lacks what is asked about.
    pub fn compose(&mut self, idx: i64, chosen: &Chosen, picture: &Annotated) -> Option<Composed> {
        let said = self.say(&chosen.form, picture)?;
        let mut choices = said.wrong;
        choices.shuffle(&mut self.chance);
        let place = self.letters.deal(choices.len() + 1);
        choices.insert(place.min(choices.len()), said.right);
        let mentioned = said.mentioned.iter();
        let boxes = mentioned.map(|&index| picture.instances.get(index)?.place);
        let boxes: Vec<Box2> = boxes.collect::<Option<_>>()?;
        let colours = [Colour::Red, Colour::Blue, Colour::Green];
        let marks = boxes.iter().zip(colours).take(said.boxed);
        let marks = marks.map(|(&place, colour)| Mark { place, colour });
        let is = |family| picture.family == family;
        let target = said.target.filter(|_| is(Family::Coco));
        let corners = |place: &Box2| place.corners().to_vec();
        Some(Composed {
            picture: chosen.picture,
            marks: marks.collect(),
            question: Question {
                idx,
                dimension: self.task.dimension().to_owned(),
                task: self.task,
                prompt: wording::prompt(&said.question, &choices),
                question: said.question,
                choices,
                answer: lettered(place),
                filename: self.file_name(picture),
                source: picture.family.name().to_owned(),
                source_dataset: picture.collection.clone(),
                source_filename: picture.name.clone(),
                target_size: target.as_ref().and_then(|(_, size)| *size),
                target_class: target.map(|(class, _)| class),
                bbox: is(Family::Omni3D).then(|| boxes.iter().map(corners).collect()),
            },
        })
    }

    /// `img/3D/depth/omni3d_sunrgbd_20.png`
    fn file_name(&mut self, picture: &Annotated) -> String {
        let plain = |letter: char| match letter.is_ascii_alphanumeric() {
            true => letter.to_ascii_lowercase(),
            false => '_',
        };
        let name: String = picture.collection.chars().map(plain).collect();
        let number = self.numbers.entry(name.clone()).or_default();
        *number += 1;
        let (dimension, task) = (self.task.dimension(), self.task.name().to_lowercase());
        format!("img/{dimension}/{task}/{name}_{number}.png")
    }

    fn say(&mut self, form: &Form, picture: &Annotated) -> Option<Said> {
        let instance = |index: usize| picture.instances.get(index);
        match form {
            Form::Count {
                class,
                count,
                smallest,
            } => Some(self.count(class, *count, *smallest)),
            Form::Relation {
                first,
                second,
                answers,
                boxed,
            } => relation(
                (*first, instance(*first)?),
                instance(*second)?,
                *answers.first()?,
                *boxed,
            ),
            Form::Depth { near, far } => {
                let (red, blue) = self.ordered(*near, *far);
                let class = |index| Some(instance(index)?.class.clone());
                Some(Said {
                    question: wording::depth(&class(red)?, &class(blue)?),
                    right: class(*near)?,
                    wrong: vec![class(*far)?],
                    mentioned: vec![red, blue],
                    boxed: 2,
                    target: None,
                })
            }
            Form::Distance { anchor, near, far } => {
                let (blue, green) = self.ordered(*near, *far);
                let class = |index| Some(instance(index)?.class.clone());
                Some(Said {
                    question: wording::distance(&class(*anchor)?, &class(blue)?, &class(green)?),
                    right: class(*near)?,
                    wrong: vec![class(*far)?],
                    mentioned: vec![*anchor, blue, green],
                    boxed: 3,
                    target: None,
                })
            }
        }
    }

    /// Which of two is mentioned first.
    fn ordered(&mut self, near: usize, far: usize) -> (usize, usize) {
        match self.mentions.deal(2) {
            0 => (near, far),
            _ => (far, near),
        }
    }

    fn count(&mut self, class: &str, count: usize, smallest: Option<f64>) -> Said {
        let sizes = COUNT_OPTIONS;
        let size = sizes
            .get(self.sizes.deal(sizes.len()))
            .copied()
            .unwrap_or(4);
        // Numbers do not go below 0, so a small count has fewer places to be at.
        let low = count - self.windows.deal(size.min(count + 1)).min(count);
        let mut wrong: Vec<usize> = (low..low + size).filter(|&n| n != count).collect();
        let zero = self.chance.random_bool(self.rules.count.zero_among_options);
        if low > 0 && zero {
            let farthest = wrong.iter_mut().max_by_key(|n| n.abs_diff(count));
            if let Some(farthest) = farthest {
                *farthest = 0;
            }
        }
        Said {
            question: wording::count(class, self.rules.count.plural),
            right: count.to_string(),
            wrong: wrong.iter().map(ToString::to_string).collect(),
            mentioned: Vec::new(),
            boxed: 0,
            target: Some((class.to_owned(), smallest)),
        }
    }
}

fn relation(
    (index, first): (usize, &Instance),
    second: &Instance,
    side: Side,
    boxed: bool,
) -> Option<Said> {
    Some(Said {
        question: wording::relation(&first.class, &second.class, boxed),
        right: side.name().to_owned(),
        wrong: vec![side.opposite().name().to_owned()],
        mentioned: vec![index],
        boxed: usize::from(boxed),
        target: Some((first.class.clone(), first.place.map(|place| place.area()))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of twelve deals below four every number comes three times.
    #[test]
    fn dealing_is_even() {
        let mut dealer = Dealer::new(1, Task::Count, "test");
        let mut times = [0; 4];
        for _ in 0..12 {
            times[dealer.deal(4)] += 1;
        }
        assert_eq!(times, [3; 4]);
    }

    #[test]
    fn options_of_a_count_hold_it_once() {
        let rules = Rules::default();
        let mut composer = Composer::new(Task::Count, &rules);
        let mut below = 0;
        for turn in 0..300 {
            let count = turn % 10;
            let said = composer.count("dog", count, None);
            assert!((3..=5).contains(&said.wrong.len()));
            let mut all: Vec<usize> = said.wrong.iter().map(|n| n.parse().unwrap()).collect();
            below += all.iter().filter(|&&n| n < count).count();
            all.push(count);
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), said.wrong.len() + 1, "{all:?}");
            assert!(all.iter().all(|&n| n == 0 || n.abs_diff(count) < 6));
        }
        assert!(below > 300, "the truth is not always the smallest");
    }
}
