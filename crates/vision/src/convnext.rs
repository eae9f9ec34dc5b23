//! ConvNeXt as the vision trunk of an OpenCLIP model.
//!
//! A ConvNet for the 2020s (arXiv 2201.03545); the checkpoints are LAION's. Four stages of falling
//! resolution (a quarter, an eighth, a sixteenth, a thirty-second of the picture); the features are
//! the outputs of all stages or of the last one, before the head's norm and pooling. Taking all
//! stages is what Cambrian-1 calls *multi-stage*.
//!
//! Features are channels-last throughout, so that every norm and every 1×1 convolution is an
//! operation on the rows of one large matrix. Stochastic depth, which the reference implementation
//! leaves switched on by mistake, is not: the network is deterministic.

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;
use opabinia_nn::conv::ConvShape;
use opabinia_nn::{Activation, Conv2d, FeatureGrid, Grid, LayerNorm, Mlp, PatchEmbed, Trace};
use opabinia_weights::KeyMap;

use crate::encoder::network_paths;
use crate::error::VisionError;
use crate::json::Fields;

/// Side in pixels at which the reference implementation runs these encoders, whatever the side of
/// their pretraining.
pub(crate) const REFERENCE_SIDE: u32 = 1024;

/// Pixels per cell of the first stage, both ways.
pub(crate) const FIRST_STRIDE: usize = 4;

/// Pixels per cell of the last stage, both ways.
pub(crate) const LAST_STRIDE: usize = 32;

/// Side of the depthwise kernels.
const KERNEL: usize = 7;

/// The architecture of a ConvNeXt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvNextConfig {
    /// Blocks of each stage.
    pub depths: [usize; 4],
    /// Width of each stage.
    pub dims: [usize; 4],
    /// Added to variances in layer norms.
    pub eps: f64,
}

/// ConvNeXt-L.
pub(crate) const LARGE: ConvNextConfig = ConvNextConfig {
    depths: [3, 3, 27, 3],
    dims: [192, 384, 768, 1536],
    eps: 1e-6,
};

/// ConvNeXt-XXL; timm gives it another epsilon than the smaller ones.
pub(crate) const XXLARGE: ConvNextConfig = ConvNextConfig {
    depths: [3, 4, 30, 3],
    dims: [384, 768, 1536, 3072],
    eps: 1e-5,
};

/// The defaults of timm's `ConvNeXt`.
const TIMM_DEFAULT: ConvNextConfig = ConvNextConfig {
    depths: [3, 3, 9, 3],
    dims: [96, 192, 384, 768],
    eps: 1e-6,
};

/// timm's architectures that OpenCLIP models use, without a pretraining tag.
const TIMM_MODELS: &[(&str, ConvNextConfig)] = &[
    (
        "convnext_base",
        ConvNextConfig {
            depths: [3, 3, 27, 3],
            dims: [128, 256, 512, 1024],
            eps: 1e-6,
        },
    ),
    ("convnext_large", LARGE),
    ("convnext_xxlarge", XXLARGE),
];

/// A timm model by name, changed by `overrides`; `None` if it is not a ConvNeXt known here.
pub(crate) fn from_timm_model(
    model: &str,
    overrides: Option<&Fields<'_>>,
) -> Result<Option<ConvNextConfig>, VisionError> {
    let Some((_, config)) = TIMM_MODELS.iter().find(|(name, _)| *name == model) else {
        return Ok(None);
    };
    match overrides {
        Some(fields) => from_timm_arguments(*config, fields).map(Some),
        None => Ok(Some(*config)),
    }
}

/// A network that a `timm_arch` table describes; `None` if it describes another than this.
pub(crate) fn from_timm_arch(fields: &Fields<'_>) -> Result<Option<ConvNextConfig>, VisionError> {
    if !fields.has("depths") || !fields.has("dims") {
        return Ok(None);
    }
    from_timm_arguments(TIMM_DEFAULT, fields).map(Some)
}

