//! Samples to tokens, and which of them are trained: the target mask.
//!
//! The reference implementation of Cambrian-1 (arXiv 2406.16860) tokenizes a conversation as a whole
//! and its rounds once more one by one, and counts from there where answers lie; where the counts
//! disagree it masks the whole sample. Here the rendered prompt says in bytes where its answers are
//! ([`opabinia_llm::Rendered`]), every token knows its bytes, and a token is trained if it *ends* inside
//! an answer, end marker included. One rule serves every template and every tokenizer. Ids and
//! labels equal the reference's wherever its own counts work.
//!
//! # Where the reference trips, and what happens here
//! - *Counts that disagree* (a tokenizer that adds its own beginning of text, vocabularies other than
//!   Llama's, a picture in a later turn under `llama_3`, role names inside a text): the sample is
//!   trained like any other; spans do not depend on counts.
//! - *The template switch of the released 8B scripts* leaves Vicuna's template active with Llama 3's
//!   tokenizer: templates are chosen by name, and the mask is right for any of them.
//! - *An empty answer* trains the next question, or nothing: the question goes with its answer, and
//!   a picture that it showed moves on to the next question ([`Tokenized::left_out`] counts).
//! - *An empty question* likewise takes its answer with it.
//! - *A question at the end that nobody answers* is left out: there is nothing to learn from it.
//! - *Special tokens written inside a text* (`</s>` in a question about HTML) are tokenized as such and
//!   end a turn: they are spelled in ordinary tokens.
//! - *A sample without any trained token* is silently replaced by the first of the file: it is
//!   [`SampleError::NoTrainableToken`].
//! - *`plain`* fails an assertion on anything but a caption: it is a [`SampleError::Schema`] that says so.
//! - *Rows without a picture lose the room of one* (599 of 2048 positions): only what is there counts
//!   against `max_length`, see [`Tokenized::truncate`].
//!
//! Kept as they are: the end-of-prompt trimming of `llama_3` (no open answer follows the last one), and
//! the two beginning-of-text tokens where both template and tokenizer write one, which is how the
//! released checkpoints are asked.

use std::ops::Range;
use std::sync::Arc;

use opabinia_llm::template::Style;
use opabinia_llm::{
    ChatTemplate, Conversation, IMAGE_PLACEHOLDER, PlacedToken, PromptToken, Role, SpecialTokens,
    Tokenizer, TokenizerError,
};
use serde::{Deserialize, Serialize};

use crate::error::{DataError, SampleError};
use crate::sample::{Sample, Turn};

/// Label of a token that carries no loss, as the reference writes it.
pub const IGNORED: i64 = -100;

/// Id that stands for a picture, as the reference writes it.
pub const IMAGE: i64 = -200;

/// A sample as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokenized {
    /// Tokens, with one element where the picture goes.
    pub tokens: Vec<PromptToken>,
    /// For each of them, whether the model learns to produce it.
    pub trained: Vec<bool>,
    /// Where each of several exchanges begins that share what is before the first of them and do not
    /// see each other ([`Turns::Apart`]); empty where everything sees all that is before it.
    pub branches: Vec<usize>,
    /// Exchanges that were left out because question or answer is empty or missing. A picture that
    /// only those showed is left out with them.
    pub left_out: usize,
    /// Tokens that did not fit.
    pub cut: usize,
}

impl Tokenized {
    /// Ids as the reference writes them: [`IMAGE`] where the picture goes.
    pub fn ids(&self) -> Vec<i64> {
        self.tokens.iter().map(id).collect()
    }

    /// Labels as the reference writes them: the id where it is trained, else [`IGNORED`].
    pub fn labels(&self) -> Vec<i64> {
        let label = |(token, &trained)| if trained { id(token) } else { IGNORED };
        self.tokens.iter().zip(&self.trained).map(label).collect()
    }

    /// Number of trained tokens.
    pub fn trained_tokens(&self) -> usize {
        self.trained.iter().filter(|&&trained| trained).count()
    }

    /// Whether there is a place for a picture.
    pub fn has_image(&self) -> bool {
        self.tokens.contains(&PromptToken::Image)
    }

    /// Slots that the sample takes, if a picture takes `visual_tokens`.
    pub fn positions(&self, visual_tokens: usize) -> usize {
        self.tokens
            .iter()
            .map(|token| width(token, visual_tokens))
            .sum()
    }

    /// Of a row without branches, keeps the longest beginning that takes at most `max_length` positions, if a picture takes
    /// `visual_tokens`. A picture is kept whole or not at all.
    pub fn truncate(&mut self, max_length: usize, visual_tokens: usize) {
        let mut positions = 0;
        let fits = self.tokens.iter().take_while(|token| {
            positions += width(token, visual_tokens);
            positions <= max_length
        });
        let kept = fits.count();
        self.cut += self.tokens.len() - kept;
        self.tokens.truncate(kept);
        self.trained.truncate(kept);
    }

