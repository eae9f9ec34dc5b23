//! A run in a small web that fails in every way that webs fail.
#![allow(missing_docs, clippy::unwrap_used)]

mod loopback;

use std::path::Path;
use std::time::Duration;

use loopback::{Reply, World, chat, reply};
use opabinia_data::{PictureFolder, SampleFile};
use opabinia_engine::{
    EngineError, Plan, Report, RunOptions, Stop, replay, run, sample_page, status,
};
use opabinia_image::ImageLimits;

fn engine(world: &World, folder: &Path, more: &str) -> Report {
    try_engine(world, folder, more, RunOptions::default()).unwrap()
}

fn try_engine(
    world: &World,
    folder: &Path,
    more: &str,
    options: RunOptions,
) -> Result<Report, EngineError> {
    let plan = Plan::parse(Path::new("plan.toml"), &world.plan(more)).unwrap();
    run(&plan, folder, options, &|| false, &|_| ())
}

fn ledger(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("pool/ledger.jsonl")).unwrap()
}

/// Runs in a world where requests whose key holds `path` are answered otherwise.
fn faulty(
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
const ALL: u64 = 10;

#[test]
fn a_run_makes_a_pool_that_readers_accept_and_a_replay_makes_it_again() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let report = engine(&world, folder.path(), "");
    assert_eq!(report.stopped, None);
    assert_eq!(report.summary.samples, ALL, "{}", ledger(folder.path()));
    let pool = folder.path().join("pool");
    let file = SampleFile::open(pool.join("samples.jsonl")).unwrap();
    let pictures = PictureFolder::open(&pool, ImageLimits::default()).unwrap();
    for i in 0..file.len() {
        let sample = file.sample(i).unwrap();
        sample.check_placeholder().unwrap();
        assert_eq!(pictures.load(&sample).unwrap().unwrap().size(), (64, 48));
        assert_eq!(sample.extra["licence"], "CC BY-SA 4.0");
        assert_eq!(sample.extra["author"], "The drawer");
        assert_eq!(sample.extra["revision"], 7);
    }
    // A citation of a picture that does not exist is in the ledger, once per section.
    assert_eq!(
        ledger(folder.path())
            .matches("picture 7, and there are 1")
            .count(),
        10
    );
    let asked = world.count("").0;
    engine(&world, folder.path(), "");
    assert_eq!(world.count("").0, asked, "nothing is asked twice");
    let again = tempfile::tempdir().unwrap();
    replay(folder.path(), &again.path().join("r"), &|_| ()).unwrap();
    assert_eq!(world.count("").0, asked, "a replay asks nobody");
    let stages = status(folder.path()).unwrap();
    assert_eq!(
        stages.iter().map(|stage| stage.cost.requests).sum::<u64>(),
        13
    );
    assert!(
        sample_page(folder.path(), 5, 0)
            .unwrap()
            .contains("The drawer")
    );
}

#[test]
fn what_passes_is_tried_again_and_costs_nothing() {
    for (path, status) in [
        ("/pic/YeastA", 429),
        ("/v1/chat", 503),
        ("action=parse", 500),
        ("list=search", 429),
    ] {
        let (_, folder, report) = faulty(path, move |before, usual| match before {
            0 => reply(status, "Retry-After: 0\r\n", "later"),
            _ => usual,
        });
        assert_eq!(
            report.summary.samples,
            ALL,
            "{path}: {}",
            ledger(folder.path())
        );
    }
}

#[test]
fn what_does_not_pass_is_in_the_ledger_and_can_be_retried() {
    let (world, folder, report) = faulty("/pic/YeastA", |before, usual| match before {
        0..3 => reply(500, "", "broken"),
        _ => usual,
    });
    assert_eq!(report.summary.samples, ALL - 1);
    assert!(ledger(folder.path()).contains("status 500"));
    let options = RunOptions {
        retry: true,
        ..RunOptions::default()
    };
    let report = try_engine(&world, folder.path(), "", options).unwrap();
    assert_eq!(report.summary.samples, ALL);
}

#[test]
fn silence_and_broken_connections_end() {
    let (_, folder, report) = faulty("/pic/YeastA", |before, mut usual| {
        usual.delay = Duration::from_millis(if before == 0 { 900 } else { 0 });
        usual
    });
    assert_eq!(report.summary.samples, ALL, "{}", ledger(folder.path()));
    let (_, folder, report) = faulty("/pic/YeastA", |_, mut usual| {
        usual.cut = true;
        usual
    });
    assert_eq!(report.summary.samples, ALL - 1, "{}", ledger(folder.path()));
}

