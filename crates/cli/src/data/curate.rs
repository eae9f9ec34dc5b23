//! `data curate`: a mixture as a recipe says.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use opabinia_curate::manifest::Tally;
use opabinia_curate::select::Outcome as Step;
use opabinia_curate::{CurateError, Manifest, Options, Recipe, curate};

use super::{parse_bytes, watched};
use crate::failure::Failure;
use crate::{Outcome, output};

/// Make a mixture as a recipe says.
#[derive(Args)]
pub struct Curate {
    /// The recipe, a TOML file.
    recipe: PathBuf,
    /// Folder to write; `data/NAME` if not given, where NAME is the recipe's file name.
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// Another seed than the recipe's.
    #[arg(long)]
    seed: Option<u64>,
    /// Check the recipe and print it with all defaults and tables; nothing is read or written.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    machine: Machine,
}

/// How much of the machine a curation takes; nothing of it changes what comes out.
#[derive(Args)]
pub struct Machine {
    /// Threads of the query engine; all processors if not given. On a cluster, pieces of the work that
    /// are done at the same time.
    #[arg(long)]
    threads: Option<usize>,
    /// Scheduler of a cluster that indexes and selects, `df://HOST:PORT`; it sees the same files under
    /// the same paths.
    #[arg(long, value_name = "URL")]
    cluster: Option<String>,
    /// Memory of the query engine; what does not fit is spilled to disk.
    #[arg(long, default_value = "1GiB", value_parser = parse_bytes)]
    memory: u64,
    /// Print the manifest as JSON.
    #[arg(long)]
    json: bool,
    /// No progress.
    #[arg(short, long)]
    quiet: bool,
}

impl Curate {
    /// Does it.
    pub fn run(self) -> Outcome {
        let mut recipe = Recipe::read(&self.recipe)?;
        if let Some(seed) = self.seed {
            recipe.seed = seed;
        }
        if self.dry_run {
            output::data(recipe.to_toml()?.trim_end());
            return Ok(ExitCode::SUCCESS);
        }
        let name = self.recipe.file_stem().unwrap_or_default();
        let out = self.out.unwrap_or_else(|| PathBuf::from("data").join(name));
        make(&recipe, &out, &self.machine)
    }
}

/// Curates, and shows what came of it.
pub fn make(recipe: &Recipe, out: &std::path::Path, machine: &Machine) -> Outcome {
    let mut options = Options {
        memory_bytes: usize::try_from(machine.memory).unwrap_or(usize::MAX),
        cluster: machine.cluster.clone(),
        ..Options::default()
    };
    if let Some(threads) = machine.threads {
        options.threads = threads.max(1);
    }
    let made = watched(machine.quiet, |watch| {
        match curate(recipe, out, &options, watch) {
            Err(CurateError::Interrupted) => Ok(None),
            made => made.map(Some),
        }
    });
    let Some(manifest) = made? else {
        output::note("interrupted; the same command goes on from here");
        return Ok(ExitCode::from(130));
    };
    for warning in &manifest.warnings {
        output::note(&format!("warning: {warning}"));
    }
    if machine.json {
        let text = serde_json::to_string(&manifest)
            .map_err(|error| Failure::new(format!("cannot print the manifest: {error}")))?;
        output::data(&text);
    } else {
        output::data(&tables(&manifest));
        output::data(&format!("\n{}", out.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Sources, categories, and totals.
fn tables(manifest: &Manifest) -> String {
    // Steps that dropped nothing anywhere say nothing.
    let steps: Vec<(Step, &str)> = Step::STEPS
        .into_iter()
        .zip(["unique", "not alike", "own cap", "cap of all", "quota"])
        .filter(|(step, _)| manifest.total.of(step.name()) > 0)
        .collect();
    let mut header = vec!["samples"];
    header.extend(steps.iter().map(|(_, name)| *name));
    header.extend(["kept", "share"]);
    let kept = manifest.total.of(Step::Kept.name()).max(1) as f64;
    let numbers = |tally: &Tally| {
        let mut row = vec![tally.samples.to_string()];
        row.extend(steps.iter().map(|(step, _)| tally.after(*step).to_string()));
        let own = tally.of(Step::Kept.name());
        row.push(own.to_string());
        row.push(format!("{:.2} %", 100.0 * own as f64 / kept));
        row
    };
    let mut sources: Vec<_> = manifest.sources.iter().collect();
    sources.sort_by_key(|source| (source.tally.unique(), source.source.as_str()));
    let prompted = sources.iter().any(|source| source.prompted > 0);
    let mut running = 0;
    let rows: Vec<Vec<String>> = sources
        .iter()
        .map(|source| {
            running += source.tally.unique();
            let mut row = vec![source.source.clone(), source.category.clone()];
            row.extend(numbers(&source.tally));
            row.push(running.to_string());
            if prompted {
                row.push(source.prompted.to_string());
            }
            row
        })
        .collect();
    let mut names = vec!["source", "category"];
    names.extend(&header);
    names.push("running total");
    if prompted {
        names.push("prompted");
    }
    let mut text = output::table(&names, &rows);
    let rows: Vec<Vec<String>> = manifest
        .categories()
        .iter()
        .map(|(name, tally)| [vec![name.clone()], numbers(tally)].concat())
        .collect();
    let mut names = vec!["category"];
    names.extend(&header);
    text += &format!("\n\n{}", output::table(&names, &rows));
    let rows: Vec<Vec<String>> = manifest
        .total
        .outcomes
        .iter()
        .map(|(name, count)| vec![name.clone(), count.to_string()])
        .chain([vec![
            "all lines".to_owned(),
            manifest.total.lines().to_string(),
        ]])
        .collect();
    text += &format!("\n\n{}", output::table(&["outcome", "lines"], &rows));
    if !manifest.rewritten.is_empty() {
        let answers = manifest.rewritten.iter();
        let rows: Vec<Vec<String>> = answers
            .map(|(what, count)| vec![what.clone(), count.to_string()])
            .collect();
        text += &format!("\n\n{}", output::table(&["short answers", "count"], &rows));
    }
    text
}
