//! Benchmarks whose questions come from the hub, against a server on this machine that imitates it.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "../../weights/tests/imitated_hub/mod.rs"]
mod imitated_hub;
#[path = "common/quiz.rs"]
mod quiz;

use std::fs;

use common::{Run, program, run};
use imitated_hub::{COMMIT, Server};
use quiz::{QUIZ, Quiz};
use serde_json::json;

const NAME: &str = "tests/shapes";

/// A quiz whose questions are on the hub.
struct Hub {
    quiz: Quiz,
    server: Server,
}

impl Hub {
    fn new() -> Self {
        let quiz = Quiz::of(2);
        let names = ["test.jsonl", "pictures/square.png", "pictures/wide.png"];
        let read = |name: &str| fs::read(quiz.path("data/quiz").join(name)).unwrap();
        let contents = names.map(read);
        let mut files: Vec<(&str, &[u8])> = Vec::new();
        for (name, bytes) in names.into_iter().zip(&contents) {
            files.push((name, bytes));
        }
        files.push(("train.jsonl", b"not wanted"));
        fs::remove_dir_all(quiz.path("data/quiz")).unwrap();
        let source = format!("[[source]]\nhub = \"{NAME}\"");
        let definition = QUIZ.replace("[[source]]", &source);
        fs::write(quiz.path("quiz.toml"), definition).unwrap();
        let server = Server::start(NAME, &files, &[]);
        Self { quiz, server }
    }

    /// Reads the questions of a benchmark.
    fn show(&self, benchmark: &str, variables: &[(&str, &str)]) -> Run {
        let (data, cache) = (self.quiz.text("data"), self.quiz.text("cache"));
        let definitions = self.quiz.text("definitions");
        let mut arguments = vec![
            "eval",
            "show",
            benchmark,
            "--questions",
            "--json",
            "--data",
            &data,
            "--picture-cache",
            &cache,
        ];
        if self.quiz.path("definitions").exists() {
            arguments.extend(["--definitions", &definitions]);
        }
        let mut command = program(&arguments);
        command
            .env_remove("HF_HUB_OFFLINE")
            .env("HF_HOME", self.quiz.path("hub"))
            .env("HF_ENDPOINT", &self.server.endpoint);
        for (name, value) in variables {
            command.env(name, value);
        }
        run(command, b"")
    }
}

#[test]
fn questions_are_fetched_once_and_recorded() {
    let hub = Hub::new();
    let file = hub.quiz.text("quiz.toml");
    hub.server.set(|b| b.drop_after = Some(100));
    let shown = hub.show(&file, &[]).ok().json();
    assert_eq!(shown["counts"]["scored"], 4);
    assert_eq!(shown["files"][0]["hub"], format!("{NAME}@{COMMIT}"));
    assert_eq!(shown["files"][0]["sha256"].as_str().unwrap().len(), 64);
    let log = hub.server.behaviour().log.clone();
    let resumed = log
        .iter()
        .filter(|(_, range)| range == "bytes=100-")
        .count();
    assert_eq!(
        resumed, 1,
        "what was cut off goes on where it broke: {log:?}"
    );
    assert!(
        !log.iter().any(|(path, _)| path.ends_with("train.jsonl")),
        "{log:?}"
    );
    // Pictures come before the rows that name them.
    let place = |name: &str| {
        log.iter()
            .position(|(path, _)| path.ends_with(name))
            .unwrap()
    };
    assert!(place("wide.png") < place("/test.jsonl"));
    let reference = "hub/hub/datasets--tests--shapes/refs/main";
    assert_eq!(
        fs::read_to_string(hub.quiz.path(reference)).unwrap(),
        COMMIT
    );

    let requests = hub.server.requests();
    for variables in [&[][..], &[("HF_HUB_OFFLINE", "1")]] {
        assert_eq!(hub.show(&file, variables).ok().json(), shown);
    }
    assert_eq!(
        hub.server.requests(),
        requests,
        "what is there is not asked for"
    );
}

#[test]
fn a_data_set_names_its_benchmark() {
    let hub = Hub::new();
    let definitions = hub.quiz.path("definitions");
    fs::create_dir(&definitions).unwrap();
    fs::copy(hub.quiz.path("quiz.toml"), definitions.join("quiz.toml")).unwrap();
    let shown = hub.show(&format!("hub:{NAME}"), &[]).ok().json();
    assert_eq!(
        (&shown["name"], &shown["counts"]["scored"]),
        (&json!("quiz"), &json!(4))
    );
    let pinned = hub.show(&format!("hub:{NAME}@{COMMIT}"), &[]).ok().json();
    assert_eq!(pinned["source"][0]["revision"], COMMIT);
    hub.show("hub:tests/nothing", &[]).fails_with(
        1,
        &["no benchmark has its questions in `tests/nothing`", "hint:"],
    );
    hub.show("hub:lmms-lab/DocVQA@main", &[]).fails_with(
        1,
        &[
            "docvqa-val (config DocVQA, split validation)",
            "for another revision copy its definition",
        ],
    );
    hub.show("hub:nyu-visionx/CV-Bench", &[]).fails_with(
        1,
        &[
            "`hub:nyu-visionx/CV-Bench` could be any of 6 benchmarks",
            "cv-bench-2d (",
            "hint: name the one that is meant",
            "`--benchmarks cv-bench`",
        ],
    );
}

#[test]
fn what_cannot_be_fetched_says_why() {
    let hub = Hub::new();
    let file = hub.quiz.text("quiz.toml");
    hub.show(&file, &[("HF_HUB_OFFLINE", "1")]).fails_with(
        1,
        &[
            "are not here",
            NAME,
            "hint: HF_HUB_OFFLINE forbids fetching",
            "--data",
        ],
    );
    assert_eq!(hub.server.requests(), 0);
    hub.server.set(|b| b.token = Some("secret".to_owned()));
    hub.show(&file, &[])
        .fails_with(1, &["cannot fetch", "HTTP 401", "set HF_TOKEN"]);
    hub.show(&file, &[("HF_TOKEN", "wrong")])
        .fails_with(1, &["the token in use does not give access"]);
    hub.show(&file, &[("HF_TOKEN", "secret")]).ok();
    let other = fs::read_to_string(&file)
        .unwrap()
        .replace(NAME, "tests/gone");
    fs::write(&file, other).unwrap();
    hub.server.set(|b| b.token = None);
    hub.show(&file, &[])
        .fails_with(1, &["cannot fetch", "`tests/gone`", "the hub has no"]);
}
