//! Five steps of a tiny decoder against the same steps in PyTorch: losses, gradient norms, rates and
//! final weights, for three settings of the optimizer.

#![allow(missing_docs, clippy::unwrap_used)]

mod golden;

use std::collections::BTreeMap;

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use opabinia_llm::decoder::{NoHook, Step};
use opabinia_llm::{Decoder, DecoderConfig, KvCache};
use opabinia_train::clip::{clip_global_norm, global_norm};
use opabinia_train::optimizer::{AdamWConfig, Optimizer, Rate, Rule};
use opabinia_train::schedule::{Schedule, ScheduleKind};
use opabinia_weights::{Checkpoint, CheckpointWriter, LoadOptions, WeightDtype, load_into};
use serde::Deserialize;
use serde_json::Value;

/// Five steps in `f32`; the reference's own `f64` run differs by less than 1e-6.
const LOSS: f64 = 1e-4;
/// Norms of gradients and of weights.
const NORM: f64 = 1e-3;

#[derive(Deserialize)]
struct Golden {
    config: Value,
    batch: Batch,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Batch {
    input_ids: Vec<Vec<u32>>,
    labels: Vec<Vec<i64>>,
    attention_mask: Vec<Vec<u8>>,
}

#[derive(Deserialize)]
struct Run {
    case: String,
    adamw: Settings,
    max_grad_norm: Option<f64>,
    scheduler: Option<Scheduler>,
    grad_accumulation: usize,
    steps_f32: Vec<Expected>,
    loss_after_last_step_f32: f64,
    final_weights_f32: BTreeMap<String, Statistics>,
}

#[derive(Deserialize)]
struct Settings {
    betas: [f64; 2],
    eps: f64,
    lr: f64,
    weight_decay_on_2d_weights: f64,
    weight_decay_on_norms: f64,
}

#[derive(Deserialize)]
struct Scheduler {
    warmup: u64,
    total: u64,
}

#[derive(Deserialize)]
struct Expected {
    loss: f64,
    grad_norm_before_clip: f64,
    lr: f64,
}

#[derive(Deserialize)]
struct Statistics {
    sum: f64,
    abs_sum: f64,
    l2: f64,
    first8: Vec<f64>,
}

fn decoder(config: &Value, device: &Device) -> Decoder {
    let mut config = config.clone();
    config["model_type"] = "llama".into();
    config["hidden_act"] = "silu".into();
    config["max_position_embeddings"] = 2048.into();
    let config = DecoderConfig::from_json(&config).unwrap();
    let decoder = Decoder::new(&config, device);
    let checkpoint = Checkpoint::open(golden::path("train/tiny_llama_init.safetensors")).unwrap();
    let map = opabinia_model::keys::decoder(&config);
    let (decoder, report) = load_into(decoder, &checkpoint, &map, &LoadOptions::default()).unwrap();
    drop(report);
    decoder
}

/// Mean cross entropy over the labelled positions of some rows, as the reference computes it.
fn loss(
    decoder: &Decoder,
    batch: &Batch,
    rows: std::ops::Range<usize>,
    device: &Device,
) -> Tensor<1> {
    let ids = &batch.input_ids[rows.clone()];
    let (b, t) = (ids.len(), ids[0].len());
    let embeddings = decoder.embed(&ids.concat(), device);
    let hidden = embeddings.dims()[1];
    let mut step = Step::contiguous(embeddings.reshape([b, t, hidden]), 0);
    for (slots, mask) in step
        .slots
        .iter_mut()
        .zip(&batch.attention_mask[rows.clone()])
    {
        for (slot, &filled) in slots.iter_mut().zip(mask) {
            slot.filled = filled == 1;
        }
    }
    let states = decoder.forward(step, &mut KvCache::new(), &mut NoHook);

    let (mut places, mut targets) = (Vec::new(), Vec::new());
    for (row, labels) in batch.labels[rows].iter().enumerate() {
        for (place, &label) in labels.iter().enumerate().skip(1).filter(|(_, l)| **l >= 0) {
            places.push((row * t + place - 1) as i32);
            targets.push(label as i32);
        }
    }
    let count = targets.len();
    let places = Tensor::<1, Int>::from_data(places.as_slice(), device);
    let targets = Tensor::<1, Int>::from_data(targets.as_slice(), device);
    let states = states.reshape([b * t, hidden]).select(0, places);
    let scores = log_softmax(decoder.logits(states), 1);
    -scores.gather(1, targets.reshape([count, 1])).mean()
}

fn value(x: &Tensor<1>) -> f64 {
    f64::from(x.clone().inner().into_scalar::<f32>())
}

fn assert_close(got: f64, expected: f64, relative: f64, said: &str) {
    assert!(
        (got - expected).abs() <= relative * expected.abs(),
        "{said}: {got} instead of {expected}"
    );
}

struct Trainer<'a> {
    run: &'a Run,
    batch: &'a Batch,
    device: Device,
}

