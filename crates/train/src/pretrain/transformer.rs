//! A small bidirectional transformer: the text tower of contrastive training and the decoder of
//! masked autoencoding. Both are thrown away once the encoder is trained, so they follow no
//! published layout: pre-norm blocks, biases everywhere, GELU.

use burn::module::Module;
use burn::prelude::*;
use opabinia_nn::attention::{merge_heads, split_heads};
use opabinia_nn::{Activation, AttentionMask, LayerNorm, Linear, Mlp, attention};
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// Added to variances in layer norms.
const EPS: f64 = 1e-6;

/// The sizes of a transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerSizes {
    /// Width of a token.
    pub width: usize,
    /// Blocks.
    pub layers: usize,
    /// Attention heads; they divide the width.
    pub heads: usize,
}

impl TransformerSizes {
    /// Checks what single values cannot show; `what` names the network in the error.
    pub(crate) fn check(&self, what: &str) -> Result<(), TrainError> {
        if self.heads == 0 || self.width == 0 || !self.width.is_multiple_of(self.heads) {
            return Err(TrainError::Refused(format!(
                "{} heads do not divide the width of the {what}, {}",
                self.heads, self.width
            )));
        }
        Ok(())
    }
}

/// Blocks and a final norm.
#[derive(Module, Debug)]
pub struct Transformer {
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl Transformer {
    pub(crate) fn new(sizes: &TransformerSizes, device: &Device) -> Self {
        Self {
            blocks: (0..sizes.layers)
                .map(|_| Block::new(sizes, device))
                .collect(),
            norm: LayerNorm::new(sizes.width, EPS, device),
        }
    }

    /// `[b, t, d]` → `[b, t, d]`.
    pub(crate) fn forward(&self, mut x: Tensor<3>, mask: &AttentionMask) -> Tensor<3> {
        for block in &self.blocks {
            x = block.forward(x, mask);
        }
        self.norm.forward(x)
    }
}

#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norm2: LayerNorm,
    mlp: Mlp,
    heads: usize,
}

impl Block {
    fn new(sizes: &TransformerSizes, device: &Device) -> Self {
        let width = sizes.width;
        let projection = || Linear::new(width, width, true, device);
        Self {
            norm1: LayerNorm::new(width, EPS, device),
            q: projection(),
            k: projection(),
            v: projection(),
            out: projection(),
            norm2: LayerNorm::new(width, EPS, device),
            mlp: Mlp::new(width, 4 * width, width, Activation::Gelu, device),
            heads: sizes.heads,
        }
    }

    fn forward(&self, x: Tensor<3>, mask: &AttentionMask) -> Tensor<3> {
        let normed = self.norm1.forward(x.clone());
        let heads = |layer: &Linear| split_heads(layer.forward(normed.clone()), self.heads);
        let attended = attention(heads(&self.q), heads(&self.k), heads(&self.v), mask);
        let x = x + self.out.forward(merge_heads(attended));
        let normed = self.norm2.forward(x.clone());
        x + self.mlp.forward(normed)
    }
}
