//! `opabinia engine`, through the real binary, in a small web on this machine.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;
#[path = "../../engine/tests/loopback/mod.rs"]
mod loopback;

use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use common::{opabinia, program};
use loopback::World;

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
    assert_eq!(
        (status[3]["stage"].as_str(), status[3]["done"].as_u64()),
        (Some("pages"), Some(5))
    );
    opabinia(&["engine", "replay", &path("run"), "--to", &path("again")]).ok();
    assert_eq!(pool(&path("run")), pool(&path("again")));
    opabinia(&["engine", "page", &path("run")]).quiet();
    opabinia(&["engine", "status", &path("none")]).fails_with(1, &["there is no run in"]);
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
