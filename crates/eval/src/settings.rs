//! What an answer depends on, beside the question: what a record is known by.

use std::collections::BTreeMap;
use std::path::Path;

use opabinia_model::ImagePosition;
use serde::Serialize;

use crate::candidate::Candidate;
use crate::digest;
use crate::questions::QuestionSet;
use crate::run::EvalOptions;
use crate::scorer::Scorer;
use crate::vision::Vision;

/// Raised when the same question is asked or judged in another way than by an earlier version, so
/// that old records are not taken for new ones.
const PROTOCOL: u32 = 1;

/// Everything that decides an answer and its score, in an order that never changes.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    protocol: u32,
    model_sha256: String,
    questions_sha256: String,
    vision: Vision,
    /// Where it matters.
    wrong_picture_seed: Option<u64>,
    max_new_tokens: usize,
    image_position: &'static str,
    scorer: Scorer,
}

impl Settings {
    /// The settings of one way of asking.
    pub fn new(
        candidate: &Candidate<'_>,
        set: &QuestionSet,
        options: &EvalOptions,
        vision: Vision,
    ) -> Self {
        Self {
            protocol: PROTOCOL,
            model_sha256: candidate.sha256.clone(),
            questions_sha256: set.sha256.clone(),
            vision,
            wrong_picture_seed: (vision == Vision::Shuffled).then_some(options.seed),
            max_new_tokens: options.max_new_tokens,
            image_position: match options.image_position {
                ImagePosition::Config => "config",
                ImagePosition::Actual => "actual",
            },
            scorer: options.scorer,
        }
    }

    /// A digest that is the same for the same settings.
    pub fn digest(&self) -> String {
        // The names of fields are part of the text, so no two settings have the same.
        digest::of(format!("{self:?}"))
    }
}

/// `run.json`.
#[derive(Debug, Serialize)]
pub struct Description<'a> {
    /// Version of this program.
    version: &'static str,
    model: &'a str,
    model_sha256: &'a str,
    template: &'a str,
    questions: &'a Path,
    questions_sha256: &'a str,
    limit: Option<usize>,
    shard: [usize; 2],
    seed: u64,
    /// Digest of the settings, as records have it, and the settings.
    settings: BTreeMap<String, Settings>,
}

impl<'a> Description<'a> {
    /// Of a run that is about to begin.
    pub fn new(candidate: &'a Candidate<'_>, set: &'a QuestionSet, options: &EvalOptions) -> Self {
        let settings = options.vision.iter().map(|&vision| {
            let settings = Settings::new(candidate, set, options, vision);
            (settings.digest(), settings)
        });
        Self {
            version: env!("CARGO_PKG_VERSION"),
            model: &candidate.name,
            model_sha256: &candidate.sha256,
            template: &candidate.model.template.name,
            questions: &set.path,
            questions_sha256: &set.sha256,
            limit: options.limit,
            shard: [options.shard.index, options.shard.count],
            seed: options.seed,
            settings: settings.collect(),
        }
    }
}
