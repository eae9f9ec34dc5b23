//! What a run will be, before its first step: what trains, what it takes, what it sees.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::Instant;

use burn::prelude::Device;
use opabinia_data::Run;
use opabinia_model::Model;
use rayon::prelude::*;

use super::Job;
use crate::TrainError;
use crate::engine::loader::{StepPlan, load_step};
use crate::engine::workers::Workers;
use crate::engine::{Settings, length, parameters};
use crate::groups::PartCount;
use crate::recipe::FeatureCache;
use crate::stage::StageTask;
use crate::task::Task;

/// Samples that are shown with their loss mask.
const SHOWN: usize = 3;

/// Bytes of memory for each number: its value, its gradient, and AdamW's two moments.
pub(super) const PER_TRAINED: u64 = 16;
/// The same for a number that is frozen.
pub(super) const PER_FROZEN: u64 = 4;
/// Bytes in a checkpoint for each number that trains: value and moments.
const PER_SAVED: u64 = 12;

/// What a run will be.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// What trains and what does not.
    pub parts: Vec<PartCount>,
    /// Samples of an epoch.
    pub samples: usize,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Micro-batches of a step, and workers side by side.
    pub micro_batches: usize,
    /// Workers.
    pub workers: usize,
    /// Bytes of weights, gradients and optimizer.
    pub state_bytes: u64,
    /// Most bytes the process has used, one step included, where the system tells and the step ran in
    /// its memory.
    pub peak_bytes: Option<u64>,
    /// Bytes on disk: checkpoints that are kept, and the result.
    pub disk_bytes: u64,
    /// Bytes that the feature cache will have grown by, if there is one.
    pub cache_bytes: Option<u64>,
    /// Seconds of reading the samples of one step, measured; frozen encoders look at the pictures
    /// then.
    pub load_seconds: f64,
    /// Seconds of the step itself, measured.
    pub step_seconds: f64,
    /// Tokens and pictures of that step.
    pub step_tokens: usize,
    /// Pictures of that step.
    pub step_pictures: usize,
    /// Loss of that step.
    pub step_loss: f64,
    /// Samples without a picture, of stages whose samples may have one.
    pub text_only: Option<usize>,
    /// The first samples, with their loss masks.
    pub shown: Vec<ShownSample>,
    /// Bad samples so far, in words.
    pub faults: Option<String>,
}

/// A sample as the model will see it.
#[derive(Clone, Debug)]
pub struct ShownSample {
    /// File and line.
    pub place: String,
    /// Its picture.
    pub image: Option<String>,
    /// Visual tokens of the picture.
    pub visual_tokens: usize,
    /// Text, in runs of trained and other tokens.
    pub runs: Vec<Run>,
    /// Trained tokens.
    pub trained: usize,
    /// All tokens, visual ones included.
    pub tokens: usize,
}

/// Looks at a task and does one step of it without keeping anything.
pub(super) fn inspect<T>(
    job: &Job<'_>,
    task: &T,
    module: &T::Module,
    settings: &Settings,
) -> Result<Preflight, TrainError>
where
    T: Task,
    T::Batch: Sync,
    T::Module: Sync,
{
    let (steps_per_epoch, steps) = length(task, settings);
    let parts = settings.assignment.counts();
    let trained: u64 = parts.iter().map(|p| p.trained).sum();
    let frozen: u64 = parts.iter().map(|p| p.frozen).sum();
    let state_bytes = trained * PER_TRAINED + frozen * PER_FROZEN;
    let best = u64::from(job.recipe.data.validation.is_some() && job.recipe.save.best);
    let kept = settings.keep as u64 + 1;
    let disk_bytes = trained * (PER_SAVED * kept + 4 * best) + (trained + frozen) * 4;
    check_fits("memory", state_bytes, job.options.memory)?;
    check_fits("disk", disk_bytes, job.options.disk)?;

    let samples = task.plan(settings.seed, 0, settings.batch);
    let plan = StepPlan {
        step: 0,
        epoch: 0,
        samples: samples.into_iter().next().unwrap_or_default(),
    };
    let start = Instant::now();
    let loaded = load_step(task, plan, settings.micro, settings.seed)?;
    let load_seconds = start.elapsed().as_secs_f64();
    let terms: usize = loaded.batches.iter().map(|b| task.terms(b)).sum();
    let workers = Workers::new(settings.workers, &settings.devices, settings.precision)?;
    let start = Instant::now();
    let scale = 1.0 / terms.max(1) as f64;
    let module = parameters::fork(module);
    let result = workers.gradients(task, &module, &loaded.batches, scale, settings.seed)?;
    let step_seconds = start.elapsed().as_secs_f64();
    let sizes = loaded.batches.iter().map(|b| task.size(b));
    let (tokens, pictures) =
        sizes.fold((0, 0), |(t, p), size| (t + size.tokens, p + size.pictures));
    // What a GPU had in use is not to be seen here.
    let peak_bytes = peak_memory().filter(|_| job.main == Device::flex());
    if let Some(peak) = peak_bytes {
        // Moments are not allocated yet.
        check_fits("memory", peak + trained * 8, job.options.memory)?;
    }
    Ok(Preflight {
        parts,
        samples: task.samples(),
        steps_per_epoch,
        steps,
        warmup: (settings.schedule)(steps).warmup,
        micro_batches: loaded.batches.len(),
        workers: workers.count(),
        state_bytes,
        peak_bytes,
        disk_bytes,
        cache_bytes: None,
        load_seconds,
        step_seconds,
        step_tokens: tokens,
        step_pictures: pictures,
        step_loss: result.losses.iter().sum::<f64>() * scale,
        text_only: None,
        shown: Vec::new(),
        faults: None,
    })
}

