//! Benchmarks whose questions come from the hub, against a server on this machine that imitates it.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "common/quiz.rs"]
mod quiz;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use common::{Run, program, run};
use quiz::{QUIZ, Quiz};
use serde_json::{Value, json};

const NAME: &str = "tests/shapes";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the imitated hub has and does.
#[derive(Default)]
struct Behaviour {
    files: BTreeMap<String, Vec<u8>>,
    /// Closes the connection in the middle of a file, once.
    cut_once: bool,
    /// Wants this token.
    token: Option<&'static str>,
    /// Paths and ranges of the requests.
    log: Vec<(String, String)>,
}

/// A quiz whose questions are on the hub.
struct Hub {
    quiz: Quiz,
    endpoint: String,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl Hub {
    fn new() -> Self {
        let quiz = Quiz::of(2);
        let mut files = BTreeMap::new();
        for name in ["test.jsonl", "pictures/square.png", "pictures/wide.png"] {
            let bytes = fs::read(quiz.path("data/quiz").join(name)).unwrap();
            files.insert(name.to_owned(), bytes);
        }
        files.insert("train.jsonl".to_owned(), b"not wanted".to_vec());
        fs::remove_dir_all(quiz.path("data/quiz")).unwrap();
        let source = format!("[[source]]\nhub = \"{NAME}\"");
        let definition = QUIZ.replace("[[source]]", &source);
        fs::write(quiz.path("quiz.toml"), definition).unwrap();
        let behaviour = Arc::new(Mutex::new(Behaviour {
            files,
            ..Behaviour::default()
        }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::clone(&behaviour);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                // A client that goes away early is none of the server's business.
                thread::spawn(move || serve(&stream.unwrap(), &shared));
            }
        });
        Self {
            quiz,
            endpoint,
            behaviour,
        }
    }

    fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }

    fn requests(&self) -> usize {
        self.behaviour.lock().unwrap().log.len()
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
            .env("HF_ENDPOINT", &self.endpoint);
        for (name, value) in variables {
            command.env(name, value);
        }
        run(command, b"")
    }
}

fn serve(stream: &TcpStream, shared: &Mutex<Behaviour>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().unwrap()?;
    let path = request.split(' ').nth(1).unwrap();
    let path = path.split('?').next().unwrap().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        match line.split_once(": ") {
            Some((key, value)) => headers.insert(key.to_ascii_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let range = headers.get("range").cloned().unwrap_or_default();
    let mut behaviour = shared.lock().unwrap();
    behaviour.log.push((path.clone(), range.clone()));
    let mut out = stream;
    let mut answer = |status: &str, body: &str| {
        let length = body.len();
        write!(
            out,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    };
    let wanted = behaviour.token.map(|token| format!("Bearer {token}"));
    if wanted.is_some() && headers.get("authorization") != wanted.as_ref() {
        return answer("401 Unauthorized", "");
    }
    if path.starts_with(&format!("/api/datasets/{NAME}/revision/")) {
        let siblings = behaviour.files.iter().map(|(name, bytes)| {
            json!({"rfilename": name, "size": bytes.len(), "blobId": identity(name)})
        });
        let siblings: Vec<Value> = siblings.collect();
        let body = json!({"sha": COMMIT, "siblings": siblings}).to_string();
        return answer("200 OK", &body);
    }
    let start = format!("/datasets/{NAME}/resolve/{COMMIT}/");
    let name = path.strip_prefix(&start).map(str::to_owned);
    let file = name.and_then(|name| Some((identity(&name), behaviour.files.get(&name)?.clone())));
    let Some((id, bytes)) = file else {
        return answer("404 Not Found", "");
    };
    let numbers = range.strip_prefix("bytes=").and_then(|r| r.split_once('-'));
    let (from, to) = match numbers {
        Some((from, "")) => (from.parse().unwrap(), bytes.len()),
        Some((from, to)) => (from.parse().unwrap(), to.parse::<usize>().unwrap() + 1),
        None => (0, bytes.len()),
    };
    write!(
        out,
        "HTTP/1.1 206 Partial\r\nContent-Length: {}\r\nETag: \"{id}\"\r\nX-Repo-Commit: {COMMIT}\r\n\
         Content-Range: bytes {from}-{}/{}\r\nConnection: close\r\n\r\n",
        to - from,
        to - 1,
        bytes.len()
    )?;
    let mut part = &bytes[from..to];
    if part.len() > 100 && behaviour.cut_once {
        behaviour.cut_once = false;
        part = &part[..100];
    }
    out.write_all(part)
}

/// Forty digits that stand for git's.
fn identity(name: &str) -> String {
    let sum = name
        .bytes()
        .fold(7u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
    format!("{sum:040x}")
}

#[test]
fn questions_are_fetched_once_and_recorded() {
    let hub = Hub::new();
    let file = hub.quiz.text("quiz.toml");
    hub.set(|b| b.cut_once = true);
    let shown = hub.show(&file, &[]).ok().json();
    assert_eq!(shown["counts"]["scored"], 4);
    assert_eq!(shown["files"][0]["hub"], format!("{NAME}@{COMMIT}"));
    assert_eq!(shown["files"][0]["sha256"].as_str().unwrap().len(), 64);
    let log = hub.behaviour.lock().unwrap().log.clone();
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

    let requests = hub.requests();
    for variables in [&[][..], &[("HF_HUB_OFFLINE", "1")]] {
        assert_eq!(hub.show(&file, variables).ok().json(), shown);
    }
    assert_eq!(hub.requests(), requests, "what is there is not asked for");
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
    assert_eq!(hub.requests(), 0);
    hub.set(|b| b.token = Some("secret"));
    hub.show(&file, &[])
        .fails_with(1, &["cannot fetch", "HTTP 401", "set HF_TOKEN"]);
    hub.show(&file, &[("HF_TOKEN", "wrong")])
        .fails_with(1, &["the token in use does not give access"]);
    hub.show(&file, &[("HF_TOKEN", "secret")]).ok();
    let other = fs::read_to_string(&file)
        .unwrap()
        .replace(NAME, "tests/gone");
    fs::write(&file, other).unwrap();
    hub.set(|b| b.token = None);
    hub.show(&file, &[])
        .fails_with(1, &["cannot fetch", "`tests/gone`", "the hub has no"]);
}
