//! The vision transformer's shared part: configuration and pre-norm blocks.
//!
//! CLIP, SigLIP and DINOv2 differ in what stands before and after their blocks, in the non-linearity
//! and in two optional parts of a block (layer scale, gated feed-forward), not in the block itself:
//!
//! ```text
//! x ─┬─ norm1 ─ attention ─ (· scale1) ─┬─ + ─┬─ norm2 ─ feed-forward ─ (· scale2) ─┬─ + ─▶
//!    └──────────────────────────────────┘     └─────────────────────────────────────┘
//! ```
//!
//! Queries, keys and values are three layers whatever the checkpoint does; fused tensors are taken
//! apart by the key map, at no cost.

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;
use opabinia_nn::attention::{merge_heads, split_heads};
use opabinia_nn::{Activation, AttentionMask, GatedMlp, Grid, LayerNorm, Linear, Mlp, attention};

use crate::error::VisionError;
use crate::json::Fields;

/// The architecture of a vision transformer over square pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VitConfig {
    /// Width of a token.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads; they divide the width.
    pub heads: usize,
    /// Width inside the feed-forward layer.
    pub hidden: usize,
    /// What the feed-forward layer is.
    pub feed_forward: FeedForwardKind,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Side in pixels of the pictures that the position table was made for.
    pub side: u32,
    /// Added to variances in layer norms.
    pub eps: f64,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Whether each branch is scaled by a learnt vector (DINOv2).
    pub layer_scale: bool,
}

/// The two feed-forward layers of vision transformers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForwardKind {
    /// `fc2(act(fc1(x)))`.
    Mlp(Activation),
    /// `down(silu(gate(x)) · up(x))`, with biases.
    SwiGlu,
}

impl VitConfig {
    /// The grid of patches on a picture; pixels right and below of the last whole patch are unused.
    #[must_use]
    pub fn grid_of(&self, height: usize, width: usize) -> Grid {
        Grid {
            rows: height / self.patch,
            cols: width / self.patch,
        }
    }

    /// The grid of the position table.
    #[must_use]
    pub fn grid(&self) -> Grid {
        self.grid_of(self.side as usize, self.side as usize)
    }

    /// Checks what single values cannot show.
    pub(crate) fn checked(self, fields: &Fields<'_>, keys: &VitKeys) -> Result<Self, VisionError> {
        if !self.width.is_multiple_of(self.heads) {
            return Err(fields.refuse(keys.heads, format!("a divisor of {}", self.width)));
        }
        if self.layers > 1000 {
            return Err(fields.refuse(keys.layers, "at most 1000 layers"));
        }
        if self.hidden == 0 || self.hidden > 1 << 20 {
            return Err(fields.refuse(keys.hidden, "a usable width of the feed-forward layer"));
        }
        if self.grid().is_empty() {
            return Err(fields.refuse(keys.patch, format!("at most {}", self.side)));
        }
        Ok(self)
    }
}

/// What a library calls the values of [`VitConfig`] that depend on each other.
pub(crate) struct VitKeys {
    pub(crate) layers: &'static str,
    pub(crate) heads: &'static str,
    pub(crate) hidden: &'static str,
    pub(crate) patch: &'static str,
}

/// Self-attention over all tokens.
#[derive(Module, Debug)]
struct SelfAttention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: usize,
}

impl SelfAttention {
    fn new(config: &VitConfig, device: &Device) -> Self {
        let VitConfig {
            width,
            heads,
            qkv_bias,
            ..
        } = *config;
        let projection = || Linear::new(width, width, qkv_bias, device);
        Self {
            q: projection(),
            k: projection(),
            v: projection(),
            out: Linear::new(width, width, true, device),
            heads,
        }
    }

    /// `[b, t, d]` → `[b, t, d]`.
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let q = split_heads(self.q.forward(x.clone()), self.heads);
        let k = split_heads(self.k.forward(x.clone()), self.heads);
        let v = split_heads(self.v.forward(x), self.heads);
        self.out
            .forward(merge_heads(attention(q, k, v, &AttentionMask::None)))
    }
}

#[derive(Module, Debug)]
enum FeedForward {
    Mlp(Mlp),
    Gated(GatedMlp),
}

impl FeedForward {
    fn new(config: &VitConfig, device: &Device) -> Self {
        let VitConfig {
            width,
            hidden,
            feed_forward,
            ..
        } = *config;
        match feed_forward {
            FeedForwardKind::Mlp(act) => Self::Mlp(Mlp::new(width, hidden, width, act, device)),
            FeedForwardKind::SwiGlu => {
                let mut gated = GatedMlp::new(width, hidden, Activation::Silu, device);
                gated.gate_proj = Linear::new(width, hidden, true, device);
                gated.up_proj = Linear::new(width, hidden, true, device);
                gated.down_proj = Linear::new(hidden, width, true, device);
                Self::Gated(gated)
            }
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Mlp(mlp) => mlp.forward(x),
            Self::Gated(gated) => gated.forward(x),
        }
    }
}

