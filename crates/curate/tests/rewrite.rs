//! Short answers rewritten by a scripted server on loopback.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opabinia_curate::rewrite::{Rewrite, Rewritten, rewrite};
use opabinia_curate::{CurateError, Manifest, Options, Recipe, Watch, curate};
use opabinia_endpoint::{Endpoint, EndpointOptions};
use serde_json::{Value, json};

/// Status and words of an answer to a question that was asked so often before.
type Script = fn(&str, usize) -> (u16, String);

struct Server {
    url: String,
    /// How often each request was made, by its text.
    asked: Arc<Mutex<HashMap<String, usize>>>,
}

impl Server {
    fn new(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let shared = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let asked = Arc::clone(&shared);
                std::thread::spawn(move || serve(&stream, script, &asked));
            }
        });
        Self { url, asked }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new(EndpointOptions {
            retries: 2,
            first_wait: Duration::from_millis(1),
            timeout: Duration::from_secs(20),
            ..EndpointOptions::new(&self.url, "scripted")
        })
        .unwrap()
    }

    fn requests(&self) -> usize {
        self.asked.lock().unwrap().values().sum()
    }
}

fn serve(mut stream: &TcpStream, script: Script, asked: &Mutex<HashMap<String, usize>>) {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if !matches!(reader.read_line(&mut line), Ok(n) if n > 0) {
            return;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let content = &body["messages"][1]["content"];
    let text = content
        .as_str()
        .or_else(|| content[1]["text"].as_str())
        .unwrap()
        .to_owned();
    let before = {
        let mut asked = asked.lock().unwrap();
        let count = asked.entry(text.clone()).or_default();
        *count += 1;
        *count - 1
    };
    let (status, words) = script(&text, before);
    let reply = match status {
        200 => json!({"choices": [{"message": {"content": words}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5}})
        .to_string(),
        _ => words,
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        reply.len()
    );
    let _ = stream.write_all((head + &reply).as_bytes());
}

/// The short answer of a request, as a sentence.
fn sentence(text: &str) -> String {
    let answer = text
        .split("Short answer: ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    format!("The answer to this is {answer}, as one can see.")
}

fn line(id: u32, question: &str, answer: &str) -> String {
    let turns =
        json!([{"from": "human", "value": question, "w": 1}, {"from": "gpt", "value": answer}]);
    format!(
        "{}\n",
        json!({"id": id, "source": "s", "conversations": turns, "extra": [1.5]})
    )
}

fn pool(folder: &Path) -> (PathBuf, String) {
    let long = "This is an answer in a whole sentence already.";
    let text = [
        line(1, "Which colour?", "Red"),
        line(2, "Why?", long),
        "nonsense\n\n".to_owned(),
        line(3, "How many? Answer in one word.", "Two"),
        line(4, "Which animal?", "Cat"),
        line(5, "Refuse this", "No"),
        line(6, "Forget this", "Dog"),
        line(7, "Which animal?", "Cat"),
    ];
    let path = folder.join("pool.jsonl");
    std::fs::write(&path, text.concat()).unwrap();
    (path, text.concat())
}

fn wanted(pool: &Path) -> Rewrite {
    let prompts = "[{\"name\": \"word\", \"text\": \"Answer in one word.\"}]";
    Rewrite {
        files: vec![pool.to_owned()],
        prompts: serde_json::from_str(prompts).unwrap(),
        ..Rewrite::default()
    }
}

const WATCH: Watch<'static> = Watch {
    progress: &|_| {},
    cancelled: &|| false,
};

fn run(wanted: &Rewrite, server: &Server, out: &Path) -> Result<Rewritten, CurateError> {
    rewrite(wanted, &server.endpoint(), out, &WATCH)
}

fn script(text: &str, before: usize) -> (u16, String) {
    if text.contains("Refuse this") {
        return (400, "no".to_owned());
    }
    if text.contains("Forget this") {
        return (200, "It is some other animal, surely.".to_owned());
    }
    match before {
        // The first attempt meets a server that starts.
        0 => (503, "later".to_owned()),
        _ => (200, sentence(text)),
    }
}

#[test]
fn short_answers_become_sentences_and_all_else_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (pool, before) = pool(folder.path());
    let server = Server::new(script);
    let out = folder.path().join("out");
    let done = run(&wanted(&pool), &server, &out).unwrap();
    let answers: Vec<(&str, u64)> = done.answers.iter().map(|(k, v)| (*k, *v)).collect();
    assert_eq!(
        answers,
        [
            ("asked_for", 1),
            ("lost_the_answer", 1),
            ("refused", 1),
            ("rewritten", 3)
        ]
    );
    assert_eq!(
        (done.lines, done.changed, done.out_of_budget),
        (9, 3, false)
    );
    let after = std::fs::read_to_string(out.join("samples.jsonl")).unwrap();
    assert_eq!(after.lines().count(), 9);
    for (before, after) in before.lines().zip(after.lines()) {
        let Ok(mut expected) = serde_json::from_str::<Value>(before) else {
            assert_eq!(before, after);
            continue;
        };
        let old = expected["conversations"][1]["value"].clone();
        if !["Red", "Cat"].contains(&old.as_str().unwrap()) {
            assert_eq!(before, after);
            continue;
        }
        let new = format!(
            "The answer to this is {}, as one can see.",
            old.as_str().unwrap()
        );
        expected["conversations"][1]["value"] = json!(new);
        expected["rewritten"] = json!([{"model": "scripted", "answers": {"1": old}}]);
        assert_eq!(serde_json::from_str::<Value>(after).unwrap(), expected);
    }
    let ledger = std::fs::read_to_string(out.join("ledger.jsonl")).unwrap();
    // Every short answer, also the one whose question asks for it.
    assert_eq!(ledger.lines().count(), 6);
    assert_eq!(ledger.matches("\"outcome\":\"asked_for\"").count(), 1);
    let first: Value = serde_json::from_str(ledger.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["line"], &first["turn"], &first["before"]),
        (&json!(1), &json!(1), &json!("Red"))
    );
    // It is a file that training reads.
    assert_eq!(
        opabinia_data::SampleFile::open(out.join("samples.jsonl"))
            .unwrap()
            .len(),
        9
    );
    assert!(
        run(&wanted(&pool), &server, &out)
            .unwrap_err()
            .to_string()
            .contains("already")
    );
}

