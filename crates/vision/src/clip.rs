//! CLIP's vision transformer, as transformers publishes it (`CLIPModel`, `CLIPVisionModel`).
//!
//! Learning Transferable Visual Models From Natural Language Supervision (arXiv 2103.00020). The
//! features are those of a *selected layer*, by default the last but one (`hidden_states[−2]`), with
//! the class token dropped and without the final norm, which was trained for the class token alone.
//! Blocks after the selected layer are neither built nor loaded.

use burn::module::{Module, Param};
use burn::prelude::*;
use opabinia_nn::{Activation, FeatureGrid, Grid, LayerNorm, PatchEmbed, Trace};
use opabinia_weights::KeyMap;

use crate::encoder::network_paths;
use crate::error::VisionError;
use crate::json::Fields;
use crate::transformer::{
    Block, FeedForwardKind, VitConfig, VitKeys, prepend, tokens, without_first,
};

/// What transformers calls the values of a CLIP or SigLIP vision configuration.
pub(crate) const KEYS: VitKeys = VitKeys {
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    hidden: "intermediate_size",
    patch: "patch_size",
};

/// The defaults of transformers' `CLIPVisionConfig`, which are CLIP ViT-B/32.
pub(crate) const BASE_PATCH32: VitConfig = VitConfig {
    width: 768,
    layers: 12,
    heads: 12,
    hidden: 3072,
    feed_forward: FeedForwardKind::Mlp(Activation::QuickGelu),
    patch: 32,
    side: 224,
    eps: 1e-5,
    qkv_bias: true,
    layer_scale: false,
};

/// CLIP ViT-B/16.
pub(crate) const BASE_PATCH16: VitConfig = VitConfig {
    patch: 16,
    ..BASE_PATCH32
};

/// CLIP ViT-L/14.
pub(crate) const LARGE_PATCH14: VitConfig = VitConfig {
    width: 1024,
    layers: 24,
    heads: 16,
    hidden: 4096,
    patch: 14,
    ..BASE_PATCH32
};

/// Reads transformers' `CLIPVisionConfig`, or the `vision_config` of a `CLIPConfig`.
pub(crate) fn from_transformers(vision: &Fields<'_>) -> Result<VitConfig, VisionError> {
    from_transformers_with(vision, BASE_PATCH32, Activation::QuickGelu)
}

/// The fields that CLIP and SigLIP share in transformers; absent ones are those of `default`
/// and `act`.
pub(crate) fn from_transformers_with(
    vision: &Fields<'_>,
    default: VitConfig,
    act: Activation,
) -> Result<VitConfig, VisionError> {
    if vision.size("num_channels", 3)? != 3 {
        return Err(vision.refuse("num_channels", "3: pictures are red, green, blue"));
    }
    let config = VitConfig {
        width: vision.size("hidden_size", default.width)?,
        layers: vision.size(KEYS.layers, default.layers)?,
        heads: vision.size(KEYS.heads, default.heads)?,
        hidden: vision.size(KEYS.hidden, default.hidden)?,
        feed_forward: FeedForwardKind::Mlp(vision.activation("hidden_act", act)?),
        patch: vision.size(KEYS.patch, default.patch)?,
        side: vision.side("image_size", default.side)?,
        eps: vision.positive("layer_norm_eps", default.eps)?,
        ..default
    };
    config.checked(vision, &KEYS)
}

/// The prefixes under which files hold the vision network; transformers 5 writes a vision model
/// alone without one.
pub(crate) const PREFIXES: &[&str] = &["vision_model.", ""];

/// From module paths to transformers' names, which SigLIP shares.
pub(crate) fn key_map(prefix: &str) -> KeyMap {
    network_paths()
        .rename(r"^patch\.", "embeddings.patch_embedding.")
        .rename(r"^class$", "embeddings.class_embedding")
        .rename(r"^position$", "embeddings.position_embedding.weight")
        // The misspelling is the published name.
        .rename(r"^pre_norm\.", "pre_layrnorm.")
        .rename(r"^norm\.", "post_layernorm.")
        .rename(r"^blocks\.", "encoder.layers.")
        .rename(r"\.norm([12])\.", ".layer_norm${1}.")
        .rename(r"\.attn\.(q|k|v|out)\.", ".self_attn.${1}_proj.")
        .rename(r"\.mlp\.(Mlp|Gated)\.", ".mlp.")
        .prefix(prefix)
}

