//! One side of a measurement: a process that runs a pass whenever it is asked to.
//!
//! The protocol is described in `xtask/examples/measure`.

use std::io::{BufRead, BufReader, Write};
use std::process::{self, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;

use super::report::Side;
use super::workloads::{Beside, Workload};
use crate::failure::{Failure, Outcome};
use crate::workspace::shown;

/// How far the losses of two sides may lie apart, relative to the loss: both add up the same numbers
/// in another order.
const LOSS_TOLERANCE: f64 = 1e-3;

/// What a process says.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    Ready(Ready),
    Pass { seconds: f64, resident: Option<u64> },
    Peak { bytes: Option<u64> },
}

/// What a process says when it has built its network and run it once.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Ready {
    /// Name and version of the program.
    pub(super) about: String,
    /// Numbers in all parameters.
    pub(super) parameters: u64,
    /// Work of one pass: pictures, tokens or bytes.
    pub(super) amount: f64,
    /// Losses of its first steps, if it trains from weights that the other side has too.
    #[serde(default)]
    pub(super) losses: Vec<f64>,
    /// Bytes of resident memory, where it tells.
    pub(super) resident: Option<u64>,
    /// Whether it compiled its network, because that is faster.
    #[serde(default)]
    pub(super) compiled: bool,
}

/// A process that is ready to run a pass.
pub(super) struct Child {
    command: String,
    process: process::Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    ready: Ready,
    seconds: Vec<f64>,
    /// After the last pass.
    resident: Option<u64>,
}

impl Child {
    /// Starts a process and waits until it is ready.
    pub(super) fn start(mut command: Command) -> Result<Self, Failure> {
        let name = shown(&command);
        let cannot_run = |source| Failure::Run {
            command: name.clone(),
            source,
        };
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(cannot_run)?;
        let input = process.stdin.take();
        let Some(output) = process.stdout.take() else {
            return Err(Failure::OutOfTurn { command: name });
        };
        let mut child = Self {
            command: name,
            process,
            input,
            output: BufReader::new(output),
            ready: Ready {
                about: String::new(),
                compiled: false,
                parameters: 0,
                amount: 0.0,
                losses: Vec::new(),
                resident: None,
            },
            seconds: Vec::new(),
            resident: None,
        };
        match child.hear()? {
            Message::Ready(ready) => child.ready = ready,
            Message::Pass { .. } | Message::Peak { .. } => return Err(child.out_of_turn()),
        }
        Ok(child)
    }

    /// What it said of itself.
    pub(super) fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Refuses to compare two networks that are not the same, or that do not learn the same.
    ///
    /// Speeds of this program with a feature and without may be compared over other amounts of work.
    pub(super) fn check_same_work(&self, other: &Self, workload: &Workload) -> Outcome {
        let (ours, theirs) = (&self.ready, &other.ready);
        let unequal = |what, ours, theirs| Failure::Unequal {
            workload: workload.name.to_owned(),
            what,
            ours,
            theirs,
        };
        if ours.parameters != theirs.parameters {
            let counts = (ours.parameters as f64, theirs.parameters as f64);
            return Err(unequal("parameters", counts.0, counts.1));
        }
        let amounts = !matches!(workload.beside, Beside::Without(_));
        if amounts && ours.amount != theirs.amount {
            let what = "pictures, tokens or bytes";
            return Err(unequal(what, ours.amount, theirs.amount));
        }
        if ours.losses.len() != theirs.losses.len() {
            let counts = (ours.losses.len() as f64, theirs.losses.len() as f64);
            return Err(unequal("first losses", counts.0, counts.1));
        }
        let near = |a: f64, b: f64| (a - b).abs() <= LOSS_TOLERANCE * b.abs();
        let mut losses = ours.losses.iter().zip(&theirs.losses);
        match losses.find(|(a, b)| !near(**a, **b)) {
            Some((a, b)) => Err(unequal("as the loss of a first step", *a, *b)),
            None => Ok(()),
        }
    }

    /// Asks for a pass; returns its seconds.
    pub(super) fn pass(&mut self) -> Result<f64, Failure> {
        if let Some(input) = &mut self.input {
            let written = input.write_all(b"\n").and_then(|()| input.flush());
            written.map_err(|source| Failure::Run {
                command: self.command.clone(),
                source,
            })?;
        }
        match self.hear()? {
            Message::Pass { seconds, resident } => {
                self.seconds.push(seconds);
                self.resident = resident;
                Ok(seconds)
            }
            Message::Ready(_) | Message::Peak { .. } => Err(self.out_of_turn()),
        }
    }

