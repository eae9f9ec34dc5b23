//! `opabinia eval --benchmarks`: a benchmark of one's own, asked of the golden model, whole, in parts,
//! killed, merged, compared; and everything that can be wrong with it.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "common/quiz.rs"]
mod quiz;

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use common::{model, opabinia, program, read_json, text};
use quiz::{QUIZ, Quiz};
use serde_json::{Value, json};

/// Scores and counts, which must not depend on how the work was divided.
fn scores(quiz: &Quiz, out: &str) -> (Value, Value) {
    let summary = read_json(&quiz.path(out).join("summary.json"));
    (summary["rows"].clone(), summary["sets"].clone())
}

/// All that a record says, without what a clock wrote, by question and way of asking.
fn timeless(quiz: &Quiz, out: &str) -> BTreeMap<String, Value> {
    let records = quiz.records(out).into_iter();
    let timeless = records.map(|mut record| {
        record.as_object_mut().unwrap().remove("seconds");
        (format!("{} {}", record["id"], record["vision"]), record)
    });
    timeless.collect()
}

#[test]
fn a_benchmark_is_one_file() {
    let quiz = Quiz::of(2);
    let run = quiz.eval("run", &[]).ok();
    let run = run.mentions(&["12 asked now", "0 earlier", "visual gain"]);
    for words in ["Quiz", "\n  even", "\n  odd", "wrong picture"] {
        assert!(run.stdout.contains(words), "{}", run.everything());
    }
    let records = quiz.records("run");
    assert_eq!(records.len(), 12);
    for record in &records {
        assert_eq!(record["benchmark"], "quiz");
        assert_eq!(record["group"], "vision_centric");
        assert!(
            record["prompt"]
                .as_str()
                .unwrap()
                .ends_with("?\nAnswer yes or no.")
        );
        for key in [
            "task",
            "unit",
            "own_picture",
            "extracted",
            "parsed",
            "score",
            "asked",
        ] {
            assert!(!record[key].is_null(), "{key} in {record}");
        }
    }
    let description = read_json(&quiz.path("run/run.json"));
    let set = &description["sets"][0];
    assert_eq!(set["rules"]["protocol"], "standard");
    assert_eq!(set["counts"]["rows"], 4);
    assert_eq!(set["files"][0]["path"], "test.jsonl");
    let summary = read_json(&quiz.path("run/summary.json"));
    assert_eq!(summary["rows"][0]["chance"], 0.25, "of pairs");
    assert_eq!(summary["sets"][0]["ways"]["on"]["scored"], 4);
    assert!(
        summary["performance"]["questions_per_second"]
            .as_f64()
            .unwrap()
            > 0.0
    );

    quiz.eval("run", &[])
        .ok()
        .mentions(&["0 asked now", "12 earlier"]);
    // The other protocol judges the same answers.
    quiz.eval("run", &["--protocol", "reference"])
        .ok()
        .mentions(&["12 asked now (12 of them answered already)"]);
    let description = read_json(&quiz.path("run/run.json"));
    assert_eq!(description["sets"][0]["rules"]["protocol"], "reference");
    let summary = read_json(&quiz.path("run/summary.json"));
    assert_eq!(summary["superseded"], 12);
}