/// File keys that are not part of the network: text tower, projections, buffers, the norm after the
/// last block and the blocks after the first `built` of `layers`.
pub(crate) fn ignored_keys(built: usize, layers: usize) -> Vec<String> {
    let mut keys: Vec<String> = [
        r"^text_model\.",
        r"^(text|visual)_projection\.",
        r"^logit_scale$",
        r"\.position_ids$",
        r"^(vision_model\.)?post_layernorm\.",
    ]
    .map(str::to_owned)
    .into();
    let skipped = (built..layers).map(|i| format!(r"^(vision_model\.)?encoder\.layers\.{i}\."));
    keys.extend(skipped);
    keys
}

/// CLIP's vision network up to the selected layer.
#[derive(Module, Debug)]
pub struct Clip {
    patch: PatchEmbed,
    class: Param<Tensor<1>>,
    position: Param<Tensor<2>>,
    pre_norm: LayerNorm,
    blocks: Vec<Block>,
    #[module(skip)]
    config: VitConfig,
}

impl Clip {
    /// A network with the first `blocks` blocks of an architecture.
    pub(crate) fn new(config: &VitConfig, blocks: usize, device: &Device) -> Self {
        let VitConfig {
            width, patch, eps, ..
        } = *config;
        Self {
            patch: PatchEmbed::new(3, width, patch, false, device),
            class: tokens([width], device),
            position: tokens([1 + config.grid().len(), width], device),
            pre_norm: LayerNorm::new(width, eps, device),
            blocks: Block::stack(config, blocks, device),
            config: *config,
        }
    }

    /// Number of blocks built.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The output of the last block built, without the class token.
    ///
    /// Reports `patch_conv`, `embeddings`, `hidden_0` (before the first block), `hidden_i` (after
    /// `i` blocks), and `last_hidden_state` if every block was built.
    ///
    /// # Shapes
    /// - `pixels`: `[b, 3, px, px]`, normalised
    /// - output: `[b, (px / patch)², d]`
    ///
    /// # Panics
    /// If the pixels are not of the side that the position table was made for.
    pub fn forward(&self, pixels: Tensor<4>, trace: &mut Trace) -> FeatureGrid {
        let (x, grid) = self.tokens(pixels, trace);
        FeatureGrid::new(without_first(x), grid)
    }

    /// All tokens after the last block built, class token first, `[b, 1 + n, d]`, and the grid of the
    /// others; see [`forward`](Self::forward).
    pub(crate) fn tokens(&self, pixels: Tensor<4>, trace: &mut Trace) -> (Tensor<3>, Grid) {
        let [_, _, height, width] = pixels.dims();
        let grid = self.config.grid_of(height, width);
        let trained = self.config.grid();
        assert_eq!(
            grid, trained,
            "CLIP's position table is {trained}, the pixels make {grid}"
        );
        let x = self.patch.forward(pixels);
        trace.record(format_args!("patch_conv"), || x.clone());
        let x = prepend(self.class.val().unsqueeze(), x) + self.position.val().unsqueeze();
        trace.record(format_args!("embeddings"), || x.clone());
        let mut x = self.pre_norm.forward(x);
        trace.record(format_args!("hidden_0"), || x.clone());
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x);
            trace.record(format_args!("hidden_{}", i + 1), || x.clone());
        }
        if self.blocks.len() == self.config.layers {
            trace.record(format_args!("last_hidden_state"), || x.clone());
        }
        (x, grid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_paths_become_published_keys() {
        let map = key_map(PREFIXES[0]);
        let keys = [
            (
                "patch.weight",
                "vision_model.embeddings.patch_embedding.weight",
            ),
            ("class", "vision_model.embeddings.class_embedding"),
            (
                "position",
                "vision_model.embeddings.position_embedding.weight",
            ),
            ("pre_norm.bias", "vision_model.pre_layrnorm.bias"),
            (
                "blocks.11.norm2.bias",
                "vision_model.encoder.layers.11.layer_norm2.bias",
            ),
            (
                "blocks.0.attn.out.weight",
                "vision_model.encoder.layers.0.self_attn.out_proj.weight",
            ),
            (
                "blocks.0.mlp.Mlp.fc1.weight",
                "vision_model.encoder.layers.0.mlp.fc1.weight",
            ),
        ];
        for (path, key) in keys {
            assert_eq!(map.file_key(path).key, key);
        }
    }
}
