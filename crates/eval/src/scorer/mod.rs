//! Is the answer right, and what do all answers together score?
//!
//! A [`Scorer`] compares one answer with what is right, an [`Aggregate`] makes the figures of a
//! benchmark out of its judged questions. Both exist in two [protocols](Protocol): the rules of the
//! reference implementation's scripts, for parity with published numbers (Cambrian-1, arXiv
//! 2406.16860), and those of common harnesses. They differ by points, so a score without the name of
//! its protocol says little.
//!
//! Two things are the same in both. An answer in which nothing usable is found is *unparsed*: it scores
//! 0 and is counted. And nothing here asks a model; where one must grade, [`Grader`] writes the
//! question to it and reads its reply.

mod aggregate;
mod contractions;
mod error;
mod gold;
mod grader;
mod inference;
mod mmmu;
mod mmmu_open;
mod number;
mod option;
mod protocol;
mod python;
mod short_answer;
mod text;
mod vqa;
mod yes_no;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use aggregate::{Aggregate, Judged, Metric, Unit};
pub use error::ScorerError;
pub use gold::{Gold, Judgement};
pub use grader::{Grade, Grader};
pub use protocol::Protocol;
pub use short_answer::{Expected, normalise};

use error::named;
use text::{Ocr, Width};

/// Version of the code that judges. Raised when any scorer, aggregate or grader comes to another
/// result than before, so that scores of different versions are told apart.
pub const VERSION: u32 = 1;

/// How one answer is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Scorer {
    /// The small world's rule.
    ShortAnswer,
    /// Equality.
    Exact,
    /// Options: SEED-Bench, MMBench, V*.
    Letter,
    /// Options: AI2D.
    Ai2d,
    /// Options: CV-Bench and its parts.
    CvBench,
    /// Options: MMStar, MMBench-CN. Yes or no: POPE.
    FirstWord,
    /// Options: BLINK.
    Blink,
    /// Options: Q-Bench.
    QBench,
    /// Options and words: RealWorldQA.
    RealWorldQa,
    /// Options: ScienceQA.
    ScienceQa,
    /// Options: MMVP.
    Mmvp,
    /// Yes or no: MME.
    Mme,
    /// Words: GQA.
    Gqa,
    /// Ten human answers: TextVQA, VizWiz.
    Vqa,
    /// Any of several answers: ST-VQA.
    VqaAny,
    /// Text with spelling mistakes: DocVQA, InfoVQA, ST-VQA.
    Anls,
    /// Numbers and words: ChartQA.
    ChartQa,
    /// Text in pictures: OCRBench.
    OcrBench,
    /// Text in pictures, without anything around it.
    OcrBenchStrict,
    /// Options and open answers: MMMU.
    Mmmu,
    /// Options, numbers and words: MathVista.
    MathVista,
    /// Transcripts: SynthDoG.
    EditDistance,
    /// A model grades: MM-Vet.
    MmVet,
    /// A model says whether it is right: any open question.
    Verdict,
}

impl Scorer {
    /// Every scorer.
    pub const ALL: [Self; 24] = [
        Self::ShortAnswer,
        Self::Exact,
        Self::Letter,
        Self::Ai2d,
        Self::CvBench,
        Self::FirstWord,
        Self::Blink,
        Self::QBench,
        Self::RealWorldQa,
        Self::ScienceQa,
        Self::Mmvp,
        Self::Mme,
        Self::Gqa,
        Self::Vqa,
        Self::VqaAny,
        Self::Anls,
        Self::ChartQa,
        Self::OcrBench,
        Self::OcrBenchStrict,
        Self::Mmmu,
        Self::MathVista,
        Self::EditDistance,
        Self::MmVet,
        Self::Verdict,
    ];