/// The machine that merges has neither questions nor definition.
#[test]
fn merged_shards_make_the_file_for_the_server() {
    let quiz = Quiz::of(4);
    let table = "\n[submission]\nformat = \"json-list\"\nanswer = \"said\"\n\
                 fields = [{ name = \"question\", value = \"id\" }]\n";
    fs::write(quiz.path("quiz.toml"), format!("{QUIZ}{table}")).unwrap();
    let file = |out: &str| quiz.path(out).join("submission-quiz.json");
    quiz.eval("whole", &["--vision", "on"])
        .ok()
        .mentions(&["for the benchmark's server", "submission-quiz.json"]);
    for part in ["1/2", "2/2"] {
        let out = part.replace('/', "-");
        quiz.eval(&out, &["--vision", "on", "--shard", part]).ok();
        assert!(!file(&out).exists(), "half of it is no file for a server");
    }
    fs::remove_dir_all(quiz.path("data")).unwrap();
    fs::remove_file(quiz.path("quiz.toml")).unwrap();
    let (one, two, out) = (quiz.text("1-2"), quiz.text("2-2"), quiz.text("merged"));
    opabinia(&["eval", "merge", &one, &two, "--out", &out])
        .ok()
        .mentions(&["for the benchmark's server", "merged/submission-quiz.json"]);
    let merged = read_json(&file("merged"));
    assert_eq!(merged, read_json(&file("whole")));
    assert_eq!(merged.as_array().unwrap().len(), 8);
    assert_eq!(merged[3]["question"], "q3");
    assert!(merged[3]["said"].is_string());
}

#[test]
fn batches_and_kept_features_change_nothing() {
    let quiz = Quiz::of(2);
    let features = quiz.text("features");
    quiz.eval("alone", &[]).ok();
    let more = ["--batch", "8", "--feature-cache", &features];
    quiz.eval("first", &more).ok();
    quiz.eval("second", &more)
        .ok()
        .mentions(&["2 times a picture's features were in the cache"]);
    for out in ["first", "second"] {
        assert_eq!(timeless(&quiz, out), timeless(&quiz, "alone"));
    }
    quiz.eval("none", &["--batch", "0"])
        .fails_with(1, &["`batch` is 0"]);
}

#[test]
fn parts_and_workers_change_nothing() {
    let quiz = Quiz::of(4);
    quiz.eval("whole", &["--workers", "1"]).ok();
    quiz.eval("many", &["--workers", "3"]).ok();
    assert_eq!(timeless(&quiz, "whole"), timeless(&quiz, "many"));
    for part in ["1/2", "2/2"] {
        quiz.eval(&part.replace('/', "-"), &["--shard", part]).ok();
    }
    let merged = opabinia(&[
        "eval",
        "merge",
        &quiz.text("1-2"),
        &quiz.text("2-2"),
        "--out",
        &quiz.text("merged"),
    ]);
    let merged = merged.ok().mentions(&["24 of 24 questions are there"]);
    assert!(merged.stdout.contains("Quiz"), "{}", merged.everything());
    assert_eq!(scores(&quiz, "merged"), scores(&quiz, "whole"));
    assert_eq!(timeless(&quiz, "merged"), timeless(&quiz, "whole"));

    let again = [
        "eval",
        "merge",
        &quiz.text("1-2"),
        "--out",
        &quiz.text("merged"),
    ];
    opabinia(&again).fails_with(1, &["exists; name a new folder"]);
    quiz.eval("other", &["--max-new-tokens", "3"]).ok();
    let mixed = [
        "eval",
        "merge",
        &quiz.text("1-2"),
        &quiz.text("other"),
        "--out",
        &quiz.text("mixed"),
    ];
    opabinia(&mixed).fails_with(1, &["other settings for `on` (max new tokens)"]);
    quiz.eval("judged", &["--protocol", "reference"]).ok();
    let mixed = [
        "eval",
        "merge",
        &quiz.text("1-2"),
        &quiz.text("judged"),
        "--out",
        &quiz.text("mixed"),
    ];
    opabinia(&mixed).fails_with(
        1,
        &[
            "other questions or rules",
            "protocol standard and reference",
        ],
    );
}

