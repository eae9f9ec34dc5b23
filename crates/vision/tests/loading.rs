//! Loading: what is said of a folder that does not hold what the name promises, and saving back.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;

use burn::prelude::*;
use burn::tensor::Distribution;
use opabinia_vision::{Encoder, EncoderConfig, EncoderSpec, REGISTRY, VisionError, load_encoder};
use opabinia_weights::{LoadOptions, WeightDtype, parameters, save_module};
use serde_json::{Value, json};

fn dinov2(hidden: usize) -> Value {
    json!({
        "model_type": "dinov2", "hidden_size": hidden, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "use_swiglu_ffn": true,
    })
}

fn siglip() -> Value {
    json!({
        "architecture": "vit_so400m_patch14_siglip_384",
        "model_args": {"embed_dim": 8, "depth": 2, "num_heads": 2, "img_size": 28},
    })
}

fn clip() -> Value {
    json!({
        "model_type": "clip_vision_model", "hidden_size": 8, "intermediate_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    })
}

fn convnext() -> Value {
    json!({
        "model_cfg": {"vision_cfg": {"timm_model_name": "convnext_tiny_of_ours"}},
        "timm_arch": {"depths": [1, 1, 1, 1], "dims": [4, 6, 8, 10]},
    })
}

fn spec(name: &str) -> EncoderSpec {
    EncoderSpec::parse(name).unwrap()
}

/// A folder with a configuration and the weights of a random encoder of it.
fn folder(name: &str, config: &Value) -> (tempfile::TempDir, Encoder) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let config = EncoderConfig::read(folder.path()).unwrap();
    let encoder = Encoder::new(&spec(name), config, &Device::flex()).unwrap();
    let file = folder.path().join("model.safetensors");
    save_module(&encoder, &encoder.key_map(), &file, &[]).unwrap();
    (folder, encoder)
}

/// Saved under the published names and loaded again, an encoder gives the same features.
#[test]
fn saving_and_loading_changes_nothing() {
    let encoders = [
        ("facebook/dinov2-base-res42", dinov2(8)),
        ("siglip/CLIP-ViT-SO400M-14", siglip()),
        ("openai/clip-vit-large-patch14", clip()),
        ("clip-convnext-L-multi-stage-res64", convnext()),
    ];
    for (name, config) in encoders {
        let (folder, saved) = folder(name, &config);
        let (loaded, report) =
            load_encoder(&spec(name), folder.path(), &LoadOptions::default()).unwrap();
        assert!(
            report.unused.is_empty() && report.ignored.is_empty(),
            "{report}"
        );
        assert_eq!(report.parameters, saved.parameters());
        let side = saved.side() as usize;
        let pixels = Tensor::random([1, 3, side, side], Distribution::Default, &Device::flex());
        let features = |encoder: &Encoder| encoder.forward(pixels.clone()).features.into_data();
        assert_eq!(features(&loaded), features(&saved), "{name}");
    }
}

/// Reduced weights still give nearly the same features, computed in f32.
#[test]
fn half_precision_weights_are_close() {
    let (folder, saved) = folder("facebook/dinov2-base", &dinov2(16));
    let options = LoadOptions::new(WeightDtype::Bf16);
    let (loaded, _) = load_encoder(&spec("facebook/dinov2-base"), folder.path(), &options).unwrap();
    assert!(
        parameters(&loaded)
            .iter()
            .any(|p| p.dtype == burn::tensor::DType::BF16)
    );
    let pixels = Tensor::random([1, 3, 28, 28], Distribution::Default, &Device::flex());
    let (a, b) = (
        loaded.forward(pixels.clone()).features,
        saved.forward(pixels).features,
    );
    assert!((a - b).abs().max().into_scalar::<f32>() < 0.1);
}

#[test]
fn the_configuration_must_fit_the_name() {
    let (folder, _) = folder("facebook/dinov2-base", &dinov2(8));
    let name = "openai/clip-vit-large-patch14";
    let error = load_encoder(&spec(name), folder.path(), &LoadOptions::default()).unwrap_err();
    assert!(
        matches!(error, VisionError::FamilyMismatch { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("is a CLIP encoder"), "{error}");
}

#[test]
fn the_weights_must_fit_the_configuration() {
    let load = |path: &Path| {
        load_encoder(&spec("facebook/dinov2-base"), path, &LoadOptions::default()).unwrap_err()
    };
    let (folder, _) = folder("facebook/dinov2-base", &dinov2(8));
    let config = folder.path().join("config.json");
    std::fs::write(&config, dinov2(16).to_string()).unwrap();
    let error = load(folder.path()).to_string();
    assert!(error.contains("parameters cannot be loaded"), "{error}");

    let (other, _) = self::folder("siglip/CLIP-ViT-SO400M-14", &siglip());
    std::fs::write(other.path().join("config.json"), dinov2(8).to_string()).unwrap();
    let error = load(other.path());
    assert!(matches!(error, VisionError::Layout { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("`dinov2.embeddings.patch_embeddings"),
        "{error}"
    );

    std::fs::write(&config, "{").unwrap();
    assert!(matches!(load(folder.path()), VisionError::Json { .. }));
    std::fs::remove_file(&config).unwrap();
    assert!(matches!(load(folder.path()), VisionError::NoConfig { .. }));
}

/// Every row can be built at its real size without allocating its parameters, and every parameter
/// has a key of its own.
#[test]
fn every_row_maps_its_parameters_to_distinct_keys() {
    for entry in REGISTRY {
        let encoder = Encoder::random(&entry.spec(), &Device::flex()).unwrap();
        let map = encoder.key_map();
        let mut keys: Vec<String> = parameters(&encoder)
            .iter()
            .map(|parameter| {
                let key = map.file_key(&parameter.path);
                format!("{} {:?}", key.key, key.rows)
            })
            .collect();
        assert!(
            keys.iter().all(|key| !key.contains("network")),
            "{}",
            entry.name()
        );
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count, "{}", entry.name());
    }
}
