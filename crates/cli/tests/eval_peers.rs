//! `opabinia eval` with served models: one that is judged, one that judges, and their failures; and the
//! comparison of runs, whose answers are known here.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "common/quiz.rs"]
mod quiz;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use common::{Copy, Run, opabinia, read_json};
use quiz::Quiz;
use serde_json::{Value, json};

/// What a served model is asked.
struct Asked {
    text: String,
    has_picture: bool,
}

/// An answer, or a status.
type Answer = Result<String, u16>;

/// A model on this machine.
struct Server {
    url: String,
    requests: Arc<AtomicUsize>,
    bodies: Arc<Mutex<Vec<Value>>>,
}

impl Server {
    fn start(answer: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let (count, seen, answer) = (requests.clone(), bodies.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (count, seen, answer) = (count.clone(), seen.clone(), answer.clone());
                thread::spawn(move || {
                    let body = receive(&stream);
                    let asked = understand(&body);
                    seen.lock().unwrap().push(body);
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    respond(stream, answer(&asked, number));
                });
            }
        });
        Self {
            url,
            requests,
            bodies,
        }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn receive(stream: &TcpStream) -> Value {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let lower = line.trim().to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if lower.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap()
}

fn understand(body: &Value) -> Asked {
    let content = &body["messages"][0]["content"];
    match content.as_array() {
        None => Asked {
            text: content.as_str().unwrap().to_owned(),
            has_picture: false,
        },
        Some(parts) => Asked {
            text: parts[1]["text"].as_str().unwrap().to_owned(),
            has_picture: true,
        },
    }
}

