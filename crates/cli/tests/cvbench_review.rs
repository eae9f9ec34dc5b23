//! The review page, driven by the keyboard alone in a headless browser.
//!
//! Without `chromedriver` and a browser on this machine nothing is driven, and the test says so; with
//! `OPABINIA_BROWSER=require`, as CI sets it where there is a browser, it fails then.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use common::{opabinia, text};
use serde_json::{Value, json};
use tempfile::TempDir;

/// As many questions as the published CV-Bench has.
const QUESTIONS: usize = 2638;
/// Long enough for a slow machine; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A CV-Bench of the published size.
fn bench(folder: &Path) {
    let picture = "img/2D/count/coco_1.png";
    let path = folder.join(picture);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let scene = ["world", "show", "--seed", "11", "--out", &text(&path)];
    opabinia(&scene).quiet();
    let mut lines = String::new();
    for idx in 0..QUESTIONS {
        let task = if idx < 788 { "Count" } else { "Relation" };
        let question = json!({
            "idx": idx, "type": "2D", "task": task, "question": format!("How many of {idx}?"),
            "choices": ["0", "1", "2", "3"], "answer": "(A)", "prompt": "", "filename": picture,
            "source": "COCO", "source_dataset": "COCO", "source_filename": format!("{idx}.jpg"),
        });
        lines += &format!("{question}\n");
    }
    fs::write(folder.join("test_2d.jsonl"), lines).unwrap();
}

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the page, and says where it is.
fn page(folder: &Path, reviewer: &str) -> (Ended, String) {
    let folder = text(folder);
    let arguments = [
        "cvbench",
        "review",
        &folder,
        "--port",
        "0",
        "--reviewer",
        reviewer,
    ];
    let mut program = common::program(&arguments);
    let mut child = program
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = child.stdout.take().unwrap();
    BufReader::new(out).read_line(&mut line).unwrap();
    (Ended(child), line.trim().to_owned())
}

/// A browser that is driven over the WebDriver protocol.
struct Browser {
    session: String,
    driver: Ended,
    /// Open as long as the driver may write to it.
    _out: std::io::Lines<BufReader<std::process::ChildStdout>>,
    _profile: TempDir,
}

impl Browser {
    /// Starts one.
    ///
    /// # Errors
    /// Why there is none: no driver, or one without a browser.
    fn start() -> Result<Self, String> {
        let mut driver = Command::new("chromedriver");
        driver
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let driver = driver.spawn();
        let mut driver = Ended(driver.map_err(|error| format!("no chromedriver: {error}"))?);
        let mut out = BufReader::new(driver.0.stdout.take().unwrap()).lines();
        let port = out.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.ok_or("chromedriver does not say on which port it listens")?;
        let profile = TempDir::new().unwrap();
        let data = format!("--user-data-dir={}", profile.path().display());
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--window-size=1280,800",
            "--lang=en",
            &data,
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments}}}});
        let root = format!("http://127.0.0.1:{port}/session");
        // A driver without a browser is as good as none.
        let made = ureq::post(&root).send_json(wanted);
        let made = made.map_err(|error| format!("chromedriver has no browser: {error}"))?;
        let made: Value = made.into_json().map_err(|error| error.to_string())?;
        let id = made["value"]["sessionId"].as_str();
        let id = id.ok_or_else(|| format!("chromedriver has no browser: {made}"))?;
        Ok(Self {
            session: format!("{root}/{id}"),
            driver,
            _out: out,
            _profile: profile,
        })
    }

    fn post(&self, command: &str, body: Value) -> Value {
        let path = format!("{}/{command}", self.session);
        let answer: Value = ureq::post(&path)
            .send_json(body)
            .unwrap()
            .into_json()
            .unwrap();
        answer["value"].clone()
    }

    /// Presses keys one after another. `\u{e007}` is Enter, `\u{e00c}` Escape.
    fn press(&self, keys: &str) {
        let strokes = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()}))
        });
        let strokes: Vec<Value> = strokes.collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": strokes});
        self.post("actions", json!({"actions": [keyboard]}));
    }

    fn evaluate(&self, script: &str) -> Value {
        self.post(
            "execute/sync",
            json!({"script": format!("return {script}"), "args": []}),
        )
    }

    /// Waits until an element's text contains something.
    #[track_caller]
    fn wait(&self, id: &str, wanted: &str) {
        let script = format!("document.getElementById('{id}').textContent");
        let begun = Instant::now();
        loop {
            let found = self.evaluate(&script);
            if found.as_str().is_some_and(|text| text.contains(wanted)) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "`{wanted}` in #{id}: {found}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Keeps what is seen, if somebody wants to look at it.
    fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("OPABINIA_TEST_PICTURES") else {
            return;
        };
        let path = format!("{}/screenshot", self.session);
        let answer: Value = ureq::get(&path).call().unwrap().into_json().unwrap();
        let bytes = base64::engine::general_purpose::STANDARD;
        let bytes = bytes.decode(answer["value"].as_str().unwrap()).unwrap();
        fs::write(Path::new(&folder).join(name), bytes).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = ureq::delete(&self.session).call();
        let _ = self.driver.0.kill();
    }
}

