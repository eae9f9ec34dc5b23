//! From a conversation and its pictures to one sequence of embeddings.
//!
//! The text is rendered by the chat template and tokenized around its image placeholders; each
//! placeholder is replaced by the visual tokens of its picture. Rows of a batch are padded on the
//! right, and every slot knows whether it holds a token.
//!
//! The whole batch is looked up in one table of words, visual tokens and a row of zeros for padding:
//! a few operations whatever the number of rows and pictures, and on the way back one scattering.

use std::sync::Arc;

use burn::prelude::*;
use opabinia_connector::layout::token_count;
use opabinia_connector::{Connected, PictureContext};
use opabinia_llm::cache::Slot;
use opabinia_llm::{ChatTemplate, Conversation, PromptToken, Step};
use opabinia_nn::Grid;

use crate::guess::NO_TOKEN;
use crate::in_llm::row_indices;
use crate::load::{Model, Network};
use crate::see::Seen;
use crate::{ModelConfig, ModelError};

/// A tokenized prompt, pictures still as placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The rendered text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<PromptToken>,
}

/// A batch of prompts as embeddings.
#[derive(Clone, Debug)]
pub struct Packed {
    /// `[b, t, d]`, zeros where a row is padded.
    pub embeddings: Tensor<3>,
    /// What each row holds.
    pub rows: Vec<PackedRow>,
    /// What in-LLM layers look at, where there are such layers and pictures.
    pub context: Option<PictureContext>,
}

/// One row of a packed batch.
#[derive(Clone, Debug)]
pub struct PackedRow {
    /// Tokens, visual ones included, padding not.
    pub length: usize,
    /// The pictures, in order.
    pub pictures: Vec<PictureSpan>,
    /// What stands in each slot, for recognising a prompt that goes on where another ended.
    pub units: Vec<Unit>,
    /// First slot of each branch; empty where there are none. What is before the first of them is the
    /// trunk, from which each goes on as if the others were not there.
    pub branches: Vec<usize>,
}

impl PackedRow {
    /// What the decoder needs to know of a slot.
    fn slot(&self, slot: usize) -> Slot {
        let branch = self.branches.partition_point(|&start| start <= slot);
        // Positions of a branch go on where the trunk ends.
        let skipped = match (self.branches.first(), branch.checked_sub(1)) {
            (Some(trunk), Some(branch)) => self.branches[branch] - trunk,
            _ => 0,
        };
        Slot {
            position: slot - skipped,
            filled: slot < self.length,
            branch,
        }
    }

    /// Positions that its longest branch takes with the trunk.
    fn positions(&self) -> usize {
        let last = self.branches.iter().skip(1).map(|start| start - 1);
        let last = last.chain([self.length.saturating_sub(1)]);
        last.map(|slot| self.slot(slot).position + 1)
            .max()
            .unwrap_or(0)
    }
}

/// Where a picture's visual tokens lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureSpan {
    /// First slot.
    pub start: usize,
    /// Which of the batch's pictures.
    pub picture: usize,
    /// Rows and columns of visual tokens, end-of-row tokens not counted.
    pub grid: Grid,
}

impl PictureSpan {
    /// Slots that the picture takes, end-of-row tokens included.
    #[must_use]
    pub fn tokens(&self) -> usize {
        token_count(self.grid)
    }
}

/// A row that is to be packed.
#[derive(Clone, Debug)]
pub struct RowToPack<'a> {
    /// Its tokens, pictures still as placeholders.
    pub tokens: &'a [PromptToken],
    /// The picture of each placeholder: its place in what the connector made.
    pub pictures: Vec<usize>,
    /// Where each branch begins, as an index of `tokens`; see [`PackedRow::branches`].
    pub branches: &'a [usize],
}

/// What stands in one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A token of the vocabulary.
    Token(u32),
    /// Visual token `index` of a picture.
    Visual {
        /// The picture: its place in the batch ([`Network::pack`]), or an address that no other
        /// picture has as long as it is alive ([`Model::pack`]).
        picture: usize,
        /// Which of them.
        index: usize,
    },
}

impl Unit {
    /// The token, or [`NO_TOKEN`].
    pub(crate) fn as_token(&self) -> u32 {
        match self {
            Self::Token(id) => *id,
            Self::Visual { .. } => NO_TOKEN,
        }
    }
}

