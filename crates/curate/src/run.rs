//! A curation from recipe to pool.
//!
//! What is being made lies in `OUT.partial`, and becomes `OUT` in one move when everything is there and
//! adds up. An interrupted curation leaves indexes and finished shards there; the same command takes
//! them over if recipe and inputs are still the same, and throws them away if not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datafusion::prelude::SessionContext;
use rayon::prelude::*;

use crate::copy::{Copier, Shard, plan_shards};
use crate::counts::{self, Limits};
use crate::error::CurateError;
use crate::index::read_summary;
use crate::job::{Job, Running, index_path};
use crate::ledger::Reasons;
use crate::manifest::{self, Counts, Manifest, SourceTally};
use crate::near;
use crate::part::{self, Part};
use crate::partial::{Partial, plain_name};
use crate::plain;
use crate::plan;
use crate::recipe::Recipe;
use crate::rewrite::within::Ready;
use crate::select::{self, Decisions, Ranks};
use crate::sources::Origin;
use crate::strangers;
use crate::summaries::Summaries;
use crate::table::write_text;

/// How a curation is run; nothing of it changes what comes out, except for `part_bytes` the names of
/// ledger files.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads of the query engine.
    pub threads: usize,
    /// Memory of the query engine, in bytes; what does not fit is spilled to disk.
    pub memory_bytes: usize,
    /// Bytes of a part.
    pub part_bytes: u64,
    /// The scheduler of a cluster that runs the plans, `df://HOST:PORT`; this process if not given.
    /// `threads` then says how many pieces of a plan run at the same time.
    pub cluster: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: 1 << 30,
            part_bytes: part::PART_BYTES,
            cluster: None,
        }
    }
}

/// How far a curation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done: "unpack", "index", "select", "rewrite", "copy", "ledger".
    pub stage: &'static str,
    /// Pieces that are done.
    pub done: u64,
    /// Pieces of this stage.
    pub total: u64,
}

/// Who looks on, and may ask for an end.
pub struct Watch<'a> {
    /// Called with every step.
    pub progress: &'a (dyn Fn(Progress) + Sync),
    /// Whether to stop.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl Watch<'_> {
    pub(crate) fn check(&self) -> Result<(), CurateError> {
        match (self.cancelled)() {
            true => Err(CurateError::Interrupted),
            false => Ok(()),
        }
    }
}

/// Curates: reads what the recipe names, and writes the pool `out`.
///
/// A pool that the same recipe made of the same files is not made again.
///
/// # Errors
/// See [`CurateError`]; what is finished by then is kept for the next try.
pub fn curate(
    recipe: &Recipe,
    out: &Path,
    options: &Options,
    watch: &Watch<'_>,
) -> Result<Manifest, CurateError> {
    let out = &plain_name(out);
    let mut job = Job::new(recipe, options.part_bytes)?;
    if let Some(done) = finished(out, &job)? {
        return Ok(done);
    }
    let partial = Partial::open(out, &job)?;
    let manifest = match partial.whole(&job)? {
        Some(manifest) => manifest,
        None => {
            plain::make(&mut job, &partial.folders.plain(), watch)?;
            job.write(&partial.folders.job())?;
            let made = partial.make(&job, options, watch);
            Running::forget(&partial.folders.job());
            made?
        }
    };
    partial.publish(out)?;
    Ok(manifest)
}

/// The manifest of `out`, if it is the pool of this job.
fn finished(out: &Path, job: &Job) -> Result<Option<Manifest>, CurateError> {
    let occupied = |what| CurateError::Occupied {
        path: out.to_owned(),
        what,
    };
    if !out.exists() {
        return Ok(None);
    }
    let empty = out
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_none());
    if empty {
        return Ok(None);
    }
    let Ok(manifest) = Manifest::read(out) else {
        return Err(occupied("is no pool of this program"));
    };
    match manifest.fingerprint == job.fingerprint()? {
        true => Ok(Some(manifest)),
        false => Err(occupied(
            "is the pool of another recipe, or of files that changed since",
        )),
    }
}

