//! Writing modules and reading them back.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};
use opabinia_weights::{
    Checkpoint, CheckpointWriter, Dtype, KeyMap, LoadOptions, WeightDtype, WeightsError, load_into,
    save_module,
};

#[derive(Module, Debug)]
struct Attention {
    q: Param<Tensor<2>>,
    k: Param<Tensor<2>>,
    norm: Param<Tensor<1>>,
}

fn filled<const D: usize>(shape: [usize; D], first: f32, device: &Device) -> Param<Tensor<D>> {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| first + i as f32).collect();
    Param::from_tensor(Tensor::<1>::from_floats(values.as_slice(), device).reshape(shape))
}

fn attention(first: f32) -> Attention {
    let device = Device::flex();
    Attention {
        q: filled([2, 3], first, &device),
        k: filled([1, 3], first + 10.0, &device),
        norm: filled([3], first + 20.0, &device),
    }
}

fn values<const D: usize>(param: &Param<Tensor<D>>) -> Vec<f32> {
    param.val().into_data().try_to_vec_as::<f32>().unwrap()
}

fn fused() -> KeyMap {
    // Written out of order on purpose: rows decide the order in the file.
    KeyMap::new()
        .part("^k$", "qk", 2..3)
        .part("^q$", "qk", 0..2)
        .prefix("model.")
}

#[test]
fn one_file_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.safetensors");
    let report = save_module(&attention(1.0), &fused(), &path, &[("step", "7")]).unwrap();
    assert_eq!(
        (report.tensors, report.parameters, report.bytes),
        (2, 12, 48)
    );
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.metadata()["format"], "pt");
    assert_eq!(checkpoint.metadata()["step"], "7");
    assert_eq!(
        checkpoint.keys().collect::<Vec<_>>(),
        ["model.norm", "model.qk"]
    );
    let qk = checkpoint.tensor("model.qk", None).unwrap();
    assert_eq!(
        qk.try_to_vec::<f32>().unwrap(),
        [1., 2., 3., 4., 5., 6., 11., 12., 13.]
    );
    let (loaded, report) = load_into(
        attention(0.0),
        &checkpoint,
        &fused(),
        &LoadOptions::default(),
    )
    .unwrap();
    assert_eq!(values(&loaded.k), [11., 12., 13.]);
    assert_eq!(values(&loaded.norm), [21., 22., 23.]);
    assert!(report.deny_unused().is_ok());
}

#[test]
fn halves_are_written_and_read() {
    let folder = tempfile::tempdir().unwrap();
    for (dtype, stored, burn) in [
        (WeightDtype::Bf16, Dtype::Bf16, DType::BF16),
        (WeightDtype::F16, Dtype::F16, DType::F16),
    ] {
        let mut writer = CheckpointWriter::new(dtype);
        writer.add(&attention(1.0), &KeyMap::new()).unwrap();
        let report = writer.write_folder(folder.path()).unwrap();
        assert_eq!(report.bytes, 24);
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert!(
            checkpoint
                .keys()
                .all(|key| checkpoint.info(key).unwrap().dtype == stored)
        );
        let options = LoadOptions::new(WeightDtype::AsStored).keep_f32("^k$");
        let map = KeyMap::new().rename("^k$", "k").rename("^q$", "q");
        let (loaded, _) = load_into(attention(0.0), &checkpoint, &map, &options).unwrap();
        assert_eq!(values(&loaded.q), [1., 2., 3., 4., 5., 6.]);
        assert_eq!(values(&loaded.norm), [21., 22., 23.]);
        // `q` is not called `weight`, so it is widened whatever the file holds.
        assert_eq!(loaded.q.val().dtype(), DType::F32);
        let raw = checkpoint.tensor("q", None).unwrap();
        assert_eq!(raw.dtype(), burn);
    }
}