#[test]
fn a_killed_run_asks_nothing_twice() {
    let quiz = Quiz::of(6);
    // Long answers, so that there is time to kill.
    let long = ["--max-new-tokens", "48", "--workers", "1"];
    quiz.eval("whole", &long).ok();
    let mut arguments = quiz.arguments("killed", &long);
    arguments.extend(["--model".to_owned(), text(&model())]);
    let records = quiz.path("killed/records.jsonl");
    let lines = || fs::read_to_string(&records).map_or(0, |text| text.lines().count());
    for before in [3, 10] {
        let mut command = program(&arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        while lines() < before && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(lines() < 36, "killed after {before} answers, and yet done");
    }
    let rest = quiz.eval("killed", &long).ok();
    assert!(
        !rest.stderr.contains("36 asked now"),
        "{}",
        rest.everything()
    );
    let found = quiz.records("killed");
    assert_eq!(found.len(), 36, "every question once");
    assert_eq!(timeless(&quiz, "killed"), timeless(&quiz, "whole"));
    assert_eq!(scores(&quiz, "killed"), scores(&quiz, "whole"));
    let asked = found.iter().filter(|record| record["reused"] != true);
    let mut asked: Vec<&str> = asked
        .map(|record| record["asked"].as_str().unwrap())
        .collect();
    let count = asked.len();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), count, "no prompt was read twice");
}

#[test]
fn a_limit_takes_whole_pairs() {
    let quiz = Quiz::of(3);
    let run = quiz
        .eval("run", &["--limit", "3", "--vision", "on", "--json"])
        .ok();
    assert_eq!(run.json()["rows"][0]["n"], 4);
    let all = quiz.eval("run", &["--vision", "on", "--json"]).ok();
    let all = all.mentions(&["2 asked now", "4 earlier"]).json();
    assert_eq!(all["rows"][0]["n"], 6);
}

#[test]
fn bad_rows_are_counted_and_listed() {
    let quiz = Quiz::of(4);
    let mut rows: Vec<Value> = (0..8).map(Quiz::row).collect();
    rows[1]["id"] = json!("q0");
    rows[2]["image"] = json!("no.png");
    rows[4].as_object_mut().unwrap().remove("answer");
    quiz.write_rows(&rows);
    let run = quiz.eval("run", &["--vision", "on", "--json"]).ok();
    let run = run.mentions(&["quiz: 6 of 8 rows are faulty", "duplicate id"]);
    let summary = run.json();
    let counts = &summary["sets"][0]["counts"];
    assert_eq!((&counts["rows"], &counts["faulty"]), (&json!(8), &json!(6)));
    let sum = ["left_out", "faulty", "scored", "submission_only"];
    let sum: u64 = sum.iter().map(|key| counts[*key].as_u64().unwrap()).sum();
    assert_eq!(sum, 8);
    let faults = &read_json(&quiz.path("run/run.json"))["sets"][0]["faults"];
    let kinds: Vec<&str> = faults
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| fault["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "duplicate_id",
            "missing_picture",
            "missing_column",
            "incomplete_unit",
            "incomplete_unit",
            "incomplete_unit",
        ]
    );
}

#[test]
fn a_picture_that_does_not_decode_is_a_counted_failure() {
    let quiz = Quiz::of(2);
    let wide = quiz.path("data/quiz/pictures/wide.png");
    let whole = fs::read(&wide).unwrap();
    fs::write(&wide, &whole[..whole.len() / 2]).unwrap();
    let run = quiz.eval("run", &["--vision", "on,off", "--json"]);
    assert_eq!(run.code, Some(1), "{}", run.everything());
    let run = run.mentions(&[
        "error: 2 questions could not be asked",
        "quiz/q2 (on)",
        "wide.png",
    ]);
    let summary = run.json();
    let way = &summary["sets"][0]["ways"]["on"];
    assert_eq!((&way["scored"], &way["failed"]), (&json!(2), &json!(2)));
    assert_eq!(summary["sets"][0]["ways"]["off"]["scored"], 4);
    // Mended, it is another benchmark with the same text.
    fs::write(&wide, whole).unwrap();
    let run = quiz.eval("run", &["--vision", "on,off", "--json"]).ok();
    assert_eq!(run.json()["failed"], 0);
}

