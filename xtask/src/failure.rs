//! Why a task did not succeed.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Why a task did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A program could not be started, or its output not be read.
    #[error("cannot run `{command}`")]
    Run {
        command: String,
        #[source]
        source: io::Error,
    },
    /// A program said that it failed.
    #[error("`{command}` failed: {status}")]
    Command { command: String, status: ExitStatus },
    /// A file could not be read or written.
    #[error("cannot access {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// `deny.toml` holds something that is not understood here.
    #[error("cannot use {}", path.display())]
    Policy {
        path: PathBuf,
        #[source]
        source: toml::de::Error,
    },
    /// A program printed something else than expected.
    #[error("cannot understand what `{command}` printed: {line}")]
    Output {
        command: String,
        line: String,
        #[source]
        source: serde_json::Error,
    },
    /// A rule is broken, here and there.
    #[error("{what}:\n{}", bullets(complaints))]
    Rules {
        what: &'static str,
        complaints: Vec<String>,
    },
    /// A benchmark's process ended before it answered.
    #[error("`{command}` ended without an answer: {status}")]
    Ended { command: String, status: ExitStatus },
    /// A benchmark's process answered something else than what was asked.
    #[error("`{command}` answered out of turn")]
    OutOfTurn { command: String },
    /// The two sides of a benchmark are not the same network.
    #[error(
        "{workload}: the two sides do not do the same: {ours} and {theirs} {what}; correct \
         benches/peers or xtask/examples/measure"
    )]
    Unequal {
        workload: String,
        what: &'static str,
        ours: f64,
        theirs: f64,
    },
    /// A document has no place for a generated part.
    #[error("{} has no lines `{begin}` and `{end}` to write the table between", path.display())]
    NoMarkers {
        path: PathBuf,
        begin: &'static str,
        end: &'static str,
    },
    /// A name on the command line that nothing has.
    #[error("there is no {kind} `{name}`; there are: {}", known.join(", "))]
    Unknown {
        kind: &'static str,
        name: String,
        known: Vec<&'static str>,
    },
    /// Cargo built something else than the program that was asked for.
    #[error("`{command}` built no program called `{program}`")]
    NoProgram {
        command: String,
        program: &'static str,
    },
    /// Numbers of a smoke test in a document.
    #[error("`--write` would publish numbers of {reason}")]
    NotPublishable { reason: &'static str },
}

fn bullets(complaints: &[String]) -> String {
    let lines: Vec<String> = complaints
        .iter()
        .map(|line| format!("  - {line}"))
        .collect();
    lines.join("\n")
}

/// What every task returns.
pub(crate) type Outcome = Result<(), Failure>;
