//! Listings: all parts of a picture in random order, each with all that is known about it.
//!
//! In a caption things come from left to right, and a decoder that follows them never has to find a
//! thing by what it is called. In a random order the first word about a thing cannot be known, and
//! all others follow from it: *large blue metal ball (5, 4, 2)* asks four times which thing is meant.
//! That is what questions about a named thing need, said much more often than they can ask it.

use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::caption::{MEASURES, caption, instruction, measure, measures};
use crate::question::refer::single_out;
use crate::question::spatial::{between, named, pairs, relations};
use crate::question::wording::{capital, number, ordinal};
use crate::truth::{Chart, Colour, Document, Object, Scene, Truth};

/// Most listings of a picture, each in another order.
const LISTINGS: usize = 3;
/// Parts that all listings of a picture name together, about; there is one listing at least.
const PARTS: usize = 12;
/// Things of a scene that are described one by one, at most.
const DESCRIBED: usize = 5;
/// Pairs of things that are compared, at most.
const COMPARED: usize = 4;
/// Pairs of things whose distance is told, at most.
const MEASURED: usize = 2;
/// Things that are compared with the middle of the picture, at most.
const PLACED: usize = 3;
/// What lies within this share of the picture around its middle is on neither side of it.
const MIDDLE: f64 = 0.2;

const ENTRIES: [&str; 3] = [
    "List what is in the chart.",
    "Read out the chart.",
    "Which values does the chart show?",
];
const TEXTS: [&str; 3] = [
    "List all that is written.",
    "Read out the picture.",
    "What is written where?",
];
const COMPARE: [&str; 3] = [
    "Compare {x} with {y}.",
    "How does {x} stand to {y}?",
    "Where is {x}, seen from {y}?",
];
const HOW_FAR: [&str; 3] = [
    "How far is {x} from {y}?",
    "How far apart are {x} and {y}?",
    "What is the distance between {x} and {y}?",
];
const ASK: [&str; 4] = [
    "Describe {x}.",
    "Tell me about {x}.",
    "What is {x} like?",
    "Say all about {x}.",
];

/// Requests and what is said: some listings, and things of a scene one by one.
pub fn listings(truth: &Truth, random: &mut ChaCha8Rng) -> Vec<(String, String)> {
    let mut said = Vec::new();
    for _ in 0..(PARTS / parts(truth).max(1)).clamp(1, LISTINGS) {
        let new = listing(truth, random);
        if said.iter().all(|(_, old)| *old != new.1) {
            said.push(new);
        }
    }
    if let Truth::Scene(scene) = truth
        && !scene.close_up
    {
        let mut objects: Vec<&Object> = scene.objects.iter().collect();
        objects.shuffle(random);
        for object in objects.into_iter().take(DESCRIBED) {
            said.extend(described(scene, object, random));
        }
    }
    said
}

/// How things of a scene stand to the middle of the picture, and to each other: one or two by their names, and
/// all that is clear about how the first stands to the second. To say how two things stand to each other both
/// must be found; the middle is always in one place. And how far two things are from each other, in half
/// metres: which of two is nearer to a third takes two such distances.
pub fn comparisons(truth: &Truth, random: &mut ChaCha8Rng) -> Vec<(String, String)> {
    match truth {
        Truth::Scene(scene) if !scene.close_up => {
            let mut said = placed(scene, random);
            said.extend(compared(scene, random));
            said.extend(distances(scene, random));
            said
        }
        _ => Vec::new(),
    }
}

/// How many parts a listing names.
fn parts(truth: &Truth) -> usize {
    match truth {
        Truth::Scene(scene) => scene.objects.len(),
        Truth::Chart(chart) => chart.entries.len(),
        Truth::Document(Document::Word { .. }) => 1,
        Truth::Document(Document::Lines { lines }) => lines.len(),
        Truth::Document(Document::Labels { labels }) => labels.len(),
        Truth::Document(Document::Table { rows, .. }) => rows.len(),
    }
}

