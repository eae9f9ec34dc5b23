//! From a micro-batch to a loss: the forward path of answers, with cross entropy at its end.
//!
//! Position `i` predicts token `i + 1` (Cambrian-1, section 5: next-token prediction on the answer
//! tokens). Only positions before a trained token go through the head; visual tokens are never
//! trained. Rows are padded to the longest of the micro-batch, not to a constant, and a row without
//! a picture has no visual tokens at all.
//!
//! Everything runs on a [`Network`] of the caller, so several threads can each train a fork.

use burn::prelude::*;
use opabinia_connector::{Connected, PictureSize};
use opabinia_image::PixelBatch;
use opabinia_llm::{Decoder, PromptToken};
use opabinia_nn::{FeatureGrid, Trace, cross_entropy};

use crate::config::VisionConfig;
use crate::in_llm::{ImagePosition, row_indices};
use crate::load::Network;
use crate::pack::{Packed, PackedRow, RowToPack, Unit};
use crate::{ModelConfig, ModelError};

/// One sample of a micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct TrainingRow<'a> {
    /// Its tokens, pictures as placeholders.
    pub tokens: &'a [PromptToken],
    /// For each token whether it is trained. A placeholder never is, nor is the first token, which
    /// nothing comes before.
    pub trained: &'a [bool],
    /// The picture of each placeholder.
    pub pictures: &'a [PictureInput],
    /// Where each of several questions about the same beginning starts, as an index of `tokens`, the
    /// beginning itself not counted; empty where every token sees all that are before it. A branch has
    /// the loss and gradients that the beginning and it would have as a row of their own; its first
    /// token must not be a trained one.
    pub branches: &'a [usize],
}

/// A picture on its way into the model.
#[derive(Clone, Debug)]
pub enum PictureInput {
    /// Prepared for each encoder, `[1, 3, px, px]`, and the size of the picture before that.
    Pixels(Vec<PixelBatch>, PictureSize),
    /// What each encoder saw, `[1, n_i, d_i]` without a graph, and the size of the picture.
    Features(Vec<FeatureGrid>, PictureSize),
}

impl PictureInput {
    /// Pixels of the picture itself.
    #[must_use]
    pub fn size(&self) -> PictureSize {
        match self {
            Self::Pixels(_, size) | Self::Features(_, size) => *size,
        }
    }
}

/// How a loss is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossOptions {
    /// Where in-LLM layers look for visual tokens.
    pub image_position: ImagePosition,
    /// Whether [`crate::training_gradients`] keeps only the input of each decoder layer and runs the
    /// layer again on the way back: less memory for about a third more time.
    pub checkpointing: bool,
}

impl Default for LossOptions {
    fn default() -> Self {
        Self {
            image_position: ImagePosition::Actual,
            checkpointing: false,
        }
    }
}

/// The loss of a micro-batch.
#[derive(Clone, Debug)]
pub struct LossOutput {
    /// Cross entropy summed over the trained tokens, `[1]`, with its graph.
    pub sum: Tensor<1>,
    /// Number of trained tokens.
    pub terms: usize,
}

