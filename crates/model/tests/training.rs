//! Training walks the path of answers: the loss of a micro-batch is what the logits of single,
//! unpadded rows say, whatever else is in the batch and however its pictures come.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use opabinia_connector::PictureSize;
use opabinia_image::{ImageLimits, ImageSource, RgbImage, load, prepare};
use opabinia_llm::{Conversation, PromptToken};
use opabinia_model::{
    ImagePosition, LoadModel, LossOptions, Model, ModelError, Network, PictureInput, TrainingRow,
    training_gradients, training_loss,
};
use opabinia_nn::lora::LoraShape;
use opabinia_nn::{Trace, dropout};

fn golden(case: &str) -> PathBuf {
    let root = match std::env::var_os("OPABINIA_GOLDEN") {
        Some(root) => root.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
    };
    root.join(case)
}

/// The golden model with in-LLM layers.
fn model() -> Model {
    Model::load(&golden("cambrian_llama_sva"), &LoadModel::default())
        .unwrap()
        .0
}

fn picture(name: &str) -> RgbImage {
    let path = golden("cambrian_llama_sva").join(format!("images/{name}.png"));
    load(&ImageSource::File(path), &ImageLimits::default()).unwrap()
}

/// A sample that owns what a [`TrainingRow`] borrows.
struct Sample {
    tokens: Vec<PromptToken>,
    trained: Vec<bool>,
    pictures: Vec<RgbImage>,
    branches: Vec<usize>,
}

impl Sample {
    /// A question and an answer of which the last tokens are trained.
    fn new(model: &Model, pictures: &[&str], question: &str, trained: usize) -> Self {
        let conversation = Conversation::question(question).with_images(pictures.len());
        let mut tokens = model.prompt(&conversation).unwrap().tokens;
        tokens.extend((0..trained as u32).map(|i| PromptToken::Text(40 + 7 * i)));
        let first = tokens.len() - trained;
        Self {
            trained: (0..tokens.len()).map(|i| i >= first).collect(),
            tokens,
            pictures: pictures.iter().map(|name| picture(name)).collect(),
            branches: Vec::new(),
        }
    }

    /// Samples with the same beginning as one row that has it once.
    fn branched(samples: &[&Self], shared: usize) -> Self {
        let mut row = Self {
            tokens: samples[0].tokens[..shared].to_vec(),
            trained: samples[0].trained[..shared].to_vec(),
            pictures: samples[0].pictures.clone(),
            branches: Vec::new(),
        };
        for sample in samples {
            assert_eq!(sample.tokens[..shared], row.tokens[..shared]);
            row.branches.push(row.tokens.len());
            row.tokens.extend_from_slice(&sample.tokens[shared..]);
            row.trained.extend_from_slice(&sample.trained[shared..]);
        }
        row
    }

    fn pixels(&self, network: &Network) -> Vec<PictureInput> {
        self.pictures
            .iter()
            .map(|picture| {
                let prepared = network
                    .encoders
                    .iter()
                    .map(|encoder| prepare(picture, &encoder.preprocessor()).unwrap());
                PictureInput::Pixels(prepared.collect(), size(picture))
            })
            .collect()
    }

    fn terms(&self) -> usize {
        self.trained.iter().filter(|trained| **trained).count()
    }

    fn row<'a>(&'a self, pictures: &'a [PictureInput]) -> TrainingRow<'a> {
        TrainingRow {
            tokens: &self.tokens,
            trained: &self.trained,
            pictures,
            branches: &self.branches,
        }
    }
}

fn size(picture: &RgbImage) -> PictureSize {
    PictureSize {
        width: picture.width(),
        height: picture.height(),
    }
}

/// Pictures of every shape, none, the same twice, and answers of several lengths.
fn samples(model: &Model) -> Vec<Sample> {
    vec![
        Sample::new(model, &["square"], "What is it?", 5),
        Sample::new(model, &["wide"], "How many?", 1),
        Sample::new(model, &[], "What is 3 plus 4?", 9),
        Sample::new(model, &["tall"], "Describe the picture in detail.", 3),
        Sample::new(model, &["wide", "square"], "Which one?", 2),
    ]
}

/// The loss of a row from the logits that answering computes, and the number of trained tokens.
fn expected(model: &Model, sample: &Sample, rule: ImagePosition) -> (f64, usize) {
    let prompt = opabinia_model::Prompt {
        text: String::new(),
        tokens: sample.tokens.clone(),
    };
    let seen: Vec<_> = sample
        .pictures
        .iter()
        .map(|picture| model.see(picture, &mut Trace::off()).unwrap())
        .collect();
    let packed = model.pack(&[(&prompt, &seen)]).unwrap();
    let (hidden, _) = model.forward(&packed, rule, &mut Trace::off()).unwrap();
    let [_, t, d] = hidden.dims();
    let scores = log_softmax(model.network.decoder.logits(hidden.reshape([t, d])), 1);
    let scores = scores.into_data().try_to_vec::<f32>().unwrap();
    let vocab = model.config.decoder.vocab;
    // Trained tokens stand at the end, behind every picture.
    let count = sample.terms();
    let loss = (0..count).map(|i| {
        let PromptToken::Text(id) = sample.tokens[sample.tokens.len() - count + i] else {
            panic!("a picture in the answer");
        };
        -f64::from(scores[(t - count + i - 1) * vocab + id as usize])
    });
    (loss.sum(), count)
}

