//! Both stages of the recipe on a tiny multimodal model against the reference's training path, with
//! the features of two encoders given: a square, a wide and a tall picture, and a row without one.
//!
//! The reference keeps the padding of pictures in the sequence, hides it from everybody, lets
//! positions skip it, gives the row without a picture an invisible one, and pads to a constant. Here
//! nothing of that is in the sequence. Losses and gradients must be the same.

#![allow(missing_docs, clippy::unwrap_used)]

mod golden;

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use opabinia_connector::{Connector, ConnectorConfig, PictureSize};
use opabinia_llm::{Decoder, PromptToken};
use opabinia_model::{
    LossOptions, ModelConfig, Network, PictureInput, TrainingRow, keys, training_gradients,
};
use opabinia_nn::{FeatureGrid, Grid};
use opabinia_train::clip::clip_global_norm;
use opabinia_train::optimizer::{AdamWConfig, Optimizer, Rate, Rule};
use opabinia_weights::{Checkpoint, KeyMap, LoadOptions, load_into};
use serde::Deserialize;
use serde_json::{Value, json};

const LOSS: f64 = 1e-4;
const NORM: f64 = 1e-3;
/// The reference's placeholder and label of what is not trained.
const IMAGE: i64 = -200;
const UNTRAINED: i64 = -100;

#[derive(Deserialize)]
struct Golden {
    config: Value,
    stage1: Stage,
    stage2: Stage,
}

#[derive(Deserialize)]
struct Stage {
    steps: Vec<Expected>,
    first_step_gradients_before_clip: BTreeMap<String, Statistics>,
    changed_parameters: Option<Vec<String>>,
    weights_after: BTreeMap<String, Statistics>,
    loss_after_last_step: Option<f64>,
}

#[derive(Deserialize)]
struct Expected {
    loss: f64,
    grad_norm_before_clip: f64,
    /// Of the reference's parameter groups: with two rates the sampler's come last.
    lrs: Vec<f64>,
}

#[derive(Deserialize)]
struct Statistics {
    sum: f64,
    abs_sum: f64,
    l2: f64,
    first8: Vec<f64>,
}

/// The model's configuration, with what the reference's file has under other names.
fn config(golden: &Value) -> ModelConfig {
    let mut keys = golden.clone();
    keys["model_type"] = json!("cambrian_llama");
    keys["mm_projector_type"] = json!("sva");
    keys["mm_vision_tower_aux_list"] = json!(["given-0", "given-1"]);
    keys["mm_vision_tower_aux_token_len_list"] = golden["tower_tokens"].clone();
    ModelConfig::from_json(&keys).unwrap()
}

/// A model and the names of its parameters.
struct Tiny {
    config: ModelConfig,
    connector: ConnectorConfig,
    /// Names of the connector's and of the decoder's parameters.
    names: [KeyMap; 2],
    device: Device,
    rows: Vec<Row>,
}

/// A row of the reference's batch with what it has only for its own sake taken out.
struct Row {
    tokens: Vec<PromptToken>,
    trained: Vec<bool>,
    pictures: Vec<PictureInput>,
}

impl Tiny {
    fn new(golden: &Golden) -> Self {
        let config = config(&golden.config);
        let widths: Vec<usize> = Deserialize::deserialize(&golden.config["tower_hidden"]).unwrap();
        let vision = config.vision.as_ref().unwrap();
        let connector = vision.connector(&widths, config.decoder.hidden).unwrap();
        Self {
            names: [keys::connector(&connector), keys::decoder(&config.decoder)],
            connector,
            config,
            device: Device::flex().autodiff(),
            rows: rows(),
        }
    }

    fn network(&self) -> Network {
        let file = Checkpoint::open(golden::path("train/tiny_cambrian_init.safetensors")).unwrap();
        let options = LoadOptions::default();
        let connector = Connector::new(&self.connector, &self.device);
        let (connector, _) = load_into(connector, &file, &self.names[0], &options).unwrap();
        let decoder = Decoder::new(&self.config.decoder, &self.device);
        let (decoder, _) = load_into(decoder, &file, &self.names[1], &options).unwrap();
        Network {
            encoders: Vec::new(),
            connector: Some(connector),
            decoder,
        }
    }