/// One listing in random order; a caption of what has no parts.
fn listing(truth: &Truth, random: &mut ChaCha8Rng) -> (String, String) {
    let (requests, mut items, between): (&[&str], Vec<String>, &str) = match truth {
        Truth::Scene(scene) if !scene.close_up => {
            let mut objects: Vec<&Object> = scene.objects.iter().collect();
            objects.shuffle(random);
            return (request(&MEASURES, random), measures(scene, &objects));
        }
        Truth::Chart(chart) => (&ENTRIES, entries(chart), ", "),
        Truth::Document(Document::Lines { lines }) => {
            let lines = lines.iter().enumerate();
            let say = |(i, line): (usize, &String)| format!("{} line \"{line}\"", ordinal(i));
            (&TEXTS, lines.map(say).collect(), ", ")
        }
        Truth::Document(Document::Labels { labels }) => {
            let say =
                |(colour, text): &(Colour, String)| format!("{} label \"{text}\"", colour.name());
            (&TEXTS, labels.iter().map(say).collect(), ", ")
        }
        Truth::Document(Document::Table { rows, .. }) => {
            let say = |(name, numbers): &(String, Vec<u32>)| {
                let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
                format!("{name}: {}", numbers.join(", "))
            };
            (&TEXTS, rows.iter().map(say).collect(), "; ")
        }
        other => return (instruction(random).to_owned(), caption(other, random)),
    };
    let count = capital(&number(items.len()));
    items.shuffle(random);
    (
        request(requests, random),
        format!("{count}: {}.", items.join(between)),
    )
}

/// Name, colour and value of each entry, the value where it can be read.
fn entries(chart: &Chart) -> Vec<String> {
    let readable = chart.shows_values();
    let say = |(name, colour, value): &(String, Colour, u32)| match readable {
        true => format!("{name} ({}) {value}", colour.name()),
        false => format!("{name} ({})", colour.name()),
    };
    chart.entries.iter().map(say).collect()
}

/// A thing by a name that fits it alone, and all about it.
fn described(scene: &Scene, object: &Object, random: &mut ChaCha8Rng) -> Option<(String, String)> {
    let name = single_out(scene, object, None, random)?;
    let asked = request(&ASK, random).replace("{x}", &name.the());
    Some((asked, measure(scene, object)))
}

fn placed(scene: &Scene, random: &mut ChaCha8Rng) -> Vec<(String, String)> {
    let mut objects: Vec<&Object> = scene.objects.iter().collect();
    objects.shuffle(random);
    let mut said = Vec::new();
    for object in objects {
        if said.len() == PLACED {
            break;
        }
        let seen = &object.box2d;
        let side = |sum: f64, length: u32, words: [&'static str; 2]| {
            let off = sum / 2.0 / f64::from(length.max(1)) - 0.5;
            (off.abs() > MIDDLE / 2.0).then_some(words[usize::from(off > 0.0)])
        };
        let sides: Vec<&str> = [
            side(seen.left + seen.right, scene.width, ["left", "right"]),
            side(seen.top + seen.bottom, scene.height, ["above", "below"]),
        ]
        .into_iter()
        .flatten()
        .collect();
        if sides.is_empty() {
            continue;
        }
        if let Some(name) = single_out(scene, object, None, random) {
            let asked = request(&COMPARE, random).replace("{x}", &name.the());
            let asked = asked.replace("{y}", "the middle of the picture");
            said.push((asked, sides.join(", ")));
        }
    }
    said
}

fn compared(scene: &Scene, random: &mut ChaCha8Rng) -> Vec<(String, String)> {
    let clear = |a: &Object, b: &Object| {
        let relations = relations(scene, a, b);
        (!relations.is_empty()).then(|| relations.join(", "))
    };
    about_pairs(scene, COMPARED, &COMPARE, &clear, random)
}

fn distances(scene: &Scene, random: &mut ChaCha8Rng) -> Vec<(String, String)> {
    let metres = |a: &Object, b: &Object| {
        let metres = (between(a, b) * 2.0).round() / 2.0;
        Some(format!("{metres:.1} m"))
    };
    about_pairs(scene, MEASURED, &HOW_FAR, &metres, random)
}

/// Requests about at most so many pairs that can be named and have an answer.
fn about_pairs(
    scene: &Scene,
    most: usize,
    requests: &[&str],
    answer: &dyn Fn(&Object, &Object) -> Option<String>,
    random: &mut ChaCha8Rng,
) -> Vec<(String, String)> {
    let mut pairs = pairs(scene);
    pairs.shuffle(random);
    let mut said = Vec::new();
    for (a, b) in pairs {
        if said.len() == most {
            break;
        }
        let Some(answer) = answer(a, b) else { continue };
        if let Some([(_, a), (_, b)]) = named(scene, a, b, random) {
            let asked = request(requests, random).replace("{x}", &a.the());
            said.push((asked.replace("{y}", &b.the()), answer));
        }
    }
    said
}

