//! One step of training, on rows that stay the same: gradients on two workers, clipping by the global
//! norm, AdamW.

use std::path::Path;
use std::time::Instant;

use burn::optim::GradientsParams;
use burn::prelude::*;
use opabinia_llm::PromptToken;
use opabinia_model::{
    LossOptions, ModelConfig, Network, PictureInput, TrainingRow, training_gradients, training_loss,
};
use opabinia_nn::ComputeType;
use opabinia_train::clip::clip_global_norm;
use opabinia_train::engine::workers::Workers;
use opabinia_train::optimizer::{AdamWConfig, Optimizer, Rate, Rule};
use opabinia_train::{BatchSize, LossSum, Metric, Task, TrainError};
use opabinia_weights::save_module;
use rand_chacha::ChaCha8Rng;

use super::networks::Subject;
use crate::weights::count;
use crate::{Fallible, Workload};

/// Workers that compute gradients side by side, each with its share of the rows.
const WORKERS: usize = 2;
/// Rate and decay of every parameter.
const RATE: Rate = Rate {
    lr: 1e-3,
    rule: Rule::Adamw,
    weight_decay: 0.01,
};
/// Largest global norm of the gradients.
const CLIP: f64 = 1.0;

/// A row of a batch.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) tokens: Vec<PromptToken>,
    pub(super) trained: Vec<bool>,
    pub(super) pictures: Vec<PictureInput>,
}

/// Trains a network on its rows; the losses of the first two steps are told, so that a peer that
/// starts from the same weights can be compared.
pub(super) fn workload(
    subject: Subject,
    checkpointing: bool,
    weights: Option<&Path>,
) -> Fallible<Workload> {
    if let Some(path) = weights {
        save_module(&subject.network, &subject.names, path, &[])?;
    }
    let (parameters, amount) = (count(&subject.network), subject.amount);
    let mut trainer = Trainer::new(subject, checkpointing)?;
    let losses = vec![trainer.step()?, trainer.step()?];
    Ok(Workload {
        parameters,
        amount,
        losses,
        pass: Box::new(move || {
            let start = Instant::now();
            trainer.step()?;
            Ok(start.elapsed().as_secs_f64())
        }),
    })
}

/// A network on its way.
struct Trainer {
    task: FixedRows,
    /// None only while a step has it.
    network: Option<Network>,
    micro_batches: Vec<Vec<Row>>,
    workers: Workers,
    optimizer: Optimizer,
}

impl Trainer {
    fn new(subject: Subject, checkpointing: bool) -> Fallible<Self> {
        let device = Device::flex().autodiff();
        let micro = subject.rows.len().div_ceil(WORKERS);
        Ok(Self {
            micro_batches: subject.rows.chunks(micro).map(<[Row]>::to_vec).collect(),
            task: FixedRows {
                config: subject.config,
                options: LossOptions {
                    checkpointing,
                    ..LossOptions::default()
                },
            },
            network: Some(subject.network),
            workers: Workers::new(WORKERS, &[device], ComputeType::F32)?,
            optimizer: Optimizer::new(AdamWConfig::default()),
        })
    }

    /// Returns the mean loss before the step.
    fn step(&mut self) -> Fallible<f64> {
        let network = self.network.take().ok_or("an earlier step failed")?;
        let batches = &self.micro_batches;
        let terms: usize = batches.iter().map(|batch| self.task.terms(batch)).sum();
        let scale = 1.0 / terms as f64;
        let found = self
            .workers
            .gradients(&self.task, &network, batches, scale, 0)?;
        let mut gradients = found.gradients;
        clip_global_norm(&network, &mut gradients, CLIP)?;
        let network = self.optimizer.step(network, &mut gradients, |_| Some(RATE));
        self.network = Some(network);
        Ok(found.losses.iter().sum::<f64>() * scale)
    }
}

/// Rows that are handed over, the same at every step; nothing is planned and nothing read.
struct FixedRows {
    config: ModelConfig,
    options: LossOptions,
}

impl Row {
    fn view(&self) -> TrainingRow<'_> {
        TrainingRow {
            tokens: &self.tokens,
            trained: &self.trained,
            pictures: &self.pictures,
            branches: &[],
        }
    }
}

impl Task for FixedRows {
    type Module = Network;
    type Batch = Vec<Row>;

    fn samples(&self) -> usize {
        0
    }

    fn plan(&self, _: u64, _: usize, _: usize) -> Vec<Vec<u32>> {
        Vec::new()
    }

    fn load(&self, _: &[u32], _: &mut ChaCha8Rng) -> Result<Option<Vec<Row>>, TrainError> {
        Ok(None)
    }

    fn terms(&self, batch: &Vec<Row>) -> usize {
        let trained = batch.iter().flat_map(|row| &row.trained);
        trained.filter(|trained| **trained).count()
    }

    fn size(&self, batch: &Vec<Row>) -> BatchSize {
        BatchSize {
            samples: batch.len(),
            tokens: batch.iter().map(|row| row.tokens.len()).sum(),
            pictures: batch.iter().map(|row| row.pictures.len()).sum(),
        }
    }

    fn loss(
        &self,
        network: &Network,
        batch: &Vec<Row>,
        device: &Device,
    ) -> Result<LossSum, TrainError> {
        let rows: Vec<_> = batch.iter().map(Row::view).collect();
        let loss = training_loss(network, &self.config, device, &rows, &self.options)?;
        Ok(LossSum {
            sum: loss.sum,
            metrics: Vec::new(),
        })
    }

    fn gradients(
        &self,
        network: &Network,
        batch: &Vec<Row>,
        scale: f64,
        device: &Device,
    ) -> Result<(f64, GradientsParams, Vec<Metric>), TrainError> {
        let rows: Vec<_> = batch.iter().map(Row::view).collect();
        let options = &self.options;
        let found = training_gradients(network, &self.config, device, &rows, options, scale)?;
        Ok((found.sum, found.gradients, Vec::new()))
    }
}
