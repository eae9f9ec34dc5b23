//! MMMU: questions with options and open ones, by the reference's rules and by those of the
//! benchmark's authors.
//!
//! Where the authors' parser finds no option it draws one at random, so that unreadable answers earn
//! 1/k points. Here such an answer is unparsed and scores 0; [`drawn`] makes the draw, from a stream of
//! the question's own, for those who want the authors' number.

use opabinia_data::stream::{below, stream};

use super::gold::{Gold, Judgement};
use super::inference::right_letter;
use super::mmmu_open::{Value, parse, values};
use super::number::same_within_prediction;
use super::option;
use super::python::{strip, words};

/// What the data calls a question with options.
const WITH_OPTIONS: &str = "multiple-choice";

fn has_options(gold: &Gold) -> bool {
    match gold.kind.as_deref() {
        Some(kind) => kind == WITH_OPTIONS,
        None => gold.right.is_some() || !gold.options.is_empty(),
    }
}

/// The reference's rules: the first letter of what is announced, or the announced text or number,
/// within 5%.
pub(super) fn reference(prediction: &str, gold: &Gold) -> Judgement {
    if has_options(gold) {
        return option::letter(prediction, gold);
    }
    let found = option::announced(prediction);
    let mut answers = gold.answers.iter().map(|answer| answer.to_lowercase());
    let right = answers.any(|answer| same_within_prediction(&found, &answer));
    let expected = gold.right_text().unwrap_or_default();
    Judgement::verdict(right, !found.is_empty(), found, expected)
}

/// The rules of the benchmark's authors.
pub(super) fn official(prediction: &str, gold: &Gold) -> Judgement {
    if !has_options(gold) {
        return official_open(prediction, gold);
    }
    let expected = right_letter(gold);
    match official_letter(prediction, gold) {
        Some(letter) => {
            let right = expected.starts_with(letter);
            Judgement::new(f64::from(u8::from(right)), letter, expected)
        }
        None => Judgement::unparsed("", expected),
    }
}

/// Right if a parsed text contains a right text, or a parsed number is a right number.
fn official_open(prediction: &str, gold: &Gold) -> Judgement {
    let parsed = parse(prediction);
    let accepted: Vec<Value> = gold
        .answers
        .iter()
        .flat_map(|answer| values(answer))
        .collect();
    let agree = |found: &Value, right: &Value| match (found, right) {
        (Value::Number(found), Value::Number(right)) => found == right,
        (Value::Text(found), Value::Text(right)) => found.contains(right.as_str()),
        _ => false,
    };
    let agrees = |found: &Value| accepted.iter().any(|right| agree(found, right));
    let right = parsed.iter().any(agrees);
    let expected = gold.right_text().unwrap_or_default();
    let usable = !strip(prediction).is_empty();
    Judgement::verdict(right, usable, list(&parsed), expected)
}

/// As JSON lists them.
fn list(values: &[Value]) -> String {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    format!("[{}]", values.join(", "))
}

/// The letter that the authors' parser finds: in brackets, in front of a space, in front of a full
/// stop; in answers of more than five words, the option whose text is there. Of several the one that
/// is named last.
fn official_letter(prediction: &str, gold: &Gold) -> Option<char> {
    let stripped = [',', '.', '!', '?', ';', ':', '\'']
        .iter()
        .fold(prediction, |rest, mark| rest.trim_matches(*mark));
    let response = format!(" {stripped} ");
    let candidates = |before: &str, after: &str| -> Vec<char> {
        let there = |letter: &char| response.contains(&format!("{before}{letter}{after}"));
        gold.letters().filter(there).collect()
    };
    let last = |candidates: &[char], before: &str, after: &str| {
        let place = |letter| response.rfind(&format!("{before}{letter}{after}"));
        first_of_greatest(candidates, place)
    };
    let bracketed = candidates("(", ")");
    if !bracketed.is_empty() {
        return last(&bracketed, "(", ")");
    }
    for after in [" ", "."] {
        let found = candidates("", after);
        if !found.is_empty() {
            // However they were found, the last one is the last that stands alone between spaces.
            return last(&found, " ", " ");
        }
    }
    named_option(&response, gold)
}