#[test]
fn nothing_is_asked_twice_after_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let (pool, _) = pool(folder.path());
    let whole = folder.path().join("whole");
    run(&wanted(&pool), &Server::new(script), &whole).unwrap();
    let server = Server::new(|text, before| script(text, before + 1));
    let out = folder.path().join("out");
    let mut limited = wanted(&pool);
    limited.concurrency = 1;
    limited.budget_requests = Some(1);
    let stopped = run(&limited, &server, &out).unwrap();
    assert!(stopped.out_of_budget && !out.exists());
    assert_eq!((stopped.requests, stopped.tokens), (1, 15));
    // A stop by hand, just when the server has refused a question.
    limited.budget_requests = None;
    let watch = Watch {
        progress: &|_| {},
        cancelled: &|| server.requests() >= 3,
    };
    let stopped = rewrite(&limited, &server.endpoint(), &out, &watch);
    assert!(
        matches!(stopped, Err(CurateError::Interrupted)),
        "{stopped:?}"
    );
    let done = run(&limited, &server, &out).unwrap();
    assert!(!done.out_of_budget);
    for name in ["samples.jsonl", "ledger.jsonl"] {
        let [one, other] = [&whole, &out].map(|folder| std::fs::read(folder.join(name)).unwrap());
        assert!(one == other, "{name}");
    }
    // Neither what was answered nor what was refused; samples 4 and 7 ask the same.
    let counts = server.asked.lock().unwrap();
    assert_eq!(counts.len(), 4);
    for (text, count) in counts.iter() {
        assert_eq!(*count, 1, "{text}");
    }
}

/// Samples that each ask something of their own.
fn many(folder: &Path, more: &str) -> Rewrite {
    let line = |id: u32| line(id, &format!("What is {id}?"), "Red").replace("{\"id\"", more);
    let path = folder.join("many.jsonl");
    std::fs::write(&path, (0..25).map(line).collect::<String>()).unwrap();
    wanted(&path)
}

