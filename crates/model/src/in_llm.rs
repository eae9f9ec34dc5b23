//! The connector's layers inside the language model.
//!
//! The decoder calls a hook after each of its layers; this is the hook. It takes the hidden states of
//! the visual tokens (end-of-row tokens left alone), lets the aggregator look at the pictures again,
//! and adds what it saw. All pictures of a batch look in one call, whatever their grids, and are
//! written back at once. The hook runs while a prompt is read and not while an answer is written,
//! because visual tokens are only read once. Every visual token is a query of its own, so a prompt
//! may be read in chunks of any length with the same result.

use burn::prelude::*;
use burn::tensor::IndexingUpdateOp;
use opabinia_connector::look::Cell;
use opabinia_connector::{Look, PictureContext, Sva};
use opabinia_llm::LayerHook;
use opabinia_nn::{Grid, Trace};

use crate::ModelError;
use crate::pack::{Packed, PackedRow, PictureSpan};

/// Where in-LLM layers look for visual tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImagePosition {
    /// At the constant `image_position` of `config.json`, as the reference does, wherever the
    /// prompt really has them. With several pictures in a prompt the reference has no rule, and
    /// each is looked for where it is.
    #[default]
    Config,
    /// Where they really are.
    Actual,
}

/// Runs in-LLM layers over the visual tokens of a packed prompt.
pub struct InLlm<'a> {
    /// The layers and what they look at; none where there is nothing to do.
    layers: Option<(&'a Sva, &'a PictureContext)>,
    blocks: Vec<Block>,
    /// What was prepared for the slots that are being read.
    part: Option<Part>,
    trace: &'a mut Trace,
}

/// One picture's visual tokens in one row of the batch.
struct Block {
    row: usize,
    /// First slot of the block.
    start: usize,
    /// Place in the [`PictureContext`].
    picture: usize,
    grid: Grid,
}

/// The visual tokens among some slots of every row.
struct Part {
    first_slot: usize,
    slots: usize,
    /// Their rows in the flattened hidden states, and what they look at; none if there are none.
    tokens: Option<(Tensor<1, Int>, Look)>,
}

impl<'a> InLlm<'a> {
    /// Prepares the hook for a packed prompt; without an aggregator, or with one that has no
    /// in-LLM layers, it does nothing.
    ///
    /// # Errors
    /// If the constant image position leaves a row.
    pub fn new(
        sva: Option<&'a Sva>,
        packed: &'a Packed,
        image_position: Option<usize>,
        rule: ImagePosition,
        trace: &'a mut Trace,
    ) -> Result<Self, ModelError> {
        let layers = sva.zip(packed.context.as_ref());
        let mut blocks = Vec::new();
        if layers.is_some() {
            for (row, placed) in packed.rows.iter().enumerate() {
                for span in &placed.pictures {
                    let start = match (rule, image_position) {
                        (ImagePosition::Config, Some(constant)) if placed.pictures.len() == 1 => {
                            constant
                        }
                        _ => span.start,
                    };
                    blocks.push(Block::new(row, placed, start, span)?);
                }
            }
        }
        Ok(Self {
            layers,
            blocks,
            part: None,
            trace,
        })
    }

    /// The visual tokens among slots `first_slot .. first_slot + slots` of every row.
    fn part(&self, first_slot: usize, slots: usize, device: &Device) -> Part {
        let (mut rows, mut cells) = (Vec::new(), Vec::new());
        for block in &self.blocks {
            for (index, slot) in block.cells_in(first_slot, slots) {
                rows.push(block.row * slots + slot - first_slot);
                cells.push(Cell {
                    picture: block.picture,
                    index,
                });
            }
        }
        let look = self.layers.filter(|_| !cells.is_empty());
        Part {
            first_slot,
            slots,
            tokens: look.map(|(_, context)| (row_indices(&rows, device), context.look(&cells))),
        }
    }

    fn update(&mut self, layer: usize, first_slot: usize, hidden: Tensor<3>) -> Tensor<3> {
        let Some((sva, _)) = self.layers else {
            return hidden;
        };
        let Some(index) = sva.layer_after(layer) else {
            return hidden;
        };
        let [b, t, d] = hidden.dims();
        let part = match self.part.take() {
            Some(part) if (part.first_slot, part.slots) == (first_slot, t) => part,
            _ => self.part(first_slot, t, &hidden.device()),
        };
        let updated = match &part.tokens {
            None => hidden,
            Some((rows, look)) => {
                let flat = hidden.reshape([b * t, d]);
                let tokens = flat.clone().select(0, rows.clone());
                let change = sva.look_again(index, tokens, look, self.trace);
                let updated = flat.select_assign(0, rows.clone(), change, IndexingUpdateOp::Add);
                updated.reshape([b, t, d])
            }
        };
        self.part = Some(part);
        updated
    }
}

impl Block {
    fn new(
        row: usize,
        placed: &PackedRow,
        start: usize,
        span: &PictureSpan,
    ) -> Result<Self, ModelError> {
        let (tokens, length) = (span.tokens(), placed.length);
        if start.checked_add(tokens).is_none_or(|end| end > length) {
            return Err(ModelError::ImagePosition {
                start,
                tokens,
                length,
            });
        }
        Ok(Self {
            row,
            start,
            picture: span.picture,
            grid: span.grid,
        })
    }

    /// The part of the block that lies in slots `first .. first + count`: whole visual tokens as
    /// `(cell, slot)` pairs, cells counted row-major without end-of-row tokens.
    fn cells_in(&self, first: usize, count: usize) -> Vec<(usize, usize)> {
        let Grid { rows, cols } = self.grid;
        let end_of_block = self.start + rows * (cols + 1);
        if end_of_block <= first || first + count <= self.start {
            return Vec::new();
        }
        (0..rows * cols)
            .map(|cell| (cell, self.start + cell / cols * (cols + 1) + cell % cols))
            .filter(|(_, slot)| (first..first + count).contains(slot))
            .collect()
    }
}

impl LayerHook for InLlm<'_> {
    fn after_layer(&mut self, layer: usize, first_slot: usize, hidden: Tensor<3>) -> Tensor<3> {
        let hidden = self.update(layer, first_slot, hidden);
        self.trace
            .record(format_args!("hidden_{}", layer + 1), || hidden.clone());
        hidden
    }
}

/// Row numbers as a tensor to select with.
pub(crate) fn row_indices(rows: &[usize], device: &Device) -> Tensor<1, Int> {
    let rows: Vec<i32> = rows
        .iter()
        .map(|&row| i32::try_from(row).unwrap_or(i32::MAX))
        .collect();
    Tensor::from_data(rows.as_slice(), device)
}
