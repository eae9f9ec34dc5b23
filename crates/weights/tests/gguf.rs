//! GGUF files: every element type against the package that writes them, and damaged files.
#![allow(missing_docs, clippy::unwrap_used)]

mod gguf_file;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use gguf_file::{GgufFile, Value};
use opabinia_weights::{Checkpoint, Dtype, FileKey, FloatDtype, WeightsError};
use proptest::prelude::*;

fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    folder.join(name)
}

fn values(checkpoint: &Checkpoint, key: &str) -> Vec<f32> {
    let data = checkpoint.tensor(key, Some(FloatDtype::F32)).unwrap();
    data.try_to_vec().unwrap()
}

fn open(bytes: &[u8]) -> Result<Checkpoint, WeightsError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    fs::write(&path, bytes).unwrap();
    // A mapping outlives its folder.
    Checkpoint::open(&path)
}

/// What is said about a file that cannot be used.
fn refusal(bytes: &[u8]) -> String {
    let error = open(bytes).unwrap_err();
    assert!(matches!(error, WeightsError::Gguf { .. }), "{error}");
    error.source().unwrap().to_string()
}

/// `make_gguf.py` wrote both files with the package of llama.cpp.
#[test]
fn every_element_type_is_what_its_writer_reads() {
    let ours = Checkpoint::open(fixture("kinds.gguf")).unwrap();
    let theirs = Checkpoint::open(fixture("kinds.safetensors")).unwrap();
    assert!(ours.is_gguf() && !theirs.is_gguf());
    let keys: Vec<&str> = theirs.keys().collect();
    assert_eq!(ours.keys().collect::<Vec<_>>(), keys);
    for key in keys {
        let (a, b) = (ours.info(key).unwrap(), theirs.info(key).unwrap());
        assert_eq!(a.shape, b.shape, "{key}");
        assert_eq!(values(&ours, key), values(&theirs, key), "{key}");
        let last = a.shape[0] - 1..a.shape[0];
        let row = |checkpoint: &Checkpoint| {
            let row = checkpoint.rows(key, Some(last.clone()), Some(FloatDtype::F32));
            row.unwrap().try_to_vec::<f32>().unwrap()
        };
        assert_eq!(row(&ours), row(&theirs), "{key}");
        for target in [FloatDtype::Bf16, FloatDtype::F16] {
            let short = |checkpoint: &Checkpoint| {
                let data = checkpoint.tensor(key, Some(target)).unwrap();
                data.as_bytes().to_vec()
            };
            assert_eq!(short(&ours), short(&theirs), "{key}");
        }
        let beyond = ours.rows(key, Some(0..a.shape[0] + 1), None);
        assert!(matches!(beyond, Err(WeightsError::Rows { .. })), "{key}");
    }
    assert_eq!(ours.metadata()["llama.rope.freq_base"], "500000");
    assert_eq!(ours.metadata()["tokenizer.ggml.tokens"], "an array of 3");
}

/// What is quantised counts, and comes, as f16.
#[test]
fn quantised_values_are_halves() {
    let checkpoint = Checkpoint::open(fixture("kinds.gguf")).unwrap();
    let key = "model.layers.0.mlp.up_proj.weight";
    let info = checkpoint.info(key).unwrap();
    assert_eq!((info.dtype, info.bytes), (Dtype::F16, 3 * 2 * 18));
    let data = checkpoint.tensor(key, None).unwrap();
    assert_eq!(data.as_bytes().len(), 3 * 64 * 2);
    let at = FileKey {
        key: key.to_owned(),
        rows: None,
    };
    assert_eq!(checkpoint.parameter_bytes(&at, &[3, 64]), Some(3 * 64 * 2));
}

#[test]
fn a_file_made_by_hand_is_read() {
    let file = GgufFile::llama()
        .with("llama.attention.head_count", Value::U32(1))
        .tensor("output_norm.weight", &[3], vec![1.0, 2.0, 3.0])
        // Rows that are rotated together lie side by side.
        .tensor("blk.0.attn_q.weight", &[4, 1], vec![0.0, 2.0, 1.0, 3.0]);
    let checkpoint = open(&file.bytes()).unwrap();
    assert_eq!(values(&checkpoint, "model.norm.weight"), [1.0, 2.0, 3.0]);
    let queries = values(&checkpoint, "model.layers.0.self_attn.q_proj.weight");
    assert_eq!(queries, [0.0, 1.0, 2.0, 3.0]);
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let file = GgufFile::llama().tensor("output_norm.weight", &[2], vec![1.0, 2.0]);
    let text = |text: &str| Value::Text(text.into());
    let with = |key: &str, value: Value| refusal(&file.clone().with(key, value).bytes());
    assert!(
        with("general.architecture", text("qwen2")).contains("`general.architecture` is qwen2")
    );
    assert!(with("split.count", Value::U32(2)).contains("merge"));
    assert!(with("llama.expert_count", Value::U32(8)).contains("experts"));
    assert!(with("general.alignment", Value::U32(24)).contains("a power of two"));
    assert!(refusal(&GgufFile::default().bytes()).contains("`general.architecture` is missing"));

    let twice = file.clone().tensor("output_norm.weight", &[1], vec![1.0]);
    assert!(refusal(&twice.bytes()).contains("is there twice"));
    let queries = file
        .clone()
        .tensor("blk.0.attn_q.weight", &[3, 1], vec![0.0; 3]);
    assert!(refusal(&queries.bytes()).contains("`llama.attention.head_count` is missing"));
    let queries = queries.with("llama.attention.head_count", Value::U32(1));
    assert!(refusal(&queries.bytes()).contains("has 3 rows for 1 heads"));
    let per_layer = Value::Texts(vec!["a".into()]);
    let queries = queries.with("llama.attention.head_count", per_layer);
    assert!(refusal(&queries.bytes()).contains("is an array of 1"));

    let mut bytes = file.bytes();
    let kind = kind_position(&bytes);
    bytes[kind..][..4].copy_from_slice(&10u32.to_le_bytes());
    let error = refusal(&bytes);
    assert!(
        error.contains("is of type 10, and those read are F32"),
        "{error}"
    );

    let mut bytes = file.bytes();
    bytes[4] = 1;
    assert!(refusal(&bytes).contains("version 1"));
    bytes[0] = b'g';
    assert!(refusal(&bytes).contains("begin with `GGUF`"));
    let bytes = file.bytes();
    assert!(refusal(&bytes[..bytes.len() - 1]).contains("outside the file"));
    assert!(refusal(&bytes[..40]).contains("longer than the file"));
}

/// Where the type of the only tensor stands: behind its name, its rank and its one extent.
fn kind_position(bytes: &[u8]) -> usize {
    let name = b"output_norm.weight";
    let at = bytes.windows(name.len()).position(|part| part == name);
    at.unwrap() + name.len() + 4 + 8
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever bytes are changed and wherever it ends: an error, or tensors that can be read.
    #[test]
    fn damaged_files_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = fs::read(fixture("kinds.gguf")).unwrap();
        for (at, value) in changes {
            // Most of the interesting bytes are in the header.
            let at = at.index(bytes.len() * 2) % 1200.min(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        if let Ok(checkpoint) = open(&bytes) {
            for key in checkpoint.keys() {
                let _ = checkpoint.tensor(key, None);
                let _ = checkpoint.rows(key, Some(0..1), Some(FloatDtype::F32));
            }
        }
    }
}