impl Packed {
    /// The whole batch as one step of the decoder.
    #[must_use]
    pub fn step(&self) -> Step {
        self.part(0..self.len())
    }

    /// The whole batch as one step when nothing is read after it. Padding stands at the ends of rows, so
    /// unless rows have branches the causal mask hides it, and no other is made.
    #[must_use]
    pub(crate) fn read_once(&self) -> Step {
        match self.rows.iter().all(|row| row.branches.is_empty()) {
            true => Step::contiguous(self.embeddings.clone(), 0),
            false => self.step(),
        }
    }

    /// Some slots of every row, for reading a prompt in chunks.
    #[must_use]
    pub fn part(&self, slots: std::ops::Range<usize>) -> Step {
        let [b, _, d] = self.embeddings.dims();
        let row = |row: &PackedRow| slots.clone().map(|slot| row.slot(slot)).collect();
        Step {
            embeddings: self.embeddings.clone().slice([0..b, slots.clone(), 0..d]),
            slots: self.rows.iter().map(row).collect(),
        }
    }

    /// Slots of every row, padding included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.embeddings.dims()[1]
    }

    /// Whether there is no slot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Model {
    /// Renders a conversation with the model's template and tokenizes it.
    ///
    /// # Errors
    /// If the conversation does not fit the template or cannot be tokenized.
    pub fn prompt(&self, conversation: &Conversation) -> Result<Prompt, ModelError> {
        self.prompt_with(self.template, conversation)
    }

    /// Renders a conversation with another template.
    ///
    /// # Errors
    /// As [`Model::prompt`].
    pub fn prompt_with(
        &self,
        template: &ChatTemplate,
        conversation: &Conversation,
    ) -> Result<Prompt, ModelError> {
        let mut text = template.render(conversation)?.text;
        if self
            .config
            .vision
            .as_ref()
            .is_some_and(|vision| vision.image_marks)
        {
            let placeholder = opabinia_llm::template::IMAGE_PLACEHOLDER;
            text = text.replace(placeholder, &format!("<im_start>{placeholder}<im_end>"));
        }
        let tokens = self.tokenizer.encode_with_images(&text)?;
        Ok(Prompt { text, tokens })
    }

    /// Packs prompts and their pictures into one batch.
    ///
    /// # Errors
    /// If placeholders and pictures differ in number, a prompt is empty or too long, or the
    /// tokenizer does not belong to the model.
    pub fn pack(&self, rows: &[(&Prompt, &[Arc<Seen>])]) -> Result<Packed, ModelError> {
        let mut distinct: Vec<&Arc<Seen>> = Vec::new();
        let mut place = |picture| {
            let known = distinct
                .iter()
                .position(|known| Arc::ptr_eq(known, picture));
            known.unwrap_or_else(|| {
                distinct.push(picture);
                distinct.len() - 1
            })
        };
        let rows: Vec<RowToPack<'_>> = rows
            .iter()
            .map(|(prompt, pictures)| RowToPack {
                tokens: &prompt.tokens,
                pictures: pictures.iter().map(&mut place).collect(),
                branches: &[],
            })
            .collect();
        let connected: Vec<&Connected> = distinct.iter().map(|seen| &seen.connected).collect();
        let connected = Connected::join(&connected);
        let mut packed =
            self.network
                .pack(&self.config, &rows, connected.as_ref(), &self.device)?;
        for unit in packed.rows.iter_mut().flat_map(|row| &mut row.units) {
            if let Unit::Visual { picture, .. } = unit {
                *picture = Arc::as_ptr(distinct[*picture]) as usize;
            }
        }
        Ok(packed)
    }
}

impl Network {
    /// Packs token rows and connected pictures into one batch.
    ///
    /// # Errors
    /// As [`Model::pack`].
    ///
    /// # Panics
    /// If a row names a picture that was not connected: the caller made both.
    pub fn pack(
        &self,
        config: &ModelConfig,
        rows: &[RowToPack<'_>],
        connected: Option<&Connected>,
        device: &Device,
    ) -> Result<Packed, ModelError> {
        if rows.is_empty() {
            return Err(ModelError::EmptyPrompt);
        }
        let grids = connected.map_or(&[][..], |connected| &connected.grids);
        let rows = rows
            .iter()
            .map(|row| place(row, grids, config))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Packed {
            embeddings: self.look_up(&rows, connected, device),
            rows,
            context: connected.and_then(|connected| connected.context.clone()),
        })
    }

