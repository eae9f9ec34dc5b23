//! `opabinia engine`, through the real binary, in a small web on this machine.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;
#[path = "../../engine/tests/loopback/mod.rs"]
mod loopback;
#[path = "common/training.rs"]
#[allow(
    dead_code,
    reason = "every test file takes what it needs of this module"
)]
mod training;

use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use common::{opabinia, program, run};
use loopback::World;
use training::Ground;

fn pool(folder: &str) -> Vec<u8> {
    std::fs::read(format!("{folder}/pool/samples.jsonl")).unwrap()
}

#[test]
fn a_plan_runs_is_shown_and_is_replayed() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let plan = world.write_plan(folder.path(), "");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let done = opabinia(&["engine", "run", &plan, "--folder", &path("run")]).ok();
    assert!(
        done.stdout
            .contains("10 samples with 10 pictures; agreement skipped"),
        "{}",
        done.everything()
    );
    let status = opabinia(&["engine", "status", &path("run"), "--json"])
        .quiet()
        .json_lines();
    // Progress, yield and cost: a subfield, 2 topics of each, 2 pages for each of these, of 5 pages 3 sections
    // each, and of 2 of these a picture and a question each.
    let columns = ["stage", "done", "failed", "yielded", "requests"];
    let numbers: Vec<String> = status
        .iter()
        .map(|stage| columns.map(|name| stage[name].to_string()).join(" "))
        .collect();
    assert_eq!(
        numbers,
        [
            "\"subfields\" 1 0 1 1",
            "\"topics\" 2 0 4 2",
            "\"search\" 4 0 8 0",
            "\"pages\" 5 0 15 0",
            "\"pictures\" 10 0 10 0",
            "\"questions\" 10 0 10 10",
            "\"agreement\" 0 0 0 0",
        ]
    );
    let shown = opabinia(&["engine", "status", &path("run")]).quiet();
    for column in ["yield", "tokens in", "money"] {
        assert!(shown.stdout.contains(column), "{}", shown.stdout);
    }
    // What training will read has no fault, its pictures included.
    let samples = path("run/pool/samples.jsonl");
    let checked = opabinia(&[
        "data",
        "check",
        &samples,
        "--images",
        &path("run/pool"),
        "--decode",
        "--template",
        "llama_3",
        "--json",
        "--quiet",
    ])
    .ok();
    assert_eq!(checked.json()["summary"]["good"], 10);
    opabinia(&["engine", "replay", &path("run"), "--to", &path("again")]).ok();
    assert_eq!(pool(&path("run")), pool(&path("again")));
    opabinia(&["engine", "page", &path("run")]).quiet();
    opabinia(&["engine", "status", &path("none")]).fails_with(1, &["there is no run in"]);
}

#[test]
fn a_pool_is_trained_on() {
    let (world, ground) = (World::new(), Ground::shared());
    let plan = world.write_plan(&ground.path("."), "");
    let pool = ground.path("engine/pool");
    let folder = ground.path("engine");
    opabinia(&["engine", "run", &plan, "--folder", folder.to_str().unwrap()]).ok();
    let files = format!("data.files=[{:?}]", pool.join("samples.jsonl"));
    let images = format!("data.images={pool:?}");
    let on_pool = ["--set", &files, "--set", &images, "--set", "data.max_bad=0"];
    let dry = ground
        .train("align", &[&["--dry-run"], &on_pool[..]].concat())
        .quiet();
    for words in [
        "samples.jsonl:1`, images/",
        "It divides by budding",
        "<image>",
    ] {
        assert!(dry.stdout.contains(words), "{words}: {}", dry.everything());
    }
    let once = ["--set", "schedule.steps=1", "--out", "runs/on-engine"];
    ground.train("align", &[&once, &on_pool[..]].concat()).ok();
    let loss = ground.losses("runs/on-engine");
    assert!(loss.len() == 1 && loss[0].is_finite(), "{loss:?}");
}

