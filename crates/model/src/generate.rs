//! From a packed prompt to an answer, token by token.
//!
//! The prompt is read in chunks, so that memory stays bounded, and in-LLM layers act while it is
//! read. Then one token at a time is chosen and fed back, with keys and values of everything before
//! it in the cache. A [`Session`](crate::session::Session) goes on from what it has read before.

use std::time::Instant;

use burn::prelude::*;
use opabinia_llm::cache::Slot;
use opabinia_llm::{
    Conversation, KvCache, NoHook, Sampler, SamplingOptions, SpecialTokens, Step, StopReason,
    TextStream,
};
use opabinia_nn::{RotaryScaling, Trace};

use crate::ModelError;
use crate::guess::{MAX_GUESSES, guess};
use crate::in_llm::ImagePosition;
use crate::load::Model;
use crate::pack::{Packed, PictureSpan, Unit};

/// Tokens that are guessed at first.
const FIRST_GUESSES: usize = 3;

/// How answers are generated.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// How tokens are chosen, and when to stop.
    pub sampling: SamplingOptions,
    /// Tokens of the prompt that are read at once.
    pub prefill_chunk: usize,
    /// Where in-LLM layers look for visual tokens.
    pub image_position: ImagePosition,
    /// Whether the template's end-of-answer marker ends an answer too, beside the tokens that the
    /// checkpoint names. Checkpoints often name only one of the two.
    pub stop_at_template_end: bool,
    /// Tokens that are guessed from what was said before and read together with the newest one, at
    /// most [`MAX_GUESSES`]; 0 reads one at a time. The answer is the same.
    pub guesses: usize,
}

impl Default for Generation {
    fn default() -> Self {
        Self {
            sampling: SamplingOptions::default(),
            prefill_chunk: 1024,
            image_position: ImagePosition::Config,
            stop_at_template_end: true,
            guesses: MAX_GUESSES,
        }
    }
}

/// An answer, and what it took.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Answer {
    /// The text, without special tokens and without white space around it.
    pub text: String,
    /// Its tokens, the one that ended it not among them.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub stop: StopReason,
    /// Tokens of the prompt, visual ones included.
    pub prompt_tokens: usize,
    /// Visual tokens among them.
    pub visual_tokens: usize,
    /// Tokens of the prompt that a session had read before.
    pub reused_tokens: usize,
    /// Seconds until the first token was chosen.
    pub prefill_seconds: f64,
    /// Seconds from there to the end.
    pub decode_seconds: f64,
    /// Times that the language model was run for it after the prompt; fewer than tokens where
    /// guesses were right.
    pub steps: usize,
}

/// Receives the text of a row after each of its tokens, empty where none has become certain yet;
/// `false` ends that answer.
pub type OnText<'a> = dyn FnMut(usize, &str) -> bool + 'a;

/// One answer under way.
struct Writer<'a> {
    sampler: Sampler,
    stream: Option<TextStream<'a>>,
    ids: Vec<u32>,
    /// What the stream has let out.
    said: String,
    stop: Option<StopReason>,
    /// The next token, where it was sampled already to compare it with a guess.
    decided: Option<u32>,
    /// Tokens to guess next: more after right guesses, fewer after wrong ones.
    eager: usize,
}

/// What stays the same while an answer is written.
struct Run<'a> {
    packed: &'a Packed,
    ends: &'a [u32],
    generation: &'a Generation,
    guesses: usize,
}

impl Model {
    /// Tokens that end an answer.
    #[must_use]
    pub fn end_ids(&self, generation: &Generation) -> Vec<u32> {
        let mut ids = self.config.end_ids.clone();
        ids.extend(&generation.sampling.stop_ids);
        if generation.stop_at_template_end {
            let marker = self.template.answer_end();
            ids.extend(marker.and_then(|marker| self.tokenizer.token_to_id(&marker)));
        }
        ids
    }

    /// Hidden states of a whole packed batch after the final norm, `[b, t, d]`, and the cache they
    /// leave. Training and parity take this; answers read in chunks.
    ///
    /// # Errors
    /// If the constant image position leaves a row.
    pub fn forward(
        &self,
        packed: &Packed,
        rule: ImagePosition,
        trace: &mut Trace,
    ) -> Result<(Tensor<3>, KvCache), ModelError> {
        trace.record(format_args!("inputs_embeds"), || packed.embeddings.clone());
        trace.record(format_args!("hidden_0"), || packed.embeddings.clone());
        let layers = self.config.decoder.layers;
        let mut cache = KvCache::new();
        let hidden = {
            let mut hook = self.network.hook(&self.config, packed, rule, trace)?;
            self.network
                .decoder
                .forward(packed.step(), &mut cache, &mut hook)
        };
        trace.record(format_args!("hidden_{layers}"), || hidden.clone());
        Ok((hidden, cache))
    }

