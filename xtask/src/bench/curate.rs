//! A curation beside DuckDB and Polars, and beside the disk's own speed.
//!
//! All three read the same pool of [`crate::pool`], keep the first of samples with equal content, at most so
//! many of each source and of these a mixture of categories, and write the lines that are kept. This program does more in its time:
//! it checks every sample, adds format prompts, and writes a ledger, a manifest and offset indexes. The
//! counts by source that come out must agree, or there is no table.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::report::{self, Machine};
use crate::failure::{Failure, Outcome};
use crate::pool::{CATEGORIES, Pool, categories};
use crate::workspace::{Metadata, cargo, output_of, root};

/// The lines before and after its table in the document.
pub(super) const MARKERS: [&str; 2] = [
    "<!-- bench:curation:begin -->",
    "<!-- bench:curation:end -->",
];

/// The share of the pool that a source may have, as the published cap of 350 thousand in ten million.
const CAP: f64 = 0.035;

/// Size of the mixture, as a share of the pool.
const TOTAL: f64 = 0.4;

/// The ratios of the released mixture (`recipes/curate/ratios-cambrian-7m.toml`), in the order of [`CATEGORIES`].
const RATIOS: [f64; 7] = [1676.0, 2347.0, 1944.0, 600.0, 226.0, 57.5, 205.0];

/// Gigabytes of memory that each program may take. DuckDB is told so; Polars has no such limit; this
/// program is measured, and there is no table if it took more.
const MEMORY: u64 = 4;

/// GiB of it that this program's query engine may take. The rest is for what it keeps of every
/// line and for the parts that are being read.
const ENGINE_MEMORY: u64 = 1;

/// How a curation is measured.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Samples of the pool that `--only curate` curates; the published one has some ten million.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100..=100_000_000))]
    samples: u64,
    /// Length of its texts, in percent of the published pool's.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    length: u64,
    /// A program that is there already, in place of a new build.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// What one program did.
#[derive(Debug)]
struct Measured {
    about: String,
    seconds: Vec<f64>,
    /// Of all processors together.
    processor_seconds: Vec<f64>,
    peak_bytes: u64,
    /// Samples that were kept, by the value of `source`.
    kept: BTreeMap<String, u64>,
}

/// What the script of the others prints.
#[derive(Deserialize)]
struct Said {
    about: String,
    seconds: f64,
    peak_bytes: u64,
    kept: BTreeMap<String, u64>,
}

/// Whether a table of this measurement may stand in the document.
pub(super) fn check_publishable(peers: Option<&Path>, smoke: bool, write: bool) -> Outcome {
    let reason = match (write, smoke, peers) {
        (false, ..) => return Ok(()),
        (true, true, _) => "a smoke test",
        (true, false, None) => "this program without its peers",
        (true, false, Some(_)) => return Ok(()),
    };
    Err(Failure::NotPublishable { reason })
}

/// Measures, prints the table, and writes it down if asked to.
pub(super) fn run(
    options: &Options,
    peers: Option<&Path>,
    passes: u32,
    threads: usize,
    write: bool,
) -> Outcome {
    let folder = Metadata::of_members()?
        .target_directory
        .join("bench/curate");
    fs::create_dir_all(&folder).map_err(file(&folder))?;
    let pool = folder.join(format!("pool-{}-{}.jsonl", options.samples, options.length));
    if !pool.exists() {
        eprintln!("making {}", pool.display());
        let made = Pool {
            samples: options.samples,
            length: options.length,
            seed: 0,
            out: pool.clone(),
        };
        made.write()?;
    }
    let bytes = fs::metadata(&pool).map_err(file(&pool))?.len();
    let plan = Plan::of(options.samples);
    let program = match &options.program {
        Some(program) => program.clone(),
        None => build()?,
    };
    let mut sides: BTreeMap<&str, Measured> = BTreeMap::new();
    let mut copies = Vec::new();
    for _ in 0..passes {
        copies.push(copy(&pool, &folder.join("copy"))?);
        let ours = curate(&program, &pool, &folder, &plan, threads)?;
        add(&mut sides, "opabinia", ours);
        for name in ["duckdb", "polars"] {
            let Some(python) = peers else { continue };
            let theirs = peer(python, name, &pool, &folder, &plan, threads)?;
            add(&mut sides, name, theirs);
        }
    }
    check(&sides)?;
    let about = About {
        samples: options.samples,
        bytes,
        plan,
        passes,
        copy: report::median(&copies),
    };
    let section = about.section(&sides, &Machine::of_this(threads));
    println!("\n{section}");
    if write {
        let document = root().join("docs/benchmarks.md");
        report::write_between(&document, MARKERS, &section)?;
    }
    Ok(())
}

