//! `opabinia ask`: the reference's answers through the real binary, and every way to ask for them.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{
    Copy, Run, case, data_url, model, opabinia, opabinia_reading, picture, program, text,
};
use serde_json::{Value, json};

/// Asks the golden model for 24 tokens.
fn ask(arguments: &[&str]) -> Run {
    let model = text(&model());
    let mut all = vec!["ask", "--model", &model, "--max-new-tokens", "24"];
    all.extend(arguments);
    opabinia(&all)
}

/// A run of the golden case: its picture (if any), its question, what the reference answered.
struct Reference {
    picture: Option<String>,
    question: String,
    run: Value,
}

fn reference(name: &str) -> Reference {
    let run = case()["runs"][name].clone();
    Reference {
        picture: run["image"].as_str().map(picture),
        question: run["turns"][0][0].as_str().unwrap().to_owned(),
        run,
    }
}

impl Reference {
    fn ask(&self, flags: &[&str]) -> Run {
        let mut arguments: Vec<&str> = self.picture.iter().map(String::as_str).collect();
        arguments.push(&self.question);
        arguments.extend(flags);
        ask(&arguments)
    }

    fn text(&self) -> &str {
        self.run["greedy_text"].as_str().unwrap()
    }

    fn line(&self) -> String {
        format!("{}\n", self.text())
    }
}

/// Every code path of this processor, down to the one that any has, gives the reference's answer.
#[test]
fn an_old_processor_gives_the_same_answer() {
    let reference = reference("square");
    let model = text(&model());
    let picture = picture("square");
    for path in opabinia_nn::cpu::Path::ALL {
        let mut command = program(&[
            "ask",
            "--model",
            &model,
            "--max-new-tokens",
            "24",
            &picture,
            &reference.question,
        ]);
        command.env("OPABINIA_CPU", path.key());
        let run = common::run(command, b"");
        if path.is_available() {
            assert_eq!(run.ok().stdout, reference.line(), "{path:?}");
        } else {
            run.fails_with(
                1,
                &["cannot run", "portable", "hint: leave OPABINIA_CPU unset"],
            );
        }
    }
    let mut command = program(&["doctor"]);
    command.env("OPABINIA_CPU", "fastest");
    common::run(command, b"").fails_with(1, &["`fastest`", "names no code path", "portable"]);
}

#[test]
fn answers_are_the_reference_answers_and_nothing_else() {
    for name in ["square", "wide", "tall", "text_only"] {
        let reference = reference(name);
        let run = reference.ask(&[]).quiet();
        assert_eq!(run.stdout, reference.line(), "{name}");
    }
}

#[test]
fn another_template_answers_as_the_reference_and_warns_of_the_position() {
    let reference = reference("other_template");
    let run = reference.ask(&["--template", "chatml_direct"]).ok();
    assert_eq!(run.stdout, reference.line());
    run.mentions(&[
        "warning: ",
        "position 195",
        "206",
        "--image-position actual",
    ]);
}

#[test]
fn the_real_image_position_differs_only_where_the_constant_is_wrong() {
    let at_home = reference("tall");
    let run = at_home.ask(&["--image-position", "actual"]).quiet();
    assert_eq!(run.stdout, at_home.line());

    let elsewhere = reference("other_template");
    let flags = ["--template", "chatml_direct", "--image-position", "actual"];
    let run = elsewhere.ask(&flags).quiet();
    assert_ne!(run.stdout, elsewhere.line());
}

#[test]
fn json_says_what_was_seen_read_and_written() {
    let reference = reference("wide");
    let answer = reference.ask(&["--json"]).quiet().json();
    assert_eq!(answer["question"], reference.question.as_str());
    assert_eq!(answer["text"], reference.text());
    assert_eq!(answer["ids"], reference.run["greedy_ids"]);
    assert_eq!(answer["stop"], "max-tokens");
    assert_eq!(answer["prompt_tokens"], reference.run["seq_len"]);
    assert_eq!(answer["visual_tokens"], 4 * (6 + 1));
    assert_eq!(answer["reused_tokens"], 0);
    let seen = &answer["pictures"][0];
    assert_eq!(seen["source"], picture("wide").as_str());
    assert_eq!(seen["remembered"], false);
    assert_eq!([&seen["width"], &seen["height"]], [160, 90]);
    assert_eq!([&seen["rows"], &seen["cols"], &seen["tokens"]], [4, 6, 28]);
    let sides: Vec<&Value> = encoders(seen).map(|encoder| &encoder["side"]).collect();
    assert_eq!(sides, [84, 70, 98, 96]);
    let grids: Vec<&Value> = encoders(seen).map(|encoder| &encoder["grid"]).collect();
    assert_eq!(
        grids,
        [
            &json!([6, 6]),
            &json!([6, 6]),
            &json!([6, 6]),
            &json!([24, 24])
        ]
    );
}

