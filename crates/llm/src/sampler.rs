//! From next-token logits to the next token.
//!
//! The steps, their order and their edge cases are those of transformers' logits processors, so
//! that a setting means here what it means there: repetition penalty, then temperature, top-k,
//! top-p, min-p, then a draw. Temperature 0 takes the largest logit instead.

use std::cmp::Reverse;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The stream of the seed's random numbers that sampling draws from.
const RANDOM_STREAM: u64 = u64::from_le_bytes(*b"sampling");

/// Why no token could be chosen.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// A setting is out of range.
    #[error("`{name}` is {value}, but must be {allowed}")]
    InvalidOption {
        /// Key of the setting.
        name: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// The model's output is not usable.
    #[error(
        "the model produced {value} as the logit of token {token} of {vocabulary}: its weights are \
         damaged, or its number format overflows (a 32 bit format tells)"
    )]
    NotFinite {
        /// NaN or an infinity.
        value: f32,
        /// Index of the token.
        token: usize,
        /// Number of logits.
        vocabulary: usize,
    },
    /// Every token has been ruled out, or there is none.
    #[error("none of {vocabulary} tokens has a probability above zero")]
    NothingLeft {
        /// Number of logits.
        vocabulary: usize,
    },
}

/// How answers are generated. The default is the reference's evaluation: greedy, at most 512
/// tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct SamplingOptions {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keep the most probable tokens that together have at least this probability.
    pub top_p: f32,
    /// Keep this many of the most probable tokens.
    pub top_k: Option<u32>,
    /// Drop tokens less probable than this share of the most probable one.
    pub min_p: Option<f32>,
    /// Above 1 makes tokens of the history less likely, below 1 more likely.
    pub repetition_penalty: f32,
    /// Same seed, same answer.
    pub seed: u64,
    /// Longest answer, in tokens.
    pub max_new_tokens: usize,
    /// Texts that end an answer and are not part of it.
    pub stop: Vec<String>,
    /// Tokens that end an answer, beside those that the checkpoint names.
    pub stop_ids: Vec<u32>,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: None,
            min_p: None,
            repetition_penalty: 1.0,
            seed: 0,
            max_new_tokens: 512,
            stop: Vec::new(),
            stop_ids: Vec::new(),
        }
    }
}

impl SamplingOptions {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`SamplingError::InvalidOption`] for the first that is out of range.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let min_p = self.min_p.unwrap_or(0.0);
        let penalty = self.repetition_penalty;
        check(
            self.temperature.is_finite() && self.temperature >= 0.0,
            "temperature",
            self.temperature,
            "a number from 0 (greedy) upward",
        )?;
        check(
            self.top_p > 0.0 && self.top_p <= 1.0,
            "top-p",
            self.top_p,
            "above 0 and at most 1 (off)",
        )?;
        check(
            self.top_k != Some(0),
            "top-k",
            0,
            "at least 1; leave it out to keep all tokens",
        )?;
        check(
            (0.0..=1.0).contains(&min_p),
            "min-p",
            min_p,
            "from 0 (off) to 1",
        )?;
        check(
            penalty.is_finite() && penalty > 0.0,
            "repetition-penalty",
            penalty,
            "a number above 0; 1 is off",
        )?;
        check(self.max_new_tokens > 0, "max-new-tokens", 0, "at least 1")?;
        check(
            !self.stop.iter().any(String::is_empty),
            "stop",
            "an empty text",
            "a list of texts",
        )
    }
}

fn check(
    holds: bool,
    name: &'static str,
    value: impl ToString,
    allowed: &'static str,
) -> Result<(), SamplingError> {
    if holds {
        return Ok(());
    }
    Err(SamplingError::InvalidOption {
        name,
        value: value.to_string(),
        allowed,
    })
}

/// Chooses tokens, one after another, for one answer.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplingOptions,
    rng: ChaCha8Rng,
}

/// A token that may still be drawn.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u32,
    /// Probability relative to the most probable token.
    weight: f64,
}

impl Sampler {
    /// A sampler at the beginning of its seed's random numbers.
    ///
    /// # Errors
    /// [`SamplingError::InvalidOption`] if a setting is out of range.
    pub fn new(options: &SamplingOptions) -> Result<Self, SamplingError> {
        options.validate()?;
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        rng.set_stream(RANDOM_STREAM);
        Ok(Self {
            options: options.clone(),
            rng,
        })
    }

