//! A run in a small web that fails in every way that webs fail.
#![allow(missing_docs, clippy::unwrap_used)]

mod loopback;
#[path = "loopback/runs.rs"]
mod runs;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use loopback::{World, chat, gzip, json_reply, reply};
use opabinia_data::{PictureFolder, SampleFile};
use opabinia_engine::{EngineError, Plan, RunOptions, Stop, replay, run, sample_page, status};
use opabinia_image::ImageLimits;
use runs::{ALL, engine, faulty, ledger, run_text, try_engine};
use serde_json::{Value, json};

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
    // Its section had no other picture, and has a line of its own.
    let summary = &report.summary.ledger;
    assert_eq!(summary["section: no usable picture"], 1, "{summary:?}");
    let stages = status(folder.path()).unwrap();
    for stage in &stages {
        assert_eq!(
            (stage.pending(), stage.jobs),
            (0, stage.done + stage.failed)
        );
    }
    let options = RunOptions {
        retry: true,
        ..RunOptions::default()
    };
    let report = try_engine(&world, folder.path(), "", options).unwrap();
    assert_eq!(report.summary.samples, ALL);
}

/// The check of agreement comes last; its key is looked for first.
#[test]
fn a_key_that_is_not_set_is_missed_before_anything_is_asked() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let run = folder.path().join("run");
    let pair = "url = \"http://127.0.0.1:9/v1\", model = \"pair\"";
    for more in [
        format!("agreement = {{{pair}, key_variable = \"OPABINIA_KEY_OF_NOBODY\"}}"),
        "search = {provider = \"google\", google_engine = \"x\", google_key_variable = \
         \"OPABINIA_KEY_OF_NOBODY\"}"
            .to_owned(),
    ] {
        let error = try_engine(&world, &run, &more, RunOptions::default()).unwrap_err();
        assert!(
            error.to_string().contains("OPABINIA_KEY_OF_NOBODY"),
            "{error}"
        );
        assert_eq!((world.count("").0, run.exists()), (0, false));
    }
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
fn huge_pictures_are_not_read_to_their_end() {
    let world = World::twisted(Box::new(|key, _, _, usual| {
        let is_huge = key.starts_with("/pic/YeastA");
        Some(match is_huge {
            true => reply(200, "Content-Type: image/png\r\n", vec![0; 100_000]),
            false => usual,
        })
    }));
    let folder = tempfile::tempdir().unwrap();
    let plan = world
        .plan("")
        .replace("[pictures]\n", "[pictures]\nmax_bytes = 50000\n");
    let report = run_text(&plan, folder.path());
    assert_eq!((report.stopped, report.summary.samples), (None, ALL - 1));
    let shown = ledger(folder.path());
    assert!(shown.contains("larger than 50000 bytes"), "{shown}");
}

/// All files of a pool, by path.
fn files(pool: &Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    let mut open = vec![pool.to_owned()];
    while let Some(folder) = open.pop() {
        for path in std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().path())
        {
            match path.is_dir() {
                true => open.push(path),
                false => drop(found.insert(path.clone(), std::fs::read(path).unwrap())),
            }
        }
    }
    found
}

#[test]
fn a_kill_while_the_pool_is_written_leaves_what_the_next_call_finishes() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    engine(&world, folder.path(), "");
    let pool = folder.path().join("pool");
    let whole = files(&pool);
    let asked = world.count("").0;
    // Pictures are there in part, one file half, and the manifest is not written yet.
    let picture = whole
        .keys()
        .find(|path| path.extension().is_some_and(|e| e == "png"));
    std::fs::remove_file(picture.unwrap()).unwrap();
    std::fs::remove_file(pool.join("manifest.json")).unwrap();
    std::fs::write(pool.join("samples.jsonl"), "").unwrap();
    std::fs::write(pool.join("samples.jsonl.1-1.partial"), "{\"id\"").unwrap();
    engine(&world, folder.path(), "");
    assert!(files(&pool) == whole);
    assert_eq!(world.count("").0, asked, "nothing is asked twice");
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
    let report = run_text(&plan, folder.path());
    assert!(
        matches!(report.stopped, Some(Stop::HostDown { times: 2, .. })),
        "{:?}",
        report.stopped
    );
}

