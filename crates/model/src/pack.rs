//! From a conversation and its pictures to one sequence of embeddings.
//!
//! The text is rendered by the chat template and tokenized around its image placeholders; each
//! placeholder is replaced by the visual tokens of its picture. Rows of a batch are padded on the
//! right, and every slot knows whether it holds a token.

use std::sync::Arc;

use burn::prelude::*;
use opabinia_llm::cache::Slot;
use opabinia_llm::{ChatTemplate, Conversation, PromptToken, Step};

use crate::ModelError;
use crate::load::Model;
use crate::see::Seen;

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
}

/// Where a picture's visual tokens lie.
#[derive(Clone, Debug)]
pub struct PictureSpan {
    /// First slot.
    pub start: usize,
    /// The picture.
    pub picture: Arc<Seen>,
}

/// What stands in one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A token of the vocabulary.
    Token(u32),
    /// Visual token `index` of the picture at this address.
    Visual {
        /// Identity of the picture's visual tokens.
        picture: usize,
        /// Which of them.
        index: usize,
    },
}

impl Packed {
    /// The whole batch as one step of the decoder.
    #[must_use]
    pub fn step(&self) -> Step {
        self.part(0..self.len())
    }

    /// Some slots of every row, for reading a prompt in chunks.
    #[must_use]
    pub fn part(&self, slots: std::ops::Range<usize>) -> Step {
        let [b, _, d] = self.embeddings.dims();
        let row = |row: &PackedRow| {
            let slot = |position| Slot {
                position,
                filled: position < row.length,
            };
            slots.clone().map(slot).collect()
        };
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
        if rows.is_empty() {
            return Err(ModelError::EmptyPrompt);
        }
        let rows = rows
            .iter()
            .map(|(prompt, pictures)| self.pack_row(&prompt.tokens, pictures))
            .collect::<Result<Vec<_>, _>>()?;
        let length = rows.iter().map(|(row, _)| row.length).max().unwrap_or(0);
        let hidden = self.config.decoder.hidden;
        let mut packed = Vec::with_capacity(rows.len());
        let mut embeddings = Vec::with_capacity(rows.len());
        for (row, tokens) in rows {
            let missing = length - row.length;
            let tokens = if missing == 0 {
                tokens
            } else {
                Tensor::cat(
                    vec![tokens, Tensor::zeros([missing, hidden], &self.device)],
                    0,
                )
            };
            embeddings.push(tokens);
            packed.push(row);
        }
        Ok(Packed {
            embeddings: Tensor::stack(embeddings, 0),
            rows: packed,
        })
    }

    fn pack_row(
        &self,
        tokens: &[PromptToken],
        pictures: &[Arc<Seen>],
    ) -> Result<(PackedRow, Tensor<2>), ModelError> {
        let placeholders = tokens
            .iter()
            .filter(|token| **token == PromptToken::Image)
            .count();
        if placeholders != pictures.len() {
            return Err(ModelError::Placeholders {
                placeholders,
                pictures: pictures.len(),
            });
        }
        let visual: usize = pictures.iter().map(|picture| picture.tokens.len()).sum();
        let length = tokens.len() - placeholders + visual;
        if length == 0 {
            return Err(ModelError::EmptyPrompt);
        }
        if length > self.config.max_length {
            let limit = self.config.max_length;
            return Err(ModelError::TooLong {
                tokens: length,
                visual,
                limit,
            });
        }

        let mut parts = Vec::new();
        let mut spans = Vec::new();
        let mut units = Vec::with_capacity(length);
        let mut pictures = pictures.iter();
        let mut words = Vec::new();
        for token in tokens {
            match *token {
                PromptToken::Text(id) => {
                    words.push(id);
                    units.push(Unit::Token(id));
                }
                PromptToken::Image => {
                    self.flush(&mut words, &mut parts)?;
                    let picture = pictures.next().expect("counted above");
                    spans.push(PictureSpan {
                        start: units.len(),
                        picture: picture.clone(),
                    });
                    let identity = Arc::as_ptr(picture) as usize;
                    let visual = |index| Unit::Visual {
                        picture: identity,
                        index,
                    };
                    units.extend((0..picture.tokens.len()).map(visual));
                    parts.push(picture.tokens.tokens.clone());
                }
            }
        }
        self.flush(&mut words, &mut parts)?;
        Ok((
            PackedRow {
                length,
                pictures: spans,
                units,
            },
            Tensor::cat(parts, 0),
        ))
    }

    fn flush(&self, words: &mut Vec<u32>, parts: &mut Vec<Tensor<2>>) -> Result<(), ModelError> {
        let vocab = self.config.decoder.vocab;
        if let Some(&id) = words.iter().find(|&&id| id as usize >= vocab) {
            return Err(ModelError::TokenId { id, vocab });
        }
        if !words.is_empty() {
            parts.push(self.network.decoder.embed(words, &self.device));
            words.clear();
        }
        Ok(())
    }
}
