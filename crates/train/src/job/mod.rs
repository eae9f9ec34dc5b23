//! From a recipe to a run: what is trained is put together, trained, and written.
//!
//! Whatever the stage, a run is a folder (`runs/NAME`): the resolved recipe, the log, checkpoints,
//! and at the end `model/`, an ordinary checkpoint that the next stage, `ask`, or any other program
//! reads. The same call on the same folder goes on where it stands.

mod names;
mod preflight;
mod pretrain;
mod stages;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::prelude::*;
use opabinia_nn::ComputeType;
use opabinia_weights::WeightDtype;

use crate::TrainError;
use crate::engine::record::Observer;
use crate::engine::replay::{Bundle, Replayed};
use crate::engine::run_folder::{RunFolder, Totals};
use crate::engine::{
    Ending, Length, Outcome, Settings, Surroundings, parameters, run_folder, train,
};
use crate::groups::Assignment;
use crate::parallel;
use crate::recipe::{Precision, Recipe, SavedResult, SavedWeights, Work};
use crate::task::Task;

pub use preflight::{Preflight, ShownSample};

/// The resulting model's folder in a run's folder.
pub const MODEL: &str = "model";

/// How to go about a run, beside what the recipe says.
pub struct JobOptions<'a> {
    /// The run's folder instead of the recipe's.
    pub folder: Option<PathBuf>,
    /// Where it can run, without gradients; the first is the main one.
    pub devices: Vec<Device>,
    /// Bytes of memory that are free, where known.
    pub memory: Option<u64>,
    /// Bytes that are free on the disk of the run's folder, where known.
    pub disk: Option<u64>,
    /// Stop, saved, after this many steps.
    pub at_most: Option<u64>,
    /// Becomes true when the run should save and stop.
    pub stop: &'a AtomicBool,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub ending: Ending,
    /// Steps done in all.
    pub step: u64,
    /// Steps of the whole run.
    pub total: u64,
    /// The run's folder.
    pub folder: PathBuf,
    /// The resulting model, if the run is done.
    pub model: Option<PathBuf>,
    /// Samples, pictures and seconds of the whole run.
    pub totals: Totals,
    /// How many of the samples had no picture, where some have.
    pub text_only: Option<u64>,
    /// Bad samples in words, if there were any.
    pub faults: Option<String>,
    /// What was left out of other samples by this call, in words, if anything was.
    pub shortened: Option<String>,
}