#[test]
fn mistakes_are_named() {
    let quiz = Quiz::of(2);
    let run = |quiz: &Quiz| quiz.eval("run", &["--vision", "on"]);
    let rows: Vec<Value> = (0..4).map(Quiz::row).collect();
    let without: Vec<Value> = rows
        .iter()
        .map(|row| {
            let mut row = row.clone();
            let question = row.as_object_mut().unwrap().remove("question").unwrap();
            row["questions"] = question;
            row
        })
        .collect();
    quiz.write_rows(&without);
    run(&quiz).fails_with(1, &["no column `question`", "did you mean `questions`?"]);
    let odd = rows.iter().map(|row| {
        let mut row = row.clone();
        row["answer"] = json!({"is": "yes"});
        row
    });
    quiz.write_rows(&odd.collect::<Vec<_>>());
    run(&quiz).fails_with(1, &["has no questions", "wrong type"]);
    fs::write(quiz.path("data/quiz/test.jsonl"), "nonsense\n").unwrap();
    run(&quiz).fails_with(1, &["test.jsonl:1"]);
    fs::remove_dir_all(quiz.path("data/quiz")).unwrap();
    run(&quiz).fails_with(
        1,
        &[
            "the questions of `quiz` are not here",
            "hint: `--data FOLDER`",
        ],
    );
    fs::write(quiz.path("quiz.toml"), QUIZ.replace("suffix", "sufix")).unwrap();
    run(&quiz).fails_with(1, &["`sufix`", "did you mean `suffix`?"]);

    opabinia(&["eval"]).fails_with(2, &["QUESTIONS|--benchmarks"]);
    opabinia(&["eval", "q.jsonl", "--benchmarks", "gqa"]).fails_with(2, &["cannot be used with"]);
    let data = quiz.text("data");
    let eval = |name: &str| opabinia(&["eval", "--benchmarks", name, "--data", &data]);
    eval("gqq").fails_with(1, &["no benchmark `gqq`, did you mean `gqa`?", "eval list"]);
    eval("gqa").fails_with(1, &["the questions of `gqa` are not here", "lmms-lab/GQA"]);
}

#[test]
fn benchmarks_are_listed_and_shown() {
    let list = opabinia(&["eval", "list"]).ok();
    for words in [
        "mmvp",
        "MMVP",
        "vision_centric",
        "mmvp-pairs",
        "lmms-lab/GQA",
        "4377",
    ] {
        assert!(list.stdout.contains(words), "{words}: {}", list.stdout);
    }
    let all = opabinia(&["eval", "list", "--json"]).ok().json_lines();
    assert!(all.len() >= 26);
    assert!(all.iter().all(|one| one["scoring"]["scorer"].is_string()));

    let show = opabinia(&["eval", "show", "mmmu"]).quiet();
    for words in [
        "Options:",
        "reference",
        "row.",
        "parser of the benchmark's authors",
        "/mmmu/",
    ] {
        assert!(show.stdout.contains(words), "{words}: {}", show.stdout);
    }
    let toml = opabinia(&["eval", "show", "mmvp", "--toml"]).quiet();
    assert!(toml.stdout.contains("name = \"mmvp\""), "{}", toml.stdout);

    let quiz = Quiz::of(2);
    let (file, data, cache) = (
        quiz.text("quiz.toml"),
        quiz.text("data"),
        quiz.text("cache"),
    );
    let places = ["--data", &data, "--picture-cache", &cache];
    let show = [&["eval", "show", &file, "--questions"][..], &places].concat();
    let show = opabinia(&show).quiet();
    for words in [
        "Pairs of questions about shapes.",
        "4: 4 with an answer",
        "25.0 %",
        "<image>\n",
        "Is it number 0?",
        "of a unit all must be right",
    ] {
        assert!(show.stdout.contains(words), "{words}: {}", show.stdout);
    }
    let own = opabinia(&["eval", "list", "--definitions", &text(quiz.folder.path())]).ok();
    assert!(own.stdout.contains("Quiz"), "{}", own.stdout);
    let json = [
        &["eval", "show", &file, "--questions", "--json"][..],
        &places,
    ]
    .concat();
    assert_eq!(opabinia(&json).quiet().json()["chance"], 0.25);
}
