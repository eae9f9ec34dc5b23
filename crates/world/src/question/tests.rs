//! Questions about scenes that can be checked by hand.

use rand_chacha::ChaCha8Rng;

use super::{Group, Question, Task, ask, one_of_each, options, several};
use crate::stream::stream;
use crate::truth::{Box2d, Camera, Colour, Material, Object, Scene, Shape, Size, Truth};

/// A small rubber object, `x` metres to the right of the middle, three metres away.
pub(crate) fn object(shape: Shape, colour: Colour, x: f64) -> Object {
    let left = 118.0 + 50.0 * x;
    Object {
        shape,
        colour,
        material: Material::Rubber,
        size: Size::Small,
        centre: [x, 3.0, 0.175],
        extent: [0.35; 3],
        yaw: 0.0,
        depth: 3.0,
        box2d: Box2d {
            left,
            top: 100.0,
            right: left + 20.0,
            bottom: 120.0,
        },
        visible: 400,
        covered: 400,
    }
}

/// A scene of these objects.
pub(crate) fn scene(objects: Vec<Object>) -> Scene {
    let camera = Camera {
        focal: 300.0,
        centre: [128.0; 2],
        height: 1.5,
        pitch: 0.3,
    };
    Scene {
        camera,
        width: 256,
        height: 256,
        objects,
        close_up: false,
    }
}

fn random() -> ChaCha8Rng {
    stream(1, "test", 0)
}

/// Every question of a task that many attempts find.
fn all(task: Task, scene: &Scene) -> Vec<Question> {
    let truth = Truth::Scene(scene.clone());
    let random = &mut random();
    (0..200).filter_map(|_| ask(task, &truth, random)).collect()
}

fn two_red_balls_and_a_blue_cube() -> Scene {
    scene(vec![
        object(Shape::Ball, Colour::Red, -2.0),
        object(Shape::Ball, Colour::Red, 0.0),
        object(Shape::Cube, Colour::Blue, 2.0),
    ])
}

#[test]
fn names_of_tasks_are_those_of_their_files() {
    for task in Task::ALL {
        assert_eq!(serde_json::to_value(task).unwrap(), task.name());
    }
    for group in Group::ALL {
        assert_eq!(serde_json::to_value(group).unwrap(), group.name());
    }
}

#[test]
fn things_are_counted() {
    for question in all(Task::Count, &two_red_balls_and_a_blue_cube()) {
        let text = &question.text;
        let expected = match () {
            () if text.contains("red balls") => 2,
            () if text.contains("blue cubes") => 1,
            () if text.contains("small objects") || text.contains("rubber objects") => 3,
            () if text.contains("red objects") => 2,
            () if text.contains("blue objects") => 1,
            // What is not there at all is asked for in many ways.
            () if question.answer == "0" => 0,
            () if text.contains("balls") => 2,
            () if text.contains("cubes") => 1,
            () if text.contains("objects") => 3,
            () => panic!("{question:?}"),
        };
        assert_eq!(question.answer, expected.to_string(), "{question:?}");
    }
}

#[test]
fn zero_is_never_the_answer_about_what_is_there() {
    for question in all(Task::Count, &two_red_balls_and_a_blue_cube()) {
        let there = [
            "red balls",
            "blue cubes",
            "red objects",
            "small objects",
            "rubber objects",
        ];
        if question.answer == "0" {
            assert!(
                !there.iter().any(|what| question.text.contains(what)),
                "{question:?}"
            );
            assert!(question.sentence.contains("no ") || question.sentence.contains("No "));
        }
    }
}

/// Neither of two equal balls can be named, so nothing is said about where they are.
#[test]
fn places_are_asked_of_what_can_be_named() {
    assert_eq!(all(Task::Spatial, &two_red_balls_and_a_blue_cube()), []);
    let named = scene(vec![
        object(Shape::Ball, Colour::Red, -1.0),
        object(Shape::Cube, Colour::Blue, 1.0),
    ]);
    let questions = all(Task::Spatial, &named);
    assert!(questions.len() > 50);
    for question in questions {
        let sentence = question.sentence.to_lowercase();
        let ball_first = sentence.find("ball").or(sentence.find("red")).unwrap()
            < sentence.find("cube").or(sentence.find("blue")).unwrap();
        let side = if ball_first { "left" } else { "right" };
        assert!(sentence.contains(side), "{question:?}");
    }
}

