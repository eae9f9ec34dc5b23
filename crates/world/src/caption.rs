//! Captions: a picture in one to three sentences.
//!
//! Stage 1 of the recipe and the contrastive encoders learn from captions, so a caption says all
//! that makes a picture different from others: every object with its colour, shape and place, all
//! of a text, every value of a chart.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::question::refer::{Attribute, Description};
use crate::question::wording::{capital, list, number, ordinal, phrase, with_article};
use crate::truth::{Chart, ChartKind, Document, Object, Scene, Truth};

/// What a human says to get a caption.
const INSTRUCTIONS: [&str; 8] = [
    "Describe the picture.",
    "What do you see?",
    "Write a caption for this image.",
    "Give a short description of the picture.",
    "What does the image show?",
    "Describe this image in a few words.",
    "Tell me what is in the picture.",
    "Summarize what the picture shows.",
];

/// A way to ask for a caption.
pub fn instruction(random: &mut ChaCha8Rng) -> &'static str {
    INSTRUCTIONS
        .choose(random)
        .copied()
        .unwrap_or(INSTRUCTIONS[0])
}

/// A caption in one of several styles.
pub fn caption(truth: &Truth, random: &mut ChaCha8Rng) -> String {
    match truth {
        Truth::Scene(scene) if scene.close_up => close_up(scene, random),
        Truth::Scene(scene) => match random.random_range(0..4) {
            0 => grouped(scene, random),
            1 => dense(scene),
            _ => placed(scene, random),
        },
        Truth::Document(document) => read(document, random),
        Truth::Chart(chart) => chart_caption(chart, random),
    }
}

/// What asks for [`measured`].
pub(crate) const MEASURES: [&str; 4] = [
    "List the objects with their positions.",
    "Where is each object? Say across, down and order.",
    "Measure the picture.",
    "List every object with its coordinates.",
];

/// How [`measured`] begins.
pub const MEASURED: &str = "Across, down, order from the camera: ";

/// A request for a caption, and the caption. Measures have a request of their own, so that nobody
/// has to guess what is wanted.
pub fn exchange(truth: &Truth, random: &mut ChaCha8Rng) -> (String, String) {
    match truth {
        Truth::Scene(scene) if !scene.close_up && random.random_bool(0.5) => {
            let asked = MEASURES.choose(random).copied().unwrap_or(MEASURES[0]);
            (asked.to_owned(), measured(scene))
        }
        other => (instruction(random).to_owned(), caption(other, random)),
    }
}

/// Every object of a scene from left to right with all its attributes and its
/// [place in numbers](place_in_numbers).
pub fn measured(scene: &Scene) -> String {
    measures(scene, &from_left(scene))
}

/// Objects of a scene in this order, as [`measured`] says them.
pub(crate) fn measures(scene: &Scene, objects: &[&Object]) -> String {
    let items: Vec<String> = objects
        .iter()
        .map(|object| measure(scene, object))
        .collect();
    format!("{MEASURED}{}.", items.join(", "))
}

/// All attributes of an object and its place: *large red metal ball (5, 4, 2)*.
pub(crate) fn measure(scene: &Scene, object: &Object) -> String {
    let all = Description::of(object, everything(scene)).singular();
    format!("{all} {}", place_in_numbers(scene, object))
}

/// Where an object is: the middle of what is visible of it in tenths of the picture from the left and
/// from the top, and how many are not farther from the camera, itself included. (Metres cannot be
/// seen: nobody knows how long the lens is.)
pub fn place_in_numbers(scene: &Scene, object: &Object) -> String {
    let tenths = |sum: f64, side: u32| (5.0 * sum / f64::from(side.max(1))).floor().min(9.0);
    let seen = &object.box2d;
    let order = scene
        .objects
        .iter()
        .filter(|other| other.depth <= object.depth)
        .count();
    format!(
        "({}, {}, {order})",
        tenths(seen.left + seen.right, scene.width),
        tenths(seen.top + seen.bottom, scene.height),
    )
}

/// All attributes that the picture shows.
pub fn everything(scene: &Scene) -> &'static [Attribute] {
    const ALL: [Attribute; 4] = [
        Attribute::Size,
        Attribute::Colour,
        Attribute::Material,
        Attribute::Shape,
    ];
    if scene.shows_sizes() { &ALL } else { &ALL[1..] }
}