impl Preflight {
    /// With what the samples of a stage of the recipe say: all of them are read once. Features of a picture
    /// take `bytes_per_picture`.
    pub(super) fn with_samples(
        self,
        job: &Job<'_>,
        task: &StageTask,
        bytes_per_picture: u64,
    ) -> Result<Self, TrainError> {
        let samples = task.sample_set();
        let pictures: Vec<Option<u64>> = (0..samples.len())
            .into_par_iter()
            .filter_map(|i| samples.sample(i).ok())
            .map(|sample| sample.image.as_ref().map(|image| hash(image)))
            .collect();
        let text_only = pictures.iter().filter(|picture| picture.is_none()).count();
        let cache_bytes = match &job.recipe.data.feature_cache {
            FeatureCache::Off => None,
            FeatureCache::Folder(folder) => {
                let different: HashSet<u64> = pictures.into_iter().flatten().collect();
                let whole = different.len() as u64 * bytes_per_picture;
                Some(whole.saturating_sub(folder_bytes(folder)))
            }
        };
        let disk = self.disk_bytes + cache_bytes.unwrap_or(0);
        check_fits("disk", disk, job.options.disk)?;
        Ok(Self {
            text_only: Some(text_only),
            cache_bytes,
            shown: shown(task)?,
            ..self
        })
    }
}

/// A name as a number, to count the different ones.
fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Bytes that the features of one picture take: two for a number.
pub(super) fn bytes_per_picture(model: &Model) -> u64 {
    let Some(vision) = &model.config.vision else {
        return 0;
    };
    let grids = model.network.encoders.iter().zip(&vision.grids);
    grids
        .map(|(encoder, grid)| (grid.len() * encoder.width() * 2) as u64)
        .sum()
}

/// Bytes of the files in a folder; 0 if there is none.
fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| entry.metadata().ok());
    files.map(|file| file.len()).sum()
}

/// Refuses what will not fit.
pub(super) fn check_fits(
    what: &str,
    needed: u64,
    available: Option<u64>,
) -> Result<(), TrainError> {
    match available {
        Some(available) if needed > available => Err(TrainError::Refused(format!(
            "the run needs at least {:.1} GB of {what}, and {:.1} GB are free{}",
            needed as f64 / 1e9,
            available as f64 / 1e9,
            match what {
                "memory" => "; train fewer parts, use `[lora]`, or a smaller model",
                _ =>
                    "; keep fewer checkpoints (`save.keep`), no features (`data.feature_cache = \
                     \"off\"`), or choose another folder with `--out`",
            }
        ))),
        _ => Ok(()),
    }
}

/// The first samples of a stage with their loss masks.
pub(super) fn shown(task: &StageTask) -> Result<Vec<ShownSample>, TrainError> {
    let mut shown = Vec::new();
    for index in 0..task.samples() {
        if shown.len() == SHOWN {
            break;
        }
        if let Some((sample, tokens, visual)) = task.look_at(index)? {
            shown.push(ShownSample {
                place: sample.place.to_string(),
                image: sample.image.clone(),
                visual_tokens: visual,
                runs: task.masker(index).explain(&tokens)?,
                trained: tokens.trained_tokens(),
                tokens: tokens.positions(visual),
            });
        }
    }
    Ok(shown)
}

/// The most memory this process has had, in bytes, where the system tells; what it has mapped of files
/// can be taken back and does not count.
#[must_use]
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).ok()?;
    let bytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kilobytes * 1024)
    };
    Some(bytes("VmHWM:")?.saturating_sub(bytes("RssFile:").unwrap_or(0)))
}
