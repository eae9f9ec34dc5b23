//! One side of a measurement: a process that runs a pass whenever it is asked to.
//!
//! The protocol is described in `xtask/examples/measure`.

use std::io::{BufRead, BufReader, Write};
use std::process::{self, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;

use super::report::Side;
use crate::failure::{Failure, Outcome};
use crate::workspace::shown;

/// What a process says.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    Ready(Ready),
    Pass { seconds: f64 },
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
}

/// A process that is ready to run a pass.
pub(super) struct Child {
    command: String,
    process: process::Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    ready: Ready,
    seconds: Vec<f64>,
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
                parameters: 0,
                amount: 0.0,
            },
            seconds: Vec::new(),
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

    /// Refuses to compare two networks that are not the same.
    pub(super) fn check_same_work(&self, other: &Self, workload: &str) -> Outcome {
        let (ours, theirs) = (&self.ready, &other.ready);
        let facts = [
            (
                "parameters",
                ours.parameters as f64,
                theirs.parameters as f64,
            ),
            ("pictures, tokens or bytes", ours.amount, theirs.amount),
        ];
        match facts.into_iter().find(|(_, ours, theirs)| ours != theirs) {
            Some((what, ours, theirs)) => Err(Failure::Unequal {
                workload: workload.to_owned(),
                what,
                ours,
                theirs,
            }),
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
            Message::Pass { seconds } => {
                self.seconds.push(seconds);
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
        Ok(Side {
            ready: self.ready.clone(),
            seconds: std::mem::take(&mut self.seconds),
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

    const READY: &str = r#"{"ready":{"about":"x","parameters":7,"amount":2.0}}"#;
    const PASS: &str = r#"{"pass":{"seconds":0.5}}"#;

    #[test]
    fn a_conversation() {
        let mut child = child(&[READY, PASS, PASS, r#"{"peak":{"bytes":9}}"#]).unwrap();
        assert_eq!((child.pass().unwrap(), child.pass().unwrap()), (0.5, 0.5));
        let side = child.finish().unwrap();
        assert_eq!((side.seconds.len(), side.peak_bytes), (2, Some(9)));
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
        let other = READY.replace('7', "8");
        let (one, two) = (child(&[READY]).unwrap(), child(&[&other]).unwrap());
        let error = one.check_same_work(&two, "encoder/clip").unwrap_err();
        assert!(error.to_string().contains("7 and 8 parameters"), "{error}");
        assert!(one.check_same_work(&one, "encoder/clip").is_ok());
    }
}