    /// Chooses the next token.
    ///
    /// `logits` holds one number per token; minus infinity rules a token out. `history` holds the
    /// tokens that the repetition penalty is about; ids beyond the logits are ignored.
    ///
    /// # Errors
    /// If a logit is NaN or plus infinity, or if no token is left to choose.
    pub fn sample(&mut self, logits: &[f32], history: &[u32]) -> Result<u32, SamplingError> {
        check_logits(logits)?;
        let penalized;
        let logits = if self.options.repetition_penalty == 1.0 {
            logits
        } else {
            penalized = penalize(logits, history, self.options.repetition_penalty);
            &penalized
        };
        let (best, highest) = first_maximum(logits).ok_or(SamplingError::NothingLeft {
            vocabulary: logits.len(),
        })?;
        if self.options.temperature == 0.0 {
            return Ok(best);
        }
        let mut candidates = weigh(logits, highest, self.options.temperature);
        if let Some(k) = self.options.top_k {
            keep_top_k(&mut candidates, k as usize);
        }
        if self.options.top_p < 1.0 {
            keep_top_p(&mut candidates, self.options.top_p);
        }
        if let Some(min_p) = self.options.min_p {
            // The most probable token is always a candidate, and its weight is 1.
            candidates.retain(|candidate| candidate.weight >= f64::from(min_p));
        }
        Ok(self.draw(&candidates).unwrap_or(best))
    }

    /// Draws one candidate with a probability proportional to its weight; `None` if there is none.
    fn draw(&mut self, candidates: &[Candidate]) -> Option<u32> {
        let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
        let mut left = self.rng.random::<f64>() * total;
        for candidate in candidates {
            left -= candidate.weight;
            if left < 0.0 {
                return Some(candidate.id);
            }
        }
        // Rounding may leave a trace of the total over.
        candidates
            .iter()
            .rfind(|candidate| candidate.weight > 0.0)
            .map(|candidate| candidate.id)
    }
}

fn check_logits(logits: &[f32]) -> Result<(), SamplingError> {
    let unusable = |logit: f32| logit.is_nan() || logit == f32::INFINITY;
    match logits.iter().position(|&logit| unusable(logit)) {
        None => Ok(()),
        Some(token) => Err(SamplingError::NotFinite {
            value: logits[token],
            token,
            vocabulary: logits.len(),
        }),
    }
}

/// Id and value of the first of the largest logits; `None` if every token is ruled out.
fn first_maximum(logits: &[f32]) -> Option<(u32, f32)> {
    let mut best = None;
    let mut highest = f32::NEG_INFINITY;
    for (id, &logit) in (0u32..).zip(logits) {
        if logit > highest {
            (best, highest) = (Some(id), logit);
        }
    }
    best.map(|id| (id, highest))
}

/// Divides positive logits of the history by the penalty and multiplies the others by it, once per
/// token (Keskar et al., arXiv 1909.05858, section 4.1).
fn penalize(logits: &[f32], history: &[u32], penalty: f32) -> Vec<f32> {
    let mut penalized = logits.to_vec();
    for &id in history {
        let index = id as usize;
        // From the unchanged logit, so that a token which occurs twice is penalized once.
        if let (Some(&old), Some(new)) = (logits.get(index), penalized.get_mut(index)) {
            *new = if old < 0.0 {
                old * penalty
            } else {
                old / penalty
            };
        }
    }
    penalized
}

/// Softmax without its denominator, in the order of ids; ruled-out tokens are left out.
fn weigh(logits: &[f32], highest: f32, temperature: f32) -> Vec<Candidate> {
    let temperature = f64::from(temperature);
    (0u32..)
        .zip(logits)
        .filter(|(_, logit)| **logit > f32::NEG_INFINITY)
        .map(|(id, &logit)| {
            let below = f64::from(logit) - f64::from(highest);
            Candidate {
                id,
                weight: (below / temperature).exp(),
            }
        })
        .collect()
}

/// Keeps the `k` heaviest; all that weigh as much as the last of them stay, too.
fn keep_top_k(candidates: &mut Vec<Candidate>, k: usize) {
    if k >= candidates.len() {
        return;
    }
    let mut weights: Vec<f64> = candidates
        .iter()
        .map(|candidate| candidate.weight)
        .collect();
    let (_, least, _) = weights.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    let least = *least;
    candidates.retain(|candidate| candidate.weight >= least);
}

