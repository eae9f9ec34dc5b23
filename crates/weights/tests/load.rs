//! Loading modules from safetensors files: what is filled, what is refused, what is shared.
#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_wrap)]

use std::collections::HashMap;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Shape, Tensor};
use opabinia_weights::{
    Checkpoint, FloatDtype, KeyMap, LoadOptions, Problem, WeightDtype, WeightsError, load_into,
    parameters,
};
use safetensors::tensor::{Dtype, TensorView};

#[derive(Module, Debug)]
struct Linear {
    weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
}

#[derive(Module, Debug)]
struct Block {
    q: Linear,
    k: Linear,
}

#[derive(Module, Debug)]
struct Net {
    layers: Vec<Block>,
    norm: Param<Tensor<1>>,
    heads: usize,
}

/// A parameter whose initialiser must never run.
fn lazy<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    Param::uninitialized(
        burn::module::ParamId::new(),
        |_, _| panic!("a loaded parameter was initialised"),
        device.clone(),
        true,
        Shape::from(shape),
    )
}

fn linear(out: usize, inp: usize, bias: bool, device: &Device) -> Linear {
    Linear {
        weight: lazy([out, inp], device),
        bias: bias.then(|| lazy([out], device)),
    }
}

fn net(device: &Device) -> Net {
    Net {
        layers: (0..2)
            .map(|_| Block {
                q: linear(2, 3, true, device),
                k: linear(2, 3, false, device),
            })
            .collect(),
        norm: lazy([3], device),
        heads: 1,
    }
}

struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn f32s(shape: &[usize], first: f32) -> Stored {
    let n: usize = shape.iter().product();
    Stored {
        dtype: Dtype::F32,
        shape: shape.to_vec(),
        bytes: (0..n)
            .flat_map(|i| (first + i as f32).to_le_bytes())
            .collect(),
    }
}

fn bf16s(shape: &[usize], first: f32) -> Stored {
    let n: usize = shape.iter().product();
    Stored {
        dtype: Dtype::BF16,
        shape: shape.to_vec(),
        bytes: (0..n)
            .flat_map(|i| half::bf16::from_f32(first + i as f32).to_le_bytes())
            .collect(),
    }
}

fn write(path: &Path, tensors: &[(&str, Stored)]) {
    let views = tensors.iter().map(|(key, t)| {
        let view = TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap();
        (*key, view)
    });
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    std::fs::write(path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
}

fn net_tensors() -> Vec<(&'static str, Stored)> {
    vec![
        ("model.layers.0.q.weight", f32s(&[2, 3], 0.0)),
        ("model.layers.0.q.bias", f32s(&[2], 10.0)),
        ("model.layers.0.k.weight", bf16s(&[2, 3], 20.0)),
        ("model.layers.1.q.weight", f32s(&[2, 3], 30.0)),
        ("model.layers.1.q.bias", f32s(&[2], 40.0)),
        ("model.layers.1.k.weight", f32s(&[2, 3], 50.0)),
        ("model.norm", f32s(&[3], 60.0)),
    ]
}

fn values<const D: usize>(param: &Param<Tensor<D>>) -> Vec<f32> {
    param.val().into_data().try_to_vec_as::<f32>().unwrap()
}

fn opened(tensors: &[(&str, Stored)]) -> (tempfile::TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("model.safetensors"), tensors);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    (folder, checkpoint)
}

#[test]
fn a_module_is_filled_without_being_initialised() {
    let device = Device::flex();
    let (_folder, checkpoint) = opened(&net_tensors());
    assert_eq!(checkpoint.metadata()["format"], "pt");
    let module = net(&device);
    let id = module.norm.id;
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = seen.clone();
    let options = LoadOptions::default()
        .on_progress(move |done, total| log.lock().unwrap().push((done, total)));
    let (module, report) =
        load_into(module, &checkpoint, &KeyMap::prefixed("model."), &options).unwrap();
    assert_eq!(values(&module.layers[0].q.weight), [0., 1., 2., 3., 4., 5.]);
    assert_eq!(
        values(module.layers[1].q.bias.as_ref().unwrap()),
        [40., 41.]
    );
    assert_eq!(values(&module.layers[0].k.weight)[5], 25.0);
    assert_eq!(values(&module.norm), [60., 61., 62.]);
    assert_eq!(module.norm.id, id);
    assert!(parameters(&module).iter().all(|p| p.dtype == DType::F32));
    assert_eq!(
        (report.tensors, report.parameters, report.bytes),
        (7, 31, 124)
    );
    assert!(report.unused.is_empty() && report.ignored.is_empty());
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 7);
    assert_eq!(seen[6], (124, 124));
}