#[test]
fn a_server_that_refuses_everything_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = many(folder.path(), "{\"id\"");
    let out = folder.path().join("out");
    let refusing = Server::new(|_, _| (400, "no such model".to_owned()));
    let error = run(&wanted, &refusing, &out).unwrap_err();
    assert!(matches!(error, CurateError::Author { .. }), "{error}");
    let server = Server::new(|text, _| (200, sentence(text)));
    let done = run(&wanted, &server, &out).unwrap();
    assert_eq!(done.answers, [("rewritten", 25)].into());
}

#[test]
fn pictures_that_servers_do_not_take_are_no_refusals() {
    let folder = tempfile::tempdir().unwrap();
    let shown = "{\"image\": \"a.tif\", \"id\"";
    let mut wanted = many(folder.path(), shown);
    std::fs::write(folder.path().join("a.tif"), b"II*\0 and so on").unwrap();
    wanted.images = Some(folder.path().to_owned());
    let server = Server::new(script);
    let done = run(&wanted, &server, &folder.path().join("out")).unwrap();
    assert_eq!(done.answers, [("picture_format", 25)].into());
    assert_eq!(server.requests(), 0);
}

#[test]
fn a_stop_is_heard_where_nothing_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.jsonl");
    std::fs::write(&path, "nonsense\n".repeat(1000)).unwrap();
    let watch = Watch {
        progress: &|_| {},
        cancelled: &|| true,
    };
    let server = Server::new(script);
    let out = folder.path().join("out");
    let stopped = rewrite(&wanted(&path), &server.endpoint(), &out, &watch);
    assert!(matches!(stopped, Err(CurateError::Interrupted)));
    assert!(!out.exists());
}

#[test]
fn a_budget_can_end_it_and_a_dead_server_does() {
    let folder = tempfile::tempdir().unwrap();
    let (pool, before) = pool(folder.path());
    let out = folder.path().join("out");
    let mut limited = wanted(&pool);
    (limited.budget_tokens, limited.finish) = (Some(0), true);
    let server = Server::new(script);
    let done = run(&limited, &server, &out).unwrap();
    assert_eq!(
        (
            server.requests(),
            done.changed,
            done.answers["out_of_budget"]
        ),
        (0, 0, 5)
    );
    assert_eq!(
        std::fs::read_to_string(out.join("samples.jsonl")).unwrap(),
        before
    );
    let server = Server::new(|_, _| (401, "who are you".to_owned()));
    let other = folder.path().join("other");
    let error = run(&wanted(&pool), &server, &other).unwrap_err();
    assert!(matches!(error, CurateError::Author { .. }), "{error}");
    assert!(!other.exists());
}

/// A recipe that has short answers of the kept samples written out.
fn recipe(pool: &Path, server: &Server, more: &str) -> Recipe {
    let text = format!(
        "[input]\nfiles = [{pool:?}]\n[dedup]\nexact = true\n\
         [prompts.sources]\nasked = ['word']\n\
         [[prompts.prompt]]\nname = 'word'\ntext = 'Answer in one word.'\n\
         [output]\nshard_samples = 3\n\
         [rewrite]\nurl = {:?}\nmodel = 'scripted'\nretries = 2\nsources = ['s', 'asked']\n{more}",
        server.url
    );
    let recipe: Recipe = toml::from_str(&text).unwrap();
    recipe.resolved("test", Path::new("")).unwrap()
}

fn curated(recipe: &Recipe, out: &Path) -> Result<Manifest, CurateError> {
    let options = Options {
        threads: 2,
        part_bytes: 400,
        cluster: None,
        memory_bytes: 64 << 20,
    };
    curate(recipe, out, &options, &WATCH)
}

/// Samples of the pool, one whose source gets a prompt, and one of a source that is left alone.
fn mixed(folder: &Path) -> PathBuf {
    let (path, text) = pool(folder);
    let of = |source: &str, id: u32, question: &str| {
        line(id, question, "Blue").replace("\"source\":\"s\"", &format!("\"source\":{source:?}"))
    };
    let more = [of("asked", 8, "Which sky?"), of("other", 9, "Which sea?")];
    std::fs::write(&path, text + &more.concat()).unwrap();
    path
}

