//! Runs: begun, gone on with, looked at, made again.

use std::path::Path;

use crate::error::{EngineError, Stop};
use crate::files::write_whole;
use crate::known::Known;
use crate::outside::{Outside, Source};
use crate::plan::Plan;
use crate::pool::{self, Summary};
use crate::stages::{Engine, STAGES};
use crate::store::{StageStatus, Store};
use crate::web::Client;

/// How a run is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// Whether failures that may pass are tried again.
    pub retry: bool,
    /// Whether pages and pictures are asked for again where their hosts say that they changed.
    pub refresh: bool,
}

/// How far a stage is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The stage.
    pub stage: &'static str,
    /// Jobs that are over.
    pub done: usize,
    /// All that were to be done.
    pub total: usize,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// Why it stopped, if it did not come to its end.
    pub stopped: Option<Stop>,
    /// The pool.
    pub summary: Summary,
    /// Stages.
    pub stages: Vec<StageStatus>,
}

/// Runs a plan in a folder, or goes on with it.
///
/// # Errors
/// If the folder cannot be used, or a key that the plan names is not set. What fails outside is in the report and in the ledger.
pub fn run(
    plan: &Plan,
    folder: &Path,
    options: RunOptions,
    stop: &(dyn Fn() -> bool + Sync),
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Report, EngineError> {
    plan.check_keys()?;
    let store = Store::open(folder, &plan.fingerprint()?)?;
    write_whole(&folder.join("plan.toml"), plan.resolved()?.as_bytes())?;
    if options.retry {
        store.retry()?;
    }
    if options.refresh {
        for stage in ["search", "pages", "pictures"] {
            store.reopen(stage)?;
        }
    }
    let outside = Outside::new(
        plan,
        &store,
        Source::Web(Client::new(plan, stop)),
        options.refresh,
    );
    let known = match Known::read(plan, stop, progress) {
        Ok(known) => known,
        // What the other pools have is not known, so the pool stays what it was.
        Err(EngineError::Interrupted) => {
            let made = (Some(Stop::Interrupted), pool::summary(folder));
            return report(made, &store);
        }
        Err(error) => return Err(error),
    };
    let engine = Engine::new(plan, &store, &outside, known, progress);
    report(engine.all()?, &store)
}

/// Makes a run again from its archive, without a network, and compares the pools.
///
/// # Errors
/// If a folder cannot be used, or [`EngineError::Differs`].
pub fn replay(
    from: &Path,
    to: &Path,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Report, EngineError> {
    let recording = Store::look(from)?;
    let plan = Plan::read(&from.join("plan.toml"))?;
    // A run proves nothing about itself.
    let whole = |folder: &Path| std::fs::canonicalize(folder).ok();
    if whole(from).is_some_and(|from| whole(to) == Some(from)) {
        return Err(EngineError::SameFolder {
            folder: from.to_owned(),
        });
    }
    let store = Store::open(to, &format!("replay of {}", plan.fingerprint()?))?;
    write_whole(&to.join("plan.toml"), plan.resolved()?.as_bytes())?;
    let outside = Outside::new(&plan, &store, Source::Recording(&recording), false);
    // The pools themselves may have changed since, or be gone.
    let known = match recording.known()? {
        Some(kept) => Known::of_run(&kept)?,
        None => Known::read(&plan, &|| false, progress)?,
    };
    let engine = Engine::new(&plan, &store, &outside, known, progress);
    let report = report(engine.all()?, &store)?;
    let differs = |name: &str| {
        std::fs::read(from.join("pool").join(name)).ok()
            != std::fs::read(to.join("pool").join(name)).ok()
    };
    let differing: Vec<String> = pool::FILES
        .into_iter()
        .filter(|name| differs(name))
        .map(str::to_owned)
        .collect();
    match differing.is_empty() {
        true => Ok(report),
        false => Err(EngineError::Differs { differing }),
    }
}

/// Progress and costs of a run.
///
/// # Errors
/// If there is no run.
pub fn status(folder: &Path) -> Result<Vec<StageStatus>, EngineError> {
    let store = Store::look(folder)?;
    all_status(&store)
}

fn report(made: (Option<Stop>, Summary), store: &Store) -> Result<Report, EngineError> {
    let (stopped, summary) = made;
    Ok(Report {
        stopped,
        summary,
        stages: all_status(store)?,
    })
}

fn all_status(store: &Store) -> Result<Vec<StageStatus>, EngineError> {
    STAGES
        .iter()
        .map(|stage| {
            let mut status = store.status(stage)?;
            store.each_finished(stage, |job| {
                if let Some(result) = job.result {
                    let count = |list: &serde_json::Value| list.as_array().map(Vec::len);
                    let list = count(&result).or_else(|| count(&result["items"]));
                    let list = list.or_else(|| count(&result["sections"]));
                    // An agreement is one, though it is written as two numbers.
                    let list = list.filter(|_| *stage != "agreement");
                    status.yielded += list.unwrap_or(1) as u64;
                }
                Ok(())
            })?;
            Ok(status)
        })
        .collect()
}
