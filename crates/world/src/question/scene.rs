//! General questions about a scene: what is there, and what it looks like.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::refer::{Attribute, Description, shown, single_out};
use super::wording::{capital, phrase, weighted, with_article, yes_no};
use super::{Question, Task, options};
use crate::truth::{Colour, Material, Object, Scene, Shape, Size};

pub(super) fn ask(task: Task, scene: &Scene, random: &mut ChaCha8Rng) -> Option<Question> {
    match task {
        Task::Presence => presence(scene, random),
        Task::Colour => colour(scene, random),
        Task::Shape => shape(scene, random),
        Task::Size => size(scene, random),
        Task::Material => material(scene, random),
        Task::Check => check(scene, random),
        _ => None,
    }
}

/// What a question about presence may name, and how often.
const PRESENT: [(&[Attribute], u32); 5] = [
    (&[Attribute::Colour, Attribute::Shape], 6),
    (&[Attribute::Shape], 2),
    (&[Attribute::Colour], 2),
    (&[Attribute::Size, Attribute::Shape], 1),
    (&[Attribute::Material, Attribute::Shape], 1),
];

fn presence(scene: &Scene, random: &mut ChaCha8Rng) -> Option<Question> {
    let yes = random.random_bool(0.5);
    // Another pattern where this scene has, say, every shape and nothing can be missing.
    let found = (0..8).find_map(|_| {
        let attributes = weighted(&PRESENT, random)?;
        if !shown(scene, attributes) {
            return None;
        }
        if yes {
            let object = scene.objects.choose(random)?;
            Some(Description::of(object, attributes))
        } else {
            missing(scene, attributes, random)
        }
    })?;
    let templates = [
        "Is there {a} in the picture?",
        "Does the picture show {a}?",
        "Can you see {a}?",
        "Is {a} visible in the image?",
        "Do you see {a} in this picture?",
        "Is there {a}?",
    ];
    let text = phrase(&templates, &[("a", found.a())], random);
    let sentence = match found.count(scene) {
        0 => format!("No, there is no {} in the picture.", found.singular()),
        1 => format!("Yes, there is {} in the picture.", found.a()),
        n => format!("Yes, there are {} in the picture.", found.numbered(n)),
    };
    Some(Question::new(Task::Presence, text, yes_no(yes), sentence).one_of(2))
}

/// A description of these attributes that fits nothing: half of the time one that nearly fits something.
pub(super) fn missing(
    scene: &Scene,
    attributes: &[Attribute],
    random: &mut ChaCha8Rng,
) -> Option<Description> {
    // Where all colours or shapes are there, only a near miss is left.
    let near = random.random_bool(0.5);
    (0..16).find_map(|attempt| {
        let mut object = scene.objects.choose(random)?.clone();
        let near_miss = near || attempt >= 8;
        for attribute in changed(attributes, near_miss, random) {
            change(&mut object, attribute, random);
        }
        let described = Description::of(&object, attributes);
        (described.count(scene) == 0).then_some(described)
    })
}

/// Which attributes are changed: one for a near miss, else all.
fn changed(attributes: &[Attribute], near_miss: bool, random: &mut ChaCha8Rng) -> Vec<Attribute> {
    if near_miss {
        attributes.choose(random).copied().into_iter().collect()
    } else {
        attributes.to_vec()
    }
}

/// Gives an object another value of an attribute.
fn change(object: &mut Object, attribute: Attribute, random: &mut ChaCha8Rng) {
    match attribute {
        Attribute::Size => {
            object.size = match object.size {
                Size::Small => Size::Large,
                Size::Large => Size::Small,
            }
        }
        Attribute::Material => {
            object.material = match object.material {
                Material::Rubber => Material::Metal,
                Material::Metal => Material::Rubber,
            }
        }
        Attribute::Colour => object.colour = another(&Colour::ALL, object.colour, random),
        Attribute::Shape => object.shape = another(&Shape::ALL, object.shape, random),
    }
}

/// One of `all` that is not `this`.
fn another<T: Copy + PartialEq>(all: &[T], this: T, random: &mut ChaCha8Rng) -> T {
    let others: Vec<T> = all.iter().copied().filter(|&one| one != this).collect();
    others.choose(random).copied().unwrap_or(this)
}

/// A random object that satisfies a condition and can be named without saying `hidden`.
fn nameable<'a>(
    scene: &'a Scene,
    hidden: Attribute,
    condition: impl Fn(&Object) -> bool,
    random: &mut ChaCha8Rng,
) -> Option<(&'a Object, Description)> {
    let mut objects: Vec<&Object> = scene.objects.iter().filter(|o| condition(o)).collect();
    objects.shuffle(random);
    objects.into_iter().find_map(|object| {
        single_out(scene, object, Some(hidden), random).map(|name| (object, name))
    })
}

fn colour(scene: &Scene, random: &mut ChaCha8Rng) -> Option<Question> {
    let (object, name) = nameable(scene, Attribute::Colour, |_| true, random)?;
    let templates = [
        "What color is {x}?",
        "What colour is {x}?",
        "What is the color of {x}?",
        "Which color does {x} have?",
        "{X} has which color?",
    ];
    let text = phrase(&templates, &[("x", name.the())], random);
    let answer = object.colour.name();
    let sentences = ["{X} is {y}.", "{X} in the picture is {y}."];
    let sentence = phrase(
        &sentences,
        &[("x", name.the().as_str()), ("y", answer)],
        random,
    );
    let choices = options(answer, Colour::ALL.map(Colour::name), 4, random);
    let question = Question::new(Task::Colour, text, answer, sentence);
    Some(question.one_of(Colour::ALL.len()).offering(choices))
}