/// The answers of a pool by the names of the samples.
fn answers(out: &Path, manifest: &Manifest) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    for shard in &manifest.shards {
        let text = std::fs::read_to_string(out.join(&shard.file)).unwrap();
        for line in text.lines() {
            let sample: Value = serde_json::from_str(line).unwrap();
            let answer = sample["conversations"][1]["value"].as_str().unwrap();
            found.push((sample["id"].as_u64().unwrap(), answer.to_owned()));
        }
    }
    found
}

#[test]
fn a_recipe_has_what_it_keeps_written_out() {
    let folder = tempfile::tempdir().unwrap();
    let pool = mixed(folder.path());
    let server = Server::new(|text, before| script(text, before + 1));
    let out = folder.path().join("pool");
    let made = curated(&recipe(&pool, &server, ""), &out).unwrap();
    let outcomes: Vec<(&str, u64)> = made
        .rewritten
        .iter()
        .map(|(outcome, count)| (outcome.as_str(), *count))
        .collect();
    // A repetition is not asked about, and a prompt that was added asks for one word.
    assert_eq!(
        outcomes,
        [
            ("asked_for", 2),
            ("lost_the_answer", 1),
            ("refused", 1),
            ("rewritten", 2)
        ]
    );
    let answers = answers(&out, &made);
    let of = |id: u64| &answers.iter().find(|(own, _)| *own == id).unwrap().1;
    assert_eq!(of(1), "The answer to this is Red, as one can see.");
    assert_eq!(of(4), "The answer to this is Cat, as one can see.");
    for (id, answer) in [(3, "Two"), (5, "No"), (6, "Dog"), (8, "Blue"), (9, "Blue")] {
        assert_eq!(of(id), answer, "{id}");
    }
    // Each shard says what became of its short answers, by its lines.
    let mut told = 0;
    for (number, shard) in made.shards.iter().enumerate() {
        let ledger =
            std::fs::read_to_string(out.join(format!("rewritten-{number:05}.jsonl"))).unwrap();
        let text = std::fs::read_to_string(out.join(&shard.file)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for entry in ledger.lines() {
            let entry: Value = serde_json::from_str(entry).unwrap();
            let line = lines[entry["line"].as_u64().unwrap() as usize - 1];
            let now = entry.get("after").unwrap_or(&entry["before"]);
            assert!(line.contains(now.as_str().unwrap()), "{entry} {line}");
            told += 1;
        }
    }
    assert_eq!(told, 6);
    // Training reads the shards by their indexes, and another pool asks nothing that is known.
    let asked = server.requests();
    assert_eq!(asked, 4);
    opabinia_data::SampleFile::open(out.join("samples-00000.jsonl")).unwrap();
    let kept = format!("answers = {:?}\n", folder.path().join("pool.answers.jsonl"));
    let again = folder.path().join("again");
    let other = curated(&recipe(&pool, &server, &kept), &again).unwrap();
    assert_eq!(server.requests(), asked);
    assert_eq!(other.shards, made.shards);
}

#[test]
fn a_budget_of_a_recipe_stops_it_and_a_larger_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let pool = mixed(folder.path());
    let server = Server::new(|text, before| script(text, before + 1));
    let out = folder.path().join("pool");
    let one = "concurrency = 1\nbudget_requests = 1\n";
    let stopped = curated(&recipe(&pool, &server, one), &out).unwrap_err();
    assert!(
        matches!(stopped, CurateError::OutOfBudget { requests: 1, .. }),
        "{stopped}"
    );
    assert!(
        !out.exists()
            && folder
                .path()
                .join("pool.partial")
                .join("work/index")
                .is_dir()
    );
    // Where it may stay unfinished, it does.
    let finished = format!("{one}finish = true\n");
    let kept = folder.path().join("pool.answers.jsonl");
    let copy = folder.path().join("copy.jsonl");
    std::fs::copy(&kept, &copy).unwrap();
    let finished = format!("{finished}answers = {copy:?}\n");
    let made = curated(
        &recipe(&pool, &server, &finished),
        &folder.path().join("short"),
    )
    .unwrap();
    assert_eq!((made.rewritten["rewritten"], server.requests()), (1, 1));
    // Nothing is asked twice.
    let made = curated(&recipe(&pool, &server, ""), &out).unwrap();
    assert_eq!(made.rewritten["rewritten"], 2);
    let counts = server.asked.lock().unwrap();
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}