    /// Neighbouring tokens of the same kind and branch, for showing a mask to people.
    fn runs(&self) -> Vec<(bool, Range<usize>)> {
        let mut runs: Vec<(bool, Range<usize>)> = Vec::new();
        for (i, &trained) in self.trained.iter().enumerate() {
            let branch = self.branches.contains(&i);
            match runs.last_mut() {
                Some((kind, range)) if *kind == trained && !branch => range.end = i + 1,
                _ => runs.push((trained, i..i + 1)),
            }
        }
        runs
    }
}

fn id(token: &PromptToken) -> i64 {
    match token {
        PromptToken::Text(id) => i64::from(*id),
        PromptToken::Image => IMAGE,
    }
}

fn width(token: &PromptToken, visual_tokens: usize) -> usize {
    match token {
        PromptToken::Text(_) => 1,
        PromptToken::Image => visual_tokens,
    }
}

/// A stretch of a sample, for showing its mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Whether its tokens are trained.
    pub trained: bool,
    /// Whether a branch begins with it ([`Tokenized::branches`]).
    pub branch: bool,
    /// Their text, special tokens written out.
    pub text: String,
}

/// What an exchange of a conversation sees of those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Turns {
    /// Everything, as in a chat.
    #[default]
    Together,
    /// The picture alone: each question is read and answered as if it were the only one, while the
    /// picture is seen once for all of them. This is how Molmo (arXiv 2409.17146, section 3) trains
    /// pictures with many annotations. Losses and gradients are those of as many samples of one
    /// exchange; only the time is less.
    Apart,
}

/// Turns samples into tokens for one template, tokenizer and length.
#[derive(Clone, Debug)]
pub struct Masker {
    template: &'static ChatTemplate,
    tokenizer: Arc<Tokenizer>,
    max_length: usize,
    turns: Turns,
}

/// A prompt, and what is known of its bytes.
struct Prompt {
    text: String,
    answers: Vec<Range<usize>>,
    contents: Vec<Range<usize>>,
}

impl Prompt {
    /// The prompt of a sample whose placeholder is where it is trained.
    fn of(template: &ChatTemplate, sample: &Sample) -> Result<Self, SampleError> {
        match template.style {
            Style::Plain => Self::caption(template, sample),
            _ => Self::conversation(template, sample),
        }
    }

    /// Text for stage 1: the picture and its caption, without the question.
    fn caption(template: &ChatTemplate, sample: &Sample) -> Result<Self, SampleError> {
        let (Some(_), [_, answer]) = (&sample.image, sample.turns.as_slice()) else {
            return Err(SampleError::Schema {
                place: sample.place.clone(),
                what: format!(
                    "the template `{}` is for captions: one question that shows a picture, and one \
                     answer; use a chat template for other samples",
                    template.name
                ),
            });
        };
        if answer.text.trim().is_empty() {
            return Err(nothing_trained(
                sample,
                "the caption is empty; remove the sample".to_owned(),
            ));
        }
        let start = IMAGE_PLACEHOLDER.len();
        let text = format!("{IMAGE_PLACEHOLDER}{}{}", answer.text, template.sep);
        Ok(Self {
            answers: std::iter::once(start..text.len()).collect(),
            contents: std::iter::once(start..start + answer.text.len()).collect(),
            text,
        })
    }

    fn conversation(template: &ChatTemplate, sample: &Sample) -> Result<Self, SampleError> {
        let (turns, _) = answered(&sample.turns);
        if turns.is_empty() {
            return Err(nothing_trained(
                sample,
                "no question has an answer; remove the sample".to_owned(),
            ));
        }
        let rendered = template
            .render(&Conversation::new(turns))
            .map_err(|source| SampleError::Template {
                place: sample.place.clone(),
                source,
            })?;
        let mut text = rendered.text;
        // Some templates go on with an open answer, which is for asking, not for training.
        if let Some(last) = rendered.answers.last() {
            text.truncate(last.end);
        }
        Ok(Self {
            text,
            answers: rendered.answers,
            contents: rendered.contents,
        })
    }
}

