//! What a score depends on, beside the question: what a record is known by.

use std::collections::BTreeMap;

use opabinia_model::ImagePosition;
use serde::Serialize;

use crate::candidate::Candidate;
use crate::digest;
use crate::items::{ItemSet, Items, Rules};
use crate::judging::JudgeModel;
use crate::plan::{Appearance, Ask, Shown};
use crate::run::EvalOptions;
use crate::vision::Vision;

/// Raised when the same question is asked or judged in another way than by an earlier version, so
/// that old records are not taken for new ones.
const PROTOCOL: u32 = 2;

/// Everything that decides an answer and its score, in an order that never changes.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    protocol: u32,
    model_sha256: String,
    benchmark: Option<String>,
    questions_sha256: String,
    vision: Vision,
    /// Where it matters.
    wrong_picture_seed: Option<u64>,
    max_new_tokens: usize,
    image_position: &'static str,
    rules: Rules,
    scorer_sha256: String,
    /// Where it is asked.
    judge: Option<String>,
}

impl Settings {
    /// The settings of one way of asking the questions of a set.
    pub fn new(
        candidate: &Candidate<'_>,
        set: &ItemSet,
        options: &EvalOptions,
        vision: Vision,
    ) -> Self {
        let judge = options.judge.as_ref();
        Self {
            protocol: PROTOCOL,
            model_sha256: candidate.sha256.clone(),
            benchmark: set.benchmark.clone(),
            questions_sha256: set.sha256.clone(),
            vision,
            wrong_picture_seed: (vision == Vision::Shuffled).then_some(options.seed),
            max_new_tokens: options.max_new_tokens(set),
            image_position: position(options),
            rules: set.rules,
            scorer_sha256: set.scorer_sha256.clone(),
            judge: judge
                .filter(|_| set.rules.scorer.grader().is_some())
                .map(JudgeModel::name),
        }
    }

    /// A digest that is the same for the same settings.
    pub fn digest(&self) -> String {
        // The names of fields are part of the text, so no two settings have the same.
        digest::of(format!("{self:?}"))
    }

    /// What is compared between runs, by name.
    pub fn stamps(&self) -> BTreeMap<String, String> {
        let mut stamps = BTreeMap::from([
            ("max new tokens".to_owned(), self.max_new_tokens.to_string()),
            ("image position".to_owned(), self.image_position.to_owned()),
        ]);
        if let Some(seed) = self.wrong_picture_seed {
            stamps.insert("seed".to_owned(), seed.to_string());
        }
        if let Some(judge) = &self.judge {
            stamps.insert("judge".to_owned(), judge.clone());
        }
        stamps
    }
}

fn position(options: &EvalOptions) -> &'static str {
    match options.image_position {
        ImagePosition::Config => "config",
        ImagePosition::Actual => "actual",
    }
}

/// Digest of everything that an answer depends on: model, prompt, what is shown, length. Two questions
/// with the same digest have the same answer, whichever benchmark they belong to.
pub fn asked(
    candidate: &Candidate<'_>,
    items: &Items,
    options: &EvalOptions,
    ask: Ask,
    shown: Shown,
) -> String {
    #[derive(Debug)]
    #[expect(dead_code, reason = "read by `Debug`, which is what is digested")]
    struct Asked<'a> {
        model: &'a str,
        max_new_tokens: usize,
        image_position: &'a str,
        appearance: Appearance,
        picture: Option<&'a str>,
        prompt: &'a str,
    }
    let set = &items.sets[ask.set];
    let seen = shown
        .picture
        .filter(|_| shown.as_what != Appearance::Nothing);
    let asked = Asked {
        model: &candidate.sha256,
        max_new_tokens: options.max_new_tokens(set),
        image_position: position(options),
        appearance: shown.as_what,
        picture: seen.map(|picture| items.pictures[picture].sha256.as_str()),
        prompt: &set.items[ask.item].prompt,
    };
    digest::of(format!("{asked:?}"))
}