#[test]
fn google_finds_pages_of_any_site_and_nobody_learns_the_key() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let search = format!(
        "search = {{provider = \"google\", google_url = \"{}/customsearch/v1\", google_engine = \"engine-1\", \
         google_key_variable = \"SEARCH_KEY\", other_sites = true}}",
        world.url
    );
    let text = world.plan(&search);
    let text = text.replace("[pictures]\n", "[pictures]\nneed_licence = false\n");
    let plan = folder.path().join("plan.toml");
    std::fs::write(&plan, text).unwrap();
    let out = folder.path().join("run").to_str().unwrap().to_owned();
    let arguments = ["engine", "run", plan.to_str().unwrap(), "--folder", &out];
    opabinia(&arguments).fails_with(1, &["`SEARCH_KEY` holds no key"]);
    let key = "se/cret+key";
    let mut command = program(&arguments);
    command.env("SEARCH_KEY", key);
    let done = run(command, b"").ok();
    // 4 topics, 4 pages of the encyclopedia and one of a site that all of them find.
    assert!(
        done.stdout.contains("9 samples with 9 pictures"),
        "{}",
        done.everything()
    );
    assert_eq!(
        world
            .count("/customsearch/v1?cx=engine-1&q=Yeast&num=10&key=se%2Fcret%2Bkey")
            .1,
        1
    );
    let site: Vec<serde_json::Value> = String::from_utf8(pool(&out))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|sample: &serde_json::Value| sample["title"] == "Cafés")
        .collect();
    assert_eq!((site.len(), &site[0]["caption"]), (1, &"A café".into()));
    assert_eq!(site[0]["licence"], serde_json::Value::Null);
    // The replay needs no key, and no file holds one.
    let again = folder.path().join("again").to_str().unwrap().to_owned();
    opabinia(&["engine", "replay", &out, "--to", &again]).ok();
    for (path, _) in training::sizes(folder.path()) {
        let bytes = std::fs::read(&path).unwrap();
        for secret in [key, "se%2Fcret"] {
            let found = bytes
                .windows(secret.len())
                .any(|some| some == secret.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
}

#[test]
fn what_stops_a_run_is_said_with_what_to_do() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let plan = world.write_plan(folder.path(), "budget = {requests = 5}");
    let out = folder.path().join("run").to_str().unwrap().to_owned();
    let arguments = ["engine", "run", &plan, "--folder", &out];
    let stopped = opabinia(&arguments);
    assert_eq!(stopped.code, Some(1), "{}", stopped.everything());
    stopped.mentions(&[
        "error: the budget of requests is used up: 5 of 5",
        "hint: what is finished is kept",
    ]);
    let plan = world.write_plan(folder.path(), "category = \"other\"");
    opabinia(&["engine", "run", &plan, "--folder", &out])
        .fails_with(1, &["holds a run of another plan"]);
    let plan = world.write_plan(folder.path(), "kategory = \"other\"");
    opabinia(&["engine", "run", &plan, "--folder", &out]).fails_with(
        1,
        &[
            "plan.toml:2: unknown field `kategory`",
            "did you mean `category`?",
        ],
    );
    opabinia(&["engine", "replay", &out, "--to", &out]).fails_with(1, &["the same folder"]);
}

/// The world holds request number `n` back until the program is dead: everything before was answered and
/// kept, so nothing may be answered twice, and the pool is the one of an undisturbed run.
#[test]
fn a_kill_at_any_request_loses_nothing() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let plan = world.write_plan(folder.path(), "");
    let whole = folder.path().join("whole").to_str().unwrap().to_owned();
    opabinia(&["engine", "run", &plan, "--folder", &whole]).ok();
    let expected = std::fs::read_to_string(format!("{whole}/pool/samples.jsonl"))
        .unwrap()
        .replace(&world.url, "");

    let (reached, held): (Sender<()>, Receiver<()>) = channel();
    let (requests, reached) = (Arc::new(Mutex::new(0usize)), Mutex::new(reached));
    let counter = Arc::clone(&requests);
    let world = World::twisted(Box::new(move |_, _, _, usual| {
        let number = {
            let mut n = counter.lock().unwrap();
            *n += 1;
            *n
        };
        if number % 6 == 0 {
            reached.lock().unwrap().send(()).unwrap();
            return None;
        }
        Some(usual)
    }));
    let folder = tempfile::tempdir().unwrap();
    // The held request must not look like a failure to the program before the kill reaches it.
    let text = world
        .plan("")
        .replace("first_wait_seconds = 0.002", "first_wait_seconds = 60.0")
        .replace("longest_wait_seconds = 0.01", "longest_wait_seconds = 60.0");
    let plan = folder.path().join("plan.toml");
    std::fs::write(&plan, text).unwrap();
    let run = folder.path().join("run").to_str().unwrap().to_owned();
    let arguments = ["engine", "run", plan.to_str().unwrap(), "--folder", &run];
    let mut kills = 0;
    loop {
        let mut command: Command = program(&arguments);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let killed = loop {
            if held.try_recv().is_ok() {
                child.kill().unwrap();
                child.wait().unwrap();
                break true;
            }
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                break false;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        };
        if !killed {
            break;
        }
        kills += 1;
    }
    assert!(kills > 3, "{kills}");
    let robots = world.count("/robots.txt").1;
    assert!(robots <= kills + 1);
    let counts = world.counts.lock().unwrap();
    for (key, (_, answered)) in counts.iter().filter(|(key, _)| !key.contains("robots.txt")) {
        assert_eq!(*answered, 1, "{key}");
    }
    let made = std::fs::read_to_string(format!("{run}/pool/samples.jsonl"))
        .unwrap()
        .replace(&world.url, "");
    let ids = |text: &str| {
        text.lines()
            .map(|line| line.split_once("\"image\"").unwrap().1.to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&made), ids(&expected));
}