/// Drops the lightest as long as all that is dropped has at most `1 − top_p` of the total (Holtzman
/// et al., arXiv 1904.09751); of equals the later id goes first. The heaviest stays in any case.
fn keep_top_p(candidates: &mut Vec<Candidate>, top_p: f32) {
    let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    let may_drop = (1.0 - f64::from(top_p)) * total;
    // All tokens below this weigh less than `may_drop` together, so they go unsorted. Sorting a
    // whole vocabulary would cost more than the rest of sampling. The factor outweighs rounding.
    let floor = 0.99 * may_drop / candidates.len() as f64;
    let mut dropped = 0.0;
    candidates.retain(|candidate| {
        let keep = candidate.weight >= floor;
        dropped += if keep { 0.0 } else { candidate.weight };
        keep
    });
    candidates.sort_unstable_by(|a, b| {
        a.weight
            .total_cmp(&b.weight)
            .then(Reverse(a.id).cmp(&Reverse(b.id)))
    });
    let light = candidates
        .iter()
        .take(candidates.len().saturating_sub(1))
        .take_while(|candidate| {
            dropped += candidate.weight;
            dropped <= may_drop
        })
        .count();
    candidates.drain(..light);
    candidates.sort_unstable_by_key(|candidate| candidate.id);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(change: impl FnOnce(&mut SamplingOptions)) -> SamplingOptions {
        let mut options = SamplingOptions {
            temperature: 1.0,
            ..SamplingOptions::default()
        };
        change(&mut options);
        options
    }

    fn logits(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln()).collect()
    }

    /// The tokens that ever come out of many draws.
    fn drawn(options: &SamplingOptions, logits: &[f32], history: &[u32]) -> Vec<u32> {
        let mut sampler = Sampler::new(options).unwrap();
        let mut ids: Vec<u32> = (0..500)
            .map(|_| sampler.sample(logits, history).unwrap())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    #[test]
    fn greedy_takes_the_first_maximum() {
        let mut sampler = Sampler::new(&SamplingOptions::default()).unwrap();
        assert_eq!(
            sampler.sample(&[1.0, 3.0, f32::NEG_INFINITY, 3.0], &[]),
            Ok(1)
        );
    }

    #[test]
    fn unusable_logits_are_errors() {
        let mut sampler = Sampler::new(&SamplingOptions::default()).unwrap();
        let error = sampler.sample(&[0.0, f32::NAN], &[]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("produced NaN as the logit of token 1 of 2"),
            "{error}"
        );
        assert!(sampler.sample(&[f32::INFINITY], &[]).is_err());
        let nothing = Err(SamplingError::NothingLeft { vocabulary: 1 });
        assert_eq!(sampler.sample(&[f32::NEG_INFINITY], &[]), nothing);
        assert_eq!(
            sampler.sample(&[], &[]),
            Err(SamplingError::NothingLeft { vocabulary: 0 })
        );
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let mut sampler = Sampler::new(&options(|_| ())).unwrap();
        let logits = logits(&[0.5, 0.3, 0.2]);
        let mut counts = [0u32; 3];
        for _ in 0..10_000 {
            counts[sampler.sample(&logits, &[]).unwrap() as usize] += 1;
        }
        for (count, expected) in counts.into_iter().zip([5000u32, 3000, 2000]) {
            assert!(count.abs_diff(expected) < 200, "{counts:?}");
        }
    }

    #[test]
    fn one_seed_one_answer() {
        let run = |seed| {
            let mut sampler = Sampler::new(&options(|o| o.seed = seed)).unwrap();
            (0..20)
                .map(|_| sampler.sample(&[0.0; 100], &[]).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn a_low_temperature_is_nearly_greedy() {
        assert_eq!(
            drawn(&options(|o| o.temperature = 1e-30), &[0.0, 1.0, 0.5], &[]),
            [1]
        );
    }

    #[test]
    fn top_k_keeps_ties() {
        let logits = logits(&[0.1, 0.4, 0.2, 0.2, 0.1]);
        assert_eq!(drawn(&options(|o| o.top_k = Some(1)), &logits, &[]), [1]);
        assert_eq!(
            drawn(&options(|o| o.top_k = Some(2)), &logits, &[]),
            [1, 2, 3]
        );
    }

    /// 0.5 + 0.3 reaches 0.7; the rest may go. At 0.81 the third is needed.
    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_it() {
        let logits = logits(&[0.05, 0.3, 0.15, 0.5]);
        assert_eq!(drawn(&options(|o| o.top_p = 0.7), &logits, &[]), [1, 3]);
        assert_eq!(drawn(&options(|o| o.top_p = 0.81), &logits, &[]), [1, 2, 3]);
        assert_eq!(drawn(&options(|o| o.top_p = 1e-9), &logits, &[]), [3]);
        assert_eq!(drawn(&options(|o| o.top_p = 1e-9), &[0.0; 4], &[]), [0]);
    }

    /// A tenth of the best 0.5 is 0.05: just kept by 0.09, dropped by 0.11.
    #[test]
    fn min_p_is_relative_to_the_best() {
        let logits = logits(&[0.05, 0.5, 0.45]);
        assert_eq!(
            drawn(&options(|o| o.min_p = Some(0.09)), &logits, &[]),
            [0, 1, 2]
        );
        assert_eq!(
            drawn(&options(|o| o.min_p = Some(0.11)), &logits, &[]),
            [1, 2]
        );
    }

    #[test]
    fn the_penalty_counts_a_token_once() {
        assert_eq!(
            penalize(&[2.0, -2.0, 1.0], &[0, 1, 0, 9], 2.0),
            [1.0, -4.0, 1.0]
        );
    }

    #[test]
    fn bad_options_are_named() {
        let message = |change: fn(&mut SamplingOptions)| {
            Sampler::new(&options(change)).unwrap_err().to_string()
        };
        assert_eq!(
            message(|o| o.temperature = -1.0),
            "`temperature` is -1, but must be a number from 0 (greedy) upward"
        );
        assert!(message(|o| o.temperature = f32::NAN).contains("`temperature` is NaN"));
        assert!(message(|o| o.top_p = 0.0).contains("`top-p` is 0"));
        assert!(message(|o| o.top_p = 1.5).contains("`top-p` is 1.5"));
        assert!(message(|o| o.top_k = Some(0)).contains("`top-k`"));
        assert!(message(|o| o.min_p = Some(2.0)).contains("`min-p`"));
        assert!(message(|o| o.repetition_penalty = 0.0).contains("`repetition-penalty`"));
        assert!(message(|o| o.max_new_tokens = 0).contains("`max-new-tokens`"));
        assert!(message(|o| o.stop = vec![String::new()]).contains("`stop`"));
    }

    #[test]
    fn options_are_data() {
        let read: SamplingOptions =
            serde_json::from_str(r#"{"temperature": 0.2, "max-new-tokens": 8}"#).unwrap();
        assert_eq!(
            read,
            options(|o| (o.temperature, o.max_new_tokens) = (0.2, 8))
        );
        assert!(serde_json::from_str::<SamplingOptions>(r#"{"temprature": 1}"#).is_err());
    }

    proptest! {
        /// Against a plain reading of the definition: sort, add up from the light end, cut.
        #[test]
        fn top_p_equals_its_definition(
            weights in prop::collection::vec(1u32..20, 1..40),
            top_p in 0.01f32..0.99,
        ) {
            let all: Vec<Candidate> = (0u32..)
                .zip(&weights)
                .map(|(id, &weight)| Candidate { id, weight: f64::from(weight) })
                .collect();
            let mut sorted = all.clone();
            sorted.sort_by_key(|c| (c.weight as u32, Reverse(c.id)));
            let may_drop = (1.0 - f64::from(top_p)) * f64::from(weights.iter().sum::<u32>());
            let mut sum = 0.0;
            while sorted.len() > 1 && sum + sorted[0].weight <= may_drop {
                sum += sorted.remove(0).weight;
            }
            let mut expected: Vec<u32> = sorted.iter().map(|c| c.id).collect();
            expected.sort_unstable();
            let mut kept = all;
            keep_top_p(&mut kept, top_p);
            prop_assert_eq!(kept.iter().map(|c| c.id).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn whatever_is_chosen_is_a_token_of_some_weight(
            logits in prop::collection::vec(prop_oneof![-50.0f32..50.0, Just(f32::NEG_INFINITY)], 1..50),
            temperature in 0.0f32..3.0,
            top_p in 0.01f32..=1.0,
            seed: u64,
        ) {
            let options = options(|o| (o.temperature, o.top_p, o.seed) = (temperature, top_p, seed));
            match Sampler::new(&options).unwrap().sample(&logits, &[]) {
                Ok(id) => prop_assert!(logits[id as usize].is_finite()),
                Err(_) => prop_assert!(logits.iter().all(|logit| logit.is_infinite())),
            }
        }
    }
}
