//! The training loop on a task small enough to see through: a line through points.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::prelude::*;
use burn::tensor::TensorData;
use opabinia_nn::{Activation, ComputeType, Mlp};
use opabinia_train::engine::record::{StepRecord, Unobserved};
use opabinia_train::engine::replay::Bundle;
use opabinia_train::engine::run_folder::{RunFolder, read_log};
use opabinia_train::engine::{Ending, Length, Outcome, Settings, Surroundings, parameters, train};
use opabinia_train::groups::{Assignment, PartRate, PartRates};
use opabinia_train::optimizer::{AdamWConfig, Rule};
use opabinia_train::schedule::{Schedule, ScheduleKind};
use opabinia_train::{BatchSize, LossSum, Metric, Task, TrainError};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

const SAMPLES: usize = 40;

/// `y = 3 x₀ − 2 x₁`, with noise that is drawn anew at each visit.
struct Points {
    /// A sample whose target is not a number.
    broken: Option<u32>,
}

struct PointBatch {
    x: Vec<f32>,
    y: Vec<f32>,
}

impl Task for Points {
    type Module = Mlp;
    type Batch = PointBatch;

    fn samples(&self) -> usize {
        SAMPLES
    }

    fn plan(&self, seed: u64, epoch: usize, batch: usize) -> Vec<Vec<u32>> {
        opabinia_data::order::shuffled(SAMPLES, batch, seed, epoch)
    }

    fn load(
        &self,
        samples: &[u32],
        random: &mut ChaCha8Rng,
    ) -> Result<Option<PointBatch>, TrainError> {
        let mut batch = PointBatch {
            x: Vec::new(),
            y: Vec::new(),
        };
        for &sample in samples {
            let x = [sample as f32 / 20.0 - 1.0, (sample % 7) as f32 / 7.0];
            let noise: f32 = random.random_range(-0.01..0.01);
            let broken = self.broken == Some(sample);
            batch.x.extend(x);
            batch.y.push(if broken {
                f32::NAN
            } else {
                3.0 * x[0] - 2.0 * x[1] + noise
            });
        }
        Ok((!samples.is_empty()).then_some(batch))
    }

    fn terms(&self, batch: &PointBatch) -> usize {
        batch.y.len()
    }

    fn size(&self, batch: &PointBatch) -> BatchSize {
        BatchSize {
            samples: batch.y.len(),
            ..BatchSize::default()
        }
    }

    fn loss(
        &self,
        module: &Mlp,
        batch: &PointBatch,
        device: &Device,
    ) -> Result<LossSum, TrainError> {
        let n = batch.y.len();
        let x = Tensor::<2>::from_data(TensorData::new(batch.x.clone(), [n, 2]), device);
        let y = Tensor::<2>::from_data(TensorData::new(batch.y.clone(), [n, 1]), device);
        let error = (module.forward(x) - y).square().sum();
        Ok(LossSum {
            sum: error,
            metrics: vec![Metric {
                name: "points".into(),
                sum: n as f64,
                count: 1.0,
            }],
        })
    }
}

fn module() -> Mlp {
    let device = Device::flex().autodiff();
    let module = Mlp::new(2, 8, 1, Activation::Silu, &device);
    // Fixed first values, whatever ran before in this process.
    let values = parameters::list(&module).into_iter().map(|p| {
        let n = p.count() as usize;
        parameters::Values {
            values: (0..n)
                .map(|i| ((i * 37 + n) % 11) as f32 / 11.0 - 0.5)
                .collect(),
            name: p.name,
            shape: p.shape,
        }
    });
    parameters::restore(module, values.collect()).0
}

fn settings(module: &Mlp) -> Settings {
    let shapes = parameters::list(module)
        .into_iter()
        .map(|p| (p.name, p.shape));
    let rates = PartRates::new(|_| PartRate {
        train: true,
        lr: 0.05,
        weight_decay: 0.01,
        matrices: Rule::Adamw,
    });
    Settings {
        seed: 7,
        batch: 8,
        micro: 3,
        workers: 1,
        precision: ComputeType::F32,
        devices: vec![Device::flex().autodiff()],
        loaders: 2,
        length: Length::Epochs(4),
        schedule: Arc::new(|steps| Schedule {
            kind: ScheduleKind::Cosine,
            warmup: 2,
            steps,
        }),
        optimizer: AdamWConfig::default(),
        clip: Some(1.0),
        assignment: Arc::new(Assignment::new(shapes, str::to_owned, &rates)),
        save_every: 3,
        keep: 2,
        keep_best: true,
        validate_every: 0,
        at_most: None,
        fingerprint: "points".into(),
    }
}

fn go(folder: &Path, task: Points, settings: &Settings) -> Result<Outcome<Mlp>, TrainError> {
    let stop = AtomicBool::new(false);
    let mut run = RunFolder::open(folder)?;
    let mut around = Surroundings {
        folder: &mut run,
        observer: &mut Unobserved,
        stop: &stop,
    };
    let validation = Points { broken: None };
    train(
        &Arc::new(task),
        Some(&validation),
        module(),
        settings,
        &mut around,
    )
}

fn whole(folder: &Path, settings: &Settings) -> (Vec<StepRecord>, Vec<parameters::Values>) {
    let outcome = go(folder, Points { broken: None }, settings).unwrap();
    assert_eq!(outcome.ending, Ending::Done);
    (
        read_log(folder).unwrap(),
        parameters::values(&outcome.module, |_| true),
    )
}

