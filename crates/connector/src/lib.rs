//! Connectors: from feature grids to visual tokens in the language model's space.
//!
//! Pillar 2 of Cambrian-1 (arXiv 2406.16860, section 3). [`Sva`] is the Spatial Vision Aggregator:
//! learnable queries, each with its own place in the picture, that look at their own window of
//! every encoder's grid, before the language model and again between its layers. [`Projector`] is
//! the family of per-token baselines. Both end the same way ([`layout`]): the padding of the
//! picture's square is cropped away and every row of visual tokens gets a learned end-of-row token.
//!
//! A connector knows neither pictures nor words: it is given [`FeatureGrid`]s and the sizes of the
//! pictures, and gives visual tokens ([`Connected`]) of any number of pictures at once.

pub mod config;
pub mod layout;
pub mod look;
pub mod projector;
pub mod sampler;
pub mod sva;

use burn::module::{Initializer, Module, Param};
use burn::prelude::*;
use opabinia_nn::{FeatureGrid, Grid, Trace};

pub use config::{
    ConnectorConfig, ConnectorError, InLlmConfig, LayerType, ProjectorKind, SvaConfig,
};
pub use layout::PictureSize;
pub use look::{Look, PictureContext};
pub use projector::Projector;
pub use sampler::{GlobalContext, Sampler, SamplerConfig};
pub use sva::Sva;

/// A connector of either kind, with its end-of-row token.
#[derive(Module, Debug)]
pub struct Connector {
    /// What turns features into tokens.
    pub kind: ConnectorKind,
    /// The token after every row of visual tokens, `[hidden]`.
    pub newline: Param<Tensor<1>>,
}

/// The two kinds.
#[derive(Module, Debug)]
pub enum ConnectorKind {
    /// The Spatial Vision Aggregator.
    Sva(Sva),
    /// A projector over the encoders' concatenated features.
    Projector(Projector),
}

/// What a connector makes of some pictures.
#[derive(Clone, Debug)]
pub struct Connected {
    /// `[n, hidden]`, the visual tokens of the pictures one after the other. Those of a picture are
    /// `rows · (cols + 1)`, row-major; the last of each row is the end-of-row token.
    pub tokens: Tensor<2>,
    /// Per picture the rows and columns that show it, end-of-row tokens not counted.
    pub grids: Vec<Grid>,
    /// What in-LLM layers look at, where there are such layers.
    pub context: Option<PictureContext>,
}

impl Connected {
    /// Puts pictures that were connected at different times behind each other.
    ///
    /// `None` without pictures, or if only some of them have a context.
    #[must_use]
    pub fn join(parts: &[&Self]) -> Option<Self> {
        if let [one] = parts {
            return Some((*one).clone());
        }
        let contexts: Vec<&PictureContext> = parts
            .iter()
            .filter_map(|part| part.context.as_ref())
            .collect();
        if parts.is_empty() || !(contexts.is_empty() || contexts.len() == parts.len()) {
            return None;
        }
        let tokens = parts.iter().map(|part| part.tokens.clone()).collect();
        let grids = parts.iter().flat_map(|part| part.grids.iter().copied());
        Some(Self {
            tokens: Tensor::cat(tokens, 0),
            grids: grids.collect(),
            context: PictureContext::join(&contexts),
        })
    }

    /// First visual token of each picture, and behind the last one their number.
    #[must_use]
    pub fn starts(&self) -> Vec<usize> {
        let mut starts = vec![0];
        for &grid in &self.grids {
            starts.push(starts[starts.len() - 1] + layout::token_count(grid));
        }
        starts
    }
}

impl Connector {
    /// A connector with random weights.
    #[must_use]
    pub fn new(config: &ConnectorConfig, device: &Device) -> Self {
        let hidden = config.hidden();
        let kind = match config {
            ConnectorConfig::Sva(config) => ConnectorKind::Sva(Sva::new(config, device)),
            ConnectorConfig::Projector(config) => {
                ConnectorKind::Projector(Projector::new(config, device))
            }
        };
        let std = 1.0 / (hidden as f64).sqrt();
        Self {
            kind,
            newline: Initializer::Normal { mean: 0.0, std }.init([hidden], device),
        }
    }

    /// Turns the encoders' features of `b` pictures into visual tokens.
    ///
    /// # Shapes
    /// - `grids`: one per encoder, `[b, n_i, d_i]`
    /// - `sizes`: the `b` pictures' sizes before any padding
    ///
    /// # Errors
    /// If a picture is so elongated that no cell of the visual grid would show it.
    pub fn forward(
        &self,
        grids: &[FeatureGrid],
        sizes: &[PictureSize],
        trace: &mut Trace,
    ) -> Result<Connected, ConnectorError> {
        let (grid, context) = match &self.kind {
            ConnectorKind::Sva(sva) => sva.forward(grids, sizes, trace)?,
            ConnectorKind::Projector(projector) => (projector.forward(grids), None),
        };
        trace.record(format_args!("mm_projector"), || grid.features.clone());
        let (tokens, grids) = layout::lay_out(grid, sizes, self.newline.val())?;
        Ok(Connected {
            tokens,
            grids,
            context,
        })
    }

    /// The aggregator, if this is one; in-LLM layers belong to it.
    #[must_use]
    pub fn sva(&self) -> Option<&Sva> {
        match &self.kind {
            ConnectorKind::Sva(sva) => Some(sva),
            ConnectorKind::Projector(_) => None,
        }
    }
}