#[test]
fn redirects_are_followed_and_circles_are_not() {
    let (_, folder, report) = faulty("/pic/YeastA.png", |_, _| {
        reply(302, "Location: /pic/Elsewhere.png\r\n", "")
    });
    assert_eq!(report.summary.samples, ALL, "{}", ledger(folder.path()));
    let (_, folder, report) = faulty("/pic/YeastA.png", |_, _| {
        reply(301, "Location: /pic/YeastA.png\r\n", "")
    });
    assert_eq!(report.summary.samples, ALL - 1);
    assert!(ledger(folder.path()).contains("in a circle"));
}

#[test]
fn dead_and_lying_pictures_are_refused() {
    let mut bomb = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    bomb.extend([
        0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60, 8, 2, 0, 0, 0, 0, 0, 0, 0,
    ]);
    for (body, status, reason) in [
        (b"<!doctype html><p>no".to_vec(), 200, "an HTML page"),
        (bomb, 200, "picture"),
        (Vec::new(), 200, "picture"),
        (b"gone".to_vec(), 404, "status 404"),
        (b"<svg onload=x></svg>".to_vec(), 200, "SVG"),
    ] {
        let (_, folder, report) = faulty("/pic/YeastA", move |_, _| {
            reply(status, "Content-Type: image/png\r\n", body.clone())
        });
        assert_eq!(report.summary.samples, ALL - 1, "{reason}");
        assert!(
            ledger(folder.path()).contains(reason),
            "{reason}: {}",
            ledger(folder.path())
        );
    }
}

#[test]
fn broken_and_huge_pages_are_dropped_alone() {
    for (body, reason) in [
        (b"{\"parse\": ".to_vec(), "no JSON"),
        (vec![b' '; 300_000], "larger than"),
        (
            b"{\"error\": {\"code\": \"missingtitle\", \"info\": \"no such page\"}}".to_vec(),
            "no such page",
        ),
    ] {
        let (_, folder, report) = faulty("page=Yeast&", move |_, _| reply(200, "", body.clone()));
        assert_eq!(report.summary.samples, ALL - 2, "{reason}");
        assert!(
            ledger(folder.path()).contains(reason),
            "{reason}: {}",
            ledger(folder.path())
        );
    }
}

#[test]
fn answers_that_are_no_json_are_asked_for_again_and_then_dropped() {
    let (world, folder, report) = faulty("about \\\"Yeast\\\"", |_, _| {
        chat("I would rather talk about the weather.")
    });
    assert_eq!(report.summary.samples, ALL - 2);
    assert_eq!(
        world.count("That cannot be used").0,
        4,
        "two sections, two more tries each"
    );
    assert!(ledger(folder.path()).contains("it holds no JSON"));
    let (_, _, report) = faulty("", |_, usual| {
        match String::from_utf8_lossy(&usual.body).contains("\\\"items\\\"") {
            true => chat(
                "{\"items\": [{\"picture\": 9, \"question\": \"What is it?\", \"answer\": \"x\"}]}",
            ),
            false => usual,
        }
    });
    assert_eq!(report.summary.samples, 0);
}

#[test]
fn robots_are_obeyed() {
    let (world, folder, report) = faulty("/robots.txt", |_, _| {
        reply(200, "", "User-agent: *\nDisallow: /pic/Yeast")
    });
    assert_eq!(report.summary.samples, ALL - 4);
    assert_eq!(world.count("/pic/Yeast").0, 0);
    assert!(ledger(folder.path()).contains("robots.txt of"));
}

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

#[test]
fn a_host_that_is_down_stops_the_run() {
    let world = World::twisted(Box::new(|key, _, _, usual| {
        Some(if key.starts_with("/v1") {
            reply(500, "", "x")
        } else {
            usual
        })
    }));
    let folder = tempfile::tempdir().unwrap();
    let plan = world
        .plan("")
        .replace("retries = 2", "retries = 0\ngive_up_after = 2");
    let plan = Plan::parse(Path::new("p"), &plan).unwrap();
    let report = run(
        &plan,
        folder.path(),
        RunOptions::default(),
        &|| false,
        &|_| (),
    )
    .unwrap();
    assert!(
        matches!(report.stopped, Some(Stop::HostDown { times: 2, .. })),
        "{:?}",
        report.stopped
    );
}

#[test]
fn a_refresh_asks_whether_something_changed() {
    let world = World::twisted(Box::new(|key, _, head, usual| {
        let known = key.starts_with("/pic/") && head.contains("If-None-Match: \"v1\"");
        Some(if known { reply(304, "", "") } else { usual })
    }));
    let folder = tempfile::tempdir().unwrap();
    engine(&world, folder.path(), "");
    let options = RunOptions {
        refresh: true,
        ..RunOptions::default()
    };
    let report = try_engine(&world, folder.path(), "", options).unwrap();
    assert_eq!(report.summary.samples, ALL);
    assert_eq!(world.count("/pic/YeastA.png"), (2, 1));
    assert_eq!(
        world.count("/v1/chat"),
        (13, 13),
        "the model is not asked again"
    );
}