    /// The checkpoint's name of a parameter.
    fn name(&self, path: &str) -> String {
        let [connector, decoder] = &self.names;
        match path.split_once('.') {
            Some(("connector", rest)) => connector.file_key(rest).key,
            Some(("decoder", rest)) => decoder.file_key(rest).key,
            _ => panic!("{path}"),
        }
    }

    /// Mean loss over the trained tokens, and its gradients.
    fn gradients(&self, network: &Network, checkpointing: bool) -> (f64, GradientsParams) {
        let rows: Vec<TrainingRow<'_>> = self
            .rows
            .iter()
            .map(|row| TrainingRow {
                tokens: &row.tokens,
                trained: &row.trained,
                pictures: &row.pictures,
                branches: &[],
            })
            .collect();
        let trained = rows.iter().flat_map(|row| row.trained);
        let terms = trained.filter(|trained| **trained).count() as f64;
        let options = LossOptions {
            checkpointing,
            ..LossOptions::default()
        };
        let found = training_gradients(
            network,
            &self.config,
            &self.device,
            &rows,
            &options,
            1.0 / terms,
        )
        .unwrap();
        (found.sum / terms, found.gradients)
    }

    /// Gradients, or parameters where there are none given, by the checkpoint's names.
    fn values(
        &self,
        network: &Network,
        gradients: Option<&GradientsParams>,
    ) -> BTreeMap<String, Vec<f32>> {
        let mut values = Values {
            gradients,
            path: Vec::new(),
            found: Vec::new(),
        };
        network.visit(&mut values);
        let named = values.found.into_iter();
        named.map(|(path, x)| (self.name(&path), x)).collect()
    }

    /// Trains a stage step by step, beside the reference.
    fn train(&self, mut network: Network, stage: &Stage, checkpointing: bool) -> Network {
        let mut optimizer = Optimizer::new(AdamWConfig::default());
        for (step, expected) in stage.steps.iter().enumerate() {
            let (loss, mut gradients) = self.gradients(&network, checkpointing);
            near(loss, expected.loss, LOSS, &format!("loss of step {step}"));
            if step == 0 {
                let found = self.values(&network, Some(&gradients));
                let named = found.keys().collect::<Vec<_>>();
                let theirs = stage.first_step_gradients_before_clip.keys();
                assert_eq!(named, theirs.collect::<Vec<_>>());
                for (name, theirs) in &stage.first_step_gradients_before_clip {
                    theirs.check(name, &found[name]);
                }
            }
            let norm = clip_global_norm(&network, &mut gradients, 1.0).unwrap();
            let said = format!("gradient norm of step {step}");
            near(norm, expected.grad_norm_before_clip, NORM, &said);
            let rate = |path: &str| {
                let name = self.name(path);
                let sampler = name.contains("vision_sampler") || name.contains("vision_query");
                let lr = if sampler {
                    expected.lrs[expected.lrs.len() - 1]
                } else {
                    expected.lrs[0]
                };
                Some(Rate {
                    lr,
                    rule: Rule::Adamw,
                    weight_decay: 0.0,
                })
            };
            network = optimizer.step(network, &mut gradients, rate);
        }
        for (name, values) in self.values(&network, None) {
            stage.weights_after[&name].check(&name, &values);
        }
        network
    }
}

/// Collects gradients or parameters by module path.
struct Values<'a> {
    gradients: Option<&'a GradientsParams>,
    path: Vec<String>,
    found: Vec<(String, Vec<f32>)>,
}

impl ModuleVisitor for Values<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = match self.gradients {
            Some(gradients) => gradients.get::<D>(param.id),
            None => Some(param.val().inner()),
        };
        if let Some(values) = values {
            let values = values.into_data().try_to_vec().unwrap();
            self.found.push((self.path.join("."), values));
        }
    }
}

impl Statistics {
    fn check(&self, name: &str, values: &[f32]) {
        let values: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
        let l2 = values.iter().map(|x| x * x).sum::<f64>().sqrt();
        near(l2, self.l2, NORM, name);
        let sum: f64 = values.iter().sum();
        let slack = NORM * self.abs_sum.max(1e-6);
        assert!(
            (sum - self.sum).abs() <= slack,
            "{name}: sum {sum} for {}",
            self.sum
        );
        for (ours, theirs) in values.iter().zip(&self.first8) {
            let slack = NORM * (self.l2 + theirs.abs());
            assert!(
                (ours - theirs).abs() <= slack,
                "{name}: {ours} for {theirs}"
            );
        }
    }
}