impl Trainer<'_> {
    /// Loss and gradients of a step: the mean over micro-batches, each a mean over its tokens.
    fn gradients(&self, decoder: &Decoder) -> (f64, GradientsParams) {
        let parts = self.run.grad_accumulation;
        let rows = self.batch.input_ids.len() / parts;
        let mut sum = GradientsAccumulator::<Decoder>::new();
        let mut total = 0.0;
        for part in 0..parts {
            let range = part * rows..(part + 1) * rows;
            let loss = loss(decoder, self.batch, range, &self.device) / parts as f64;
            total += value(&loss);
            sum.accumulate(
                decoder,
                GradientsParams::from_grads(loss.backward(), decoder),
            );
        }
        (total, sum.grads())
    }

    fn rate(&self, name: &str, step: usize) -> Rate {
        let settings = &self.run.adamw;
        let factor = self.run.scheduler.as_ref().map_or(1.0, |scheduler| {
            Schedule {
                kind: ScheduleKind::Cosine,
                warmup: scheduler.warmup,
                steps: scheduler.total,
            }
            .factor(step as u64)
        });
        Rate {
            lr: settings.lr * factor,
            rule: Rule::Adamw,
            weight_decay: if name.contains("norm") {
                settings.weight_decay_on_norms
            } else {
                settings.weight_decay_on_2d_weights
            },
        }
    }

    fn step(&self, decoder: Decoder, optimizer: &mut Optimizer, step: usize) -> Decoder {
        let expected = &self.run.steps_f32[step];
        let said = format!("{}, step {step}", self.run.case);
        let (loss, mut gradients) = self.gradients(&decoder);
        assert_close(loss, expected.loss, LOSS, &said);
        let norm = match self.run.max_grad_norm {
            Some(max) => clip_global_norm(&decoder, &mut gradients, max).unwrap(),
            None => global_norm(&decoder, &gradients),
        };
        assert_close(norm, expected.grad_norm_before_clip, NORM, &said);
        assert_close(self.rate("layers", step).lr, expected.lr, 1e-12, &said);
        optimizer.step(decoder, &mut gradients, |name| Some(self.rate(name, step)))
    }

    fn check_weights(&self, decoder: &Decoder) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("final.safetensors");
        let mut writer = CheckpointWriter::new(WeightDtype::AsStored);
        let map = opabinia_model::keys::decoder(decoder.config());
        writer.add(&decoder.clone().valid(), &map).unwrap();
        writer.write_file(&path).unwrap();
        let file = Checkpoint::open(&path).unwrap();
        for (name, expected) in &self.run.final_weights_f32 {
            let values: Vec<f64> = file.tensor(name, None).unwrap().iter::<f64>().collect();
            let said = format!("{}, {name}", self.run.case);
            let sum: f64 = values.iter().sum();
            assert!(
                (sum - expected.sum).abs() <= NORM * expected.abs_sum,
                "{said}"
            );
            let l2 = values.iter().map(|x| x * x).sum::<f64>().sqrt();
            assert_close(l2, expected.l2, NORM, &said);
            for (got, expected) in values.iter().zip(&expected.first8) {
                assert!(
                    (got - expected).abs() < 1e-4,
                    "{said}: {got} instead of {expected}"
                );
            }
        }
    }
}

#[test]
fn five_steps_equal_the_reference() {
    let golden: Golden = golden::json("train/tiny_llama_train.json");
    let device = Device::flex().autodiff();
    for run in &golden.runs {
        let trainer = Trainer {
            run,
            batch: &golden.batch,
            device: device.clone(),
        };
        let [beta1, beta2] = run.adamw.betas;
        let mut optimizer = Optimizer::new(AdamWConfig {
            beta1,
            beta2,
            eps: run.adamw.eps,
        });
        let mut model = decoder(&golden.config, &device);
        for step in 0..run.steps_f32.len() {
            model = trainer.step(model, &mut optimizer, step);
        }
        // Over the whole batch at once, however the steps divided it.
        let rows = 0..golden.batch.input_ids.len();
        let last = value(&loss(&model, &golden.batch, rows, &device));
        assert_close(last, run.loss_after_last_step_f32, LOSS, &run.case);
        trainer.check_weights(&model);
    }
}

/// Stopping after two steps and going on from the stored state changes no bit.
#[test]
fn stored_state_goes_on_as_if_nothing_had_happened() {
    let golden: Golden = golden::json("train/tiny_llama_train.json");
    let device = Device::flex().autodiff();
    let trainer = Trainer {
        run: &golden.runs[1],
        batch: &golden.batch,
        device: device.clone(),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optimizer.safetensors");
    let mut model = decoder(&golden.config, &device);
    let mut optimizer = Optimizer::new(AdamWConfig::default());
    for step in 0..2 {
        model = trainer.step(model, &mut optimizer, step);
    }
    optimizer.save(&path).unwrap();
    let mut stored = Optimizer::load(AdamWConfig::default(), &path, &model).unwrap();
    assert!(stored.names().eq(optimizer.names()));
    let mut other = model.clone();
    for step in 2..5 {
        model = trainer.step(model, &mut optimizer, step);
        other = trainer.step(other, &mut stored, step);
    }
    assert_eq!(stored.updates("norm.weight"), 5);
    let values = |decoder: &Decoder| {
        let head = decoder.lm_head.as_ref().unwrap();
        head.weight.val().into_data().try_to_vec::<f32>().unwrap()
    };
    assert_eq!(values(&model), values(&other));
}
