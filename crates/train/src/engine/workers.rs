//! Micro-batches on several workers.
//!
//! A worker is a thread with a processor core to itself: most of a small model's time goes into
//! operations that do not divide well, so two workers with half the work each are faster than one
//! that uses both cores. Each has a copy of the module with a graph of its own. Gradients are added
//! in the order of the micro-batches, so the result does not depend on the number of workers.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::prelude::*;

use opabinia_nn::{ComputeType, compute, dropout};

use super::loader::stream_seed;
use super::parameters;
use crate::TrainError;
use crate::task::{Metric, Task};

/// Threads that compute gradients, each on a device.
pub struct Workers {
    workers: Vec<Worker>,
    precision: ComputeType,
}

struct Worker {
    pool: rayon::ThreadPool,
    /// Where it computes, with gradients.
    device: Device,
}

/// What the micro-batches of a step gave together.
pub struct StepGradients {
    /// Summed loss of each micro-batch, unscaled.
    pub losses: Vec<f64>,
    /// Gradients of the mean loss.
    pub gradients: GradientsParams,
    /// Metrics of the task, merged by name.
    pub metrics: Vec<Metric>,
}

impl Workers {
    /// `count` workers on each device, that share the processor's cores evenly; one worker uses all
    /// of them.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn new(
        count: usize,
        devices: &[Device],
        precision: ComputeType,
    ) -> Result<Self, TrainError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = count.max(1) * devices.len();
        let threads = (cores / count.max(1)).max(1);
        let worker = |index: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(move |thread| format!("train-{index}-{thread}"))
                .build();
            match pool {
                Ok(pool) => Ok(Worker {
                    pool,
                    device: devices[index % devices.len()].clone(),
                }),
                Err(error) => Err(TrainError::Refused(format!(
                    "could not start a training thread: {error}"
                ))),
            }
        };
        let workers = (0..count).map(worker).collect::<Result<_, _>>()?;
        Ok(Self { workers, precision })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.workers.len()
    }

    /// Gradients of `scale` times the summed loss of all micro-batches. Dropout draws from `seed` and
    /// the number of the micro-batch.
    ///
    /// # Errors
    /// If a batch does not fit the module.
    pub fn gradients<T: Task>(
        &self,
        task: &T,
        module: &T::Module,
        batches: &[T::Batch],
        scale: f64,
        seed: u64,
    ) -> Result<StepGradients, TrainError>
    where
        T::Batch: Sync,
        T::Module: Sync,
    {
        let mut sum = GradientsAccumulator::<T::Module>::new();
        let mut losses = Vec::with_capacity(batches.len());
        let mut metrics = Vec::new();
        let numbered: Vec<(usize, &T::Batch)> = batches.iter().enumerate().collect();
        for wave in numbered.chunks(self.count()) {
            let results = std::thread::scope(|scope| {
                let threads: Vec<_> = wave
                    .iter()
                    .map(|&(number, batch)| {
                        scope.spawn(move || self.one(task, module, batch, scale, (seed, number)))
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| {
                        thread
                            .join()
                            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                    })
                    .collect::<Vec<_>>()
            });
            for result in results {
                let (loss, gradients, found) = result?;
                losses.push(loss);
                sum.accumulate(module, self.gather(module, gradients));
                merge(&mut metrics, found);
            }
        }
        Ok(StepGradients {
            losses,
            gradients: sum.grads(),
            metrics,
        })
    }
}

impl Workers {
    /// Loss, gradients and metrics of one micro-batch of a step, whose seed and number are told: what
    /// [`gradients`](Self::gradients) adds up.
    ///
    /// # Errors
    /// If the batch does not fit the module.
    pub fn one<T: Task>(
        &self,
        task: &T,
        module: &T::Module,
        batch: &T::Batch,
        scale: f64,
        (seed, number): (u64, usize),
    ) -> Result<(f64, GradientsParams, Vec<Metric>), TrainError>
    where
        T::Batch: Sync,
        T::Module: Sync,
    {
        let worker = &self.workers[number % self.count()];
        let fork = worker.copy(module);
        let masks = stream_seed(seed, "dropout", [number as u64, 0]);
        worker.gradients(task, &fork, batch, scale, self.precision, masks)
    }

    /// Gradients on the main device.
    fn gather<M: Module>(&self, module: &M, gradients: GradientsParams) -> GradientsParams {
        let main = &self.workers[0].device;
        if self.workers.iter().all(|worker| worker.device == *main) {
            return gradients;
        }
        gradients.to_device(&main.clone().inner(), module)
    }
}

impl Worker {
    /// The module with a graph of its own, on the worker's device.
    fn copy<M: Module>(&self, module: &M) -> M {
        let fork = parameters::fork(module);
        if module.devices().contains(&self.device) {
            return fork;
        }
        fork.fork(&self.device)
    }

    fn gradients<T: Task>(
        &self,
        task: &T,
        module: &T::Module,
        batch: &T::Batch,
        scale: f64,
        precision: ComputeType,
        masks: u64,
    ) -> Result<(f64, GradientsParams, Vec<Metric>), TrainError>
    where
        T::Batch: Sync,
        T::Module: Sync,
    {
        self.pool.install(|| {
            compute::with(precision, || {
                dropout::with_seed(masks, || task.gradients(module, batch, scale, &self.device))
            })
        })
    }
}

/// Adds metrics to those of the same name.
pub(super) fn merge(into: &mut Vec<Metric>, metrics: Vec<Metric>) {
    for metric in metrics {
        match into.iter_mut().find(|known| known.name == metric.name) {
            Some(known) => {
                known.sum += metric.sum;
                known.count += metric.count;
            }
            None => into.push(metric),
        }
    }
}