fn encoders(seen: &Value) -> impl Iterator<Item = &Value> {
    seen["encoders"].as_array().unwrap().iter()
}

#[test]
fn verbose_notes_go_to_standard_error() {
    let reference = reference("tall");
    let run = reference.ask(&["--verbose"]).ok();
    assert_eq!(run.stdout, reference.line());
    run.mentions(&[
        "PNG, 70 × 120 pixels",
        "30 visual tokens (6 × 4 and row ends)",
        "siglip/CLIP-ViT-SO400M-14-384: 84 px square, 35 px of it padding",
        "clip-convnext-XXL-multi-stage-res96: 96 px square",
        "template llama_3",
        "258 prompt tokens (30 visual, 0 read before)",
        "24 answer tokens",
    ]);
}

#[test]
fn a_picture_may_come_from_standard_input_or_a_data_url() {
    let reference = reference("square");
    let bytes = std::fs::read(picture("square")).unwrap();
    let question = reference.question.as_str();
    let model = text(&model());
    let arguments = ["ask", "-m", &model, "-", question, "--max-new-tokens", "24"];
    let run = opabinia_reading(&arguments, &bytes).quiet();
    assert_eq!(run.stdout, reference.line());

    let answer = ask(&[&data_url(&bytes), question, "--json"]).quiet().json();
    assert_eq!(answer["text"], reference.text());
    assert_eq!(
        answer["pictures"][0]["source"], "data:",
        "the URL itself is a picture"
    );
}

#[test]
fn a_second_question_remembers_the_picture_and_answers_as_if_it_were_the_first() {
    let square = picture("square");
    let (first, second) = ("What is in the image?", "How many red squares are there?");
    let answers = ask(&[&square, first, "--also", second, "--json"])
        .quiet()
        .json_lines();
    let alone = ask(&[&square, second, "--json"]).quiet().json();
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0]["text"], reference("square").text());
    assert_eq!(answers[0]["pictures"][0]["remembered"], false);
    assert_eq!(answers[1]["question"], second);
    assert_eq!(answers[1]["pictures"][0]["remembered"], true);
    assert!(
        answers[1]["reused_tokens"].as_u64().unwrap() > 206 + 42,
        "{}",
        answers[1]
    );
    assert_eq!(answers[1]["ids"], alone["ids"]);
    assert_eq!(answers[1]["prompt_tokens"], alone["prompt_tokens"]);
}

#[test]
fn several_pictures_go_into_one_prompt() {
    let (square, wide) = (picture("square"), picture("wide"));
    let both = ask(&[&square, &wide, "Compare them.", "--json"])
        .quiet()
        .json();
    assert_eq!(both["visual_tokens"], 42 + 28);
    assert_eq!(both["pictures"].as_array().unwrap().len(), 2);
    let twice = ask(&[&wide, &wide, "Compare them.", "--json"])
        .quiet()
        .json();
    assert_eq!(twice["visual_tokens"], 28 + 28);
    assert_eq!(twice["pictures"][1]["remembered"], true);
}

#[test]
fn a_stop_text_ends_the_answer_before_it() {
    let answer = reference("square")
        .ask(&["--stop", "wJ", "--json"])
        .quiet()
        .json();
    assert_eq!(answer["text"], "Ddal");
    assert_eq!(answer["stop"], json!({"stop-string": "wJ"}));
}

#[test]
fn a_stop_id_ends_the_answer_before_it() {
    let answer = reference("square")
        .ask(&["--stop-id", "332", "--json"])
        .quiet()
        .json();
    assert_eq!(answer["ids"], json!([35, 379]));
    assert_eq!(answer["stop"], json!({"end-token": 332}));
}