fn scalar(x: Tensor<1>) -> f64 {
    f64::from(x.inner().into_scalar::<f32>())
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-5 * a.abs().max(1.0)
}

/// The loss of some samples, in order, with their pictures as pixels.
fn loss_of(
    model: &Model,
    network: &Network,
    device: &Device,
    samples: &[&Sample],
    options: &LossOptions,
) -> (f64, usize) {
    let pictures: Vec<_> = samples
        .iter()
        .map(|sample| sample.pixels(network))
        .collect();
    let rows: Vec<_> = samples
        .iter()
        .zip(&pictures)
        .map(|(sample, pictures)| sample.row(pictures))
        .collect();
    let loss = training_loss(network, &model.config, device, &rows, options).unwrap();
    (scalar(loss.sum), loss.terms)
}

#[test]
fn a_batch_costs_what_its_rows_cost_alone() {
    let model = model();
    let samples = samples(&model);
    for rule in [ImagePosition::Actual, ImagePosition::Config] {
        let options = LossOptions {
            image_position: rule,
            ..LossOptions::default()
        };
        let singles: Vec<_> = samples.iter().map(|s| expected(&model, s, rule)).collect();
        let sum: f64 = singles.iter().map(|(loss, _)| loss).sum();
        let terms: usize = singles.iter().map(|(_, terms)| terms).sum();
        let all: Vec<&Sample> = samples.iter().collect();
        let backwards: Vec<&Sample> = samples.iter().rev().collect();
        let device = Device::flex();
        for order in [all, backwards] {
            let found = loss_of(&model, &model.network, &device, &order, &options);
            assert!(close(sum, found.0), "{rule:?}: {sum} {found:?}");
            assert_eq!(terms, found.1);
        }
        for (sample, (loss, terms)) in samples.iter().zip(singles) {
            let found = loss_of(&model, &model.network, &device, &[sample], &options);
            assert!(close(loss, found.0), "{rule:?}: {loss} {found:?}");
            assert_eq!(terms, found.1);
        }
    }
}

#[test]
fn with_a_graph_it_is_the_same_number() {
    let model = model();
    let samples = samples(&model);
    let all: Vec<&Sample> = samples.iter().collect();
    let device = Device::flex();
    let options = LossOptions::default();
    let plain = loss_of(&model, &model.network, &device, &all, &options);
    let device = device.autodiff();
    let trained = model.network.clone().train();
    let encoders = trained.encoders.clone();
    let frozen = Network {
        encoders: encoders.into_iter().map(Module::no_grad).collect(),
        ..trained.clone()
    };
    for network in [trained, frozen] {
        let found = loss_of(&model, &network, &device, &all, &options);
        assert!(close(plain.0, found.0), "{plain:?} {found:?}");
    }
}

/// Questions about one picture in one row cost what they cost in rows of their own, and give the same
/// gradients; beside them are a row without branches, and one whose branches are of other lengths.
#[test]
fn branches_cost_what_they_cost_alone() {
    let model = model();
    let about = |picture, question: &str, trained| {
        let picture: Vec<&str> = Option::into_iter(picture).collect();
        Sample::new(&model, &picture, question, trained)
    };
    let (square, wide) = (Some("square"), Some("wide"));
    let alone = [
        about(square, "What is it?", 5),
        about(square, "How many are there in the picture?", 1),
        about(square, "Where?", 2),
        about(wide, "Describe the picture in detail.", 7),
        about(None, "What is 3 plus 4?", 3),
        about(None, "Who?", 4),
    ];
    let [a, b, c, d, e, f] = &alone;
    let shared = |samples: &[&Sample]| {
        let first = &samples[0].tokens;
        let equal = |other: &&Sample| {
            first
                .iter()
                .zip(&other.tokens)
                .take_while(|(a, b)| a == b)
                .count()
        };
        samples[1..].iter().map(equal).min().unwrap()
    };
    let branched = [
        Sample::branched(&[a, b, c], shared(&[a, b, c])),
        Sample::branched(&[d], 2),
        Sample::branched(&[e, f], shared(&[e, f])),
    ];
    let alone: Vec<&Sample> = alone.iter().collect();
    let branched: Vec<&Sample> = branched.iter().collect();
    for (name, network) in trainings(&model.network.clone().train()) {
        let (sum, expected) = gradients(&model, &network, &alone, false);
        for checkpointing in [false, true] {
            let (found_sum, found) = gradients(&model, &network, &branched, checkpointing);
            assert!(close(sum, found_sum), "{name}: {sum} {found_sum}");
            for (path, theirs) in &expected {
                same_gradient(
                    &format!("{name}: {path}"),
                    theirs.as_deref(),
                    found[path].as_deref(),
                );
            }
        }
    }
}

