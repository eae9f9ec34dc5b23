//! What shorter weights cost: the scores of one model beside those of another, on the same prompts.
//!
//! Both read the same tokens (their own visual tokens in the places of pictures), and every text
//! position is compared: nothing is generated, so the two cannot drift apart and every number means
//! one step. Three figures are enough to judge: how far scores move, how far the probabilities move,
//! and how often another token would have been chosen.

use std::ops::Range;
use std::sync::Arc;

use burn::prelude::*;
use opabinia_image::RgbImage;
use opabinia_llm::Conversation;
use opabinia_nn::Trace;
use serde::Serialize;

use crate::in_llm::ImagePosition;
use crate::load::Model;
use crate::{ModelError, Seen};

/// Positions whose scores are held at once.
const AT_ONCE: usize = 64;

/// How far a model is from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Deviation {
    /// Positions that were compared.
    pub positions: usize,
    /// Root mean square of the differences of scores, relative to the spread of the reference's
    /// scores around their mean.
    pub scores: f64,
    /// Mean Kullback-Leibler divergence from the reference's probabilities, in nats per token.
    pub divergence: f64,
    /// Share of positions at which the likeliest token is the same.
    pub same_choice: f64,
}

/// Sums that become a [`Deviation`].
#[derive(Default)]
struct Sums {
    positions: usize,
    squares: f64,
    spread: f64,
    divergence: f64,
    same: usize,
}

impl Sums {
    /// One position: the scores of all tokens.
    fn add(&mut self, reference: &[f32], other: &[f32]) {
        let mean = |x: &[f32]| x.iter().map(|v| f64::from(*v)).sum::<f64>() / x.len() as f64;
        let (of_reference, of_other) = (mean(reference), mean(other));
        let (p, q) = (Softmax::of(reference), Softmax::of(other));
        for (a, b) in reference.iter().zip(other) {
            let (a, b) = (f64::from(*a), f64::from(*b));
            // A shift of all scores changes no probability.
            self.squares += ((a - of_reference) - (b - of_other)).powi(2);
            self.spread += (a - of_reference).powi(2);
            let log_p = a - p.log_sum;
            self.divergence += log_p.exp() * (log_p - (b - q.log_sum));
        }
        self.positions += 1;
        self.same += usize::from(p.likeliest == q.likeliest);
    }

    fn finish(self) -> Deviation {
        let count = self.positions.max(1) as f64;
        Deviation {
            positions: self.positions,
            scores: (self.squares / self.spread.max(f64::MIN_POSITIVE)).sqrt(),
            divergence: self.divergence / count,
            same_choice: self.same as f64 / count,
        }
    }
}

struct Softmax {
    log_sum: f64,
    likeliest: usize,
}

impl Softmax {
    fn of(scores: &[f32]) -> Self {
        let mut best = (0, f32::NEG_INFINITY);
        for (i, &score) in scores.iter().enumerate() {
            if score > best.1 {
                best = (i, score);
            }
        }
        let largest = f64::from(best.1);
        let sum: f64 = scores.iter().map(|v| (f64::from(*v) - largest).exp()).sum();
        Self {
            log_sum: largest + sum.ln(),
            likeliest: best.0,
        }
    }
}

/// Compares `other` with `reference` on every text position of the prompts.
///
/// # Errors
/// If a prompt cannot be made or does not fit one of the models, or their vocabularies differ.
pub fn deviation(
    reference: &Model,
    other: &Model,
    prompts: &[(Conversation, Vec<RgbImage>)],
) -> Result<Deviation, ModelError> {
    let vocab = reference.config.decoder.vocab;
    if vocab != other.config.decoder.vocab {
        return Err(ModelError::OtherVocabulary {
            reference: vocab,
            other: other.config.decoder.vocab,
        });
    }
    let mut sums = Sums::default();
    for (conversation, pictures) in prompts {
        let (a, parts) = read(reference, conversation, pictures)?;
        let (b, others) = read(other, conversation, pictures)?;
        if parts != others {
            return Err(ModelError::OtherPrompt);
        }
        let pieces = parts.into_iter().flat_map(|part| {
            let end = part.end;
            part.step_by(AT_ONCE)
                .map(move |start| start..end.min(start + AT_ONCE))
        });
        for piece in pieces {
            let (a, b) = (
                scores(reference, &a, piece.clone())?,
                scores(other, &b, piece)?,
            );
            for (a, b) in a.chunks_exact(vocab).zip(b.chunks_exact(vocab)) {
                sums.add(a, b);
            }
        }
    }
    Ok(sums.finish())
}

/// Hidden states of a prompt, `[1, t, d]`, and where its text is.
fn read(
    model: &Model,
    conversation: &Conversation,
    pictures: &[RgbImage],
) -> Result<(Tensor<3>, Vec<Range<usize>>), ModelError> {
    let mut trace = Trace::off();
    let seen = pictures
        .iter()
        .map(|picture| model.see(picture, &mut trace))
        .collect::<Result<Vec<Arc<Seen>>, _>>()?;
    let prompt = model.prompt(conversation)?;
    let packed = model.pack(&[(&prompt, &seen)])?;
    let (hidden, _) = model.forward(&packed, ImagePosition::Config, &mut trace)?;
    let row = &packed.rows[0];
    let mut text = Vec::new();
    let mut start = 0;
    for picture in &row.pictures {
        text.push(start..picture.start);
        start = picture.start + picture.tokens();
    }
    text.push(start..row.length);
    Ok((hidden, text))
}

fn scores(model: &Model, hidden: &Tensor<3>, part: Range<usize>) -> Result<Vec<f32>, ModelError> {
    let (count, width) = (part.len(), hidden.dims()[2]);
    let rows = hidden.clone().slice([0..1, part, 0..width]);
    model.scores(rows.reshape([count, width]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_by_hand() {
        let mut sums = Sums::default();
        sums.add(&[0.0, 2.0], &[5.0, 7.0]);
        let same = sums.finish();
        assert!(same.scores < 1e-9 && same.divergence.abs() < 1e-9);
        assert_eq!((same.positions, same.same_choice), (1, 1.0));

        // p = (1/2, 1/2), q = (1/4, 3/4): Σ p ln(p/q) = ½ ln 2 + ½ ln ⅔.
        let mut sums = Sums::default();
        sums.add(&[0.0, 0.0], &[0.0, 3f32.ln()]);
        let other = sums.finish();
        let exact = 0.5 * 2f64.ln() + 0.5 * (2f64 / 3.0).ln();
        assert!((other.divergence - exact).abs() < 1e-6);
        assert_eq!(other.same_choice, 0.0);

        let mut sums = Sums::default();
        sums.add(&[1.0, -1.0], &[2.0, -2.0]);
        assert!((sums.finish().scores - 1.0).abs() < 1e-9);
    }
}
