//! Which option an answer means, by the rules of common harnesses.
//!
//! [`infer`] is the heuristic of VLMEvalKit: a letter that stands alone near the end, a letter after
//! "answer is", or the text of exactly one option. It is made to be followed by a grader, so it would
//! rather say nothing than guess, and what it leaves open counts as unparsed. MMVP and CV-Bench have
//! rules of their own in lmms-eval; the latter takes the first letter whatever follows.

use std::sync::LazyLock;

use regex::Regex;

use super::gold::{Gold, Judgement};
use super::python::{is_space, len, strip, words};
use super::yes_no;

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inferred {
    /// An option, by its letter in capitals.
    Option(char),
    /// That there will be no answer.
    Refused,
    /// Nothing clear.
    Open,
}

/// Openings of answers that are refusals, or the harness's own word for a failed call.
const REFUSALS: [&str; 4] = [
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
];

/// What stands for a failed call.
const FAILED: &str = "Failed to obtain answer via API";

/// Punctuation that may stand around a letter.
const AROUND_LETTERS: &str = ".()[],:;!*#{}";

/// The option that the answer means (MMBench, SEED-Bench, MMStar, AI2D and most others).
pub(super) fn option(prediction: &str, gold: &Gold) -> Judgement {
    let expected = right_letter(gold);
    match infer(prediction, gold) {
        Inferred::Option(letter) => compare(letter, expected),
        Inferred::Refused => Judgement::unparsed("Z", expected),
        Inferred::Open => Judgement::unparsed("", expected),
    }
}

/// The option, or a yes or no, or the one right word (RealWorldQA, POPE).
pub(super) fn option_or_word(prediction: &str, gold: &Gold) -> Judgement {
    if gold.letter().is_some() {
        return option(prediction, gold);
    }
    if yes_no::is_yes_or_no(gold) {
        return yes_no::judge(prediction, gold);
    }
    let lowered = prediction.to_lowercase();
    let found = strip(&lowered).trim_end_matches('.');
    let mut answers = gold.answers.iter();
    let right = answers.any(|answer| strip(&answer.to_lowercase()) == found);
    let expected = gold.right_text().unwrap_or_default();
    Judgement::verdict(right, !found.is_empty(), found, expected)
}

/// `A` or `B`, by the first of five patterns that is found (MMVP).
pub(super) fn mmvp(prediction: &str, gold: &Gold) -> Judgement {
    let expected = right_letter(gold);
    let text = strip(prediction);
    let matched = MMVP.iter().find_map(|pattern| {
        let letter = pattern.captures(text)?.get(1)?;
        letter.as_str().chars().next()
    });
    let first = || text.chars().next().filter(|c| "AaBb".contains(*c));
    match matched.or_else(first) {
        Some(letter) => compare(letter.to_ascii_uppercase(), expected),
        None => Judgement::unparsed("", expected),
    }
}

/// The letter that the answer begins with, brackets and space aside (CV-Bench). Of "The left one"
/// that is `T`.
pub(super) fn leading_letter(prediction: &str, gold: &Gold) -> Judgement {
    let expected = right_letter(gold);
    let text = prediction.trim_start_matches(|c: char| c == '(' || is_space(c));
    let Some(letter) = text.chars().next().filter(|c| is_letter_in_any_case(*c)) else {
        return Judgement::unparsed("", expected);
    };
    let letter: String = letter.to_uppercase().collect();
    let usable = gold.letters().any(|known| letter.starts_with(known));
    Judgement::verdict(letter == expected, usable, letter, expected)
}

/// The letter of the right option in capitals; empty if it has none.
pub(super) fn right_letter(gold: &Gold) -> String {
    let letter = gold.letter().map(|letter| letter.to_ascii_uppercase());
    letter.map(String::from).unwrap_or_default()
}

fn compare(letter: char, expected: String) -> Judgement {
    let right = expected.starts_with(letter);
    Judgement::new(f64::from(u8::from(right)), letter, expected)
}

/// By letter, or else by text.
fn infer(prediction: &str, gold: &Gold) -> Inferred {
    match infer_letter(prediction, gold) {
        Inferred::Open => infer_text(prediction, gold),
        clear => clear,
    }
}

/// One letter alone among the words, at most the fifth from the end; else the one after "answer is".
fn infer_letter(prediction: &str, gold: &Gold) -> Inferred {
    if prediction.contains(FAILED) {
        return Inferred::Open;
    }
    if REFUSALS.iter().any(|refusal| prediction.contains(refusal)) {
        return Inferred::Refused;
    }
    let spaced = prediction.replace(|c| AROUND_LETTERS.contains(c), " ");
    let words: Vec<&str> = words(&spaced).collect();
    let place = |letter: char| words.iter().position(|word| is_only(word, letter));
    let mut standing = gold
        .letters()
        .filter_map(|letter| Some((letter, place(letter)?)));
    match (standing.next(), standing.next()) {
        (Some((letter, place)), None) if place + 5 > words.len() => {
            return Inferred::Option(letter);
        }
        (None, _) if place('Z').is_some() => return Inferred::Refused,
        _ => {}
    }
    announced_letter(prediction)
        .filter(|letter| gold.letters().any(|known| known == *letter))
        .map_or(Inferred::Open, Inferred::Option)
}

