//! A model that is written is the model that was read, in files laid out like the reference's; and a
//! model that is put together from parts is a whole one.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::values;
use opabinia_connector::{InLlmConfig, LayerType};
use opabinia_image::{ImageLimits, ImageSource, load};
use opabinia_llm::{Conversation, PromptToken};
use opabinia_model::config::ConnectorKeys;
use opabinia_model::describe::describe;
use opabinia_model::{
    EncoderPart, EncoderPlacement, Generation, LoadModel, Model, ModelError, ModelParts,
    SaveOptions, Session,
};
use opabinia_nn::Grid;
use opabinia_weights::{Checkpoint, WeightDtype};
use serde_json::Value;

const MODELS: [&str; 5] = [
    "cambrian_llama_sva",
    "cambrian_llama_g2",
    "cambrian_llama_mlp2x_gelu",
    "cambrian_mistral",
    "cambrian_phi3",
];

fn golden(case: &str) -> PathBuf {
    let root = match std::env::var_os("OPABINIA_GOLDEN") {
        Some(root) => root.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
    };
    root.join(case)
}

fn open(folder: &Path) -> Model {
    Model::load(folder, &LoadModel::default()).unwrap().0
}

/// Keys and shapes of a checkpoint.
fn layout(path: &Path) -> BTreeMap<String, Vec<usize>> {
    let checkpoint = Checkpoint::open(path).unwrap();
    let shape = |key: &str| checkpoint.info(key).unwrap().shape;
    let keys = checkpoint.keys();
    keys.map(|key| (key.to_owned(), shape(key))).collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn small_shards(encoders: EncoderPlacement) -> SaveOptions {
    SaveOptions {
        max_shard_bytes: 200_000,
        encoders,
        ..SaveOptions::default()
    }
}

#[test]
fn what_is_written_reads_back_bit_for_bit() {
    for case in MODELS {
        let model = open(&golden(case));
        let folder = tempfile::tempdir().unwrap();
        let options = small_shards(EncoderPlacement::Towers);
        let report = model.save(folder.path(), &options).unwrap();
        assert!(report.files.len() > 1, "{case}: {report:?}");
        let (again, loaded) = Model::load(folder.path(), &LoadModel::default()).unwrap();
        for report in loaded.reports() {
            assert!(report.unused.is_empty(), "{case}: {:?}", report.unused);
        }
        assert_eq!(values(&model.network), values(&again.network), "{case}");
        assert_eq!(model.config, again.config, "{case}");
        assert_eq!(model.template.name, again.template.name, "{case}");
    }
}

#[test]
fn the_layout_is_the_references() {
    for case in MODELS {
        let folder = tempfile::tempdir().unwrap();
        let model = open(&golden(case));
        model.save(folder.path(), &SaveOptions::default()).unwrap();
        let theirs = golden(case);
        assert_eq!(layout(&theirs), layout(folder.path()), "{case}");

        let (before, after) = (
            json(&theirs.join("config.json")),
            json(&folder.path().join("config.json")),
        );
        for (key, value) in before.as_object().unwrap() {
            // A tiny model may have been written without its type.
            if key != "torch_dtype" || !value.is_null() {
                assert_eq!(after.get(key), Some(value), "{case}: {key}");
            }
        }
        let added: Vec<&String> = after
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| before.get(key.as_str()).is_none())
            .collect();
        assert!(
            added.iter().all(|key| *key == "use_mm_proj"),
            "{case}: {added:?}"
        );
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            let read = |folder: &Path| fs::read(folder.join(file)).unwrap();
            assert_eq!(read(&theirs), read(folder.path()), "{case}: {file}");
        }
        let described = |folder: &Path| {
            let found = describe(folder).unwrap();
            let parts = found.parts.into_iter();
            let parts = parts.map(|part| (part.name, part.what, part.parameters, part.details));
            (
                found.model_type,
                parts.collect::<Vec<_>>(),
                found.max_length,
                found.template,
            )
        };
        assert_eq!(described(&theirs), described(folder.path()), "{case}");
    }
}

#[test]
fn other_types_are_written_and_named() {
    let model = open(&golden("cambrian_llama_sva"));
    let folder = tempfile::tempdir().unwrap();
    let options = SaveOptions {
        dtype: WeightDtype::Bf16,
        ..SaveOptions::default()
    };
    model.save(folder.path(), &options).unwrap();
    let config = json(&folder.path().join("config.json"));
    assert_eq!(config["torch_dtype"], "bfloat16");
    let again = open(folder.path());
    let weight = again.network.decoder.layers[0].mlp.gate_proj.weight.val();
    assert_eq!(weight.dtype(), burn::tensor::DType::BF16);
}

