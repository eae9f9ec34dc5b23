//! Everything that could be asked, and why most of it is not.
//!
//! A candidate is a picture and what would be asked about it: a class (Count), a pair of classes
//! (Relation), a pair of objects (Depth), an object and a pair (Distance). Each passes its filters in a
//! fixed order and is dropped by the first that it fails, or is left for the choice
//! ([`crate::select`]). Of one picture only so many are kept that the choice stays free.

mod count;
mod depth;
mod distance;
mod relation;

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::SliceRandom;
use rayon::prelude::*;

use crate::geometry::Box2;
use crate::question::Task;
use crate::rules::{ObjectRules, Rules};
use crate::select::Fate;
use crate::source::{Annotated, Family, Instance, head_noun};
use crate::stream::stream;

/// Candidates of one task that are kept of one picture; the rest has the fate
/// [`Fate::PictureLimit`]. Far more than are asked.
const KEPT: usize = 32;

/// Something that could be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Which picture of the corpus.
    pub picture: usize,
    /// Its place among the candidates of its picture and task, drawn by chance.
    pub rank: usize,
    /// What would be asked.
    pub form: Form,
}

/// What would be asked. Objects are places among the picture's instances.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// How many of a class there are.
    Count {
        /// The class.
        class: String,
        /// How many.
        count: usize,
        /// Square pixels of the smallest of them.
        smallest: Option<f64>,
    },
    /// Which side of `second` `first` is on.
    Relation {
        /// What is asked about.
        first: usize,
        /// What it is compared with.
        second: usize,
        /// The clear answers, from left or right and above or below.
        answers: Vec<Side>,
        /// Whether the first needs a box, as there are others of its class.
        boxed: bool,
    },
    /// Which of two is closer to the camera.
    Depth {
        /// The closer one.
        near: usize,
        /// The other.
        far: usize,
    },
    /// Which of two is closer to a third.
    Distance {
        /// The third.
        anchor: usize,
        /// The closer one.
        near: usize,
        /// The other.
        far: usize,
    },
}

/// Where something is with respect to something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "plain words")]
pub enum Side {
    Left,
    Right,
    Above,
    Below,
}

impl Side {
    /// In a question.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
            Self::Above => "above",
            Self::Below => "below",
        }
    }

    /// Seen from the other thing.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
            Self::Above => Self::Below,
            Self::Below => Self::Above,
        }
    }
}

/// The candidates of one task, and what became of the others.
#[derive(Debug, Default)]
pub struct Pool {
    /// Those that may be asked.
    pub candidates: Vec<Candidate>,
    /// How many of each data set were dropped for what reason.
    pub dropped: BTreeMap<(String, Fate), usize>,
}

/// What one picture gives for one task.
type Found = Vec<Result<Form, Fate>>;

/// All candidates of a task, in the order of the pictures.
#[must_use]
pub fn pool(task: Task, pictures: &[Annotated], excluded: &BTreeSet<usize>, rules: &Rules) -> Pool {
    let classes = count::vocabulary(pictures);
    let of_picture = |(index, picture): (usize, &Annotated)| {
        if !is_asked(task, picture.family) || excluded.contains(&index) {
            return Kept::default();
        }
        let scene = Scene::new(picture, rules);
        let found = match task {
            Task::Count => count::candidates(&scene, &classes),
            Task::Relation => relation::candidates(&scene),
            Task::Depth => depth::candidates(&scene),
            Task::Distance => distance::candidates(&scene),
        };
        Kept::of(task, picture, found, rules.seed)
    };
    let kept: Vec<Kept> = pictures.par_iter().enumerate().map(of_picture).collect();
    let mut pool = Pool::default();
    for ((index, kept), picture) in kept.into_iter().enumerate().zip(pictures) {
        for (fate, count) in kept.dropped {
            let dropped = pool.dropped.entry((picture.collection.clone(), fate));
            *dropped.or_default() += count;
        }
        let ranked = kept.forms.into_iter().enumerate();
        pool.candidates.extend(ranked.map(|(rank, form)| Candidate {
            picture: index,
            rank,
            form,
        }));
    }
    pool
}

/// 2D questions are made of COCO and ADE20K, 3D questions of Omni3D.
fn is_asked(task: Task, family: Family) -> bool {
    (task.dimension() == "3D") == (family == Family::Omni3D)
}

/// What is kept of one picture: a few candidates in an order drawn by chance, and numbers.
#[derive(Default)]
struct Kept {
    forms: Vec<Form>,
    dropped: BTreeMap<Fate, usize>,
}

impl Kept {
    fn of(task: Task, picture: &Annotated, found: Found, seed: u64) -> Self {
        let mut kept = Self::default();
        for found in found {
            match found {
                Ok(form) => kept.forms.push(form),
                Err(fate) => *kept.dropped.entry(fate).or_default() += 1,
            }
        }
        let name = format!(
            "pool/{}/{}/{}",
            task.name(),
            picture.collection,
            picture.name
        );
        kept.forms.shuffle(&mut stream(seed, &name));
        if kept.forms.len() > KEPT {
            let more = kept.forms.len() - KEPT;
            *kept.dropped.entry(Fate::PictureLimit).or_default() += more;
            kept.forms.truncate(KEPT);
        }
        kept
    }
}