/// What a call is to do with a recipe.
enum Order<'a> {
    Train(&'a mut dyn Observer),
    Replay(&'a Path),
    Preflight,
}

/// What came of it.
enum Done {
    Trained(Finished),
    Replayed(Replayed),
    Preflight(Preflight),
}

/// Trains what a recipe says.
///
/// # Errors
/// If anything cannot be read, written or trained; the message says what to change.
pub fn run(
    recipe: &Recipe,
    options: &JobOptions<'_>,
    observer: &mut dyn Observer,
) -> Result<Finished, TrainError> {
    match carry_out(recipe, options, Order::Train(observer))? {
        Done::Trained(finished) => Ok(finished),
        Done::Replayed(_) | Done::Preflight(_) => unreachable!("training was ordered"),
    }
}

/// Runs the step in a bundle again, with the recipe that it came from.
///
/// # Errors
/// If the bundle cannot be read or does not belong to the recipe.
pub fn replay(
    recipe: &Recipe,
    options: &JobOptions<'_>,
    bundle: &Path,
) -> Result<Replayed, TrainError> {
    match carry_out(recipe, options, Order::Replay(bundle))? {
        Done::Replayed(replayed) => Ok(replayed),
        Done::Trained(_) | Done::Preflight(_) => unreachable!("a replay was ordered"),
    }
}

/// What a run would be, with one step measured. Nothing is written to the run's folder.
///
/// # Errors
/// If something is missing or wrong that would stop the run.
pub fn preflight(recipe: &Recipe, options: &JobOptions<'_>) -> Result<Preflight, TrainError> {
    match carry_out(recipe, options, Order::Preflight)? {
        Done::Preflight(preflight) => Ok(preflight),
        Done::Trained(_) | Done::Replayed(_) => unreachable!("a pre-flight was ordered"),
    }
}

fn carry_out(
    recipe: &Recipe,
    options: &JobOptions<'_>,
    order: Order<'_>,
) -> Result<Done, TrainError> {
    let devices = parallel::choose(recipe.batch.devices, &options.devices)?;
    let main = devices.first().cloned().unwrap_or_else(Device::flex);
    refuse_unsupported(recipe, &main)?;
    let job = Job {
        recipe,
        options,
        folder: options.folder.clone().unwrap_or_else(|| recipe.folder()),
        held: OnceCell::new(),
        device: main.clone().autodiff(),
        devices: devices.into_iter().map(Device::autodiff).collect(),
        main,
        keeps: matches!(order, Order::Train(_)),
        caches: matches!(order, Order::Train(_) | Order::Replay(_)),
    };
    match &recipe.work {
        Work::Lexical { model, lexical } => job.lexical(model, lexical, order),
        Work::Align(model) | Work::Instruct(model) => job.stage(model, order),
        Work::Language { decoder, tokenizer } => job.language(decoder, tokenizer, order),
        Work::Contrastive {
            encoder,
            text,
            loss,
        } => job.contrastive(encoder, text, loss, order),
        Work::Mae { encoder, masking } => job.mae(encoder, masking, order),
        Work::Dense { encoder, labels } => job.dense(encoder, labels, order),
    }
}

/// What a recipe can ask for and this machine cannot do.
fn refuse_unsupported(recipe: &Recipe, device: &Device) -> Result<(), TrainError> {
    let on_cpu = *device == Device::flex();
    if recipe.memory.precision == Precision::Bf16 && on_cpu {
        return Err(TrainError::Refused(
            "the recipe asks for `precision = \"bf16\"`, which the CPU only makes slower; set \
             `memory.precision = \"f32\"`, or train on a GPU (`--device cuda`)"
                .into(),
        ));
    }
    Ok(())
}

/// A recipe on its way to a run.
struct Job<'a> {
    recipe: &'a Recipe,
    options: &'a JobOptions<'a>,
    folder: PathBuf,
    /// The run's folder, open from the first time that it is written to.
    held: OnceCell<RunFolder>,
    /// The main device, with gradients.
    device: Device,
    /// All devices, with gradients.
    devices: Vec<Device>,
    /// The main device, without gradients.
    main: Device,
    /// Whether the run's folder may be written to.
    keeps: bool,
    /// Whether features are kept.
    caches: bool,
}

/// What a task needs to be driven.
struct Driven<'a, T: Task> {
    task: Arc<T>,
    validation: Option<Arc<T>>,
    module: T::Module,
    /// Checkpoint name of a module path.
    name_of: &'a dyn Fn(&str) -> String,
    /// What determines the run beside the recipe: its data.
    data: String,
}

