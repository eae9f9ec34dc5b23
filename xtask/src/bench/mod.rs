//! `cargo xtask bench`: this program beside PyTorch and llama.cpp.
//!
//! Ratios, not absolute claims: both sides run the same network of the published size, in the same
//! minute, taking turns pass by pass (ours, theirs, ours, theirs, …), each in a process of its own,
//! with the same number of threads. Medians are compared. A side that disagrees about the number of
//! parameters, the amount of work, or what the first steps of training give is an error, not a row.
//!
//! What a feature of this program brings is measured in the same way: two processes of this program,
//! one with it and one without.

mod child;
mod curate;
mod records;
mod report;
mod workloads;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::available_parallelism;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::Deserialize;

use crate::failure::{Failure, Outcome};
use crate::workspace::{Metadata, cargo, output_of, root, shown};
use child::Child;
use records::Earlier;
use report::{Machine, Row};
use workloads::{Beside, Group, WORKLOADS, Workload};

/// The example that is the Rust side.
const PROGRAM: &str = "measure";

/// Measures this program beside PyTorch and llama.cpp.
#[derive(Args)]
pub(crate) struct Bench {
    /// A Python interpreter that has `torch`, `safetensors`, `llama-cpp-python` and `gguf`; without it only
    /// this program is measured.
    #[arg(long, value_name = "PYTHON")]
    peers: Option<PathBuf>,
    /// Writes the tables into docs/benchmarks.md.
    #[arg(long)]
    write: bool,
    /// Only those of a table (`answering`, `language-model`, `training`, `products`), or whose name contains
    /// this, such as `encoder` or `llm/decode`; or `curate`, whose peers are DuckDB and Polars.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Timed passes of each side; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    passes: u32,
    /// Threads of each side; all processors if not given.
    #[arg(long)]
    threads: Option<usize>,
    /// A file of records under `target/bench`: what it holds is not measured again, so that a table can
    /// be made in several sittings.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Networks of a few layers, to try the machinery; the numbers mean nothing.
    #[arg(long)]
    smoke: bool,
    #[command(flatten)]
    curation: curate::Options,
}

/// Why a workload has no row, and whose table is therefore not whole.
type Complaint = (Group, String);

/// What all measurements have in common.
struct Setup {
    program: PathBuf,
    folder: PathBuf,
    threads: usize,
    earlier: Earlier,
    commit: Option<String>,
}

impl Bench {
    /// Measures, prints the table, and writes it down if asked to.
    pub(crate) fn run(self) -> Outcome {
        // It takes gigabytes of disk and other peers, so it is not part of the whole.
        if self.only.as_deref() == Some("curate") {
            let threads = self.threads.unwrap_or_else(all_threads);
            let peers = self.peers.as_deref();
            curate::check_publishable(peers, self.smoke, self.write)?;
            return curate::run(&self.curation, peers, self.passes, threads, self.write);
        }
        let chosen = self.chosen()?;
        self.check_publishable(&chosen)?;
        let folder = Metadata::of_members()?.target_directory.join("bench");
        create_folder(&folder)?;
        let records = folder.join(format!("{}.jsonl", seconds_since_1970()));
        let threads = self.threads.unwrap_or_else(all_threads);
        let machine = Machine::of_this(threads);
        let earlier = self.resume.as_deref().map(Earlier::read).transpose()?;
        let setup = Setup {
            program: build()?,
            folder,
            threads,
            earlier: earlier.unwrap_or_default(),
            commit: commit(),
        };
        let (rows, complaints) = self.measure_all(&chosen, &setup, &records)?;
        let groups = Group::ALL.map(|group| (group, self.section(&rows, group, &machine)));
        for section in groups.iter().filter_map(|(_, section)| section.as_ref()) {
            println!("\n{section}");
        }
        println!("records: {}", records.display());
        if self.smoke {
            println!("a smoke test, with networks of a few layers: these numbers mean nothing");
        }
        if self.write {
            let document = root().join("docs/benchmarks.md");
            for (group, section) in groups {
                let whole = complaints.iter().all(|(of, _)| *of != group);
                if let Some(section) = section.filter(|_| whole) {
                    report::write(&document, group, &section)?;
                }
            }
        }
        if !complaints.is_empty() {
            return Err(Failure::Rules {
                what: "some workloads could not be measured, so their tables are not whole",
                complaints: complaints.into_iter().map(|(_, what)| what).collect(),
            });
        }
        Ok(())
    }

