//! The two feed-forward layers that networks of this family are made of.

use burn::module::Module;
use burn::prelude::*;

use crate::{Activation, Linear};

/// `fc2(act(fc1(x)))`, the feed-forward layer of vision transformers.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `d → hidden`.
    pub fc1: Linear,
    /// `hidden → d_out`.
    pub fc2: Linear,
    #[module(skip)]
    act: Activation,
}

impl Mlp {
    /// Both layers with bias.
    #[must_use]
    pub fn new(d: usize, hidden: usize, d_out: usize, act: Activation, device: &Device) -> Self {
        Self::with_bias(d, hidden, d_out, act, true, device)
    }

    /// With or without biases.
    #[must_use]
    pub fn with_bias(
        d: usize,
        hidden: usize,
        d_out: usize,
        act: Activation,
        bias: bool,
        device: &Device,
    ) -> Self {
        Self {
            fc1: Linear::new(d, hidden, bias, device),
            fc2: Linear::new(hidden, d_out, bias, device),
            act,
        }
    }

    /// `[.., d]` → `[.., d_out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.fc2.forward(self.fc1.forward_then(x, self.act))
    }
}

/// `down(act(gate(x)) · up(x))`, the feed-forward layer of Llama-type decoders.
#[derive(Module, Debug)]
pub struct GatedMlp {
    /// `d → hidden`, through the activation.
    pub gate_proj: Linear,
    /// `d → hidden`.
    pub up_proj: Linear,
    /// `hidden → d`.
    pub down_proj: Linear,
    #[module(skip)]
    act: Activation,
}

impl GatedMlp {
    /// No biases, as in every decoder of this family.
    #[must_use]
    pub fn new(d: usize, hidden: usize, act: Activation, device: &Device) -> Self {
        Self {
            gate_proj: Linear::new(d, hidden, false, device),
            up_proj: Linear::new(d, hidden, false, device),
            down_proj: Linear::new(hidden, d, false, device),
            act,
        }
    }

    /// `[.., d]` → `[.., d]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let gate = self.gate_proj.forward(x.clone());
        let up = self.up_proj.forward(x);
        self.down_proj.forward(self.act.gated(gate, up))
    }
}
