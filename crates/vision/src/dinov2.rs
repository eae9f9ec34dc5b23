//! DINOv2, as transformers publishes it (`Dinov2Model`).
//!
//! DINOv2: Learning Robust Visual Features without Supervision (arXiv 2304.07193). The features are
//! all tokens after the final norm, without the class token. Pictures may have any size: the
//! position table is resampled to their grid.
//!
//! The resampling is that of transformers 4.37, which the reference implementation runs: it asks
//! PyTorch for a *scale factor* of `(n + 0.1) / g` instead of an output size, and PyTorch then uses
//! that factor for the sample points, so that they lie slightly beside those of later versions.

use burn::module::{Module, Param};
use burn::prelude::*;
use opabinia_nn::resample::Taps;
use opabinia_nn::{Activation, FeatureGrid, Grid, LayerNorm, PatchEmbed, Trace};
use opabinia_weights::KeyMap;

use crate::encoder::network_paths;
use crate::error::VisionError;
use crate::json::Fields;
use crate::transformer::{
    Block, FeedForwardKind, VitConfig, VitKeys, prepend, tokens, without_first,
};

/// What transformers calls the values of a DINOv2 configuration.
const KEYS: VitKeys = VitKeys {
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    hidden: "mlp_ratio",
    patch: "patch_size",
};

/// DINOv2 ViT-S/14.
pub(crate) const SMALL: VitConfig = VitConfig {
    width: 384,
    layers: 12,
    heads: 6,
    hidden: 1536,
    feed_forward: FeedForwardKind::Mlp(Activation::Gelu),
    patch: 14,
    side: 518,
    eps: 1e-6,
    qkv_bias: true,
    layer_scale: true,
};

/// DINOv2 ViT-B/14.
pub(crate) const BASE: VitConfig = VitConfig {
    width: 768,
    heads: 12,
    hidden: 3072,
    ..SMALL
};

/// DINOv2 ViT-L/14.
pub(crate) const LARGE: VitConfig = VitConfig {
    width: 1024,
    layers: 24,
    heads: 16,
    hidden: 4096,
    ..SMALL
};

/// DINOv2 ViT-g/14, the one with a gated feed-forward layer.
pub(crate) const GIANT: VitConfig = VitConfig {
    width: 1536,
    layers: 40,
    heads: 24,
    hidden: swiglu_width(6144),
    feed_forward: FeedForwardKind::SwiGlu,
    ..SMALL
};

/// Two thirds of the plain feed-forward width, rounded up to a multiple of 8.
const fn swiglu_width(plain: usize) -> usize {
    (plain * 2 / 3).next_multiple_of(8)
}

/// Reads transformers' `Dinov2Config`.
pub(crate) fn from_transformers(root: &Fields<'_>) -> Result<VitConfig, VisionError> {
    if root.size("num_channels", 3)? != 3 {
        return Err(root.refuse("num_channels", "3: pictures are red, green, blue"));
    }
    let width = root.size("hidden_size", 768)?;
    let plain = (width as f64 * root.positive(KEYS.hidden, 4.0)?) as usize;
    let (feed_forward, hidden) = if root.flag("use_swiglu_ffn", false)? {
        (FeedForwardKind::SwiGlu, swiglu_width(plain))
    } else {
        (
            FeedForwardKind::Mlp(root.activation("hidden_act", Activation::Gelu)?),
            plain,
        )
    };
    let config = VitConfig {
        width,
        layers: root.size(KEYS.layers, 12)?,
        heads: root.size(KEYS.heads, 12)?,
        hidden,
        feed_forward,
        patch: root.size(KEYS.patch, 16)?,
        side: root.side("image_size", 224)?,
        eps: root.positive("layer_norm_eps", 1e-6)?,
        qkv_bias: root.flag("qkv_bias", true)?,
        layer_scale: true,
    };
    config.checked(root, &KEYS)
}

/// The prefixes under which files hold the network: plain, and inside a classifier.
pub(crate) const PREFIXES: &[&str] = &["", "dinov2."];