fn shape(scene: &Scene, random: &mut ChaCha8Rng) -> Option<Question> {
    let (object, name) = nameable(scene, Attribute::Shape, |_| true, random)?;
    let templates = [
        "What shape is {x}?",
        "What is the shape of {x}?",
        "Which shape does {x} have?",
        "What kind of thing is {x}?",
        "{X} is what kind of solid?",
    ];
    let text = phrase(&templates, &[("x", name.the())], random);
    let answer = object.shape.name();
    let sentence = format!("{} is {}.", capital(&name.the()), with_article(answer));
    let choices = options(answer, Shape::ALL.map(Shape::name), 4, random);
    let question = Question::new(Task::Shape, text, answer, sentence);
    Some(question.one_of(Shape::ALL.len()).offering(choices))
}

fn size(scene: &Scene, random: &mut ChaCha8Rng) -> Option<Question> {
    if !scene.shows_sizes() {
        return None;
    }
    let wanted = if random.random_bool(0.5) {
        Size::Small
    } else {
        Size::Large
    };
    let (_, name) = nameable(scene, Attribute::Size, |o| o.size == wanted, random)?;
    let templates = [
        "Is {x} {one} or {other}?",
        "What size is {x}, {one} or {other}?",
        "How big is {x}: {one} or {other}?",
        "Would you say that {x} is {one} or {other}?",
    ];
    either(
        Task::Size,
        &templates,
        &name,
        ["small", "large"],
        wanted.name(),
        random,
    )
}

fn material(scene: &Scene, random: &mut ChaCha8Rng) -> Option<Question> {
    let wanted = if random.random_bool(0.5) {
        Material::Rubber
    } else {
        Material::Metal
    };
    let (_, name) = nameable(scene, Attribute::Material, |o| o.material == wanted, random)?;
    let templates = [
        "Is {x} made of {one} or {other}?",
        "What is {x} made of, {one} or {other}?",
        "Which material is {x}: {one} or {other}?",
        "Does {x} look like {one} or like {other}?",
    ];
    let answer = wanted.name();
    let mut question = either(
        Task::Material,
        &templates,
        &name,
        ["rubber", "metal"],
        answer,
        random,
    )?;
    question.sentence = format!("{} is made of {answer}.", capital(&name.the()));
    Some(question)
}

/// A question with two words to choose from, in random order.
fn either(
    task: Task,
    templates: &[&str],
    name: &Description,
    mut words: [&str; 2],
    answer: &str,
    random: &mut ChaCha8Rng,
) -> Option<Question> {
    words.shuffle(random);
    let the = name.the();
    let values = [("x", the.as_str()), ("one", words[0]), ("other", words[1])];
    let text = phrase(templates, &values, random);
    let sentence = format!("{} is {answer}.", capital(&the));
    Some(
        Question::new(task, text, answer, sentence)
            .one_of(2)
            .offering(words),
    )
}

/// Is it this colour, is it this shape?
fn check(scene: &Scene, random: &mut ChaCha8Rng) -> Option<Question> {
    let yes = random.random_bool(0.5);
    let about_colour = random.random_bool(0.6);
    let hidden = if about_colour {
        Attribute::Colour
    } else {
        Attribute::Shape
    };
    let (object, name) = nameable(scene, hidden, |_| true, random)?;
    let the = name.the();
    let (truth, said, templates): (String, String, &[&str]) = if about_colour {
        let said = if yes {
            object.colour
        } else {
            another_seen_colour(scene, object, random)
        };
        (
            object.colour.name().to_owned(),
            said.name().to_owned(),
            &[
                "Is {x} {y}?",
                "Is the color of {x} {y}?",
                "Would you call {x} {y}?",
                "{X} is {y}, right?",
            ],
        )
    } else {
        let said = if yes {
            object.shape
        } else {
            another(&Shape::ALL, object.shape, random)
        };
        (
            with_article(object.shape.name()),
            with_article(said.name()),
            &[
                "Is {x} {y}?",
                "Does {x} look like {y}?",
                "Would you call {x} {y}?",
                "{X} is {y}, right?",
            ],
        )
    };
    let text = phrase(
        templates,
        &[("x", the.as_str()), ("y", said.as_str())],
        random,
    );
    let sentence = if yes {
        format!("Yes, {the} is {truth}.")
    } else {
        format!("No, {the} is not {said} but {truth}.")
    };
    Some(Question::new(Task::Check, text, yes_no(yes), sentence).one_of(2))
}

/// A wrong colour, mostly one that something else in the picture has.
fn another_seen_colour(scene: &Scene, object: &Object, random: &mut ChaCha8Rng) -> Colour {
    let seen: Vec<_> = scene
        .objects
        .iter()
        .map(|other| other.colour)
        .filter(|&colour| colour != object.colour)
        .collect();
    match seen.choose(random) {
        Some(&colour) if random.random_bool(0.6) => colour,
        _ => another(&Colour::ALL, object.colour, random),
    }
}
