//! Self-supervision: masked autoencoding (arXiv 2111.06377) with a transformer of DINOv2's shape.
//!
//! Three quarters of the patches are hidden. The encoder sees the others only; a light decoder gets
//! its outputs and a mask token for every hidden patch, all with fixed positions, and must say what
//! the hidden patches look like. The loss is the mean squared error on pixels, normalised by mean
//! and deviation of their own patch (section 4.1 of the paper) if asked for, over hidden patches
//! alone.
//!
//! Attention does not know an order, so the decoder's tokens stay where they are, visible patches
//! first; only their positions tell the grid. Pictures are not augmented: the small world has as
//! many as anybody wants.

use std::sync::Arc;

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;
use opabinia_data::order::shuffled;
use opabinia_data::stream::shuffle;
use opabinia_image::{PixelBatch, Preprocessor};
use opabinia_nn::{AttentionMask, Grid, Linear};
use opabinia_vision::{Encoder, Family, pixel_tensor};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::encoder::{EncoderChoice, EncoderTask, Outputs, first_value};
use super::pictures::{Pictures, prepared};
use super::start::{Start, grid_waves, plain, start};
use super::transformer::{Transformer, TransformerSizes};
use crate::{BatchSize, LossSum, Task, TrainError};

/// Red, green, blue.
const CHANNELS: usize = 3;

/// Added to the variance of a patch, as the published code does.
const EPS: f64 = 1e-6;

/// What masked autoencoding is to be like, beside the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaeOptions {
    /// Share of the patches that is hidden; the paper's is 0.75.
    pub mask: f64,
    /// Whether the pixels of each patch are normalised before they are compared; the paper's better
    /// setting.
    pub normalise: bool,
    /// The decoder that is thrown away.
    pub decoder: TransformerSizes,
}

/// Encoder and decoder.
#[derive(Module, Debug)]
pub struct MaeModel {
    /// The encoder that is kept.
    pub encoder: Encoder,
    /// To the decoder's width.
    bridge: Linear,
    /// Stands for a hidden patch, `[1, 1, d]`.
    mask_token: Param<Tensor<3>>,
    decoder: Transformer,
    /// To the pixels of a patch.
    head: Linear,
}

/// A micro-batch.
#[derive(Clone, Debug, PartialEq)]
pub struct MaeBatch {
    pixels: PixelBatch,
    /// For each picture the patches that the encoder sees.
    visible: Vec<Vec<usize>>,
    /// For each picture the others.
    hidden: Vec<Vec<usize>>,
    /// Pixels of the hidden patches, `patch² · 3` each.
    targets: Vec<f32>,
}

impl MaeBatch {
    fn hidden_patches(&self) -> usize {
        self.hidden.iter().map(Vec::len).sum()
    }
}

/// Masked autoencoding of pictures.
pub struct MaeTask {
    choice: EncoderChoice,
    options: MaeOptions,
    preprocessor: Preprocessor,
    grid: Grid,
    patch: usize,
    /// Of each picture.
    visible: usize,
    /// The decoder's positions, `grid · width`.
    waves: Vec<f32>,
    pictures: Arc<dyn Pictures>,
}

impl MaeTask {
    /// Pictures, and how they are to be learnt from.
    ///
    /// # Errors
    /// If the encoder cannot leave patches out, if no patch would be hidden or none seen, or if
    /// the decoder's sizes do not fit.
    pub fn new(
        choice: EncoderChoice,
        options: MaeOptions,
        pictures: Arc<dyn Pictures>,
    ) -> Result<Self, TrainError> {
        options.decoder.check("decoder")?;
        let encoder = choice.build(Outputs::Last, &Device::flex())?;
        if choice.config.family() != Family::Dinov2 {
            return Err(TrainError::Refused(format!(
                "masked autoencoding needs an encoder that can leave patches out, a DINOv2; `{}` is \
                 a {}",
                choice.spec,
                choice.config.family()
            )));
        }
        let grid = encoder.grid();
        let visible = (grid.len() as f64 * (1.0 - options.mask)) as usize;
        if !(1..grid.len()).contains(&visible) {
            return Err(TrainError::Refused(format!(
                "hiding a share of {} of {} patches leaves {visible} to see; it must be between 0 \
                 and 1 and leave one on both sides",
                options.mask,
                grid.len()
            )));
        }
        Ok(Self {
            preprocessor: encoder.preprocessor(),
            grid,
            patch: encoder.stride(),
            visible,
            waves: grid_waves(grid.rows, grid.cols, options.decoder.width),
            choice,
            options,
            pictures,
        })
    }

