//! Tiny encoders, from a dozen pictures to an ordinary checkpoint.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::AdamWConfig;
use burn::prelude::*;
use opabinia_data::stream::stream;
use opabinia_image::RgbImage;
use opabinia_llm::Tokenizer;
use opabinia_train::pretrain::{
    ContrastiveOptions, ContrastiveTask, DenseTask, EncoderChoice, EncoderTask, LabelFiles,
    MaeOptions, MaeTask, Pictures, TokenizerOptions, TransformerSizes, train_tokenizer,
};
use opabinia_train::{Task, TrainError};
use opabinia_vision::{Encoder, EncoderConfig, EncoderSpec, load_encoder};
use opabinia_weights::{LoadOptions, WeightDtype};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

const COLOURS: [(&str, [u8; 3]); 4] = [
    ("red", [220, 30, 30]),
    ("green", [30, 200, 40]),
    ("blue", [40, 60, 220]),
    ("yellow", [230, 220, 40]),
];

const SIZES: TransformerSizes = TransformerSizes {
    width: 32,
    layers: 1,
    heads: 4,
};

/// A square of each colour in each third of a gray picture, and what it is.
fn world() -> (Vec<RgbImage>, Vec<Vec<String>>) {
    let mut pictures = Vec::new();
    let mut captions = Vec::new();
    for (name, colour) in COLOURS {
        for (place, left) in [("left", 2), ("middle", 24), ("right", 46)] {
            let mut picture = RgbImage::filled(64, 64, [120; 3]).unwrap();
            for y in 24..40 {
                for x in left..left + 16 {
                    picture.data_mut()[(y * 64 + x) * 3..][..3].copy_from_slice(&colour);
                }
            }
            pictures.push(picture);
            captions.push(vec![
                format!("a {name} square on the {place}"),
                format!("{place}: {name}"),
            ]);
        }
    }
    (pictures, captions)
}

fn tokenizer(folder: &Path) -> Tokenizer {
    let options = TokenizerOptions {
        vocabulary: 290,
        template: "llama_3".to_owned(),
        max_length: 32,
    };
    train_tokenizer(world().1.concat().into_iter(), &options, folder).unwrap()
}

fn choice(name: &str, config: &Value) -> EncoderChoice {
    EncoderChoice {
        spec: EncoderSpec::parse(name).unwrap(),
        config: EncoderConfig::from_json(config, Path::new("config.json")).unwrap(),
        weights: None,
    }
}

fn siglip() -> EncoderChoice {
    choice(
        "opabinia/small-siglip-128",
        &json!({
            "model_type": "siglip_vision_model", "hidden_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 4, "intermediate_size": 64, "patch_size": 8, "image_size": 32,
        }),
    )
}

fn dinov2() -> EncoderChoice {
    choice(
        "opabinia/small-dinov2-mae-128",
        &json!({
            "model_type": "dinov2", "hidden_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 4, "mlp_ratio": 2, "patch_size": 8, "image_size": 32,
        }),
    )
}

fn convnext() -> EncoderChoice {
    choice(
        "opabinia/small-convnext-256-res64",
        &json!({"model_cfg": {"vision_cfg": {}}, "timm_arch": {
            "depths": [1, 1, 1, 1], "dims": [8, 12, 16, 32]}}),
    )
}

const CONTRASTIVE: ContrastiveOptions = ContrastiveOptions {
    text: SIZES,
    context: 16,
    joint: 24,
    temperature: 10.0,
    bias: -10.0,
};

const MAE: MaeOptions = MaeOptions {
    mask: 0.75,
    normalise: true,
    decoder: SIZES,
};

fn contrastive(choice: &EncoderChoice, folder: &Path) -> ContrastiveTask {
    let (pictures, captions) = world();
    let pictures: Arc<dyn Pictures> = Arc::new(pictures);
    let tokenizer = tokenizer(folder);
    ContrastiveTask::new(choice.clone(), CONTRASTIVE, &tokenizer, pictures, &captions).unwrap()
}

/// Mean losses and last metric of `steps` steps on all pictures at once.
fn train<T: Task>(
    task: &T,
    mut module: T::Module,
    steps: usize,
    rate: f64,
) -> (Vec<f64>, f64, T::Module) {
    let device = Device::flex().autodiff();
    let mut optimizer = AdamWConfig::new().with_weight_decay(0.0).init();
    let (mut losses, mut share) = (Vec::new(), 0.0);
    for step in 0..steps {
        let samples = &task.plan(3, step, task.samples())[0];
        let mut random = stream(3, "load", step as u64);
        let batch = task.load(samples, &mut random).unwrap().unwrap();
        let terms = task.terms(&batch) as f64;
        let (loss, gradients, metrics) = task
            .gradients(&module, &batch, 1.0 / terms, &device)
            .unwrap();
        losses.push(loss / terms);
        share = metrics.first().map_or(0.0, |m| m.sum / m.count);
        module = optimizer.step(rate, module, gradients);
    }
    (losses, share, module)
}

