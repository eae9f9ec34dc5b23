//! The training loop.
//!
//! A step is: read the micro-batches of a global batch, compute their gradients on the workers, add
//! them up, clip by the global norm, update. The loss of a step is the mean over all its terms, so
//! it does not depend on how the batch was divided. Everything that happens is a function of the
//! seed and the number of the step, so a run that was killed goes on from its newest checkpoint with
//! the same losses as if nothing had happened.

pub mod loader;
pub mod parameters;
pub mod record;
pub mod replay;
pub mod run_folder;
pub mod workers;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::prelude::*;
use opabinia_nn::{ComputeType, compute};

use crate::TrainError;
use crate::clip;
use crate::groups::Assignment;
use crate::optimizer::{AdamWConfig, Optimizer};
use crate::schedule::Schedule;
use crate::task::{Metric, Task};
use loader::{LoadedStep, Loader, StepPlan, stream_seed};
use record::{Observer, StepRecord};
use run_folder::{RunFolder, State};
use workers::Workers;

pub use loader::stream;

/// How a run goes.
#[derive(Clone)]
pub struct Settings {
    /// The seed of everything random.
    pub seed: u64,
    /// Samples of a step.
    pub batch: usize,
    /// Samples of a micro-batch.
    pub micro: usize,
    /// Workers on each device that compute gradients side by side.
    pub workers: usize,
    /// The type that linear layers multiply in.
    pub precision: ComputeType,
    /// Where they compute, with gradients; the first is the main one.
    pub devices: Vec<Device>,
    /// Threads that read samples.
    pub loaders: usize,
    /// How long the run is.
    pub length: Length,
    /// Learning rate over time, for a number of steps.
    pub schedule: Arc<dyn Fn(u64) -> Schedule + Send + Sync>,
    /// AdamW's constants.
    pub optimizer: AdamWConfig,
    /// Largest global norm of the gradients; none to leave them.
    pub clip: Option<f64>,
    /// The rate of every parameter.
    pub assignment: Arc<Assignment>,
    /// Steps between checkpoints.
    pub save_every: u64,
    /// Checkpoints to keep.
    pub keep: usize,
    /// Whether the checkpoint with the best validation loss is kept too.
    pub keep_best: bool,
    /// Steps between validations; 0 for none but the last.
    pub validate_every: u64,
    /// Stop after this many steps of this call; for tests of resuming, and for runs in portions.
    pub at_most: Option<u64>,
    /// What determines the course of the run, to refuse going on with another.
    pub fingerprint: String,
}

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Passes over the samples.
    Epochs(u64),
    /// Steps, in as many passes as it takes.
    Steps(u64),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Done,
    /// Stopped from outside after a step; the same call goes on.
    Stopped,
}

/// What came out of a run.
pub struct Outcome<M> {
    /// The module as it is now.
    pub module: M,
    /// How it ended.
    pub ending: Ending,
    /// Steps done in all.
    pub step: u64,
    /// Steps of the whole run.
    pub total: u64,
    /// Where it stands.
    pub state: State,
}

/// Everything that watches or bounds a run from outside.
pub struct Surroundings<'a> {
    /// Where checkpoints and the log go.
    pub folder: &'a mut RunFolder,
    /// Who watches.
    pub observer: &'a mut dyn Observer,
    /// Becomes true when the run should save and stop.
    pub stop: &'a AtomicBool,
}

/// Steps of an epoch, and of the whole run.
#[must_use]
pub fn length<T: Task>(task: &T, settings: &Settings) -> (u64, u64) {
    let per_epoch = task.plan(settings.seed, 0, settings.batch).len() as u64;
    let total = match settings.length {
        Length::Epochs(epochs) => per_epoch.saturating_mul(epochs),
        Length::Steps(steps) => steps,
    };
    (per_epoch, total)
}

