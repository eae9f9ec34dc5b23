//! The model that ships, without being named, and the pictures of `examples/`.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;

use common::opabinia;

const SHORT: &str = "Answer the question using a single word or phrase.";

fn ask(picture: &str, question: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let picture = common::text(&root.join("examples").join(picture));
    opabinia(&["ask", &picture, question]).quiet().stdout
}

#[test]
fn it_counts_and_tells_colors_shapes_what_is_where_and_what_a_chart_has() {
    for (picture, question, answer) in [
        ("ball.png", "What color is the ball?", "gray"),
        ("ball.png", "The gray object is what kind of solid?", "ball"),
        ("scene.png", "How many red balls are there?", "2"),
        ("scene.png", "How many pyramids are there?", "2"),
        ("scene.png", "What color is the large cube?", "red"),
        ("scene.png", "What shape is the cyan object?", "pyramid"),
        ("scene.png", "Is there a green cone?", "no"),
        (
            "scene.png",
            "Is the red cube to the left of the yellow pyramid?",
            "yes",
        ),
        (
            "scene.png",
            "Is the yellow pyramid to the left of the cyan pyramid?",
            "no",
        ),
        (
            "scene.png",
            "Is the red cube below the cyan pyramid?",
            "yes",
        ),
        (
            "scene.png",
            "Which is closer to the camera, the red cube or the yellow pyramid?",
            "red cube",
        ),
        ("chart.png", "What type of chart is it?", "bar chart"),
        ("chart.png", "How many bars does the chart have?", "4"),
        ("chart.png", "What is the title of the chart?", "Fruit sold"),
    ] {
        let asked = format!("{question}\n{SHORT}");
        assert_eq!(ask(picture, &asked), format!("{answer}\n"), "{question}");
    }
}

#[test]
fn it_talks_in_sentences_where_no_short_answer_is_asked_for() {
    let said = ask("scene.png", "How many red balls are there?");
    assert_eq!(said, "There are two red balls in the picture.\n");
}