    /// Every scorer.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter()
    }

    /// As it is written in the file of a benchmark.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// What it does, in one line.
    #[must_use]
    pub fn describe(self) -> &'static str {
        self.entry().1
    }

    fn entry(self) -> (&'static str, &'static str) {
        match self {
            Self::ShortAnswer => (
                "short-answer",
                "equal after normalising articles, numbers and punctuation; an option's letter or text",
            ),
            Self::Exact => ("exact", "equal, letter case and space around aside"),
            Self::Letter => (
                "letter",
                "reference: the first letter of what is announced; standard: the option that is meant",
            ),
            Self::Ai2d => (
                "ai2d",
                "as `letter`; reference: an option's index counts too",
            ),
            Self::CvBench => (
                "cv-bench",
                "reference: as `letter`, in 3D the option's text too; standard: the leading letter",
            ),
            Self::FirstWord => (
                "first-word",
                "reference: the first word is the letter or answer; standard: the option, or yes or \
                 no, that is meant",
            ),
            Self::Blink => (
                "blink",
                "reference: the first word before a full stop, without brackets; standard: as `letter`",
            ),
            Self::QBench => (
                "q-bench",
                "reference: everything before a full stop; standard: as `letter`",
            ),
            Self::RealWorldQa => (
                "real-world-qa",
                "reference: the first word of what is announced; standard: the option that is \
                 meant, or the right word",
            ),
            Self::ScienceQa => (
                "science-qa",
                "reference: the option's text, or its letter before a full stop; standard: as `letter`",
            ),
            Self::Mmvp => (
                "mmvp",
                "reference: the bare letter or text; standard: `A` or `B` by common patterns",
            ),
            Self::Mme => (
                "mme",
                "reference: the bare word yes or no; standard: what the answer begins with",
            ),
            Self::Gqa => (
                "gqa",
                "equal; reference: full stops at the end aside; standard: all punctuation aside",
            ),
            Self::Vqa => ("vqa", "soft accuracy among ten human answers"),
            Self::VqaAny => (
                "vqa-any",
                "equal to an accepted answer after the normaliser of `vqa`",
            ),
            Self::Anls => (
                "anls",
                "normalised Levenshtein similarity to the best of the accepted answers, 0 below 0.5",
            ),
            Self::ChartQa => (
                "chart-qa",
                "a number within 5%, or an equal text; standard: percent signs are understood",
            ),
            Self::OcrBench => (
                "ocr-bench",
                "an accepted text is in the answer; standard: full-width letters are folded",
            ),
            Self::OcrBenchStrict => (
                "ocr-bench-strict",
                "as `ocr-bench`, but the accepted text is all of the answer",
            ),
            Self::Mmmu => (
                "mmmu",
                "options and open answers; standard: the parser of the benchmark's authors",
            ),
            Self::MathVista => (
                "math-vista",
                "reference: the bare letter, text or number within 5%; standard: the option that is \
                 meant, or the last number",
            ),
            Self::EditDistance => (
                "edit-distance",
                "how many of 0, 5, 10, 25 and 50 edits suffice to reach the right text",
            ),
            Self::MmVet => (
                "mm-vet",
                "a model grades from 0.0 to 1.0; <AND> and <OR> join answers",
            ),
            Self::Verdict => (
                "verdict",
                "a model says CORRECT or INCORRECT; numbers may be off by 5%",
            ),
        }
    }

    /// Judges an answer. Where a [grader is needed](Self::needs_grader) that comes out unparsed.
    #[must_use]
    pub fn judge(&self, protocol: Protocol, prediction: &str, gold: &Gold) -> Judgement {
        let judge = match protocol {
            Protocol::Standard => self.standard(),
            Protocol::Reference => self.reference(),
        };
        judge(prediction, gold)
    }

    /// As [`Self::judge`], but where MMMU's official parser finds no option, an option is drawn as
    /// its script does, from a stream that `seed` and the question's id name. The answer still counts
    /// as unparsed, whatever it scores.
    #[must_use]
    pub fn judge_or_draw(&self, prediction: &str, gold: &Gold, seed: u64, id: &str) -> Judgement {
        let judgement = self.judge(Protocol::Standard, prediction, gold);
        if *self != Self::Mmmu || judgement.parsed {
            return judgement;
        }
        let right = gold.right.is_some() && mmmu::drawn(gold, seed, id) == gold.right;
        Judgement {
            score: f64::from(u8::from(right)),
            ..judgement
        }
    }

    /// Judges an answer to a question of the small world.
    #[must_use]
    pub fn score(&self, answer: &str, expected: &Expected<'_>) -> f64 {
        self.judge(Protocol::Standard, answer, &expected.gold())
            .score
    }

    /// The grader that judges for this scorer or, for MathVista, may shorten answers first.
    #[must_use]
    pub fn grader(self) -> Option<Grader> {
        match self {
            Self::MmVet => Some(Grader::Score),
            Self::Verdict => Some(Grader::Verdict),
            Self::MathVista => Some(Grader::Extraction),
            _ => None,
        }
    }

    /// Whether nothing can be judged without a grader.
    #[must_use]
    pub fn needs_grader(self) -> bool {
        matches!(self, Self::MmVet | Self::Verdict)
    }

    fn reference(self) -> Rule {
        match self {
            Self::Letter => option::letter,
            Self::Ai2d => option::ai2d,
            Self::CvBench => option::cv_bench,
            Self::FirstWord => option::first_word,
            Self::Blink => option::blink,
            Self::QBench => option::q_bench,
            Self::RealWorldQa => option::real_world_qa,
            Self::ScienceQa => option::science_qa,
            Self::Mmvp => option::mmvp,
            Self::Mme => yes_no::judge_bare,
            Self::Gqa => text::gqa_reference,
            Self::Anls => text::anls_reference,
            Self::ChartQa => number::chart_qa_reference,
            Self::OcrBench => {
                |prediction, gold| text::ocr_bench(prediction, gold, Ocr::Contains, Width::Kept)
            }
            Self::OcrBenchStrict => {
                |prediction, gold| text::ocr_bench(prediction, gold, Ocr::Equals, Width::Kept)
            }
            Self::Mmmu => mmmu::reference,
            Self::MathVista => number::math_vista_reference,
            Self::ShortAnswer
            | Self::Exact
            | Self::Vqa
            | Self::VqaAny
            | Self::EditDistance
            | Self::MmVet
            | Self::Verdict => self.standard(),
        }
    }

    fn standard(self) -> Rule {
        match self {
            Self::ShortAnswer => short_answer::judge,
            Self::Exact => text::exact,
            Self::Letter | Self::Ai2d | Self::Blink | Self::QBench | Self::ScienceQa => {
                inference::option
            }
            Self::CvBench => inference::leading_letter,
            Self::FirstWord | Self::RealWorldQa => inference::option_or_word,
            Self::Mmvp => inference::mmvp,
            Self::Mme => yes_no::judge,
            Self::Gqa => text::gqa_standard,
            Self::Vqa => vqa::soft_accuracy,
            Self::VqaAny => vqa::membership,
            Self::Anls => text::anls_standard,
            Self::ChartQa => number::chart_qa_standard,
            Self::OcrBench => {
                |prediction, gold| text::ocr_bench(prediction, gold, Ocr::Contains, Width::Folded)
            }
            Self::OcrBenchStrict => {
                |prediction, gold| text::ocr_bench(prediction, gold, Ocr::Equals, Width::Folded)
            }
            Self::Mmmu => mmmu::official,
            Self::MathVista => number::math_vista_standard,
            Self::EditDistance => text::edit_distance,
            Self::MmVet | Self::Verdict => grader::ungraded,
        }
    }
}

