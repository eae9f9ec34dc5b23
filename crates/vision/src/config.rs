//! From a published `config.json` to an architecture.
//!
//! Three styles are read: transformers (`model_type`), OpenCLIP (`model_cfg`, with the name of a
//! timm model or a `timm_arch` table that describes it) and timm (`architecture` and `model_args`).
//! A published file leaves out what equals its library's default, so the defaults of that library
//! fill it up; whether they are right shows when the tensors are loaded.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::convnext::{self, ConvNextConfig};
use crate::error::VisionError;
use crate::json::Fields;
use crate::registry::Family;
use crate::siglip::SiglipConfig;
use crate::transformer::VitConfig;
use crate::{clip, dinov2, siglip};

/// Names of the configuration in a published folder, in the order in which they are looked for.
const FILES: [&str; 2] = ["config.json", "open_clip_config.json"];

/// What network a checkpoint is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EncoderConfig {
    /// See [`crate::clip`].
    Clip(VitConfig),
    /// See [`crate::siglip`].
    Siglip(SiglipConfig),
    /// See [`crate::dinov2`].
    Dinov2(VitConfig),
    /// See [`crate::convnext`].
    ConvNext(ConvNextConfig),
}

impl EncoderConfig {
    /// Reads `config.json` or `open_clip_config.json` in a folder.
    ///
    /// # Errors
    /// If there is none, if it cannot be read, if a value is unusable, or if it describes a network
    /// that is not implemented ([`VisionError::UnsupportedFamily`]).
    pub fn read(folder: &Path) -> Result<Self, VisionError> {
        let path = find(folder)?;
        let read = |source| VisionError::Read {
            path: path.clone(),
            source,
        };
        let text = fs::read_to_string(&path).map_err(read)?;
        let value = serde_json::from_str(&text).map_err(|source| VisionError::Json {
            path: path.clone(),
            source,
        })?;
        Self::from_json(&value, &path)
    }

    /// Reads a configuration from memory; `path` is only for error messages.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn from_json(value: &Value, path: &Path) -> Result<Self, VisionError> {
        let root = Fields::root(value, path)?;
        if let Some(model) = root.table("model_cfg")? {
            return from_open_clip(&root, &model);
        }
        if let Some(architecture) = root.text("architecture")? {
            return from_timm(&root, architecture);
        }
        match root.text("model_type")? {
            Some(model_type) => from_transformers(&root, model_type),
            None => Err(root.unsupported(
                "a network without `model_type`, `model_cfg` or `architecture` in its configuration",
            )),
        }
    }

    /// The family of the network.
    #[must_use]
    pub fn family(&self) -> Family {
        match self {
            Self::Clip(_) => Family::Clip,
            Self::Siglip(_) => Family::Siglip,
            Self::Dinov2(_) => Family::Dinov2,
            Self::ConvNext(_) => Family::ConvNext,
        }
    }

    /// Side in pixels of the pictures it takes if nothing else is said.
    #[must_use]
    pub fn side(&self) -> u32 {
        match self.vit() {
            Some(vit) => vit.side,
            None => convnext::REFERENCE_SIDE,
        }
    }

    /// The transformer, if it is one.
    #[must_use]
    pub fn vit(&self) -> Option<&VitConfig> {
        match self {
            Self::Clip(vit) | Self::Dinov2(vit) | Self::Siglip(SiglipConfig { vit, .. }) => {
                Some(vit)
            }
            Self::ConvNext(_) => None,
        }
    }

    /// Blocks of the whole network.
    #[must_use]
    pub fn layers(&self) -> usize {
        match self {
            Self::ConvNext(convnext) => convnext.depths.iter().sum(),
            Self::Clip(vit) | Self::Dinov2(vit) | Self::Siglip(SiglipConfig { vit, .. }) => {
                vit.layers
            }
        }
    }
}

fn find(folder: &Path) -> Result<PathBuf, VisionError> {
    FILES
        .iter()
        .map(|file| folder.join(file))
        .find(|path| path.is_file())
        .ok_or_else(|| VisionError::NoConfig {
            folder: folder.to_path_buf(),
        })
}

fn from_transformers(root: &Fields<'_>, model_type: &str) -> Result<EncoderConfig, VisionError> {
    Ok(match model_type {
        "clip" => EncoderConfig::Clip(clip::from_transformers(
            &root.required_table("vision_config")?,
        )?),
        "clip_vision_model" => EncoderConfig::Clip(clip::from_transformers(root)?),
        "siglip" => EncoderConfig::Siglip(siglip::from_transformers(
            &root.required_table("vision_config")?,
        )?),
        "siglip_vision_model" => EncoderConfig::Siglip(siglip::from_transformers(root)?),
        "dinov2" => EncoderConfig::Dinov2(dinov2::from_transformers(root)?),
        other => return Err(root.unsupported(format!("a transformers model of type `{other}`"))),
    })
}