/// What is selected.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Samples of each value of `source`, at most.
    cap: u64,
    /// Samples of the mixture.
    total: u64,
}

impl Plan {
    /// As large a part of `samples` as the published mixtures take.
    fn of(samples: u64) -> Self {
        let share = |share: f64| ((samples as f64 * share) as u64).max(1);
        Self {
            cap: share(CAP),
            total: share(TOTAL),
        }
    }

    /// Category and weight.
    fn ratios() -> impl Iterator<Item = (&'static str, f64)> {
        CATEGORIES.into_iter().zip(RATIOS)
    }

    /// As this program reads it.
    fn recipe(&self, pool: &Path) -> String {
        let mut text = format!("categories = {CATEGORIES:?}\n");
        for (field, category) in categories() {
            text += &format!("[[source]]\nname = {field:?}\ncategory = {category:?}\n");
        }
        text += &format!(
            "[input]\nfiles = [{pool:?}]\nmax_bad = \"1%\"\n[dedup]\nexact = true\n[cap]\nall = {}\n\
             [mix]\ntotal = {}\n[mix.ratios]\n",
            self.cap, self.total
        );
        for (category, weight) in Self::ratios() {
            text += &format!("{category} = {weight:?}\n");
        }
        text + "[prompts.sources]\n\"dvqa_2325k.json\" = [\"word\"]\n\"clevr_700k.json\" = [\"word\"]\n\
                [[prompts.prompt]]\nname = \"word\"\n\
                text = \"Answer the question using a single word or phrase.\"\n"
    }

    /// As the script of the others reads it.
    fn json(&self) -> Value {
        json!({
            "cap": self.cap, "total": self.total, "categories": CATEGORIES, "ratios": RATIOS,
            "category_of": categories(),
        })
    }
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.to_path_buf();
    move |source| Failure::File { path, source }
}

fn add(sides: &mut BTreeMap<&'static str, Measured>, name: &'static str, side: Measured) {
    eprintln!("  {:>9.2} s  {}", side.seconds[0], side.about);
    match sides.get_mut(name) {
        None => drop(sides.insert(name, side)),
        Some(known) => {
            known.seconds.extend(side.seconds);
            known.processor_seconds.extend(side.processor_seconds);
            known.peak_bytes = known.peak_bytes.max(side.peak_bytes);
        }
    }
}

/// Whether all programs kept as many samples of each source, and this one kept to its memory.
fn check(sides: &BTreeMap<&str, Measured>) -> Outcome {
    let Some(ours) = sides.get("opabinia") else {
        return Ok(());
    };
    let mut complaints = Vec::new();
    if ours.peak_bytes > MEMORY * 1_000_000_000 {
        complaints.push(format!(
            "opabinia took {:.2} GB of memory, more than {MEMORY}",
            ours.peak_bytes as f64 / 1e9
        ));
    }
    for (name, side) in sides {
        for (source, count) in &ours.kept {
            let theirs = side.kept.get(source).copied().unwrap_or_default();
            if theirs != *count {
                complaints.push(format!(
                    "{name} keeps {theirs} of `{source}`, opabinia {count}"
                ));
            }
        }
        if side.kept.len() != ours.kept.len() {
            complaints.push(format!("{name} finds {} sources", side.kept.len()));
        }
    }
    match complaints.is_empty() {
        true => Ok(()),
        false => Err(Failure::Rules {
            what: "the programs do not do the same within the same limits",
            complaints,
        }),
    }
}

fn build() -> Result<PathBuf, Failure> {
    let mut command = cargo();
    command.args(["build", "--release", "--package", "opabinia-cli"]);
    output_of(&mut command)?;
    let target = Metadata::of_members()?.target_directory;
    Ok(target
        .join("release")
        .join(format!("opabinia{}", std::env::consts::EXE_SUFFIX)))
}

/// Seconds to read the pool and write it again, to the last byte on disk.
fn copy(from: &Path, to: &Path) -> Result<f64, Failure> {
    let start = Instant::now();
    let mut read = File::open(from).map_err(file(from))?;
    let mut write = File::create(to).map_err(file(to))?;
    let mut chunk = vec![0; 1 << 20];
    loop {
        let there = read.read(&mut chunk).map_err(file(from))?;
        if there == 0 {
            break;
        }
        write.write_all(&chunk[..there]).map_err(file(to))?;
    }
    write.sync_all().map_err(file(to))?;
    let seconds = start.elapsed().as_secs_f64();
    fs::remove_file(to).map_err(file(to))?;
    eprintln!("  {seconds:>9.2} s  a copy of the file");
    Ok(seconds)
}