#[test]
fn only_two_dimensional_weights_take_the_reduced_type() {
    let device = Device::flex();
    let (_folder, checkpoint) = opened(&net_tensors());
    let load = |dtype, keep: &str| {
        let options = LoadOptions::new(dtype).keep_f32(keep);
        let (module, report) = load_into(
            net(&device),
            &checkpoint,
            &KeyMap::prefixed("model."),
            &options,
        )
        .unwrap();
        let types: HashMap<String, DType> = parameters(&module)
            .into_iter()
            .map(|p| (p.path, p.dtype))
            .collect();
        (types, report.bytes)
    };
    let (types, bytes) = load(WeightDtype::Bf16, "^$");
    assert_eq!(types["layers.0.q.weight"], DType::BF16);
    assert_eq!(types["layers.0.q.bias"], DType::F32);
    assert_eq!(types["norm"], DType::F32);
    assert_eq!(bytes, 24 * 2 + 7 * 4);
    let (types, _) = load(WeightDtype::F16, r"^layers\.1\.");
    assert_eq!(types["layers.0.q.weight"], DType::F16);
    assert_eq!(types["layers.1.q.weight"], DType::F32);
    let (types, _) = load(WeightDtype::AsStored, "^$");
    assert_eq!(types["layers.0.q.weight"], DType::F32);
    assert_eq!(types["layers.0.k.weight"], DType::BF16);
}

#[test]
fn listing_parameters_initialises_none() {
    let listed = parameters(&net(&Device::flex()));
    let paths: Vec<_> = listed.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(
        paths[..3],
        ["layers.0.q.weight", "layers.0.q.bias", "layers.0.k.weight"]
    );
    assert_eq!(listed[6].path, "norm");
    assert_eq!((&listed[6].shape, listed[6].dtype), (&vec![3], DType::F32));
}

#[test]
fn frozen_parameters_and_autodiff_stay_as_they_were() {
    let device = Device::flex().autodiff();
    let (_folder, checkpoint) = opened(&net_tensors());
    let mut module = net(&device);
    module.norm = module.norm.set_require_grad(false);
    let map = KeyMap::prefixed("model.");
    let (module, _) = load_into(module, &checkpoint, &map, &LoadOptions::default()).unwrap();
    assert!(!module.norm.val().is_require_grad());
    assert!(module.layers[0].q.weight.val().is_require_grad());
    let loss = module.layers[0].q.weight.val().sum();
    let grads = loss.backward();
    assert!(module.layers[0].q.weight.val().grad(&grads).is_some());
}

#[test]
fn fused_tensors_are_split_by_rows() {
    let device = Device::flex();
    let (_folder, checkpoint) = opened(&[
        ("qk.weight", f32s(&[5, 3], 0.0)),
        ("qk.bias", f32s(&[5], 100.0)),
        ("other", f32s(&[1], 0.0)),
    ]);
    let block = Block {
        q: linear(2, 3, true, &device),
        k: linear(2, 3, false, &device),
    };
    let map = KeyMap::new().part("^q", "qk", 0..2).part("^k", "qk", 2..4);
    let options = LoadOptions::default();
    let (block, report) = load_into(block, &checkpoint, &map, &options).unwrap();
    assert_eq!(values(&block.k.weight), [6., 7., 8., 9., 10., 11.]);
    assert_eq!(values(block.q.bias.as_ref().unwrap()), [100., 101.]);
    // The last row of the weight and most of the bias went nowhere.
    assert_eq!(report.unused, ["other", "qk.bias", "qk.weight"]);
    assert!(matches!(
        report.deny_unused(),
        Err(WeightsError::Unused { keys, .. }) if keys.len() == 3
    ));
}

#[test]
fn all_that_is_wrong_is_reported_at_once() {
    let device = Device::flex();
    let mut tensors = net_tensors();
    tensors[0].0 = "model.layers.0.qq.weight";
    tensors[3].1 = f32s(&[3, 2], 0.0);
    tensors[6].1 = Stored {
        dtype: Dtype::I64,
        shape: vec![3],
        bytes: vec![0; 24],
    };
    let (_folder, checkpoint) = opened(&tensors);
    let map = KeyMap::prefixed("model.");
    let error = load_into(net(&device), &checkpoint, &map, &LoadOptions::default()).unwrap_err();
    let text = error.to_string();
    let WeightsError::Load(failure) = error else {
        panic!("{text}");
    };
    let problems: Vec<_> = failure
        .mismatches
        .iter()
        .map(|m| (m.path.as_str(), &m.problem))
        .collect();
    assert_eq!(problems.len(), 3);
    assert_eq!(
        problems[0],
        (
            "layers.0.q.weight",
            &Problem::Missing {
                nearest: Some("model.layers.0.qq.weight".into())
            }
        )
    );
    assert_eq!(
        problems[1],
        (
            "layers.1.q.weight",
            &Problem::Shape {
                found: vec![3, 2],
                rows: None
            }
        )
    );
    assert!(matches!(problems[2].1, Problem::Dtype { .. }));
    assert!(
        text.starts_with("3 of 7 parameters cannot be loaded from "),
        "{text}"
    );
    assert!(
        text.contains(
            "layers.0.q.weight [2, 3]: no tensor `model.layers.0.q.weight` \
             (the nearest is `model.layers.0.qq.weight`)"
        ),
        "{text}"
    );
}

