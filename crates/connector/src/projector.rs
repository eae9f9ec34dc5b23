//! The baselines: projectors over the encoders' concatenated features.

use burn::module::Module;
use burn::prelude::*;
use burn::tensor::activation::sigmoid;
use opabinia_nn::conv::ConvShape;
use opabinia_nn::{Activation, Conv2d, FeatureGrid, Grid, Linear};

use crate::config::{ProjectorConfig, ProjectorKind};

/// Channels of the convolution in [`ProjectorKind::CAbstractor`], fixed in the reference.
const ABSTRACTOR_WIDTH: usize = 1024;

/// A projector; which, the configuration says.
#[derive(Module, Debug)]
pub enum Projector {
    /// Linear layers with GELU between them, one for the plain linear projector.
    Mlp(Vec<Linear>),
    /// Features as they are.
    Identity(Identity),
    /// A gate over channels, then an MLP.
    SqueezeExcite(SqueezeExcite),
    /// A strided convolution, then an MLP.
    CAbstractor(CAbstractor),
}

/// Nothing to learn.
#[derive(Module, Debug)]
pub struct Identity {
    width: usize,
}

/// `x + x · σ(L₂(gelu(L₁(mean over tokens))))`, then an MLP.
#[derive(Module, Debug)]
pub struct SqueezeExcite {
    /// The two layers of the gate, without bias.
    pub gate: Vec<Linear>,
    /// The two layers of the projection.
    pub proj: Vec<Linear>,
}

/// A 3×3 convolution of stride 2 without bias, then an MLP.
#[derive(Module, Debug)]
pub struct CAbstractor {
    /// Halves both sides of the grid, rounding up.
    pub downsample: Conv2d,
    /// The two layers of the projection.
    pub readout: Vec<Linear>,
}

impl Projector {
    /// A projector with random weights.
    #[must_use]
    pub fn new(config: &ProjectorConfig, device: &Device) -> Self {
        let &ProjectorConfig {
            kind,
            input,
            hidden,
            ..
        } = config;
        match kind {
            ProjectorKind::Linear => Self::Mlp(linears(&[input, hidden], true, device)),
            ProjectorKind::Mlp { layers } => {
                let mut widths = vec![input];
                widths.resize(layers + 1, hidden);
                Self::Mlp(linears(&widths, true, device))
            }
            ProjectorKind::Identity => Self::Identity(Identity { width: input }),
            ProjectorKind::SqueezeExcite => Self::SqueezeExcite(SqueezeExcite {
                gate: linears(&[input, input, input], false, device),
                proj: linears(&[input, hidden, hidden], true, device),
            }),
            ProjectorKind::CAbstractor => {
                let shape = ConvShape {
                    d_in: input,
                    d_out: ABSTRACTOR_WIDTH,
                    kernel: 3,
                    stride: 2,
                    padding: 1,
                    groups: 1,
                };
                Self::CAbstractor(CAbstractor {
                    downsample: Conv2d::new(shape, false, device),
                    readout: linears(&[ABSTRACTOR_WIDTH, hidden, hidden], true, device),
                })
            }
        }
    }

    /// Concatenates the encoders' features and projects them.
    ///
    /// # Shapes
    /// - `grids[i]`: `[b, n, d_i]`, all on the same grid
    /// - output: `[b, n, hidden]`; for the abstractor `n` is that of half the sides, rounded up
    #[must_use]
    pub fn forward(&self, grids: &[FeatureGrid]) -> FeatureGrid {
        let input = FeatureGrid::concat(grids);
        let grid = input.grid;
        match self {
            Self::Identity(_) => input,
            Self::Mlp(layers) => FeatureGrid::new(run(layers, input.features), grid),
            Self::SqueezeExcite(net) => FeatureGrid::new(net.forward(input.features), grid),
            Self::CAbstractor(net) => net.forward(input),
        }
    }
}

impl SqueezeExcite {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = sigmoid(run(&self.gate, x.clone().mean_dim(1))); // [b, 1, d]
        run(&self.proj, x.clone() * gate + x)
    }
}

impl CAbstractor {
    fn forward(&self, input: FeatureGrid) -> FeatureGrid {
        let planes = input.into_rows().permute([0, 3, 1, 2]); // [b, d, rows, cols]
        let down = self.downsample.forward(planes);
        let [b, d, rows, cols] = down.dims();
        let tokens = down.permute([0, 2, 3, 1]).reshape([b, rows * cols, d]);
        FeatureGrid::new(run(&self.readout, tokens), Grid { rows, cols })
    }
}

/// A chain of linear layers through the given widths.
fn linears(widths: &[usize], bias: bool, device: &Device) -> Vec<Linear> {
    widths
        .windows(2)
        .map(|w| Linear::new(w[0], w[1], bias, device))
        .collect()
}

/// Runs a chain with GELU (exact) between its layers.
pub(crate) fn run<const D: usize>(layers: &[Linear], mut x: Tensor<D>) -> Tensor<D> {
    for (i, layer) in layers.iter().enumerate() {
        if i > 0 {
            x = Activation::Gelu.forward(x);
        }
        x = layer.forward(x);
    }
    x
}
