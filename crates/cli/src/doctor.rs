//! `doctor`: what this machine has, and what is wrong with it, in plain words.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use opabinia_nn::cpu::Path as CodePath;
use serde_json::json;
use sysinfo::System;

use crate::{Outcome, device, output};

/// Show devices, processor, memory and caches, and what is wrong with them.
#[derive(Args)]
pub struct Doctor {
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Everything that was found.
struct Findings {
    devices: Vec<String>,
    compiled: Vec<&'static str>,
    missing: Vec<&'static str>,
    abilities: Vec<&'static str>,
    kernels: &'static str,
    threads: usize,
    memory: u64,
    available: u64,
    cache: Option<PathBuf>,
    problems: Vec<String>,
}

/// Bytes that the smallest released model needs in bf16, encoders included.
const SMALLEST_RELEASED: u64 = 14_000_000_000;

impl Doctor {
    /// Looks around and prints.
    pub fn run(self) -> Outcome {
        let found = look();
        if self.json {
            let line = json!({
                "version": env!("CARGO_PKG_VERSION"), "devices": found.devices,
                "backends": found.compiled, "backends_not_built": found.missing,
                "cpu": found.abilities, "kernels": found.kernels, "threads": found.threads,
                "memory_bytes": found.memory, "available_bytes": found.available,
                "hub_cache": found.cache, "problems": found.problems,
            });
            output::data(&line.to_string());
            return Ok(ExitCode::SUCCESS);
        }
        let none = || "none".to_owned();
        let cache = found
            .cache
            .as_deref()
            .map_or_else(none, |path| path.display().to_string());
        let lines = [
            ("opabinia", env!("CARGO_PKG_VERSION").to_owned()),
            ("devices", found.devices.join(", ")),
            ("backends", found.compiled.join(", ")),
            ("not built in", found.missing.join(", ")),
            (
                "processor",
                format!("{} threads; {}", found.threads, found.abilities.join(", ")),
            ),
            ("kernels", found.kernels.to_owned()),
            (
                "memory",
                format!(
                    "{}, {} free",
                    output::bytes(found.memory),
                    output::bytes(found.available)
                ),
            ),
            ("hub cache", cache),
        ];
        for (name, value) in lines {
            output::data(&format!("{name:<13} {value}"));
        }
        if found.problems.is_empty() {
            output::data("nothing is wrong");
        }
        for problem in &found.problems {
            output::data(&format!("! {problem}"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn look() -> Findings {
    let mut system = System::new();
    system.refresh_memory();
    let (compiled, missing) = device::compiled();
    let devices: Vec<String> = device::all().into_iter().map(|found| found.name).collect();
    let cache = hub_cache();
    let mut found = Findings {
        problems: Vec::new(),
        abilities: abilities(),
        kernels: CodePath::best().name(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        memory: system.total_memory(),
        available: system.available_memory(),
        devices,
        compiled,
        missing,
        cache,
    };
    found.problems = problems(&found);
    found
}

fn problems(found: &Findings) -> Vec<String> {
    let mut problems = Vec::new();
    let gpus = found.compiled.iter().filter(|name| **name != "cpu");
    for backend in gpus {
        if !found
            .devices
            .iter()
            .any(|device| device.starts_with(backend))
        {
            problems.push(format!(
                "{backend} is built in, but no such device answers: its driver is missing or too \
                 old"
            ));
        }
    }
    if cfg!(target_arch = "x86_64") && found.kernels == "baseline" {
        problems.push(
            "the processor has no AVX2; answers are the same, but several times slower".into(),
        );
    }
    if found.available < SMALLEST_RELEASED {
        problems.push(format!(
            "{} of free memory are too few for the released models, of which the smallest with its \
             encoders takes about {} in bf16",
            output::bytes(found.available),
            output::bytes(SMALLEST_RELEASED)
        ));
    }
    match &found.cache {
        None => problems.push(
            "there is no home folder, so models cannot be cached; set HF_HOME to a folder".into(),
        ),
        Some(path) if !writable(path) => problems.push(format!(
            "the hub cache {} cannot be written; set HF_HOME to a folder that can",
            path.display()
        )),
        Some(_) => {}
    }
    if std::env::var("HF_HUB_OFFLINE").is_ok_and(|value| !matches!(value.as_str(), "" | "0")) {
        problems.push("HF_HUB_OFFLINE is set, so models are not downloaded".into());
    }
    if cfg!(debug_assertions) {
        problems.push("this is a debug build, many times slower; build with --release".into());
    }
    problems
}

/// Where hub files are kept; the same folder as the Python libraries'.
fn hub_cache() -> Option<PathBuf> {
    opabinia_weights::hub::Hub::from_env()
        .ok()
        .map(|hub| hub.cache().to_path_buf())
}

/// Whether a folder, or the nearest one above it that exists, can be written.
fn writable(path: &Path) -> bool {
    let existing = path.ancestors().find(|folder| folder.exists());
    existing.is_some_and(|folder| {
        std::fs::metadata(folder).is_ok_and(|meta| !meta.permissions().readonly())
    })
}

#[cfg(target_arch = "x86_64")]
fn abilities() -> Vec<&'static str> {
    let mut found = Vec::new();
    macro_rules! check {
        ($($name:tt),*) => { $( if is_x86_feature_detected!($name) { found.push($name); } )* };
    }
    check!(
        "sse4.2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl"
    );
    check!("avx512bf16", "avx512vnni", "avxvnni");
    found
}

#[cfg(not(target_arch = "x86_64"))]
fn abilities() -> Vec<&'static str> {
    vec![std::env::consts::ARCH]
}