    /// The embeddings of placed rows, `[b, t, d]`.
    fn look_up(
        &self,
        rows: &[PackedRow],
        connected: Option<&Connected>,
        device: &Device,
    ) -> Tensor<3> {
        let units = || rows.iter().flat_map(|row| &row.units);
        let words: Vec<u32> = units()
            .filter_map(|unit| match unit {
                Unit::Token(id) => Some(*id),
                Unit::Visual { .. } => None,
            })
            .collect();
        let starts = connected.map_or_else(Vec::new, Connected::starts);
        let length = rows.iter().map(|row| row.length).max().unwrap_or(0);
        let padding = words.len() + starts.last().unwrap_or(&0);
        let mut next_word = 0..words.len();
        let mut slots = Vec::with_capacity(rows.len() * length);
        for row in rows {
            slots.extend(row.units.iter().map(|unit| match *unit {
                Unit::Token(_) => next_word.next().unwrap_or(padding),
                Unit::Visual { picture, index } => words.len() + starts[picture] + index,
            }));
            slots.resize(slots.len().next_multiple_of(length), padding);
        }

        let mut table = Vec::new();
        if !words.is_empty() {
            table.push(self.decoder.embed(&words, device));
        }
        table.extend(connected.map(|connected| connected.tokens.clone()));
        let hidden = self.decoder.config().hidden;
        if slots.contains(&padding) {
            table.push(Tensor::zeros([1, hidden], device));
        }
        let table = match table.len() {
            1 => table.remove(0),
            _ => Tensor::cat(table, 0),
        };
        let ordered = slots.iter().copied().eq(0..table.dims()[0]);
        let embeddings = if ordered {
            table
        } else {
            table.select(0, row_indices(&slots, device))
        };
        embeddings.reshape([rows.len(), length, hidden])
    }
}

/// Where the tokens and pictures of a row lie in the sequence.
fn place(
    row: &RowToPack<'_>,
    grids: &[Grid],
    config: &ModelConfig,
) -> Result<PackedRow, ModelError> {
    let tokens = row.tokens.iter();
    let placeholders = tokens.filter(|token| **token == PromptToken::Image).count();
    if placeholders != row.pictures.len() {
        return Err(ModelError::Placeholders {
            placeholders,
            pictures: row.pictures.len(),
        });
    }
    let visual: usize = row.pictures.iter().map(|&i| token_count(grids[i])).sum();
    let length = row.tokens.len() - placeholders + visual;
    if length == 0 {
        return Err(ModelError::EmptyPrompt);
    }
    let vocab = config.decoder.vocab;
    let mut pictures = row.pictures.iter();
    let mut spans = Vec::with_capacity(placeholders);
    let mut units = Vec::with_capacity(length);
    let mut branches = Vec::with_capacity(row.branches.len());
    for (index, token) in row.tokens.iter().enumerate() {
        if row.branches.contains(&index) {
            branches.push(units.len());
        }
        match (*token, pictures.as_slice()) {
            (PromptToken::Text(id), _) if id as usize >= vocab => {
                return Err(ModelError::TokenId { id, vocab });
            }
            (PromptToken::Text(id), _) => units.push(Unit::Token(id)),
            (PromptToken::Image, [picture, ..]) => {
                let (start, picture) = (units.len(), *picture);
                let grid = grids[picture];
                spans.push(PictureSpan {
                    start,
                    picture,
                    grid,
                });
                let visual = |index| Unit::Visual { picture, index };
                units.extend((0..token_count(grid)).map(visual));
                pictures.next();
            }
            // Counted above.
            (PromptToken::Image, []) => {}
        }
    }
    let row = PackedRow {
        length,
        pictures: spans,
        units,
        branches,
    };
    let positions = row.positions();
    if positions > config.max_length {
        return Err(ModelError::TooLong {
            tokens: positions,
            visual,
            limit: config.max_length,
        });
    }
    Ok(row)
}
