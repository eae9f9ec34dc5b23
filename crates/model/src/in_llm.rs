//! The connector's layers inside the language model.
//!
//! The decoder calls a hook after each of its layers; this is the hook. It takes the hidden states of
//! a picture's visual tokens (end-of-row tokens left alone), lets the aggregator look at the
//! picture again, and puts them back. It runs while a prompt is read and not while an answer is
//! written, because visual tokens are only read once. Every visual token is a query of its own, so
//! a prompt may be read in chunks of any length with the same result.

use std::sync::Arc;

use burn::prelude::*;
use opabinia_connector::Sva;
use opabinia_llm::LayerHook;
use opabinia_nn::{Grid, Trace};

use crate::ModelError;
use crate::pack::Packed;
use crate::see::Seen;

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

/// One picture's visual tokens in one row of the batch.
struct Block {
    row: usize,
    /// First slot of the block.
    start: usize,
    picture: Arc<Seen>,
    grid: Grid,
}

/// Runs in-LLM layers over the visual tokens of a packed prompt.
pub struct InLlm<'a> {
    sva: Option<&'a Sva>,
    blocks: Vec<Block>,
    trace: &'a mut Trace,
}

impl<'a> InLlm<'a> {
    /// Prepares the hook for a packed prompt; without an aggregator, or with one that has no
    /// in-LLM layers, it does nothing.
    ///
    /// # Errors
    /// If the constant image position leaves a row.
    pub fn new(
        sva: Option<&'a Sva>,
        packed: &Packed,
        image_position: Option<usize>,
        rule: ImagePosition,
        trace: &'a mut Trace,
    ) -> Result<Self, ModelError> {
        let sva = sva.filter(|sva| sva.config().in_llm.is_some());
        let mut blocks = Vec::new();
        if sva.is_some() {
            for (row, placed) in packed.rows.iter().enumerate() {
                for span in &placed.pictures {
                    let start = match (rule, image_position) {
                        (ImagePosition::Config, Some(constant)) if placed.pictures.len() == 1 => {
                            constant
                        }
                        _ => span.start,
                    };
                    let grid = span.picture.tokens.grid;
                    let tokens = span.picture.tokens.len();
                    let end = start.checked_add(tokens);
                    if end.is_none_or(|end| end > placed.length) {
                        let length = placed.length;
                        return Err(ModelError::ImagePosition {
                            start,
                            tokens,
                            length,
                        });
                    }
                    blocks.push(Block {
                        row,
                        start,
                        picture: span.picture.clone(),
                        grid,
                    });
                }
            }
        }
        Ok(Self { sva, blocks, trace })
    }
}

impl Block {
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
        let hidden = match self
            .sva
            .and_then(|sva| Some((sva, sva.layer_after(layer)?)))
        {
            Some((sva, index)) => self.update_blocks(sva, index, first_slot, hidden),
            None => hidden,
        };
        self.trace
            .record(format_args!("hidden_{}", layer + 1), || hidden.clone());
        hidden
    }
}

impl InLlm<'_> {
    fn update_blocks(
        &mut self,
        sva: &Sva,
        index: usize,
        first_slot: usize,
        mut hidden: Tensor<3>,
    ) -> Tensor<3> {
        let [_, count, _] = hidden.dims();
        for block in &self.blocks {
            let Some(context) = &block.picture.context else {
                continue;
            };
            let cells = block.cells_in(first_slot, count);
            let (Some(&(first, _)), Some(&(last, _))) = (cells.first(), cells.last()) else {
                continue;
            };
            let slots = cells.iter().map(|(_, slot)| slot - first_slot).collect();
            hidden = update_rows(hidden, block.row, slots, |tokens| {
                sva.look_again(index, tokens, context, first..last + 1, self.trace)
            });
        }
        hidden
    }
}

/// Replaces some slots of one row by a function of them.
fn update_rows(
    hidden: Tensor<3>,
    row: usize,
    slots: Vec<usize>,
    update: impl FnOnce(Tensor<2>) -> Tensor<2>,
) -> Tensor<3> {
    let [b, t, d] = hidden.dims();
    let device = hidden.device();
    // Rows of the flattened batch; a select and an assignment keep the path differentiable.
    let indices: Vec<i32> = slots
        .iter()
        .map(|slot| i32::try_from(row * t + slot).unwrap_or(i32::MAX))
        .collect();
    let indices = Tensor::<1, Int>::from_data(indices.as_slice(), &device);
    let flat = hidden.reshape([b * t, d]);
    let tokens = flat.clone().select(0, indices.clone());
    let change = update(tokens.clone()) - tokens;
    let added = flat.select_assign(0, indices, change, burn::tensor::IndexingUpdateOp::Add);
    added.reshape([b, t, d])
}
