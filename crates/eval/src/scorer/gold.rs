//! What is right for a question, and what a scorer makes of an answer.

use serde::{Deserialize, Serialize};

use super::python::strip;

/// What is right for a question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gold {
    /// Texts that are accepted; the ten human answers for VQA. May be empty where `right` is given.
    pub answers: Vec<String>,
    /// Texts of the options in the order of their letters; empty for open questions.
    pub options: Vec<String>,
    /// Index of the right option.
    pub right: Option<usize>,
    /// Category, where a scorer depends on it: that of OCRBench, the task of CV-Bench.
    pub category: Option<String>,
    /// Kind of question, where a scorer depends on it: `multiple-choice` or `open` in MMMU,
    /// `multi_choice` or `free_form` in MathVista.
    pub kind: Option<String>,
}

impl Gold {
    /// An open question with one right answer.
    #[must_use]
    pub fn text(answer: impl Into<String>) -> Self {
        Self {
            answers: vec![answer.into()],
            ..Self::default()
        }
    }

    /// A question with lettered options.
    #[must_use]
    pub fn option(right: usize, options: &[&str]) -> Self {
        Self {
            options: options.iter().map(|&text| text.to_owned()).collect(),
            right: Some(right),
            ..Self::default()
        }
    }

    /// Letter of the right option in lower case: that of `right`, or of a first answer such as `B`
    /// or `(B)`.
    #[must_use]
    pub fn letter(&self) -> Option<char> {
        if let Some(right) = self.right {
            return alphabet()
                .nth(right)
                .map(|letter| letter.to_ascii_lowercase());
        }
        let answer = strip(self.answers.first()?).trim_matches(['(', ')']);
        let mut chars = answer.chars();
        let letter = chars.next().filter(char::is_ascii_alphabetic)?;
        chars.next().is_none().then(|| letter.to_ascii_lowercase())
    }

    /// Text of the right answer: of the right option if the options are known, else the first one
    /// accepted.
    #[must_use]
    pub fn right_text(&self) -> Option<&str> {
        let option = self.right.and_then(|right| self.options.get(right));
        option.or(self.answers.first()).map(String::as_str)
    }

    /// How many equally likely answers somebody who guesses has: the options, or yes and no. `None`
    /// for open questions.
    #[must_use]
    pub fn guesses(&self) -> Option<usize> {
        if !self.options.is_empty() {
            return Some(self.options.len());
        }
        let answer = strip(self.answers.first()?).to_lowercase();
        matches!(answer.as_str(), "yes" | "no").then_some(2)
    }

    /// How often guessing is right, from 0 to 1.
    #[must_use]
    pub fn chance(&self) -> f64 {
        self.guesses().map_or(0.0, |options| 1.0 / options as f64)
    }

    /// Letters that an answer may have, in capitals. Where the options are not known there are six,
    /// as many as the benchmarks here have, or more if the right one is beyond.
    pub(super) fn letters(&self) -> impl Iterator<Item = char> + Clone + use<> {
        let known = self.options.len();
        let count = match self.right {
            _ if known > 0 => known,
            Some(right) => (right + 1).max(6),
            None => 6,
        };
        alphabet().take(count)
    }
}

fn alphabet() -> impl Iterator<Item = char> + Clone {
    'A'..='Z'
}

/// What a scorer makes of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// From 0, wrong, to 1, right.
    pub score: f64,
    /// What of the answer was compared.
    pub extracted: String,
    /// What it was compared with; with several accepted answers, the first.
    #[serde(default)]
    pub expected: String,
    /// Whether anything usable was found. If not, the score is 0 and the answer counts as unparsed.
    pub parsed: bool,
}

impl Judgement {
    /// A judgement over something that was found.
    #[must_use]
    pub fn new(score: f64, extracted: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            score,
            extracted: extracted.into(),
            expected: expected.into(),
            parsed: true,
        }
    }

    /// Nothing usable was found; `extracted` is what was there instead.
    #[must_use]
    pub fn unparsed(extracted: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            score: 0.0,
            extracted: extracted.into(),
            expected: expected.into(),
            parsed: false,
        }
    }

    /// Right or wrong; unparsed where it is wrong and nothing usable.
    pub(super) fn verdict(
        right: bool,
        usable: bool,
        extracted: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        if right || usable {
            Self::new(f64::from(u8::from(right)), extracted, expected)
        } else {
            Self::unparsed(extracted, expected)
        }
    }

    /// What guessing may expect: summed up, these give the score of chance.
    #[must_use]
    pub fn guessing(gold: &Gold) -> Self {
        let expected = gold.right_text().unwrap_or_default();
        Self::new(gold.chance(), "", expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_texts() {
        let gold = Gold::option(1, &["a dog", "the cat"]);
        assert_eq!(gold.letter(), Some('b'));
        assert_eq!(gold.right_text(), Some("the cat"));
        assert_eq!(gold.letters().collect::<String>(), "AB");
        assert_eq!(Gold::text("(C)").letter(), Some('c'));
        assert_eq!(Gold::text("yes").letter(), None);
        assert_eq!(Gold::text("yes").letters().count(), 6);
        assert_eq!(Gold::option(99, &[]).letter(), None);
        assert_eq!(Gold::option(7, &[]).letters().count(), 8);
        assert_eq!(Gold::default().right_text(), None);
    }

    #[test]
    fn chances() {
        assert_eq!(Gold::option(0, &["1", "2", "3", "4"]).chance(), 0.25);
        assert_eq!(Gold::text("No").chance(), 0.5);
        assert_eq!(Gold::text("Paris").chance(), 0.0);
        assert_eq!(Judgement::guessing(&Gold::text("No")).score, 0.5);
    }
}