fn named_option(response: &str, gold: &Gold) -> Option<char> {
    if words(response).count() <= 5 {
        return None;
    }
    let lowered = response.to_lowercase();
    let named = gold.letters().zip(&gold.options);
    let places: Vec<(char, usize)> = named
        .filter_map(|(letter, text)| Some((letter, lowered.rfind(&text.to_lowercase())?)))
        .collect();
    first_of_greatest(&places, |(_, place)| place).map(|(letter, _)| letter)
}

/// The first of those for which `key` is greatest.
fn first_of_greatest<T: Copy, K: Ord>(items: &[T], key: impl Fn(T) -> K) -> Option<T> {
    let better = |best: T, item: T| if key(item) > key(best) { item } else { best };
    items.iter().copied().reduce(better)
}

/// The option that stands for an answer in which none was found, as the authors' script draws one,
/// from a stream of this question. `None` if the question has no options.
pub(super) fn drawn(gold: &Gold, seed: u64, question: &str) -> Option<usize> {
    if !has_options(gold) || gold.options.is_empty() {
        return None;
    }
    let mut random = stream(seed, &format!("mmmu option {question}"), 0);
    usize::try_from(below(&mut random, gold.options.len() as u64)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cat() -> Gold {
        Gold::option(1, &["a dog", "the cat", "two birds", "none of these"])
    }

    #[test]
    fn letters() {
        let cases = [
            ("(A) is wrong so (B) it is", Some('B')),
            ("B or A or B", Some('B')),
            ("It is B. Not A.", Some('A')),
            ("Answer B.", Some('B')),
            ("B. the cat", Some('B')),
            ("I think the answer is B because A is wrong.", Some('A')),
            ("B\n", None),
            ("b", None),
            ("the cat", None),
            ("of all these I would say the cat", Some('B')),
        ];
        for (answer, letter) in cases {
            assert_eq!(official_letter(answer, &cat()), letter, "`{answer}`");
        }
    }

    #[test]
    fn unparsed_scores_nothing() {
        let judgement = official("b", &cat());
        assert_eq!((judgement.score, judgement.parsed), (0.0, false));
    }

    #[test]
    fn draws_are_a_function_of_seed_and_question() {
        let draw = |seed, id: &str| drawn(&cat(), seed, id);
        assert_eq!(draw(1, "q"), draw(1, "q"));
        let mut counts = [0; 4];
        for id in 0..400 {
            counts[draw(1, &id.to_string()).unwrap_or_default()] += 1;
        }
        assert!(
            counts.iter().all(|count| (60..140).contains(count)),
            "{counts:?}"
        );
        assert_eq!(drawn(&Gold::text("x"), 1, "q"), None);
    }

    #[test]
    fn open_questions() {
        let judge =
            |prediction: &str, answer: &str| official(prediction, &Gold::text(answer)).score;
        assert_eq!(judge("Thus 12.\nTherefore 13.", "12"), 1.0);
        assert_eq!(judge("42 is the answer", "42"), 0.0);
        assert_eq!(judge("a", "a"), 1.0);
        assert!(!official("", &Gold::text("5")).parsed);
        assert_eq!(
            reference("The answer is 100", &Gold::text("105")).score,
            1.0
        );
    }

    proptest! {
        #[test]
        fn any_answer_can_be_judged(prediction in ".{0,40}", open: bool) {
            let gold = if open { Gold::text("5") } else { cat() };
            for judge in [reference, official] {
                let judgement = judge(&prediction, &gold);
                prop_assert!(judgement.parsed || judgement.score == 0.0);
            }
        }
    }
}
