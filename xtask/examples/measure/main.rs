//! The measured side of `cargo xtask bench`: one workload in one process.
//!
//! It builds a network of the published size with random weights, runs it once to warm up, and then
//! runs it again for every line on standard input, so that whoever drives it can let two processes
//! take turns. Each pass answers with its seconds, the end of the input with the peak memory; the
//! Python peers in `benches/peers` speak the same protocol. What trains also tells the losses of its
//! first steps, and every side may tell what memory is resident.
//!
//! ```text
//! ▶ {"ready":{"about":"opabinia 0.1.0","parameters":303179776,"amount":1.0,"losses":[]}}
//! ◀ (newline)
//! ▶ {"pass":{"seconds":1.234,"resident":900000000}}
//! ◀ (end of input)
//! ▶ {"peak":{"bytes":1500000000}}
//! ```

#![allow(clippy::print_stdout, reason = "what it prints is its result")]

mod connector;
mod decoder;
mod encoder;
mod limit;
mod loading;
mod packed;
mod product;
mod question;
mod training;
mod weights;

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;

use burn::prelude::*;
use clap::Parser;
use opabinia_weights::WeightDtype;
use serde_json::{Value, json};

/// As in the `opabinia` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    /// Which workload, such as `encoder/clip`.
    workload: String,
    /// Format of the two-dimensional weights.
    #[arg(long, value_enum, default_value_t = WeightFormat::F32)]
    dtype: WeightFormat,
    /// Networks of a few layers, to try the machinery.
    #[arg(long)]
    smoke: bool,
    /// The checkpoint that `load` reads, written if it does not exist; or the file for the weights that
    /// a training step starts from.
    #[arg(long)]
    checkpoint: Option<PathBuf>,
}

/// How the two-dimensional weights are stored: what `--dtype` gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WeightFormat {
    F32,
    Bf16,
    Int8,
    Int4,
}

impl WeightFormat {
    /// What `--dtype` makes of it when a checkpoint is loaded.
    pub(crate) fn loaded(self) -> WeightDtype {
        match self {
            Self::F32 => WeightDtype::F32,
            Self::Bf16 => WeightDtype::PackedBf16,
            Self::Int8 => WeightDtype::Int8,
            Self::Int4 => WeightDtype::Int4,
        }
    }
}

/// What every part of this program returns.
pub(crate) type Fallible<T> = Result<T, Box<dyn Error>>;

/// Something that can be run again and again.
pub(crate) struct Workload {
    /// Numbers in all parameters: two sides that disagree do not run the same network.
    pub(crate) parameters: u64,
    /// Work of one pass: pictures, tokens or bytes.
    pub(crate) amount: f64,
    /// Of the first steps of training, where a peer can start from the same weights.
    pub(crate) losses: Vec<f64>,
    /// One pass; returns its seconds.
    pub(crate) pass: Box<dyn FnMut() -> Fallible<f64>>,
}

fn main() -> Fallible<()> {
    let arguments = Arguments::parse();
    let mut workload = build(&arguments)?;
    (workload.pass)()?;
    say(&json!({"ready": {
        "about": format!("opabinia {}", env!("CARGO_PKG_VERSION")),
        "parameters": workload.parameters,
        "amount": workload.amount,
        "losses": workload.losses,
        "resident": memory("VmRSS:"),
    }}))?;
    for line in io::stdin().lock().lines() {
        line?;
        let seconds = (workload.pass)()?;
        say(&json!({"pass": {"seconds": seconds, "resident": memory("VmRSS:")}}))?;
    }
    say(&json!({"peak": {"bytes": memory("VmHWM:")}}))
}

fn build(arguments: &Arguments) -> Fallible<Workload> {
    let Arguments { dtype, smoke, .. } = *arguments;
    let device = Device::flex();
    let checkpoint = arguments.checkpoint.as_deref();
    match arguments.workload.split_once('/') {
        Some(("encoder", name)) => encoder::workload(name, dtype, smoke, &device),
        Some(("connector", name)) => connector::workload(name, dtype, smoke, &device),
        Some(("llm" | "llama.cpp", name)) => decoder::workload(name, dtype, smoke, &device),
        Some(("question", name)) => question::workload(name, dtype, smoke, &device),
        Some(("product", name)) => product::workload(name, dtype, smoke),
        Some(("limit", name)) => limit::workload(name, dtype, smoke),
        Some(("training", name)) => training::workload(name, smoke, checkpoint),
        Some(("load", name)) => {
            let path = checkpoint.ok_or("`load` needs --checkpoint")?;
            packed::workload(name, path, dtype, smoke, &device)
        }
        None if arguments.workload == "load" => {
            let path = checkpoint.ok_or("`load` needs --checkpoint")?;
            loading::workload(path, dtype, smoke, &device)
        }
        _ => Err(format!("there is no workload `{}`", arguments.workload).into()),
    }
}

fn say(message: &Value) -> Fallible<()> {
    println!("{message}");
    Ok(io::stdout().flush()?)
}

/// Resident memory of this process, now (`VmRSS:`) or at its peak (`VmHWM:`), where the system tells.
fn memory(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}