/// Only what some file describes can be read back.
#[test]
fn encoders_of_another_size_cannot_hide_inside() {
    let model = open(&golden("cambrian_llama_sva"));
    let folder = tempfile::tempdir().unwrap();
    let error = model
        .save(folder.path(), &small_shards(EncoderPlacement::Inside))
        .unwrap_err();
    assert!(
        matches!(error, ModelError::UnpublishedInside { index: 0, .. }),
        "{error}"
    );
    assert!(!folder.path().join("model.safetensors").exists());
}

/// The golden model's decoder and two of its encoders, with a connector of their own.
fn parts(seed: u64) -> ModelParts {
    let case = golden("cambrian_llama_sva");
    let encoder = |name: &str, side, tower: &str| EncoderPart {
        name: name.into(),
        grid: Grid::square(side),
        weights: Some(case.join("towers").join(tower)),
    };
    ModelParts {
        encoders: vec![
            encoder("openai/clip-vit-large-patch14-336", 4, "clip"),
            encoder("clip-convnext-XXL-multi-stage-res96", 8, "convnext"),
        ],
        connector: ConnectorKeys::Sva {
            width: 48,
            query_grids: vec![Grid::square(4)],
            token_grid: Grid::square(4),
            depth: 2,
            layer_type: LayerType::Joint,
            in_llm: Some(InLlmConfig {
                count: 2,
                start: 1,
                stride: 2,
            }),
        },
        select_layer: -2,
        image_position: None,
        template: Some("llama_3".into()),
        max_length: Some(512),
        seed,
        decoder: case,
    }
}

fn assembled(seed: u64) -> Model {
    Model::assemble(&parts(seed), &LoadModel::default())
        .unwrap()
        .0
}

#[test]
fn parts_make_a_model_that_can_be_asked_and_written() {
    let model = assembled(7);
    let vision = model.config.vision.as_ref().unwrap();
    let conversation = Conversation::question("What is it?").with_images(1);
    let prompt = model.prompt(&conversation).unwrap();
    let place = prompt.tokens.iter().position(|t| *t == PromptToken::Image);
    assert_eq!(vision.image_position, place);
    assert_eq!(model.config.model_type, "cambrian_llama");

    let folder = tempfile::tempdir().unwrap();
    model.save(folder.path(), &SaveOptions::default()).unwrap();
    let again = open(folder.path());
    assert_eq!(values(&model.network), values(&again.network));
    assert_eq!(model.config.vision, again.config.vision);
    assert_eq!(again.template.name, "llama_3");
    assert_eq!(again.config.max_length, 512);

    let picture = golden("cambrian_llama_sva").join("images/wide.png");
    let picture = load(&ImageSource::File(picture), &ImageLimits::default()).unwrap();
    let answer = |model: &Model| {
        let mut session = Session::new(model);
        let seen = session.see(&picture).unwrap().0;
        let mut generation = Generation::default();
        generation.sampling.max_new_tokens = 8;
        let answer = session.answer(&conversation, &[seen], &generation, &mut |_, _| true);
        answer.unwrap().ids
    };
    assert_eq!(answer(&model), answer(&again));
}

#[test]
fn a_seed_decides_the_connector_and_nothing_else() {
    let (a, b, other) = (assembled(7), assembled(7), assembled(8));
    assert_eq!(values(&a.network), values(&b.network));
    assert_eq!(values(&a.network.decoder), values(&other.network.decoder));
    assert_ne!(
        values(&a.network.connector),
        values(&other.network.connector)
    );
}

#[test]
fn an_adapter_carries_the_connector() {
    let (trained, mut fresh) = (assembled(7), assembled(8));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mm_projector.safetensors");
    trained.save_adapter(&path, WeightDtype::AsStored).unwrap();
    let keys = layout(&path);
    assert!(keys.contains_key("model.mm_projector_aux_1.0.weight"));
    assert!(keys.contains_key("model.image_newline"));
    assert!(
        keys.keys()
            .all(|key| !key.contains(".mlp.") && key != "lm_head.weight")
    );
    let report = fresh.load_adapter(&path).unwrap();
    assert!(report.unused.is_empty(), "{:?}", report.unused);
    assert_eq!(values(&trained.network), values(&fresh.network));
    // Of another model: refused with what is missing.
    let mut golden_model = open(&golden("cambrian_llama_sva"));
    assert!(golden_model.load_adapter(&path).is_err());
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let refuse = |change: &dyn Fn(&mut ModelParts)| {
        let mut parts = parts(1);
        change(&mut parts);
        Model::assemble(&parts, &LoadModel::default())
            .unwrap_err()
            .to_string()
    };
    assert!(refuse(&|parts| parts.encoders.clear()).contains("at least one vision encoder"));
    let uneven = refuse(&|parts| parts.encoders[1].grid = Grid::square(6));
    assert!(uneven.contains("not a multiple"), "{uneven}");
    let late = refuse(&|parts| {
        if let ConnectorKeys::Sva {
            in_llm: Some(layers),
            ..
        } = &mut parts.connector
        {
            layers.count = 9;
        }
    });
    assert!(late.contains("num_of_vision_sampler_layers"), "{late}");
}