fn from_timm_arguments(
    default: ConvNextConfig,
    fields: &Fields<'_>,
) -> Result<ConvNextConfig, VisionError> {
    let config = ConvNextConfig {
        depths: fields.sizes("depths", default.depths)?,
        dims: fields.sizes("dims", default.dims)?,
        eps: fields.positive("norm_eps", default.eps)?,
    };
    if config.depths.iter().any(|depth| *depth > 1000) {
        return Err(fields.refuse("depths", "at most 1000 blocks a stage"));
    }
    Ok(config)
}

/// The prefixes under which files hold the trunk: in an OpenCLIP model, and alone.
pub(crate) const PREFIXES: &[&str] = &["visual.trunk.", ""];

/// From module paths to timm's names.
pub(crate) fn key_map(prefix: &str) -> KeyMap {
    network_paths()
        .rename(r"^stem\.conv\.", "stem.0.")
        .rename(r"^stem\.norm\.", "stem.1.")
        .rename(r"\.downsample\.norm\.", ".downsample.0.")
        .rename(r"\.downsample\.conv\.", ".downsample.1.")
        .prefix(prefix)
}

/// File keys that are not part of the trunk: text tower, projections, head.
pub(crate) fn ignored_keys() -> Vec<String> {
    [
        r"^(text|transformer|token_embedding|ln_final)\.",
        r"^(positional_embedding|text_projection|attn_mask)$",
        r"^logit_(scale|bias)$",
        r"^(visual\.trunk\.)?head\.",
        r"^visual\.head\.",
    ]
    .map(str::to_owned)
    .into()
}

/// Patches of 4 × 4 pixels, then a norm.
#[derive(Module, Debug)]
struct Stem {
    conv: PatchEmbed,
    norm: LayerNorm,
}

impl Stem {
    /// `[b, 3, h, w]` → `[b, h/4, w/4, d]`.
    fn forward(&self, pixels: Tensor<4>) -> Tensor<4> {
        let [b, _, height, width] = pixels.dims();
        let x = self.conv.forward(pixels);
        let [_, _, d] = x.dims();
        self.norm
            .forward(x.reshape([b, height / FIRST_STRIDE, width / FIRST_STRIDE, d]))
    }
}

/// A norm, then windows of 2 × 2 cells become one cell of the next width.
#[derive(Module, Debug)]
struct Downsample {
    norm: LayerNorm,
    conv: PatchEmbed,
}

impl Downsample {
    /// `[b, r, c, d]` → `[b, r/2, c/2, d']`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward_channels_last(self.norm.forward(x))
    }
}

/// `x + gamma · mlp(norm(depthwise(x)))`.
#[derive(Module, Debug)]
struct ConvBlock {
    conv_dw: Conv2d,
    norm: LayerNorm,
    mlp: Mlp,
    gamma: Param<Tensor<1>>,
}

impl ConvBlock {
    fn new(d: usize, eps: f64, device: &Device) -> Self {
        let shape = ConvShape {
            d_in: d,
            d_out: d,
            kernel: KERNEL,
            stride: 1,
            padding: KERNEL / 2,
            groups: d,
        };
        Self {
            conv_dw: Conv2d::new(shape, true, device),
            norm: LayerNorm::new(d, eps, device),
            mlp: Mlp::new(d, 4 * d, d, Activation::Gelu, device),
            gamma: Initializer::Constant { value: 1e-6 }.init([d], device),
        }
    }

    /// `[b, r, c, d]` → `[b, r, c, d]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mixed = self.conv_dw.depthwise(x.clone());
        let y = self.mlp.forward(self.norm.forward(mixed));
        x + y * self.gamma.val().unsqueeze()
    }
}

#[derive(Module, Debug)]
struct Stage {
    downsample: Option<Downsample>,
    blocks: Vec<ConvBlock>,
}

impl Stage {
    /// `[b, r, c, d]` → `[b, r', c', d']`.
    fn forward(&self, x: Tensor<4>, index: usize, trace: &mut Trace) -> Tensor<4> {
        let mut x = match &self.downsample {
            Some(downsample) => downsample.forward(x),
            None => x,
        };
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x);
            trace.record(format_args!("stage{index}_block{i}"), || planes(&x));
        }
        trace.record(format_args!("stage_{index}"), || planes(&x));
        x
    }
}

