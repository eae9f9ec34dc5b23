//! `engine`: new samples from the web, with provenance.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use opabinia_engine::{EngineError, Plan, Report, RunOptions, StageStatus};
use serde_json::json;

use crate::failure::Failure;
use crate::progress::Stages;
use crate::{Outcome, interrupt, output};

/// The verbs of `engine`.
#[derive(Subcommand)]
pub enum Engine {
    /// Run a plan, or go on with it where it was interrupted.
    Run(Run),
    /// Show progress, yield and cost of a run by stage.
    Status(Status),
    /// Make a run again from its archive, without a network, and compare the pools.
    Replay(Replay),
    /// Draw samples of a run's pool on a page to look through.
    Page(Page),
}

impl Engine {
    /// Does it.
    pub fn run(self) -> Outcome {
        match self {
            Self::Run(verb) => verb.run(),
            Self::Status(verb) => verb.run(),
            Self::Replay(verb) => verb.run(),
            Self::Page(verb) => verb.run(),
        }
    }
}

/// Run a plan, or go on with it where it was interrupted.
#[derive(Args)]
pub struct Run {
    /// The plan, a TOML file.
    plan: PathBuf,
    /// Folder of the run; `runs/engine/NAME` if not given.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Try again what failed for a reason that may have passed.
    #[arg(long)]
    retry: bool,
    /// Ask whether searches, pages and pictures have changed, and take what is new.
    #[arg(long)]
    refresh: bool,
    /// Check the plan and print it with all defaults; nothing is asked.
    #[arg(long)]
    dry_run: bool,
}

impl Run {
    fn run(self) -> Outcome {
        let plan = Plan::read(&self.plan)?;
        if self.dry_run {
            output::data(&plan.resolved()?);
            return Ok(ExitCode::SUCCESS);
        }
        let folder = self
            .folder
            .unwrap_or_else(|| PathBuf::from("runs/engine").join(&plan.name));
        interrupt::watch()?;
        let options = RunOptions {
            retry: self.retry,
            refresh: self.refresh,
        };
        let shown = Stages::new();
        let report =
            opabinia_engine::run(&plan, &folder, options, &interrupt::asked, &|progress| {
                shown.update(progress.stage, progress.done as u64, progress.total as u64);
            });
        shown.finish();
        finish(report?)
    }
}

/// Shows what came of a run; one that stopped early is a failure.
fn finish(report: Report) -> Outcome {
    output::data(&table(&report.stages));
    let summary = report.summary;
    let dropped: Vec<Vec<String>> = summary
        .ledger
        .iter()
        .map(|(what, count)| vec![what.clone(), count.to_string()])
        .collect();
    output::data(&format!(
        "\n{}",
        output::table(&["ledger", "count"], &dropped)
    ));
    output::data(&format!(
        "\n{} samples with {} pictures; agreement {}",
        summary.samples, summary.pictures, summary.agreement
    ));
    if summary.pools_unread > 0 {
        output::note(&format!(
            "warning: {} samples or pictures of `filters.pools` could not be read and were not compared with",
            summary.pools_unread
        ));
    }
    match report.stopped {
        None => Ok(ExitCode::SUCCESS),
        Some(opabinia_engine::Stop::Interrupted) => {
            output::note("interrupted; the same command goes on from here");
            Ok(ExitCode::from(130))
        }
        Some(stop) => Err(Failure::from(stop)
            .hint("what is finished is kept and in the pool; the same command goes on from here")),
    }
}

/// Show progress, yield and cost of a run by stage.
#[derive(Args)]
pub struct Status {
    /// Folder of the run.
    folder: PathBuf,
    /// One JSON object per stage.
    #[arg(long)]
    json: bool,
}

impl Status {
    fn run(self) -> Outcome {
        let stages = opabinia_engine::status(&self.folder)?;
        if self.json {
            for stage in &stages {
                output::data(&json!(stage).to_string());
            }
        } else {
            output::data(&table(&stages));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn table(stages: &[StageStatus]) -> String {
    let row = |stage: &StageStatus| {
        let pending = stage.pending();
        let cost = stage.cost;
        let numbers = [
            stage.jobs,
            stage.done,
            stage.failed,
            pending,
            stage.yielded,
            stage.attempts,
            stage.failed_attempts,
        ];
        let mut row = vec![stage.stage.clone()];
        row.extend(numbers.map(|number| number.to_string()));
        row.extend([
            output::bytes(stage.bytes),
            cost.tokens_in.to_string(),
            cost.tokens_out.to_string(),
            format!("{:.4}", cost.money),
        ]);
        row
    };
    let header = [
        "stage",
        "jobs",
        "done",
        "failed",
        "to do",
        "yield",
        "requests",
        "failed",
        "received",
        "tokens in",
        "out",
        "money",
    ];
    output::table(&header, &stages.iter().map(row).collect::<Vec<_>>())
}

/// Make a run again from its archive, without a network, and compare the pools.
#[derive(Args)]
pub struct Replay {
    /// Folder of the run.
    folder: PathBuf,
    /// Folder to make it in; new, or of an interrupted replay.
    #[arg(long)]
    to: PathBuf,
}

impl Replay {
    fn run(self) -> Outcome {
        let shown = Stages::new();
        let report = opabinia_engine::replay(&self.folder, &self.to, &|progress| {
            shown.update(progress.stage, progress.done as u64, progress.total as u64);
        });
        shown.finish();
        let report = match report {
            Err(error @ EngineError::Differs { .. }) => {
                return Err(Failure::from(error).hint(
                    "a run that was killed is not finished: run its plan again, and replay it then",
                ));
            }
            report => report?,
        };
        output::data(&format!(
            "the replay made the same pool, byte for byte: {} samples",
            report.summary.samples
        ));
        Ok(ExitCode::SUCCESS)
    }
}

/// Draw samples of a run's pool on a page to look through.
#[derive(Args)]
pub struct Page {
    /// Folder of the run.
    folder: PathBuf,
    /// File to write; `pool/page.html` in the folder if not given.
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// How many samples.
    #[arg(long, default_value_t = 50)]
    samples: usize,
    /// Same seed, same samples.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Page {
    fn run(self) -> Outcome {
        let page = opabinia_engine::sample_page(&self.folder, self.samples, self.seed)?;
        let out = self
            .out
            .unwrap_or_else(|| self.folder.join("pool/page.html"));
        // Whoever reloads the page sees all of it.
        let partial = out.with_extension("partial");
        std::fs::write(&partial, page)
            .and_then(|()| std::fs::rename(&partial, &out))
            .map_err(|error| Failure::new(format!("cannot write `{}`: {error}", out.display())))?;
        output::data(&out.display().to_string());
        Ok(ExitCode::SUCCESS)
    }
}