#[test]
fn another_shape_needs_permission() {
    let device = Device::flex();
    // A patch embedding [2, 1, 1, 3] for a linear layer [2, 3].
    let (_folder, checkpoint) = opened(&[("weight", f32s(&[2, 1, 1, 3], 0.0))]);
    let load = |map: KeyMap| {
        load_into(
            linear(2, 3, false, &device),
            &checkpoint,
            &map,
            &LoadOptions::default(),
        )
    };
    assert!(load(KeyMap::new()).is_err());
    let (module, _) = load(KeyMap::new().reshaped("^weight$")).unwrap();
    assert_eq!(module.weight.dims(), [2, 3]);
    assert_eq!(values(&module.weight), [0., 1., 2., 3., 4., 5.]);
}

#[test]
fn known_leftovers_are_ignored() {
    let (_folder, checkpoint) = opened(&[
        ("weight", f32s(&[2, 3], 0.0)),
        ("text_model.embed", f32s(&[2], 0.0)),
        ("logit_scale", f32s(&[], 0.0)),
    ]);
    let options = LoadOptions::default().ignore(r"^text_model\.");
    let module = linear(2, 3, false, &Device::flex());
    let (_, report) = load_into(module, &checkpoint, &KeyMap::new(), &options).unwrap();
    assert_eq!(report.ignored, ["text_model.embed"]);
    assert_eq!(report.unused, ["logit_scale"]);
}

#[test]
fn a_view_shows_one_branch_under_short_names() {
    let (_folder, checkpoint) = opened(&[
        ("state_dict.weight", f32s(&[2, 3], 0.0)),
        ("epoch", f32s(&[1], 3.0)),
    ]);
    let view = checkpoint.with_prefix("state_dict.");
    assert_eq!(view.keys().collect::<Vec<_>>(), ["weight"]);
    assert_eq!(view.total_bytes(), 24);
    assert_eq!(view.info("weight").unwrap().shape, [2, 3]);
}

#[test]
fn tensors_in_the_type_of_the_file_share_the_mapping_and_are_never_written_through() {
    let device = Device::flex();
    let (folder, checkpoint) = opened(&[
        ("w", f32s(&[64, 64], 0.0)),
        ("h", bf16s(&[8, 8], 0.0)),
        ("m", f32s(&[4], 1.0)),
    ]);
    let first = checkpoint.tensor("w", Some(FloatDtype::F32)).unwrap();
    let second = checkpoint.tensor("w", None).unwrap();
    assert_eq!(
        first.as_bytes().as_ptr(),
        second.as_bytes().as_ptr(),
        "both views point into the mapping"
    );
    let before: Vec<f32> = first.try_to_vec().unwrap();
    let w = Tensor::<2>::from_data(first, (&device, DType::F32));
    // Uniquely owned: an in-place addition must copy first.
    let sum = w.add_scalar(1.0);
    assert_eq!(sum.clone().into_data().try_to_vec::<f32>().unwrap()[5], 6.0);
    let again: Vec<f32> = checkpoint.tensor("w", None).unwrap().try_to_vec().unwrap();
    assert_eq!(again, before);

    // Matrix product, slices and halves on mapped memory.
    let w = Tensor::<2>::from_data(second, (&device, DType::F32));
    let ones = Tensor::<2>::ones([64, 1], &device);
    let rows = w
        .clone()
        .matmul(ones)
        .into_data()
        .try_to_vec::<f32>()
        .unwrap();
    assert_eq!(rows[0], (0..64).sum::<i32>() as f32);
    let part = w.clone().slice([1..2, 2..4]).into_data();
    assert_eq!(part.try_to_vec::<f32>().unwrap(), [66.0, 67.0]);
    let mapped = checkpoint.tensor("h", None).unwrap();
    let halves = Tensor::<2>::from_data(mapped, (&device, DType::BF16));
    let doubled = halves.mul_scalar(2.0).into_data();
    assert_eq!(doubled.try_to_vec_as::<f32>().unwrap()[63], 126.0);

    // The mapping outlives the checkpoint and the file.
    drop(checkpoint);
    drop(folder);
    assert_eq!(w.into_data().try_to_vec::<f32>().unwrap()[4095], 4095.0);
}