/// The summed loss of a micro-batch.
///
/// `device` is that of the network: an autodiff device gives a loss with a graph, another one
/// (with [`burn::module::Module::valid`]) the same number without.
///
/// # Errors
/// If a row cannot be packed, a picture does not fit the encoders, or nothing is trained.
pub fn training_loss(
    network: &Network,
    config: &ModelConfig,
    device: &Device,
    rows: &[TrainingRow<'_>],
    options: &LossOptions,
) -> Result<LossOutput, ModelError> {
    let packed = pack_training(network, config, device, rows)?;
    let targets = Targets::of(rows, &packed)?;
    let hidden = network.read(config, &packed, options.image_position, &mut Trace::off())?;
    Ok(targets.loss(&network.decoder, hidden))
}

/// Sees the pictures of a micro-batch and packs its rows.
pub(crate) fn pack_training(
    network: &Network,
    config: &ModelConfig,
    device: &Device,
    rows: &[TrainingRow<'_>],
) -> Result<Packed, ModelError> {
    let pictures: Vec<&PictureInput> = rows.iter().flat_map(|row| row.pictures).collect();
    let (connected, places) = match pictures[..] {
        [] => (None, Vec::new()),
        _ => {
            let (connected, places) = connect_pictures(network, config, device, &pictures)?;
            (Some(connected), places)
        }
    };
    let mut places = places.into_iter();
    let rows: Vec<RowToPack<'_>> = rows
        .iter()
        .map(|row| RowToPack {
            tokens: row.tokens,
            pictures: places.by_ref().take(row.pictures.len()).collect(),
            branches: row.branches,
        })
        .collect();
    network.pack(config, &rows, connected.as_ref(), device)
}

/// Pictures through the connector at once, and where each of them stands in the result: those that
/// still have to be encoded come first there.
///
/// # Errors
/// If the model sees no pictures, or a picture does not fit its encoders.
pub fn connect_pictures(
    network: &Network,
    config: &ModelConfig,
    device: &Device,
    pictures: &[&PictureInput],
) -> Result<(Connected, Vec<usize>), ModelError> {
    let vision = config.vision.as_ref().ok_or(ModelError::TextOnly)?;
    // Those with pixels, as one batch.
    let (fresh, known): (Vec<usize>, Vec<usize>) =
        (0..pictures.len()).partition(|&i| matches!(pictures[i], PictureInput::Pixels(..)));
    let order: Vec<usize> = fresh.into_iter().chain(known).collect();
    let grids = features(network, vision, device, order.iter().map(|&i| pictures[i]))?;
    let sizes: Vec<PictureSize> = order.iter().map(|&i| pictures[i].size()).collect();
    let connected = network.connect(&grids, &sizes, &mut Trace::off())?;
    let mut places = vec![0; order.len()];
    for (place, &picture) in order.iter().enumerate() {
        places[picture] = place;
    }
    Ok((connected, places))
}

/// The features of pictures of which those with pixels come first, one grid per encoder.
fn features<'a>(
    network: &Network,
    vision: &VisionConfig,
    device: &Device,
    pictures: impl Iterator<Item = &'a PictureInput>,
) -> Result<Vec<FeatureGrid>, ModelError> {
    let encoders = vision.encoders.len();
    let mut pixels: Vec<Vec<PixelBatch>> = vec![Vec::new(); encoders];
    let mut features: Vec<Vec<Tensor<3>>> = vec![Vec::new(); encoders];
    for picture in pictures {
        match picture {
            PictureInput::Pixels(batches, _) => {
                check_inputs(batches.len(), encoders)?;
                for (all, batch) in pixels.iter_mut().zip(batches) {
                    all.push(batch.clone());
                }
            }
            PictureInput::Features(grids, _) => {
                check_inputs(grids.len(), encoders)?;
                check_grids(grids, vision)?;
                for (all, grid) in features.iter_mut().zip(grids) {
                    all.push(constant(grid.features.clone(), device));
                }
            }
        }
    }
    if pixels.iter().any(|batches| !batches.is_empty()) {
        let pixels = pixels
            .into_iter()
            .map(PixelBatch::stack)
            .collect::<Result<Vec<_>, _>>()?;
        let encoded = network.encode(vision, pixels, device)?;
        for (all, grid) in features.iter_mut().zip(encoded) {
            all.insert(0, grid.features);
        }
    }
    let joined = features.into_iter().zip(&vision.grids);
    Ok(joined
        .map(|(features, grid)| FeatureGrid::new(Tensor::cat(features, 0), *grid))
        .collect())
}

/// A tensor without a graph, as an operand on `device`.
fn constant(x: Tensor<3>, device: &Device) -> Tensor<3> {
    let x = x.to_device(&device.clone().inner());
    if device.is_autodiff() {
        x.autodiff()
    } else {
        x
    }
}

fn check_inputs(found: usize, expected: usize) -> Result<(), ModelError> {
    if found == expected {
        return Ok(());
    }
    Err(ModelError::PictureInputs { found, expected })
}

fn check_grids(grids: &[FeatureGrid], vision: &VisionConfig) -> Result<(), ModelError> {
    let pairs = grids.iter().zip(&vision.grids).enumerate();
    for (encoder, (found, expected)) in pairs {
        if found.grid != *expected {
            return Err(ModelError::FeatureGrid {
                encoder,
                found: found.grid,
                expected: *expected,
            });
        }
    }
    Ok(())
}

/// What is to be predicted, and where.
pub(crate) struct Targets {
    /// Rows of the flattened hidden states.
    positions: Vec<usize>,
    /// The tokens that follow there.
    ids: Vec<u32>,
}

impl Targets {
    /// The trained tokens of a packed micro-batch.
    ///
    /// # Errors
    /// If there is none.
    ///
    /// # Panics
    /// If a row has not a mark for each token: both come from the same tokenization.
    pub(crate) fn of(rows: &[TrainingRow<'_>], packed: &Packed) -> Result<Self, ModelError> {
        let (mut positions, mut ids) = (Vec::new(), Vec::new());
        for (index, (row, placed)) in rows.iter().zip(&packed.rows).enumerate() {
            let (tokens, marks) = (row.tokens.len(), row.trained.len());
            assert_eq!(tokens, marks, "{marks} marks for {tokens} tokens");
            for (slot, id) in trained_tokens(row, placed) {
                positions.push(index * packed.len() + slot - 1);
                ids.push(id);
            }
        }
        if ids.is_empty() {
            return Err(ModelError::NothingTrained { rows: rows.len() });
        }
        Ok(Self { positions, ids })
    }

    /// Number of trained tokens.
    pub(crate) fn terms(&self) -> usize {
        self.ids.len()
    }

    /// Scores of the trained positions alone against what follows; `hidden` is `[b, t, d]`.
    pub(crate) fn loss(&self, decoder: &Decoder, hidden: Tensor<3>) -> LossOutput {
        let [b, t, d] = hidden.dims();
        let device = hidden.device();
        let positions = row_indices(&self.positions, &device);
        let hidden = hidden.reshape([b * t, d]).select(0, positions);
        LossOutput {
            sum: cross_entropy(decoder.logits(hidden), &self.ids).sum(),
            terms: self.terms(),
        }
    }
}

/// The trained text tokens of a row and their slots, the first slot left out.
fn trained_tokens<'a>(
    row: &'a TrainingRow<'_>,
    placed: &'a PackedRow,
) -> impl Iterator<Item = (usize, u32)> + 'a {
    let mut marks = row
        .tokens
        .iter()
        .zip(row.trained)
        .filter(|(token, _)| **token != PromptToken::Image)
        .map(|(_, trained)| *trained);
    let text = placed.units.iter().enumerate();
    let text = text.filter_map(move |(slot, unit)| match *unit {
        Unit::Token(id) => Some((slot, id, marks.next()?)),
        Unit::Visual { .. } => None,
    });
    text.filter(|(slot, _, trained)| *trained && *slot > 0)
        .map(|(slot, id, _)| (slot, id))
}
