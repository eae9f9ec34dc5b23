//! What is kept of each question: enough to judge it again, to find it, and to draw every report.

use serde::{Deserialize, Serialize};

use crate::vision::Vision;

/// One question, asked in one way; a line of `records.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The question.
    pub id: String,
    /// Digest of everything else that the answer depends on; together with `id` it says which
    /// questions need not be asked again.
    pub settings: String,
    /// What was shown.
    pub vision: Vision,
    /// Group of the question.
    pub group: String,
    /// Kind of the question.
    pub task: String,
    /// The right answer.
    pub expected: String,
    /// How often guessing is right.
    pub chance: f64,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Outcome {
    /// An answer, right or wrong.
    Answered(Answered),
    /// The question could not be asked, for instance because its picture is damaged. It counts as
    /// wrong, is counted apart, and is asked again by the next run.
    Failed {
        /// Why.
        error: String,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// Digest of the prompt's text, template included.
    pub prompt_sha256: String,
    /// Content hash of the picture that was shown.
    pub picture: Option<String>,
    /// What the model said.
    pub answer: String,
    /// From 0, wrong, to 1, right.
    pub score: f64,
    /// Whether the answer was cut at the limit of its length.
    pub cut_off: bool,
    /// Seconds it took to read the prompt and to answer, not counting the look at the picture, which
    /// several questions share.
    pub seconds: f64,
    /// Tokens of the prompt, visual ones included.
    pub prompt_tokens: usize,
    /// Visual tokens among them.
    pub visual_tokens: usize,
    /// Tokens of the answer.
    pub answer_tokens: usize,
}

impl Record {
    /// From 0 to 1; 0 for a question that could not be asked.
    #[must_use]
    pub fn score(&self) -> f64 {
        match &self.outcome {
            Outcome::Answered(answered) => answered.score,
            Outcome::Failed { .. } => 0.0,
        }
    }

    /// Why the question could not be asked, if it could not.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Answered(_) => None,
            Outcome::Failed { error } => Some(error),
        }
    }
}