fn from_open_clip(root: &Fields<'_>, model: &Fields<'_>) -> Result<EncoderConfig, VisionError> {
    let vision = model.required_table("vision_cfg")?;
    if let Some(arch) = root.table("timm_arch")? {
        return from_timm_arch(&arch);
    }
    let Some(name) = vision.text("timm_model_name")? else {
        return Err(root.unsupported("an OpenCLIP model with a trunk of its own, not of timm"));
    };
    match from_timm_name(name, None)? {
        Some(EncoderConfig::Siglip(mut siglip)) => {
            siglip.vit.side = vision.side("image_size", siglip.vit.side)?;
            Ok(EncoderConfig::Siglip(siglip))
        }
        Some(config) => Ok(config),
        None => Err(root.unsupported(format!("an OpenCLIP model around timm's `{name}`"))),
    }
}

fn from_timm(root: &Fields<'_>, architecture: &str) -> Result<EncoderConfig, VisionError> {
    let arguments = root.table("model_args")?;
    from_timm_name(architecture, arguments.as_ref())?
        .ok_or_else(|| root.unsupported(format!("timm's `{architecture}`")))
}

fn from_timm_name(
    name: &str,
    overrides: Option<&Fields<'_>>,
) -> Result<Option<EncoderConfig>, VisionError> {
    // `name.tag`: the tag says on what it was trained.
    let model = name.split('.').next().unwrap_or(name);
    if let Some(config) = siglip::from_timm_model(model, overrides)? {
        return Ok(Some(EncoderConfig::Siglip(config)));
    }
    Ok(convnext::from_timm_model(model, overrides)?.map(EncoderConfig::ConvNext))
}

fn from_timm_arch(arch: &Fields<'_>) -> Result<EncoderConfig, VisionError> {
    if let Some(config) = convnext::from_timm_arch(arch)? {
        return Ok(EncoderConfig::ConvNext(config));
    }
    siglip::from_timm_arch(arch)?
        .map(EncoderConfig::Siglip)
        .ok_or_else(|| {
            arch.unsupported("a timm network in `timm_arch` that is no SigLIP or ConvNeXt")
        })
}

#[cfg(test)]
mod tests {
    use burn::prelude::Device;
    use opabinia_nn::Activation;
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::json;

    use super::*;
    use crate::encoder::Encoder;
    use crate::registry::REGISTRY;
    use crate::siglip::Layout;
    use crate::transformer::FeedForwardKind;

    fn parse(value: &Value) -> Result<EncoderConfig, VisionError> {
        EncoderConfig::from_json(value, Path::new("config.json"))
    }

    #[test]
    fn published_files_are_filled_with_their_librarys_defaults() {
        let published = json!({"model_type": "siglip", "vision_config": {
            "hidden_size": 1152, "image_size": 384, "intermediate_size": 4304,
            "model_type": "siglip_vision_model", "num_attention_heads": 16,
            "num_hidden_layers": 27, "patch_size": 14}});
        let expected = EncoderConfig::Siglip(siglip::SO400M_384_TRANSFORMERS);
        assert_eq!(parse(&published).unwrap(), expected);
    }

    #[test]
    fn open_clip_names_a_timm_model_and_a_side() {
        let config = json!({"model_cfg": {"vision_cfg": {
            "image_size": 224, "timm_model_name": "vit_so400m_patch14_siglip_384"}}});
        assert_eq!(
            parse(&config).unwrap(),
            EncoderConfig::Siglip(siglip::SO400M_224)
        );
        let config = json!({"model_cfg": {"vision_cfg": {
            "image_size": 256, "timm_model_name": "convnext_xxlarge"}}});
        assert_eq!(
            parse(&config).unwrap(),
            EncoderConfig::ConvNext(convnext::XXLARGE)
        );
    }

    #[test]
    fn timm_arguments_change_a_named_architecture() {
        let config = json!({"architecture": "vit_so400m_patch14_siglip_384.webli",
            "model_args": {"depth": 3, "img_size": 70}});
        let Ok(EncoderConfig::Siglip(siglip)) = parse(&config) else {
            panic!("a SigLIP")
        };
        assert_eq!(
            (siglip.vit.layers, siglip.vit.side, siglip.vit.width),
            (3, 70, 1152)
        );
        assert_eq!(
            siglip.vit.feed_forward,
            FeedForwardKind::Mlp(Activation::Gelu)
        );
        assert_eq!(siglip.layout, Layout::Timm);
    }