    /// What is said about a group; `None` if nothing of it was measured.
    fn section(&self, rows: &[Row], group: Group, machine: &Machine) -> Option<String> {
        let rows: Vec<&Row> = rows
            .iter()
            .filter(|row| row.workload.group == group)
            .collect();
        (!rows.is_empty()).then(|| report::section(&rows, machine, self.passes))
    }

    fn check_publishable(&self, chosen: &[&Workload]) -> Outcome {
        let half = |group: &Group| {
            let all = group.workloads().count();
            let of_it = chosen.iter().filter(|w| w.group == *group).count();
            of_it > 0 && of_it < all
        };
        let reason = match self {
            Self { write: false, .. } => return Ok(()),
            Self { smoke: true, .. } => "a smoke test",
            _ if Group::ALL.iter().any(half) => "a part of the workloads of a table",
            _ => return Ok(()),
        };
        Err(Failure::NotPublishable { reason })
    }

    fn chosen(&self) -> Result<Vec<&'static Workload>, Failure> {
        let text = self.only.as_deref().unwrap_or_default();
        if let Some(group) = Group::ALL.into_iter().find(|group| group.name() == text) {
            return Ok(group.workloads().collect());
        }
        let chosen: Vec<_> = WORKLOADS.iter().filter(|w| w.name.contains(text)).collect();
        if chosen.is_empty() {
            return Err(Failure::Unknown {
                kind: "table or workload",
                name: text.to_owned(),
                known: (Group::ALL.iter().map(|group| group.name()))
                    .chain(WORKLOADS.iter().map(|workload| workload.name))
                    .collect(),
            });
        }
        Ok(chosen)
    }

    /// Measures one workload after the other. One that fails does not keep the others from being
    /// measured, but its table is not whole.
    fn measure_all(
        &self,
        chosen: &[&'static Workload],
        setup: &Setup,
        records: &Path,
    ) -> Result<(Vec<Row>, Vec<Complaint>), Failure> {
        let file = |source| Failure::File {
            path: records.to_path_buf(),
            source,
        };
        let mut log = File::create(records).map_err(file)?;
        let (mut rows, mut complaints) = (Vec::new(), Vec::new());
        for workload in chosen {
            for &dtype in workload.dtypes {
                eprintln!("{} in {dtype}", workload.name);
                match self.measure(workload, dtype, setup) {
                    Ok(row) => {
                        for record in records::of_row(&row) {
                            let line = serde_json::to_string(&record).map_err(io::Error::from);
                            writeln!(log, "{}", line.map_err(file)?).map_err(file)?;
                        }
                        rows.push(row);
                    }
                    Err(failure) => {
                        crate::report(&failure);
                        let what = format!("{} in {dtype}: {failure}", workload.name);
                        complaints.push((workload.group, what));
                    }
                }
            }
        }
        Ok((rows, complaints))
    }

    fn measure(
        &self,
        workload: &'static Workload,
        dtype: &'static str,
        setup: &Setup,
    ) -> Result<Row, Failure> {
        let peer = self.peers.is_some();
        if let Some(row) = setup.earlier.row(workload, dtype, self.passes, peer) {
            eprintln!("  measured before");
            return Ok(row);
        }
        let own = |name| self.command(&setup.program, None, name, dtype, setup);
        let beside = match (workload.beside, workload.beside.peer(), &self.peers) {
            (Beside::Without(name), ..) => Some(own(name)),
            (beside, Some((_, script)), Some(python)) => {
                let script = root().join("benches/peers").join(script);
                let dtype = beside.format(dtype);
                Some(self.command(python, Some(&script), workload.name, dtype, setup))
            }
            _ => None,
        };
        // One after the other: a side that warms up must not disturb the other one's warming up,
        // and the first writes the weights that both read.
        let mut ours = Child::start(own(workload.name))?;
        let mut beside = beside.map(Child::start).transpose()?;
        let mut limit = workload.limit.map(own).and_then(start_limit);
        if let Some(beside) = &beside {
            ours.check_same_work(beside, workload)?;
        }
        let passes = match workload.beside {
            Beside::Itself => 1,
            Beside::PyTorch | Beside::LlamaCpp | Beside::Without(_) => self.passes,
        };
        for _ in 0..passes {
            let children = [Some(&mut ours), beside.as_mut(), limit.as_mut()];
            for child in children.into_iter().flatten() {
                let seconds = child.pass()?;
                eprintln!("  {seconds:>9.4} s  {}", child.ready().about);
            }
        }
        Ok(Row {
            workload,
            dtype,
            ours: Some(ours.finish()?),
            beside: beside.map(Child::finish).transpose()?,
            limit: limit.map(Child::finish).transpose()?,
            commit: setup.commit.clone(),
        })
    }

    fn command(
        &self,
        program: &Path,
        script: Option<&Path>,
        workload: &str,
        dtype: &str,
        setup: &Setup,
    ) -> Command {
        let threads = setup.threads.to_string();
        let size = if self.smoke { "-smoke" } else { "" };
        let file = format!("{}{size}.safetensors", workload.replace('/', "-"));
        let mut command = Command::new(program);
        command
            .args(script)
            .args([workload, "--dtype", dtype, "--checkpoint"])
            .arg(setup.folder.join(file))
            .args(self.smoke.then_some("--smoke"))
            .env("RAYON_NUM_THREADS", &threads)
            .env("OMP_NUM_THREADS", &threads)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            // Both allocators keep what is freed, ours as in the program: neither side pays for page faults.
            .env("MIMALLOC_PURGE_DELAY", "-1")
            .env("MALLOC_MMAP_MAX_", "0")
            .env("MALLOC_TRIM_THRESHOLD_", (1u64 << 40).to_string());
        command
    }
}