    fn first_value(&self, path: &str, shape: &[usize]) -> Start {
        match path {
            "mask_token" => Start::Normal(0.02),
            path if path.starts_with("encoder.") => first_value(&self.choice.config, path, shape),
            path => plain(path, shape, Start::Xavier),
        }
    }

    /// Positions of a batch's patches, visible ones first, `[b, n, d]`.
    fn positions(&self, batch: &MaeBatch, device: &Device) -> Tensor<3> {
        let width = self.options.decoder.width;
        let mut values = Vec::with_capacity(batch.visible.len() * self.waves.len());
        for (visible, hidden) in batch.visible.iter().zip(&batch.hidden) {
            for &patch in visible.iter().chain(hidden) {
                values.extend_from_slice(&self.waves[patch * width..][..width]);
            }
        }
        let shape = [batch.visible.len(), self.grid.len(), width];
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// What the decoder says of the hidden patches, `[b · hidden, patch² · 3]`.
    fn guesses(
        &self,
        module: &MaeModel,
        batch: &MaeBatch,
        device: &Device,
    ) -> Result<Tensor<2>, TrainError> {
        let pixels = pixel_tensor(batch.pixels.clone(), device);
        let seen = module.encoder.encode_visible(pixels, &batch.visible)?;
        let [b, tokens, _] = seen.dims();
        let hidden = self.grid.len() + 1 - tokens;
        let width = self.options.decoder.width;
        let seen = module.bridge.forward(seen);
        let masks = module.mask_token.val().expand([b, hidden, width]);
        // The class token, in front, has no place.
        let nowhere = Tensor::zeros([b, 1, width], device);
        let positions = Tensor::cat(vec![nowhere, self.positions(batch, device)], 1);
        let x = Tensor::cat(vec![seen, masks], 1) + positions;
        let x = module.decoder.forward(x, &AttentionMask::None);
        let x = x.narrow(1, tokens, hidden).reshape([b * hidden, width]);
        Ok(module.head.forward(x))
    }
}

/// Appends the pixels of a patch, row by row, colour by colour.
fn push_patch(
    out: &mut Vec<f32>,
    pixels: &PixelBatch,
    picture: usize,
    (row, col): (usize, usize),
    patch: usize,
) {
    let (height, width) = (pixels.height(), pixels.width());
    let picture = &pixels.data()[picture * CHANNELS * height * width..];
    for y in row * patch..(row + 1) * patch {
        for x in col * patch..(col + 1) * patch {
            let values = (0..CHANNELS).map(|channel| picture[(channel * height + y) * width + x]);
            out.extend(values);
        }
    }
}

/// Gives values a mean of 0 and a variance of 1, the variance being that of a sample.
fn normalise(values: &mut [f32]) {
    let count = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let squares = values.iter().map(|&v| (f64::from(v) - mean).powi(2));
    let variance = squares.sum::<f64>() / (count - 1.0);
    let scale = (variance + EPS).sqrt().recip();
    for value in values {
        *value = ((f64::from(*value) - mean) * scale) as f32;
    }
}

impl EncoderTask for MaeTask {
    fn module(&self, seed: u64, device: &Device) -> Result<MaeModel, TrainError> {
        let encoder = self.choice.build(Outputs::Last, device)?;
        let width = self.options.decoder.width;
        let pixels = self.patch * self.patch * CHANNELS;
        let model = MaeModel {
            bridge: Linear::new(encoder.width(), width, true, device),
            mask_token: Initializer::Zeros.init([1, 1, width], device),
            decoder: Transformer::new(&self.options.decoder, device),
            head: Linear::new(width, pixels, true, device),
            encoder,
        };
        let mut model = start(model, seed, |path, shape| self.first_value(path, shape));
        model.encoder = self.choice.with_weights(model.encoder, device)?;
        Ok(model)
    }

