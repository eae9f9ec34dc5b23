//! Where things are: in the picture, before the camera, and from one another.
//!
//! Three tasks, and the ways of asking, are those of CV-Bench (Cambrian-1, section 3.2). Every
//! comparison has a margin, so that nobody has to guess: [`PICTURE_MARGIN`], [`DEPTH_MARGIN`],
//! [`DISTANCE_RATIO`]. The fourth asks for the numbers that the others compare.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::refer::{Description, single_out};
use super::wording::{capital, phrase, yes_no};
use super::{Question, Task};
use crate::caption::place_in_numbers;
use crate::truth::{Box2d, Object, Scene};

/// Least distance of box centres along an axis, as a share of the picture's side.
pub const PICTURE_MARGIN: f64 = 0.08;
/// Most overlap of two boxes, as a share of the smaller one.
pub const OVERLAP: f64 = 0.25;
/// Least difference of two depths, as a share of the smaller one.
pub const DEPTH_MARGIN: f64 = 0.15;
/// Least ratio of two distances in space.
pub const DISTANCE_RATIO: f64 = 1.3;

pub(super) fn ask(task: Task, scene: &Scene, random: &mut ChaCha8Rng) -> Option<Question> {
    match task {
        Task::Spatial => spatial(scene, random),
        Task::Depth => depth(scene, random),
        Task::Distance => distance(scene, random),
        Task::Place => place(scene, random),
        _ => None,
    }
}

/// How one object stands to another, as far as it is clear: *left*, *above*, *closer* and their opposites.
pub(crate) fn relations(scene: &Scene, a: &Object, b: &Object) -> Vec<&'static str> {
    let ((ax, ay), (bx, by)) = (centre(&a.box2d), centre(&b.box2d));
    let clear = |difference: f64, margin: f64| difference.abs() >= margin;
    let choose = |first: bool, words: [&'static str; 2]| words[usize::from(!first)];
    let mut said = Vec::new();
    if clear(ax - bx, PICTURE_MARGIN * f64::from(scene.width)) {
        said.push(choose(ax < bx, LEFT_RIGHT.map(|direction| direction.word)));
    }
    if clear(ay - by, PICTURE_MARGIN * f64::from(scene.height)) {
        said.push(choose(ay < by, ABOVE_BELOW.map(|direction| direction.word)));
    }
    if clear(a.depth - b.depth, DEPTH_MARGIN * a.depth.min(b.depth)) {
        said.push(choose(a.depth < b.depth, ["closer", "farther"]));
    }
    said
}

/// A direction in the picture.
#[derive(Clone, Copy)]
struct Direction {
    /// `left`.
    word: &'static str,
    /// `to the left of`.
    relation: &'static str,
}

const LEFT_RIGHT: [Direction; 2] = [
    Direction {
        word: "left",
        relation: "to the left of",
    },
    Direction {
        word: "right",
        relation: "to the right of",
    },
];
const ABOVE_BELOW: [Direction; 2] = [
    Direction {
        word: "above",
        relation: "above",
    },
    Direction {
        word: "below",
        relation: "below",
    },
];