fn near(ours: f64, theirs: f64, relative: f64, what: &str) {
    let slack = relative * theirs.abs().max(1e-7);
    assert!(
        (ours - theirs).abs() <= slack,
        "{what}: {ours} for {theirs}"
    );
}

/// The reference's batch: per row what is a token, and the picture where it has one.
///
/// Sizes are such that the reference's masks are theirs. On the 4 × 4 grid of visual tokens the wide
/// picture keeps rows 1 and 2 and the tall one columns 1 and 2, by our rule as by the reference's;
/// on the 8 × 8 grid of the second encoder they keep rows 2 to 5 and columns 3 and 4.
fn rows() -> Vec<Row> {
    let file = Checkpoint::open(golden::path("train/tiny_cambrian_batch.safetensors")).unwrap();
    let ids = integers(&file, "input_ids");
    let labels = integers(&file, "labels");
    let mask = integers(&file, "attention_mask");
    let sizes = [Some((64, 64)), Some((100, 50)), Some((30, 100)), None];
    // 4 rows of 4 visual tokens and a row end.
    let slots = 4 * 5;
    let width = ids.len() / sizes.len();
    let row = |(index, size): (usize, &Option<(u32, u32)>)| {
        let at = index * width..(index + 1) * width;
        let (ids, labels, mask) = (&ids[at.clone()], &labels[at.clone()], &mask[at]);
        let image = ids.iter().position(|id| *id == IMAGE).unwrap();
        let (mut tokens, mut trained) = (Vec::new(), Vec::new());
        for slot in 0..width {
            if slot == image && size.is_some() {
                tokens.push(PromptToken::Image);
                trained.push(false);
            }
            if (image..image + slots).contains(&slot) || mask[slot] == 0 {
                continue;
            }
            tokens.push(PromptToken::Text(u32::try_from(ids[slot]).unwrap()));
            trained.push(labels[slot] != UNTRAINED);
        }
        let pictures = size.iter().map(|&(width, height)| {
            let grids = (0..2).map(|encoder| features(&file, encoder, index));
            PictureInput::Features(grids.collect(), PictureSize { width, height })
        });
        Row {
            tokens,
            trained,
            pictures: pictures.collect(),
        }
    };
    sizes.iter().enumerate().map(row).collect()
}

/// What an encoder saw of the picture of a row.
fn features(file: &Checkpoint, encoder: usize, row: usize) -> FeatureGrid {
    let data = file.tensor(&format!("features_{encoder}"), None).unwrap();
    let all = Tensor::<3>::from_data(data, &Device::flex());
    let [_, n, d] = all.dims();
    let grid = Grid::from_token_count(n).unwrap();
    FeatureGrid::new(all.slice([row..row + 1, 0..n, 0..d]), grid)
}

fn integers(file: &Checkpoint, name: &str) -> Vec<i64> {
    let data = file.tensor(name, None).unwrap();
    data.iter::<i64>().collect()
}

#[test]
fn both_stages_are_the_references() {
    let golden: Golden = golden::json("train/tiny_cambrian_train.json");
    let tiny = Tiny::new(&golden);
    for checkpointing in [false, true] {
        let start = tiny.network();
        let before = tiny.values(&start, None);
        let frozen = Network {
            decoder: start.decoder.no_grad(),
            ..start
        };
        let aligned = tiny.train(frozen, &golden.stage1, checkpointing);

        // Bit by bit: what trains has changed, and nothing else.
        let after = tiny.values(&aligned, None);
        let changed = before
            .iter()
            .filter(|(name, values)| after[*name] != **values);
        let changed: Vec<&String> = changed.map(|(name, _)| name).collect();
        let mut expected = golden.stage1.changed_parameters.clone().unwrap();
        expected.sort();
        assert_eq!(changed, expected.iter().collect::<Vec<_>>());

        let decoder = aligned.decoder.set_require_grad(true);
        let whole = Network { decoder, ..aligned };
        let trained = tiny.train(whole, &golden.stage2, checkpointing);
        let (last, _) = tiny.gradients(&trained, checkpointing);
        let theirs = golden.stage2.loss_after_last_step.unwrap();
        near(last, theirs, LOSS, "loss after the last step");
    }
}