/// This program, with a recipe of exact duplicates, a cap, a mixture and format prompts.
fn curate(
    program: &Path,
    pool: &Path,
    folder: &Path,
    plan: &Plan,
    threads: usize,
) -> Result<Measured, Failure> {
    let recipe = folder.join("recipe.toml");
    fs::write(&recipe, plan.recipe(pool)).map_err(file(&recipe))?;
    let out = folder.join("curated");
    for left in [out.clone(), folder.join("curated.partial")] {
        if left.exists() {
            fs::remove_dir_all(&left).map_err(file(&left))?;
        }
    }
    let mut command = Command::new(program);
    command
        .args(["data", "curate"])
        .arg(&recipe)
        .arg("--out")
        .arg(&out)
        .args(["--json", "--quiet", "--threads", &threads.to_string()])
        .args(["--memory", &format!("{ENGINE_MEMORY}GiB")])
        .env("RAYON_NUM_THREADS", threads.to_string());
    let (spent, said) = timed(&mut command)?;
    let manifest: Value = serde_json::from_str(&said).map_err(|source| Failure::Output {
        command: "opabinia data curate".to_owned(),
        line: said.chars().take(200).collect(),
        source,
    })?;
    let sources = manifest["sources"].as_array().cloned().unwrap_or_default();
    let kept = sources.iter().filter_map(|source| {
        let kept = source["outcomes"]["kept"].as_u64()?;
        Some((source["source"].as_str()?.to_owned(), kept))
    });
    let version = manifest["version"].as_str().unwrap_or_default();
    let measured = Measured {
        about: format!("opabinia {version}"),
        seconds: vec![spent.seconds],
        processor_seconds: vec![spent.processor_seconds],
        peak_bytes: spent.peak_bytes,
        kept: kept.collect(),
    };
    fs::remove_dir_all(&out).map_err(file(&out))?;
    Ok(measured)
}

fn peer(
    python: &Path,
    name: &str,
    pool: &Path,
    folder: &Path,
    plan: &Plan,
    threads: usize,
) -> Result<Measured, Failure> {
    let (out, asked) = (folder.join("peer.jsonl"), folder.join("plan.json"));
    fs::write(&asked, plan.json().to_string()).map_err(file(&asked))?;
    let mut command = Command::new(python);
    command
        .arg(root().join("benches/peers/curate.py"))
        .arg(name)
        .args([pool, &out, &asked])
        .args([MEMORY.to_string(), threads.to_string()])
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let (spent, text) = timed(&mut command)?;
    let said: Said = serde_json::from_str(&text).map_err(|source| Failure::Output {
        command: format!("curate.py {name}"),
        line: text.chars().take(200).collect(),
        source,
    })?;
    fs::remove_file(&out).map_err(file(&out))?;
    Ok(Measured {
        about: said.about,
        seconds: vec![said.seconds],
        processor_seconds: vec![spent.processor_seconds],
        peak_bytes: said.peak_bytes,
        kept: said.kept,
    })
}

/// What a process took, as far as the system tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Spent {
    seconds: f64,
    processor_seconds: f64,
    peak_bytes: u64,
}

