//! The optimizer's stored state: what is in the file, and what is refused.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use opabinia_nn::Linear;
use opabinia_train::optimizer::{AdamWConfig, Optimizer, OptimizerError, Rate, Rule};
use opabinia_weights::Checkpoint;

#[derive(Module, Debug)]
struct Two {
    fc1: Linear,
    fc2: Linear,
}

fn two(width: usize) -> Two {
    let device = Device::flex().autodiff();
    Two {
        fc1: Linear::new(3, width, true, &device),
        fc2: Linear::new(width, 2, true, &device),
    }
}

/// One update of `fc1` with gradients of one.
fn stepped(module: Two, optimizer: &mut Optimizer) -> Two {
    let x = Tensor::<2>::ones([1, 3], &Device::flex().autodiff());
    let mut gradients =
        GradientsParams::from_grads(module.fc1.forward(x).sum().backward(), &module);
    optimizer.step(module, &mut gradients, |_| {
        Some(Rate {
            lr: 0.1,
            rule: Rule::Adamw,
            weight_decay: 0.0,
        })
    })
}

fn stored(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("optimizer.safetensors");
    let mut optimizer = Optimizer::new(AdamWConfig::default());
    let module = stepped(two(4), &mut optimizer);
    let _ = stepped(module, &mut optimizer);
    optimizer.save(&path).unwrap();
    path
}

fn load<M: Module>(path: &Path, module: &M) -> Result<Optimizer, OptimizerError> {
    Optimizer::load(AdamWConfig::default(), path, module)
}

/// After two gradients of one, the means are 1 − 0.9² and 1 − 0.999².
#[test]
fn the_file_has_the_names_of_the_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let file = Checkpoint::open(stored(folder.path())).unwrap();
    let keys: Vec<_> = file.keys().collect();
    assert_eq!(
        keys,
        [
            "exp_avg.fc1.bias",
            "exp_avg.fc1.weight",
            "exp_avg_sq.fc1.bias",
            "exp_avg_sq.fc1.weight",
            "step.fc1.bias",
            "step.fc1.weight"
        ]
    );
    assert_eq!(file.info("exp_avg.fc1.weight").unwrap().shape, [4, 3]);
    let first = |key: &str| {
        file.tensor(key, None)
            .unwrap()
            .iter::<f64>()
            .next()
            .unwrap()
    };
    assert!((first("exp_avg.fc1.weight") - 0.19).abs() < 1e-6);
    assert!((first("exp_avg_sq.fc1.bias") - 0.001_999).abs() < 1e-6);
    assert_eq!(first("step.fc1.bias"), 2.0);
}

#[test]
fn state_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = stored(folder.path());
    let optimizer = load(&path, &two(4)).unwrap();
    assert_eq!(optimizer.updates("fc1.weight"), 2);
    assert_eq!(optimizer.updates("fc2.weight"), 0);
    let again = folder.path().join("again.safetensors");
    optimizer.save(&again).unwrap();
    assert_eq!(
        std::fs::read(&path).unwrap(),
        std::fs::read(&again).unwrap()
    );
}

/// A run of Muon goes on with the same values after its state was written and read.
#[test]
fn momentum_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("muon.safetensors");
    let step = |module: Two, optimizer: &mut Optimizer| {
        let x = Tensor::<2>::ones([1, 3], &Device::flex().autodiff());
        let loss = module.fc1.forward(x).sum();
        let mut gradients = GradientsParams::from_grads(loss.backward(), &module);
        optimizer.step(module, &mut gradients, |_| {
            Some(Rate {
                lr: 0.1,
                rule: Rule::Muon,
                weight_decay: 0.0,
            })
        })
    };
    let mut optimizer = Optimizer::new(AdamWConfig::default());
    let module = step(two(4), &mut optimizer);
    optimizer.save(&path).unwrap();
    let file = Checkpoint::open(&path).unwrap();
    assert!(file.contains("momentum_buffer.fc1.weight"));
    assert!(!file.contains("exp_avg.fc1.weight") && file.contains("exp_avg.fc1.bias"));

    let mut stored = load(&path, &module).unwrap();
    assert_eq!(stored.updates("fc1.weight"), 1);
    let weights =
        |module: &Two| -> Vec<f32> { module.fc1.weight.val().into_data().try_to_vec().unwrap() };
    let (going_on, come_back) = (
        step(module.clone(), &mut optimizer),
        step(module.clone(), &mut stored),
    );
    assert_eq!(weights(&going_on), weights(&come_back));
    assert_ne!(weights(&going_on), weights(&module));
}

#[test]
fn state_of_another_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = stored(folder.path());
    let error = load(&path, &two(5)).unwrap_err();
    assert!(matches!(error, OptimizerError::Shape { .. }), "{error}");
    let error = load(&path, &two(4).fc1).unwrap_err();
    assert!(
        matches!(&error, OptimizerError::UnknownParameter { name, .. } if name == "fc1.bias"),
        "{error}"
    );
}

#[test]
fn a_file_of_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let write = |names: &[&str]| {
        let bytes = [0_u8; 8];
        let tensors = names.iter().map(|name| {
            let dtype = safetensors::Dtype::F32;
            let view = safetensors::tensor::TensorView::new(dtype, vec![2], &bytes).unwrap();
            ((*name).to_owned(), view)
        });
        safetensors::serialize_to_file(tensors, None, &path).unwrap();
    };
    for names in [
        &["lm_head.weight"][..],
        &["step.fc2.bias"],
        &["exp_avg.fc2.bias"],
        &["step.fc2.bias", "exp_avg.fc2.bias"],
    ] {
        write(names);
        let error = load(&path, &two(4)).unwrap_err();
        assert!(matches!(error, OptimizerError::Foreign { .. }), "{error}");
    }
    std::fs::write(&path, b"not a file of tensors").unwrap();
    let error = load(&path, &two(4)).unwrap_err();
    assert!(matches!(error, OptimizerError::Read(_)), "{error}");
}

/// Parameters in half precision have moments in single precision, and stay what they are.
#[test]
fn reduced_parameters_keep_their_type() {
    let mut module = two(4).fc1;
    let device = Device::flex().autodiff();
    let half = Tensor::<2>::ones([4, 3], &Device::flex()).cast(burn::tensor::DType::BF16);
    module.weight = Param::from_tensor(Tensor::from_inner(half.clone()).require_grad());
    let mut gradients = GradientsParams::new();
    gradients.register(module.weight.id, half);
    let mut optimizer = Optimizer::new(AdamWConfig::default());
    let module = optimizer.step(module, &mut gradients, |_| {
        Some(Rate {
            lr: 0.5,
            rule: Rule::Adamw,
            weight_decay: 0.0,
        })
    });
    let weight = module.weight.val();
    assert_eq!(weight.dtype(), burn::tensor::DType::BF16);
    assert_eq!(weight.device(), device);
    let values: Vec<f32> = weight.into_data().convert::<f32>().try_to_vec().unwrap();
    assert!(values.iter().all(|&x| x == 0.5), "{values:?}");
}
