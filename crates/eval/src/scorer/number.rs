//! Answers that may be numbers: ChartQA and MathVista, and the tolerance that MMMU shares with them.

use super::gold::{Gold, Judgement};
use super::inference;
use super::option::announced;
use super::python::{float, is_digit, round, strip};

/// How far a number may be off, as a share.
const TOLERANCE: f64 = 0.05;

/// Relaxed accuracy as the reference has it (ChartQA): two numbers within 5% of the right one, else
/// equal texts, letter case aside. Nothing is stripped, and a percent sign makes it a text.
pub(super) fn chart_qa_reference(prediction: &str, gold: &Gold) -> Judgement {
    let found = prediction.to_lowercase();
    let same = |answer: &String| {
        let answer = answer.to_lowercase();
        match (float(&found), float(&answer)) {
            (Some(value), Some(right)) => (value - right).abs() <= right.abs() * TOLERANCE,
            _ => found == answer,
        }
    };
    relaxed(gold.answers.iter().any(same), &found, gold)
}

/// Relaxed accuracy as common harnesses have it (ChartQA): as the reference's, with `12%` read as
/// 0.12, except that a right answer of 0 is compared as a text.
pub(super) fn chart_qa_standard(prediction: &str, gold: &Gold) -> Judgement {
    let same = |answer: &String| match (with_percent(prediction), with_percent(answer)) {
        (Some(value), Some(right)) if right != 0.0 => {
            (value - right).abs() / right.abs() <= TOLERANCE
        }
        _ => prediction.to_lowercase() == answer.to_lowercase(),
    };
    relaxed(gold.answers.iter().any(same), prediction, gold)
}

fn relaxed(right: bool, found: &str, gold: &Gold) -> Judgement {
    let expected = gold.right_text().unwrap_or_default();
    Judgement::verdict(right, !strip(found).is_empty(), found, expected)
}

fn with_percent(text: &str) -> Option<f64> {
    if text.ends_with('%') {
        return float(text.trim_end_matches('%')).map(|percent| percent / 100.0);
    }
    float(text)
}

/// Equal texts, or numbers no farther apart than 5% of the *prediction*: the reference mixes up the
/// two arguments (MMMU, MathVista).
pub(super) fn same_within_prediction(found: &str, right: &str) -> bool {
    found == right
        || match (float(found), float(right)) {
            (Some(value), Some(right)) => (right - value).abs() <= value.abs() * TOLERANCE,
            _ => false,
        }
}

/// Kind of question in MathVista.
const WITH_OPTIONS: &str = "multi_choice";

/// MathVista as the reference's script does it: the whole answer is compared, in lower case and
/// stripped. It cuts at a full stop only for a kind that the data calls otherwise, so letters with
/// anything around are wrong, and so is reasoning.
pub(super) fn math_vista_reference(prediction: &str, gold: &Gold) -> Judgement {
    let lowered = prediction.to_lowercase();
    let mut found = strip(&lowered);
    if gold.kind.as_deref() == Some("multiple-choice") {
        found = found.split('.').next().unwrap_or_default();
    }
    let letter = gold.right.and_then(|_| gold.letter());
    let mut answers = gold.answers.iter().map(|answer| answer.to_lowercase());
    let right = match letter {
        Some(letter) => found == letter.to_string(),
        None => answers.any(|answer| same_within_prediction(found, &answer)),
    };
    let expected = letter.map(String::from);
    let expected = expected.or_else(|| gold.right_text().map(str::to_lowercase));
    Judgement::verdict(
        right,
        !found.is_empty(),
        found,
        expected.unwrap_or_default(),
    )
}