/// A sample as its template writes it, and what of it is trained, by characters: all that is known
/// without a tokenizer. Nothing is cut, because nothing is counted.
///
/// # Errors
/// If picture and placeholder do not belong together, the template cannot render the conversation, or
/// there is nothing to learn from.
pub fn written(template: &ChatTemplate, sample: &Sample) -> Result<Vec<Run>, SampleError> {
    sample.check_placeholder()?;
    let prompt = Prompt::of(template, &sample.clone().with_leading_image())?;
    let mut runs = Vec::new();
    let mut put = |trained: bool, range: Range<usize>| {
        let text = prompt.text.get(range).unwrap_or_default();
        if !text.is_empty() {
            let text = text.to_owned();
            runs.push(Run {
                trained,
                branch: false,
                text,
            });
        }
    };
    let mut at = 0;
    for answer in &prompt.answers {
        put(false, at..answer.start);
        put(true, answer.clone());
        at = answer.end;
    }
    put(false, at..prompt.text.len());
    Ok(runs)
}

impl Masker {
    /// For samples of at most `max_length` positions, visual tokens included.
    ///
    /// # Errors
    /// [`DataError::Template`] if the template does not say how an answer ends.
    pub fn new(
        template: &'static ChatTemplate,
        tokenizer: Arc<Tokenizer>,
        max_length: usize,
    ) -> Result<Self, DataError> {
        if template.style != Style::Plain {
            let exchange = vec![
                opabinia_llm::Turn::user("?"),
                opabinia_llm::Turn::assistant("!"),
            ];
            template
                .render(&Conversation::new(exchange))
                .map_err(|source| DataError::Template {
                    template: template.name.clone(),
                    source,
                })?;
        }
        Ok(Self {
            template,
            tokenizer,
            max_length,
            turns: Turns::Together,
        })
    }