/// The cube's box is in the right half; it is as far away as the ball, so both are second.
#[test]
fn places_are_tenths_and_order() {
    let pair = scene(vec![
        object(Shape::Ball, Colour::Red, -1.0),
        object(Shape::Cube, Colour::Blue, 1.0),
    ]);
    for question in all(Task::Place, &pair) {
        let seen = &pair.objects
            [usize::from(question.text.contains("cube") || question.text.contains("blue"))];
        let across = (seen.box2d.left + seen.box2d.right) / 2.0 / f64::from(pair.width);
        let wanted = format!("({}, ", (across * 10.0).floor());
        assert!(question.answer.starts_with(&wanted), "{question:?}");
        assert!(question.answer.ends_with(", 2)"), "{question:?}");
    }
    let truth = Truth::Scene(pair);
    let scored = one_of_each(&truth, &mut random());
    assert!(scored.iter().all(|question| question.task != Task::Place));
}

/// Boxes 10 pixels apart in a picture of 256 are less than 8 % apart.
#[test]
fn what_is_nearly_level_is_not_compared() {
    let close = scene(vec![
        object(Shape::Ball, Colour::Red, 0.0),
        object(Shape::Cube, Colour::Blue, 0.2),
    ]);
    assert_eq!(all(Task::Spatial, &close), []);
}

#[test]
fn depth_needs_a_difference_of_fifteen_per_cent() {
    let mut pair = scene(vec![
        object(Shape::Ball, Colour::Red, -1.0),
        object(Shape::Cube, Colour::Blue, 1.0),
    ]);
    pair.objects[0].depth = 3.0;
    pair.objects[1].depth = 3.4;
    assert_eq!(all(Task::Depth, &pair), []);
    pair.objects[1].depth = 3.5;
    let questions = all(Task::Depth, &pair);
    assert!(questions.len() > 100);
    let which = questions
        .iter()
        .filter(|question| question.choices.is_some());
    for question in which {
        let far = question.text.contains("farther") || question.text.contains("further");
        let names: &[&str] = if far {
            &["cube", "blue"]
        } else {
            &["ball", "red"]
        };
        assert!(
            names.iter().any(|name| question.answer.contains(name)),
            "{question:?}"
        );
    }
}

/// From the ball it is 1 m to the cube and 1.2 m or 1.4 m to the cone: a ratio of 1.3 is wanted.
#[test]
fn distances_need_a_clear_ratio() {
    let mut row = scene(vec![
        object(Shape::Ball, Colour::Red, 0.0),
        object(Shape::Cube, Colour::Blue, 1.0),
        object(Shape::Cone, Colour::Green, -1.2),
    ]);
    let about_ball = |scene: &Scene| {
        let questions = all(Task::Distance, scene).into_iter();
        let anchored = |question: &Question| {
            let offered = question.choices.clone().unwrap_or_default();
            offered
                .iter()
                .all(|choice| !choice.contains("ball") && !choice.contains("red"))
        };
        questions.filter(anchored).collect::<Vec<_>>()
    };
    assert_eq!(about_ball(&row), []);
    row.objects[2].centre[0] = -1.4;
    let questions = about_ball(&row);
    assert!(!questions.is_empty());
    for question in questions {
        let far = question.text.contains("farther") || question.text.contains("further");
        let names: &[&str] = if far {
            &["cone", "green"]
        } else {
            &["cube", "blue"]
        };
        assert!(
            names.iter().any(|name| question.answer.contains(name)),
            "{question:?}"
        );
    }
}

#[test]
fn options_hold_the_answer_once() {
    let offered = options("b", ["a", "b", "b", "c", "d", "e"], 3, &mut random());
    assert_eq!(offered.len(), 3);
    assert_eq!(offered.iter().filter(|option| *option == "b").count(), 1);
    assert_eq!(options("b", ["b"], 4, &mut random()), ["b"]);
}

#[test]
fn an_empty_scene_has_no_questions() {
    let truth = Truth::Scene(scene(Vec::new()));
    assert_eq!(one_of_each(&truth, &mut random()), []);
    assert_eq!(several(&truth, 8, &mut random()), []);
}

/// Through a lens of unknown length a size is known only beside the other one.
#[test]
fn sizes_are_asked_for_where_both_are_seen() {
    let mut scene = two_red_balls_and_a_blue_cube();
    assert!(all(Task::Size, &scene).is_empty());
    scene.objects[2].size = Size::Large;
    let asked = all(Task::Size, &scene);
    assert!(asked.iter().any(|question| question.answer == "large"));
    scene.close_up = true;
    assert!(all(Task::Size, &scene).is_empty());
}