impl Job<'_> {
    /// The run's folder, which this process holds from now on.
    fn run_folder(&self) -> Result<RunFolder, TrainError> {
        if let Some(held) = self.held.get() {
            return Ok(held.again());
        }
        let opened = RunFolder::open(&self.folder)?;
        Ok(self.held.get_or_init(|| opened).again())
    }

    /// Trains, replays or inspects a task; `finish` writes the result to a folder.
    fn drive<T>(
        &self,
        driven: Driven<'_, T>,
        order: Order<'_>,
        finish: impl FnOnce(&T, T::Module, &Path) -> Result<(), TrainError>,
    ) -> Result<Done, TrainError>
    where
        T: Task + 'static,
        T::Batch: Sync,
        T::Module: Sync,
    {
        let (module, assignment) = self.assign(driven.module, driven.name_of);
        // A stage that was trained anew is another beginning, though its path is the same.
        let data = match order {
            Order::Train(_) => format!("{} {}", driven.data, parameters::hash(&module)),
            Order::Replay(_) | Order::Preflight => driven.data,
        };
        let settings = self.settings(assignment, &data);
        let task = driven.task;
        match order {
            Order::Preflight => {
                preflight::inspect(self, &*task, &module, &settings).map(Done::Preflight)
            }
            Order::Replay(path) => {
                let bundle = Bundle::read(path)?;
                let replayed = bundle.replay(path, &*task, module, &settings)?;
                Ok(Done::Replayed(replayed))
            }
            Order::Train(observer) => {
                let mut folder = self.run_folder()?;
                // Nothing of another run is written over.
                folder.resume(&settings.fingerprint)?;
                folder.write(
                    "recipe.toml",
                    &self.recipe.kept_in(&self.folder).resolved_toml(),
                )?;
                let mut around = Surroundings {
                    folder: &mut folder,
                    observer,
                    stop: self.options.stop,
                };
                let validation = driven.validation.as_deref();
                let outcome = train(&task, validation, module, &settings, &mut around)?;
                self.finish(&*task, outcome, finish).map(Done::Trained)
            }
        }
    }

    fn finish<T: Task>(
        &self,
        task: &T,
        outcome: Outcome<T::Module>,
        finish: impl FnOnce(&T, T::Module, &Path) -> Result<(), TrainError>,
    ) -> Result<Finished, TrainError> {
        let mut model = None;
        if outcome.ending == Ending::Done {
            // A fresh folder that takes its name when it is complete.
            let module = self.result(outcome.module)?;
            let wanted = self.folder.join(MODEL);
            let temporary = self.folder.join(format!(".{MODEL}.tmp"));
            if temporary.exists() {
                std::fs::remove_dir_all(&temporary).map_err(io("remove", &temporary))?;
            }
            std::fs::create_dir_all(&temporary).map_err(io("make", &temporary))?;
            finish(task, module, &temporary)?;
            if wanted.exists() {
                std::fs::remove_dir_all(&wanted).map_err(io("replace", &wanted))?;
            }
            std::fs::rename(&temporary, &wanted).map_err(io("make", &wanted))?;
            model = Some(wanted);
        }
        Ok(Finished {
            ending: outcome.ending,
            step: outcome.step,
            total: outcome.total,
            folder: self.folder.clone(),
            model,
            totals: outcome.state.totals,
            text_only: None,
            faults: None,
            shortened: None,
        })
    }

    /// The weights that become the result: those of the last step, or those with the best validation
    /// loss.
    fn result<M: Module>(&self, module: M) -> Result<M, TrainError> {
        if self.recipe.save.result == SavedResult::Last {
            return Ok(module);
        }
        let best = self.run_folder()?.best().ok_or_else(|| {
            TrainError::Refused(format!(
                "the recipe wants the weights with the best validation loss, and {} has none; set \
                 `save.result = \"last\"`",
                self.folder.display()
            ))
        })?;
        let (module, misfits) = parameters::restore(module, run_folder::read_weights(&best)?);
        if misfits.is_empty() {
            return Ok(module);
        }
        Err(TrainError::Refused(format!(
            "{} does not fit the model: {misfits:?}",
            best.display()
        )))
    }

    /// Decides what trains, and marks it in the module.
    fn assign<M: Module>(&self, module: M, name_of: &dyn Fn(&str) -> String) -> (M, Assignment) {
        let listed = parameters::list(&module);
        let shapes = listed.into_iter().map(|p| (p.name, p.shape));
        let assignment = Assignment::new(shapes, name_of, &self.recipe.rates());
        let module = parameters::choose(module, |path| assignment.rate(path).is_some());
        (module, assignment)
    }

    fn settings(&self, assignment: Assignment, data: &str) -> Settings {
        let Recipe {
            batch,
            schedule,
            save,
            log,
            ..
        } = self.recipe;
        let schedule = *schedule;
        Settings {
            seed: self.recipe.seed,
            batch: batch.global,
            micro: batch.micro,
            workers: workers(batch.parallel, batch.accumulation(), &self.main),
            devices: self.devices.clone(),
            precision: match self.recipe.memory.precision {
                Precision::F32 => ComputeType::F32,
                Precision::Bf16 => ComputeType::Bf16,
            },
            loaders: self.recipe.data.workers,
            length: match schedule.steps {
                Some(steps) => Length::Steps(steps),
                None => Length::Epochs(schedule.epochs.unwrap_or(1)),
            },
            schedule: Arc::new(move |total| schedule.schedule(total)),
            optimizer: self.recipe.adamw(),
            clip: self.recipe.clip(),
            assignment: Arc::new(assignment),
            save_every: save.every,
            keep: save.keep,
            keep_best: save.best,
            validate_every: log.validate_every,
            at_most: self.options.at_most,
            fingerprint: format!("{} {data}", self.recipe.fingerprint()),
        }
    }

    fn weights(&self) -> WeightDtype {
        match self.recipe.save.weights {
            SavedWeights::F32 => WeightDtype::F32,
            SavedWeights::Bf16 => WeightDtype::Bf16,
            SavedWeights::F16 => WeightDtype::F16,
        }
    }
}

/// Workers side by side: on a CPU one for each core, as far as there are micro-batches for them.
fn workers(asked: usize, micro_batches: usize, device: &Device) -> usize {
    if asked > 0 {
        return asked;
    }
    if *device != Device::flex() {
        return 1;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.min(micro_batches.max(1))
}

fn io<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> TrainError + 'a {
    move |source| TrainError::Io {
        doing,
        path: path.to_path_buf(),
        source,
    }
}
