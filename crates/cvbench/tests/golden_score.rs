//! The formula, on the vectors of the reference harness, through files of answers.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use opabinia_cvbench::score::{ScoreOptions, read_answers, score};
use serde_json::{Value, json};

fn golden() -> PathBuf {
    match std::env::var_os("OPABINIA_GOLDEN") {
        Some(root) => root.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
    }
}

#[test]
fn the_formula_of_the_paper() {
    let path = golden().join("scorers/cvbench_aggregate.json");
    let file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    let folder = tempfile::tempdir().unwrap();
    let answers = folder.path().join("answers.jsonl");
    let options = ScoreOptions {
        protocol: None,
        partial: false,
    };
    for case in cases {
        let mut text = String::new();
        for (source, counts) in case["prediction"].as_object().unwrap() {
            let count = |place: usize| counts[place].as_u64().unwrap();
            let task = if source == "Omni3D" { "Depth" } else { "Count" };
            for number in 0..count(1) {
                let line = json!({
                    "id": format!("{source}-{number}"), "source": source, "task": task,
                    "score": u8::from(number < count(0)),
                });
                writeln!(text, "{line}").unwrap();
            }
        }
        fs::write(&answers, text).unwrap();
        let read = read_answers(&answers, None, options).unwrap();
        let scores = score(&read, None, options).unwrap();
        let value = |name: &str| {
            let mut figures = scores[0].figures.iter();
            let figure = figures.find(|figure| figure.name == name).unwrap();
            assert!(figure.low <= figure.value && figure.value <= figure.high);
            figure.value / 100.0
        };
        let id = &case["id"];
        let wanted = |key: &str| case[key].as_f64().unwrap();
        assert!((value("overall") - wanted("expected")).abs() < 1e-9, "{id}");
        assert!(
            (value("micro") - wanted("micro_accuracy")).abs() < 1e-9,
            "{id}"
        );
    }
}
