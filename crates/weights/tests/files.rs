//! Finding and opening safetensors files and shards, and refusing broken ones.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use opabinia_weights::{Checkpoint, WeightsError};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};

fn bytes_of(keys: &[&str]) -> Vec<u8> {
    let data = 1.5_f32.to_le_bytes();
    let tensors = keys
        .iter()
        .map(|key| (*key, TensorView::new(Dtype::F32, vec![1], &data).unwrap()));
    safetensors::serialize(tensors, None).unwrap()
}

fn write(folder: &Path, name: &str, keys: &[&str]) {
    fs::write(folder.join(name), bytes_of(keys)).unwrap();
}

fn index(folder: &Path, pairs: &[(&str, &str)]) {
    let map: serde_json::Map<String, serde_json::Value> = pairs
        .iter()
        .map(|(key, shard)| ((*key).to_owned(), (*shard).into()))
        .collect();
    let json = serde_json::json!({ "metadata": {}, "weight_map": map });
    fs::write(
        folder.join("model.safetensors.index.json"),
        json.to_string(),
    )
    .unwrap();
}

#[test]
fn standard_names_win_over_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, "extra.safetensors", &["extra"]);
    assert!(Checkpoint::open(path).unwrap().contains("extra"));
    write(path, "another.safetensors", &["another"]);
    let error = Checkpoint::open(path).unwrap_err();
    assert!(matches!(&error, WeightsError::Ambiguous { files, .. } if files.len() == 2));
    assert!(
        error
            .to_string()
            .contains("another.safetensors, extra.safetensors"),
        "{error}"
    );
    write(path, "open_clip_model.safetensors", &["clip"]);
    assert!(Checkpoint::open(path).unwrap().contains("clip"));
    write(path, "model.safetensors", &["model"]);
    assert!(Checkpoint::open(path).unwrap().contains("model"));
}

#[test]
fn shards_give_one_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, "a.safetensors", &["x", "extra"]);
    write(path, "b.safetensors", &["y"]);
    index(path, &[("x", "a.safetensors"), ("y", "b.safetensors")]);
    for opened in [
        Checkpoint::open(path).unwrap(),
        Checkpoint::open(path.join("model.safetensors.index.json")).unwrap(),
    ] {
        // What the index forgot is still there, to be reported as unused.
        assert_eq!(opened.keys().collect::<Vec<_>>(), ["extra", "x", "y"]);
        assert_eq!(opened.info("y").unwrap().file, path.join("b.safetensors"));
        assert_eq!(opened.total_bytes(), 12);
    }
}

#[test]
fn an_index_that_disagrees_with_its_shards_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, "a.safetensors", &["x"]);
    index(path, &[("x", "a.safetensors"), ("y", "b.safetensors")]);
    let text = Checkpoint::open(path).unwrap_err().to_string();
    assert!(
        text.contains("index.json") && text.contains("b.safetensors"),
        "{text}"
    );
    index(path, &[("x", "a.safetensors"), ("y", "a.safetensors")]);
    let text = Checkpoint::open(path).unwrap_err().to_string();
    assert!(
        text.contains("`y`") && text.contains("`a.safetensors`"),
        "{text}"
    );
    // A name must not lead out of the folder.
    let inner = path.join("inner");
    fs::create_dir(&inner).unwrap();
    index(&inner, &[("x", "../a.safetensors")]);
    assert!(matches!(
        Checkpoint::open(&inner),
        Err(WeightsError::MissingShard { .. })
    ));
    fs::write(path.join("model.safetensors.index.json"), "{").unwrap();
    assert!(matches!(
        Checkpoint::open(path),
        Err(WeightsError::Index { .. })
    ));
}

#[test]
fn what_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nowhere");
    assert!(matches!(
        Checkpoint::open(&missing),
        Err(WeightsError::NotFound { path }) if path == missing
    ));
    assert!(matches!(
        Checkpoint::open(folder.path()),
        Err(WeightsError::NoWeights { .. })
    ));
    fs::write(folder.path().join("x.txt"), "").unwrap();
    assert!(matches!(
        Checkpoint::open(folder.path().join("x.txt")),
        Err(WeightsError::UnknownFormat { .. })
    ));
    write(folder.path(), "model.safetensors", &["norm.weight"]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let text = checkpoint
        .tensor("norms.weight", None)
        .unwrap_err()
        .to_string();
    assert!(text.contains("the nearest is `norm.weight`"), "{text}");
}

#[test]
fn a_file_that_was_cut_short_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let bytes = bytes_of(&["x"]);
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let error = Checkpoint::open(&path).unwrap_err();
    assert!(error.to_string().contains("may be incomplete"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn mutated_headers_never_panic(
        edits in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..5),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut bytes = bytes_of(&["weight", "bias"]);
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(keep.index(2 * bytes.len()));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        fs::write(&path, bytes).unwrap();
        if let Ok(checkpoint) = Checkpoint::open(&path) {
            for key in checkpoint.keys() {
                let _ = checkpoint.tensor(key, None);
            }
        }
    }

    #[test]
    fn headers_with_any_numbers_never_panic(
        start in any::<u64>(), end in any::<u64>(), shape in prop::collection::vec(any::<u64>(), 0..4),
    ) {
        let json = serde_json::json!({
            "w": { "dtype": "BF16", "shape": shape, "data_offsets": [start, end] }
        }).to_string();
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.bytes());
        bytes.extend([0; 8]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        fs::write(&path, bytes).unwrap();
        let _ = Checkpoint::open(&path).map(|c| c.tensor("w", None).map(drop));
    }

    #[test]
    fn any_index_is_read_or_refused(text in "\\PC{0,80}", shard in "\\PC{0,20}") {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors.index.json");
        fs::write(&path, &text).unwrap();
        prop_assert!(Checkpoint::open(&path).is_err());
        let json = serde_json::json!({ "weight_map": { "x": shard } });
        fs::write(&path, json.to_string()).unwrap();
        prop_assert!(Checkpoint::open(&path).is_err());
    }
}