fn respond(mut stream: TcpStream, answer: Answer) {
    let (status, body) = match answer {
        Ok(text) => {
            let choice = json!({"message": {"content": text}, "finish_reason": "stop"});
            let usage = json!({"prompt_tokens": 7, "completion_tokens": 1});
            (
                200,
                json!({"choices": [choice], "usage": usage}).to_string(),
            )
        }
        Err(status) => (status, "out of order".to_owned()),
    };
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

/// Number of the question.
fn number(asked: &Asked) -> usize {
    let behind = asked.text.split("number ").nth(1).unwrap();
    behind.split('?').next().unwrap().parse().unwrap()
}

/// Who sees is right; who sees nothing says yes.
fn seeing(asked: &Asked, _: usize) -> Answer {
    let odd = number(asked) % 2 == 1;
    Ok(if asked.has_picture && odd {
        "No"
    } else {
        "Yes."
    }
    .to_owned())
}

fn eval(quiz: &Quiz, out: &str, server: &Server, more: &[&str]) -> Run {
    let mut arguments = quiz.arguments(out, more);
    let peer = [
        "--endpoint",
        &server.url,
        "--endpoint-model",
        "peer",
        "--retries",
        "0",
    ];
    arguments.extend(peer.map(str::to_owned));
    opabinia(&arguments)
}

#[test]
fn a_served_model_is_judged() {
    let quiz = Quiz::of(4);
    let server = Server::start(seeing);
    let run = eval(&quiz, "run", &server, &["--json"]).ok();
    let summary = run.json();
    let row = &summary["rows"][0];
    assert_eq!(summary["model"], "peer");
    assert_eq!(row["scores"]["on"]["mean"], 1.0);
    assert_eq!(
        row["scores"]["off"]["mean"], 0.0,
        "no pair is all right with yes"
    );
    assert_eq!(row["scores"]["shuffled"]["mean"], 1.0);
    assert_eq!(
        row["visual_gain"], 0.75,
        "guessing gets a quarter of the pairs"
    );
    assert_eq!(server.requests(), 24);
    assert_eq!(summary["performance"]["answer_tokens"], 24);
    let bodies = server.bodies.lock().unwrap();
    assert!(
        bodies
            .iter()
            .all(|body| body["max_tokens"] == 2 && body["temperature"] == 0)
    );
    drop(bodies);
    eval(&quiz, "run", &server, &[])
        .ok()
        .mentions(&["0 asked now", "24 earlier"]);
    assert_eq!(server.requests(), 24);
    let run = read_json(&quiz.path("run/run.json"));
    assert!(
        run["stamps"]["weights"]
            .as_str()
            .unwrap()
            .contains("peer at http://127.0.0.1")
    );
}

/// A server that breaks down ends the run; what it answered is kept, and nothing is a zero.
#[test]
fn a_server_that_breaks_down_stops_the_run() {
    let quiz = Quiz::of(4);
    let broken = Server::start(|asked, request| match request {
        0..5 => seeing(asked, request),
        _ => Err(500),
    });
    let flags = ["--workers", "1", "--vision", "on,off"];
    eval(&quiz, "run", &broken, &flags).fails_with(
        1,
        &["does not answer", "status 500", "the same command goes on"],
    );
    assert_eq!(quiz.records("run").len(), 5);
    let summary = read_json(&quiz.path("run/summary.json"));
    assert_eq!(
        (&summary["failed"], &summary["unfinished"]),
        (&json!(0), &json!(11))
    );
    let analyzed = opabinia(&["analyze", &quiz.text("run"), "--out", &quiz.text("report")]);
    analyzed.fails_with(1, &["is not finished: 11 questions are left"]);
}

/// A question that the server refuses is a failure of its own.
#[test]
fn a_refused_question_is_listed() {
    let quiz = Quiz::of(2);
    let picky = Server::start(|asked, request| match number(asked) {
        2 => Err(400),
        _ => seeing(asked, request),
    });
    let run = eval(&quiz, "run", &picky, &["--vision", "on"]);
    assert_eq!(run.code, Some(1), "{}", run.everything());
    run.mentions(&[
        "error: 1 questions could not be asked",
        "quiz/q2 (on)",
        "status 400",
    ]);
    let kind = Server::start(seeing);
    // Another address is another model, so all is asked of it.
    eval(&quiz, "run", &kind, &["--vision", "on"])
        .ok()
        .mentions(&["4 asked now", "0 earlier"]);
}

#[test]
fn empty_answers_are_counted_as_wrong() {
    let quiz = Quiz::of(2);
    let silent = Server::start(|_, _| Ok(String::new()));
    let run = eval(&quiz, "run", &silent, &["--vision", "on", "--json"]);
    let run = run
        .ok()
        .mentions(&["4 answers are empty and count as wrong"]);
    let summary = run.json();
    assert_eq!(
        (&summary["empty"], &summary["unparsed"]),
        (&json!(4), &json!(4))
    );
    assert_eq!(summary["rows"][0]["scores"]["on"]["mean"], 0.0);
}

/// The quiz with a judge, and a file for a server that knows more.
fn graded(quiz: &Quiz) {
    let text = quiz::QUIZ
        .replace("scorer = \"mme\"", "scorer = \"mm-vet\"")
        .replace("aggregate = \"mmvp-pairs\"", "aggregate = \"mm-vet\"")
        .replace("chance = \"yes-no\"\nchance_of = \"units\"", "chance = 0");
    let submission = "\n[submission]\nformat = \"json-map\"\n\
                      fields = [{ name = \"id\", value = \"id\" }]\n";
    fs::write(quiz.path("quiz.toml"), format!("{text}{submission}")).unwrap();
}

/// A judge that fails gives no zero, and is asked again by the next run.
#[test]
fn a_judge_that_fails_is_asked_again() {
    let quiz = Quiz::of(2);
    graded(&quiz);
    let server = Server::start(seeing);
    let alone = eval(&quiz, "run", &server, &["--vision", "on", "--json"]).ok();
    let alone = alone.mentions(&["has no score (on)", "--judge", "submission-quiz.json"]);
    let summary = alone.json();
    assert_eq!(
        (&summary["unscored"], &summary["judge_failed"]),
        (&json!(4), &json!(0))
    );
    assert_eq!(
        summary["rows"][0]["scores"],
        json!({}),
        "no score is no zero"
    );
    let handed_in = read_json(&quiz.path("run/submission-quiz.json"));
    assert_eq!(handed_in["q1"], "No");

    // It grades half of the answers, and then breaks down until it has been asked six times.
    let judge = Server::start(|asked, request| {
        assert!(asked.text.contains("Right answer: ") && !asked.has_picture);
        match request {
            0 | 1 | 6.. => Ok("Grade: 0.5".to_owned()),
            _ => Err(503),
        }
    });
    let flags = ["--vision", "on", "--json", "--workers", "1"];
    let judged = ["--judge", &judge.url, "--judge-model", "critic"];
    let flags = [&flags[..], &judged].concat();
    let first = eval(&quiz, "run", &server, &flags);
    assert_eq!(first.code, Some(1), "{}", first.everything());
    let first = first.mentions(&[
        "error: 2 answers got no grade",
        "quiz/q2 (on)",
        "status 503",
    ]);
    let summary = first.json();
    assert_eq!(
        (&summary["judge_failed"], &summary["unscored"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(summary["rows"][0]["n"], 2);
    assert_eq!(summary["rows"][0]["scores"]["on"]["mean"], 0.5);
    eval(&quiz, "run", &server, &flags).mentions(&["2 asked now (2 of them answered already)"]);
    let last = eval(&quiz, "run", &server, &flags).ok();
    assert_eq!(last.json()["rows"][0]["n"], 4);
    assert_eq!(server.requests(), 4, "no answer was asked for twice");
    assert_eq!(judge.requests(), 8);
    let replies = quiz.records("run");
    assert_eq!(replies.last().unwrap()["judge"], "Grade: 0.5");
}

/// A model folder that answers everything with `1`: behind each word it says `1`, and behind `1` it ends.
fn says_one() -> Copy {
    const HIDDEN: usize = 64;
    const ONE: usize = 16;
    const END: usize = 373;
    let model = Copy::of_model();
    model.configure(json!({"max_position_embeddings": 8192, "tokenizer_model_max_length": 8192}));
    let matrix = |value: &dyn Fn(usize, usize) -> f32, rows: usize| -> Vec<u8> {
        let places = (0..rows).flat_map(|row| (0..HIDDEN).map(move |column| (row, column)));
        places
            .flat_map(|(row, column)| value(row, column).to_le_bytes())
            .collect()
    };
    let is = |yes: bool| f32::from(u8::from(yes));
    model.edit_tensors("model.safetensors", |tensors| {
        for layer in 0..5 {
            for part in ["self_attn.o_proj", "mlp.down_proj"] {
                let name = format!("model.layers.{layer}.{part}.weight");
                tensors.get(&name).bytes.fill(0);
            }
        }
        let rows = tensors.get("lm_head.weight").shape[0];
        tensors.get("model.norm.weight").bytes = matrix(&|_, _| 1.0, 1);
        let word = |row, column| is(column == usize::from(row == ONE));
        tensors.get("model.embed_tokens.weight").bytes = matrix(&word, rows);
        let next = |row, column| is(row == ONE && column == 0 || row == END && column == 1);
        tensors.get("lm_head.weight").bytes = matrix(&next, rows);
    });
    model
}

/// A model folder judges as a served model does; one that says nothing clear gives no zero.
#[test]
fn a_model_folder_judges() {
    let quiz = Quiz::of(2);
    graded(&quiz);
    let server = Server::start(seeing);
    let judged = |judge: &str, more: &[&str]| {
        let flags = ["--vision", "on", "--json", "--judge", judge];
        eval(&quiz, "run", &server, &[&flags[..], more].concat())
    };
    let babbles = common::text(&common::model());
    let run = judged(&babbles, &[]);
    assert_eq!(run.code, Some(1), "{}", run.everything());
    let run = run.mentions(&[
        "error: 4 answers got no grade",
        "quiz/q0 (on)",
        "cambrian_llama_sva (",
    ]);
    let summary = run.json();
    assert_eq!(
        (&summary["judge_failed"], &summary["unscored"]),
        (&json!(4), &json!(4))
    );
    assert_eq!(
        summary["rows"][0]["scores"],
        json!({}),
        "no score is no zero"
    );

    let kind = says_one();
    let run = judged(&kind.text(), &[]).ok();
    let run = run.mentions(&["4 asked now (4 of them answered already)"]);
    let summary = run.json();
    assert_eq!(summary["rows"][0]["scores"]["on"]["mean"], 1.0);
    assert_eq!(server.requests(), 4, "no answer was asked for twice");
    assert_eq!(quiz.records("run").last().unwrap()["judge"], "1");
    judged(&kind.text(), &[]).ok().mentions(&["0 asked now"]);

    judged("http://localhost:1", &[]).fails_with(1, &["--judge-model NAME"]);
    judged(&babbles, &["--judge-model", "m"]).fails_with(1, &["is no address"]);
    judged("no-such-folder", &[]).fails_with(1, &["no-such-folder", "or a model folder"]);
}

/// The model that ships, too, judges by the code that answers.
#[test]
fn the_shipped_model_may_judge() {
    let quiz = Quiz::of(1);
    graded(&quiz);
    let server = Server::start(seeing);
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/small");
    let shipped = common::text(&shipped);
    let run = eval(
        &quiz,
        "run",
        &server,
        &["--vision", "on", "--json", "--judge", &shipped],
    );
    let summary = run.json();
    // It is too small to grade: whatever it says, each answer has a grade or is counted as without one.
    let graded = summary["rows"][0]["n"].as_u64().unwrap();
    let failed = summary["judge_failed"].as_u64().unwrap();
    assert_eq!(graded + failed, 2, "{}", run.everything());
    assert_eq!(
        run.code,
        Some(i32::from(failed > 0)),
        "{}",
        run.everything()
    );
}

#[test]
fn runs_are_compared_question_by_question() {
    let quiz = Quiz::of(6);
    let seer = Server::start(seeing);
    let blind = Server::start(|_, _| Ok("yes".to_owned()));
    eval(&quiz, "seer", &seer, &["--name", "seer"]).ok();
    eval(&quiz, "blind", &blind, &["--name", "blind", "--seed", "5"]).ok();
    let diff = |more: &[&str]| {
        let (a, b) = (quiz.text("blind"), quiz.text("seer"));
        opabinia(&[&["eval", "diff", &a, &b][..], more].concat())
    };
    let text = diff(&[]).ok().stdout;
    for words in [
        "Quiz (on)",
        "12 of 12 questions: 50.0 and 100.0",
        "gained 6: q1, q11, q3",
        "McNemar: 0 right only in the first, 6 only in the second",
        "weights: of peer at",
        "6 pictures or units",
    ] {
        assert!(text.contains(words), "`{words}` is not in {text}");
    }
    assert!(!text.contains("seed") && !text.contains("lost"), "{text}");
    let shuffled = diff(&["--vision", "shuffled", "--json"]).ok().json();
    let set = &shuffled["sets"][0];
    let differing: Vec<&str> = set["differing"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(differing, ["preprocessing", "seed", "template", "weights"]);
    assert_eq!(set["shared"], 12);
    diff(&["--vision", "blank"]).fails_with(1, &["not asked with `--vision blank`"]);

    // Other questions under the same names.
    let mut rows: Vec<Value> = (0..12).map(Quiz::row).collect();
    rows[3]["answer"] = json!("yes");
    quiz.write_rows(&rows);
    eval(&quiz, "blind", &blind, &["--name", "blind"]).ok();
    diff(&[]).fails_with(
        1,
        &[
            "the question `q3` has the answer",
            "different question sets",
        ],
    );
}

/// What differs is named, and nothing else: each change of what runs are made with has its own stamp.
#[test]
fn differences_are_named_by_their_hashes() {
    let quiz = Quiz::of(6);
    let server = Server::start(seeing);
    let eval = |out: &str, more: &[&str]| {
        let name = ["--name", out];
        eval(&quiz, out, &server, &[&name[..], more].concat()).ok();
    };
    eval("before", &[]);
    let differing = |second: &str, more: &[&str]| -> Vec<String> {
        let (first, second) = (quiz.text("before"), quiz.text(second));
        let flags = [&["eval", "diff", &first, &second, "--json"], more].concat();
        let found = opabinia(&flags).ok().json();
        let differing = found["sets"][0]["differing"].as_array().unwrap();
        let names = differing.iter().map(|one| one["name"].as_str().unwrap());
        names.map(str::to_owned).collect()
    };
    eval("same", &[]);
    assert_eq!(differing("same", &[]), [""; 0]);

    eval("seed", &["--seed", "7"]);
    assert_eq!(differing("seed", &["--vision", "shuffled"]), ["seed"]);
    assert_eq!(
        differing("seed", &[]),
        [""; 0],
        "it decides about wrong pictures only"
    );

    // A column that nothing reads: other bytes, the same questions.
    let mut rows: Vec<Value> = (0..12).map(Quiz::row).collect();
    rows[0]["remark"] = json!("new");
    quiz.write_rows(&rows);
    eval("other-data", &[]);
    assert_eq!(differing("other-data", &[]), ["data"]);
    quiz.write_rows(&(0..12).map(Quiz::row).collect::<Vec<_>>());

    let rewritten = |from: &str, to: &str| {
        let text = quiz::QUIZ.replace(from, to);
        assert_ne!(text, quiz::QUIZ);
        fs::write(quiz.path("quiz.toml"), text).unwrap();
    };
    rewritten("suffix = \"Answer yes or no.\"", "suffix = \"Yes or no?\"");
    eval("prompt", &[]);
    assert_eq!(
        differing("prompt", &[]),
        ["definition", "prompt", "questions"]
    );

    // Another scorer, and the same scorer over another expression of what is right.
    rewritten("scorer = \"mme\"", "scorer = \"gqa\"");
    eval("scorer", &[]);
    assert_eq!(differing("scorer", &[]), ["definition", "scorer"]);
    rewritten("answer = \"answer\"", "answer = \"answer | trim\"");
    eval("right", &[]);
    assert_eq!(differing("right", &[]), ["definition", "scorer"]);
    // Remarks change nothing.
    rewritten("# Pairs", "# More pairs");
    eval("remark", &[]);
    assert_eq!(differing("remark", &[]), [""; 0]);

    // By the other rules the answers are there already.
    let asked = server.requests();
    eval("before", &["--protocol", "reference"]);
    assert_eq!(server.requests(), asked);
    let names = differing("same", &[]);
    assert_eq!(
        names,
        ["scorer"],
        "the definition has no table for the reference"
    );
    let both = [quiz.text("before"), quiz.text("same")];
    let out = quiz.text("report");
    opabinia(&["analyze", &both[0], &both[1], "--out", &out]).fails_with(
        1,
        &[
            "of Quiz it was judged by the standard protocol",
            "the reference one",
        ],
    );
}

/// The template of a model that is loaded here.
#[test]
fn another_template_is_named() {
    let quiz = Quiz::of(1);
    let flags = ["--vision", "on", "--image-position", "actual"];
    quiz.eval("one", &flags).ok();
    quiz.eval(
        "other",
        &[&flags[..], &["--template", "vicuna_v1"]].concat(),
    )
    .ok();
    let (one, other) = (quiz.text("one"), quiz.text("other"));
    let found = opabinia(&["eval", "diff", &one, &other]).ok().stdout;
    assert!(
        found.contains("made with other:\n    template: "),
        "{found}"
    );
    assert!(
        !found.contains("prompt:") && !found.contains("data:"),
        "{found}"
    );
}

#[test]
fn peers_are_named_in_full() {
    let quiz = Quiz::of(1);
    let eval = |more: &[&str]| opabinia(&quiz.arguments("run", more));
    eval(&["--endpoint", "http://localhost:1"]).fails_with(2, &["--endpoint-model"]);
    eval(&["--endpoint", "nowhere", "--endpoint-model", "m"])
        .fails_with(1, &["`nowhere` is no address"]);
    let key = ["--endpoint-key", "OPABINIA_NO_SUCH_KEY"];
    let peer = ["--endpoint", "http://localhost:1", "--endpoint-model", "m"];
    eval(&[&peer[..], &key].concat()).fails_with(1, &["`OPABINIA_NO_SUCH_KEY` holds no key"]);
}
