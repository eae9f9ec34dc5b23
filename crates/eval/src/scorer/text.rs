//! Answers that are compared as texts: equality (GQA), edit distance (document questions, SynthDoG)
//! and containment (OCRBench).

use super::gold::{Gold, Judgement};
use super::python::{len, strip, words};

/// Equal, letter case aside, after full stops at the end of the prediction were dropped; nothing else
/// is forgiven (GQA, the reference's rule).
pub(super) fn gqa_reference(prediction: &str, gold: &Gold) -> Judgement {
    let lowered = prediction.to_lowercase();
    let found = lowered.trim_end_matches('.').to_owned();
    equal(found, gold, str::to_lowercase)
}

/// Equal, letter case, punctuation and space around aside (GQA in common harnesses).
pub(super) fn gqa_standard(prediction: &str, gold: &Gold) -> Judgement {
    let plain = |text: &str| {
        let kept = text.chars().filter(|c| !c.is_ascii_punctuation());
        strip(&kept.collect::<String>().to_lowercase()).to_owned()
    };
    equal(plain(prediction), gold, plain)
}

/// Equal, letter case and space around aside.
pub(super) fn exact(prediction: &str, gold: &Gold) -> Judgement {
    let plain = |text: &str| strip(&text.to_lowercase()).to_owned();
    equal(plain(prediction), gold, plain)
}

fn equal(found: String, gold: &Gold, plain: impl Fn(&str) -> String) -> Judgement {
    let accepted = accepted(gold).map(plain);
    let accepted: Vec<String> = accepted.collect();
    let right = accepted.contains(&found);
    let expected = accepted.into_iter().next().unwrap_or_default();
    let usable = !strip(&found).is_empty();
    Judgement::verdict(right, usable, found, expected)
}

/// The accepted answers, or the text of the right option where none are given.
fn accepted(gold: &Gold) -> impl Iterator<Item = &str> {
    let option = gold.answers.is_empty().then(|| gold.right_text());
    let answers = gold.answers.iter().map(String::as_str);
    answers.chain(option.flatten())
}

/// Similarity below which an answer is wrong, not misspelt.
const ANLS_THRESHOLD: f64 = 0.5;

/// Average normalised Levenshtein similarity, as the reference computes it (ST-VQA): in lower case
/// and stripped, 1 − distance / length of the longer text, 0 below 0.5, the best over the accepted
/// answers. Two empty texts, on which it stops, score 0.
pub(super) fn anls_reference(prediction: &str, gold: &Gold) -> Judgement {
    let plain = |text: &str| strip(&text.to_lowercase()).to_owned();
    let found = plain(prediction);
    let similarity = |answer: String| match len(&found).max(len(&answer)) {
        0 => 0.0,
        longer => 1.0 - strsim::levenshtein(&found, &answer) as f64 / longer as f64,
    };
    let best = accepted(gold)
        .map(plain)
        .map(similarity)
        .fold(0.0, f64::max);
    similar(best, found, gold)
}

/// Average normalised Levenshtein similarity, as common harnesses compute it (DocVQA, InfoVQA): white
/// space is collapsed for the distance, but the length is that of the texts as they were, in capitals.
/// Two empty texts are equal.
pub(super) fn anls_standard(prediction: &str, gold: &Gold) -> Judgement {
    let plain = |text: &str| {
        let lowered = text.to_lowercase();
        words(&lowered).collect::<Vec<_>>().join(" ")
    };
    let length = |text: &str| len(&text.to_uppercase());
    let found = plain(prediction);
    let similarity = |answer: &str| match length(answer).max(length(prediction)) {
        0 => 1.0,
        longer => 1.0 - strsim::levenshtein(&plain(answer), &found) as f64 / longer as f64,
    };
    let best = accepted(gold).map(similarity).fold(0.0, f64::max);
    similar(best, found, gold)
}

fn similar(best: f64, found: String, gold: &Gold) -> Judgement {
    let expected = accepted(gold).next().unwrap_or_default();
    let score = if best < ANLS_THRESHOLD { 0.0 } else { best };
    if score == 0.0 && found.is_empty() {
        return Judgement::unparsed(found, expected);
    }
    Judgement::new(score, found, expected)
}

/// Numbers of edits that SynthDoG asks about.
pub(super) const EDITS: [usize; 5] = [0, 5, 10, 25, 50];

/// Of [`EDITS`], the share that suffices to turn the prediction into the text. As fewer edits are
/// within every larger number, the score says which. An empty prediction is as good as its distance
/// from a short text.
pub(super) fn edit_distance(prediction: &str, gold: &Gold) -> Judgement {
    let plain = |text: &str| strip(&text.to_lowercase()).to_owned();
    let (found, expected) = (
        plain(prediction),
        plain(gold.right_text().unwrap_or_default()),
    );
    let distance = strsim::levenshtein(&found, &expected);
    let enough = EDITS.iter().filter(|edits| distance <= **edits).count();
    let score = enough as f64 / EDITS.len() as f64;
    if score == 0.0 && found.is_empty() {
        return Judgement::unparsed(found, expected);
    }
    Judgement::new(score, found, expected)
}