/// ConvNeXt without its head.
#[derive(Module, Debug)]
pub struct ConvNext {
    stem: Stem,
    stages: [Stage; 4],
}

impl ConvNext {
    pub(crate) fn new(config: &ConvNextConfig, device: &Device) -> Self {
        let ConvNextConfig { depths, dims, eps } = *config;
        let stage = |i: usize| Stage {
            downsample: (i > 0).then(|| Downsample {
                norm: LayerNorm::new(dims[i - 1], eps, device),
                conv: PatchEmbed::new(dims[i - 1], dims[i], 2, true, device),
            }),
            blocks: (0..depths[i])
                .map(|_| ConvBlock::new(dims[i], eps, device))
                .collect(),
        };
        Self {
            stem: Stem {
                conv: PatchEmbed::new(3, dims[0], FIRST_STRIDE, true, device),
                norm: LayerNorm::new(dims[0], eps, device),
            },
            stages: std::array::from_fn(stage),
        }
    }

    /// The outputs of the four stages, finest first.
    ///
    /// Reports `stem`, `stage{i}_block{j}` and `stage_{i}`, as planes `[b, d, r, c]`.
    ///
    /// # Shapes
    /// - `pixels`: `[b, 3, h, w]`, normalised
    /// - output `i`: `[b, ⌊h / 2ⁱ⁺²⌋ · ⌊w / 2ⁱ⁺²⌋, dᵢ]`
    ///
    /// # Panics
    /// If the pixels are smaller than a cell of the last stage.
    pub fn forward(&self, pixels: Tensor<4>, trace: &mut Trace) -> [FeatureGrid; 4] {
        let [_, _, height, width] = pixels.dims();
        let smallest = height.min(width);
        assert!(
            smallest >= LAST_STRIDE,
            "a {smallest} px picture has no cell in the last stage"
        );
        let mut x = self.stem.forward(pixels);
        trace.record(format_args!("stem"), || planes(&x));
        std::array::from_fn(|i| {
            x = self.stages[i].forward(x.clone(), i, trace);
            FeatureGrid::from_rows(x.clone())
        })
    }
}

/// `[b, r, c, d]` → `[b, d, r, c]`.
fn planes(x: &Tensor<4>) -> Tensor<4> {
    x.clone().permute([0, 3, 1, 2])
}

/// The grid of a stage (0 to 3) on a picture.
pub(crate) fn stage_grid(stage: usize, height: usize, width: usize) -> Grid {
    let stride = FIRST_STRIDE << stage;
    Grid {
        rows: height / stride,
        cols: width / stride,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_halve_the_grid() {
        let device = Device::flex();
        let config = ConvNextConfig {
            depths: [1; 4],
            dims: [4, 6, 8, 10],
            eps: 1e-6,
        };
        let x = Tensor::random(
            [2, 3, 70, 100],
            burn::tensor::Distribution::Default,
            &device,
        );
        let outputs = ConvNext::new(&config, &device).forward(x, &mut Trace::off());
        for (i, output) in outputs.iter().enumerate() {
            assert_eq!(output.grid, stage_grid(i, 70, 100));
            assert_eq!(output.width(), config.dims[i]);
        }
        assert_eq!(outputs[3].grid, Grid { rows: 2, cols: 3 });
    }

    #[test]
    fn module_paths_become_timm_keys() {
        let map = key_map(PREFIXES[0]);
        let keys = [
            ("stem.conv.weight", "visual.trunk.stem.0.weight"),
            (
                "stages.1.downsample.norm.bias",
                "visual.trunk.stages.1.downsample.0.bias",
            ),
            (
                "stages.2.blocks.4.norm.bias",
                "visual.trunk.stages.2.blocks.4.norm.bias",
            ),
            (
                "network.ConvNext.stages.0.blocks.1.gamma",
                "visual.trunk.stages.0.blocks.1.gamma",
            ),
        ];
        for (path, key) in keys {
            assert_eq!(map.file_key(path).key, key);
        }
    }
}