    /// The constant image position and the real one, if the constant counts and they differ: then
    /// in-LLM layers act where the prompt has something else.
    ///
    /// # Errors
    /// If the conversation cannot be made a prompt.
    pub fn misplaced_image(
        &self,
        conversation: &Conversation,
        generation: &Generation,
    ) -> Result<Option<(usize, usize)>, ModelError> {
        let in_llm = self
            .network
            .connector
            .as_ref()
            .and_then(|connector| connector.sva());
        let in_llm = in_llm.is_some_and(|sva| sva.config().in_llm.is_some());
        let constant = self
            .config
            .vision
            .as_ref()
            .and_then(|vision| vision.image_position);
        let (true, Some(constant), ImagePosition::Config) =
            (in_llm, constant, generation.image_position)
        else {
            return Ok(None);
        };
        let prompt = self.prompt(conversation)?;
        let mut places = prompt
            .tokens
            .iter()
            .enumerate()
            .filter(|(_, token)| **token == opabinia_llm::PromptToken::Image);
        let actual = match (places.next(), places.next()) {
            (Some((actual, _)), None) => actual,
            _ => return Ok(None),
        };
        Ok((actual != constant).then_some((constant, actual)))
    }

    /// Answers every row of a batch.
    ///
    /// # Errors
    /// If sampling options are impossible, the constant image position leaves a row, or the model
    /// produces no usable scores.
    pub fn generate(
        &self,
        packed: &Packed,
        generation: &Generation,
        on_text: &mut OnText<'_>,
    ) -> Result<Vec<Answer>, ModelError> {
        let (answers, _) = self.generate_from(packed, KvCache::new(), generation, on_text)?;
        Ok(answers)
    }

    /// Answers a batch whose first slots are already in the cache.
    pub(crate) fn generate_from(
        &self,
        packed: &Packed,
        mut cache: KvCache,
        generation: &Generation,
        on_text: &mut OnText<'_>,
    ) -> Result<(Vec<Answer>, KvCache), ModelError> {
        let start = Instant::now();
        let reused = cache.len();
        let mut writers = self.writers(packed.rows.len(), generation)?;
        let ends = self.end_ids(generation);
        let last = self.prefill(packed, &mut cache, generation)?;
        let mut logits = self.scores(last)?;
        let mut first_token = None;
        let mut steps = 0;
        let guesses = self.guesses(packed, generation);
        loop {
            for (i, writer) in writers.iter_mut().enumerate() {
                let vocab = self.config.decoder.vocab;
                let scores = &logits[i * vocab..(i + 1) * vocab];
                writer.choose(i, scores, &ends, generation, on_text)?;
            }
            first_token.get_or_insert_with(Instant::now);
            self.check_context(packed, &mut writers);
            if writers.iter().all(|writer| writer.stop.is_some()) {
                break;
            }
            steps += 1;
            if let (Some(writer), true) = (writers.first_mut(), guesses > 0) {
                let run = Run {
                    packed,
                    ends: &ends,
                    generation,
                    guesses,
                };
                logits = self.guessing_step(&run, writer, &mut cache, on_text)?;
                if writer.stop.is_some() {
                    break;
                }
                continue;
            }
            let hidden = self.decode_step(packed, &writers, &mut cache);
            logits = self.scores(hidden)?;
        }
        let prefill = first_token.unwrap_or(start) - start;
        let decode = start.elapsed() - prefill;
        let mut answers = Vec::with_capacity(writers.len());
        for (i, (writer, row)) in writers.into_iter().zip(&packed.rows).enumerate() {
            let (ids, text, stop) = writer.finish(i, self, on_text)?;
            answers.push(Answer {
                text,
                ids,
                stop,
                prompt_tokens: row.length,
                visual_tokens: row.pictures.iter().map(PictureSpan::tokens).sum(),
                reused_tokens: reused,
                prefill_seconds: prefill.as_secs_f64(),
                decode_seconds: decode.as_secs_f64(),
                steps,
            });
        }
        Ok((answers, cache))
    }