#[derive(Default)]
struct Values(Vec<f32>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = param.val().into_data().try_to_vec::<f32>().unwrap();
        self.0.extend(values);
    }
}

fn values<M: Module>(module: &M) -> Vec<f32> {
    let mut values = Values::default();
    module.visit(&mut values);
    values.0
}

fn reads_back(choice: &EncoderChoice, encoder: &Encoder, folder: &Path) {
    let options = LoadOptions::new(WeightDtype::AsStored);
    let (read, report) = load_encoder(&choice.spec, folder, &options).unwrap();
    assert!(report.unused.is_empty(), "{:?}", report.unused);
    assert!(values(&read) == values(&encoder.valid()));
    assert_eq!(read.config(), &choice.config);
}

fn goes_on_from_its_weights(choice: &EncoderChoice, encoder: &Encoder, folder: &Path) {
    let choice = EncoderChoice {
        weights: Some(folder.to_owned()),
        ..choice.clone()
    };
    let words = tempfile::tempdir().unwrap();
    let device = Device::flex().autodiff();
    let module = contrastive(&choice, words.path())
        .module(9, &device)
        .unwrap();
    assert!(values(&module.encoder) == values(encoder));
}

fn learns_from_captions(choice: &EncoderChoice) {
    let folder = tempfile::tempdir().unwrap();
    let task = contrastive(choice, folder.path());
    let module = task.module(1, &Device::flex().autodiff()).unwrap();
    let (losses, retrieval, module) = train(&task, module, 90, 2e-3);
    // b = −10, so at the start a picture pays for its own caption and nothing else.
    assert!((losses[0] - 10.0).abs() < 5.0, "{losses:?}");
    let last = losses[losses.len() - 1];
    assert!(last < 0.3 * losses[0], "{losses:?}");
    assert!(retrieval >= 0.5, "{retrieval}");
    let folder = folder.path().join("encoder");
    task.finish(&module, &folder, WeightDtype::F32).unwrap();
    reads_back(choice, &module.encoder, &folder);
    goes_on_from_its_weights(choice, &module.encoder, &folder);
}

#[test]
fn a_transformer_learns_from_captions() {
    learns_from_captions(&siglip());
}

#[test]
fn a_convolutional_network_learns_from_captions() {
    learns_from_captions(&convnext());
}

#[test]
fn masked_patches_are_learnt() {
    let choice = dinov2();
    let pictures: Arc<dyn Pictures> = Arc::new(world().0);
    let task = MaeTask::new(choice.clone(), MAE, pictures).unwrap();
    let module = task.module(1, &Device::flex().autodiff()).unwrap();
    let batch = task
        .load(&[0, 5], &mut stream(0, "load", 0))
        .unwrap()
        .unwrap();
    // 12 of 16 patches of two pictures.
    assert_eq!((task.terms(&batch), task.size(&batch).pictures), (24, 2));
    let (losses, _, module) = train(&task, module, 40, 3e-3);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..3]), mean(&losses[37..]));
    assert!(last < 0.6 * first, "{first} → {last}");
    let folder = tempfile::tempdir().unwrap();
    task.finish(&module, folder.path(), WeightDtype::F32)
        .unwrap();
    reads_back(&choice, &module.encoder, folder.path());
}

/// Label maps of [`world`] on 4 × 4 cells: where the square is, and its colour there.
fn label_maps(folder: &Path) -> Vec<String> {
    let description = json!({"rows": 4, "cols": 4, "ignore": 255, "planes": [
        {"name": "kind", "classes": ["nothing", "square"], "background": 0},
        {"name": "colour", "classes": COLOURS.map(|(name, _)| name)},
    ]});
    std::fs::write(folder.join("labels.json"), description.to_string()).unwrap();
    let mut names = Vec::new();
    for colour in 0..COLOURS.len() {
        // Squares 16 pixels wide that begin at 2, 24 and 46, on cells of 16 pixels.
        for columns in [0..1, 1..3, 3..4] {
            let mut values = [vec![0; 16], vec![255; 16]].concat();
            for cell in [1, 2]
                .into_iter()
                .flat_map(|row| columns.clone().map(move |c| row * 4 + c))
            {
                values[cell] = 1;
                values[16 + cell] = colour as u8;
            }
            let grey = values.iter().flat_map(|value| [*value; 3]).collect();
            let name = format!("{}.png", names.len());
            let map = RgbImage::from_raw(4, 8, grey).unwrap();
            map.save_png(folder.join(&name)).unwrap();
            names.push(name);
        }
    }
    names
}