    /// The same with another rule for what exchanges see of each other.
    #[must_use]
    pub fn with_turns(self, turns: Turns) -> Self {
        Self { turns, ..self }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The most positions that a sample takes.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Renders, tokenizes, masks and shortens a sample whose picture, if it has one, takes
    /// `visual_tokens` positions.
    ///
    /// # Errors
    /// If picture and placeholder do not belong together, if the tokenizer cannot write the text, or
    /// if no trained token is left.
    pub fn tokenize(
        &self,
        sample: &Sample,
        visual_tokens: usize,
    ) -> Result<Tokenized, SampleError> {
        sample.check_placeholder()?;
        let whole = sample.clone().with_leading_image();
        let rows = match self.turns {
            Turns::Apart if self.template.style != Style::Plain => alone(&whole),
            _ => vec![whole],
        };
        let mut rows = rows
            .iter()
            .map(|row| self.mask(&Prompt::of(self.template, row)?, sample))
            .collect::<Result<Vec<_>, _>>()?;
        let count = |rows: &[Tokenized]| rows.iter().map(Tokenized::trained_tokens).sum::<usize>();
        let trained = count(&rows);
        let picture = match rows.iter().any(Tokenized::has_image) {
            true => format!(" (the picture takes {visual_tokens})"),
            false => String::new(),
        };
        for row in &mut rows {
            row.truncate(self.max_length, visual_tokens);
        }
        if count(&rows) == 0 {
            let what = format!(
                "all {trained} lie behind the first {} positions{picture}; raise `max_length` or \
                 shorten the sample",
                self.max_length
            );
            return Err(nothing_trained(sample, what));
        }
        Ok(Tokenized {
            left_out: answered(&sample.turns).1,
            ..joined(rows)
        })
    }

    /// The runs of trained and other tokens, in words: what a dry run shows.
    ///
    /// # Errors
    /// If the tokenizer cannot write its own tokens.
    pub fn explain(&self, tokenized: &Tokenized) -> Result<Vec<Run>, TokenizerError> {
        let run = |(trained, range): (bool, Range<usize>)| {
            let branch = tokenized.branches.contains(&range.start);
            let mut text = String::new();
            for part in tokenized.tokens[range].split_inclusive(|t| *t == PromptToken::Image) {
                let ids: Vec<u32> = part.iter().filter_map(text_id).collect();
                text += &self.tokenizer.decode(&ids, SpecialTokens::Include)?;
                if part.last() == Some(&PromptToken::Image) {
                    text += IMAGE_PLACEHOLDER;
                }
            }
            Ok(Run {
                trained,
                branch,
                text,
            })
        };
        tokenized.runs().into_iter().map(run).collect()
    }

    fn mask(&self, prompt: &Prompt, sample: &Sample) -> Result<Tokenized, SampleError> {
        let placed = self
            .tokenizer
            .encode_with_literals(&prompt.text, &prompt.contents)
            .map_err(|source| SampleError::Tokenizer {
                place: sample.place.clone(),
                source: Box::new(source),
            })?;
        let learned = |token: &PlacedToken| {
            let end = end_without_space(&prompt.text, &token.bytes);
            let inside = |answer: &Range<usize>| answer.start < end && end <= answer.end;
            prompt.answers.iter().any(inside)
        };
        let trained = placed.iter().map(learned).collect();
        let tokens = placed.into_iter().map(|token| token.token).collect();
        Ok(Tokenized {
            tokens,
            trained,
            ..Tokenized::default()
        })
    }
}

/// Where the text of a token ends. Some end markers swallow the white space of the markup that
/// follows them (Phi-3's `<|end|>`); it does not count, unless the token has nothing else.
fn end_without_space(prompt: &str, bytes: &Range<usize>) -> usize {
    let text = prompt.get(bytes.clone()).unwrap_or_default();
    match text.trim_end().len() {
        0 => bytes.end,
        length => bytes.start + length,
    }
}

fn text_id(token: &PromptToken) -> Option<u32> {
    match token {
        PromptToken::Text(id) => Some(*id),
        PromptToken::Image => None,
    }
}

fn nothing_trained(sample: &Sample, what: String) -> SampleError {
    SampleError::NoTrainableToken {
        place: sample.place.clone(),
        what,
    }
}

/// The exchanges of which question and answer have a text, and the number of the others. A picture
/// shown by a question that is left out is shown by the next one that is not.
fn answered(turns: &[Turn]) -> (Vec<opabinia_llm::Turn>, usize) {
    let mut kept = Vec::new();
    let mut left_out = 0;
    let mut picture = false;
    for exchange in turns.chunks(2) {
        let (question, answer) = match exchange {
            [question, answer] => (question.text.as_str(), answer.text.as_str()),
            [question, ..] => (question.text.as_str(), ""),
            [] => continue,
        };
        if question.trim().is_empty() || answer.trim().is_empty() {
            left_out += 1;
            picture |= question.contains(IMAGE_PLACEHOLDER);
            continue;
        }
        let question = if std::mem::take(&mut picture) {
            format!("{IMAGE_PLACEHOLDER}\n{question}")
        } else {
            question.to_owned()
        };
        debug_assert!(exchange[0].role == Role::User, "a sample's turns alternate");
        kept.push(opabinia_llm::Turn::user(question));
        kept.push(opabinia_llm::Turn::assistant(answer));
    }
    (kept, left_out)
}

/// The answered exchanges of a sample, each as a conversation of its own that shows the picture; the
/// sample itself if there is none.
fn alone(sample: &Sample) -> Vec<Sample> {
    let (turns, _) = answered(&sample.turns);
    let exchange = |turns: &[opabinia_llm::Turn]| {
        let turn = |turn: &opabinia_llm::Turn| {
            let text = turn.text.clone().unwrap_or_default();
            let text = text.replace(IMAGE_PLACEHOLDER, "");
            let text = match (turn.role, &sample.image) {
                (Role::User, Some(_)) => format!("{IMAGE_PLACEHOLDER}\n{}", text.trim()),
                _ => text,
            };
            Turn {
                role: turn.role,
                text,
            }
        };
        Sample {
            turns: turns.iter().map(turn).collect(),
            ..sample.clone()
        }
    };
    match turns.is_empty() {
        true => vec![sample.clone()],
        false => turns.chunks(2).map(exchange).collect(),
    }
}

/// Rows as branches of one trunk: the longest beginning that all of them have and nobody is trained
/// on. Rows of which nothing is trained are left out.
fn joined(rows: Vec<Tokenized>) -> Tokenized {
    let cut = rows.iter().map(|row| row.cut).sum();
    let mut rows = rows.into_iter().filter(|row| row.trained_tokens() > 0);
    let (mut joined, rest) = match rows.next() {
        Some(first) => (first, rows.collect::<Vec<_>>()),
        None => return Tokenized::default(),
    };
    joined.cut = cut;
    let Some(shared) = rest.iter().map(|row| shared_beginning(&joined, row)).min() else {
        return joined;
    };
    joined.branches.push(shared);
    for row in rest {
        joined.branches.push(joined.tokens.len());
        joined.tokens.extend_from_slice(&row.tokens[shared..]);
        joined.trained.extend_from_slice(&row.trained[shared..]);
    }
    joined
}

/// Tokens that two rows begin with. The token before a trained one is where it is predicted, so it
/// stays in the branch.
fn shared_beginning(a: &Tokenized, b: &Tokenized) -> usize {
    let before_answer = |row: &Tokenized| {
        let first = row.trained.iter().position(|&trained| trained);
        first.unwrap_or(row.trained.len()).saturating_sub(1)
    };
    let equal = a.tokens.iter().zip(&b.tokens).take_while(|(a, b)| a == b);
    equal.count().min(before_answer(a)).min(before_answer(b))
}

#[cfg(test)]
mod tests;