/// What the program exports.
fn exported(folder: &Path) -> Vec<Value> {
    let folder = text(folder);
    let run = [
        "cvbench",
        "review",
        &folder,
        "--reviewer",
        "x",
        "--export",
        "-",
    ];
    let run = opabinia(&run).quiet();
    let lines = run.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_reviewer_needs_no_mouse() {
    let folder = TempDir::new().unwrap();
    bench(folder.path());
    let browser = match Browser::start() {
        Ok(browser) => browser,
        Err(reason) => {
            let required = std::env::var("OPABINIA_BROWSER").is_ok_and(|wish| wish == "require");
            assert!(!required, "OPABINIA_BROWSER=require, and there is {reason}");
            // Not through `eprintln!`, which is only shown where a test fails.
            let mut out = std::io::stderr().lock();
            let _ = writeln!(out, "skipped: the review page was not driven: {reason}");
            return;
        }
    };
    let (page, address) = page(folder.path(), "Ada");
    browser.post("url", json!({"url": address}));
    browser.wait("counts", "0 of 2638 decided");
    browser.wait("who", "Ada");
    browser.wait("question", "How many of 0?");

    browser.press("a");
    browser.wait("message", "accepted: question 1");
    browser.wait("question", "How many of 1?");
    browser.press("r");
    browser.wait(
        "counts",
        "2 of 2638 decided: 1 accepted, 0 mended, 1 rejected",
    );
    browser.press("u");
    browser.wait("message", "undone: question 2");
    browser.wait("standing", "undecided");

    // Another answer, another question, and a note that says why.
    browser.press("m3q");
    browser.wait("mend-answer", "(C)");
    browser.press(" Mended.\u{e00c}wblurred\u{e007}");
    browser.picture("mending.png");
    browser.press("\u{e007}");
    browser.wait("message", "mended: question 2");
    browser.press("k");
    browser.wait("question", "How many of 1? Mended.");
    browser.wait("standing", "mended by Ada");
    browser.wait("standing", "blurred");

    // To the last one, and around.
    browser.press("g2638\u{e007}");
    browser.wait("question", "How many of 2637?");
    browser.press("rj");
    browser.wait("counts", "3 of 2638 decided");
    browser.press("ff");
    browser.wait("filter", "accepted");
    browser.wait("question", "How many of 0?");
    browser.press("ffft");
    browser.wait("filter", "showing: all, Count");
    browser.press("g0\u{e007}");
    browser.wait("message", "there is no question 0");
    browser.press("?");
    assert_eq!(
        browser.evaluate("document.getElementById('help').open"),
        true
    );
    browser.picture("help.png");
    browser.press("\u{e00c}z");
    let own = browser.evaluate("document.querySelector('figure').className");
    assert_eq!(own, "own");
    browser.press("z");
    let loaded = browser.evaluate("document.getElementById('picture').naturalWidth");
    assert_eq!(loaded, 256);

    // Somebody else undoes nothing of Ada's, and what she did survives the page.
    drop(page);
    let (_page, address) = self::page(folder.path(), "Ben");
    browser.post("url", json!({"url": address}));
    browser.wait(
        "counts",
        "3 of 2638 decided: 1 accepted, 1 mended, 1 rejected",
    );
    browser.press("u");
    browser.wait("message", "Ben has nothing to undo");
    let decisions = exported(folder.path());
    let kept: Vec<(i64, &str, bool)> = decisions
        .iter()
        .map(|one| {
            let undone = !one["undone"].is_null();
            (
                one["idx"].as_i64().unwrap(),
                one["verdict"].as_str().unwrap(),
                undone,
            )
        })
        .collect();
    let wanted = [
        (0, "accept", false),
        (1, "reject", true),
        (1, "mend", false),
        (2637, "reject", false),
    ];
    assert_eq!(kept, wanted);
    assert!(decisions.iter().all(|one| one["reviewer"] == "Ada"));
    let out = text(&folder.path().join("revised"));
    let revise = [
        "cvbench",
        "revise",
        &text(folder.path()),
        &out,
        "--decided-only",
        "--json",
    ];
    let revised = opabinia(&revise).quiet().json();
    assert_eq!(revised["questions"]["questions"], 2);
}

/// Without a browser: what the page asks for, and who may ask.
#[test]
fn the_page_is_for_this_machine_alone() {
    let folder = TempDir::new().unwrap();
    bench(folder.path());
    let (_page, address) = page(folder.path(), "Ada");
    let page = ureq::get(&address).call().unwrap();
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    assert!(page.into_string().unwrap().contains("CV-Bench review"));
    let shown: Value = ureq::get(&format!("{address}api/questions/5"))
        .call()
        .unwrap()
        .into_json()
        .unwrap();
    let digest = shown["digest"].as_str().unwrap();
    let decision = json!({"place": 5, "digest": digest, "verdict": "accept"});
    let decide = |request: ureq::Request| match request.send_json(decision.clone()) {
        Ok(_) => 200,
        Err(ureq::Error::Status(code, _)) => code,
        Err(error) => panic!("{error}"),
    };
    let post = || ureq::post(&format!("{address}api/decisions"));
    assert_eq!(decide(post().set("origin", "http://evil.example")), 403);
    assert_eq!(decide(post().set("host", "evil.example")), 403);
    assert_eq!(decide(post()), 200);
    let stale = json!({"place": 5, "digest": "old", "verdict": "accept"});
    let refused = post()
        .send_json(stale)
        .unwrap_err()
        .into_response()
        .unwrap();
    assert_eq!(refused.status(), 422);
    assert!(refused.into_string().unwrap().contains("has changed"));
    let none = ureq::get(&format!("{address}api/questions/2638"))
        .call()
        .unwrap_err();
    assert_eq!(none.into_response().unwrap().status(), 404);
    let text = post()
        .set("content-type", "text/plain")
        .send_string("{}")
        .unwrap_err();
    assert_eq!(text.into_response().unwrap().status(), 415);
    assert_eq!(exported(folder.path()).len(), 1);
}