fn learns_what_is_where(choice: &EncoderChoice) {
    let folder = tempfile::tempdir().unwrap();
    let names = label_maps(folder.path());
    let labels = LabelFiles::open(folder.path(), &names).unwrap();
    let task = DenseTask::new(choice.clone(), Arc::new(world().0), labels).unwrap();
    let module = task.module(1, &Device::flex().autodiff()).unwrap();
    let batch = task
        .load(&[0, 5], &mut stream(0, "load", 0))
        .unwrap()
        .unwrap();
    assert_eq!((task.terms(&batch), task.size(&batch).pictures), (2, 2));
    let (losses, found, module) = train(&task, module, 60, 3e-3);
    // One question of two and one of four classes: who knows nothing does no better.
    assert!(losses[0] > 2f64.ln() + 4f64.ln() - 0.5, "{losses:?}");
    let last = losses[losses.len() - 1];
    assert!(last < 0.3 * losses[0], "{losses:?}");
    assert!(found > 0.9, "{found}");
    let folder = folder.path().join("encoder");
    task.finish(&module, &folder, WeightDtype::F32).unwrap();
    reads_back(choice, &module.encoder, &folder);
}

#[test]
fn a_transformer_learns_what_is_where() {
    learns_what_is_where(&siglip());
}

#[test]
fn a_convolutional_network_learns_what_is_where() {
    learns_what_is_where(&convnext());
}

#[test]
fn every_picture_needs_a_label_map() {
    let folder = tempfile::tempdir().unwrap();
    let names = label_maps(folder.path());
    let labels = LabelFiles::open(folder.path(), &names[1..]).unwrap();
    let error = DenseTask::new(convnext(), Arc::new(world().0), labels)
        .err()
        .unwrap();
    assert!(error.to_string().contains("label maps for 11"), "{error}");
    let error = LabelFiles::open(&folder.path().join("none"), &names).unwrap_err();
    assert!(error.to_string().contains("labels.json"), "{error}");
}

/// Of pictures of which the planes that are learned say nothing there is no batch.
#[test]
fn planes_that_say_nothing_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let names = label_maps(folder.path());
    let nothing = RgbImage::from_raw(4, 8, [[0; 3].repeat(16), [255; 3].repeat(16)].concat());
    nothing
        .unwrap()
        .save_png(folder.path().join(&names[0]))
        .unwrap();
    let task = |planes: &[String]| {
        let labels = LabelFiles::open(folder.path(), &names).unwrap();
        let labels = labels.with_planes(planes).unwrap();
        DenseTask::new(convnext(), Arc::new(world().0), labels).unwrap()
    };
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut has = |planes: &[String], pictures: &[u32]| {
        task(planes).load(pictures, &mut random).unwrap().is_some()
    };
    let colour = ["colour".to_owned()];
    assert!(!has(&colour, &[0]));
    assert!(has(&colour, &[0, 1]));
    assert!(has(&[], &[0]));
}

#[test]
fn what_does_not_fit_is_refused() {
    let pictures = || -> Arc<dyn Pictures> { Arc::new(world().0) };
    let message = |result: Result<MaeTask, TrainError>| result.err().unwrap().to_string();
    assert!(message(MaeTask::new(siglip(), MAE, pictures())).contains("DINOv2"));
    let all = MaeOptions { mask: 1.0, ..MAE };
    assert!(message(MaeTask::new(dinov2(), all, pictures())).contains("leaves 0"));

    let folder = tempfile::tempdir().unwrap();
    let mut captions = world().1;
    captions[3].clear();
    let tokenizer = tokenizer(folder.path());
    let task = ContrastiveTask::new(siglip(), CONTRASTIVE, &tokenizer, pictures(), &captions);
    let error = task.err().unwrap().to_string();
    assert!(error.contains("picture 3 has no caption"), "{error}");
    captions.pop();
    let task = ContrastiveTask::new(siglip(), CONTRASTIVE, &tokenizer, pictures(), &captions);
    assert!(task.err().unwrap().to_string().contains("captions for 11"));
}
