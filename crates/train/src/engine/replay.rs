//! A step that went wrong, in a folder, so that it can be run again.
//!
//! When a loss or a gradient is not finite the run stops at once: going on would write the damage
//! into every weight. What is needed to see it again is small: the weights before the step, and
//! which samples it was made of.

use std::fs;
use std::path::Path;

use burn::module::Module;
use serde::{Deserialize, Serialize};

use super::loader::{StepPlan, load_step};
use super::workers::Workers;
use super::{Settings, masks, parameters, run_folder};
use crate::TrainError;
use crate::task::Task;

const BUNDLE: &str = "bundle.json";
const WEIGHTS: &str = "weights.safetensors";

/// What a step was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bundle {
    /// The step, from 1.
    pub step: u64,
    /// What determined the course of the run; bundles of earlier versions do not say.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// Samples of a micro-batch.
    pub micro: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Samples of the step.
    pub plan: Vec<u32>,
    /// Samples of each micro-batch.
    pub samples: Vec<Vec<u32>>,
    /// The loss; `null` if it is not a number.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// The gradients' norm; `null` if it is not a number.
    #[serde(deserialize_with = "null_is_nan")]
    pub grad_norm: f64,
    /// Part of the model that has the first bad gradient.
    pub part: Option<String>,
    /// Parameters whose gradients are not finite.
    pub parameters: Vec<String>,
}

fn null_is_nan<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// What running a bundle again showed.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// Samples and summed loss of each micro-batch.
    pub losses: Vec<(Vec<u32>, f64)>,
    /// Parameters whose gradients are not finite, with the micro-batch that first shows it.
    pub parameters: Vec<(usize, String)>,
}

impl Bundle {
    /// Writes the bundle and the weights before the step.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write<M: Module>(&self, folder: &Path, module: &M) -> Result<(), TrainError> {
        let io = |doing| {
            move |source| TrainError::Io {
                doing,
                path: folder.to_path_buf(),
                source,
            }
        };
        fs::create_dir_all(folder).map_err(io("make"))?;
        run_folder::write_values(
            &folder.join(WEIGHTS),
            &parameters::values(module, |p| p.trains),
        )?;
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| TrainError::Refused(format!("could not write a bundle: {error}")))?;
        fs::write(folder.join(BUNDLE), text).map_err(io("write"))
    }

    /// Reads a bundle.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(BUNDLE);
        let text = fs::read_to_string(&path).map_err(|source| TrainError::Io {
            doing: "read",
            path: path.clone(),
            source,
        })?;
        serde_json::from_str(&text).map_err(|error| {
            TrainError::Refused(format!("{} is no bundle: {error}", path.display()))
        })
    }

    /// One line for people; `places` are where its samples are written, where that is known.
    #[must_use]
    pub fn describe(&self, places: &[String]) -> String {
        const SHOWN: usize = 4;
        let Self {
            loss, grad_norm, ..
        } = self;
        let place = match (&self.part, self.parameters.first()) {
            (Some(part), Some(first)) => format!(
                "in the gradients of part `{part}`, first `{first}` ({} parameters in all)",
                self.parameters.len()
            ),
            (None, Some(first)) => format!("in the gradients, first `{first}`"),
            _ => "in the loss".to_owned(),
        };
        let written = match places {
            [] => String::new(),
            some => format!(
                ", written in {}{}",
                some[..some.len().min(SHOWN)].join(", "),
                if some.len() > SHOWN { ", …" } else { "" }
            ),
        };
        format!(
            "loss {loss}, gradient norm {grad_norm}: not finite {place}; samples {:?}{written}",
            self.plan
        )
    }

    /// Refuses a bundle of another recipe or other data, or one that names samples that are not there.
    fn check(&self, folder: &Path, samples: usize, fingerprint: &str) -> Result<(), TrainError> {
        // A run's own fingerprint goes on with the weights that it began with; here they come from
        // the bundle.
        let other = |of_run: &String| !of_run.starts_with(fingerprint);
        if self.fingerprint.as_ref().is_some_and(other) {
            return Err(TrainError::Refused(format!(
                "{} is of a run with another recipe or other data; give `recipe.toml` of that run, and \
                 the same `--set`",
                folder.display()
            )));
        }
        let missing = self.plan.iter().find(|&&i| i as usize >= samples);
        if let Some(i) = missing {
            return Err(TrainError::Refused(format!(
                "{} has sample {i}, and the data has {samples}",
                folder.display()
            )));
        }
        if self.step == 0 || self.micro == 0 {
            return Err(TrainError::Refused(format!(
                "{} is no bundle: `step` and `micro` begin at 1",
                folder.display()
            )));
        }
        Ok(())
    }

    /// Runs the step again, micro-batch by micro-batch, on the weights of the bundle; with workers like
    /// those of the run it is the very same computation.
    ///
    /// # Errors
    /// If the bundle is of another run than `settings` say, the weights do not fit or the samples cannot
    /// be read.
    pub fn replay<T: Task>(
        &self,
        folder: &Path,
        task: &T,
        module: T::Module,
        settings: &Settings,
    ) -> Result<Replayed, TrainError>
    where
        T::Batch: Sync,
        T::Module: Sync,
    {
        self.check(folder, task.samples(), &settings.fingerprint)?;
        let workers = Workers::new(settings.workers, &settings.devices, settings.precision)?;
        let weights = run_folder::read_values(&folder.join(WEIGHTS))?;
        let (module, misfits) = parameters::restore(module, weights);
        if !misfits.is_empty() {
            return Err(TrainError::Refused(format!(
                "the weights in {} do not fit the model: {misfits:?}",
                folder.display()
            )));
        }
        let plan = StepPlan {
            step: self.step - 1,
            epoch: 0,
            samples: self.plan.clone(),
        };
        let loaded = load_step(task, plan, self.micro, self.seed)?;
        let terms: usize = loaded.batches.iter().map(|b| task.terms(b)).sum();
        let mut replayed = Replayed {
            losses: Vec::new(),
            parameters: Vec::new(),
        };
        for (i, (batch, samples)) in loaded.batches.iter().zip(loaded.samples).enumerate() {
            let scale = 1.0 / terms.max(1) as f64;
            let random = (masks(self.seed, self.step - 1), i);
            let (loss, gradients, _) = workers.one(task, &module, batch, scale, random)?;
            replayed.losses.push((samples, loss));
            for name in parameters::non_finite(&module, &gradients) {
                if !replayed.parameters.iter().any(|(_, known)| *known == name) {
                    replayed.parameters.push((i, name));
                }
            }
        }
        Ok(replayed)
    }
}