/// Trains from the newest checkpoint in the folder, or from the start.
///
/// # Errors
/// If there is nothing to train on, a sample or a checkpoint cannot be read, a checkpoint belongs to
/// another run, a file cannot be written, or a loss or gradient is not finite.
pub fn train<T>(
    task: &Arc<T>,
    validation: Option<&T>,
    module: T::Module,
    settings: &Settings,
    around: &mut Surroundings<'_>,
) -> Result<Outcome<T::Module>, TrainError>
where
    T: Task + 'static,
    T::Batch: Sync,
    T::Module: Sync,
{
    let (per_epoch, total) = length(&**task, settings);
    if per_epoch == 0 || settings.devices.is_empty() {
        return Err(TrainError::Refused(
            "there is nothing to train on: no sample could be used".into(),
        ));
    }
    let mut run = Run {
        task: task.clone(),
        validation,
        settings,
        workers: Workers::new(settings.workers, &settings.devices, settings.precision)?,
        schedule: (settings.schedule)(total),
        optimizer: Optimizer::new(settings.optimizer),
        state: State::new(&settings.fingerprint),
        per_epoch,
        total,
    };
    let module = run.resume(module, around)?;
    run.steps(module, around)
}

struct Run<'a, T: Task> {
    task: Arc<T>,
    validation: Option<&'a T>,
    settings: &'a Settings,
    workers: Workers,
    schedule: Schedule,
    optimizer: Optimizer,
    state: State,
    per_epoch: u64,
    total: u64,
}

