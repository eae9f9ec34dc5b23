//! `opabinia analyze`: tables and runs become a report, and what cannot be compared is refused.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::Path;

use common::{opabinia, text};
use serde_json::json;

/// A finished run folder of one model: question ids and scores with and without the pictures.
fn run(folder: &Path, model: &str, scores: &[(&str, f64, f64)], unfinished: usize) -> String {
    fs::create_dir_all(folder).unwrap();
    let file = |name: &str, content: String| fs::write(folder.join(name), content).unwrap();
    let wanted = json!([[0, scores.len() + unfinished]]);
    let way = |vision: &str| json!({"settings": vision, "stamps": {}, "wanted": wanted});
    let description = json!({
        "format": 2, "version": "0", "model": model, "model_sha256": model, "stamps": {},
        "sets": [{
            "benchmark": null, "title": "questions", "group": null,
            "rules": {"scorer": "short-answer", "aggregate": "mean", "protocol": "standard"},
            "questions": scores.len(), "expected": null, "sha256": "q", "stamps": {},
            "counts": {"rows": 0, "left_out": 0, "faulty": 0, "scored": 0, "submission_only": 0},
            "files": [], "faults": [], "ways": {"on": way("on"), "off": way("off")},
        }],
        "invocations": [],
    });
    file("run.json", description.to_string());
    let mut lines = String::new();
    for (index, (id, on, off)) in scores.iter().enumerate() {
        for (vision, score) in [("on", on), ("off", off)] {
            let line = json!({
                "id": id, "index": index, "settings": vision, "vision": vision, "group": "general", "task": "count",
                "expected": "2", "chance": 0.25, "prompt_sha256": "", "picture": null,
                "answer": "2", "score": score, "cut_off": false, "seconds": 0.1,
                "prompt_tokens": 1, "visual_tokens": 0, "answer_tokens": 1,
            });
            lines.push_str(&format!("{line}\n"));
        }
    }
    file("records.jsonl", lines);
    text(folder)
}

#[test]
fn runs_become_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let a = run(&at("a"), "a", &[("1", 1.0, 0.0), ("2", 1.0, 1.0)], 0);
    let b = run(&at("b"), "b", &[("1", 0.0, 0.0), ("2", 1.0, 0.0)], 0);
    let done = opabinia(&[
        "analyze",
        &a,
        &b,
        "--out",
        &text(&at("out")),
        "--resamples",
        "100",
    ]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(
        done.stdout.trim().ends_with("report.html"),
        "{}",
        done.stdout
    );
    let found = fs::read_to_string(at("out").join("analysis.json")).unwrap();
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let gap = &found["gaps"][0];
    assert_eq!(
        (&gap["with"], &gap["without"]),
        (&json!(75.0), &json!(25.0))
    );
}

#[test]
fn runs_that_cannot_be_compared_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let whole = run(&at("a"), "a", &[("1", 1.0, 0.0)], 0);
    let other = run(&at("b"), "b", &[("9", 1.0, 0.0)], 0);
    let unfinished = run(&at("c"), "c", &[("1", 1.0, 0.0)], 2);
    let out = text(&at("out"));
    let refused = |second: &str, wanted: &str| {
        let done = opabinia(&["analyze", &whole, second, "--out", &out]);
        assert_eq!(done.code, Some(1), "{}", done.stderr);
        assert!(done.stderr.contains(wanted), "{}", done.stderr);
    };
    refused(&other, "judge both on the same questions");
    refused(&unfinished, "is not finished: 4 questions are left");
    refused(&text(folder.path()), "cannot read the run's file");
    refused(&text(&at("none.csv")), "cannot read the scores");
}
