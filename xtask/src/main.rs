//! What developers and CI run: `cargo xtask <task>`.
//!
//! One file per task. The tasks are a program rather than scripts so that they run alike on every
//! system and what they decide can be tested.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for developers: what it prints is its result"
)]

mod arrows;
mod bench;
mod ci;
mod failure;
mod features;
mod licences;
mod model;
mod pool;
mod workspace;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;

/// What developers and CI of opabinia run.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that must hold before a change is taken: format, arrows, licences, lints, tests.
    Ci,
    /// Checks that crates depend on each other only as ARCHITECTURE.md says.
    Arrows,
    /// Checks the licence, source and version of every dependency against `deny.toml`.
    Licences,
    /// Type-checks the GPU backends that this system can compile.
    Features(features::Features),
    /// Measures this program beside PyTorch and llama.cpp.
    Bench(bench::Bench),
    /// Makes a pool like Cambrian-10M, of random words.
    Pool(pool::Pool),
    /// Trains the model that ships with the program, from nothing.
    Model(model::Model),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Ci => ci::run(),
        Task::Arrows => arrows::run(),
        Task::Licences => licences::run(),
        Task::Features(task) => task.run(),
        Task::Bench(task) => task.run(),
        Task::Pool(task) => task.run(),
        Task::Model(task) => task.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure);
            ExitCode::FAILURE
        }
    }
}

fn report(failure: &Failure) {
    eprintln!("error: {failure}");
    let mut cause = failure.source();
    while let Some(error) = cause {
        eprintln!("caused by: {error}");
        cause = error.source();
    }
}