    #[test]
    fn other_networks_are_named_in_the_error() {
        let others = [
            (json!({"model_type": "dpt"}), "type `dpt`"),
            (
                json!({"architecture": "vit_large_patch16_224"}),
                "timm's `vit_large_patch16_224`",
            ),
            (
                json!({"model_cfg": {"vision_cfg": {"layers": 3, "width": 48}}}),
                "trunk of its own",
            ),
            (
                json!({"model_cfg": {"vision_cfg": {}}, "timm_arch": {"depth": 3}}),
                "timm_arch",
            ),
            (json!({"depth": 3}), "without `model_type`"),
        ];
        for (config, words) in others {
            let error = parse(&config).unwrap_err();
            assert!(
                matches!(error, VisionError::UnsupportedFamily { .. }),
                "{error}"
            );
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn values_that_do_not_fit_together_are_refused() {
        let heads = json!({"model_type": "dinov2", "hidden_size": 100, "num_attention_heads": 3});
        assert!(
            parse(&heads)
                .unwrap_err()
                .to_string()
                .contains("`num_attention_heads`")
        );
        let patch = json!({"model_type": "clip_vision_model", "image_size": 16});
        assert!(
            parse(&patch)
                .unwrap_err()
                .to_string()
                .contains("`patch_size`")
        );
        let act = json!({"model_type": "clip_vision_model", "hidden_act": "mish"});
        assert!(parse(&act).unwrap_err().to_string().contains("quick_gelu"));
        assert!(parse(&json!([1])).is_err());
    }

    /// Small configurations of every style, with the keys that are read.
    fn published() -> Vec<Value> {
        let vision = json!({
            "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_channels": 3,
            "intermediate_size": 9, "patch_size": 4, "image_size": 8, "layer_norm_eps": 1e-6,
            "hidden_act": "gelu",
        });
        let arch = json!({
            "class_token": false, "global_pool": "map", "embed_dim": 8, "depth": 1, "num_heads": 2,
            "mlp_ratio": 2.5, "patch_size": 4, "img_size": 8, "norm_eps": 1e-6, "qkv_bias": true,
        });
        let mut dinov2 = vision.clone();
        for (key, value) in [("model_type", json!("dinov2")), ("mlp_ratio", json!(4))] {
            dinov2[key] = value;
        }
        vec![
            dinov2,
            json!({"model_type": "clip", "vision_config": vision}),
            json!({"model_type": "siglip", "vision_config": vision}),
            json!({"architecture": "vit_base_patch16_siglip_224", "model_args": arch}),
            json!({"model_cfg": {"vision_cfg": {}}, "timm_arch": arch}),
            json!({"model_cfg": {"vision_cfg": {}}, "timm_arch": {
                "depths": [1, 1, 1, 1], "dims": [4, 4, 4, 4], "norm_eps": 1e-6}}),
            json!({"model_cfg": {"vision_cfg": {
                "timm_model_name": "vit_base_patch16_siglip_224", "image_size": 64}}}),
        ]
    }

    fn keys_of(value: &Value, at: &str, keys: &mut Vec<String>) {
        for (key, inner) in value.as_object().into_iter().flatten() {
            let path = format!("{at}/{key}");
            keys_of(inner, &path, keys);
            keys.push(path);
        }
    }

    /// Every key of every style.
    fn places() -> Vec<(usize, String)> {
        let mut places = Vec::new();
        for (i, config) in published().iter().enumerate() {
            let mut keys = Vec::new();
            keys_of(config, "", &mut keys);
            places.extend(keys.into_iter().map(|key| (i, key)));
        }
        places
    }

    fn odd_values() -> Vec<Value> {
        vec![
            json!(null),
            json!(true),
            json!(0),
            json!(1),
            json!(-7),
            json!(7),
            json!(65_535),
            json!(u64::MAX),
            json!(1e300),
            json!(0.3),
            json!(""),
            json!("gelu"),
            json!([]),
            json!([1, 2, 3, 4]),
            json!([0, 1, 2, 65_535]),
            json!({}),
            json!({"depth": 2}),
        ]
    }

    #[test]
    fn the_configurations_to_be_changed_are_readable() {
        assert!(published().iter().all(|config| parse(config).is_ok()));
    }

    proptest! {
        /// Two odd values in a good configuration give a network or an error, never a panic.
        #[test]
        fn odd_configurations_are_answered(
            first in select(places()), value in select(odd_values()),
            second in select(places()), other in select(odd_values()),
        ) {
            let mut config = published().swap_remove(first.0);
            for (place, value) in [(&first.1, value), (&second.1, other)] {
                if let Some(old) = config.pointer_mut(place) {
                    *old = value;
                }
            }
            if let Ok(config) = parse(&config) {
                let rows = REGISTRY.iter();
                for entry in rows.filter(|entry| entry.family == config.family()).take(1) {
                    let _ = Encoder::new(&entry.spec(), config, &Device::flex());
                }
            }
        }
    }
}
