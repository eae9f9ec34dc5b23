//! What a run says about itself, step by step.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One line of `log.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Steps done, this one included.
    pub step: u64,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Mean loss over the step's terms (trained tokens, masked patches, pairs).
    pub loss: f64,
    /// Terms of the loss.
    pub terms: u64,
    /// Learning rate of each part that trains.
    pub lr: BTreeMap<String, f64>,
    /// Global norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Samples of the step.
    pub samples: u64,
    /// Tokens through the language model, visual ones included.
    pub tokens: u64,
    /// Pictures of the step.
    pub pictures: u64,
    /// Seconds the step took, waiting for data included.
    pub seconds: f64,
    /// Seconds of it spent waiting for data.
    pub waited: f64,
    /// Means of the task's own figures.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// Validation loss, on the steps that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<f64>,
}

impl StepRecord {
    /// An empty record of a step.
    #[must_use]
    pub fn at(step: u64) -> Self {
        Self {
            step,
            ..Self::default()
        }
    }
}

/// Who watches a run: a progress bar, a dashboard, a test.
pub trait Observer {
    /// The run begins, or goes on, after `done` of `total` steps.
    fn begin(&mut self, done: u64, total: u64);

    /// A step is done.
    fn step(&mut self, record: &StepRecord, total: u64);

    /// Something worth a line.
    fn note(&mut self, text: &str);
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn begin(&mut self, _: u64, _: u64) {}
    fn step(&mut self, _: &StepRecord, _: u64) {}
    fn note(&mut self, _: &str) {}
}
