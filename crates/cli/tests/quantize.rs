//! `model quantize` and `--dtype`: shorter weights through the real binary.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Run, model, opabinia, picture, program, run, text};

fn ask(folder: &str, dtype: &str) -> Run {
    let picture = picture("square");
    let arguments = [
        "ask",
        &picture,
        "What is this?",
        "--model",
        folder,
        "--dtype",
        dtype,
        "--max-new-tokens",
        "6",
    ];
    opabinia(&arguments).ok()
}

/// A folder that was written once answers as the model that is packed at each start.
#[test]
fn a_packed_folder_answers_as_the_model_packed_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let source = text(&model());
    for dtype in ["bf16", "int8", "int4"] {
        let out = text(&folder.path().join(dtype));
        let arguments = ["model", "quantize", &source, &out, "--dtype", dtype];
        opabinia(&arguments).ok();
        let direct = ask(&source, dtype);
        for asked in ["stored", dtype, "auto"] {
            let packed = ask(&out, asked);
            assert_eq!(direct.stdout, packed.stdout, "{}", packed.everything());
            let all_used = !packed.stderr.contains("used by no part");
            assert!(all_used, "{}", packed.everything());
        }
        opabinia(&["model", "inspect", &out]).ok();
        let again = opabinia(&arguments);
        again.fails_with(1, &["exists", "does not exist; nothing is written over"]);
    }
    let packed = text(&folder.path().join("int4"));
    let other = opabinia(&["ask", "Hello", "--model", &packed, "--dtype", "f32"]);
    // Encoders come first, and they are int8.
    other.fails_with(1, &["packed as int8", "--dtype stored"]);
}

#[test]
fn what_is_lost_is_measured_and_stands_on_the_card() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("short");
    let (source, target, picture) = (text(&model()), text(&out), picture("wide"));
    let run = opabinia(&[
        "model",
        "quantize",
        &source,
        &target,
        "--dtype",
        "int8",
        "--measure",
        "--picture",
        &picture,
    ])
    .ok();
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    for text in [run.stdout.as_str(), card.as_str()] {
        for part in [
            "scores, share of their spread",
            "divergence in nats",
            "same likeliest",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
    assert!(
        card.contains("in int8") && card.contains("positions of prompts"),
        "{card}"
    );
}

#[test]
fn a_folder_of_another_order_of_bytes_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (text(&model()), folder.path().join("short"));
    opabinia(&["model", "quantize", &source, &text(&out), "--dtype", "int8"]).ok();
    let file = out.join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let entry = b"\"opabinia.packing\":\"1\"";
    let at = bytes
        .windows(entry.len())
        .position(|part| part == entry)
        .unwrap();
    bytes[at + entry.len() - 2] = b'2';
    std::fs::write(&file, bytes).unwrap();
    let run = opabinia(&["ask", "Hello", "--model", &text(&out)]);
    run.fails_with(
        1,
        &["packed in order `2`", "reads order `1`", "model quantize"],
    );
}

/// Golden cases through the binary in each type, by every code path that this processor can take.
#[test]
fn parity_in_every_type_on_every_path() {
    let cases = text(&common::golden());
    let paths = opabinia_nn::cpu::Path::ALL;
    for path in paths.into_iter().filter(|path| path.is_available()) {
        for dtype in ["f32", "bf16", "f16", "int8", "int4", "auto"] {
            let mut command = program(&["parity", &cases, "--quiet", "--dtype", dtype]);
            command.env("OPABINIA_CPU", path.key());
            run(command, b"").ok();
        }
    }
}

#[test]
fn guesses_change_no_answer() {
    let (model, picture) = (text(&model()), picture("square"));
    let ask = |guesses: &str| {
        let question = "one two one two one two one";
        opabinia(&[
            "ask",
            &picture,
            question,
            "--model",
            &model,
            "--guesses",
            guesses,
            "--verbose",
        ])
        .ok()
    };
    let (none, all) = (ask("0"), ask("7"));
    assert_eq!(none.stdout, all.stdout);
    assert!(all.stderr.contains("steps"), "{}", all.everything());
}