impl Partial {
    fn make(
        &self,
        job: &Job,
        options: &Options,
        watch: &Watch<'_>,
    ) -> Result<Manifest, CurateError> {
        let parts = job.parts();
        // A key that is not set is missed before hours of work.
        let rewriting = Ready::of(&job.recipe)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.threads.max(1))
            // A cluster is reached over a network, and waiting takes a clock.
            .enable_all()
            .build()
            .map_err(CurateError::io("start threads in", &self.root))?;
        self.index(&parts, options, watch, &runtime)?;
        let read = Summaries::read(&self.folders.job(), job, &parts)?;
        if let Err(error) = read.check_bad(&job.recipe) {
            // Files are looked at once, and tell when they change; pictures do not, so those that were
            // missing are looked for again the next time.
            for number in read.without_pictures(&parts) {
                let _ = std::fs::remove_file(index_path(&self.folders.job(), number));
            }
            return Err(error);
        }
        let (decisions, limits) = self.select(job, &read, options, watch, &runtime)?;
        drop(runtime);
        let job_path = self.folders.job();
        let within = match &rewriting {
            Some(ready) => Some(ready.open(&self.answers(job))?),
            None => None,
        };
        let mut copier = Copier::new(job, &job_path, &parts, &decisions, &read.origins);
        if let Some(within) = &within {
            copier = copier.with_rewriting(within, &read.origins);
            let plans = plan_shards(copier.kept(), job.recipe.output.shard_samples);
            let step = Steps::new("rewrite", plans.len() as u64, watch);
            for plan in plans {
                copier.ask(plan, watch)?;
                step.done();
            }
        }
        let reasons = Reasons {
            job,
            job_path: &job_path,
            parts: &parts,
            first_lines: &read.first_lines,
            decisions: &decisions,
            origins: &read.origins,
            limits: &limits,
            of_sources: &counts::of_sources(&limits),
        };
        self.write(&copier, &reasons, &read, watch)
    }

    /// Where answers of a model are kept: outside of the folder, which goes when the recipe changes.
    fn answers(&self, job: &Job) -> PathBuf {
        let named = job.recipe.rewrite.as_ref();
        let named = named.and_then(|table| table.answers.clone());
        named.unwrap_or_else(|| self.root.with_extension("answers.jsonl"))
    }

    fn index(
        &self,
        parts: &[Part],
        options: &Options,
        watch: &Watch<'_>,
        runtime: &tokio::runtime::Runtime,
    ) -> Result<(), CurateError> {
        let job_path = self.folders.job();
        let missing: Vec<u32> = parts
            .iter()
            .map(|part| part.number)
            .filter(|&number| read_summary(&index_path(&job_path, number)).is_err())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        for number in &missing {
            // What cannot be read is made again.
            let _ = std::fs::remove_file(index_path(&job_path, *number));
        }
        let (table, spill) = (self.folders.parts(), self.folders.spill());
        self.fresh(&table)?;
        self.fresh(&spill)?;
        plan::write_parts(&table, &job_path, &missing, options.threads)?;
        Running::forget(&job_path);
        // On a cluster, what is done shows in the folder alone.
        let running = match options.cluster {
            None => Some(Running::at(&job_path)?),
            Some(_) => None,
        };
        let (before, total) = ((parts.len() - missing.len()) as u64, parts.len() as u64);
        let context = session(options, &spill)?;
        let work =
            runtime.spawn(async move { plan::index_plan(&context, &table).await?.collect().await });
        // The plan runs on its own threads; this one looks on.
        while !work.is_finished() {
            let done = match &running {
                Some(running) => before + running.done.load(Ordering::Relaxed),
                None => whole_files(&self.folders.index()),
            };
            (watch.progress)(Progress {
                stage: "index",
                done,
                total,
            });
            match (&running, (watch.cancelled)()) {
                (_, false) => {}
                (Some(running), true) => running.cancelled.store(true, Ordering::Relaxed),
                // What executors finish after this is taken over by the next try.
                (None, true) => {
                    work.abort();
                    return Err(CurateError::Interrupted);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let done = runtime
            .block_on(work)
            .map_err(|error| CurateError::Format {
                path: self.folders.index(),
                problem: format!("the plan ended early: {error}"),
            })?;
        done.map_err(|error| plan::unwrap("index the samples", error))?;
        (watch.progress)(Progress {
            stage: "index",
            done: total,
            total,
        });
        Ok(())
    }

    fn select(
        &self,
        job: &Job,
        read: &Summaries,
        options: &Options,
        watch: &Watch<'_>,
        runtime: &tokio::runtime::Runtime,
    ) -> Result<(Decisions, BTreeMap<Origin, Limits>), CurateError> {
        let spill = self.folders.spill();
        self.fresh(&spill)?;
        let context = session(options, &spill)?;
        let total = read.samples();
        let shown = |done| {
            (watch.progress)(Progress {
                stage: "select",
                done,
                total,
            });
        };
        shown(0);
        if read.parts.is_empty() {
            // Inputs without a byte have no index that a plan could read.
            let (ranks, places) = (Ranks::default(), BTreeMap::new());
            let limits = counts::limits(&job.recipe, &places)?;
            return Ok((ranks.decide(&read.origins, &places, &limits), limits));
        }
        let near = self.near(job, &context, runtime, watch)?;
        let table = near.as_ref().map(|_| self.folders.near());
        let lines: Vec<u64> = read.parts.iter().map(|summary| summary.lines).collect();
        let ranks = runtime.block_on(async {
            let index = self.folders.index();
            let plan = plan::select_plan(&context, &index, table.as_deref(), &job.recipe)
                .await
                .map_err(|error| plan::unwrap("plan the selection", error))?;
            Ranks::collect(plan, &lines, watch.cancelled, &shown).await
        })?;
        let mut ranks = ranks;
        ranks.add_near(&near.unwrap_or_default());
        let places = ranks.places(&read.origins);
        let limits = counts::limits(&job.recipe, &places)?;
        Ok((ranks.decide(&read.origins, &places, &limits), limits))
    }

    /// Near duplicates, if the recipe looks for them; also written as a table.
    fn near(
        &self,
        job: &Job,
        context: &SessionContext,
        runtime: &tokio::runtime::Runtime,
        watch: &Watch<'_>,
    ) -> Result<Option<Vec<(u64, u64)>>, CurateError> {
        let Some(dedup) = &job.recipe.dedup else {
            return Ok(None);
        };
        let Some(threshold) = dedup.near else {
            return Ok(None);
        };
        let pairs = runtime.block_on(async {
            let plan = plan::near_plan(context, &self.folders.bands())
                .await
                .map_err(|error| plan::unwrap("plan the search of near duplicates", error))?;
            select::collect_pairs(plan, watch.cancelled).await
        })?;
        let (path, parts) = (self.folders.job(), job.parts());
        let cancelled = watch.cancelled;
        let found = near::judge(
            &pairs,
            threshold,
            dedup.exact,
            job,
            &path,
            &parts,
            cancelled,
        )?;
        near::write_table(&self.folders.near(), &found)?;
        Ok(Some(found))
    }

    fn write(
        &self,
        copier: &Copier<'_>,
        reasons: &Reasons<'_>,
        read: &Summaries,
        watch: &Watch<'_>,
    ) -> Result<Manifest, CurateError> {
        let (job, parts) = (reasons.job, reasons.parts);
        let plans = plan_shards(copier.kept(), job.recipe.output.shard_samples);
        let step = Steps::new("copy", plans.len() as u64, watch);
        let shards = plans
            .par_iter()
            .map(|&plan| {
                watch.check()?;
                let shard = self.shard(&format!("{:05}", plan.number), || {
                    copier.write(plan, &self.root)
                });
                step.done();
                shard
            })
            .collect::<Result<Vec<Shard>, _>>()?;
        let ledger = self.root.join("ledger");
        self.fresh(&ledger)?;
        let step = Steps::new("ledger", parts.len() as u64, watch);
        let counted = (0..parts.len())
            .into_par_iter()
            .map(|part| {
                watch.check()?;
                let counts = reasons.write(part, copier.first_of_part(part), &ledger);
                step.done();
                counts
            })
            .collect::<Result<Vec<Counts>, _>>()?;
        let mut counts = Counts::default();
        counted.iter().for_each(|part| counts.merge(part));
        let manifest = Manifest {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            fingerprint: job.fingerprint()?,
            recipe: job.recipe.clone(),
            part_bytes: job.part_bytes,
            inputs: read.inputs(job, parts),
            total: counts.total(),
            sources: with_prompts(counts.sources(&read.origins), &shards),
            warnings: strangers::warnings(&job.recipe, read.origins.values()),
            rewritten: rewritten(&shards),
            shards,
        };
        manifest.check()?;
        let path = self.root.join(manifest::FILE);
        let text =
            serde_json::to_string_pretty(&manifest).map_err(|error| CurateError::Format {
                path: path.clone(),
                problem: error.to_string(),
            })?;
        write_text(&path, &(text + "\n"))?;
        Ok(manifest)
    }
}

/// A session here or on a cluster.
fn session(options: &Options, spill: &Path) -> Result<SessionContext, CurateError> {
    match &options.cluster {
        None => plan::session(options.threads, options.memory_bytes, spill),
        #[cfg(feature = "cluster")]
        Some(url) => crate::cluster::session(url, options.threads),
        #[cfg(not(feature = "cluster"))]
        Some(_) => Err(CurateError::NoCluster),
    }
}

/// Number of indexes that are whole.
fn whole_files(folder: &Path) -> u64 {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let whole = entries.filter(|entry| entry.path().extension().is_some_and(|e| e == "parquet"));
    whole.count() as u64
}

/// Counts finished pieces of a stage.
struct Steps<'a> {
    stage: &'static str,
    total: u64,
    done: AtomicU64,
    watch: &'a Watch<'a>,
}

impl<'a> Steps<'a> {
    fn new(stage: &'static str, total: u64, watch: &'a Watch<'a>) -> Self {
        Self {
            stage,
            total,
            done: AtomicU64::new(0),
            watch,
        }
    }

    fn done(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        (self.watch.progress)(Progress {
            stage: self.stage,
            done,
            total: self.total,
        });
    }
}

/// Short answers by what became of them, in all shards.
fn rewritten(shards: &[Shard]) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (outcome, count) in shards.iter().flat_map(|shard| &shard.rewritten) {
        *sums.entry(outcome.clone()).or_default() += count;
    }
    sums
}

fn with_prompts(mut sources: Vec<SourceTally>, shards: &[Shard]) -> Vec<SourceTally> {
    for source in &mut sources {
        let prompted = shards
            .iter()
            .filter_map(|shard| shard.prompted.get(&source.source)?.get(&source.category));
        source.prompted = prompted.sum();
    }
    sources
}
