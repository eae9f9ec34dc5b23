//! From pictures to visual tokens: preprocess, encode, connect.
//!
//! Pictures are taken one at a time, so memory does not grow with their number, and what came out
//! is shared: a picture that is asked about again is not looked at again (see
//! [`crate::session::Session`]).

use std::sync::Arc;

use opabinia_connector::{Connected, PictureSize};
use opabinia_image::{RgbImage, prepare};
use opabinia_nn::{FeatureGrid, Grid, Trace};
use opabinia_vision::pixel_tensor;

use crate::ModelError;
use crate::load::Model;

/// A picture as the language model will see it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its visual tokens, and what in-LLM layers look at where the connector has such layers.
    pub connected: Connected,
    /// How the picture was taken, for people.
    pub view: PictureView,
}

/// How a picture was seen.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PictureView {
    /// Pixels of the picture itself.
    pub width: u32,
    /// Pixels of the picture itself.
    pub height: u32,
    /// One line per encoder.
    pub encoders: Vec<EncoderView>,
    /// Rows of visual tokens.
    pub rows: usize,
    /// Visual tokens in a row, the end-of-row token not counted.
    pub cols: usize,
    /// Tokens in the sequence, end-of-row tokens included.
    pub tokens: usize,
}

/// How one encoder saw a picture.
#[derive(Clone, Debug, serde::Serialize)]
pub struct EncoderView {
    /// Published name.
    pub name: String,
    /// Side of the square picture it was given, in pixels.
    pub side: usize,
    /// Pixels of that side that are padding, left and right or above and below together.
    pub padding: usize,
    /// Rows and columns of its own features.
    pub native: (usize, usize),
    /// Rows and columns after resampling.
    pub grid: (usize, usize),
    /// Width of a feature.
    pub width: usize,
    /// Seconds it took.
    pub seconds: f64,
}

/// Looks at a picture with one encoder.
pub type Look<'a> = dyn FnMut() -> Result<FeatureGrid, ModelError> + 'a;

/// Gives an encoder's features of a picture: those that it knows, or those of a look.
pub type FeaturesOf<'a> = dyn FnMut(usize, &mut Look<'_>) -> Result<FeatureGrid, ModelError> + 'a;

impl Model {
    /// Looks at a picture with every encoder and connects what they see.
    ///
    /// # Errors
    /// If the model has no vision encoders, or the picture cannot be preprocessed or connected.
    pub fn see(&self, picture: &RgbImage, trace: &mut Trace) -> Result<Arc<Seen>, ModelError> {
        self.see_through(picture, trace, &mut |_, look| look())
    }

    /// [`see`](Self::see), with somebody in between who may know what an encoder sees: `features` is told
    /// which encoder it is and how to look, and gives its features on the grid that the connector takes
    /// (`config.vision.grids`).
    ///
    /// # Errors
    /// As [`see`](Self::see), and what `features` gives.
    pub fn see_through(
        &self,
        picture: &RgbImage,
        trace: &mut Trace,
        features: &mut FeaturesOf<'_>,
    ) -> Result<Arc<Seen>, ModelError> {
        let Some(vision) = &self.config.vision else {
            return Err(ModelError::TextOnly);
        };
        let size = PictureSize {
            width: picture.width(),
            height: picture.height(),
        };
        // Refuse before the encoders work for seconds.
        opabinia_connector::layout::visible_region(size, vision.connector.token_grid())?;

        let mut grids = Vec::new();
        let mut views = Vec::new();
        for (i, (encoder, grid)) in self.network.encoders.iter().zip(&vision.grids).enumerate() {
            let start = std::time::Instant::now();
            let side = encoder.side() as usize;
            let seen = features(i, &mut || {
                let pixels = prepare(picture, &encoder.preprocessor())?;
                let pixels = pixel_tensor(pixels, &self.device);
                trace.record(format_args!("pixels{i}"), || pixels.clone());
                Ok(encoder.encode(pixels, Some(*grid)))
            })?;
            trace.record(format_args!("tower{i}"), || seen.features.clone());
            views.push(EncoderView {
                name: vision.encoders[i].clone(),
                side,
                padding: padding(size, side),
                native: pair(encoder.grid()),
                grid: pair(seen.grid),
                width: seen.width(),
                seconds: start.elapsed().as_secs_f64(),
            });
            grids.push(seen);
        }
        let connected = self.network.connect(&grids, &[size], trace)?;
        let Grid { rows, cols } = connected.grids[0];
        let view = PictureView {
            width: size.width,
            height: size.height,
            encoders: views,
            rows,
            cols,
            tokens: connected.tokens.dims()[0],
        };
        Ok(Arc::new(Seen { connected, view }))
    }
}

fn pair(grid: Grid) -> (usize, usize) {
    (grid.rows, grid.cols)
}

/// Pixels of a resized square that are padding along its padded axis.
fn padding(size: PictureSize, side: usize) -> usize {
    let (long, short) = (size.width.max(size.height), size.width.min(size.height));
    let kept = f64::from(short) / f64::from(long.max(1)) * side as f64;
    side - (kept.round() as usize).min(side)
}
