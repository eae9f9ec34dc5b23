//! SigLIP's vision transformer, in the layouts of timm, OpenCLIP (around timm) and transformers.
//!
//! Sigmoid Loss for Language Image Pre-Training (arXiv 2303.15343). The features are all tokens
//! after the final norm; there is no class token, and the attention pooling that makes one vector of
//! them is neither built nor loaded. A side that is not a multiple of the patch leaves its rest
//! unused: 384 px with a patch of 14 make 27 × 27 tokens.
//!
//! The layouts do not compute quite the same: transformers (and the original) use GELU's tanh
//! approximation, timm 0.9 the exact function. The configuration decides, so the encoders of
//! Cambrian-1, which come through timm, are exact.

use burn::module::{Module, Param};
use burn::prelude::*;
use opabinia_nn::{Activation, FeatureGrid, LayerNorm, PatchEmbed, Trace};
use opabinia_weights::KeyMap;

use crate::clip;
use crate::encoder::network_paths;
use crate::error::VisionError;
use crate::json::Fields;
use crate::transformer::{Block, FeedForwardKind, VitConfig, VitKeys, tokens};

/// How the tensors of a checkpoint are named and fused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// timm, alone or as the trunk of an OpenCLIP model: queries, keys and values are one tensor.
    Timm,
    /// transformers: three tensors.
    Transformers,
}

/// A SigLIP vision network and the layout of its files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SiglipConfig {
    /// The network.
    pub vit: VitConfig,
    /// The names in its checkpoint.
    pub layout: Layout,
}

/// What timm calls the arguments of its `VisionTransformer`.
const TIMM_KEYS: VitKeys = VitKeys {
    layers: "depth",
    heads: "num_heads",
    hidden: "mlp_ratio",
    patch: "patch_size",
};

/// The arguments of timm's `VisionTransformer` that matter here; its own defaults.
#[derive(Clone, Copy)]
struct TimmArguments {
    embed_dim: usize,
    depth: usize,
    num_heads: usize,
    mlp_ratio: f64,
    patch_size: usize,
    img_size: u32,
}

const TIMM_DEFAULT: TimmArguments = TimmArguments {
    embed_dim: 768,
    depth: 12,
    num_heads: 12,
    mlp_ratio: 4.0,
    patch_size: 16,
    img_size: 224,
};

const LARGE: TimmArguments = TimmArguments {
    embed_dim: 1024,
    depth: 24,
    num_heads: 16,
    ..TIMM_DEFAULT
};

const SO400M: TimmArguments = TimmArguments {
    embed_dim: 1152,
    depth: 27,
    num_heads: 16,
    mlp_ratio: 3.7362,
    patch_size: 14,
    ..TIMM_DEFAULT
};

/// timm's SigLIP architectures by name, without a pretraining tag.
const TIMM_MODELS: &[(&str, TimmArguments)] = &[
    ("vit_base_patch16_siglip_224", TIMM_DEFAULT),
    (
        "vit_base_patch16_siglip_256",
        TimmArguments {
            img_size: 256,
            ..TIMM_DEFAULT
        },
    ),
    (
        "vit_base_patch16_siglip_384",
        TimmArguments {
            img_size: 384,
            ..TIMM_DEFAULT
        },
    ),
    (
        "vit_base_patch16_siglip_512",
        TimmArguments {
            img_size: 512,
            ..TIMM_DEFAULT
        },
    ),
    (
        "vit_large_patch16_siglip_256",
        TimmArguments {
            img_size: 256,
            ..LARGE
        },
    ),
    (
        "vit_large_patch16_siglip_384",
        TimmArguments {
            img_size: 384,
            ..LARGE
        },
    ),
    ("vit_so400m_patch14_siglip_224", SO400M),
    (
        "vit_so400m_patch14_siglip_384",
        TimmArguments {
            img_size: 384,
            ..SO400M
        },
    ),
];

/// SigLIP SO400M/14 at 384 px as timm runs it.
pub(crate) const SO400M_384: SiglipConfig = SiglipConfig {
    vit: timm_vit(TimmArguments {
        img_size: 384,
        ..SO400M
    }),
    layout: Layout::Timm,
};