    /// Says that no pass will follow.
    pub(super) fn finish(mut self) -> Result<Side, Failure> {
        drop(self.input.take());
        let Message::Peak { bytes } = self.hear()? else {
            return Err(self.out_of_turn());
        };
        // It may have folders to remove.
        self.process.wait().map_err(|source| self.broken(source))?;
        Ok(Side {
            ready: self.ready.clone(),
            seconds: std::mem::take(&mut self.seconds),
            resident_bytes: self.resident,
            peak_bytes: bytes,
        })
    }

    fn hear(&mut self) -> Result<Message, Failure> {
        let mut line = String::new();
        let read = self
            .output
            .read_line(&mut line)
            .map_err(|source| self.broken(source))?;
        if read == 0 {
            let status = self.process.wait().map_err(|source| self.broken(source))?;
            return Err(Failure::Ended {
                command: self.command.clone(),
                status,
            });
        }
        serde_json::from_str(&line).map_err(|source| Failure::Output {
            command: self.command.clone(),
            line: line.trim_end().to_owned(),
            source,
        })
    }

    fn broken(&self, source: std::io::Error) -> Failure {
        Failure::Run {
            command: self.command.clone(),
            source,
        }
    }

    fn out_of_turn(&self) -> Failure {
        Failure::OutOfTurn {
            command: self.command.clone(),
        }
    }
}

impl Drop for Child {
    /// A process that nobody listens to any more must not go on computing.
    fn drop(&mut self) {
        drop(self.input.take());
        // It may have ended already, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::bench::workloads::WORKLOADS;

    /// A process that says the given lines, one for each line it hears after the first.
    fn child(lines: &[&str]) -> Result<Child, Failure> {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            r#"for line in "$@"; do echo "$line"; read _; done"#,
            "sh",
        ]);
        Child::start({
            command.args(lines);
            command
        })
    }

    const READY: &str = r#"{"ready":{"about":"x","parameters":7,"amount":2.0,"losses":[9.0,8.5]}}"#;
    const PASS: &str = r#"{"pass":{"seconds":0.5,"resident":3}}"#;

    #[test]
    fn a_conversation() {
        let mut child = child(&[READY, PASS, PASS, r#"{"peak":{"bytes":9}}"#]).unwrap();
        assert_eq!((child.pass().unwrap(), child.pass().unwrap()), (0.5, 0.5));
        let side = child.finish().unwrap();
        assert_eq!((side.seconds.len(), side.peak_bytes), (2, Some(9)));
        assert_eq!((side.ready.resident, side.resident_bytes), (None, Some(3)));
        assert_eq!(side.ready.parameters, 7);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        assert!(matches!(child(&[]), Err(Failure::Ended { .. })));
        assert!(matches!(child(&["hello"]), Err(Failure::Output { .. })));
        assert!(matches!(child(&[PASS]), Err(Failure::OutOfTurn { .. })));
        assert!(matches!(
            child(&[READY]).unwrap().pass(),
            Err(Failure::Ended { .. })
        ));
        assert!(matches!(
            child(&[READY, PASS]).unwrap().finish(),
            Err(Failure::OutOfTurn { .. })
        ));
    }

    #[test]
    fn different_networks_are_not_compared() {
        let find = |name| WORKLOADS.iter().find(|w| w.name == name).unwrap();
        let clip = find("encoder/clip");
        let one = child(&[READY]).unwrap();
        assert!(one.check_same_work(&one, clip).is_ok());
        for (found, other, complaint) in [
            ("7", "8", "7 and 8 parameters"),
            ("2.0", "2.5", "2 and 2.5 pictures"),
            (",8.5", "", "2 and 1 first losses"),
            ("8.5", "8.4", "8.5 and 8.4 as the loss"),
        ] {
            let two = child(&[&READY.replace(found, other)]).unwrap();
            let error = one.check_same_work(&two, clip).unwrap_err();
            assert!(error.to_string().contains(complaint), "{error}");
        }
        let near = child(&[&READY.replace("8.5", "8.501")]).unwrap();
        assert!(one.check_same_work(&near, clip).is_ok());
        // A batch of eight beside a batch of one.
        let eight = child(&[&READY.replace("2.0", "16.0")]).unwrap();
        assert!(one.check_same_work(&eight, find("llm/batch")).is_ok());
    }
}