/// Two objects that can be named and satisfy a condition, in random order.
fn pair<'a>(
    scene: &'a Scene,
    condition: impl Fn(&Object, &Object) -> bool,
    random: &mut ChaCha8Rng,
) -> Option<[(&'a Object, Description); 2]> {
    let mut pairs = pairs(scene);
    pairs.retain(|(a, b)| condition(a, b));
    pairs.shuffle(random);
    pairs
        .into_iter()
        .find_map(|(a, b)| named(scene, a, b, random))
}

/// All objects with all others, both ways.
pub(crate) fn pairs(scene: &Scene) -> Vec<(&Object, &Object)> {
    let objects = || scene.objects.iter().enumerate();
    let others = |i: usize| objects().filter(move |(j, _)| i != *j);
    objects()
        .flat_map(|(i, a)| others(i).map(move |(_, b)| (a, b)))
        .collect()
}

/// Two objects with names, if both can be named.
pub(crate) fn named<'a>(
    scene: &'a Scene,
    a: &'a Object,
    b: &'a Object,
    random: &mut ChaCha8Rng,
) -> Option<[(&'a Object, Description); 2]> {
    let name_a = single_out(scene, a, None, random)?;
    let name_b = single_out(scene, b, None, random)?;
    Some([(a, name_a), (b, name_b)])
}

fn spatial(scene: &Scene, random: &mut ChaCha8Rng) -> Option<Question> {
    let horizontal = random.random_bool(0.6);
    let side = f64::from(if horizontal {
        scene.width
    } else {
        scene.height
    });
    let position = |object: &Object| {
        let (x, y) = centre(&object.box2d);
        if horizontal { x } else { y }
    };
    let clear = |a: &Object, b: &Object| {
        (position(a) - position(b)).abs() >= PICTURE_MARGIN * side
            && overlap(&a.box2d, &b.box2d) <= OVERLAP
    };
    let [(a, name_a), (b, name_b)] = pair(scene, clear, random)?;
    let [before, after] = if horizontal { LEFT_RIGHT } else { ABOVE_BELOW };
    let (right, wrong) = if position(a) < position(b) {
        (before, after)
    } else {
        (after, before)
    };
    let (the_a, the_b) = (name_a.the(), name_b.the());
    let stated = format!("{the_a} is {} {the_b}", right.relation);
    if random.random_bool(0.4) {
        return Some(spatial_check(&the_a, &the_b, right, wrong, &stated, random));
    }
    let mut offered = [right, wrong];
    offered.shuffle(random);
    let templates: &[&str] = if horizontal {
        &[
            "Is {a} to the {p} or to the {q} of {b}?",
            "Is {a} on the {p} or on the {q} of {b}?",
            "Is {a} {p} or {q} of {b} in the picture?",
            "On which side of {b} is {a}, {p} or {q}?",
            "Where is {a} with respect to {b}, {p} or {q}?",
        ]
    } else {
        &[
            "Is {a} {p} or {q} {b}?",
            "Is {a} {p} or {q} {b} in the picture?",
            "In the image, is {a} {p} or {q} {b}?",
            "Where is {a} with respect to {b}, {p} or {q}?",
        ]
    };
    let values = [
        ("a", the_a.as_str()),
        ("b", the_b.as_str()),
        ("p", offered[0].word),
        ("q", offered[1].word),
    ];
    let text = phrase(templates, &values, random);
    let sentence = format!("{}.", capital(&stated));
    let question = Question::new(Task::Spatial, text, right.word, sentence);
    Some(
        question
            .one_of(2)
            .offering(offered.map(|direction| direction.word)),
    )
}

/// Is it there? Yes or no.
fn spatial_check(
    the_a: &str,
    the_b: &str,
    right: Direction,
    wrong: Direction,
    stated: &str,
    random: &mut ChaCha8Rng,
) -> Question {
    let yes = random.random_bool(0.5);
    let said = if yes { right } else { wrong };
    let templates = [
        "Is {a} {relation} {b}?",
        "Is {a} {relation} {b} in the picture?",
        "Can {a} be seen {relation} {b}?",
        "In this image, is {a} {relation} {b}?",
    ];
    let values = [("a", the_a), ("b", the_b), ("relation", said.relation)];
    let text = phrase(&templates, &values, random);
    let sentence = format!("{}, {stated}.", capital(yes_no(yes)));
    Question::new(Task::Spatial, text, yes_no(yes), sentence).one_of(2)
}

fn depth(scene: &Scene, random: &mut ChaCha8Rng) -> Option<Question> {
    let clear =
        |a: &Object, b: &Object| (a.depth - b.depth).abs() >= DEPTH_MARGIN * a.depth.min(b.depth);
    let [(a, name_a), (b, name_b)] = pair(scene, clear, random)?;
    let (near, far) = if a.depth < b.depth {
        (name_a, name_b)
    } else {
        (name_b, name_a)
    };
    if random.random_bool(0.35) {
        return Some(depth_check(&name_a, &name_b, near == name_a, random));
    }
    let nearer = random.random_bool(0.6);
    let templates: &[&str] = if nearer {
        &[
            "Which object is closer to the camera, {a} or {b}?",
            "Which is closer to the camera taking this picture, {a} or {b}?",
            "Which one is nearer, {a} or {b}?",
            "Is {a} or {b} closer to the camera?",
        ]
    } else {
        &[
            "Which object is farther from the camera, {a} or {b}?",
            "Which is further away from the camera, {a} or {b}?",
            "Which one is farther away, {a} or {b}?",
            "Is {a} or {b} farther from the camera?",
        ]
    };
    let values = [("a", name_a.the()), ("b", name_b.the())];
    let text = phrase(templates, &values, random);
    let (answer, other) = if nearer { (near, far) } else { (far, near) };
    let relation = if nearer { "closer to" } else { "farther from" };
    let sentence = format!(
        "{} is {relation} the camera than {}.",
        capital(&answer.the()),
        other.the()
    );
    let question = Question::new(Task::Depth, text, answer.singular(), sentence);
    Some(
        question
            .one_of(2)
            .offering([name_a.singular(), name_b.singular()]),
    )
}

/// Is the first closer, or farther? Yes or no.
fn depth_check(
    a: &Description,
    b: &Description,
    a_is_nearer: bool,
    random: &mut ChaCha8Rng,
) -> Question {
    let asked_nearer = random.random_bool(0.5);
    let yes = asked_nearer == a_is_nearer;
    let templates: &[&str] = if asked_nearer {
        &[
            "Is {a} closer to the camera than {b}?",
            "Is {a} nearer than {b}?",
            "Is {a} in front of {b}, closer to the camera?",
            "Does {a} stand closer to the camera than {b}?",
        ]
    } else {
        &[
            "Is {a} farther from the camera than {b}?",
            "Is {a} further away than {b}?",
            "Is {a} behind {b}, farther from the camera?",
            "Does {a} stand farther from the camera than {b}?",
        ]
    };
    let text = phrase(templates, &[("a", a.the()), ("b", b.the())], random);
    let relation = if a_is_nearer {
        "closer to"
    } else {
        "farther from"
    };
    let sentence = format!(
        "{}, {} is {relation} the camera than {}.",
        capital(yes_no(yes)),
        a.the(),
        b.the()
    );
    Question::new(Task::Depth, text, yes_no(yes), sentence).one_of(2)
}

fn distance(scene: &Scene, random: &mut ChaCha8Rng) -> Option<Question> {
    let mut anchors: Vec<&Object> = scene.objects.iter().collect();
    anchors.shuffle(random);
    let (anchor, [(a, name_a), (b, name_b)]) = anchors.into_iter().find_map(|anchor| {
        let anchor_name = single_out(scene, anchor, None, random)?;
        let clear = |a: &Object, b: &Object| {
            let (to_a, to_b) = (between(anchor, a), between(anchor, b));
            to_a.min(to_b) > 0.0 && to_a.max(to_b) >= DISTANCE_RATIO * to_a.min(to_b)
        };
        let others = pair(scene, clear, random)?;
        Some(((anchor, anchor_name), others))
    })?;
    let (near, far) = if between(anchor.0, a) < between(anchor.0, b) {
        (name_a, name_b)
    } else {
        (name_b, name_a)
    };
    let nearer = random.random_bool(0.7);
    let templates: &[&str] = if nearer {
        &[
            "Which object is closer to {x}, {a} or {b}?",
            "Which is nearer to {x}, {a} or {b}?",
            "Is {a} or {b} closer to {x}?",
            "Of {a} and {b}, which one is closer to {x}?",
        ]
    } else {
        &[
            "Which object is farther from {x}, {a} or {b}?",
            "Which is further away from {x}, {a} or {b}?",
            "Is {a} or {b} farther from {x}?",
            "Of {a} and {b}, which one is farther from {x}?",
        ]
    };
    let the_anchor = anchor.1.the();
    let values = [
        ("x", the_anchor.clone()),
        ("a", name_a.the()),
        ("b", name_b.the()),
    ];
    let text = phrase(templates, &values, random);
    let (answer, other) = if nearer { (near, far) } else { (far, near) };
    let relation = if nearer { "closer to" } else { "farther from" };
    let sentence = format!(
        "{} is {relation} {the_anchor} than {} is.",
        capital(&answer.the()),
        other.the()
    );
    let question = Question::new(Task::Distance, text, answer.singular(), sentence);
    Some(
        question
            .one_of(2)
            .offering([name_a.singular(), name_b.singular()]),
    )
}

fn place(scene: &Scene, random: &mut ChaCha8Rng) -> Option<Question> {
    let mut objects: Vec<&Object> = scene.objects.iter().collect();
    objects.shuffle(random);
    let (object, name) = objects
        .into_iter()
        .find_map(|object| Some((object, single_out(scene, object, None, random)?)))?;
    let templates = [
        "Where is {a}? Say across, down and order.",
        "Give the place of {a} in numbers.",
        "At which coordinates is {a}?",
        "Measure {a}.",
    ];
    let text = phrase(&templates, &[("a", name.the())], random);
    let place = place_in_numbers(scene, object);
    let sentence = format!("{} is at {place}.", capital(&name.the()));
    Some(Question::new(Task::Place, text, place, sentence))
}

fn centre(box2d: &Box2d) -> (f64, f64) {
    (
        (box2d.left + box2d.right) / 2.0,
        (box2d.top + box2d.bottom) / 2.0,
    )
}

/// Area that two boxes share, as a share of the smaller one.
fn overlap(a: &Box2d, b: &Box2d) -> f64 {
    let width = (a.right.min(b.right) - a.left.max(b.left)).max(0.0);
    let height = (a.bottom.min(b.bottom) - a.top.max(b.top)).max(0.0);
    let area = |r: &Box2d| (r.right - r.left) * (r.bottom - r.top);
    width * height / area(a).min(area(b)).max(1.0)
}

/// Metres between two centres.
pub(crate) fn between(a: &Object, b: &Object) -> f64 {
    let squares = a
        .centre
        .iter()
        .zip(b.centre)
        .map(|(p, q)| (p - q) * (p - q));
    squares.sum::<f64>().sqrt()
}
