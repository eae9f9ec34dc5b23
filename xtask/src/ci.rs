//! `cargo xtask ci`: everything that must hold before a change is taken.
//!
//! Quick checks come first, and every step runs whatever became of the others: one run tells all.
//! Lints and tests share a profile and a selection of packages, so build scripts and procedural
//! macros are built once and each large dependency once per kind of artefact. Lints see all
//! code for a CPU, the feature `cluster` included, which they compile without generating code; its own tests
//! would take as long to build as all others together, and are run by hand (CONTRIBUTING.md).

use std::io::{self, BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};
use crate::workspace::{cargo, shown};
use crate::{arrows, licences};

/// Whether the test of the review page must find a browser: `require`, or whatever else for not.
const BROWSER: &str = "OPABINIA_BROWSER";

/// A step and what it does.
type Step = (&'static str, fn() -> Outcome);

const STEPS: &[Step] = &[
    ("format", || command(&["fmt", "--all", "--check"])),
    ("arrows", arrows::run),
    ("licences", licences::run),
    ("lints", || {
        command(&[
            "clippy",
            "--release",
            "--workspace",
            "--all-targets",
            "--features",
            "opabinia-cli/cluster",
            "--",
            "-D",
            "warnings",
        ])
    }),
    ("tests", || tests(&["test", "--release", "--workspace"])),
];

/// Runs all steps and says how long each took.
pub(crate) fn run() -> Outcome {
    let mut taken = Vec::new();
    let mut complaints = Vec::new();
    for (name, step) in STEPS {
        println!("\n── {name}");
        let start = Instant::now();
        let done = step();
        taken.push((name, start.elapsed(), done.is_ok()));
        if let Err(failure) = done {
            crate::report(&failure);
            complaints.push((*name).to_owned());
        }
    }
    println!();
    for (name, time, passed) in taken {
        println!(
            "{name:<10} {:>8} {}",
            minutes(time),
            if passed { "passed" } else { "FAILED" }
        );
    }
    if complaints.is_empty() {
        return Ok(());
    }
    Err(Failure::Rules {
        what: "steps of CI failed",
        complaints,
    })
}

fn minutes(time: Duration) -> String {
    format!("{}:{:02} min", time.as_secs() / 60, time.as_secs() % 60)
}

fn command(arguments: &[&str]) -> Outcome {
    let mut command = cargo();
    command.args(arguments);
    println!("$ {}", shown(&command));
    let status = command
        .status()
        .map_err(|source| cannot_run(&command, source))?;
    judged(&command, status)
}

/// Runs the tests and repeats each test program's closing line at the end, with their sum.
fn tests(arguments: &[&str]) -> Outcome {
    let mut command = cargo();
    command.args(arguments).stdout(Stdio::piped());
    let browser = browser();
    command.env(BROWSER, browser.wish());
    println!("$ {BROWSER}={} {}", browser.wish(), shown(&command));
    let mut child = command
        .spawn()
        .map_err(|source| cannot_run(&command, source))?;
    let mut closing = Vec::new();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.map_err(|source| cannot_run(&command, source))?;
            println!("{line}");
            if line.starts_with("test result:") {
                closing.push(line);
            }
        }
    }
    let status = child
        .wait()
        .map_err(|source| cannot_run(&command, source))?;
    println!();
    for line in &closing {
        println!("{line}");
    }
    let [passed, failed, ignored] = ["passed", "failed", "ignored"].map(|word| {
        let counts = closing.iter().filter_map(|line| count_before(line, word));
        counts.sum::<u64>()
    });
    println!(
        "{passed} passed, {failed} failed, {ignored} ignored in {} test programs",
        closing.len()
    );
    println!("{}", browser.told());
    judged(&command, status)
}

/// What drives pages in tests.
enum Browser {
    /// Somebody said what is wanted.
    Wished(String),
    /// There is one, so it must be used.
    Found,
    /// There is none.
    Missing,
}

/// Whether pages can be driven on this machine, unless [`BROWSER`] says what is wanted.
fn browser() -> Browser {
    if let Ok(wish) = std::env::var(BROWSER) {
        return Browser::Wished(wish);
    }
    let answers = |program: &str| {
        let mut command = Command::new(program);
        let command = command.arg("--version");
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let browsers = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    match answers("chromedriver") && browsers.into_iter().any(answers) {
        true => Browser::Found,
        false => Browser::Missing,
    }
}

impl Browser {
    /// The value of [`BROWSER`].
    fn wish(&self) -> &str {
        match self {
            Self::Wished(wish) => wish,
            Self::Found => "require",
            Self::Missing => "skip",
        }
    }

    /// For people.
    fn told(&self) -> String {
        match self.wish() {
            "require" => "the review page was to be driven in a browser".to_owned(),
            _ => format!(
                "SKIPPED: no chromedriver with a browser here, so the review page was not driven by its \
                 test (apt-get install chromium chromium-driver; {BROWSER}=require fails without)"
            ),
        }
    }
}

/// The number before a word: `12` in `test result: ok. 12 passed; 0 failed; …`.
fn count_before(line: &str, word: &str) -> Option<u64> {
    let words: Vec<&str> = line
        .split([' ', ';'])
        .filter(|word| !word.is_empty())
        .collect();
    let at = words.iter().position(|found| *found == word)?;
    words.get(at.checked_sub(1)?)?.parse().ok()
}

fn judged(command: &Command, status: std::process::ExitStatus) -> Outcome {
    if status.success() {
        return Ok(());
    }
    Err(Failure::Command {
        command: shown(command),
        status,
    })
}

fn cannot_run(command: &Command, source: io::Error) -> Failure {
    Failure::Run {
        command: shown(command),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted() {
        let line = "test result: ok. 12 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out";
        assert_eq!(count_before(line, "passed"), Some(12));
        assert_eq!(count_before(line, "failed"), Some(1));
        assert_eq!(count_before(line, "ignored"), Some(3));
        assert_eq!(count_before("passed", "passed"), None);
    }

    #[test]
    fn times_are_shown_in_minutes() {
        assert_eq!(minutes(Duration::from_secs(125)), "2:05 min");
    }
}
