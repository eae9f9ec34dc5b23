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
    // By whose rules: on the terminal, in the report, in the numbers.
    assert!(
        done.stderr.contains("benchmark  protocol  questions"),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("count      standard  2"),
        "{}",
        done.stderr
    );
    let page = fs::read_to_string(at("out").join("report.html")).unwrap();
    assert!(page.contains("standard protocol"), "the header says so");
    assert!(page.contains("<section id=\"rules\">"));
    assert_eq!(found["table"]["runs"][1]["protocol"], "standard");
}

/// From pictures to the report: the shipped model is asked about a small world, with and without the
/// pictures, beside a model that knows nothing, and `analyze` draws what both runs hold.
#[test]
fn the_shipped_model_is_judged_and_analysed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let world = text(&at("world"));
    let make = [
        "world",
        "make",
        &world,
        "--pictures",
        "1",
        "--test",
        "6",
        "--texts",
        "0",
        "--mix",
        "scene=1",
        "--side",
        "128",
        "--seed",
        "3",
    ];
    opabinia(&make).ok();
    let questions = text(&at("world").join("test/questions.jsonl"));
    let eval = |model: &Path, name: &str| -> String {
        let (out, model) = (text(&at(name)), text(model));
        let flags = [
            "--name", name, "--out", &out, "--limit", "24", "--vision", "on,off",
        ];
        let arguments = [&["eval", &questions, "--model", &model][..], &flags].concat();
        let run = opabinia(&arguments).ok();
        assert!(
            run.stdout.contains("judged by the standard protocol"),
            "{}",
            run.everything()
        );
        out
    };
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/small");
    let runs = [eval(&shipped, "small"), eval(&common::model(), "tiny")];
    let out = at("out");
    let drawn = text(&out);
    let done = opabinia(&[
        "analyze",
        &runs[0],
        &runs[1],
        "--out",
        &drawn,
        "--resamples",
        "100",
    ])
    .ok();

    // The numbers are those of the runs.
    let found = common::read_json(&out.join("analysis.json"));
    let summary = common::read_json(&at("small").join("summary.json"));
    let rows = summary["rows"].as_array().unwrap().iter();
    let tasks: Vec<_> = rows.filter(|row| row["task"].is_string()).collect();
    let benchmarks = found["table"]["benchmarks"].as_array().unwrap();
    assert_eq!(benchmarks.len(), tasks.len());
    let asked: u64 = benchmarks
        .iter()
        .map(|b| b["questions"].as_u64().unwrap())
        .sum();
    assert_eq!(asked, 24, "no question is lost");
    let model = &found["table"]["models"][0];
    assert_eq!(model["name"], "small");
    for task in tasks {
        let place = benchmarks
            .iter()
            .position(|b| b["name"] == task["task"])
            .unwrap();
        for vision in ["on", "off"] {
            let percent = model["scores"][vision][place].as_f64().unwrap();
            let share = task["scores"][vision]["mean"].as_f64().unwrap();
            assert!((percent - 100.0 * share).abs() < 1e-9, "{task}");
        }
    }
    // Two dozen questions make no strong claims.
    let everything = done.everything();
    assert!(
        everything.contains("not known") || everything.contains("does not decide"),
        "{everything}"
    );
    for claim in [
        "worth most on",
        "worse than guessing on",
        "can be answered blind",
        "stays first",
    ] {
        let claims = found["findings"].as_array().unwrap().iter();
        let mut claims = claims.filter(|f| f["text"].as_str().unwrap().contains(claim));
        let strong = claims.find(|f| f["support"] == "supported");
        assert_eq!(strong, None, "{everything}");
    }
    // Every file is there and says something.
    for file in ["report.html", "scores.json", "analysis.json"] {
        assert!(fs::metadata(out.join(file)).unwrap().len() > 500, "{file}");
    }
    for figure in ["vision_gaps", "ranking", "resolution"] {
        for kind in ["svg", "png", "csv", "json"] {
            let path = out.join(format!("plots/{figure}.{kind}"));
            assert!(
                fs::metadata(&path).unwrap().len() > 50,
                "{}",
                path.display()
            );
        }
    }
    // What was drawn is a table again.
    let scores = text(&out.join("scores.json"));
    let again = text(&at("again"));
    opabinia(&["analyze", &scores, "--out", &again, "--resamples", "100"]).ok();
}

/// What is judged by other rules, or is another question under the same id, is refused; other data is
/// listed.
#[test]
fn runs_that_only_look_alike_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let scores = [("1", 1.0, 0.0), ("2", 1.0, 1.0)];
    let first = run(&at("a"), "a", &scores, 0);
    let out = text(&at("out"));
    let changed = |name: &str, file: &str, from: &str, to: &str| {
        let path = run(&at(name), name, &scores, 0);
        let content = fs::read_to_string(at(name).join(file)).unwrap();
        assert!(content.contains(from), "{content}");
        fs::write(at(name).join(file), content.replace(from, to)).unwrap();
        opabinia(&[
            "analyze",
            &first,
            &path,
            "--out",
            &out,
            "--resamples",
            "100",
        ])
    };
    let expected = r#""expected":"2""#;
    changed("b", "records.jsonl", expected, r#""expected":"3""#).fails_with(
        1,
        &[
            "`1` has the answer `3` here and `2` there",
            "2 of 2 questions",
        ],
    );
    changed(
        "c",
        "records.jsonl",
        expected,
        r#""own_picture":"x","expected":"2""#,
    )
    .fails_with(1, &["`1` is about another picture"]);
    changed(
        "d",
        "records.jsonl",
        expected,
        r#""prompt":"x","expected":"2""#,
    )
    .fails_with(1, &["`1` is asked in other words"]);
    changed(
        "e",
        "run.json",
        r#""protocol":"standard""#,
        r#""protocol":"reference""#,
    )
    .fails_with(1, &["judged by the reference protocol", "the standard one"]);
    let stamps = r#""sha256":"q","stamps":{}"#;
    changed(
        "f",
        "run.json",
        stamps,
        r#""sha256":"q","stamps":{"data":"other"}"#,
    )
    .ok()
    .mentions(&["warning: count: data differs: nothing in ", "; other in "]);
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