fn request(of: &[&str], random: &mut ChaCha8Rng) -> String {
    of.choose(random).copied().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::picture::{PictureOptions, Subject, draw};
    use crate::question::tests::{object, scene};
    use crate::stream::stream;
    use crate::truth::Shape;

    fn balls() -> Scene {
        scene(vec![
            object(Shape::Cube, Colour::Blue, 2.0),
            object(Shape::Ball, Colour::Red, -2.0),
        ])
    }

    #[test]
    fn both_orders_of_two_things_come_up() {
        let truth = Truth::Scene(balls());
        let (red, blue) = ("red rubber ball (1, 4, 2)", "blue rubber cube (8, 4, 2)");
        let found: BTreeSet<String> = (0..20)
            .map(|seed| listing(&truth, &mut stream(seed, "test", 0)).1)
            .collect();
        let wanted = [format!("{red}, {blue}"), format!("{blue}, {red}")];
        let wanted = wanted.map(|items| format!("{}{items}.", crate::caption::MEASURED));
        assert_eq!(found, wanted.into());
    }

    #[test]
    fn a_thing_is_described_by_all_that_is_known() {
        let truth = Truth::Scene(balls());
        let mut said = listings(&truth, &mut stream(3, "test", 0));
        let compared = comparisons(&truth, &mut stream(3, "test", 0));
        let (placed, compared): (Vec<_>, Vec<_>) = compared
            .into_iter()
            .partition(|(asked, _)| asked.contains("the middle of the picture"));
        let (measured, compared): (Vec<_>, Vec<_>) = compared
            .into_iter()
            .partition(|(_, answer)| answer.ends_with(" m"));
        assert_eq!((placed.len(), compared.len(), measured.len()), (2, 2, 2));
        // Two metres on either side of the middle.
        assert!(measured.iter().all(|(_, answer)| answer == "4.0 m"));
        for (asked, answer) in placed {
            let ball = asked.contains("red") || asked.contains("ball");
            assert_eq!(answer, if ball { "left" } else { "right" }, "{asked}");
        }
        for (asked, answer) in compared {
            let first = |words: [&str; 2]| words.iter().filter_map(|w| asked.find(w)).min();
            let ball = first(["red", "ball"]) < first(["blue", "cube"]);
            assert_eq!(answer, if ball { "left" } else { "right" }, "{asked}");
        }
        said.retain(|(asked, _)| !MEASURES.contains(&asked.as_str()));
        assert_eq!(said.len(), 2);
        for (asked, answer) in said {
            let (name, all) = match asked.contains("cube") || asked.contains("blue") {
                true => (["blue", "cube"], "blue rubber cube (8, 4, 2)"),
                false => (["red", "ball"], "red rubber ball (1, 4, 2)"),
            };
            assert!(name.iter().any(|word| asked.contains(word)), "{asked}");
            assert_eq!(answer, all, "{asked}");
        }
    }

    /// Whatever a picture shows, its listings differ and name every part.
    #[test]
    fn every_part_is_listed() {
        let options = PictureOptions {
            side: 64,
            ..PictureOptions::default()
        };
        for subject in Subject::ALL {
            for seed in 0..20 {
                let truth = draw(seed, subject, &options).truth;
                let said = listings(&truth, &mut stream(seed, "test", 1));
                let different: BTreeSet<&(String, String)> = said.iter().collect();
                assert!(!said.is_empty(), "{truth:?}");
                assert_eq!(different.len(), said.len(), "{said:?}");
                let names: Vec<String> = match &truth {
                    Truth::Scene(scene) => {
                        let name = |o: &Object| o.colour.name().to_owned();
                        scene.objects.iter().map(name).collect()
                    }
                    Truth::Chart(chart) => chart
                        .entries
                        .iter()
                        .map(|(name, ..)| name.clone())
                        .collect(),
                    Truth::Document(Document::Word { text }) => vec![text.clone()],
                    Truth::Document(Document::Lines { lines }) => lines.clone(),
                    Truth::Document(Document::Labels { labels }) => {
                        labels.iter().map(|(_, text)| text.clone()).collect()
                    }
                    Truth::Document(Document::Table { rows, .. }) => {
                        rows.iter().map(|(name, _)| name.clone()).collect()
                    }
                };
                for name in names {
                    assert!(said[0].1.contains(&name), "{name}: {said:?}");
                }
            }
        }
    }
}
