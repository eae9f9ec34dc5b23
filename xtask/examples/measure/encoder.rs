//! Vision encoders: one picture through one encoder, resampled to the tokens that the released
//! models ask for.

use std::time::Instant;

use burn::prelude::*;
use opabinia_nn::Grid;
use opabinia_vision::{Encoder, EncoderConfig, EncoderSpec};

use crate::weights::{activations, count, fill};
use crate::{Fallible, WeightFormat, Workload};

/// Workload, published name, side of the token grid in the released models.
const ENCODERS: [(&str, &str, usize); 4] = [
    ("siglip", "siglip/CLIP-ViT-SO400M-14-384", 24),
    ("clip", "openai/clip-vit-large-patch14-336", 24),
    ("dinov2", "facebook/dinov2-giant-res378", 24),
    ("convnext", "clip-convnext-XXL-multi-stage", 96),
];

pub(crate) fn workload(
    name: &str,
    dtype: WeightFormat,
    smoke: bool,
    device: &Device,
) -> Fallible<Workload> {
    let found = ENCODERS.iter().find(|(short, ..)| *short == name);
    let (_, published, tokens) = *found.ok_or_else(|| format!("there is no encoder `{name}`"))?;
    let spec = EncoderSpec::parse(published)?;
    let mut config = spec.entry.config;
    if smoke {
        make_shallow(&mut config);
    }
    let encoder = fill(Encoder::new(&spec, config, device)?, dtype);
    let side = encoder.side() as usize;
    let pixels: Tensor<4> = activations([1, 3, side, side], device);
    Ok(Workload {
        parameters: count(&encoder),
        amount: 1.0,
        losses: Vec::new(),
        pass: Box::new(move || {
            let start = Instant::now();
            let features = encoder.encode(pixels.clone(), Some(Grid::square(tokens)));
            features.features.device().sync()?;
            Ok(start.elapsed().as_secs_f64())
        }),
    })
}

/// Two blocks of a transformer, one block of each stage.
fn make_shallow(config: &mut EncoderConfig) {
    match config {
        EncoderConfig::Clip(vit) | EncoderConfig::Dinov2(vit) => vit.layers = 2,
        EncoderConfig::Siglip(siglip) => siglip.vit.layers = 2,
        EncoderConfig::ConvNext(convnext) => convnext.depths = [1; 4],
    }
}