#[test]
fn a_dead_host_of_pictures_is_left_alone_and_the_rest_goes_on() {
    let world = World::twisted(Box::new(|key, _, _, usual| {
        let mut usual = usual;
        if key.contains("YeastA.png") && key.starts_with("/w/") {
            // The same machine by another name is another host.
            let text = String::from_utf8_lossy(&usual.body).replace("127.0.0.1", "localhost");
            usual.body = text.into_bytes();
        }
        let is_dead = key.contains("/pic/Yeast") && !key.contains("form");
        Some(if is_dead { reply(500, "", "x") } else { usual })
    }));
    let folder = tempfile::tempdir().unwrap();
    let plan = world
        .plan("")
        .replace("retries = 2", "retries = 0\ngive_up_after = 1");
    let report = run_text(&plan, folder.path());
    assert_eq!((report.stopped, report.summary.samples), (None, ALL - 2));
    assert_eq!(
        world.count("/pic/YeastA").0 + world.count("/pic/YeastB").0,
        1
    );
    assert!(ledger(folder.path()).contains("left alone"));
}

#[test]
fn a_service_that_says_no_stops_the_run_and_no_job_is_lost_to_it() {
    for (path, status) in [("/v1/chat", 401), ("/w/api.php", 403)] {
        let refuses = Arc::new(AtomicBool::new(true));
        let switch = Arc::clone(&refuses);
        let world = World::twisted(Box::new(move |key, _, _, usual| {
            let no = key.starts_with(path) && switch.load(Ordering::SeqCst);
            Some(if no { reply(status, "", "no") } else { usual })
        }));
        let folder = tempfile::tempdir().unwrap();
        let report = engine(&world, folder.path(), "");
        assert!(
            matches!(&report.stopped, Some(Stop::Refused { reason }) if reason.contains(&status.to_string())),
            "{:?}",
            report.stopped
        );
        let failed: u64 = report.stages.iter().map(|stage| stage.failed).sum();
        assert_eq!(failed, 0);
        refuses.store(false, Ordering::SeqCst);
        let report = engine(&world, folder.path(), "");
        assert_eq!((report.stopped, report.summary.samples), (None, ALL));
    }
}

#[test]
fn an_answer_in_the_way_is_not_taken_for_one() {
    for path in ["/v1/chat", "action=parse", "list=search", "titles="] {
        let (_, folder, report) = faulty(path, move |before, usual| match before {
            0 => reply(
                200,
                "Content-Type: text/html\r\n",
                "<html>Sign in to the network",
            ),
            _ => usual,
        });
        let shown = ledger(folder.path());
        assert_eq!(report.summary.samples, ALL, "{path}: {shown}");
    }
    // A busy encyclopedia answers with status 200.
    let (_, _, report) = faulty("action=parse", |before, usual| match before {
        0 => json_reply(&json!({"error": {"code": "maxlag", "info": "Waiting"}})),
        _ => usual,
    });
    assert_eq!(report.summary.samples, ALL);
}

#[test]
fn waits_may_be_asked_for_until_a_date() {
    // Both dates are the server's: no wait, whatever the clock of this machine says.
    let dates =
        "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let (_, folder, report) = faulty("/v1/chat", move |before, usual| match before {
        0 => reply(503, dates, "later"),
        _ => usual,
    });
    assert_eq!(report.summary.samples, ALL, "{}", ledger(folder.path()));
}