#[test]
fn the_end_tokens_of_the_checkpoint_end_an_answer() {
    let copy = Copy::of_model();
    copy.write("generation_config.json", r#"{"eos_token_id": [7, 305]}"#);
    let (square, model) = (picture("square"), copy.text());
    let run = opabinia(&[
        "ask",
        "-m",
        &model,
        &square,
        "What is in the image?",
        "--json",
    ]);
    let answer = run.quiet().json();
    assert_eq!(answer["ids"], json!([35, 379, 332]));
    assert_eq!(answer["stop"], json!({"end-token": 305}));
}

#[test]
fn an_answer_ends_where_the_context_does() {
    let copy = Copy::of_model();
    copy.configure(json!({"tokenizer_model_max_length": 262, "max_position_embeddings": 262}));
    let (square, model) = (picture("square"), copy.text());
    let run = opabinia(&[
        "ask",
        "-m",
        &model,
        &square,
        "What is in the image?",
        "--json",
    ]);
    let answer = run.quiet().json();
    assert_eq!(answer["stop"], "context-full");
    assert_eq!(
        answer["ids"],
        json!([35]),
        "261 tokens were read, and one was written"
    );
}

#[test]
fn the_same_seed_gives_the_same_answer() {
    let drawn = |seed: &str| {
        let flags = ["--temperature", "1", "--seed", seed, "--json"];
        reference("square").ask(&flags).quiet().json()["ids"].clone()
    };
    assert_eq!(drawn("7"), drawn("7"));
    assert_ne!(drawn("7"), drawn("8"));
}

#[test]
fn only_the_likeliest_token_is_the_greedy_one() {
    let reference = reference("square");
    for flags in [["--top-k", "1"], ["--top-p", "1e-6"], ["--min-p", "1"]] {
        let flags = ["--temperature", "1.5", flags[0], flags[1]];
        assert_eq!(
            reference.ask(&flags).quiet().stdout,
            reference.line(),
            "{flags:?}"
        );
    }
}

#[test]
fn reading_in_small_chunks_changes_nothing() {
    let reference = reference("wide");
    for chunk in ["1", "7", "100000"] {
        let run = reference.ask(&["--prefill-chunk", chunk]).quiet();
        assert_eq!(run.stdout, reference.line(), "chunks of {chunk}");
    }
}

#[test]
fn weights_of_16_bits_answer_too() {
    let reference = reference("text_only");
    for dtype in ["bf16", "f16"] {
        let answer = reference.ask(&["--dtype", dtype, "--json"]).quiet().json();
        assert_eq!(answer["ids"].as_array().unwrap().len(), 24, "{dtype}");
    }
    let run = reference.ask(&["--dtype", "f32"]).quiet();
    assert_eq!(run.stdout, reference.line());
}

#[test]
fn encoder_weights_may_lie_elsewhere() {
    let reference = reference("wide");
    let copy = Copy::of_model();
    copy.remove("towers");
    let towers = model().join("towers");
    let flag = |name: &str, tower: &str| format!("{name}={}", text(&towers.join(tower)));
    let arguments = [
        "ask".to_owned(),
        copy.text(),
        picture("wide"),
        reference.question.clone(),
        flag("siglip/CLIP-ViT-SO400M-14-384", "siglip"),
        flag("1", "clip"),
        flag("facebook/dinov2-giant-res98", "dinov2"),
        flag("3", "convnext"),
    ];
    let [verb, model, picture, question, a, b, c, d] = arguments.each_ref().map(String::as_str);
    let key = "--encoder-weights";
    let run = opabinia(&[
        verb,
        "-m",
        model,
        picture,
        question,
        key,
        a,
        key,
        b,
        key,
        c,
        key,
        d,
        "--max-new-tokens",
        "24",
    ]);
    assert_eq!(run.quiet().stdout, reference.line());
}

#[test]
fn the_model_may_be_named_by_the_environment() {
    let reference = reference("text_only");
    let mut command = program(&["ask", &reference.question, "--max-new-tokens", "24"]);
    command.env("OPABINIA_MODEL", model());
    assert_eq!(common::run(command, b"").quiet().stdout, reference.line());
}

#[test]
fn every_model_of_the_golden_cases_answers_as_the_reference() {
    for name in [
        "cambrian_llama_g2",
        "cambrian_llama_mlp2x_gelu",
        "cambrian_phi3",
    ] {
        let folder = common::golden().join(name);
        let case = common::read_json(&folder.join("case.json"));
        let mut asked = 0;
        for (run_name, run) in case["runs"].as_object().unwrap() {
            let Some(question) = single_question(run) else {
                continue;
            };
            let image = run["image"].as_str();
            let image = image.map(|image| text(&folder.join(format!("images/{image}.png"))));
            let folder = text(&folder);
            let template = run["conv_mode"].as_str().unwrap();
            let mut arguments = vec!["ask", "-m", &folder, "--max-new-tokens", "24"];
            arguments.extend(["--template", template]);
            arguments.extend(image.as_deref());
            arguments.push(question);
            let run_of_ours = opabinia(&arguments).ok();
            let expected = format!("{}\n", run["greedy_text"].as_str().unwrap());
            assert_eq!(run_of_ours.stdout, expected, "{name}, {run_name}");
            asked += 1;
        }
        assert!(asked > 0, "{name} has no run of one question");
    }
}

/// The question of a run that has one question, and 24 tokens to compare with.
fn single_question(run: &Value) -> Option<&str> {
    let [turn] = run["turns"].as_array()?.as_slice() else {
        return None;
    };
    let written = run["greedy_ids"].as_array()?.len();
    (written == 24 && run["greedy_text"].is_string()).then_some(turn[0].as_str()?)
}
