//! `opabinia chat`, driven through a pipe as a script would.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Run, case, model, opabinia, opabinia_reading, picture, text};

/// Talks with the golden model; answers have 6 tokens.
fn chat(flags: &[&str], lines: &[&str]) -> Run {
    let model = text(&model());
    let mut arguments = vec!["chat", "--model", &model, "--max-new-tokens", "6"];
    arguments.extend(flags);
    let input: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
    opabinia_reading(&arguments, input.as_bytes())
}

/// What `ask` answers to the same.
fn ask(arguments: &[&str]) -> String {
    let model = text(&model());
    let mut all = vec!["ask", "--model", &model, "--max-new-tokens", "6"];
    all.extend(arguments);
    opabinia(&all).ok().stdout
}

/// The lines of the answers; those of the questions used here have no line ends in them.
fn answers(run: &Run) -> Vec<String> {
    run.stdout
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

#[test]
fn the_first_answer_is_that_of_ask_and_the_second_reads_only_what_is_new() {
    let lines = ["What is 3 plus 4?", "And 4 plus 5?", "/quit", "never asked"];
    let run = chat(&["--verbose"], &lines).ok();
    let said = answers(&run);
    assert_eq!(said.len(), 2, "{}", run.everything());
    assert_eq!(said[0], ask(&["What is 3 plus 4?"]).trim_end());
    let notes: Vec<&str> = run
        .stderr
        .lines()
        .filter(|line| line.contains("read before"))
        .collect();
    assert!(notes[0].contains(" 0 read before"), "{}", notes[0]);
    // The prompt of 223 tokens and what of the answer reads the same as a text.
    assert!(notes[1].contains(" 225 read before"), "{}", notes[1]);
    assert!(!run.stderr.contains("error"), "{}", run.everything());
}

#[test]
fn history_is_part_of_the_question() {
    let case = case();
    let greedy = case["runs"]["text_multiturn"]["turns"][1][0]
        .as_str()
        .unwrap();
    let run = chat(&[], &["Hello!", greedy]).ok();
    assert_eq!(answers(&run).len(), 2);
    assert_ne!(
        answers(&run)[1],
        ask(&[greedy]).trim_end(),
        "the first turn was forgotten"
    );
}

#[test]
fn a_picture_is_shown_with_the_next_message() {
    let square = picture("square");
    let show = format!("/image {square}");
    let run = chat(&[], &[&show, "What is in the image?"]).ok();
    let expected = ask(&[&square, "What is in the image?"]);
    assert_eq!(answers(&run), [expected.trim_end()]);
    run.mentions(&["42 visual tokens"]);

    let run = chat(&[&square], &["What is in the image?"]).ok();
    assert_eq!(answers(&run), [expected.trim_end()]);
}

#[test]
fn the_same_picture_is_looked_at_once() {
    let show = format!("/image {}", picture("tall"));
    let run = chat(&["--verbose"], &[&show, "One?", "/clear", &show, "Two?"]).ok();
    assert_eq!(
        run.stderr.matches("px square").count(),
        4,
        "{}",
        run.everything()
    );
    run.mentions(&["seen before"]);
}

#[test]
fn undo_forgets_one_turn_and_clear_all() {
    let (first, second) = ("What is 3 plus 4?", "How many red squares are there?");
    let lines = [
        first, second, "/undo", second, "/clear", first, "/undo", "/undo", first,
    ];
    let run = chat(&[], &lines).ok();
    let said = answers(&run);
    assert_eq!(said.len(), 5, "{}", run.everything());
    assert_eq!(said[1], said[2], "after /undo");
    assert_eq!(said[0], said[3], "after /clear");
    assert_eq!(said[0], said[4], "more is undone than was said");
}

#[test]
fn undo_takes_the_picture_with_it() {
    let show = format!("/image {}", picture("wide"));
    let question = "What is 3 plus 4?";
    let run = chat(&[], &[question, "/undo", &show, "Look!", "/undo", question]).ok();
    let said = answers(&run);
    assert_eq!(said[0], said[2], "{}", run.everything());
}

#[test]
fn a_mistake_does_not_end_the_talk() {
    let lines = [
        "/image no-such-picture.png",
        "/image",
        "/imagine",
        "a question with an <image> that nobody showed",
        "",
        "   ",
        "What is 3 plus 4?",
    ];
    let run = chat(&[], &lines).ok();
    assert_eq!(answers(&run), [ask(&["What is 3 plus 4?"]).trim_end()]);
    run.mentions(&[
        "error: cannot read image `no-such-picture.png`",
        "/image needs a path",
        "/imagine is no command",
        "image placeholder",
    ]);
}

#[test]
fn help_lists_the_commands() {
    let run = chat(&[], &["/help", "/exit", "never asked"]).ok();
    assert_eq!(run.stdout, "");
    run.mentions(&["/image", "/undo", "/clear", "/help", "/quit"]);
}

#[test]
fn a_picture_that_in_llm_layers_will_miss_is_warned_of_as_ask_does() {
    let show = format!("/image {}", picture("square"));
    let run = chat(&[], &["What is 3 plus 4?", &show, "What is in the image?"]).ok();
    run.mentions(&["warning: ", "206", "--image-position actual"]);
}

#[test]
fn another_picture_after_undo_is_answered_as_if_it_were_the_first() {
    // A system text that moves the picture behind the constant position, so that in-LLM layers
    // write what they see into the words before it.
    let system = "You are Cambrian, a highly intelligent multimodal AI trained by NYU Vision X. As a \
        multimodal AI, you have the ability to process and analyze images. Whenever an image is \
        present in the conversation, very carefully examine it and consider its content when \
        formulating your response. You should give concise responses to very simple questions, \
        but provide thorough responses to more complex and open-ended questions. Be kind please, \
        and never forget to be polite to all.";
    let (wide, tall) = (picture("wide"), picture("tall"));
    let (show_wide, show_tall) = (format!("/image {wide}"), format!("/image {tall}"));
    for question in [
        "What is it?",
        "How many?",
        "Describe the picture.",
        "Where is the red square?",
    ] {
        let flags = ["--system", system, "--max-new-tokens", "24"];
        let model = text(&model());
        let mut arguments = vec!["chat", "-m", &model];
        arguments.extend(flags);
        let lines = [&show_wide, question, "/undo", &show_tall, question].join("\n");
        let again = opabinia_reading(&arguments, lines.as_bytes()).ok();
        let lines = [&show_tall, question].join("\n");
        let fresh = opabinia_reading(&arguments, lines.as_bytes()).ok();
        assert!(
            again.stdout.ends_with(&fresh.stdout),
            "{}\n{}",
            again.everything(),
            fresh.stdout
        );
    }
}

#[test]
fn a_chat_that_cannot_begin_says_why() {
    let model = text(&model());
    opabinia(&["chat", "-m", &model, "no-such-picture.png"])
        .fails_with(1, &["cannot read image `no-such-picture.png`"]);
    opabinia(&["chat", "-m", &model, "--top-p", "0"]).fails_with(1, &["`top-p` is 0"]);
    opabinia(&["chat", "-m", "./no-such-model"]).fails_with(1, &["no-such-model"]);
}
