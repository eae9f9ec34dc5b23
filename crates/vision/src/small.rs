//! The encoders of the small model that ships with this program, as it trains them.
//!
//! They are ordinary members of their families, only smaller, so that the small model runs on two
//! cores in a moment. Their weights come with the model folder that uses them (`towers/`); the
//! `config.json` there decides the sizes, as everywhere. These constants serve tables, and training
//! where a recipe names no other configuration.

use opabinia_nn::Activation;

use crate::convnext::ConvNextConfig;
use crate::siglip::{Layout, SiglipConfig};
use crate::transformer::{FeedForwardKind, VitConfig};

/// A transformer of 8 × 8 patches on pictures of 128 px.
const VIT: VitConfig = VitConfig {
    width: 128,
    layers: 6,
    heads: 4,
    hidden: 512,
    feed_forward: FeedForwardKind::Mlp(Activation::GeluTanh),
    patch: 16,
    side: 128,
    eps: 1e-6,
    qkv_bias: true,
    layer_scale: false,
};

/// Language-supervised: a SigLIP, as transformers runs it.
pub(crate) const SIGLIP: SiglipConfig = SiglipConfig {
    vit: VIT,
    layout: Layout::Transformers,
};

/// Self-supervised: a network of DINOv2's shape, trained as a masked autoencoder.
pub(crate) const DINOV2: VitConfig = VitConfig {
    feed_forward: FeedForwardKind::Mlp(Activation::Gelu),
    layer_scale: true,
    ..VIT
};

/// Convolutional, at a higher resolution, and taught what is where.
pub(crate) const CONVNEXT: ConvNextConfig = ConvNextConfig {
    depths: [2, 2, 4, 2],
    dims: [24, 48, 96, 192],
    eps: 1e-6,
};

/// The same, taught to read: wider where letters are told apart, and not so deep.
pub(crate) const CONVNEXT_TEXT: ConvNextConfig = ConvNextConfig {
    depths: [2, 4, 4, 1],
    dims: [32, 64, 128, 128],
    eps: 1e-6,
};

/// Side in pixels of the convolutional encoders' pictures.
pub(crate) const CONVNEXT_SIDE: u32 = 256;