/// From module paths to transformers' names.
pub(crate) fn key_map(config: &VitConfig, prefix: &str) -> KeyMap {
    let hidden = config.hidden;
    network_paths()
        .rename(r"^patch\.", "embeddings.patch_embeddings.projection.")
        .rename(r"^class$", "embeddings.cls_token")
        .rename(r"^position$", "embeddings.position_embeddings")
        .rename(r"^norm\.", "layernorm.")
        .rename(r"^blocks\.", "encoder.layer.")
        .rename(r"\.attn\.q\.", ".attention.attention.query.")
        .rename(r"\.attn\.k\.", ".attention.attention.key.")
        .rename(r"\.attn\.v\.", ".attention.attention.value.")
        .rename(r"\.attn\.out\.", ".attention.output.dense.")
        .rename(r"\.scale([12])$", ".layer_scale${1}.lambda1")
        .rename(r"\.mlp\.(Mlp|Gated)\.", ".mlp.")
        .part(r"\.mlp\.gate_proj\.", ".mlp.weights_in.", 0..hidden)
        .part(r"\.mlp\.up_proj\.", ".mlp.weights_in.", hidden..2 * hidden)
        .rename(r"\.mlp\.down_proj\.", ".mlp.weights_out.")
        .prefix(prefix)
}

/// File keys that are not part of the network: the mask token of pretraining, a classifier.
pub(crate) fn ignored_keys() -> Vec<String> {
    [r"(^|\.)embeddings\.mask_token$", r"^classifier\."]
        .map(str::to_owned)
        .into()
}

/// DINOv2's network.
#[derive(Module, Debug)]
pub struct Dinov2 {
    patch: PatchEmbed,
    class: Param<Tensor<3>>,
    position: Param<Tensor<3>>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    #[module(skip)]
    config: VitConfig,
}

impl Dinov2 {
    pub(crate) fn new(config: &VitConfig, device: &Device) -> Self {
        let VitConfig {
            width,
            layers,
            patch,
            eps,
            ..
        } = *config;
        Self {
            patch: PatchEmbed::new(3, width, patch, true, device),
            class: tokens([1, 1, width], device),
            position: tokens([1, 1 + config.grid().len(), width], device),
            blocks: Block::stack(config, layers, device),
            norm: LayerNorm::new(width, eps, device),
            config: *config,
        }
    }

    /// All tokens after the final norm, without the class token.
    ///
    /// Reports `pos_embed`, `embeddings`, `hidden_0` (before the first block), `hidden_i` (after
    /// `i` blocks) and `last_hidden_state` (with the class token).
    ///
    /// # Shapes
    /// - `pixels`: `[b, 3, h, w]`, normalised
    /// - output: `[b, ⌊h / patch⌋ · ⌊w / patch⌋, d]`
    ///
    /// # Panics
    /// If the pixels are smaller than a patch.
    pub fn forward(&self, pixels: Tensor<4>, trace: &mut Trace) -> FeatureGrid {
        let (x, grid) = self.tokens(pixels, trace);
        FeatureGrid::new(without_first(x), grid)
    }

