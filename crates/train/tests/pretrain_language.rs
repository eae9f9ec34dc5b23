//! A tokenizer and a tiny decoder, from texts to an ordinary checkpoint folder.
#![allow(missing_docs, clippy::unwrap_used)]

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::AdamWConfig;
use burn::prelude::*;
use opabinia_data::stream::stream;
use opabinia_llm::{ChatTemplate, Tokenizer};
use opabinia_model::{LoadModel, Model};
use opabinia_train::Task;
use opabinia_train::pretrain::{
    DecoderSizes, FirstWeights, LanguageTask, TokenizerOptions, train_tokenizer,
};
use opabinia_weights::WeightDtype;

const TEMPLATE: &str = "chatml_direct";

fn texts() -> Vec<String> {
    let colours = ["red", "green", "blue"];
    (0..60)
        .map(|i| format!("The {} ball is number {}.", colours[i % 3], i % 10))
        .collect()
}

fn tokenizer(folder: &std::path::Path) -> Tokenizer {
    let options = TokenizerOptions {
        vocabulary: 300,
        template: TEMPLATE.to_owned(),
        max_length: 64,
    };
    train_tokenizer(texts().into_iter(), &options, folder).unwrap()
}

fn task(tokenizer: Tokenizer) -> LanguageTask {
    let sizes = DecoderSizes {
        hidden: 32,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        intermediate: 64,
        max_position: 64,
        rope_theta: 10_000.0,
        tied_head: true,
        attention: FirstWeights::default(),
    };
    LanguageTask::new(sizes, tokenizer, &texts(), 64, 7).unwrap()
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

#[test]
fn rows_are_full_and_the_loss_begins_near_a_guess() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(folder.path());
    let vocabulary = tokenizer.vocab_size() as f64;
    let task = task(tokenizer);
    let device = Device::flex().autodiff();
    let module = task.module(1, &device);
    let plan = task.plan(1, 0, 4);
    let batch = task
        .load(&plan[0], &mut stream(1, "load", 0))
        .unwrap()
        .unwrap();
    assert!(task.size(&batch).tokens <= 4 * 64);
    let sum: f32 = task
        .loss(&module, &batch, &device)
        .unwrap()
        .sum
        .into_scalar();
    let mean = f64::from(sum) / task.terms(&batch) as f64;
    // First logits have a variance of at most 1, which costs up to half a nat more than none at all.
    let above_guessing = mean - vocabulary.ln();
    assert!((0.0..0.6).contains(&above_guessing), "{mean}");
}

#[test]
fn training_lowers_the_loss_and_the_folder_is_a_llama() {
    let folder = tempfile::tempdir().unwrap();
    let task = task(tokenizer(folder.path()));
    let device = Device::flex().autodiff();
    let mut module = task.module(1, &device);
    let mut optimizer = AdamWConfig::new().init();
    let mut losses = Vec::new();
    for (step, samples) in (0..10).flat_map(|epoch| task.plan(1, epoch, 4)).enumerate() {
        let mut random = stream(1, "load", step as u64);
        let batch = task.load(&samples, &mut random).unwrap().unwrap();
        let terms = task.terms(&batch) as f64;
        let (loss, gradients, _) = task
            .gradients(&module, &batch, 1.0 / terms, &device)
            .unwrap();
        losses.push(loss / terms);
        module = optimizer.step(5e-3, module, gradients);
    }
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    assert!(last < 0.6 * first, "{first} → {last}");

    let template = ChatTemplate::by_name(TEMPLATE).unwrap();
    let written = folder.path().join("decoder");
    task.finish(&module, template, folder.path(), &written, WeightDtype::F32)
        .unwrap();
    let (model, from) = Model::load(&written, &LoadModel::default()).unwrap();
    assert!(from.main.unused.is_empty(), "{:?}", from.main.unused);
    assert_eq!(model.template.name, TEMPLATE);
    assert!(values(&model.network.decoder) == values(&module.valid()));
}

#[test]
fn rows_longer_than_the_decoder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = DecoderSizes {
        hidden: 32,
        layers: 1,
        heads: 5,
        kv_heads: 5,
        intermediate: 64,
        max_position: 32,
        rope_theta: 10_000.0,
        tied_head: false,
        attention: FirstWeights::Mimetic,
    };
    let tokenizer = tokenizer(folder.path());
    let error = LanguageTask::new(sizes.clone(), tokenizer.clone(), &texts(), 64, 0).unwrap_err();
    assert!(error.to_string().contains("64 tokens"), "{error}");
    let error = LanguageTask::new(sizes, tokenizer, &texts(), 32, 0).unwrap_err();
    assert!(error.to_string().contains("5 heads"), "{error}");
}