/// MathVista by rule: the option that is meant, or the last number of the answer at the precision of
/// the right one, or what the answer announces. The benchmark's own protocol lets a model shorten the
/// answer first ([`super::Grader::Extraction`]); then this is what compares.
pub(super) fn math_vista_standard(prediction: &str, gold: &Gold) -> Judgement {
    if gold.kind.as_deref() == Some(WITH_OPTIONS) || gold.right.is_some() {
        return inference::option(prediction, gold);
    }
    let expected = gold.right_text().unwrap_or_default();
    let answer = strip(expected);
    let announced = announced(prediction);
    let announced = announced.trim_start_matches([':', ' ']);
    let Some(right) = float(answer) else {
        let plain = |text: &str| text.to_lowercase().replace([' ', '\n'], "");
        let same = plain(announced) == plain(answer);
        return Judgement::verdict(same, !announced.is_empty(), announced, expected);
    };
    match last_number(announced) {
        Some(value) => {
            let value = at_precision(value, answer);
            Judgement::new(
                f64::from(u8::from(value == right)),
                value.to_string(),
                expected,
            )
        }
        None => Judgement::unparsed(announced, expected),
    }
}

/// A number with as many decimals as the right answer is written with; a whole number is cut, not
/// rounded, as the benchmark does.
fn at_precision(value: f64, answer: &str) -> f64 {
    match answer.split_once('.') {
        Some((_, decimals)) => round(value, decimals.chars().count()),
        None => value.trunc(),
    }
}

/// The last word of a text that is a number, once what is no digit was taken from both ends.
fn last_number(text: &str) -> Option<f64> {
    let words = text.rsplit(|c: char| c.is_whitespace() || matches!(c, '=' | '≈'));
    words.into_iter().find_map(|word| {
        let word = word.trim_end_matches(|c: char| !is_digit(c));
        let word = word.trim_start_matches(|c: char| !is_digit(c) && !matches!(c, '-' | '.'));
        float(&word.replace(',', ""))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn charts() {
        let both = |prediction: &str, answer: &str| {
            let gold = Gold::text(answer);
            let reference = chart_qa_reference(prediction, &gold).score;
            (reference, chart_qa_standard(prediction, &gold).score)
        };
        assert_eq!(both("14.7", "14"), (1.0, 1.0));
        assert_eq!(both("14.71", "14"), (0.0, 0.0));
        assert_eq!(both("0.14", "14%"), (0.0, 1.0));
        assert_eq!(both("0.0", "0"), (1.0, 0.0));
        assert_eq!(both("nan", "nan"), (0.0, 0.0));
        assert_eq!(both("Blue", "blue"), (1.0, 1.0));
        assert!(!chart_qa_standard("", &Gold::text("5")).parsed);
    }

    #[test]
    fn the_tolerance_is_of_the_prediction() {
        assert!(same_within_prediction("100", "105"));
        assert!(!same_within_prediction("100", "106"));
        assert!(!same_within_prediction("105.1", "111"));
        assert!(same_within_prediction("nan", "nan"), "as texts");
    }

    #[test]
    fn math_vista() {
        let letter = Gold {
            kind: Some(WITH_OPTIONS.to_owned()),
            ..Gold::option(1, &["12", "24"])
        };
        assert_eq!(math_vista_reference(" b ", &letter).score, 1.0);
        assert_eq!(math_vista_reference("B.", &letter).score, 0.0);
        assert_eq!(math_vista_standard("B.", &letter).score, 1.0);
        let free = |prediction: &str, answer: &str| {
            math_vista_standard(prediction, &Gold::text(answer)).score
        };
        assert_eq!(free("First 3 + 4.\nSo the answer is 7.24 cm.", "7.2"), 1.0);
        assert_eq!(free("x = -1,200", "-1200"), 1.0);
        assert_eq!(free("Answer is: 2.9", "2"), 1.0, "cut, not rounded");
        assert_eq!(free("The answer is [1, 2]", "[1,2]"), 1.0);
        assert!(!math_vista_standard("I see nothing", &Gold::text("7")).parsed);
    }

    proptest! {
        #[test]
        fn any_answer_can_be_judged(prediction in ".{0,30}", answer in ".{0,10}") {
            let gold = Gold::text(answer);
            for judge in [
                chart_qa_reference,
                chart_qa_standard,
                math_vista_reference,
                math_vista_standard,
            ] {
                let judgement = judge(&prediction, &gold);
                prop_assert!(judgement.score == 0.0 || (judgement.score == 1.0 && judgement.parsed));
            }
        }
    }
}