    /// All tokens after the final norm, class token first, `[b, 1 + n, d]`, and the grid of the others;
    /// see [`forward`](Self::forward).
    pub(crate) fn tokens(&self, pixels: Tensor<4>, trace: &mut Trace) -> (Tensor<3>, Grid) {
        let [_, _, height, width] = pixels.dims();
        let grid = self.config.grid_of(height, width);
        assert!(
            !grid.is_empty(),
            "a {width} × {height} px picture has no whole patch"
        );
        let position = self.position_for(height, width);
        trace.record(format_args!("pos_embed"), || position.clone());
        let mut x = prepend(self.class.val(), self.patch.forward(pixels)) + position;
        trace.record(format_args!("embeddings"), || x.clone());
        trace.record(format_args!("hidden_0"), || x.clone());
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x);
            trace.record(format_args!("hidden_{}", i + 1), || x.clone());
        }
        let x = self.norm.forward(x);
        trace.record(format_args!("last_hidden_state"), || x.clone());
        (x, grid)
    }

    /// All tokens after the final norm of a network that sees only some patches of each picture,
    /// class token first: the encoder of masked autoencoding (arXiv 2111.06377, section 3).
    ///
    /// # Shapes
    /// - `pixels`: `[b, 3, h, w]`, normalised
    /// - `visible`: for each picture the `k` patches it is seen by, row-major
    /// - output: `[b, 1 + k, d]`, patches in the order of `visible`
    ///
    /// # Panics
    /// If the pictures differ in `k`, or a patch does not exist.
    pub fn forward_visible(&self, pixels: Tensor<4>, visible: &[Vec<usize>]) -> Tensor<3> {
        let [b, _, height, width] = pixels.dims();
        let device = pixels.device();
        let position = self.position_for(height, width);
        let class = self.class.val() + position.clone().narrow(1, 0, 1);
        let patches = self.patch.forward(pixels) + without_first(position);
        let [_, n, d] = patches.dims();
        let places: Vec<i32> = visible
            .iter()
            .enumerate()
            .flat_map(|(picture, seen)| seen.iter().map(move |patch| (picture * n + patch) as i32))
            .collect();
        let seen = patches
            .reshape([b * n, d])
            .select(0, Tensor::from_data(places.as_slice(), &device))
            .reshape([b, places.len() / b, d]);
        let mut x = prepend(class, seen);
        for block in &self.blocks {
            x = block.forward(x);
        }
        self.norm.forward(x)
    }

    /// The position table for a picture in pixels, `[1, 1 + n, d]`; the class token's row stays.
    ///
    /// Computed anew each time: it is far below a thousandth of the forward pass, and a stored copy
    /// would go stale in training.
    fn position_for(&self, height: usize, width: usize) -> Tensor<3> {
        let table = self.position.val();
        let (trained, grid) = (self.config.grid(), self.config.grid_of(height, width));
        if grid == trained && height == width {
            return table;
        }
        let [_, _, d] = table.dims();
        let class = table.clone().narrow(1, 0, 1);
        let patches = without_first(table).reshape([1, trained.rows, trained.cols, d]);
        let patches = positions_along(grid.rows, trained.rows).apply(patches, 1);
        let patches = positions_along(grid.cols, trained.cols).apply(patches, 2);
        Tensor::cat(vec![class, patches.reshape([1, grid.len(), d])], 1)
    }
}

/// Cubic resampling of `trained` positions to `wanted`, at the stated factor.
fn positions_along(wanted: usize, trained: usize) -> Taps {
    Taps::cubic(trained, wanted, (wanted as f64 + 0.1) / trained as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transformer::tests::tiny;

    #[test]
    fn the_giant_has_the_published_gated_width() {
        assert_eq!(GIANT.hidden, 4096);
    }

    /// A table that is equal everywhere stays so on any grid.
    #[test]
    fn resampling_keeps_a_constant_table() {
        let device = Device::flex();
        let mut network = Dinov2::new(&tiny(), &device);
        network.position = Param::from_tensor(Tensor::ones([1, 5, 8], &device));
        let position = network.position_for(12, 20);
        assert_eq!(position.dims(), [1, 16, 8]);
        for value in position.into_data().try_to_vec::<f32>().unwrap() {
            assert!((value - 1.0).abs() < 1e-6);
        }
    }

    /// Seeing every patch is the whole network; the order of patches does not matter.
    #[test]
    fn seeing_all_patches_is_the_forward_pass() {
        let device = Device::flex();
        let network = Dinov2::new(&tiny(), &device);
        let pixels = Tensor::random([2, 3, 8, 8], burn::tensor::Distribution::Default, &device);
        let all = network.forward(pixels.clone(), &mut Trace::off()).features;
        let orders = [vec![0, 1, 2, 3], vec![2, 0, 3, 1]];
        let seen = without_first(network.forward_visible(pixels, &orders));
        let places = [0, 1, 2, 3, 6, 4, 7, 5];
        let all = all
            .reshape([8, 8])
            .select(0, Tensor::from_data(places, &device));
        let worst = (seen.reshape([8, 8]) - all)
            .abs()
            .max()
            .into_scalar::<f32>();
        assert!(worst < 1e-5, "{worst}");
    }

    #[test]
    fn gated_halves_are_rows_of_one_tensor() {
        let map = key_map(&GIANT, "");
        let up = map.file_key("blocks.7.mlp.Gated.up_proj.weight");
        assert_eq!(up.key, "encoder.layer.7.mlp.weights_in.weight");
        assert_eq!(up.rows, Some(4096..8192));
        assert_eq!(
            map.file_key("blocks.7.scale2").key,
            "encoder.layer.7.layer_scale2.lambda1"
        );
    }
}