/// Everything but the time it took.
fn timeless(records: Vec<StepRecord>) -> Vec<StepRecord> {
    let timeless = |record: StepRecord| StepRecord {
        seconds: 0.0,
        waited: 0.0,
        ..record
    };
    records.into_iter().map(timeless).collect()
}

#[test]
fn it_learns_and_logs_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = whole(folder.path(), &settings(&module()));
    assert_eq!(log.len(), 20);
    assert_eq!(
        log[0].lr["auxiliary"], 0.0,
        "the first update of a warm-up has rate 0"
    );
    assert_eq!(log[0].metrics["points"], 8.0 / 3.0);
    assert!(
        log[19].loss < 0.3 * log[0].loss,
        "{} {}",
        log[0].loss,
        log[19].loss
    );
    assert!(log[19].validation.is_some());
    let run = RunFolder::open(folder.path()).unwrap();
    assert!(run.best().is_some());
    assert_eq!(run.checkpoints().unwrap().len(), 2);
}

#[test]
fn a_run_that_was_stopped_anywhere_goes_on_as_if_nothing_had_happened() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&module());
    let (log, values) = whole(&folder.path().join("whole"), &settings);
    for first in [1, 4, 9, 19] {
        let path = folder.path().join(format!("stopped-{first}"));
        let portion = Settings {
            at_most: Some(first),
            ..settings.clone()
        };
        let stopped = go(&path, Points { broken: None }, &portion).unwrap();
        assert_eq!((stopped.ending, stopped.step), (Ending::Stopped, first));
        let (resumed, found) = whole(&path, &settings);
        assert_eq!(
            timeless(resumed),
            timeless(log.clone()),
            "stopped after {first}"
        );
        assert_eq!(found, values);
    }
}

#[test]
fn a_kill_between_checkpoints_costs_only_the_steps_since_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&module());
    let (log, values) = whole(&folder.path().join("whole"), &settings);
    // Stopped after 7 steps, and the checkpoint of step 7 lost, as if killed before it was saved.
    let path = folder.path().join("killed");
    let portion = Settings {
        at_most: Some(7),
        ..settings.clone()
    };
    go(&path, Points { broken: None }, &portion).unwrap();
    std::fs::remove_dir_all(path.join("checkpoints/step-00000007")).unwrap();
    let (resumed, found) = whole(&path, &settings);
    assert_eq!(timeless(resumed), timeless(log));
    assert_eq!(found, values);
}

#[test]
fn neither_workers_nor_loaders_change_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&module());
    let (log, values) = whole(&folder.path().join("one"), &settings);
    for (workers, loaders) in [(2, 1), (3, 4)] {
        let other = Settings {
            workers,
            loaders,
            ..settings.clone()
        };
        let path = folder.path().join(format!("{workers}"));
        let (found, other_values) = whole(&path, &other);
        assert_eq!(timeless(found), timeless(log.clone()), "{workers} workers");
        assert_eq!(other_values, values);
    }
}

#[test]
fn another_recipe_cannot_go_on_from_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&module());
    whole(folder.path(), &settings);
    settings.fingerprint = "other".into();
    let error = go(folder.path(), Points { broken: None }, &settings)
        .err()
        .unwrap();
    assert!(error.to_string().contains("another recipe"), "{error}");
}

#[test]
fn a_value_that_is_not_finite_stops_the_run_and_can_be_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&module());
    let error = go(folder.path(), Points { broken: Some(11) }, &settings)
        .err()
        .unwrap();
    let TrainError::NotFinite {
        step, what, bundle, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert!(
        what.contains("fc1.weight") || what.contains("fc2"),
        "{what}"
    );
    let read = Bundle::read(bundle).unwrap();
    assert_eq!(read.step, *step);
    assert!(read.plan.contains(&11) && read.loss.is_nan());
    let task = Points { broken: Some(11) };
    let replayed = read.replay(bundle, &task, module(), &settings).unwrap();
    let bad: Vec<_> = replayed
        .losses
        .iter()
        .filter(|(_, loss)| loss.is_nan())
        .collect();
    assert!(
        bad.len() == 1 && bad[0].0.contains(&11),
        "{:?}",
        replayed.losses
    );
    assert!(!replayed.parameters.is_empty());
    let refused = |change: &dyn Fn(&mut Bundle)| {
        let mut other = read.clone();
        change(&mut other);
        let error = other.replay(bundle, &task, module(), &settings);
        error.unwrap_err().to_string()
    };
    let other = refused(&|b| b.fingerprint = Some("another".into()));
    assert!(other.contains("another recipe or other data"), "{other}");
    let other = refused(&|b| b.plan.push(SAMPLES as u32));
    assert!(
        other.contains("has sample 40, and the data has 40"),
        "{other}"
    );
    assert!(refused(&|b| b.step = 0).contains("begin at 1"));
    // What was saved before the bad step is still there, and no later checkpoint.
    let run = RunFolder::open(folder.path()).unwrap();
    assert!(run.checkpoints().unwrap().len() as u64 <= step / 3);
}

#[test]
fn a_request_to_stop_saves_first() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&module());
    let stop = AtomicBool::new(false);
    stop.store(true, Ordering::SeqCst);
    let mut run = RunFolder::open(folder.path()).unwrap();
    let mut around = Surroundings {
        folder: &mut run,
        observer: &mut Unobserved,
        stop: &stop,
    };
    let task = Arc::new(Points { broken: None });
    let outcome = train(&task, None, module(), &settings, &mut around).unwrap();
    assert_eq!((outcome.ending, outcome.step), (Ending::Stopped, 1));
    assert!(run.newest().unwrap().is_some());
}
