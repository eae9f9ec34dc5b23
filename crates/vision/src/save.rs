//! From an encoder to a folder in the style of its family.
//!
//! | family | configuration | weights | preparation of pictures |
//! |---|---|---|---|
//! | CLIP, SigLIP, DINOv2 (transformers) | `config.json` | `model.safetensors` | `preprocessor_config.json` |
//! | ConvNeXt, SigLIP (timm) | `open_clip_config.json`, with a `timm_arch` table | `open_clip_model.safetensors` | in the configuration |
//!
//! The configuration holds every value that [`EncoderConfig::read`] would otherwise fill in.

use std::fs;
use std::path::Path;

use burn::module::{Module, Param};
use burn::prelude::*;
use opabinia_image::{CLIP_MEAN, CLIP_STD, HALF, IMAGENET_MEAN, IMAGENET_STD};
use opabinia_nn::Activation;
use opabinia_weights::{CheckpointWriter, KeyMap, SaveReport, WeightDtype};
use serde_json::{Value, json};

use crate::config::EncoderConfig;
use crate::convnext::ConvNextConfig;
use crate::encoder::Encoder;
use crate::error::VisionError;
use crate::siglip::{Layout, SiglipConfig};
use crate::transformer::{FeedForwardKind, VitConfig};

impl Encoder {
    /// Writes the encoder as its family publishes it; [`load_encoder`](crate::load_encoder) reads
    /// the folder back. The weights come last, so a folder that has them is complete.
    ///
    /// Only what is run is written: no text tower, no pooling head, and of a CLIP no blocks after
    /// the selected one.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, folder: &Path, dtype: WeightDtype) -> Result<SaveReport, VisionError> {
        let config = self.config();
        let side = self.side();
        let name = if config.is_open_clip() {
            "open_clip_config.json"
        } else {
            write_json(
                folder,
                "preprocessor_config.json",
                &preprocessor(config, side),
            )?;
            "config.json"
        };
        write_json(folder, name, &config.to_json(side))?;
        let mut writer = CheckpointWriter::new(dtype);
        writer.add(self, &self.key_map())?;
        if let EncoderConfig::Dinov2(vit) = config {
            writer.add(&MaskToken::new(vit.width), &KeyMap::prefixed("embeddings."))?;
        }
        Ok(if config.is_open_clip() {
            writer.write_file(folder.join("open_clip_model.safetensors"))?
        } else {
            writer.write_folder(folder)?
        })
    }
}

/// What stands for hidden patches in DINOv2's own pretraining. Readers of the family expect it;
/// nothing uses it afterwards.
#[derive(Module, Debug)]
struct MaskToken {
    mask_token: Param<Tensor<2>>,
}

impl MaskToken {
    fn new(width: usize) -> Self {
        Self {
            mask_token: Param::from_tensor(Tensor::zeros([1, width], &Device::flex())),
        }
    }
}

fn write_json(folder: &Path, name: &str, value: &Value) -> Result<(), VisionError> {
    let path = folder.join(name);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, format!("{value:#}\n")))
        .map_err(|source| VisionError::Write { path, source })
}

impl EncoderConfig {
    /// The configuration as its family writes it, for pictures of `side` pixels where the network
    /// itself takes any; [`from_json`](Self::from_json) reads it back.
    #[must_use]
    pub fn to_json(&self, side: u32) -> Value {
        match self {
            Self::Clip(vit) => clip_json(vit),
            Self::Siglip(siglip) => match siglip.layout {
                Layout::Transformers => siglip_json(&siglip.vit),
                Layout::Timm => siglip_timm_json(siglip),
            },
            Self::Dinov2(vit) => dinov2_json(vit),
            Self::ConvNext(convnext) => convnext_json(convnext, side),
        }
    }

    /// Whether the family is published in OpenCLIP's style.
    fn is_open_clip(&self) -> bool {
        match self {
            Self::ConvNext(_) => true,
            Self::Siglip(siglip) => siglip.layout == Layout::Timm,
            Self::Clip(_) | Self::Dinov2(_) => false,
        }
    }
}

/// What CLIP and SigLIP share in transformers.
fn shared_json(vit: &VitConfig) -> Value {
    json!({
        "attention_dropout": 0.0,
        "hidden_act": activation_name(vit.feed_forward),
        "hidden_size": vit.width,
        "image_size": vit.side,
        "intermediate_size": vit.hidden,
        "layer_norm_eps": vit.eps,
        "num_attention_heads": vit.heads,
        "num_channels": 3,
        "num_hidden_layers": vit.layers,
        "patch_size": vit.patch,
    })
}

fn with(mut json: Value, more: &[(&str, Value)]) -> Value {
    for (key, value) in more {
        json[key] = value.clone();
    }
    json
}

fn clip_json(vit: &VitConfig) -> Value {
    with(
        shared_json(vit),
        &[
            ("architectures", json!(["CLIPVisionModel"])),
            ("model_type", json!("clip_vision_model")),
        ],
    )
}

fn siglip_json(vit: &VitConfig) -> Value {
    with(
        shared_json(vit),
        &[
            ("architectures", json!(["SiglipVisionModel"])),
            ("model_type", json!("siglip_vision_model")),
            ("vision_use_head", json!(false)),
        ],
    )
}