/// Gradients that sums in another order give.
fn same_gradient(name: &str, expected: Option<&[f32]>, found: Option<&[f32]>) {
    let (Some(expected), Some(found)) = (expected, found) else {
        assert_eq!(expected.is_some(), found.is_some(), "{name}");
        return;
    };
    let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    for (a, b) in expected.iter().zip(found) {
        assert!((a - b).abs() <= 1e-4 * largest.max(1e-3), "{name}: {a} {b}");
    }
}

/// Features computed once stand for the pixels, and both may be in one batch.
#[test]
fn cached_features_are_the_picture() {
    let model = model();
    let samples = samples(&model);
    let device = Device::flex();
    let vision = model.config.vision.as_ref().unwrap();
    let cached: Vec<Vec<PictureInput>> = samples
        .iter()
        .enumerate()
        .map(|(i, sample)| {
            let pictures = sample.pixels(&model.network).into_iter();
            let cache = |picture| match picture {
                PictureInput::Pixels(pixels, size) if i % 2 == 0 => {
                    let grids = model.network.encode(vision, pixels, &device).unwrap();
                    PictureInput::Features(grids, size)
                }
                other => other,
            };
            pictures.map(cache).collect()
        })
        .collect();
    let rows: Vec<_> = samples.iter().zip(&cached).map(|(s, p)| s.row(p)).collect();
    let options = LossOptions::default();
    let all: Vec<&Sample> = samples.iter().collect();
    let expected = loss_of(&model, &model.network, &device, &all, &options);
    let loss = training_loss(&model.network, &model.config, &device, &rows, &options).unwrap();
    assert!(close(expected.0, scalar(loss.sum)));
    let device = device.autodiff();
    let network = model.network.clone().train();
    let loss = training_loss(&network, &model.config, &device, &rows, &options).unwrap();
    assert!(close(expected.0, scalar(loss.sum)));
}

/// Gradients of every parameter, by path; `None` where there is none.
fn gradients(
    model: &Model,
    network: &Network,
    samples: &[&Sample],
    checkpointing: bool,
) -> (f64, BTreeMap<String, Option<Vec<f32>>>) {
    let pictures: Vec<_> = samples
        .iter()
        .map(|sample| sample.pixels(network))
        .collect();
    let rows: Vec<_> = samples
        .iter()
        .zip(&pictures)
        .map(|(sample, pictures)| sample.row(pictures))
        .collect();
    let options = LossOptions {
        checkpointing,
        ..LossOptions::default()
    };
    let device = Device::flex().autodiff();
    let found = training_gradients(network, &model.config, &device, &rows, &options, 0.5).unwrap();
    assert_eq!(
        found.terms,
        samples.iter().map(|s| s.terms()).sum::<usize>()
    );
    let mut values = Values {
        gradients: found.gradients,
        path: Vec::new(),
        found: BTreeMap::new(),
    };
    network.visit(&mut values);
    assert!(values.gradients.is_empty(), "gradients of nobody");
    (found.sum, values.found)
}

struct Values {
    gradients: GradientsParams,
    path: Vec<String>,
    found: BTreeMap<String, Option<Vec<f32>>>,
}

impl ModuleVisitor for Values {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let found = self.gradients.remove::<D>(param.id);
        let found = found.map(|x| x.into_data().try_to_vec().unwrap());
        self.found.insert(self.path.join("."), found);
    }
}

/// What trains: everything, what the first stage trains, the second stage's, and a little.
fn trainings(network: &Network) -> Vec<(&'static str, Network)> {
    let frozen_encoders = |network: Network| Network {
        encoders: network.encoders.into_iter().map(Module::no_grad).collect(),
        ..network
    };
    let align = Network {
        decoder: network.decoder.clone().no_grad(),
        ..frozen_encoders(network.clone())
    };
    let instruct = frozen_encoders(network.clone());
    let mut upper = Network {
        connector: network.connector.clone().map(Module::no_grad),
        decoder: network.decoder.clone().no_grad(),
        ..frozen_encoders(network.clone())
    };
    let last = upper.decoder.layers.len() - 1;
    upper.decoder.layers[last] = network.decoder.layers[last].clone();
    vec![
        ("everything", network.clone()),
        ("align", align),
        ("instruct", instruct),
        ("the last layer", upper),
    ]
}

