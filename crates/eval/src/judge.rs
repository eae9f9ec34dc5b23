//! Grades by a model: MM-Vet, and answers that no rule can compare (Cambrian-1, table 24).
//!
//! [`Judge`] asks a model for a grade: a served one, or one that was loaded here ([`LocalJudge`]). A
//! call that fails is [`Grading::Failed`], never a zero.

use opabinia_endpoint::{ChatRequest, Endpoint, EndpointError};
use opabinia_model::Model;

use crate::candidate::{Candidate, Who};
use crate::error::in_full;
use crate::respondent::{Asked, Refusal, Respondent};
use crate::run::EvalOptions;
use crate::scorer::{Gold, Grade, Grader};

/// Tokens that a grade may have.
const GRADE_TOKENS: usize = 64;

/// How often a reply that says nothing clear is asked for again.
const UNCLEAR_RETRIES: u32 = 2;

/// How much of an unclear reply is shown, in characters.
const SHOWN: usize = 80;

/// Somebody who answers a text: an endpoint, or what a library's user puts there.
pub trait Ask {
    /// The answer to a text.
    ///
    /// # Errors
    /// Why there is none.
    fn answer(&self, text: &str, max_tokens: usize) -> Result<String, String>;

    /// Who it is, for records.
    fn name(&self) -> String;

    /// Whether the same text may be answered otherwise the next time.
    fn may_change_its_mind(&self) -> bool {
        true
    }
}

impl Ask for Endpoint {
    fn answer(&self, text: &str, max_tokens: usize) -> Result<String, String> {
        let request = ChatRequest {
            system: None,
            picture: None,
            text,
            max_tokens,
        };
        let answer = self
            .ask(&request)
            .map_err(|error: EndpointError| error.to_string())?;
        Ok(answer.text)
    }

    fn name(&self) -> String {
        format!("{} at {}", self.model(), self.url())
    }
}

/// A model that was loaded here and judges. It answers greedily, by the code that answers questions, so
/// the same answer always gets the same grade.
pub struct LocalJudge {
    model: Model,
    name: String,
    options: EvalOptions,
}

impl LocalJudge {
    /// Takes a model, and reads all of its parameters: grades are known by them, not by the name.
    #[must_use]
    pub fn new(model: Model, name: &str) -> Self {
        let sha256 = Candidate::new(&model, name).sha256;
        let short = sha256.get(..12).unwrap_or(&sha256);
        Self {
            name: format!("{name} ({short})"),
            model,
            options: EvalOptions::default(),
        }
    }
}

impl Ask for LocalJudge {
    fn answer(&self, text: &str, max_tokens: usize) -> Result<String, String> {
        let asked = Asked {
            prompt: text,
            look: None,
            max_new_tokens: max_tokens,
        };
        let respondent = Respondent::new(Who::Local(&self.model), &self.options);
        match respondent.answer(&[asked]).pop() {
            Some(Ok(reply)) => Ok(reply.text),
            Some(Err(Refusal::Question(problem))) => Err(format!("{}: {problem}", self.name)),
            Some(Err(Refusal::All(error))) => Err(in_full(&error)),
            None => Err(format!("{} gave no reply", self.name)),
        }
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn may_change_its_mind(&self) -> bool {
        false
    }
}

/// What became of an attempt to grade.
#[derive(Clone, Debug, PartialEq)]
pub enum Grading {
    /// There is a grade.
    Graded {
        /// What the judge says.
        grade: Grade,
        /// Its words.
        reply: String,
    },
    /// There is none. The question is not scored, and counted apart.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A model that grades.
pub struct Judge<'a> {
    model: &'a dyn Ask,
    grader: Grader,
}

impl<'a> Judge<'a> {
    /// Lets a model grade by the rules of a grader.
    #[must_use]
    pub fn new(model: &'a dyn Ask, grader: Grader) -> Self {
        Self { model, grader }
    }

    /// Grades an answer. `question` is what the judged model was asked.
    #[must_use]
    pub fn grade(&self, question: &str, gold: &Gold, prediction: &str) -> Grading {
        let text = self.grader.prompt(question, gold, prediction);
        let mut unclear = String::new();
        let retries = match self.model.may_change_its_mind() {
            true => UNCLEAR_RETRIES,
            false => 0,
        };
        for _ in 0..=retries {
            match self.model.answer(&text, GRADE_TOKENS) {
                Err(reason) => return Grading::Failed { reason },
                Ok(reply) => match self.grader.parse(&reply) {
                    Some(grade) => return Grading::Graded { grade, reply },
                    None => unclear = reply,
                },
            }
        }
        let shown: String = unclear.chars().take(SHOWN).collect();
        Grading::Failed {
            reason: format!("{} replied `{shown}`, which is no grade", self.model.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Replies one after the other.
    struct Replies(RefCell<Vec<Result<String, String>>>);

    impl Ask for Replies {
        fn answer(&self, _: &str, _: usize) -> Result<String, String> {
            self.0.borrow_mut().remove(0)
        }

        fn name(&self) -> String {
            "the judge".to_owned()
        }
    }

    fn grade(replies: &[Result<&str, &str>]) -> Grading {
        let replies = replies.iter().map(|reply| match reply {
            Ok(text) => Ok((*text).to_owned()),
            Err(text) => Err((*text).to_owned()),
        });
        let replies = Replies(RefCell::new(replies.collect()));
        let gold = Gold {
            answers: vec!["4".to_owned()],
            ..Gold::default()
        };
        Judge::new(&replies, Grader::Score).grade("How many?", &gold, "four")
    }

    #[test]
    fn a_clear_reply_is_a_grade() {
        let graded = Grading::Graded {
            grade: Grade::Score(0.7),
            reply: "0.7".to_owned(),
        };
        assert_eq!(grade(&[Ok("0.7")]), graded);
        assert_eq!(grade(&[Ok("well"), Ok("hm"), Ok("0.7")]), graded);
    }

    /// A judge that is silent, or says nothing clear, gives no zero.
    #[test]
    fn failures_are_no_zeros() {
        let Grading::Failed { reason } = grade(&[Ok("well"), Ok("well"), Ok("well")]) else {
            panic!()
        };
        assert_eq!(reason, "the judge replied `well`, which is no grade");
        let Grading::Failed { reason } = grade(&[Err("status 500")]) else {
            panic!()
        };
        assert_eq!(reason, "status 500");
    }
}