#[test]
fn shards_and_their_index_are_the_reference_layout() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut writer = CheckpointWriter::new(WeightDtype::F32).max_shard_bytes(40);
    writer
        .add(&attention(0.0), &KeyMap::prefixed("a."))
        .unwrap();
    writer
        .add(&attention(100.0), &KeyMap::prefixed("b."))
        .unwrap();
    let report = writer.write_folder(path).unwrap();
    // Sizes 24, 12, 12 twice, cut before 40 is exceeded: 24+12 | 12+24 | 12+12.
    let names: Vec<_> = report
        .files
        .iter()
        .map(|f| f.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "model-00001-of-00003.safetensors",
            "model-00002-of-00003.safetensors",
            "model-00003-of-00003.safetensors"
        ]
    );
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(path.join("model.safetensors.index.json")).unwrap())
            .unwrap();
    assert_eq!(index["metadata"]["total_size"], 96);
    assert_eq!(index["weight_map"]["a.norm"], names[1].as_str());
    let checkpoint = Checkpoint::open(path).unwrap();
    let map = KeyMap::prefixed("b.");
    let options = LoadOptions::default();
    let (b, of_b) = load_into(attention(0.0), &checkpoint, &map, &options).unwrap();
    assert_eq!(values(&b.q)[0], 100.0);
    assert_eq!(of_b.unused, ["a.k", "a.norm", "a.q"]);
    let map = KeyMap::prefixed("a.");
    let (_, of_a) = load_into(attention(0.0), &checkpoint, &map, &options).unwrap();
    assert!(of_a.merge(of_b).unused.is_empty());

    // A smaller save in the same folder leaves nothing of the old one, and what was mapped stays
    // readable.
    let mut writer = CheckpointWriter::new(WeightDtype::F32);
    writer.add(&attention(7.0), &KeyMap::new()).unwrap();
    writer.write_folder(path).unwrap();
    let mut left: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["model.safetensors"]);
    let old = checkpoint.tensor("b.q", None).unwrap();
    assert_eq!(old.try_to_vec::<f32>().unwrap()[0], 100.0);
    assert_eq!(Checkpoint::open(path).unwrap().keys().len(), 3);
}

#[test]
fn a_module_can_be_saved_over_the_file_that_it_is_mapped_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    save_module(&attention(1.0), &KeyMap::new(), &path, &[]).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let options = LoadOptions::default();
    let (module, _) = load_into(attention(0.0), &checkpoint, &KeyMap::new(), &options).unwrap();
    save_module(&module, &KeyMap::prefixed("x."), &path, &[]).unwrap();
    assert_eq!(values(&module.q), [1., 2., 3., 4., 5., 6.]);
    assert!(Checkpoint::open(&path).unwrap().contains("x.q"));
}

#[test]
fn keys_that_clash_and_parts_that_do_not_fit_are_refused() {
    let module = attention(0.0);
    let mut writer = CheckpointWriter::new(WeightDtype::F32);
    let error = writer
        .add(&module, &KeyMap::new().rename("^[qk]$", "same"))
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("`same`") && text.contains("`q` and `k`"),
        "{text}"
    );

    let gap = KeyMap::new()
        .part("^q$", "qk", 0..2)
        .part("^k$", "qk", 3..4);
    let wrong = KeyMap::new()
        .part("^q$", "qk", 0..2)
        .part("^k$", "qk", 2..4);
    let whole = KeyMap::new().part("^q$", "qk", 0..2).rename("^k$", "qk");
    for map in [gap, wrong, whole] {
        let mut writer = CheckpointWriter::new(WeightDtype::F32);
        let added = writer.add(&module, &map);
        let folder = tempfile::tempdir().unwrap();
        let error = added
            .and_then(|()| writer.write_file(folder.path().join("x.safetensors")))
            .unwrap_err();
        assert!(matches!(error, WeightsError::Layout { .. }), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn the_system_s_refusal_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent").join("x.safetensors");
    let error = save_module(&attention(0.0), &KeyMap::new(), &path, &[]).unwrap_err();
    assert!(error.to_string().contains("x.safetensors"), "{error}");
}