/// Runs a command: what it took, and what it prints.
fn timed(command: &mut Command) -> Result<(Spent, String), Failure> {
    let shown = crate::workspace::shown(command);
    let run = |source| Failure::Run {
        command: shown.clone(),
        source,
    };
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(run)?;
    // Read on a thread of its own, so that a full pipe stops nobody.
    let stdout = child.stdout.take();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.map(|mut out| out.read_to_string(&mut text));
        text
    });
    let mut spent = Spent::default();
    let status = loop {
        look_at(&child, &mut spent);
        match child.try_wait().map_err(run)? {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    spent.seconds = start.elapsed().as_secs_f64();
    if !status.success() {
        return Err(Failure::Command {
            command: shown,
            status,
        });
    }
    Ok((spent, reading.join().unwrap_or_default()))
}

/// Processor time and largest resident memory of a process so far.
fn look_at(child: &Child, spent: &mut Spent) {
    let read =
        |name: &str| fs::read_to_string(format!("/proc/{}/{name}", child.id())).unwrap_or_default();
    let status = read("status");
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    spent.peak_bytes = spent.peak_bytes.max(kilobytes.unwrap_or_default() * 1024);
    spent.processor_seconds = spent
        .processor_seconds
        .max(processor_seconds(&read("stat")));
}

/// Seconds in `/proc/PID/stat`: fields 14 and 15, in hundredths, counted behind the name, which may
/// hold spaces.
fn processor_seconds(stat: &str) -> f64 {
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    let ticks = behind.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

/// What the table is about.
struct About {
    samples: u64,
    bytes: u64,
    plan: Plan,
    passes: u32,
    copy: f64,
}

impl About {
    fn section(&self, sides: &BTreeMap<&str, Measured>, machine: &Machine) -> String {
        let kept: u64 = sides
            .get("opabinia")
            .map_or(0, |side| side.kept.values().sum());
        let mut text = format!(
            "{} samples of {} bytes in the mean, {:.2} GB, {} of them kept: after exact duplicates at most {} of \
             each value of `source`, and of these a mixture of {} by the ratios of the released one; on {}; \
             {}.\n\n\
             | program | seconds | of the pool in a second | seconds of processors | peak memory |\n\
             | --- | ---: | ---: | ---: | ---: |\n",
            self.samples,
            self.bytes / self.samples.max(1),
            self.bytes as f64 / 1e9,
            kept,
            self.plan.cap,
            self.plan.total,
            machine.about(),
            match self.passes {
                1 => "one pass".to_owned(),
                passes => format!("medians of {passes} passes"),
            },
        );
        let rate = |seconds: f64| format!("{:.0} MB", self.bytes as f64 / 1e6 / seconds);
        for name in ["opabinia", "duckdb", "polars"] {
            let Some(side) = sides.get(name) else {
                continue;
            };
            let seconds = report::median(&side.seconds);
            text += &format!(
                "| {} | {seconds:.1} | {} | {:.1} | {:.2} GB |\n",
                side.about,
                rate(seconds),
                report::median(&side.processor_seconds),
                side.peak_bytes as f64 / 1e9
            );
        }
        let copy = self.copy;
        text + &format!(
            "| a copy of the file | {copy:.1} | {} | – | – |",
            rate(copy)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(kept: u64) -> Measured {
        Measured {
            about: "a".to_owned(),
            seconds: vec![2.0],
            processor_seconds: vec![3.5],
            peak_bytes: 1_500_000_000,
            kept: BTreeMap::from([("s".to_owned(), kept)]),
        }
    }

    #[test]
    fn a_plan_is_said_to_all_programs_alike() {
        let plan = Plan::of(10_000_000);
        assert_eq!((plan.cap, plan.total), (350_000, 4_000_000));
        let recipe = plan.recipe(Path::new("p.jsonl"));
        for part in [
            "all = 350000\n[mix]\ntotal = 4000000\n[mix.ratios]\nLanguage = 1676.0\n",
            "name = \"clevr_700k.json\"\ncategory = \"Counting\"\n",
        ] {
            assert!(recipe.contains(part), "{recipe}");
        }
        let json = plan.json();
        assert_eq!(json["ratios"][5], 57.5);
        assert_eq!(json["category_of"]["clevr_700k.json"], "Counting");
    }

    #[test]
    fn programs_must_select_the_same() {
        assert!(
            check(&BTreeMap::from([
                ("opabinia", side(3)),
                ("duckdb", side(3))
            ]))
            .is_ok()
        );
        assert!(
            check(&BTreeMap::from([
                ("opabinia", side(3)),
                ("polars", side(4))
            ]))
            .is_err()
        );
    }

    #[test]
    fn memory_is_limited() {
        let mut large = side(3);
        large.peak_bytes = 4_000_000_001;
        assert!(check(&BTreeMap::from([("opabinia", large)])).is_err());
    }

    #[test]
    fn half_a_comparison_is_not_published() {
        let python = Some(Path::new("python"));
        assert!(check_publishable(python, false, true).is_ok());
        assert!(check_publishable(python, true, true).is_err());
        assert!(check_publishable(None, false, true).is_err());
        assert!(check_publishable(None, true, false).is_ok());
    }

    #[test]
    fn processor_time_is_counted_behind_the_name() {
        let stat = "12 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 7 8";
        assert_eq!(processor_seconds(stat), 3.0);
        assert_eq!(processor_seconds(""), 0.0);
    }

    #[test]
    fn a_table_has_rates() {
        let about = About {
            samples: 1000,
            bytes: 1_000_000_000,
            plan: Plan::of(1000),
            passes: 1,
            copy: 4.0,
        };
        let sides = BTreeMap::from([("opabinia", side(3))]);
        let text = about.section(&sides, &Machine::of_this(2));
        assert!(
            text.contains("| a | 2.0 | 500 MB | 3.5 | 1.50 GB |"),
            "{text}"
        );
        assert!(
            text.ends_with("| a copy of the file | 4.0 | 250 MB | – | – |"),
            "{text}"
        );
    }
}