#[test]
fn checkpoints_change_no_gradient() {
    let model = model();
    let samples = samples(&model);
    let all: Vec<&Sample> = samples.iter().collect();
    let wordy = [&samples[2]];
    let network = model.network.clone().train();
    for (what, network) in trainings(&network) {
        for batch in [&all[..], &wordy[..]] {
            let (plain, expected) = gradients(&model, &network, batch, false);
            let (again, found) = gradients(&model, &network, batch, true);
            assert!(close(plain, again), "{what}: {plain} {again}");
            let mut trained = 0;
            for (path, expected) in expected {
                match (&expected, &found[&path]) {
                    (Some(expected), Some(found)) => {
                        trained += 1;
                        // Biases of keys have none but that of rounding.
                        let norm = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
                        let size = norm(expected);
                        let off: Vec<f32> =
                            expected.iter().zip(found).map(|(a, b)| a - b).collect();
                        assert!(
                            norm(&off) <= 1e-5 * size + 1e-6,
                            "{what}, {path}: {} of {size}",
                            norm(&off)
                        );
                    }
                    (None, None) => {}
                    // A sum of nothing is nothing.
                    (Some(rest), None) | (None, Some(rest)) => {
                        assert!(rest.iter().all(|x| *x == 0.0), "{what}, {path}");
                    }
                }
            }
            assert!(
                trained > 0 || (what == "align" && batch.len() == 1),
                "{what}"
            );
        }
    }
}

/// Dropout is the same when a layer runs again: along its gradient the loss rises by the gradient's
/// length.
#[test]
fn checkpoints_remember_what_was_dropped() {
    let model = model();
    let samples = samples(&model);
    let batch = [&samples[0], &samples[2]];
    let shape = LoraShape {
        rank: 2,
        alpha: 4.0,
        dropout: 0.5,
    };
    let mut network = model.network.clone().no_grad().train();
    for (i, layer) in network.decoder.layers.iter_mut().enumerate() {
        let mut linear = layer.mlp.up_proj.clone().with_lora(shape, i as u64);
        let lora = linear.lora.as_mut().unwrap();
        let (d_out, device) = (linear.weight.dims()[0], Device::flex().autodiff());
        let values = (0..2 * d_out).map(|i| ((i * 37 % 19) as f32 - 9.0) * 0.05);
        let values = TensorData::new(values.collect::<Vec<f32>>(), [d_out, 2]);
        lora.b = Param::from_tensor(Tensor::from_data(values, &device));
        layer.mlp.up_proj = linear;
    }
    let run =
        |network: &Network| dropout::with_seed(3, || gradients(&model, network, &batch, true));
    let (loss, found) = run(&network);
    let path = "decoder.layers.0.mlp.up_proj.lora.b";
    let gradient = found[path].clone().unwrap();
    let length = gradient.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!(length > 1e-3, "{length}");
    let moved = |step: f32| {
        let mut network = network.clone();
        let lora = network.decoder.layers[0].mlp.up_proj.lora.as_mut().unwrap();
        let shape = lora.b.dims();
        let change = gradient
            .iter()
            .map(|x| x / length * step)
            .collect::<Vec<_>>();
        let change = Tensor::<2>::from_data(TensorData::new(change, shape), &Device::flex());
        lora.b = Param::from_tensor((lora.b.val().inner() + change).autodiff());
        run(&network).0
    };
    let step = 0.02;
    let slope = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
    // Gradients are of half the loss.
    let expected = 2.0 * f64::from(length);
    assert!(
        (slope / expected - 1.0).abs() < 0.02,
        "{slope} for {expected}"
    );
    assert_eq!(run(&network).0, loss);
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = model();
    let sample = Sample::new(&model, &["square"], "What is it?", 2);
    let pictures = sample.pixels(&model.network);
    let device = Device::flex();
    let refuse = |row: TrainingRow<'_>| {
        let options = LossOptions::default();
        training_loss(&model.network, &model.config, &device, &[row], &options).unwrap_err()
    };
    let nothing = vec![false; sample.tokens.len()];
    let untrained = TrainingRow {
        trained: &nothing,
        ..sample.row(&pictures)
    };
    assert!(matches!(
        refuse(untrained),
        ModelError::NothingTrained { rows: 1 }
    ));
    assert!(matches!(
        refuse(sample.row(&[])),
        ModelError::Placeholders {
            placeholders: 1,
            pictures: 0
        }
    ));
    let PictureInput::Pixels(pixels, size) = &pictures[0] else {
        panic!("made as pixels");
    };
    let few = [PictureInput::Pixels(pixels[..2].to_vec(), *size)];
    assert!(matches!(
        refuse(sample.row(&few)),
        ModelError::PictureInputs {
            found: 2,
            expected: 4
        }
    ));
}
