//! Runs in the small web.

#![allow(dead_code, reason = "each test file takes what it needs")]

use std::path::Path;

use opabinia_engine::{EngineError, Plan, Report, RunOptions, run};

use crate::loopback::{Reply, World};

pub fn engine(world: &World, folder: &Path, more: &str) -> Report {
    try_engine(world, folder, more, RunOptions::default()).unwrap()
}

pub fn try_engine(
    world: &World,
    folder: &Path,
    more: &str,
    options: RunOptions,
) -> Result<Report, EngineError> {
    let plan = Plan::parse(Path::new("plan.toml"), &world.plan(more)).unwrap();
    run(&plan, folder, options, &|| false, &|_| ())
}

pub fn ledger(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("pool/ledger.jsonl")).unwrap()
}

/// Runs in a world where requests whose key holds `path` are answered otherwise.
pub fn faulty(
    path: &'static str,
    twist: impl Fn(usize, Reply) -> Reply + Send + Sync + 'static,
) -> (World, tempfile::TempDir, Report) {
    let world = World::twisted(Box::new(move |key, before, _, usual| {
        Some(if key.contains(path) {
            twist(before, usual)
        } else {
            usual
        })
    }));
    let folder = tempfile::tempdir().unwrap();
    let report = engine(&world, folder.path(), "");
    (world, folder, report)
}

/// 5 pages (4 topics and one that all of them find) with a picture in 2 sections each.
pub const ALL: u64 = 10;

/// Runs a plan as it is.
pub fn run_text(text: &str, folder: &Path) -> Report {
    let plan = Plan::parse(Path::new("plan.toml"), text).unwrap();
    run(&plan, folder, RunOptions::default(), &|| false, &|_| ()).unwrap()
}

pub fn samples(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("pool/samples.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