    fn writers(&self, rows: usize, generation: &Generation) -> Result<Vec<Writer<'_>>, ModelError> {
        (0..rows)
            .map(|_| {
                Ok(Writer {
                    sampler: Sampler::new(&generation.sampling)?,
                    stream: Some(TextStream::new(
                        &self.tokenizer,
                        SpecialTokens::Omit,
                        generation.sampling.stop.iter().cloned(),
                    )),
                    ids: Vec::new(),
                    said: String::new(),
                    stop: None,
                    decided: None,
                    eager: FIRST_GUESSES,
                })
            })
            .collect()
    }

    /// Reads what the cache does not hold yet; returns the hidden state of each row's last token,
    /// `[b, d]`.
    fn prefill(
        &self,
        packed: &Packed,
        cache: &mut KvCache,
        generation: &Generation,
    ) -> Result<Tensor<2>, ModelError> {
        let mut trace = Trace::off();
        let mut hook =
            self.network
                .hook(&self.config, packed, generation.image_position, &mut trace)?;
        let hidden_width = self.config.decoder.hidden;
        let mut last: Vec<Option<Tensor<2>>> = vec![None; packed.rows.len()];
        let mut slot = cache.len();
        while slot < packed.len() {
            let end = slot
                .saturating_add(generation.prefill_chunk.max(1))
                .min(packed.len());
            let hidden = self
                .network
                .decoder
                .forward(packed.part(slot..end), cache, &mut hook);
            for (i, row) in packed.rows.iter().enumerate() {
                if let Some(at) = (row.length - 1)
                    .checked_sub(slot)
                    .filter(|at| *at < end - slot)
                {
                    let state = hidden
                        .clone()
                        .slice([i..i + 1, at..at + 1, 0..hidden_width]);
                    last[i] = Some(state.reshape([1, hidden_width]));
                }
            }
            slot = end;
        }
        let last = last
            .into_iter()
            .map(|state| state.ok_or(ModelError::EmptyPrompt));
        Ok(Tensor::cat(last.collect::<Result<Vec<_>, _>>()?, 0))
    }

    /// Feeds each row its newest token; rows that are done get a slot nobody looks at.
    fn decode_step(
        &self,
        packed: &Packed,
        writers: &[Writer<'_>],
        cache: &mut KvCache,
    ) -> Tensor<2> {
        let newest: Vec<u32> = writers
            .iter()
            .map(|writer| writer.ids.last().copied().unwrap_or(0))
            .collect();
        let slots = packed.rows.iter().zip(writers).map(|(row, writer)| {
            let position = row.length + writer.ids.len().max(1) - 1;
            vec![Slot {
                filled: writer.stop.is_none(),
                ..Slot::at(position)
            }]
        });
        let rows = writers.len();
        let embeddings = self.network.decoder.embed(&newest, &self.device);
        let step = Step {
            embeddings: embeddings.reshape([rows, 1, self.config.decoder.hidden]),
            slots: slots.collect(),
        };
        // Visual tokens are read once, with the prompt: no in-LLM layers here.
        let hidden = self.network.decoder.forward(step, cache, &mut NoHook);
        hidden.reshape([rows, self.config.decoder.hidden])
    }

    /// Tokens to guess: none where the scores of a token could depend on what is read with it, which
    /// is so on GPUs, in batches, and where old keys go out of sight or change with the length.
    fn guesses(&self, packed: &Packed, generation: &Generation) -> usize {
        let decoder = &self.config.decoder;
        let dynamic = matches!(decoder.rope_scaling, Some(RotaryScaling::Dynamic { .. }));
        let exact = packed.rows.len() == 1
            && opabinia_nn::cpu::is_plain_cpu(&self.device)
            && decoder.sliding_window.is_none()
            && !dynamic;
        if exact {
            generation.guesses.min(MAX_GUESSES)
        } else {
            0
        }
    }

    /// Feeds the newest token and guesses, chooses from the scores as long as guesses are right, and
    /// forgets the others. Returns the scores after the last token that was read and is right, from
    /// which nothing has been chosen yet.
    fn guessing_step(
        &self,
        run: &Run<'_>,
        writer: &mut Writer<'_>,
        cache: &mut KvCache,
        on_text: &mut OnText<'_>,
    ) -> Result<Vec<f32>, ModelError> {
        let row = &run.packed.rows[0];
        let mut said: Vec<u32> = row.units.iter().map(Unit::as_token).collect();
        said.extend(&writer.ids);
        let limit = self.config.decoder.max_position.max(self.config.max_length);
        let room = limit.saturating_sub(row.length + writer.ids.len());
        let guessed = guess(&said, run.guesses.min(room).min(writer.eager));
        let newest = writer.ids.last().copied().unwrap_or(0);
        let tokens: Vec<u32> = std::iter::once(newest)
            .chain(guessed.iter().copied())
            .collect();

        let before = cache.len();
        let first = row.length + writer.ids.len().max(1) - 1;
        let embeddings = self.network.decoder.embed(&tokens, &self.device);
        let (count, width) = (tokens.len(), self.config.decoder.hidden);
        let step = Step {
            embeddings: embeddings.reshape([1, count, width]),
            slots: vec![(first..first + count).map(Slot::at).collect()],
        };
        let hidden = self.network.decoder.forward(step, cache, &mut NoHook);
        let scores = self.scores(hidden.reshape([count, width]))?;
        let vocab = self.config.decoder.vocab;
        let of = |i: usize| &scores[i * vocab..(i + 1) * vocab];
        let mut right = 0;
        for guess in guessed {
            // The token after the last right one; the caller would choose it next.
            let chosen = writer.sampler.sample(of(right), &writer.ids)?;
            writer.decided = Some(chosen);
            if chosen != *guess {
                break;
            }
            writer.choose(0, of(right), run.ends, run.generation, on_text)?;
            self.check_context(run.packed, std::slice::from_mut(writer));
            if writer.stop.is_some() {
                break;
            }
            right += 1;
        }
        match right {
            _ if guessed.is_empty() => {}
            0 => writer.eager = (writer.eager / 2).max(1),
            _ => writer.eager = (2 * writer.eager).min(MAX_GUESSES),
        }
        cache.truncate(before + 1 + right);
        Ok(of(right).to_vec())
    }

    /// Scores of hidden states `[n, d]`, row after row.
    pub(crate) fn scores(&self, hidden: Tensor<2>) -> Result<Vec<f32>, ModelError> {
        let data = self.network.decoder.logits(hidden).into_data();
        data.convert::<f32>()
            .try_to_vec::<f32>()
            .map_err(|error| ModelError::Device(format!("{error:?}")))
    }

    fn check_context(&self, packed: &Packed, writers: &mut [Writer<'_>]) {
        let limit = self.config.decoder.max_position.max(self.config.max_length);
        for (row, writer) in packed.rows.iter().zip(writers) {
            if writer.stop.is_none() && row.length + writer.ids.len() >= limit {
                writer.stop = Some(StopReason::ContextFull);
            }
        }
    }
}

impl Writer<'_> {
    fn choose(
        &mut self,
        row: usize,
        scores: &[f32],
        ends: &[u32],
        generation: &Generation,
        on_text: &mut OnText<'_>,
    ) -> Result<(), ModelError> {
        let Some(stream) = self.stream.as_mut().filter(|_| self.stop.is_none()) else {
            return Ok(());
        };
        let id = match self.decided.take() {
            Some(id) => id,
            None => self.sampler.sample(scores, &self.ids)?,
        };
        if ends.contains(&id) {
            self.stop = Some(StopReason::EndToken(id));
            return Ok(());
        }
        self.ids.push(id);
        let piece = stream.push(id)?;
        self.said.push_str(&piece);
        if let Some(text) = stream.stop_string() {
            self.stop = Some(StopReason::StopString(text.to_owned()));
        }
        if !on_text(row, &piece) {
            self.stop = Some(StopReason::Cancelled);
        }
        if self.stop.is_none() && self.ids.len() >= generation.sampling.max_new_tokens {
            self.stop = Some(StopReason::MaxTokens);
        }
        Ok(())
    }

    fn finish(
        self,
        row: usize,
        model: &Model,
        on_text: &mut OnText<'_>,
    ) -> Result<(Vec<u32>, String, StopReason), ModelError> {
        if let Some(stream) = self.stream {
            let rest = stream.finish()?;
            if !rest.is_empty() {
                on_text(row, &rest);
            }
        }
        let stop = self.stop.unwrap_or(StopReason::MaxTokens);
        // Tokens that hold a stop string may hold more text behind it.
        let text = match stop {
            StopReason::StopString(_) => self.said.trim().to_owned(),
            _ => model.tokenizer.decode_answer(&self.ids)?,
        };
        Ok((self.ids, text, stop))
    }
}
