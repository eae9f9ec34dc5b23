//! `cvbench` from the command line: built out of a small world, shown, scored, revised.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use common::{opabinia, text};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A CV-Bench out of a world of 40 scenes.
struct Ground {
    folder: TempDir,
}

impl Ground {
    fn new() -> Self {
        let ground = Self {
            folder: TempDir::new().unwrap(),
        };
        let world = ground.path("world");
        let made = "world make --pictures 1 --test 40 --texts 0 --mix scene=1 --seed 4";
        let mut arguments: Vec<&str> = made.split(' ').collect();
        arguments.insert(2, &world);
        opabinia(&arguments).ok();
        fs::write(
            ground.path("rules.toml"),
            "[targets]\ncount = 20\nrelation = 16\ndepth = 10\ndistance = 10\n",
        )
        .unwrap();
        ground
    }

    fn path(&self, name: &str) -> String {
        text(&self.folder.path().join(name))
    }

    fn build(&self, out: &str, more: &[&str]) -> common::Run {
        let (world, rules, out) = (self.path("world"), self.path("rules.toml"), self.path(out));
        let mut arguments = vec![
            "cvbench", "build", &out, "--world", &world, "--rules", &rules,
        ];
        arguments.extend(more);
        opabinia(&arguments)
    }
}

/// Answers to every question of a folder: the right letter to all but the first `wrong`.
fn answers(bench: &Path, wrong: usize) -> String {
    let mut lines = String::new();
    let mut count = 0;
    for stem in ["test_2d", "test_3d"] {
        let text = fs::read_to_string(bench.join(format!("{stem}.jsonl"))).unwrap();
        for line in text.lines() {
            let question: Value = serde_json::from_str(line).unwrap();
            let right = question["answer"].as_str().unwrap();
            let said = if count < wrong { "none of them" } else { right };
            count += 1;
            writeln!(lines, "{}", json!({"idx": question["idx"], "answer": said})).unwrap();
        }
    }
    lines
}

