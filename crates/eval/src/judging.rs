//! From an answer to its score: by rule, or by a judge where the benchmark wants one.

use std::fmt;
use std::sync::Arc;

use crate::items::{Item, Rules};
use crate::judge::{Ask, Grading, Judge};
use crate::record::Unscored;
use crate::scorer::{Grade, Judgement};

/// The model that judges where no rule can.
#[derive(Clone)]
pub struct JudgeModel(Arc<dyn Ask + Send + Sync>);

impl JudgeModel {
    /// Takes an endpoint, or another [`Ask`].
    pub fn new(model: impl Ask + Send + Sync + 'static) -> Self {
        Self(Arc::new(model))
    }

    /// Who it is.
    #[must_use]
    pub fn name(&self) -> String {
        self.0.name()
    }
}

impl fmt::Debug for JudgeModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JudgeModel").field(&self.name()).finish()
    }
}

/// What became of an answer.
#[derive(Debug, Default)]
pub struct Verdict {
    /// From 0 to 1; `None` if nobody could say.
    pub score: Option<f64>,
    /// What of the answer was compared.
    pub extracted: String,
    /// Whether anything usable was found in it.
    pub parsed: bool,
    /// What the judge said.
    pub judge: Option<String>,
    /// Why there is no score.
    pub unscored: Option<Unscored>,
}

/// Judges an answer.
pub fn judge(rules: &Rules, model: Option<&JudgeModel>, item: &Item, answer: &str) -> Verdict {
    let Some(gold) = &item.gold else {
        return unscored(answer, Unscored::Submission);
    };
    let by_rule = |text: &str| rules.scorer.judge(rules.protocol, text, gold);
    let (Some(grader), Some(model)) = (rules.scorer.grader(), model) else {
        return match rules.scorer.needs_grader() {
            true => unscored(answer, Unscored::NeedsJudge),
            false => verdict(by_rule(answer), None),
        };
    };
    // Nothing was said, so there is nothing to grade.
    if answer.trim().is_empty() {
        return verdict(Judgement::unparsed(answer, ""), None);
    }
    match Judge::new(&*model.0, grader).grade(&item.prompt, gold, answer) {
        Grading::Failed { reason } => unscored(answer, Unscored::JudgeFailed(reason)),
        Grading::Graded { grade, reply } => match grade {
            Grade::Score(score) => verdict(Judgement::new(score, answer, ""), Some(reply)),
            Grade::Answer(text) => verdict(by_rule(&text), Some(reply)),
        },
    }
}

fn verdict(judgement: Judgement, judge: Option<String>) -> Verdict {
    Verdict {
        score: Some(judgement.score),
        extracted: judgement.extracted,
        parsed: judgement.parsed,
        judge,
        unscored: None,
    }
}

fn unscored(answer: &str, why: Unscored) -> Verdict {
    Verdict {
        extracted: answer.to_owned(),
        parsed: !answer.trim().is_empty(),
        unscored: Some(why),
        ..Verdict::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorer::{Aggregate, Gold, Protocol, Scorer};

    struct Says(Result<&'static str, &'static str>);

    impl Ask for Says {
        fn answer(&self, _: &str, _: usize) -> Result<String, String> {
            self.0.map(str::to_owned).map_err(str::to_owned)
        }

        fn name(&self) -> String {
            "a judge".to_owned()
        }
    }

    fn judged(
        scorer: Scorer,
        gold: Option<Gold>,
        answer: &str,
        says: Option<Result<&'static str, &'static str>>,
    ) -> Verdict {
        let rules = Rules {
            scorer,
            aggregate: Aggregate::Mean,
            protocol: Protocol::Standard,
        };
        let mut items = crate::items::tests::set_of(&[None]);
        let mut item = items.sets.remove(0).items.remove(0);
        item.gold = gold;
        let model = says.map(|says| JudgeModel::new(Says(says)));
        judge(&rules, model.as_ref(), &item, answer)
    }

    #[test]
    fn a_judge_is_asked_only_where_the_benchmark_wants_one() {
        let four = || Some(Gold::text("4"));
        let graded = judged(Scorer::MmVet, four(), "four", Some(Ok("0.7")));
        assert_eq!(
            (graded.score, graded.judge.as_deref()),
            (Some(0.7), Some("0.7"))
        );
        let by_rule = judged(Scorer::ShortAnswer, four(), "four", Some(Ok("0.7")));
        assert_eq!((by_rule.score, by_rule.judge), (Some(1.0), None));
        let short = judged(Scorer::MathVista, four(), "It must be four", Some(Ok("4")));
        assert_eq!(short.score, Some(1.0));
    }

    /// A judge that fails, and one that is missing, give no zero; an empty answer is one.
    #[test]
    fn no_judgement_is_no_zero() {
        let four = || Some(Gold::text("4"));
        let failed = judged(Scorer::MmVet, four(), "four", Some(Err("status 500")));
        assert_eq!(failed.score, None);
        assert_eq!(
            failed.unscored,
            Some(Unscored::JudgeFailed("status 500".into()))
        );
        let alone = judged(Scorer::MmVet, four(), "four", None);
        assert_eq!(
            (alone.score, alone.unscored),
            (None, Some(Unscored::NeedsJudge))
        );
        let hidden = judged(Scorer::Anls, None, "four", None);
        assert_eq!(hidden.unscored, Some(Unscored::Submission));
        let silent = judged(Scorer::MmVet, four(), " ", Some(Err("status 500")));
        assert_eq!((silent.score, silent.parsed), (Some(0.0), false));
    }
}
