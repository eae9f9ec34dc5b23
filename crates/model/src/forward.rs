//! The forward path, from prepared pictures to hidden states, for anybody who has the parameters.
//!
//! ```text
//! encode ─▶ connect ─▶ pack ─▶ decoder with the in-LLM hook ─▶ hidden states
//! ```
//!
//! These are functions of the [`Network`] and a [`ModelConfig`], not of a [`crate::Model`], so that
//! workers that train need neither tokenizer nor template. [`crate::Model`] answers with the same
//! functions.

use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use opabinia_connector::{Connected, PictureSize};
use opabinia_image::PixelBatch;
use opabinia_llm::KvCache;
use opabinia_nn::{FeatureGrid, Grid, Trace};
use opabinia_vision::{Encoder, pixel_tensor};

use crate::config::VisionConfig;
use crate::in_llm::{ImagePosition, InLlm};
use crate::load::Network;
use crate::pack::Packed;
use crate::{ModelConfig, ModelError};

impl Network {
    /// What every encoder sees of `b` prepared pictures, on the grids of the configuration.
    ///
    /// An encoder without a parameter that trains runs without a graph.
    ///
    /// # Shapes
    /// - `pixels`: one batch per encoder, `[b, 3, px, px]`
    /// - output: one grid per encoder, `[b, n_i, d_i]`
    ///
    /// # Errors
    /// If there are not as many batches as encoders.
    pub fn encode(
        &self,
        vision: &VisionConfig,
        pixels: Vec<PixelBatch>,
        device: &Device,
    ) -> Result<Vec<FeatureGrid>, ModelError> {
        if pixels.len() != self.encoders.len() {
            return Err(ModelError::PictureInputs {
                found: pixels.len(),
                expected: self.encoders.len(),
            });
        }
        let encoders = self.encoders.iter().zip(&vision.grids).zip(pixels);
        Ok(encoders
            .map(|((encoder, grid), pixels)| encode(encoder, pixels, *grid, device))
            .collect())
    }

    /// Turns the features of `b` pictures into visual tokens.
    ///
    /// # Errors
    /// If the model has no connector, or a picture is too elongated.
    pub fn connect(
        &self,
        grids: &[FeatureGrid],
        sizes: &[PictureSize],
        trace: &mut Trace,
    ) -> Result<Connected, ModelError> {
        let connector = self.connector.as_ref().ok_or(ModelError::TextOnly)?;
        Ok(connector.forward(grids, sizes, trace)?)
    }

    /// Hidden states of a whole packed batch after the final norm, `[b, t, d]`, when nothing will
    /// be read after it.
    ///
    /// States of padding mean nothing.
    ///
    /// # Errors
    /// If the constant image position leaves a row.
    pub fn read(
        &self,
        config: &ModelConfig,
        packed: &Packed,
        rule: ImagePosition,
        trace: &mut Trace,
    ) -> Result<Tensor<3>, ModelError> {
        let step = packed.read_once();
        let mut hook = self.hook(config, packed, rule, trace)?;
        Ok(self.decoder.forward(step, &mut KvCache::new(), &mut hook))
    }

    /// The hook that runs in-LLM layers over a packed batch.
    ///
    /// # Errors
    /// If the constant image position leaves a row.
    pub fn hook<'a>(
        &'a self,
        config: &ModelConfig,
        packed: &'a Packed,
        rule: ImagePosition,
        trace: &'a mut Trace,
    ) -> Result<InLlm<'a>, ModelError> {
        let sva = self
            .connector
            .as_ref()
            .and_then(|connector| connector.sva());
        let vision = config.vision.as_ref();
        let position = vision.and_then(|vision| vision.image_position);
        InLlm::new(sva, packed, position, rule, trace)
    }
}

/// What one encoder sees of `b` prepared pictures, resampled to `grid`.
fn encode(encoder: &Encoder, pixels: PixelBatch, grid: Grid, device: &Device) -> FeatureGrid {
    if !device.is_autodiff() || trains(encoder) {
        return encoder.encode(pixel_tensor(pixels, device), Some(grid));
    }
    let pixels = pixel_tensor(pixels, &device.clone().inner());
    let seen = encoder.valid().encode(pixels, Some(grid));
    FeatureGrid::new(seen.features.autodiff(), seen.grid)
}

/// Whether any parameter of a module asks for a gradient.
pub(crate) fn trains<M: Module>(module: &M) -> bool {
    #[derive(Default)]
    struct Asks(bool);
    impl ModuleVisitor for Asks {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 |= param.val().is_require_grad();
        }
    }
    let mut asks = Asks::default();
    module.visit(&mut asks);
    asks.0
}
