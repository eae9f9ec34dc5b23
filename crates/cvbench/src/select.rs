//! The choice: a balanced set of the wanted size out of everything that could be asked.
//!
//! The data sets take turns, so that each has the same number of questions if it can; within one, the
//! answer that was given least often so far comes next. A guesser who always says the same thing then
//! gets no further than chance, or than [`crate::Rules::max_answer_share`] where the pictures leave no
//! choice.

use std::collections::{BTreeMap, VecDeque};

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::candidate::{Candidate, Form, Pool, Side};
use crate::question::Task;
use crate::rules::Rules;
use crate::source::Annotated;
use crate::stream::stream;

/// What became of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is a question.
    Chosen,
    /// Its class is no countable thing.
    ExcludedClass,
    /// Several things are under one annotation.
    Crowd,
    /// An annotation that matters is broken.
    FaultyAnnotation,
    /// Its format's own rules do not let it count.
    Ignored,
    /// Another class in the picture has much the same name.
    SimilarClass,
    /// An object is too small.
    TooSmall,
    /// An object fills the picture.
    TooLarge,
    /// One object is annotated twice.
    DuplicateBoxes,
    /// There are more objects than anybody counts.
    TooMany,
    /// Both classes have several objects.
    SeveralOfBoth,
    /// Neither axis is clear.
    NoClearAxis,
    /// Two boxes are one.
    BoxesCoincide,
    /// The distances differ too little.
    WithinOffset,
    /// Its answer was given too often.
    Unbalanced,
    /// There are enough questions about its picture.
    PictureLimit,
    /// There are enough questions.
    NotNeeded,
}

impl Fate {
    /// As in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::ExcludedClass => "excluded_class",
            Self::Crowd => "crowd",
            Self::FaultyAnnotation => "faulty_annotation",
            Self::Ignored => "ignored",
            Self::SimilarClass => "similar_class",
            Self::TooSmall => "too_small",
            Self::TooLarge => "too_large",
            Self::DuplicateBoxes => "duplicate_boxes",
            Self::TooMany => "too_many",
            Self::SeveralOfBoth => "several_of_both",
            Self::NoClearAxis => "no_clear_axis",
            Self::BoxesCoincide => "boxes_coincide",
            Self::WithinOffset => "within_offset",
            Self::Unbalanced => "unbalanced",
            Self::PictureLimit => "picture_limit",
            Self::NotNeeded => "not_needed",
        }
    }
}

/// A candidate that is asked, with the answer that it was chosen for.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// Which picture of the corpus.
    pub picture: usize,
    /// What is asked; the roles are settled.
    pub form: Form,
    /// The answer.
    pub answer: String,
}

/// The choice of one task, and the fate of every candidate by data set.
#[derive(Debug, Default)]
pub struct Choice {
    /// In the order of the data sets and of their pictures.
    pub chosen: Vec<Chosen>,
    /// How many candidates of each data set had what fate.
    pub fates: BTreeMap<(String, Fate), usize>,
}

/// Chooses the questions of a task.
#[must_use]
pub fn choose(task: Task, pool: Pool, pictures: &[Annotated], rules: &Rules) -> Choice {
    let target = match task {
        Task::Count => rules.targets.count,
        Task::Relation => rules.targets.relation,
        Task::Depth => rules.targets.depth,
        Task::Distance => rules.targets.distance,
    };
    let mut choice = Choice {
        chosen: Vec::new(),
        fates: pool.dropped,
    };
    let mut collections: BTreeMap<&str, Vec<Candidate>> = BTreeMap::new();
    for candidate in pool.candidates {
        if let Some(picture) = pictures.get(candidate.picture) {
            let collection = collections.entry(&picture.collection);
            collection.or_default().push(candidate);
        }
    }
    let mut queues: Vec<(&str, Queue<'_>)> = collections
        .into_iter()
        .map(|(name, candidates)| {
            let queue = Queue::new(task, name, candidates, pictures, rules);
            (name, queue)
        })
        .collect();
    // By turns, until there are enough or nobody has more.
    let mut count = 0;
    let mut open = true;
    while open && count < target {
        open = false;
        for (_, queue) in &mut queues {
            if count < target && queue.take() {
                count += 1;
                open = true;
            }
        }
    }
    for (name, queue) in queues {
        let (chosen, fates) = queue.finish();
        choice.chosen.extend(chosen);
        for (fate, count) in fates {
            *choice.fates.entry((name.to_owned(), fate)).or_default() += count;
        }
    }
    choice
}

/// The candidates of one data set, waiting by answer.
struct Queue<'a> {
    pictures: &'a [Annotated],
    rules: &'a Rules,
    candidates: Vec<Candidate>,
    fates: Vec<Fate>,
    /// Candidates in the order they come up in, by the answer they can have.
    waiting: BTreeMap<String, VecDeque<usize>>,
    /// How often each answer was chosen.
    given: BTreeMap<String, usize>,
    per_picture: BTreeMap<usize, usize>,
    chosen: Vec<Chosen>,
}