    fn encoder(module: &MaeModel) -> &Encoder {
        &module.encoder
    }
}

impl Task for MaeTask {
    type Module = MaeModel;
    type Batch = MaeBatch;

    fn samples(&self) -> usize {
        self.pictures.count()
    }

    fn plan(&self, seed: u64, epoch: usize, batch: usize) -> Vec<Vec<u32>> {
        shuffled(self.pictures.count(), batch.max(1), seed, epoch)
    }

    fn load(
        &self,
        samples: &[u32],
        random: &mut ChaCha8Rng,
    ) -> Result<Option<MaeBatch>, TrainError> {
        if samples.is_empty() {
            return Ok(None);
        }
        let mut batch = MaeBatch {
            pixels: prepared(self.pictures.as_ref(), samples, &self.preprocessor)?,
            visible: Vec::with_capacity(samples.len()),
            hidden: Vec::with_capacity(samples.len()),
            targets: Vec::new(),
        };
        for picture in 0..samples.len() {
            let mut patches: Vec<usize> = (0..self.grid.len()).collect();
            shuffle(random, &mut patches);
            let hidden = patches.split_off(self.visible);
            for &place in &hidden {
                let cell = (place / self.grid.cols, place % self.grid.cols);
                let start = batch.targets.len();
                push_patch(&mut batch.targets, &batch.pixels, picture, cell, self.patch);
                if self.options.normalise {
                    normalise(&mut batch.targets[start..]);
                }
            }
            batch.visible.push(patches);
            batch.hidden.push(hidden);
        }
        Ok(Some(batch))
    }

    fn terms(&self, batch: &MaeBatch) -> usize {
        batch.hidden_patches()
    }

    fn size(&self, batch: &MaeBatch) -> BatchSize {
        BatchSize {
            samples: batch.visible.len(),
            tokens: 0,
            pictures: batch.visible.len(),
        }
    }

    fn loss(
        &self,
        module: &MaeModel,
        batch: &MaeBatch,
        device: &Device,
    ) -> Result<LossSum, TrainError> {
        let guesses = self.guesses(module, batch, device)?;
        let data = TensorData::new(batch.targets.clone(), guesses.dims());
        let error = (guesses - Tensor::from_data(data, device)).square();
        Ok(LossSum {
            sum: error.mean_dim(1).sum(),
            metrics: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right lower of four 2 × 2 patches: red 0 and 2, green 4, blue 1 everywhere.
    #[test]
    fn a_patch_is_normalised_by_itself() {
        let mut data = vec![100.0; 3 * 16];
        for (channel, values) in [[0.0, 2.0, 0.0, 2.0], [4.0; 4], [1.0; 4]]
            .iter()
            .enumerate()
        {
            for (i, value) in values.iter().enumerate() {
                data[channel * 16 + (2 + i / 2) * 4 + 2 + i % 2] = *value;
            }
        }
        let pixels = PixelBatch::from_raw(1, 4, 4, data).unwrap();
        let mut patch = Vec::new();
        push_patch(&mut patch, &pixels, 0, (1, 1), 2);
        assert_eq!(patch[..6], [0.0, 4.0, 1.0, 2.0, 4.0, 1.0]);
        normalise(&mut patch);
        // Mean 2, and the squares of 2·(−2), 2·0, 4·2, 4·(−1) add up to 28 over 11.
        let deviation = (28.0f32 / 11.0).sqrt();
        let expected = [-2.0, 2.0, -1.0, 0.0, 2.0, -1.0].map(|v| v / deviation);
        for (found, expected) in patch.iter().zip(expected.iter().cycle()) {
            assert!((found - expected).abs() < 1e-5, "{patch:?}");
        }
        assert_eq!(patch.len(), 12);
    }

    /// A patch of one colour is all zeros, not noise.
    #[test]
    fn a_flat_patch_is_zero() {
        let mut patch = vec![0.3; 12];
        normalise(&mut patch);
        assert!(patch.iter().all(|v| v.abs() < 1e-6), "{patch:?}");
    }
}
