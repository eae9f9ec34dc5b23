//! What is kept of each question: enough to judge it again, to find it, and to draw every report.

use serde::{Deserialize, Serialize};

use crate::scorer::Judgement;
use crate::vision::Vision;

/// One question, asked in one way; a line of `records.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The benchmark; `None` for a file of questions.
    #[serde(default)]
    pub benchmark: Option<String>,
    /// The question.
    pub id: String,
    /// Its number in the benchmark, from 0.
    #[serde(default)]
    pub index: usize,
    /// Digest of everything else that the score depends on; together with benchmark and `id` it says
    /// which questions are done.
    pub settings: String,
    /// What was shown.
    pub vision: Vision,
    /// Group of the question.
    pub group: String,
    /// Kind of the question, its category.
    pub task: String,
    /// What must be answered together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The collection that the question is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Digest of the file of the question's own picture, whether it was shown or not.
    #[serde(default)]
    pub own_picture: Option<String>,
    /// What was asked, template and image placeholder not included.
    #[serde(default)]
    pub prompt: String,
    /// The right answer; empty where only the benchmark's server knows it.
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
    /// Digest of model, prompt, picture and length: of everything that the answer depends on. What has
    /// been answered once is not asked again, whatever it is judged by.
    #[serde(default)]
    pub asked: String,
    /// Digest of the prompt's text, template included.
    pub prompt_sha256: String,
    /// Content hash of the picture that was shown.
    pub picture: Option<String>,
    /// What the model said.
    pub answer: String,
    /// From 0, wrong, to 1, right; `None` if nobody has judged the answer.
    pub score: Option<f64>,
    /// What of the answer was compared.
    #[serde(default)]
    pub extracted: String,
    /// Whether anything usable was found in it.
    #[serde(default = "yes")]
    pub parsed: bool,
    /// What the judge said, where one was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<String>,
    /// Why there is no score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unscored: Option<Unscored>,
    /// Whether the answer was taken from an equal question.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reused: bool,
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

/// Why an answer has no score. It counts nowhere, least of all as a zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unscored {
    /// Only the benchmark's server knows what is right.
    Submission,
    /// A judge must grade it, and there was none.
    NeedsJudge,
    /// The judge gave no grade; it is asked again by the next run.
    JudgeFailed(String),
}

impl Record {
    /// From 0 to 1; 0 for a question that could not be asked, `None` for an answer that nobody judged.
    #[must_use]
    pub fn score(&self) -> Option<f64> {
        match &self.outcome {
            Outcome::Answered(answered) => answered.score,
            Outcome::Failed { .. } => Some(0.0),
        }
    }

    /// The answer, if there is one.
    #[must_use]
    pub fn answered(&self) -> Option<&Answered> {
        match &self.outcome {
            Outcome::Answered(answered) => Some(answered),
            Outcome::Failed { .. } => None,
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

    /// Why the judge gave no grade, if one was asked in vain.
    #[must_use]
    pub fn judge_failure(&self) -> Option<&str> {
        match self.answered()?.unscored.as_ref()? {
            Unscored::JudgeFailed(reason) => Some(reason),
            _ => None,
        }
    }

    /// Whether nothing is left to do about it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.failure().is_none() && self.judge_failure().is_none()
    }

    /// The judgement, as aggregates take it; `None` of an answer that nobody judged.
    #[must_use]
    pub fn judgement(&self) -> Option<Judgement> {
        let answered = self.answered();
        Some(Judgement {
            score: self.score()?,
            extracted: answered.map_or_else(String::new, |answered| answered.extracted.clone()),
            expected: self.expected.clone(),
            parsed: answered.is_some_and(|answered| answered.parsed),
        })
    }

    /// What the question shares with others that makes them depend on each other: what must be
    /// answered together, else the picture.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        self.unit.as_deref().or(self.own_picture.as_deref())
    }
}

fn yes() -> bool {
    true
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An answer of a question of its own picture.
    pub fn record(index: usize, vision: Vision, task: &str, score: f64) -> Record {
        Record {
            benchmark: None,
            id: index.to_string(),
            index,
            settings: vision.to_string(),
            vision,
            group: "general".into(),
            task: task.into(),
            unit: None,
            source: None,
            own_picture: None,
            prompt: "Is it?".into(),
            expected: "yes".into(),
            chance: 0.25,
            outcome: Outcome::Answered(Answered {
                asked: format!("{vision} {index}"),
                prompt_sha256: String::new(),
                picture: None,
                answer: "yes".into(),
                score: Some(score),
                extracted: "yes".into(),
                parsed: true,
                judge: None,
                unscored: None,
                reused: false,
                cut_off: index == 0,
                seconds: 0.5,
                prompt_tokens: 4,
                visual_tokens: 0,
                answer_tokens: 2,
            }),
        }
    }

    #[test]
    fn records_come_back_from_json() {
        let judged = record(1, Vision::On, "check", 0.5);
        let mut waiting = judged.clone();
        if let Outcome::Answered(answered) = &mut waiting.outcome {
            answered.score = None;
            answered.unscored = Some(Unscored::JudgeFailed("silence".into()));
        }
        assert_eq!(waiting.score(), None);
        assert_eq!(waiting.judge_failure(), Some("silence"));
        assert!(judged.is_final() && !waiting.is_final());
        let failed = Record {
            outcome: Outcome::Failed {
                error: "damaged".into(),
            },
            ..judged.clone()
        };
        assert_eq!((failed.score(), failed.is_final()), (Some(0.0), false));
        for record in [judged, waiting, failed] {
            let line = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
        }
    }
}