/// Every object of a scene from left to right with all its attributes and its place, as a list.
pub fn dense(scene: &Scene) -> String {
    let all = everything(scene);
    let items: Vec<String> = from_left(scene)
        .into_iter()
        .map(|object| {
            format!(
                "{} ({})",
                Description::of(object, all).singular(),
                place(scene, object)
            )
        })
        .collect();
    format!("From left to right: {}.", items.join(", "))
}

/// Counts, then every object from left to right: *Three objects: two red balls and a blue cube. …*
fn grouped(scene: &Scene, random: &mut ChaCha8Rng) -> String {
    let said = [Attribute::Colour, Attribute::Shape];
    let mut kinds: Vec<Description> = Vec::new();
    for object in &scene.objects {
        let kind = Description::of(object, &said);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let groups: Vec<String> = kinds
        .iter()
        .map(|kind| match kind.count(scene) {
            1 => kind.a(),
            n => kind.numbered(n),
        })
        .collect();
    let objects = match scene.objects.len() {
        1 => "one object".to_owned(),
        n => format!("{} objects", number(n)),
    };
    let templates = [
        "The picture shows {n}: {x}.",
        "There are {n} on the ground: {x}.",
        "A scene with {n}: {x}.",
    ];
    let templates = if scene.objects.len() == 1 {
        &templates[..1]
    } else {
        &templates
    };
    let mut text = phrase(templates, &[("n", objects), ("x", list(&groups))], random);
    if kinds.len() > 1 {
        let order: Vec<String> = from_left(scene)
            .into_iter()
            .map(|object| Description::of(object, &said).a())
            .collect();
        text.push_str(&format!(" From left to right there are {}.", list(&order)));
    }
    text
}

/// Every object with its place: *A large red ball is on the left, a blue cube …*
fn placed(scene: &Scene, random: &mut ChaCha8Rng) -> String {
    let said: &[Attribute] = if random.random_bool(0.5) && scene.shows_sizes() {
        &[Attribute::Size, Attribute::Colour, Attribute::Shape]
    } else {
        &[Attribute::Colour, Attribute::Shape]
    };
    let items: Vec<String> = from_left(scene)
        .into_iter()
        .map(|object| {
            let what = Description::of(object, said).a();
            format!("{what} {}", place(scene, object))
        })
        .collect();
    let templates = [
        "The picture shows {x}.",
        "There is {x}.",
        "{X}.",
        "On the ground there is {x}.",
        "You can see {x}.",
    ];
    phrase(&templates, &[("x", list(&items))], random)
}

/// The one object of a close-up: *a red metal ball*, never its size.
fn close_up(scene: &Scene, random: &mut ChaCha8Rng) -> String {
    let said: &[Attribute] = if random.random_bool(0.5) {
        &[Attribute::Colour, Attribute::Material, Attribute::Shape]
    } else {
        &[Attribute::Colour, Attribute::Shape]
    };
    let items: Vec<String> = scene
        .objects
        .iter()
        .map(|object| Description::of(object, said).a())
        .collect();
    let templates = [
        "The picture shows {x}.",
        "There is {x}.",
        "{X}.",
        "You can see {x}.",
    ];
    phrase(&templates, &[("x", list(&items))], random)
}

/// Objects by the centre of what is visible of them, leftmost first.
fn from_left(scene: &Scene) -> Vec<&Object> {
    let mut objects: Vec<&Object> = scene.objects.iter().collect();
    let middle = |object: &Object| object.box2d.left + object.box2d.right;
    objects.sort_by(|a, b| middle(a).total_cmp(&middle(b)));
    objects
}

/// Thirds of the picture across, and near or far where the object is clearly before or behind the
/// middle of the others: `on the left, near the camera`.
fn place(scene: &Scene, object: &Object) -> String {
    let across = (object.box2d.left + object.box2d.right) / 2.0 / f64::from(scene.width.max(1));
    let across = if across < 1.0 / 3.0 {
        "on the left"
    } else if across < 2.0 / 3.0 {
        "in the middle"
    } else {
        "on the right"
    };
    let depths = scene.objects.iter().map(|other| other.depth);
    let nearest = depths.clone().fold(f64::INFINITY, f64::min);
    let farthest = depths.fold(0.0, f64::max);
    // Scenes whose objects stand in a row have no near and far.
    let along = if farthest < 1.3 * nearest {
        ""
    } else {
        match (object.depth - nearest) / (farthest - nearest) {
            share if share < 0.3 => " near the camera",
            share if share > 0.7 => " far away",
            _ => "",
        }
    };
    format!("{across}{along}")
}

/// All text of a document.
fn read(document: &Document, random: &mut ChaCha8Rng) -> String {
    let quoted = |text: &str| format!("\"{text}\"");
    match document {
        Document::Word { text } => {
            let templates = [
                "The word \"{x}\".",
                "A sign with the word \"{x}\".",
                "The picture shows the word \"{x}\".",
                "It says \"{x}\".",
                "\"{x}\" is written in the picture.",
            ];
            phrase(&templates, &[("x", text)], random)
        }
        Document::Lines { lines } => {
            let all: Vec<String> = lines.iter().map(|line| quoted(line)).collect();
            let each: Vec<String> = lines
                .iter()
                .enumerate()
                .map(|(i, line)| format!("the {} line says \"{line}\"", ordinal(i)))
                .collect();
            let templates = [
                "{N} lines of text: {all}.",
                "A text of {n} lines: {all}.",
                "The picture shows {n} lines of text. {Each}.",
                "The text says {all}.",
            ];
            let values = [
                ("n", number(lines.len())),
                ("all", list(&all)),
                ("each", list(&each)),
            ];
            phrase(&templates, &values, random)
        }
        Document::Labels { labels } => {
            let each: Vec<String> = labels
                .iter()
                .map(|(colour, text)| {
                    let label = with_article(&format!("{} label", colour.name()));
                    format!("{label} that says \"{text}\"")
                })
                .collect();
            let templates = [
                "The picture shows {x}.",
                "There are {n} labels: {x}.",
                "{X}.",
                "{N} labels: {x}.",
            ];
            let values = [("x", list(&each)), ("n", number(labels.len()))];
            phrase(&templates, &values, random)
        }
        Document::Table { header, rows } => {
            let columns: Vec<String> = header.iter().skip(1).cloned().collect();
            let each: Vec<String> = rows
                .iter()
                .map(|(name, numbers)| {
                    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
                    format!("{name}: {}", numbers.join(", "))
                })
                .collect();
            let templates = [
                "A table with {columns}. {rows}.",
                "The table has {n} rows and the columns {columns}. {rows}.",
                "A table of {columns} for {n} rows. {rows}.",
            ];
            let values = [
                ("columns", list(&columns)),
                ("n", number(rows.len())),
                ("rows", each.join("; ")),
            ];
            phrase(&templates, &values, random)
        }
    }
}

/// Title and entries in drawing order: with values, except for pies that do not show them.
fn chart_caption(chart: &Chart, random: &mut ChaCha8Rng) -> String {
    let titled = match chart.title.as_str() {
        "" => format!("{} chart", chart.kind.name()),
        title => format!("{} chart called \"{title}\"", chart.kind.name()),
    };
    let templates = ["This is {x}.", "The picture shows {x}.", "{X}."];
    let opening = phrase(&templates, &[("x", with_article(&titled))], random);
    let readable = chart.shows_values();
    let coloured = !readable || (chart.kind != ChartKind::Line && random.random_bool(0.5));
    let each: Vec<String> = chart
        .entries
        .iter()
        .map(|(name, colour, value)| {
            let colour = if coloured {
                format!(" ({})", colour.name())
            } else {
                String::new()
            };
            match (readable, chart.kind) {
                (false, _) => format!("{name}{colour}"),
                (true, ChartKind::Pie) => format!("{name}{colour} is {value} percent"),
                (true, _) => format!("{name}{colour} is {value}"),
            }
        })
        .collect();
    let each = list(&each);
    if readable {
        format!("{opening} {}.", capital(&each))
    } else {
        format!("{opening} Its slices are {each}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::{PictureOptions, Subject, draw};
    use crate::question::tests::{object, scene};
    use crate::stream::stream;
    use crate::truth::{Colour, Shape};

    /// Captions of the first pictures of a subject, in several styles each.
    fn captions(subject: Subject) -> Vec<(Truth, String)> {
        let options = PictureOptions {
            side: 64,
            ..PictureOptions::default()
        };
        let truths = (0..30).map(|seed| draw(seed, subject, &options).truth);
        truths
            .flat_map(|truth| {
                let truth = &truth;
                let said = |style| (truth.clone(), caption(truth, &mut stream(style, "test", 0)));
                (0..6).map(said).collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn a_caption_is_one_to_three_sentences() {
        for subject in Subject::ALL {
            for (truth, said) in captions(subject) {
                assert!(said.ends_with('.'), "{said}");
                assert!(!said.contains(['{', '}', '\n']), "{said}");
                assert!(
                    (1..=3).contains(&said.matches('.').count()),
                    "{said} {truth:?}"
                );
                let first = said.chars().next();
                assert!(first.is_some_and(|c| !c.is_lowercase()), "{said}");
            }
        }
    }

    /// Every object is named with its colour, as often as it is there.
    #[test]
    fn a_caption_names_every_object() {
        for (truth, said) in captions(Subject::Scene) {
            let Truth::Scene(scene) = truth else {
                panic!("asked for scenes")
            };
            for object in &scene.objects {
                assert!(said.contains(object.colour.name()), "{said}");
                assert!(said.contains(object.shape.name()), "{said}");
            }
        }
    }

    #[test]
    fn a_caption_says_all_that_is_written() {
        for subject in [Subject::Word, Subject::Lines, Subject::Labels] {
            for (truth, said) in captions(subject) {
                let texts: Vec<String> = match truth {
                    Truth::Document(Document::Word { text }) => vec![text],
                    Truth::Document(Document::Lines { lines }) => lines,
                    Truth::Document(Document::Labels { labels }) => {
                        labels.into_iter().map(|(_, text)| text).collect()
                    }
                    other => panic!("asked for documents: {other:?}"),
                };
                assert!(
                    texts.iter().all(|text| said.contains(text)),
                    "{said} {texts:?}"
                );
            }
        }
    }

    #[test]
    fn a_caption_says_every_value_that_can_be_read() {
        for subject in [Subject::Bar, Subject::Line, Subject::Pie] {
            for (truth, said) in captions(subject) {
                let Truth::Chart(chart) = truth else {
                    panic!("asked for charts")
                };
                let readable = chart.kind != ChartKind::Pie || chart.written;
                for (name, _, value) in &chart.entries {
                    let is = format!(" is {value}");
                    assert!(said.to_lowercase().contains(&name.to_lowercase()), "{said}");
                    assert_eq!(said.contains(&is), readable, "{said}");
                }
            }
        }
    }

    #[test]
    fn a_measured_caption_has_places_in_numbers() {
        let scene = scene(vec![
            object(Shape::Cube, Colour::Blue, 2.0),
            object(Shape::Ball, Colour::Red, -2.0),
        ]);
        let said = measured(&scene);
        assert_eq!(
            said,
            "Across, down, order from the camera: red rubber ball (1, 4, 2), blue rubber cube \
             (8, 4, 2)."
        );
        for seed in 0..20 {
            let truth = Truth::Scene(scene.clone());
            let (asked, said) = exchange(&truth, &mut stream(seed, "test", 0));
            assert_eq!(
                said.starts_with(MEASURED),
                MEASURES.contains(&asked.as_str()),
                "{asked} {said}"
            );
        }
    }

    #[test]
    fn a_dense_caption_goes_from_left_to_right() {
        let mut scene = scene(vec![
            object(Shape::Cube, Colour::Blue, 2.0),
            object(Shape::Ball, Colour::Red, -2.0),
        ]);
        assert_eq!(
            dense(&scene),
            "From left to right: red rubber ball (on the left), blue rubber cube \
             (on the right)."
        );
        scene.objects[0].depth = 6.0;
        assert_eq!(
            dense(&scene),
            "From left to right: red rubber ball (on the left near the camera), blue \
             rubber cube (on the right far away)."
        );
    }
}