/// SigLIP SO400M/14 at 224 px as timm runs it.
pub(crate) const SO400M_224: SiglipConfig = SiglipConfig {
    vit: timm_vit(SO400M),
    layout: Layout::Timm,
};

/// SigLIP SO400M/14 at 384 px as transformers runs it.
pub(crate) const SO400M_384_TRANSFORMERS: SiglipConfig = SiglipConfig {
    vit: VitConfig {
        feed_forward: FeedForwardKind::Mlp(Activation::GeluTanh),
        ..SO400M_384.vit
    },
    layout: Layout::Transformers,
};

const fn timm_vit(arguments: TimmArguments) -> VitConfig {
    VitConfig {
        width: arguments.embed_dim,
        layers: arguments.depth,
        heads: arguments.num_heads,
        hidden: (arguments.embed_dim as f64 * arguments.mlp_ratio) as usize,
        feed_forward: FeedForwardKind::Mlp(Activation::Gelu),
        patch: arguments.patch_size,
        side: arguments.img_size,
        eps: 1e-6,
        qkv_bias: true,
        layer_scale: false,
    }
}

/// Reads transformers' `SiglipVisionConfig`, or the `vision_config` of a `SiglipConfig`.
pub(crate) fn from_transformers(vision: &Fields<'_>) -> Result<SiglipConfig, VisionError> {
    let default = timm_vit(TIMM_DEFAULT);
    let vit = clip::from_transformers_with(vision, default, Activation::GeluTanh)?;
    Ok(SiglipConfig {
        vit,
        layout: Layout::Transformers,
    })
}

/// A timm model by name, changed by `overrides`; `None` if it is no SigLIP that timm has.
pub(crate) fn from_timm_model(
    model: &str,
    overrides: Option<&Fields<'_>>,
) -> Result<Option<SiglipConfig>, VisionError> {
    let Some((_, arguments)) = TIMM_MODELS.iter().find(|(name, _)| *name == model) else {
        return Ok(None);
    };
    match overrides {
        Some(fields) => from_timm_arguments(*arguments, fields).map(Some),
        None => Ok(Some(SiglipConfig {
            vit: timm_vit(*arguments),
            layout: Layout::Timm,
        })),
    }
}

/// A network that a `timm_arch` table describes completely; `None` if it is another than SigLIP's,
/// which has no class token and pools by attention.
pub(crate) fn from_timm_arch(fields: &Fields<'_>) -> Result<Option<SiglipConfig>, VisionError> {
    if fields.flag("class_token", true)? || fields.text("global_pool")? != Some("map") {
        return Ok(None);
    }
    from_timm_arguments(TIMM_DEFAULT, fields).map(Some)
}

fn from_timm_arguments(
    default: TimmArguments,
    fields: &Fields<'_>,
) -> Result<SiglipConfig, VisionError> {
    let arguments = TimmArguments {
        embed_dim: fields.size("embed_dim", default.embed_dim)?,
        depth: fields.size(TIMM_KEYS.layers, default.depth)?,
        num_heads: fields.size(TIMM_KEYS.heads, default.num_heads)?,
        mlp_ratio: fields.positive(TIMM_KEYS.hidden, default.mlp_ratio)?,
        patch_size: fields.size(TIMM_KEYS.patch, default.patch_size)?,
        img_size: fields.side("img_size", default.img_size)?,
    };
    let standard = timm_vit(arguments);
    let vit = VitConfig {
        eps: fields.positive("norm_eps", standard.eps)?,
        qkv_bias: fields.flag("qkv_bias", standard.qkv_bias)?,
        ..standard
    };
    Ok(SiglipConfig {
        vit: vit.checked(fields, &TIMM_KEYS)?,
        layout: Layout::Timm,
    })
}

impl SiglipConfig {
    /// The prefixes under which files hold the vision network.
    pub(crate) fn prefixes(&self) -> &'static [&'static str] {
        match self.layout {
            Layout::Timm => &["visual.trunk.", ""],
            Layout::Transformers => clip::PREFIXES,
        }
    }

    /// From module paths to the names of the layout.
    pub(crate) fn key_map(&self, prefix: &str) -> KeyMap {
        match self.layout {
            Layout::Timm => timm_key_map(self.vit.width, prefix),
            Layout::Transformers => clip::key_map(prefix).reshaped(r"^(network\.\w+\.)?position$"),
        }
    }
}