impl<T> Run<'_, T>
where
    T: Task + 'static,
    T::Batch: Sync,
    T::Module: Sync,
{
    fn resume(
        &mut self,
        module: T::Module,
        around: &mut Surroundings<'_>,
    ) -> Result<T::Module, TrainError> {
        let Some((checkpoint, state)) = around.folder.resume(&self.settings.fingerprint)? else {
            around.folder.start_log(0)?;
            return Ok(module);
        };
        let weights = run_folder::read_weights(&checkpoint)?;
        let (module, misfits) = parameters::restore(module, weights);
        if !misfits.is_empty() {
            return Err(TrainError::Refused(format!(
                "{} does not fit the model: {misfits:?}",
                checkpoint.display()
            )));
        }
        let file = run_folder::optimizer_file(&checkpoint);
        self.optimizer = Optimizer::load(self.settings.optimizer, &file, &module)?;
        around.folder.start_log(state.step)?;
        around.observer.note(&format!(
            "going on after step {} of {} ({})",
            state.step,
            self.total,
            checkpoint.display()
        ));
        self.state = state;
        Ok(module)
    }

    fn steps(
        mut self,
        mut module: T::Module,
        around: &mut Surroundings<'_>,
    ) -> Result<Outcome<T::Module>, TrainError> {
        let first = self.state.step;
        if self.state.owes_validation {
            let loss = self.validate(&module, around)?;
            self.state.owes_validation = false;
            self.save(&module, around)?;
            if let Some(loss) = loss {
                let note = format!("validation loss after step {first}, made up for: {loss:.4}");
                around.observer.note(&note);
            }
        }
        around.observer.begin(first, self.total);
        let loader = self.start_loader();
        let mut saved = first;
        let mut ending = Ending::Done;
        loop {
            let start = Instant::now();
            let Some(loaded) = loader.next() else { break };
            let loaded = match loaded {
                Ok(loaded) => loaded,
                Err(error) => {
                    if self.state.step > saved {
                        self.save(&module, around)?;
                    }
                    return Err(error);
                }
            };
            let waited = start.elapsed().as_secs_f64();
            let (next, mut record) = self.step(module, &loaded, around)?;
            module = next;
            record.waited = waited;
            record.seconds = start.elapsed().as_secs_f64();
            self.count(&record);
            match self.validate(&module, around) {
                Ok(validation) => record.validation = validation,
                Err(error) => {
                    // The steps are done; what is wrong with the validation can be mended.
                    self.state.owes_validation = true;
                    around.folder.log(&record)?;
                    self.save(&module, around)?;
                    return Err(error);
                }
            }
            around.folder.log(&record)?;
            around.observer.step(&record, self.total);

            let done = self.state.step == self.total;
            let enough = self
                .settings
                .at_most
                .is_some_and(|n| self.state.step - first >= n);
            let stop = around.stop.load(Ordering::Relaxed) || enough;
            let due = self.settings.save_every > 0
                && self.state.step.is_multiple_of(self.settings.save_every);
            if done || stop || due {
                self.save(&module, around)?;
                saved = self.state.step;
            }
            if stop && !done {
                ending = Ending::Stopped;
                break;
            }
        }
        debug_assert!(saved == self.state.step, "the last step is always saved");
        Ok(Outcome {
            module,
            ending,
            step: self.state.step,
            total: self.total,
            state: self.state,
        })
    }

    fn start_loader(&self) -> Loader<T::Batch> {
        let (task, seed, batch) = (self.task.clone(), self.settings.seed, self.settings.batch);
        let (per_epoch, total, first) = (self.per_epoch, self.total, self.state.step);
        let mut epoch = u64::MAX;
        let mut plan = Vec::new();
        let plans = (first..total).map(move |step| {
            if step / per_epoch != epoch {
                epoch = step / per_epoch;
                plan = task.plan(seed, epoch as usize, batch);
            }
            let samples = plan.get((step % per_epoch) as usize).cloned();
            StepPlan {
                step,
                epoch,
                samples: samples.unwrap_or_default(),
            }
        });
        let Settings { micro, loaders, .. } = *self.settings;
        Loader::start(self.task.clone(), plans, micro, seed, loaders, 2)
    }

    fn step(
        &mut self,
        module: T::Module,
        loaded: &LoadedStep<T::Batch>,
        around: &mut Surroundings<'_>,
    ) -> Result<(T::Module, StepRecord), TrainError> {
        let terms: usize = loaded.batches.iter().map(|b| self.task.terms(b)).sum();
        let mut record = self.describe(loaded, terms);
        // Nothing to learn from (every sample of the step was bad, counted and listed): the
        // schedule goes on, the model stays.
        if terms == 0 {
            self.state.step += 1;
            return Ok((module, record));
        }
        let scale = 1.0 / terms as f64;
        let masks = masks(self.settings.seed, self.state.step);
        let result = self
            .workers
            .gradients(&*self.task, &module, &loaded.batches, scale, masks)?;
        record.loss = result.losses.iter().sum::<f64>() * scale;
        record.metrics = means(&result.metrics);
        let mut gradients = result.gradients;
        let norm = match self.settings.clip {
            Some(limit) => clip::clip_global_norm(&module, &mut gradients, limit),
            None => clip::checked_norm(&module, &gradients),
        };
        record.grad_norm = *norm.as_ref().unwrap_or(&f64::NAN);
        if norm.is_err() || !record.loss.is_finite() {
            let culprits = parameters::non_finite(&module, &gradients);
            return Err(self.not_finite(&module, loaded, &record, culprits, around));
        }
        let factor = self.schedule.factor(self.state.step);
        record.lr = self.rates(factor);
        let assignment = &self.settings.assignment;
        let module = self.optimizer.step(module, &mut gradients, |path| {
            Some(assignment.rate(path)?.scaled(factor))
        });
        self.state.step += 1;
        Ok((module, record))
    }

    fn describe(&self, loaded: &LoadedStep<T::Batch>, terms: usize) -> StepRecord {
        let mut record = StepRecord {
            epoch: loaded.plan.epoch,
            terms: terms as u64,
            ..StepRecord::at(self.state.step + 1)
        };
        for batch in &loaded.batches {
            let size = self.task.size(batch);
            record.samples += size.samples as u64;
            record.tokens += size.tokens as u64;
            record.pictures += size.pictures as u64;
        }
        record
    }

    /// The largest rate of each part that trains.
    fn rates(&self, factor: f64) -> BTreeMap<String, f64> {
        let mut rates = BTreeMap::new();
        for assigned in self.settings.assignment.iter() {
            if let Some(rate) = assigned.rate {
                let known = rates.entry(assigned.part.name().to_owned()).or_insert(0.0);
                *known = f64::max(*known, rate.lr * factor);
            }
        }
        rates
    }

    fn count(&mut self, record: &StepRecord) {
        let totals = &mut self.state.totals;
        totals.samples += record.samples;
        totals.tokens += record.tokens;
        totals.pictures += record.pictures;
        totals.seconds += record.seconds;
    }

    /// The validation loss, on the steps that have one; saves the best.
    fn validate(
        &mut self,
        module: &T::Module,
        around: &mut Surroundings<'_>,
    ) -> Result<Option<f64>, TrainError> {
        let every = self.settings.validate_every;
        let due =
            self.state.step == self.total || (every > 0 && self.state.step.is_multiple_of(every));
        let Some(task) = self.validation.filter(|_| due) else {
            return Ok(None);
        };
        let loss = validation_loss(task, module, self.settings)?;
        let better = self.state.best.is_none_or(|(_, best)| loss < best);
        if loss.is_finite() && better {
            self.state.best = Some((self.state.step, loss));
            if !self.settings.keep_best {
                return Ok(Some(loss));
            }
            let weights = parameters::values(module, |p| p.trains);
            around.folder.save_best(&self.state, &weights)?;
        }
        Ok(Some(loss))
    }

    fn save(
        &self,
        module: &T::Module,
        around: &mut Surroundings<'_>,
    ) -> Result<PathBuf, TrainError> {
        let weights = parameters::values(module, |p| p.trains);
        around.folder.save(
            &self.state,
            &weights,
            |path| Ok(self.optimizer.save(path)?),
            self.settings.keep,
        )
    }

    /// Writes what is needed to run the step again, and says where the trouble is.
    fn not_finite(
        &self,
        module: &T::Module,
        loaded: &LoadedStep<T::Batch>,
        record: &StepRecord,
        culprits: Vec<String>,
        around: &mut Surroundings<'_>,
    ) -> TrainError {
        let part_of = |path: &String| {
            let assigned = self.settings.assignment.get(path)?;
            Some(assigned.part.name().to_owned())
        };
        let bundle = replay::Bundle {
            step: record.step,
            fingerprint: Some(self.settings.fingerprint.clone()),
            micro: self.settings.micro,
            seed: self.settings.seed,
            plan: loaded.plan.samples.clone(),
            samples: loaded.samples.clone(),
            loss: record.loss,
            grad_norm: record.grad_norm,
            part: culprits.iter().find_map(part_of),
            parameters: culprits,
        };
        let path = around
            .folder
            .path()
            .join(format!("not-finite-{:08}", record.step));
        let written = bundle.write(&path, module);
        let places = bundle.plan.iter().filter_map(|&i| self.task.place(i));
        TrainError::NotFinite {
            step: record.step,
            what: bundle.describe(&places.collect::<Vec<_>>()),
            bundle: path,
            source: written.err().map(Box::new),
        }
    }
}