/// A picture with its objects by class, and the filters that all tasks share.
struct Scene<'a> {
    picture: &'a Annotated,
    rules: &'a Rules,
    classes: BTreeMap<&'a str, Vec<usize>>,
    /// Pairs of classes, in order, of which one could be taken for the other.
    alike: BTreeSet<(&'a str, &'a str)>,
}

impl<'a> Scene<'a> {
    fn new(picture: &'a Annotated, rules: &'a Rules) -> Self {
        let mut classes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, instance) in picture.instances.iter().enumerate() {
            classes.entry(&instance.class).or_default().push(index);
        }
        let alike = alike(picture, &classes);
        Self {
            picture,
            rules,
            classes,
            alike,
        }
    }

    fn instance(&self, index: usize) -> Option<&'a Instance> {
        self.picture.instances.get(index)
    }

    /// The objects of a class.
    fn of(&self, class: &str) -> Vec<&'a Instance> {
        let members = self.classes.get(class);
        let members = members.into_iter().flatten();
        members.filter_map(|&index| self.instance(index)).collect()
    }

    /// Whether a class is no countable thing.
    fn is_stuff(&self, class: &str) -> bool {
        let class = class.to_lowercase();
        self.rules.objects.exclude.contains(&class)
    }

    /// What is wrong with a class whatever is asked about it.
    fn class_fault(&self, class: &str) -> Option<Fate> {
        if self.is_stuff(class) {
            return Some(Fate::ExcludedClass);
        }
        let members = self.of(class);
        if members.iter().any(|member| member.crowd) {
            return Some(Fate::Crowd);
        }
        if members.iter().any(|member| member.place.is_none()) {
            return Some(Fate::FaultyAnnotation);
        }
        None
    }

    /// Whether a question that names one of two classes could mean the other.
    fn similar(&self, a: &str, b: &str) -> bool {
        !self.alike.is_empty() && self.alike.contains(&(a.min(b), a.max(b)))
    }

    /// What is wrong with the box of an object.
    fn size_fault(&self, place: &Box2) -> Option<Fate> {
        let ObjectRules {
            min_area,
            max_area,
            min_side,
            ..
        } = self.rules.objects;
        let share = self.share(place);
        if share < min_area || place.width().min(place.height()) < min_side {
            return Some(Fate::TooSmall);
        }
        (share > max_area).then_some(Fate::TooLarge)
    }

    /// A box as a share of the picture.
    fn share(&self, place: &Box2) -> f64 {
        place.area() / (f64::from(self.picture.width) * f64::from(self.picture.height))
    }

    /// Whether two boxes are one.
    fn coincide(&self, a: &Box2, b: &Box2) -> bool {
        a.overlap(b) > self.rules.objects.max_overlap
    }

    /// Whether some of these are one object that was annotated twice.
    fn has_duplicates(&self, members: &[&Instance]) -> bool {
        let places: Vec<&Box2> = members
            .iter()
            .filter_map(|member| member.place.as_ref())
            .collect();
        let mut rest = places.iter();
        while let Some(place) = rest.next() {
            if rest.clone().any(|other| self.coincide(place, other)) {
                return true;
            }
        }
        false
    }

    /// Whether an object can be asked about in space; with its box and its solid if so.
    fn solid(&self, instance: &'a Instance) -> Result<(&'a Box2, &'a crate::Solid), Fate> {
        if instance.ignored.is_some() {
            return Err(Fate::Ignored);
        }
        if self.is_stuff(&instance.class) {
            return Err(Fate::ExcludedClass);
        }
        let place = instance.place.as_ref().ok_or(Fate::FaultyAnnotation)?;
        let solid = instance.solid.as_ref().ok_or(Fate::FaultyAnnotation)?;
        match self.size_fault(place) {
            Some(fate) => Err(fate),
            None => Ok((place, solid)),
        }
    }
}

/// Pairs of classes with the same last word, or with a group in common.
fn alike<'a>(
    picture: &'a Annotated,
    classes: &BTreeMap<&'a str, Vec<usize>>,
) -> BTreeSet<(&'a str, &'a str)> {
    let groups = |members: &Vec<usize>| {
        let members = members.iter();
        let members = members.filter_map(|&index| picture.instances.get(index));
        members
            .map(|one| one.group.as_str())
            .collect::<BTreeSet<_>>()
    };
    let known = classes.iter();
    let known = known.map(|(class, members)| (*class, head_noun(class), groups(members)));
    let known: Vec<_> = known.collect();
    let mut alike = BTreeSet::new();
    for (place, (a, noun_a, groups_a)) in known.iter().enumerate() {
        for (b, noun_b, groups_b) in known.iter().skip(place + 1) {
            if noun_a == noun_b || !groups_a.is_disjoint(groups_b) {
                alike.insert((*a, *b));
            }
        }
    }
    alike
}

/// Whether one range of distances ends clearly before another begins.
fn clearly_nearer(near: [f64; 2], far: [f64; 2], metres: f64, share: f64) -> bool {
    let offset = metres.max(share * near[1]);
    near[1] + offset < far[0]
}

#[cfg(test)]
mod tests;
