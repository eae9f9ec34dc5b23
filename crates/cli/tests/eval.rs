//! `opabinia eval`: scores of the golden model, whose answers are nonsense.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Run, model, opabinia, picture, read_json, text};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Four questions about two pictures.
struct Benchmark {
    folder: TempDir,
}

impl Benchmark {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["square", "wide"] {
            let to = folder.path().join(format!("{name}.png"));
            fs::copy(picture(name), to).unwrap();
        }
        let benchmark = Self { folder };
        benchmark.write(&[0, 1, 2, 3].map(question));
        benchmark
    }

    fn write(&self, questions: &[Value]) {
        let lines: String = questions.iter().map(|line| format!("{line}\n")).collect();
        fs::write(self.path("questions.jsonl"), lines).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn eval(&self, more: &[&str]) -> Run {
        let questions = text(&self.path("questions.jsonl"));
        let (model, run) = (text(&model()), text(&self.path("run")));
        let mut arguments = vec!["eval", &questions, "--model", &model, "--out", &run];
        arguments.extend(["--max-new-tokens", "2"]);
        arguments.extend(more);
        opabinia(&arguments)
    }

    fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("run/records.jsonl")).unwrap();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn question(i: usize) -> Value {
    let (image, task) = [("square", "check"), ("wide", "count")][i / 2];
    json!({
        "id": format!("q{i}"), "image": format!("{image}.png"), "group": "general", "task": task,
        "question": "Is there a ball?", "choices": null, "answer": "yes", "chance": 0.5,
    })
}

#[test]
fn a_table_a_folder_and_a_page_are_written() {
    let benchmark = Benchmark::new();
    let page = text(&benchmark.path("card.md"));
    let run = benchmark
        .eval(&["--markdown", &page, "--name", "tiny"])
        .ok();
    let run = run.mentions(&["visual gain = score", "12 asked now", "0 earlier", "cut at"]);
    // The same question four times: beside two pictures, which are also the wrong ones, and without.
    let run = run.mentions(&["9 of them answered already"]);
    for words in [
        "score",
        "without picture",
        "wrong picture",
        "all",
        "\n  count",
    ] {
        assert!(run.stdout.contains(words), "{}", run.everything());
    }
    assert!(!run.stdout.contains("blank"), "{}", run.everything());
    let summary = read_json(&benchmark.path("run/summary.json"));
    assert_eq!(summary["model"], "tiny");
    assert_eq!(summary["rows"][0]["scores"]["shuffled"]["n"], 4);
    assert_eq!(
        summary["rows"][0]["visual_gain"], -0.5,
        "nonsense is below chance"
    );
    let description = read_json(&benchmark.path("run/run.json"));
    let ways = description["sets"][0]["ways"].as_object().unwrap();
    assert_eq!(ways.len(), 3);
    assert_eq!(ways["on"]["wanted"], json!([[0, 4]]));
    assert!(description["stamps"]["preprocessing"].is_string());
    let records = benchmark.records();
    assert_eq!(records.len(), 12);
    let keys = [
        "id",
        "prompt",
        "prompt_sha256",
        "picture",
        "own_picture",
        "extracted",
        "answer",
        "expected",
        "score",
        "seconds",
    ];
    for record in &records {
        assert!(keys.iter().all(|key| record.get(key).is_some()), "{record}");
    }
    let page = fs::read_to_string(page).unwrap();
    assert!(page.starts_with("| questions | n | score |"), "{page}");
}

#[test]
fn a_run_goes_on() {
    let benchmark = Benchmark::new();
    let flags = ["--vision", "on,blank", "--json", "--workers", "2"];
    let limited = [&flags[..], &["--limit", "2"]].concat();
    let first = benchmark.eval(&limited).ok().mentions(&["4 asked now"]);
    assert_eq!(first.json()["rows"][0]["n"], 2);
    let second = benchmark.eval(&flags).ok();
    let second = second.mentions(&["4 asked now", "4 earlier"]).json();
    assert_eq!(second["rows"][0]["scores"]["blank"]["n"], 4);
    assert_eq!(second["rows"][0]["visual_gain"], Value::Null);
    let part = [&flags[..], &["--shard", "2/2"]].concat();
    let part = benchmark.eval(&part).ok().mentions(&["0 asked now"]);
    assert_eq!(
        part.json()["rows"][0]["n"],
        4,
        "the summary is of the whole folder"
    );
    let summary = read_json(&benchmark.path("run/summary.json"));
    assert_eq!(
        (&summary["wanted"], &summary["unfinished"]),
        (&json!(8), &json!(0))
    );
    let commands = read_json(&benchmark.path("run/run.json"))["invocations"].clone();
    assert_eq!(commands.as_array().unwrap().len(), 3);
    assert_eq!(benchmark.records().len(), 8);
}

#[test]
fn a_damaged_picture_fails_the_run_but_not_the_rest() {
    let benchmark = Benchmark::new();
    fs::write(benchmark.path("wide.png"), b"\x89PNG\r\n\x1a\nnothing").unwrap();
    let run = benchmark.eval(&["--vision", "on", "--json"]);
    assert_eq!(run.code, Some(1), "{}", run.everything());
    let run = run.mentions(&[
        "error: 2 questions could not be asked",
        "q3 (on)",
        "wide.png",
    ]);
    assert_eq!(run.json()["failed"], 2);
    assert_eq!(benchmark.records().len(), 4);
}

#[test]
fn mistakes_are_named() {
    let benchmark = Benchmark::new();
    benchmark
        .eval(&["--vision", "of"])
        .fails_with(2, &["'of'", "off"]);
    benchmark
        .eval(&["--shard", "3/2"])
        .fails_with(2, &["--shard", "second of four"]);
    benchmark
        .eval(&["--limit", "0"])
        .fails_with(1, &["`limit` is 0"]);
    opabinia(&["eval", "no-such.jsonl"]).fails_with(1, &["questions `no-such.jsonl`"]);

    let mut bad = question(1);
    bad["chance"] = json!("half");
    benchmark.write(&[question(0), bad]);
    benchmark
        .eval(&[])
        .fails_with(1, &["questions.jsonl:2: not a question", "\"half\""]);
    benchmark.write(&[question(0), question(0)]);
    benchmark
        .eval(&[])
        .fails_with(1, &["questions.jsonl:2", "`q0`, which line 1 has"]);
    benchmark.write(&[question(0), question(1)]);
    benchmark
        .eval(&[])
        .fails_with(1, &["have the same picture", "leave out `shuffled`"]);
    benchmark.eval(&["--vision", "on", "--json"]).ok();

    fs::write(benchmark.path("run/records.jsonl"), "half a rec\n").unwrap();
    benchmark
        .eval(&["--vision", "on"])
        .fails_with(1, &["records.jsonl:1", "asked again"]);
    let other = text(benchmark.folder.path());
    let flags = ["--vision", "on", "--out", &other];
    let questions = text(&benchmark.path("questions.jsonl"));
    let model = text(&model());
    let mut arguments = vec!["eval", &questions, "--model", &model];
    arguments.extend(flags);
    opabinia(&arguments).fails_with(1, &["holds other files"]);
}