/// One pre-norm block; see the module documentation.
#[derive(Module, Debug)]
pub(crate) struct Block {
    norm1: LayerNorm,
    attn: SelfAttention,
    scale1: Option<Param<Tensor<1>>>,
    norm2: LayerNorm,
    mlp: FeedForward,
    scale2: Option<Param<Tensor<1>>>,
}

impl Block {
    fn new(config: &VitConfig, device: &Device) -> Self {
        let norm = || LayerNorm::new(config.width, config.eps, device);
        let scale = || {
            config
                .layer_scale
                .then(|| Initializer::Ones.init([config.width], device))
        };
        Self {
            norm1: norm(),
            attn: SelfAttention::new(config, device),
            scale1: scale(),
            norm2: norm(),
            mlp: FeedForward::new(config, device),
            scale2: scale(),
        }
    }

    /// The first `count` blocks of a network.
    pub(crate) fn stack(config: &VitConfig, count: usize, device: &Device) -> Vec<Self> {
        (0..count).map(|_| Self::new(config, device)).collect()
    }

    /// `[b, t, d]` → `[b, t, d]`.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let attended = self.attn.forward(self.norm1.forward(x.clone()));
        let x = x + scaled(attended, self.scale1.as_ref());
        let transformed = self.mlp.forward(self.norm2.forward(x.clone()));
        x + scaled(transformed, self.scale2.as_ref())
    }
}

fn scaled(x: Tensor<3>, scale: Option<&Param<Tensor<1>>>) -> Tensor<3> {
    match scale {
        Some(scale) => x * scale.val().unsqueeze(),
        None => x,
    }
}

/// Learnt token vectors in the shape in which a checkpoint keeps them.
pub(crate) fn tokens<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    let normal = Initializer::Normal {
        mean: 0.0,
        std: 0.02,
    };
    normal.init(shape, device)
}

/// Puts a token before all others: `[1, 1, d]`, `[b, n, d]` → `[b, 1 + n, d]`.
pub(crate) fn prepend(token: Tensor<3>, x: Tensor<3>) -> Tensor<3> {
    let [b, _, d] = x.dims();
    Tensor::cat(vec![token.expand([b, 1, d]), x], 1)
}

/// Drops the first token: `[b, 1 + n, d]` → `[b, n, d]`.
pub(crate) fn without_first(x: Tensor<3>) -> Tensor<3> {
    let [b, t, d] = x.dims();
    x.slice([0..b, 1..t, 0..d])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two blocks of width 8 over a 2×2 grid.
    pub(crate) fn tiny() -> VitConfig {
        VitConfig {
            width: 8,
            layers: 2,
            heads: 2,
            hidden: 12,
            feed_forward: FeedForwardKind::Mlp(Activation::Gelu),
            patch: 4,
            side: 8,
            eps: 1e-6,
            qkv_bias: true,
            layer_scale: false,
        }
    }

    /// With both scales at zero nothing is added to the residual stream.
    #[test]
    fn a_block_scaled_to_zero_is_the_identity() {
        let device = Device::flex();
        let config = VitConfig {
            layer_scale: true,
            ..tiny()
        };
        let mut block = Block::new(&config, &device);
        block.scale1 = Some(Initializer::Zeros.init([8], &device));
        block.scale2 = Some(Initializer::Zeros.init([8], &device));
        let x = Tensor::<3>::random([2, 3, 8], burn::tensor::Distribution::Default, &device);
        assert_eq!(block.forward(x.clone()).into_data(), x.into_data());
    }

    #[test]
    fn every_parameter_of_a_block_gets_a_gradient() {
        let device = Device::flex().autodiff();
        for feed_forward in [
            FeedForwardKind::Mlp(Activation::Gelu),
            FeedForwardKind::SwiGlu,
        ] {
            let config = VitConfig {
                layer_scale: true,
                feed_forward,
                ..tiny()
            };
            let block = Block::new(&config, &device);
            let x = Tensor::<3>::random([1, 4, 8], burn::tensor::Distribution::Default, &device);
            let grads = block.forward(x).square().sum().backward();
            assert!(block.attn.q.weight.val().grad(&grads).is_some());
            assert!(
                block
                    .scale1
                    .as_ref()
                    .and_then(|s| s.val().grad(&grads))
                    .is_some()
            );
            assert!(block.norm2.bias.val().grad(&grads).is_some());
        }
    }

    #[test]
    fn the_first_token_comes_and_goes() {
        let device = Device::flex();
        let x = Tensor::<3>::from_floats([[[1.0, 2.0]], [[3.0, 4.0]]], &device);
        let with = prepend(Tensor::full([1, 1, 2], 9.0, &device), x.clone());
        assert_eq!(
            with.clone().into_data().try_to_vec::<f32>().unwrap(),
            [9., 9., 1., 2., 9., 9., 3., 4.]
        );
        assert_eq!(without_first(with).into_data(), x.into_data());
    }
}
