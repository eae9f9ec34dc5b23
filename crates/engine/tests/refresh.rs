//! Asking whether something changed.
#![allow(missing_docs, clippy::unwrap_used)]

mod loopback;
#[path = "loopback/runs.rs"]
mod runs;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use loopback::{Reply, World, png, reply};
use opabinia_engine::{Report, RunOptions, replay};
use runs::{ALL, engine, samples, try_engine};

const REFRESH: RunOptions = RunOptions {
    refresh: true,
    retry: false,
};

#[test]
fn a_refresh_asks_whether_something_changed() {
    let world = World::twisted(Box::new(|key, _, head, usual| {
        let known = key.starts_with("/pic/") && head.contains("If-None-Match: \"v1\"");
        Some(if known { reply(304, "", "") } else { usual })
    }));
    let folder = tempfile::tempdir().unwrap();
    engine(&world, folder.path(), "");
    let report = try_engine(&world, folder.path(), "", REFRESH).unwrap();
    assert_eq!(report.summary.samples, ALL);
    assert_eq!(world.count("/pic/YeastA.png"), (2, 1));
    assert_eq!(
        world.count("/v1/chat"),
        (13, 13),
        "the model is not asked again"
    );
}

/// Runs, and refreshes in a world where requests whose key holds `path` are answered otherwise.
fn changed(
    path: &'static str,
    twist: impl Fn(&str, Reply) -> Reply + Send + Sync + 'static,
) -> (World, tempfile::TempDir, Report) {
    let later = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&later);
    let world = World::twisted(Box::new(move |key, _, head, usual| {
        let usual = Reply {
            headers: format!(
                "{}Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
                usual.headers
            ),
            ..usual
        };
        let is_twisted = key.contains(path) && switch.load(Ordering::SeqCst);
        Some(if is_twisted {
            twist(head, usual)
        } else {
            usual
        })
    }));
    let folder = tempfile::tempdir().unwrap();
    engine(&world, folder.path(), "");
    later.store(true, Ordering::SeqCst);
    let report = try_engine(&world, folder.path(), "", REFRESH).unwrap();
    (world, folder, report)
}

fn image_of(folder: &std::path::Path, url: &str) -> String {
    let samples = samples(folder);
    let fits = |sample: &&serde_json::Value| sample["image_url"].as_str().unwrap().ends_with(url);
    let sample = samples.iter().find(fits).unwrap();
    sample["image"].as_str().unwrap().to_owned()
}

#[test]
fn what_changed_is_taken_and_the_model_is_not_asked_again() {
    let (world, folder, report) = changed("/pic/YeastA.png", |head, _| {
        assert!(head.contains("If-None-Match: \"v1\""), "{head}");
        assert!(
            head.contains("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"),
            "{head}"
        );
        reply(
            200,
            "Content-Type: image/png\r\nETag: \"v2\"\r\n",
            png("another"),
        )
    });
    assert_eq!(report.summary.samples, ALL);
    assert_eq!(world.count("/v1/chat").1, 13);
    let image = image_of(folder.path(), "/pic/YeastA.png");
    let bytes = std::fs::read(folder.path().join("pool").join(image)).unwrap();
    assert_eq!(bytes, png("another"));
    // The picture that no sample shows any more is gone from the pool, and a replay knows the new one.
    let again = tempfile::tempdir().unwrap();
    replay(folder.path(), &again.path().join("r"), &|_| ()).unwrap();
}

#[test]
fn what_cannot_be_asked_for_just_now_stays_as_it_was() {
    let (_, folder, report) = changed("/pic/YeastA.png", |_, _| reply(500, "", "broken"));
    assert_eq!(report.summary.samples, ALL);
    let image = image_of(folder.path(), "/pic/YeastA.png");
    assert!(folder.path().join("pool").join(image).is_file());
    // What is gone, is gone.
    let (_, _, report) = changed("/pic/YeastA.png", |_, _| reply(404, "", "gone"));
    assert_eq!(report.summary.samples, ALL - 1);
}

#[test]
fn pages_of_the_encyclopedia_are_asked_for_by_their_date() {
    let (world, _, report) = changed("action=parse", |head, usual| {
        match head.contains("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT") {
            true => reply(304, "", ""),
            false => usual,
        }
    });
    assert_eq!(report.summary.samples, ALL);
    assert_eq!(world.count("action=parse"), (10, 5));
}