fn timm_key_map(width: usize, prefix: &str) -> KeyMap {
    network_paths()
        .rename(r"^patch\.", "patch_embed.proj.")
        .rename(r"^position$", "pos_embed")
        .part(r"\.attn\.q\.", ".attn.qkv.", 0..width)
        .part(r"\.attn\.k\.", ".attn.qkv.", width..2 * width)
        .part(r"\.attn\.v\.", ".attn.qkv.", 2 * width..3 * width)
        .rename(r"\.attn\.out\.", ".attn.proj.")
        .rename(r"\.mlp\.(Mlp|Gated)\.", ".mlp.")
        .prefix(prefix)
}

/// File keys that are not part of the network: text tower, pooling, heads, buffers.
pub(crate) fn ignored_keys() -> Vec<String> {
    [
        r"^text(_model)?\.",
        r"^logit_(scale|bias)$",
        r"^(visual\.trunk\.)?(attn_pool|head|fc_norm)\.",
        r"^visual\.head\.",
        r"^vision_model\.head\.",
        r"\.position_ids$",
    ]
    .map(str::to_owned)
    .into()
}

/// SigLIP's vision network.
#[derive(Module, Debug)]
pub struct Siglip {
    patch: PatchEmbed,
    /// `[1, n, d]` as timm stores it; transformers stores `[n, d]`.
    position: Param<Tensor<3>>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    #[module(skip)]
    config: VitConfig,
}

impl Siglip {
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
            position: tokens([1, config.grid().len(), width], device),
            blocks: Block::stack(config, layers, device),
            norm: LayerNorm::new(width, eps, device),
            config: *config,
        }
    }

    /// All tokens after the final norm.
    ///
    /// Reports under timm's names `patch_embed`, `embeddings`, `block_i`, `norm`, and the same
    /// tensors under transformers' names `hidden_0` (before the first block), `hidden_i` (after `i`
    /// blocks), `last_hidden_state`.
    ///
    /// # Shapes
    /// - `pixels`: `[b, 3, px, px]`, normalised
    /// - output: `[b, ⌊px / patch⌋², d]`
    ///
    /// # Panics
    /// If the pixels are not of the side that the position table was made for.
    pub fn forward(&self, pixels: Tensor<4>, trace: &mut Trace) -> FeatureGrid {
        let [_, _, height, width] = pixels.dims();
        let grid = self.config.grid_of(height, width);
        let trained = self.config.grid();
        assert_eq!(
            grid, trained,
            "SigLIP's position table is {trained}, the pixels make {grid}"
        );
        let x = self.patch.forward(pixels);
        trace.record(format_args!("patch_embed"), || x.clone());
        let mut x = x + self.position.val();
        trace.record(format_args!("embeddings"), || x.clone());
        trace.record(format_args!("hidden_0"), || x.clone());
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x);
            trace.record(format_args!("block_{i}"), || x.clone());
            trace.record(format_args!("hidden_{}", i + 1), || x.clone());
        }
        let x = self.norm.forward(x);
        trace.record(format_args!("norm"), || x.clone());
        trace.record(format_args!("last_hidden_state"), || x.clone());
        FeatureGrid::new(x, grid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mlp_ratio_is_cut_to_a_whole_width() {
        assert_eq!(SO400M_384.vit.hidden, 4304);
        assert_eq!(SO400M_384.vit.grid().len(), 729);
    }

    #[test]
    fn queries_keys_and_values_are_rows_of_one_tensor() {
        let map = timm_key_map(10, "visual.trunk.");
        let key = map.file_key("blocks.3.attn.v.bias");
        assert_eq!(key.key, "visual.trunk.blocks.3.attn.qkv.bias");
        assert_eq!(key.rows, Some(20..30));
        let out = map.file_key("blocks.3.attn.out.bias");
        assert_eq!(
            (out.key.as_str(), out.rows),
            ("visual.trunk.blocks.3.attn.proj.bias", None)
        );
    }
}
