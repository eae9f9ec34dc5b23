//! A language model that goes through a GGUF file is the same model, bit for bit.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;
#[path = "../../weights/tests/gguf_file/mod.rs"]
mod gguf_file;

use std::fs;
use std::path::{Path, PathBuf};

use common::values;
use gguf_file::{GgufFile, Value};
use opabinia_llm::Conversation;
use opabinia_model::describe::describe;
use opabinia_model::{Generation, LoadModel, Model, ModelError, SaveOptions, Session};
use opabinia_weights::{Checkpoint, FloatDtype, WeightDtype};

/// File keys of a layer, and what a GGUF file calls them.
const LAYER: [(&str, &str); 9] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

fn golden() -> PathBuf {
    let root = match std::env::var_os("OPABINIA_GOLDEN") {
        Some(root) => root.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
    };
    root.join("cambrian_llama_sva")
}

fn open(folder: &Path) -> Model {
    Model::load(folder, &LoadModel::default()).unwrap().0
}

/// Rows of a head as `llama.cpp` has them: those that are rotated together side by side.
fn interleaved(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let (width, half) = (values.len() / rows, rows / heads / 2);
    let order = (0..heads).flat_map(|head| {
        (0..half).flat_map(move |i| [0, 1].map(|j| head * 2 * half + j * half + i))
    });
    order
        .flat_map(|row| &values[row * width..(row + 1) * width])
        .copied()
        .collect()
}

/// The golden model's decoder as a GGUF file.
fn file(model: &Model) -> GgufFile {
    let checkpoint = Checkpoint::open(golden()).unwrap();
    let decoder = &model.config.decoder;
    let number = |n: usize| Value::U32(u32::try_from(n).unwrap());
    let mut file = GgufFile::llama()
        .with("tokenizer.ggml.tokens", Value::Texts(vec!["<s>".into()]))
        .with("llama.block_count", number(decoder.layers))
        .with("llama.context_length", number(decoder.max_position))
        .with("llama.embedding_length", number(decoder.hidden))
        .with("llama.feed_forward_length", number(decoder.intermediate))
        .with("llama.attention.head_count", number(decoder.heads))
        .with("llama.attention.head_count_kv", number(decoder.kv_heads))
        .with(
            "llama.attention.layer_norm_rms_epsilon",
            Value::F32(decoder.norm_eps as f32),
        )
        .with("llama.rope.dimension_count", number(decoder.head_dim))
        .with(
            "llama.rope.freq_base",
            Value::F32(decoder.rope_theta as f32),
        );
    for id in &model.config.end_ids {
        file = file.with("tokenizer.ggml.eos_token_id", Value::U32(*id));
    }
    let mut names: Vec<(String, String)> = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
    ]
    .map(|(key, name)| (key.to_owned(), name.to_owned()))
    .into();
    for layer in 0..decoder.layers {
        names.extend(LAYER.map(|(key, name)| {
            (
                format!("model.layers.{layer}.{key}"),
                format!("blk.{layer}.{name}"),
            )
        }));
    }
    for (key, name) in names {
        let key = format!("{key}.weight");
        let shape = checkpoint.info(&key).unwrap().shape;
        let data = checkpoint.tensor(&key, Some(FloatDtype::F32)).unwrap();
        let values: Vec<f32> = data.try_to_vec().unwrap();
        let values = match name.rsplit('.').next().unwrap() {
            "attn_q" => interleaved(&values, shape[0], decoder.heads),
            "attn_k" => interleaved(&values, shape[0], decoder.kv_heads),
            _ => values,
        };
        file = file.tensor(&format!("{name}.weight"), &shape, values);
    }
    file
}

/// A folder with the file and the golden model's tokenizer.
fn folder(file: &GgufFile) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model-f32.gguf"), file.bytes()).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(golden().join(name), folder.path().join(name)).unwrap();
    }
    folder
}

#[test]
fn a_decoder_comes_back_bit_for_bit() {
    let model = open(&golden());
    let folder = folder(&file(&model));
    let (again, loaded) = Model::load(folder.path(), &LoadModel::default()).unwrap();
    assert_eq!(loaded.main.unused, [""; 0]);
    assert_eq!(again.config.decoder, model.config.decoder);
    assert_eq!(again.config.end_ids, model.config.end_ids);
    assert!(again.config.vision.is_none());
    assert_eq!(
        values(&again.network.decoder),
        values(&model.network.decoder)
    );

    let description = describe(folder.path()).unwrap();
    let decoder = description.parts.last().unwrap();
    assert_eq!(decoder.bytes, Some(4 * decoder.parameters));

    // Written again it is an ordinary model folder.
    let written = tempfile::tempdir().unwrap();
    again.save(written.path(), &SaveOptions::default()).unwrap();
    assert!(written.path().join("config.json").is_file());
    let third = open(written.path());
    assert_eq!(third.config, again.config);
    assert_eq!(
        values(&third.network.decoder),
        values(&again.network.decoder)
    );
}

#[test]
fn it_answers_in_every_format() {
    let model = open(&golden());
    let folder = folder(&file(&model));
    for dtype in [WeightDtype::AsStored, WeightDtype::Int8] {
        let options = LoadModel {
            dtype,
            ..LoadModel::default()
        };
        let (model, _) = Model::load(folder.path(), &options).unwrap();
        let mut generation = Generation::default();
        generation.sampling.max_new_tokens = 3;
        let mut session = Session::new(&model);
        let question = Conversation::question("What is it?");
        let answer = session.answer(&question, &[], &generation, &mut |_, _| true);
        assert!(answer.is_ok(), "{dtype}: {answer:?}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let model = open(&golden());
    let file = file(&model);
    let error = |file: &GgufFile| {
        let folder = folder(file);
        let error = Model::load(folder.path(), &LoadModel::default());
        error.unwrap_err().to_string()
    };
    let mut short = file.clone();
    short.metadata.retain(|(key, _)| key != "llama.block_count");
    assert!(error(&short).contains("`llama.block_count` in the GGUF file is missing"));
    let wrong = file
        .clone()
        .with("llama.block_count", Value::Text("two".into()));
    assert!(error(&wrong).contains("is `two`, but it must be a number"));
    let stretched = file
        .clone()
        .tensor("rope_freqs.weight", &[2], vec![1.0, 8.0]);
    assert!(error(&stretched).contains("put it beside the file"));

    let bare = folder(&file);
    fs::remove_file(bare.path().join("tokenizer.json")).unwrap();
    let error = Model::load(bare.path(), &LoadModel::default()).unwrap_err();
    assert!(matches!(error, ModelError::GgufTokenizer { .. }), "{error}");
    assert!(error.to_string().contains("`tokenizer.json`"), "{error}");
}

/// A configuration beside the file has the say, and the table of frequencies is none of our weights.
#[test]
fn a_configuration_beside_the_file_decides() {
    let model = open(&golden());
    let plain = folder(&file(&model));
    let written = tempfile::tempdir().unwrap();
    open(plain.path())
        .save(written.path(), &SaveOptions::default())
        .unwrap();
    let text = fs::read_to_string(written.path().join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["rope_scaling"] = serde_json::json!({"rope_type": "llama3", "factor": 8.0});

    let stretched = file(&model).tensor("rope_freqs.weight", &[2], vec![1.0, 8.0]);
    let folder = folder(&stretched);
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let (model, loaded) = Model::load(folder.path(), &LoadModel::default()).unwrap();
    assert!(model.config.decoder.rope_scaling.is_some());
    assert_eq!(loaded.main.ignored, ["rope_freqs.weight"]);
    assert_eq!(loaded.main.unused, [""; 0]);
}