/// OCRBench's category in which white space and letter case are part of the notation, or not.
const MATHS: &str = "Handwritten Mathematical Expression Recognition";

/// What an answer must do to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ocr {
    /// Contain an accepted text, as OCRBench counts.
    Contains,
    /// Be an accepted text.
    Equals,
}

/// Whether full-width forms of ASCII characters are other characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// They are.
    Kept,
    /// They are folded to ASCII, except in formulas.
    Folded,
}

/// OCRBench: letter case, line breaks and space around do not count; in formulas space does not
/// count at all, but case does.
pub(super) fn ocr_bench(prediction: &str, gold: &Gold, wanted: Ocr, width: Width) -> Judgement {
    let maths = gold.category.as_deref() == Some(MATHS);
    let plain = |text: &str| match (maths, width) {
        (true, _) => strip(text).replace(['\n', ' '], ""),
        (false, Width::Kept) => plain_line(text),
        (false, Width::Folded) => plain_line(&text.chars().map(fold_width).collect::<String>()),
    };
    let found = plain(prediction);
    let right = accepted(gold).any(|answer| match wanted {
        Ocr::Contains => found.contains(&plain(answer)),
        Ocr::Equals => found == plain(answer),
    });
    let expected = accepted(gold).next().map(plain).unwrap_or_default();
    Judgement::verdict(right, !found.is_empty(), found, expected)
}

fn plain_line(text: &str) -> String {
    strip(&text.to_lowercase()).replace('\n', " ")
}

/// The ASCII character of a full-width form, the plain space of an ideographic one.
fn fold_width(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        '\u{3000}' => ' ',
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gqa() {
        let left = Gold::text("Left");
        assert_eq!(gqa_reference("left..", &left).score, 1.0);
        assert_eq!(gqa_reference("left ", &left).score, 0.0);
        assert_eq!(gqa_standard(" left! ", &left).score, 1.0);
        assert_eq!(gqa_standard("to the left", &left).score, 0.0);
        assert!(!gqa_standard("", &left).parsed);
        assert_eq!(exact(" LEFT\n", &left).score, 1.0);
        assert_eq!(exact("left.", &left).score, 0.0);
    }

    #[test]
    fn distances_count_code_points() {
        let gold = Gold::text("北京市");
        let close = |score: f64| (score - 2.0 / 3.0).abs() < 1e-12;
        assert!(close(anls_reference("北京", &gold).score));
        assert!(close(anls_standard("北京", &gold).score));
        assert_eq!(
            anls_reference("abcdef", &Gold::text("abcxyz")).score,
            0.5,
            "just similar"
        );
        assert_eq!(anls_reference("abcde", &Gold::text("abxyz")).score, 0.0);
        assert!(!anls_reference("", &Gold::text("")).parsed);
        assert_eq!(anls_standard("", &Gold::text("")).score, 1.0);
        assert_eq!(anls_standard("a  b", &Gold::text("a b")).score, 1.0);
    }

    #[test]
    fn edits() {
        let score = |prediction: &str| edit_distance(prediction, &Gold::text("1234567")).score;
        assert_eq!(score("1234567"), 1.0);
        assert_eq!(score("12345"), 0.8);
        assert_eq!(score("1"), 0.6, "six edits");
        assert_eq!(score(&"x".repeat(99)), 0.0);
        assert!(!edit_distance(" ", &Gold::text("x".repeat(99))).parsed);
    }

    #[test]
    fn ocr() {
        let hello = Gold::text("Hello");
        let kept = |prediction, wanted| ocr_bench(prediction, &hello, wanted, Width::Kept).score;
        assert_eq!(kept("it says\nHELLO", Ocr::Contains), 1.0);
        assert_eq!(kept("it says HELLO", Ocr::Equals), 0.0);
        assert_eq!(kept("ｈｅｌｌｏ", Ocr::Contains), 0.0);
        let folded = ocr_bench("ｈｅｌｌｏ", &hello, Ocr::Contains, Width::Folded);
        assert_eq!(folded.score, 1.0);
        let formula = Gold {
            category: Some(MATHS.to_owned()),
            ..Gold::text("x ^ 2")
        };
        let found = |prediction| ocr_bench(prediction, &formula, Ocr::Contains, Width::Folded);
        assert_eq!((found("x^2+y").score, found("X^2").score), (1.0, 0.0));
    }

    proptest! {
        #[test]
        fn a_text_is_like_itself(text in ".{1,20}") {
            let gold = Gold::text(text.clone());
            prop_assert_eq!(anls_standard(&text, &gold).score, 1.0);
            prop_assert_eq!(edit_distance(&text, &gold).score, 1.0);
            prop_assert_eq!(exact(&text, &gold).score, 1.0);
        }
    }
}
