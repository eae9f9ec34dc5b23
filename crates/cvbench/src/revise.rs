//! A CV-Bench without what people rejected, and in the words that they mended it to.
//!
//! Numbers and pictures stay as they were, so that answers to both can be compared question by
//! question. The decisions are written beside the questions.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::error::CvBenchError;
use crate::published::Published;
use crate::question::Question;
use crate::report::{Spread, summarise};
use crate::review::{Counts, Decision, Decisions, Verdict};
use crate::wording;
use crate::write::{PARTS, REVISION, Target, write_file, write_part};

/// `revision.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Revised {
    /// The program's version.
    pub version: String,
    /// Digest of the questions that were reviewed.
    pub reviewed: String,
    /// How they stand.
    pub counts: Counts,
    /// Whether undecided ones are left out too.
    pub decided_only: bool,
    /// Decisions of each reviewer.
    pub reviewers: std::collections::BTreeMap<String, usize>,
    /// The questions that are left.
    pub questions: Spread,
}

/// Writes what is left after a review into a folder. The pictures of `published` are stored.
///
/// # Errors
/// If the decisions cannot be read, a picture is missing, nothing is left, or the folder cannot be
/// written.
pub fn revise(
    published: &Published,
    decisions: &Decisions,
    decided_only: bool,
    out: &Path,
    replace: bool,
) -> Result<Revised, CvBenchError> {
    let current = decisions.current()?;
    let questions = published.questions.iter();
    let left: Vec<Question> = questions
        .filter_map(|question| revised(question, &current, decided_only))
        .collect();
    if left.is_empty() {
        return Err(CvBenchError::NoQuestions {
            candidates: published.questions.len(),
        });
    }
    let target = Target::begin(out, replace)?;
    for (dimension, stem) in PARTS {
        let of_part = left
            .iter()
            .filter(|question| question.dimension == dimension);
        let of_part: Vec<&Question> = of_part.collect();
        if of_part.is_empty() {
            continue;
        }
        write_part(target.folder(), stem, &of_part, &mut |group| {
            let pictures = group.iter().map(|question| published.picture(question));
            let bytes = |picture: Arc<[u8]>| picture.to_vec();
            pictures.map(|picture| picture.map(bytes)).collect()
        })?;
    }
    let revised = Revised {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        reviewed: published.digest(),
        counts: Counts::of(published.questions.len(), &current),
        decided_only,
        reviewers: decisions.reviewers()?,
        questions: summarise(&left),
    };
    let json = serde_json::to_string_pretty(&revised);
    let json = json.map_err(CvBenchError::json(&target.folder().join(REVISION)))?;
    write_file(target.folder(), REVISION, json.as_bytes())?;
    let mut lines = Vec::new();
    decisions.export(&mut lines)?;
    write_file(target.folder(), "decisions.jsonl", &lines)?;
    target.finish()?;
    Ok(revised)
}

/// A question as it stands; nothing if it is not to be asked.
fn revised(
    question: &Question,
    current: &HashMap<i64, Decision>,
    decided_only: bool,
) -> Option<Question> {
    let Some(decision) = current.get(&question.idx) else {
        return (!decided_only).then(|| question.clone());
    };
    match (decision.verdict, &decision.mended) {
        (Verdict::Reject, _) => None,
        (Verdict::Mend, Some(mended)) => {
            let mut question = question.clone();
            question.answer.clone_from(&mended.answer);
            // Published prompts may be worded otherwise than ours, so they stay where they can.
            if question.question != mended.question || question.choices != mended.choices {
                question.prompt = wording::prompt(&mended.question, &mended.choices);
                question.question.clone_from(&mended.question);
                question.choices.clone_from(&mended.choices);
            }
            Some(question)
        }
        (Verdict::Accept | Verdict::Mend, _) => Some(question.clone()),
    }
}
