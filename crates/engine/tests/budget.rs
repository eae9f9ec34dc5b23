//! What a run may cost, and what it says that it cost.
#![allow(missing_docs, clippy::unwrap_used)]

mod loopback;
#[path = "loopback/runs.rs"]
mod runs;

use loopback::{Reply, World, chat, json_reply, reply};
use opabinia_engine::{EngineError, Report, RunOptions, Stop, replay};
use runs::{ALL, engine, run_text, try_engine};
use serde_json::json;

#[test]
fn budgets_stop_a_run_that_goes_on_later() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let report = engine(&world, folder.path(), "budget = {requests = 5}");
    assert!(
        matches!(
            report.stopped,
            Some(Stop::Budget {
                what: "requests",
                ..
            })
        ),
        "{:?}",
        report.stopped
    );
    assert_eq!(report.summary.samples, 2);
    let again = tempfile::tempdir().unwrap();
    replay(folder.path(), &again.path().join("r"), &|_| ()).unwrap();
    let report = engine(&world, folder.path(), "budget = {tokens = 1500}");
    assert!(matches!(
        report.stopped,
        Some(Stop::Budget { what: "tokens", .. })
    ));
    let report = engine(&world, folder.path(), "budget = {money = 1.0}");
    assert_eq!((report.stopped, report.summary.samples), (None, ALL));
    assert_eq!(world.most_answered(), 1);
    let other = try_engine(
        &world,
        folder.path(),
        "category = \"x\"",
        RunOptions::default(),
    );
    assert!(matches!(other, Err(EngineError::OtherPlan { .. })));
}

fn money(report: &Report) -> f64 {
    report.stages.iter().map(|stage| stage.cost.money).sum()
}

fn tokens(report: &Report) -> u64 {
    let cost = report.stages.iter().map(|stage| stage.cost);
    cost.map(|cost| cost.tokens_in + cost.tokens_out).sum()
}

/// An answer reads 100 tokens at 1 and writes 10 at 2, for a million each.
const ANSWER: f64 = 0.000_12;

#[test]
fn money_is_counted_to_the_token_and_never_overspent() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let report = engine(&world, folder.path(), "budget = {money = 0.0049}");
    assert!(
        matches!(report.stopped, Some(Stop::Budget { what: "money", .. })),
        "{:?}",
        report.stopped
    );
    let answered = world.count("/v1/chat").1;
    assert!((1..13).contains(&answered), "{answered}");
    assert!((money(&report) - answered as f64 * ANSWER).abs() < 1e-12);
    let report = engine(&world, folder.path(), "");
    assert_eq!(report.stopped, None);
    assert_eq!(report.summary.samples, ALL);
    // What was paid for before is not paid for again.
    assert!((money(&report) - 13.0 * ANSWER).abs() < 1e-12);
    assert_eq!(tokens(&report), 13 * 110);
}

#[test]
fn many_workers_keep_a_budget_that_answers_use_up() {
    // Each answer is as long as it may be.
    let world = World::twisted(Box::new(|key, _, _, usual| {
        if !key.starts_with("/v1/chat") {
            return Some(usual);
        }
        let mut value: serde_json::Value = serde_json::from_slice(&usual.body).unwrap();
        value["usage"]["completion_tokens"] = json!(2048);
        Some(json_reply(&value))
    }));
    let folder = tempfile::tempdir().unwrap();
    let plan = world
        .plan("budget = {tokens = 9000}")
        .replace("workers = 1", "workers = 8");
    let report = run_text(&plan, folder.path());
    assert!(matches!(
        report.stopped,
        Some(Stop::Budget { what: "tokens", .. })
    ));
    let spent = tokens(&report);
    assert!((2148..=9000).contains(&spent), "{spent}");
    assert_eq!(spent, 2148 * world.count("/v1/chat").1 as u64);
}

#[test]
fn answers_without_a_count_are_estimated_and_failures_are_free() {
    let world = World::twisted(Box::new(|key, before, _, usual| {
        let is_model = key.starts_with("/v1/chat");
        Some(match (is_model, before) {
            (true, 0) => reply(500, "", "x"),
            (true, _) if key.contains("parts of the field") => {
                let mut value: serde_json::Value =
                    serde_json::from_slice(&chat("{\"names\": [\"Cells\"]}").body).unwrap();
                value.as_object_mut().unwrap().remove("usage");
                json_reply(&value)
            }
            _ => usual,
        })
    }));
    let folder = tempfile::tempdir().unwrap();
    let report = engine(&world, folder.path(), "");
    assert_eq!(report.summary.samples, ALL);
    let [subfields, topics] = [0, 1].map(|i| report.stages[i].cost);
    assert_eq!((subfields.requests, topics.requests), (1, 2));
    // 20 bytes are 7 tokens; those of the question are estimated from above.
    assert_eq!(subfields.tokens_out, 7);
    assert!(subfields.tokens_in > 100);
    assert_eq!((topics.tokens_in, topics.tokens_out), (200, 20));
}

/// What a server says that holds no choice, and was counted all the same.
fn nothing(written: u64) -> Reply {
    json_reply(
        &json!({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": written}}),
    )
}

#[test]
fn answers_that_cannot_be_used_are_booked_as_the_server_counts_them() {
    let world = World::twisted(Box::new(|key, before, _, usual| {
        let is_model = key.starts_with("/v1/chat");
        Some(match (is_model, before) {
            (true, 0) => nothing(10),
            (true, 1) => reply(200, "", "<p>busy"),
            _ => usual,
        })
    }));
    let folder = tempfile::tempdir().unwrap();
    let report = engine(&world, folder.path(), "");
    assert_eq!(
        (report.stopped.clone(), report.summary.samples),
        (None, ALL)
    );
    // 13 questions; each has an empty answer and a good one, and between them a page that counts nothing.
    assert_eq!(world.count("/v1/chat").1, 39);
    assert_eq!(tokens(&report), 26 * 110);
    assert!((money(&report) - 26.0 * ANSWER).abs() < 1e-12);
    let requests: u64 = report.stages.iter().map(|stage| stage.cost.requests).sum();
    assert_eq!(requests, 26);
}

#[test]
fn answers_that_cannot_be_used_do_not_overspend() {
    for (budget, what) in [("tokens = 9000", "tokens"), ("requests = 4", "requests")] {
        let world = World::twisted(Box::new(|key, _, _, usual| {
            let is_model = key.starts_with("/v1/chat");
            Some(if is_model { nothing(2048) } else { usual })
        }));
        let folder = tempfile::tempdir().unwrap();
        let report = engine(&world, folder.path(), &format!("budget = {{{budget}}}"));
        let stop = report.stopped.clone();
        assert!(
            matches!(stop, Some(Stop::Budget { what: found, .. }) if found == what),
            "{stop:?}"
        );
        let spent = tokens(&report);
        assert!((2148..=9000).contains(&spent), "{spent}");
        let answered = world.count("/v1/chat").1 as u64;
        assert_eq!(spent, 2148 * answered);
        assert!(answered <= 4, "{answered}");
    }
}