/// Mean loss over a task's samples, without gradients.
///
/// # Errors
/// If a sample cannot be read or does not fit.
pub fn validation_loss<T: Task>(
    task: &T,
    module: &T::Module,
    settings: &Settings,
) -> Result<f64, TrainError> {
    let device = settings
        .devices
        .first()
        .cloned()
        .unwrap_or_else(|| Device::flex().autodiff());
    let module = parameters::choose(parameters::fork(module), |_| false);
    let (mut sum, mut terms) = (0.0, 0);
    for (i, samples) in task.plan(0, 0, settings.micro).into_iter().enumerate() {
        let mut random = stream(0, "validation", [i as u64, 0]);
        let Some(batch) = task.load(&samples, &mut random)? else {
            continue;
        };
        terms += task.terms(&batch);
        let loss = compute::with(settings.precision, || task.loss(&module, &batch, &device))?;
        let loss = loss.sum.inner();
        sum += f64::from(loss.into_scalar::<f32>());
    }
    Ok(sum / terms.max(1) as f64)
}

/// The seed of what is random within a step, from 0.
fn masks(seed: u64, step: u64) -> u64 {
    stream_seed(seed, "masks", [step, 0])
}

fn means(metrics: &[Metric]) -> BTreeMap<String, f64> {
    let mean = |m: &Metric| (m.name.to_string(), m.sum / m.count.max(f64::MIN_POSITIVE));
    metrics.iter().map(mean).collect()
}