impl<'a> Queue<'a> {
    fn new(
        task: Task,
        collection: &str,
        mut candidates: Vec<Candidate>,
        pictures: &'a [Annotated],
        rules: &'a Rules,
    ) -> Self {
        let name = format!("order/{}/{collection}", task.name());
        candidates.shuffle(&mut stream(rules.seed, &name));
        // Every picture once before any of them twice.
        candidates.sort_by_key(|candidate| candidate.rank);
        let mut waiting: BTreeMap<String, VecDeque<usize>> = BTreeMap::new();
        for (index, candidate) in candidates.iter().enumerate() {
            for answer in answers(&candidate.form, pictures.get(candidate.picture)) {
                waiting.entry(answer).or_default().push_back(index);
            }
        }
        Self {
            pictures,
            rules,
            fates: vec![Fate::NotNeeded; candidates.len()],
            candidates,
            given: waiting.keys().map(|answer| (answer.clone(), 0)).collect(),
            waiting,
            per_picture: BTreeMap::new(),
            chosen: Vec::new(),
        }
    }

    /// Chooses one more; `false` if there is none.
    fn take(&mut self) -> bool {
        loop {
            let total = self.chosen.len();
            let open = self.waiting.iter().filter(|(_, queue)| !queue.is_empty());
            let least = open.min_by_key(|(answer, _)| self.given.get(*answer).copied());
            let Some(answer) = least.map(|(answer, _)| answer.clone()) else {
                return false;
            };
            let times = self.given.get(&answer).copied().unwrap_or(0) + 1;
            let limit = self.limit(total + 1);
            if times > limit {
                self.give_up();
                return false;
            }
            let queue = self.waiting.get_mut(&answer);
            let Some(index) = queue.and_then(VecDeque::pop_front) else {
                return false;
            };
            if self.accept(index, &answer) {
                return true;
            }
        }
    }

    /// How often one answer may be given among so many questions: never less than an even share.
    fn limit(&self, total: usize) -> usize {
        let even = 1.0 / self.given.len().max(1) as f64;
        let share = self.rules.max_answer_share.max(even);
        (share * total as f64).ceil() as usize
    }

    fn accept(&mut self, index: usize, answer: &str) -> bool {
        let (Some(candidate), Some(fate)) = (self.candidates.get(index), self.fates.get_mut(index))
        else {
            return false;
        };
        // It may wait under several answers.
        if *fate != Fate::NotNeeded {
            return false;
        }
        let used = self.per_picture.entry(candidate.picture).or_default();
        if *used >= self.rules.per_picture {
            *fate = Fate::PictureLimit;
            return false;
        }
        *used += 1;
        *fate = Fate::Chosen;
        *self.given.entry(answer.to_owned()).or_default() += 1;
        self.chosen.push(Chosen {
            picture: candidate.picture,
            form: settled(&candidate.form, answer),
            answer: answer.to_owned(),
        });
        true
    }

    /// What still waits has an answer that was given too often, or is one of a full picture.
    fn give_up(&mut self) {
        for (candidate, fate) in self.candidates.iter().zip(&mut self.fates) {
            if *fate == Fate::NotNeeded {
                let used = self.per_picture.get(&candidate.picture).copied();
                *fate = match used.unwrap_or(0) >= self.rules.per_picture {
                    true => Fate::PictureLimit,
                    false => Fate::Unbalanced,
                };
            }
        }
        self.waiting.clear();
    }

    fn finish(mut self) -> (Vec<Chosen>, BTreeMap<Fate, usize>) {
        let mut fates = BTreeMap::new();
        for fate in self.fates {
            *fates.entry(fate).or_default() += 1;
        }
        let pictures = self.pictures;
        let name = |chosen: &Chosen| pictures.get(chosen.picture).map(|picture| &picture.name);
        self.chosen.sort_by(|a, b| name(a).cmp(&name(b)));
        (self.chosen, fates)
    }
}

/// The answers that a candidate can have. Where both things are the only ones of their class, their
/// roles are free, and with them the side.
fn answers(form: &Form, picture: Option<&Annotated>) -> Vec<String> {
    let class = |index: usize| {
        let instance = picture.and_then(|picture| picture.instances.get(index));
        instance.map(|instance| instance.class.clone())
    };
    match form {
        Form::Count { count, .. } => vec![count.to_string()],
        Form::Relation { answers, boxed, .. } => {
            let mut sides: Vec<Side> = answers.clone();
            if !boxed {
                sides.extend(answers.iter().map(|side| side.opposite()));
            }
            sides.iter().map(|side| side.name().to_owned()).collect()
        }
        Form::Depth { near, .. } | Form::Distance { near, .. } => {
            class(*near).into_iter().collect()
        }
    }
}

/// A form whose roles give this answer.
fn settled(form: &Form, answer: &str) -> Form {
    match form {
        Form::Relation {
            first,
            second,
            answers,
            boxed,
        } => {
            let direct = answers.iter().any(|side| side.name() == answer);
            let (first, second) = if direct {
                (*first, *second)
            } else {
                (*second, *first)
            };
            let side = |side: &Side| if direct { *side } else { side.opposite() };
            let answers = answers.iter().map(side);
            Form::Relation {
                first,
                second,
                answers: answers.filter(|side| side.name() == answer).collect(),
                boxed: *boxed,
            }
        }
        other => other.clone(),
    }
}