#[test]
fn packed_pages_are_unpacked_within_limits() {
    let (_, folder, report) = faulty("action=parse", |_, mut usual| {
        usual.headers += "Content-Encoding: gzip\r\n";
        usual.body = gzip(&usual.body);
        usual
    });
    assert_eq!(report.summary.samples, ALL, "{}", ledger(folder.path()));
    for (body, encoding, reason) in [
        (gzip(&vec![b' '; 10_000_000]), "gzip", "larger than 200000"),
        (gzip(b"{\"parse\": 1}")[..15].to_vec(), "gzip", "broke off"),
        (b"no gzip".to_vec(), "gzip", "broke off"),
        (b"x".to_vec(), "br", "packed as `br`"),
    ] {
        let headers = format!("Content-Encoding: {encoding}\r\n");
        let (_, folder, report) = faulty("page=Yeast&", move |_, _| {
            reply(200, &headers, body.clone())
        });
        assert_eq!(report.summary.samples, ALL - 2, "{reason}");
        let shown = ledger(folder.path());
        assert!(shown.contains(reason), "{reason}: {shown}");
    }
}

#[test]
fn malformed_html_is_read_as_browsers_read_it() {
    let (_, folder, report) = faulty("page=Yeast&", |_, usual| {
        let mut value: Value = serde_json::from_slice(&usual.body).unwrap();
        let html = value["parse"]["text"].as_str().unwrap();
        // Nothing is closed, and things are closed that are not open.
        let html = html
            .replace("</p>", "")
            .replace("</h2>", "</b>")
            .replace("</figure>", "</i></figure></div></td>");
        value["parse"]["text"] = json!(format!("</table><p{html}<figure><img><figcaption>"));
        json_reply(&value)
    });
    assert!(
        report.summary.samples >= ALL - 2,
        "{}",
        ledger(folder.path())
    );
    assert_eq!(report.stopped, None);
    let (_, folder, report) = faulty("page=Yeast&", |_, usual| {
        let mut value: Value = serde_json::from_slice(&usual.body).unwrap();
        value["parse"]["text"] = json!("<div>".repeat(3000));
        json_reply(&value)
    });
    assert_eq!(report.summary.samples, ALL - 2);
    assert!(ledger(folder.path()).contains("elements are open at once"));
}

#[test]
fn rules_that_cannot_be_read_allow_nothing_and_are_asked_for_again() {
    let (_, folder, report) = faulty("/robots.txt", |before, _| match before {
        0 => reply(503, "", "later"),
        _ => reply(200, "", "User-agent: *\nCrawl-delay: 0.001\nAllow: /"),
    });
    assert_eq!(report.summary.samples, ALL, "{}", ledger(folder.path()));
    let (world, folder, report) = faulty("/robots.txt", |_, _| reply(500, "", "broken"));
    assert_eq!((report.stopped, report.summary.samples), (None, 0));
    assert_eq!(world.count("/robots.txt").0, 3, "once, and two more times");
    assert!(ledger(folder.path()).contains("cannot be read"));
}

#[test]
fn every_request_says_who_asks() {
    let named = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&named);
    let world = World::twisted(Box::new(move |_, _, head, usual| {
        if !(head.contains("User-Agent: opabinia/") && head.contains("(test@example.org)")) {
            flag.store(false, Ordering::SeqCst);
        }
        Some(usual)
    }));
    let folder = tempfile::tempdir().unwrap();
    engine(&world, folder.path(), "");
    assert!(named.load(Ordering::SeqCst));
}

#[test]
fn whoever_stops_a_run_can_go_on_with_it() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let plan = Plan::parse(Path::new("p"), &world.plan("")).unwrap();
    let done = AtomicUsize::new(0);
    let report = run(
        &plan,
        folder.path(),
        RunOptions::default(),
        &|| done.load(Ordering::SeqCst) >= 8,
        &|_| {
            done.fetch_add(1, Ordering::SeqCst);
            // One folder, one process.
            let other = try_engine(&world, folder.path(), "", RunOptions::default());
            assert!(matches!(other, Err(EngineError::InUse { .. })));
        },
    )
    .unwrap();
    assert_eq!(report.stopped, Some(Stop::Interrupted));
    let report = engine(&world, folder.path(), "");
    assert_eq!((report.stopped, report.summary.samples), (None, ALL));
    let counts = world.counts.lock().unwrap();
    let twice = counts
        .iter()
        .find(|(key, n)| n.0 > 1 && !key.contains("robots.txt"));
    assert_eq!(twice, None, "nothing is asked twice");
}