fn dinov2_json(vit: &VitConfig) -> Value {
    let gated = vit.feed_forward == FeedForwardKind::SwiGlu;
    // The file states the width of a plain layer; a gated one has two thirds of it.
    let plain = if gated {
        vit.hidden * 3 / 2
    } else {
        vit.hidden
    };
    json!({
        "apply_layernorm": true,
        "architectures": ["Dinov2Model"],
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "hidden_act": activation_name(vit.feed_forward),
        "hidden_dropout_prob": 0.0,
        "hidden_size": vit.width,
        "image_size": vit.side,
        "layer_norm_eps": vit.eps,
        "layerscale_value": 1.0,
        "mlp_ratio": ratio(vit.width, plain),
        "model_type": "dinov2",
        "num_attention_heads": vit.heads,
        "num_channels": 3,
        "num_hidden_layers": vit.layers,
        "patch_size": vit.patch,
        "qkv_bias": vit.qkv_bias,
        "use_swiglu_ffn": gated,
    })
}

fn siglip_timm_json(siglip: &SiglipConfig) -> Value {
    let vit = &siglip.vit;
    let arch = json!({
        "class_token": false,
        "depth": vit.layers,
        "embed_dim": vit.width,
        "global_pool": "map",
        "img_size": vit.side,
        "mlp_ratio": ratio(vit.width, vit.hidden),
        "norm_eps": vit.eps,
        "num_heads": vit.heads,
        "patch_size": vit.patch,
        "qkv_bias": vit.qkv_bias,
    });
    open_clip_json(vit.width, vit.side, arch, "squash", (HALF, HALF))
}

fn convnext_json(convnext: &ConvNextConfig, side: u32) -> Value {
    let arch = json!({
        "depths": convnext.depths,
        "dims": convnext.dims,
        "norm_eps": convnext.eps,
    });
    let width = convnext.dims[convnext.dims.len() - 1];
    open_clip_json(width, side, arch, "shortest", (CLIP_MEAN, CLIP_STD))
}

fn open_clip_json(
    width: usize,
    side: u32,
    arch: Value,
    resize: &str,
    (mean, std): ([f64; 3], [f64; 3]),
) -> Value {
    json!({
        "model_cfg": {
            "embed_dim": width,
            "vision_cfg": {
                "image_size": side,
                "timm_model_name": "custom",
                "timm_model_pretrained": false,
                "timm_pool": "",
                "timm_proj": "none",
            },
        },
        "preprocess_cfg": {
            "interpolation": "bicubic", "mean": mean, "resize_mode": resize, "std": std,
        },
        "timm_arch": arch,
    })
}

/// `preprocessor_config.json`: the published processor of the family.
fn preprocessor(config: &EncoderConfig, side: u32) -> Value {
    let (kind, mean, std) = match config {
        EncoderConfig::Siglip(_) => ("SiglipImageProcessor", HALF, HALF),
        EncoderConfig::Dinov2(_) => ("BitImageProcessor", IMAGENET_MEAN, IMAGENET_STD),
        EncoderConfig::Clip(_) | EncoderConfig::ConvNext(_) => {
            ("CLIPImageProcessor", CLIP_MEAN, CLIP_STD)
        }
    };
    let square = json!({"height": side, "width": side});
    let common = json!({
        "do_convert_rgb": true, "do_normalize": true, "do_rescale": true, "do_resize": true,
        "image_mean": mean, "image_processor_type": kind, "image_std": std, "resample": 3,
        "rescale_factor": 1.0 / 255.0,
    });
    match config {
        EncoderConfig::Siglip(_) => with(common, &[("size", square)]),
        _ => with(
            common,
            &[
                ("crop_size", square),
                ("do_center_crop", json!(true)),
                ("size", json!({"shortest_edge": side})),
            ],
        ),
    }
}

/// The name that transformers reads; a gated layer's is fixed and not asked for.
fn activation_name(feed_forward: FeedForwardKind) -> &'static str {
    match feed_forward {
        FeedForwardKind::Mlp(Activation::Gelu) => "gelu",
        FeedForwardKind::Mlp(Activation::GeluTanh) => "gelu_pytorch_tanh",
        FeedForwardKind::Mlp(Activation::QuickGelu) => "quick_gelu",
        FeedForwardKind::Mlp(Activation::Relu) => "relu",
        FeedForwardKind::Mlp(Activation::Silu) | FeedForwardKind::SwiGlu => "silu",
    }
}

/// The ratio of which readers, who cut `width · ratio` to a whole number, make `hidden`.
fn ratio(width: usize, hidden: usize) -> f64 {
    let exact = hidden as f64 / width as f64;
    if (width as f64 * exact) as usize == hidden {
        exact
    } else {
        (hidden as f64 + 0.5) / width as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::registry::REGISTRY;

    /// The configuration of every row says all that its reader needs.
    #[test]
    fn configurations_are_read_back() {
        for entry in REGISTRY {
            let json = entry.config.to_json(64);
            let read = EncoderConfig::from_json(&json, Path::new("config.json")).unwrap();
            assert_eq!(read, entry.config, "{}", entry.name());
        }
    }

    proptest! {
        #[test]
        fn any_hidden_width_survives_its_ratio(width in 1usize..5000, hidden in 1usize..20_000) {
            prop_assert_eq!((width as f64 * ratio(width, hidden)) as usize, hidden);
        }
    }
}