#[test]
fn a_world_is_built_shown_and_scored() {
    let ground = Ground::new();
    let run = ground.build("bench", &[]).ok();
    for word in [
        "no_clear_axis",
        "within_offset",
        "chosen",
        "COCO_World",
        "Omni3D_World",
        "all                             56",
    ] {
        assert!(run.stdout.contains(word), "`{word}`\n{}", run.everything());
    }
    let bench = PathBuf::from(ground.path("bench"));
    for file in [
        "test_2d.parquet",
        "test_3d.jsonl",
        "report.json",
        "rules.toml",
    ] {
        assert!(bench.join(file).is_file(), "{file}");
    }
    let shown = opabinia(&["cvbench", "show", &text(&bench), "--json"])
        .quiet()
        .json();
    assert_eq!(shown["questions"], 56);
    ground
        .build("bench", &[])
        .fails_with(1, &["is there already", "hint: `--force`"]);
    ground
        .build("bench", &["--force", "--seed", "9", "--json"])
        .ok();

    let file = ground.path("answers.jsonl");
    fs::write(&file, answers(&bench, 0)).unwrap();
    let score = |more: &[&str]| {
        let mut arguments = vec!["cvbench", "score", &file];
        arguments.extend(more);
        opabinia(&arguments)
    };
    let bench = text(&bench);
    let all = score(&["--questions", &bench, "--json"]).quiet().json();
    let figure = |name: &str| {
        let mut figures = all[0]["figures"].as_array().unwrap().iter();
        figures
            .find(|figure| figure["name"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(figure("overall")["value"], 100.0);
    assert_eq!(figure("3D")["chance"], 50.0);
    score(&[]).fails_with(
        1,
        &["line 1", "what is right is not known", "hint: `--questions"],
    );
    let lines = answers(Path::new(&bench), 5);
    fs::write(&file, lines.lines().skip(1).collect::<Vec<_>>().join("\n")).unwrap();
    score(&["--questions", &bench]).fails_with(
        1,
        &["1 of 56 questions have no answer", "hint: `--partial`"],
    );
    let partial = score(&["--questions", &bench, "--partial"]).quiet();
    for words in ["55 answers, 4 unparsed", "1 left out", "task/Distance"] {
        assert!(partial.stdout.contains(words), "{}", partial.everything());
    }
}

/// A run that was asked again with other settings holds records that count no more.
#[test]
fn a_run_is_scored_by_its_current_records() {
    let ground = Ground::new();
    ground.build("data/world-cvbench", &[]).ok();
    let (data, run, model) = (
        ground.path("data"),
        ground.path("run"),
        text(&common::model()),
    );
    let cache = ground.path("pictures");
    let eval = |more: &[&str]| {
        let arguments = [
            "eval",
            "--benchmarks",
            "world-cvbench",
            "--data",
            &data,
            "--out",
            &run,
            "--model",
            &model,
            "--picture-cache",
            &cache,
            "--vision",
            "on",
            "--limit",
            "40",
        ];
        opabinia(&[&arguments[..], more].concat()).ok();
    };
    eval(&["--max-new-tokens", "2"]);
    eval(&["--max-new-tokens", "1"]);
    let records = Path::new(&run).join("records.jsonl");
    let lines = fs::read_to_string(&records).unwrap();
    assert_eq!(lines.lines().count(), 80);
    let scored = opabinia(&["cvbench", "score", &run, "--json"])
        .quiet()
        .json();
    assert_eq!(
        (&scored[0]["answers"], &scored[0]["vision"]),
        (&json!(40), &json!("on"))
    );
    let summary = common::read_json(&Path::new(&run).join("summary.json"));
    assert_eq!(summary["superseded"], 40);
    // Both lines of a question say what was answered; the last one counts.
    let current: Vec<Value> = lines
        .lines()
        .skip(40)
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let right: f64 = current
        .iter()
        .map(|record| record["score"].as_f64().unwrap())
        .sum();
    let micro = scored[0]["figures"].as_array().unwrap().iter();
    let micro = micro
        .clone()
        .find(|figure| figure["name"] == "micro")
        .unwrap();
    assert!((micro["value"].as_f64().unwrap() - 100.0 * right / 40.0).abs() < 1e-9);

    let all: Vec<&str> = lines.lines().collect();
    fs::write(&records, all[..79].join("\n") + "\n").unwrap();
    opabinia(&["cvbench", "score", &run])
        .fails_with(1, &["1 questions are left", "hint: `--partial`"]);
    let partial = opabinia(&["cvbench", "score", &run, "--partial"]).quiet();
    assert!(
        partial.stdout.contains("39 answers"),
        "{}",
        partial.everything()
    );
}

/// TOML's integers have a sign.
#[test]
fn a_seed_that_no_rules_can_hold_is_refused() {
    let ground = Ground::new();
    ground
        .build("bench", &["--seed", "9223372036854775808"])
        .fails_with(1, &["the rule `seed` is 9223372036854775808"]);
    ground
        .build("bench", &["--seed", "9223372036854775807"])
        .ok();
    let rules = fs::read_to_string(Path::new(&ground.path("bench")).join("rules.toml")).unwrap();
    assert!(rules.starts_with("seed = 9223372036854775807\n"), "{rules}");
}

#[test]
fn decisions_of_people_are_never_deleted_and_never_invented() {
    let ground = Ground::new();
    // A slash at the end is how a shell completes the name of a folder.
    ground.build("bench/", &[]).ok();
    ground.build("bench/", &["--force"]).ok();
    let (bench, out) = (ground.path("bench"), ground.path("out"));
    assert!(Path::new(&bench).join("report.json").is_file());
    opabinia(&["cvbench", "revise", &bench, &out])
        .fails_with(1, &["there are no decisions", "review.sqlite", "hint:"]);
    fs::write(Path::new(&bench).join("review.sqlite"), "").unwrap();
    ground
        .build("bench", &["--force"])
        .fails_with(1, &["holds the decisions of a review"]);
}

#[test]
fn wrong_arguments_are_refused() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| text(&folder.path().join(name));
    let out = path("out");
    opabinia(&["cvbench", "build", &out])
        .fails_with(1, &["nothing to build from", "hint: name some"]);
    let missing = ["cvbench", "build", &out, "--world", &path("none")];
    opabinia(&missing).fails_with(1, &["none/test/annotations", "--no-annotations"]);
    let missing = [
        "cvbench",
        "build",
        &out,
        "--omni3d",
        &path("none.json"),
        "--omni3d-pictures",
        &out,
    ];
    opabinia(&missing).fails_with(1, &["cannot read annotations", "none.json"]);
    opabinia(&["cvbench", "build", &out, "--coco", "x.json"]).fails_with(2, &["--coco-pictures"]);
    fs::write(path("rules.toml"), "[depth]\nmeters = 1\n").unwrap();
    let rules = ["cvbench", "build", &out, "--rules", &path("rules.toml")];
    opabinia(&rules).fails_with(1, &["are no rules", "meters"]);
    opabinia(&["cvbench", "show", &path("")]).fails_with(1, &["test_2d", "hint: a CV-Bench"]);
    assert!(!Path::new(&out).exists());
}