fn announced_letter(prediction: &str) -> Option<char> {
    let letter = ANNOUNCED.captures(prediction)?.get(1)?;
    let letter = letter.as_str().chars().next()?;
    Some(letter.to_ascii_uppercase())
}

/// The only option whose text is in the answer, unless the answer is long.
fn infer_text(prediction: &str, gold: &Gold) -> Inferred {
    let lowered = prediction.to_lowercase();
    let texts: usize = gold.options.iter().map(|option| len(option)).sum();
    if len(&lowered) > 2 * texts {
        return Inferred::Open;
    }
    let named = gold.letters().zip(&gold.options);
    let mut named = named.filter(|(_, option)| lowered.contains(&option.to_lowercase()));
    match (named.next(), named.next()) {
        (Some((letter, _)), None) => Inferred::Option(letter),
        _ => Inferred::Open,
    }
}

fn is_only(word: &str, letter: char) -> bool {
    let mut chars = word.chars();
    chars.next() == Some(letter) && chars.next().is_none()
}

/// `[A-Z]` without regard to case, which in Python holds four letters beyond ASCII.
fn is_letter_in_any_case(c: char) -> bool {
    c.is_ascii_alphabetic() || matches!(c, 'İ' | 'ı' | 'ſ' | '\u{212a}')
}

/// Python's `\s`, and its `i` and `s` without regard to case, are wider than this crate's.
static ANNOUNCED: LazyLock<Regex> = LazyLock::new(|| pattern(r"answer{S}+{I}s{S}+\**([ABCD])"));

static MMVP: LazyLock<[Regex; 5]> = LazyLock::new(|| {
    [
        pattern(r"\A{S}*\(?([AB])\)?\.?{S}*\z"),
        pattern(r"\A{S}*\(?([AB])\)?(?:\.|{S})"),
        pattern(r"answer{S}+{I}s{S}+\(?([AB])\)?"),
        pattern(r"opt{I}on{S}+\(?([AB])\)?"),
        pattern(r"\(?([AB])\)?(?:{S}|\z)"),
    ]
});

fn pattern(text: &str) -> Regex {
    let text = text
        .replace("{S}", r"[\s\x1c-\x1f]")
        .replace("{I}", "[iİı]");
    Regex::new(&format!("(?i){text}")).expect("a constant pattern is valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cat() -> Gold {
        Gold::option(1, &["a dog", "the cat", "two birds", "none of these"])
    }

    #[track_caller]
    fn inferred(prediction: &str) -> Inferred {
        infer(prediction, &cat())
    }

    #[test]
    fn letters_standing_alone() {
        for answer in ["B", "(B).", "**B**", "Answer: (B) the cat", "B\n"] {
            assert_eq!(inferred(answer), Inferred::Option('B'), "`{answer}`");
        }
        for answer in ["b", "Both A and B", "bird", "E", "", "'B'"] {
            assert_eq!(inferred(answer), Inferred::Open, "`{answer}`");
        }
    }

    #[test]
    fn a_letter_far_from_the_end_needs_an_announcement() {
        assert_eq!(inferred("B has the whiskers you"), Inferred::Open);
        assert_eq!(inferred("B has the whiskers"), Inferred::Option('B'));
        let verbose = "The answer is **C**, and A is what one would think at first";
        assert_eq!(inferred(verbose), Inferred::Option('C'));
    }

    #[test]
    fn texts_of_options() {
        assert_eq!(inferred("I see the cat."), Inferred::Option('B'));
        assert_eq!(inferred("a dog and the cat"), Inferred::Open);
        let long = format!("{} the cat", "well ".repeat(20));
        assert_eq!(inferred(&long), Inferred::Open);
    }

    #[test]
    fn refusals_and_failures() {
        assert_eq!(inferred("Cannot determine the answer"), Inferred::Refused);
        assert_eq!(inferred("Z"), Inferred::Refused);
        assert_eq!(
            inferred("Failed to obtain answer via API B"),
            Inferred::Open
        );
        let judgement = option("Z", &cat());
        assert_eq!(
            (judgement.parsed, judgement.extracted.as_str()),
            (false, "Z")
        );
    }

    #[test]
    fn words_and_yes_or_no() {
        assert_eq!(option_or_word("Yes, it is.", &Gold::text("Yes")).score, 1.0);
        assert_eq!(
            option_or_word(" Downhill.", &Gold::text("downhill")).score,
            1.0
        );
        assert_eq!(option_or_word("2 or 3", &Gold::text("2")).score, 0.0);
        assert_eq!(option_or_word("A", &Gold::text("A")).score, 1.0);
    }

    #[test]
    fn the_first_letter_of_cv_bench() {
        let left = leading_letter("The left one", &cat());
        assert_eq!((left.extracted.as_str(), left.parsed), ("T", false));
        assert_eq!(leading_letter("((b))", &cat()).score, 1.0);
        assert!(!leading_letter("[B]", &cat()).parsed);
    }
}