/// A limit that this machine cannot tell leaves its column empty.
fn start_limit(command: Command) -> Option<Child> {
    match Child::start(command) {
        Ok(child) => Some(child),
        Err(failure) => {
            crate::report(&failure);
            None
        }
    }
}

/// The line of Cargo's messages that names a program it built.
#[derive(Deserialize)]
struct Artifact {
    target: Option<ArtifactTarget>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct ArtifactTarget {
    name: String,
}

/// Builds the Rust side and says where it is.
fn build() -> Result<PathBuf, Failure> {
    let mut command = cargo();
    command.args([
        "build",
        "--release",
        "--package",
        "xtask",
        "--example",
        PROGRAM,
    ]);
    command.arg("--message-format=json-render-diagnostics");
    let messages = output_of(&mut command)?;
    let artifacts = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
    artifacts
        .filter(|found| {
            found
                .target
                .as_ref()
                .is_some_and(|target| target.name == PROGRAM)
        })
        .find_map(|found| found.executable)
        .ok_or_else(|| Failure::NoProgram {
            command: shown(&command),
            program: PROGRAM,
        })
}

fn create_folder(folder: &Path) -> Outcome {
    fs::create_dir_all(folder).map_err(|source| Failure::File {
        path: folder.to_path_buf(),
        source,
    })
}

/// Sources without a repository have no commit.
fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["rev-parse", "--short", "HEAD"])
        .current_dir(root());
    output_of(&mut git).ok().map(|text| text.trim().to_owned())
}

fn all_threads() -> usize {
    available_parallelism().map_or(1, usize::from)
}

fn seconds_since_1970() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
