//! What the training loop needs to know about what it trains.
//!
//! The loop ([`crate::engine`]) owns steps, workers, gradients, the optimizer, checkpoints and logs;
//! a task owns samples, their order, and the way from a micro-batch to a loss. The two stages of the
//! recipe and the pretraining of encoders and decoder are tasks of the same loop, so all of them
//! resume, log and stop alike.

use std::borrow::Cow;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::prelude::*;
use rand_chacha::ChaCha8Rng;

use crate::TrainError;

/// Something that can be trained.
pub trait Task: Send + Sync {
    /// Everything that has parameters, on the autodiff device; frozen ones do not require gradients.
    type Module: Module + Clone + Send + 'static;
    /// A micro-batch, read and prepared.
    type Batch: Send + 'static;

    /// Samples of one epoch.
    fn samples(&self) -> usize;

    /// The steps of one epoch, each the samples of its global batch; the same for the same
    /// arguments. Samples that do not fill a last batch make a smaller one.
    fn plan(&self, seed: u64, epoch: usize, batch: usize) -> Vec<Vec<u32>>;

    /// Where a sample is written, for messages; `None` if that is not known.
    fn place(&self, _sample: u32) -> Option<String> {
        None
    }

    /// How the samples of a step are divided into micro-batches of at most `micro`.
    fn divide(&self, samples: &[u32], micro: usize) -> Vec<Vec<u32>> {
        samples.chunks(micro.max(1)).map(<[u32]>::to_vec).collect()
    }

    /// Reads a micro-batch; runs on loader threads, ahead of the step. `random` is a stream of its
    /// own for each micro-batch (augmentation, masking). `None` if nothing of it can be used.
    ///
    /// # Errors
    /// If too many samples are bad, or something cannot be read at all.
    fn load(
        &self,
        samples: &[u32],
        random: &mut ChaCha8Rng,
    ) -> Result<Option<Self::Batch>, TrainError>;

    /// How many terms the loss of a batch sums (trained tokens, masked patches, pairs).
    fn terms(&self, batch: &Self::Batch) -> usize;

    /// What the batch is about in a run's log: tokens, pictures.
    fn size(&self, batch: &Self::Batch) -> BatchSize;

    /// The sum of the losses of a micro-batch, `[1]`, with its graph.
    ///
    /// # Errors
    /// If the batch does not fit the module.
    fn loss(
        &self,
        module: &Self::Module,
        batch: &Self::Batch,
        device: &Device,
    ) -> Result<LossSum, TrainError>;

    /// Gradients of `scale · loss`; tasks with their own backward pass (gradient checkpointing)
    /// replace this.
    ///
    /// # Errors
    /// As [`loss`](Self::loss).
    fn gradients(
        &self,
        module: &Self::Module,
        batch: &Self::Batch,
        scale: f64,
        device: &Device,
    ) -> Result<(f64, GradientsParams, Vec<Metric>), TrainError> {
        let LossSum { sum, metrics } = self.loss(module, batch, device)?;
        let scaled = sum.clone() * scale;
        let gradients = GradientsParams::from_grads(scaled.backward(), module);
        Ok((
            f64::from(sum.inner().into_scalar::<f32>()),
            gradients,
            metrics,
        ))
    }
}

/// A summed loss and what else is worth logging.
#[derive(Debug)]
pub struct LossSum {
    /// Sum over the terms, `[1]`.
    pub sum: Tensor<1>,
    /// Further figures.
    pub metrics: Vec<Metric>,
}

/// A figure of a micro-batch: a sum and how many it sums.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its name in the log.
    pub name: Cow<'static, str>,
    /// Sum.
    pub sum: f64,
    /// Count.
    pub count: f64,
}

/// How big a micro-batch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchSize {
    /// Samples.
    pub samples: usize,
    /// Tokens that go through the language model, visual ones included.
    pub tokens: usize,
    /// Pictures.
    pub pictures: usize,
}