/// A way from an answer and what is right to a judgement.
type Rule = fn(&str, &Gold) -> Judgement;

/// Names in text and in files are the same, and a wrong one is answered with the nearest.
macro_rules! named_by_text {
    ($type:ty, $what:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $type {
            type Err = ScorerError;

            fn from_str(name: &str) -> Result<Self, ScorerError> {
                named($what, &Self::ALL, Self::name, name)
            }
        }

        impl TryFrom<String> for $type {
            type Error = ScorerError;

            fn try_from(name: String) -> Result<Self, ScorerError> {
                name.parse()
            }
        }

        impl From<$type> for &'static str {
            fn from(value: $type) -> Self {
                value.name()
            }
        }
    };
}

named_by_text!(Protocol, "protocol");
named_by_text!(Scorer, "scorer");
named_by_text!(Aggregate, "aggregate");

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_lead_back() {
        let names: HashSet<_> = Scorer::all().map(Scorer::name).collect();
        assert_eq!(names.len(), Scorer::ALL.len());
        for scorer in Scorer::all() {
            assert_eq!(scorer.to_string().parse(), Ok(scorer));
            assert!(!scorer.describe().is_empty());
        }
        for aggregate in Aggregate::all() {
            assert_eq!(aggregate.to_string().parse(), Ok(aggregate));
        }
        let json = serde_json::to_string(&Scorer::CvBench).unwrap();
        assert_eq!(json, "\"cv-bench\"");
        assert_eq!(
            serde_json::from_str::<Scorer>(&json).unwrap(),
            Scorer::CvBench
        );
    }

    #[test]
    fn wrong_names_are_answered_with_the_nearest() {
        let error = "ocrbench".parse::<Scorer>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no scorer `ocrbench`; did you mean `ocr-bench`?"
        );
        let error = "zzz".parse::<Protocol>().unwrap_err();
        assert_eq!(error.to_string(), "there is no protocol `zzz`");
        let error = serde_json::from_str::<Aggregate>("\"men\"").unwrap_err();
        assert!(error.to_string().contains("`mean`"), "{error}");
    }

    #[test]
    fn draws_score_but_stay_unparsed() {
        let gold = Gold::option(1, &["12", "24"]);
        let drawn: Vec<f64> = (0..40)
            .map(|id| Scorer::Mmmu.judge_or_draw("b", &gold, 0, &id.to_string()))
            .inspect(|judgement| assert!(!judgement.parsed))
            .map(|judgement| judgement.score)
            .collect();
        let right: f64 = drawn.iter().sum();
        assert!((8.0..32.0).contains(&right), "{right} of 40");
        assert_eq!(
            Scorer::Mmmu.judge(Protocol::Standard, "b", &gold).score,
            0.0
        );
        assert_eq!(Scorer::Mmmu.judge_or_draw("B", &gold, 0, "1").score, 1.0);
    }

    fn gold() -> impl Strategy<Value = Gold> {
        let texts = || prop::collection::vec("[A-Za-z0-9%. ]{0,6}", 0..5);
        let right = prop::option::of(0_usize..30);
        let kind = prop::option::of("multiple-choice|open|multi_choice|free_form");
        (texts(), texts(), right, kind).prop_map(|(answers, options, right, kind)| Gold {
            answers,
            options,
            right,
            kind,
            category: None,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn every_scorer_judges_everything(prediction in ".{0,24}", gold in gold()) {
            for scorer in Scorer::all() {
                for protocol in Protocol::ALL {
                    let judgement = scorer.judge(protocol, &prediction, &gold);
                    prop_assert!((0.0..=1.0).contains(&judgement.score), "{scorer}");
                    prop_assert!(judgement.parsed || judgement.score == 0.0, "{scorer}");
                }
            }
        }
    }
}
