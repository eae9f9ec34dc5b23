//! How many are there? Zero to six.
//!
//! Most things occur once, so the answer is drawn first, with rare numbers preferred, and then
//! something that occurs so often.

use std::collections::BTreeMap;

use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::refer::{Attribute, Description, shown};
use super::scene::missing;
use super::wording::{capital, phrase, weighted};
use super::{Question, Task, options};
use crate::truth::Scene;

/// Largest number that is asked for.
const MOST: usize = 6;

/// What is counted, and how often.
const COUNTED: [(&[Attribute], u32); 7] = [
    (&[Attribute::Colour, Attribute::Shape], 6),
    (&[Attribute::Shape], 4),
    (&[Attribute::Colour], 4),
    (&[Attribute::Size], 1),
    (&[Attribute::Size, Attribute::Shape], 1),
    (&[Attribute::Material], 1),
    (&[], 2),
];

/// How often a number is wanted where the scene offers it; higher for those that few scenes offer.
const WANTED: [u32; MOST + 1] = [4, 5, 8, 12, 16, 24, 32];

pub(super) fn ask(scene: &Scene, random: &mut ChaCha8Rng) -> Option<Question> {
    let (count, counted) = (0..8).find_map(|_| {
        let attributes = weighted(&COUNTED, random)?;
        if !shown(scene, attributes) {
            return None;
        }
        draw(scene, attributes, random)
    })?;
    let templates = [
        "How many {x} are there?",
        "How many {x} are in the picture?",
        "How many {x} can you see?",
        "Count the {x}.",
        "What is the number of {x} in the image?",
        "How many {x} does the picture show?",
    ];
    let text = phrase(&templates, &[("x", counted.plural())], random);
    let numbered = counted.numbered(count);
    let sentence = match count {
        1 => format!("There is {numbered} in the picture."),
        _ if text.starts_with("Count") => format!("{} are in the picture.", capital(&numbered)),
        _ => format!("There are {numbered} in the picture."),
    };
    let answer = count.to_string();
    let near = count.saturating_sub(2)..=(count + 2).min(MOST);
    let choices = options(&answer, near.map(|n| n.to_string()), 4, random);
    let question = Question::new(Task::Count, text, answer, sentence);
    Some(question.one_of(MOST + 1).offering(choices))
}

/// A number and something described by these attributes that occurs so often.
fn draw(
    scene: &Scene,
    attributes: &[Attribute],
    random: &mut ChaCha8Rng,
) -> Option<(usize, Description)> {
    let mut by_count: BTreeMap<usize, Vec<Description>> = BTreeMap::new();
    for object in &scene.objects {
        let described = Description::of(object, attributes);
        let known = by_count.entry(described.count(scene)).or_default();
        if !known.contains(&described) {
            known.push(described);
        }
    }
    if let Some(absent) = missing(scene, attributes, random) {
        by_count.insert(0, vec![absent]);
    }
    let offered: Vec<(usize, u32)> = by_count
        .keys()
        .filter_map(|&count| Some((count, *WANTED.get(count)?)))
        .collect();
    let count = weighted(&offered, random)?;
    let described = by_count.get(&count)?.choose(random)?;
    Some((count, *described))
}
