//! VQA soft accuracy: an answer is as right as people agree with it (TextVQA, VizWiz; ST-VQA).
//!
//! Ten people answered each question. The prediction scores the mean, over the ten ways to leave one
//! of them out, of min(1, number of the others who said the same / 3): one person 0.3, two 0.6, three
//! 0.9, four or more 1. Compared is after [`normalise`], the normaliser of the public evaluation,
//! imitated with its mistakes.

use super::contractions::CONTRACTIONS;
use super::gold::{Gold, Judgement};
use super::python::{is_digit, is_space, strip, words};

/// Soft accuracy among the human answers.
pub(super) fn soft_accuracy(prediction: &str, gold: &Gold) -> Judgement {
    let found = normalise(prediction);
    let answers: Vec<String> = gold
        .answers
        .iter()
        .map(|answer| normalise(answer))
        .collect();
    let same = answers.iter().filter(|answer| **answer == found).count();
    graded(agreement(same, answers.len()), found, &answers)
}

/// Equal to any of the accepted answers (ST-VQA).
pub(super) fn membership(prediction: &str, gold: &Gold) -> Judgement {
    let found = normalise(prediction);
    let answers: Vec<String> = gold
        .answers
        .iter()
        .map(|answer| normalise(answer))
        .collect();
    let right = answers.contains(&found);
    graded(f64::from(u8::from(right)), found, &answers)
}

fn graded(score: f64, found: String, answers: &[String]) -> Judgement {
    let expected = answers.first().cloned().unwrap_or_default();
    if score == 0.0 && found.is_empty() {
        return Judgement::unparsed(found, expected);
    }
    Judgement::new(score, found, expected)
}

/// Mean of min(1, matches / 3) when each of `people` is left out once, of whom `same` agree with the
/// prediction.
fn agreement(same: usize, people: usize) -> f64 {
    if same == 0 {
        return 0.0;
    }
    let share = |matches: usize| (matches as f64 / 3.0).min(1.0);
    let left_out_agrees = same as f64 * share(same - 1);
    let left_out_differs = (people - same) as f64 * share(same);
    (left_out_agrees + left_out_differs) / people as f64
}

/// Punctuation that is taken out, in the order of the public evaluation.
const PUNCTUATION: [char; 21] = [
    ';', '/', '[', ']', '"', '{', '}', '(', ')', '=', '+', '\\', '_', '-', '>', '<', '@', '`', ',',
    '?', '!',
];

/// An answer as it is compared.
pub(super) fn normalise(answer: &str) -> String {
    let lowered = answer.to_lowercase().replace([',', '?'], "");
    let split = lowered.replace("'s", " 's");
    let line = strip(&split).replace(['\n', '\t'], " ");
    let spaced = replace_punctuation(line.trim_matches(is_space));
    respell(&remove_full_stops(&spaced))
}

/// Takes out what stands beside a space; what joins two words becomes a space. Looked at is always
/// the text as it was given. (The original also takes out all of it where a comma stands between
/// digits, but commas are gone by then.)
fn replace_punctuation(text: &str) -> String {
    PUNCTUATION.iter().fold(text.to_owned(), |rest, mark| {
        let beside_space = text.contains(&format!("{mark} ")) || text.contains(&format!(" {mark}"));
        rest.replace(*mark, if beside_space { "" } else { " " })
    })
}

/// How many full stops are taken out at most: the original passes a flag, whose value is 32, where a
/// count belongs.
const MOST_FULL_STOPS: usize = 32;

/// Takes out full stops that no digit follows. (The original means to spare those behind a digit too,
/// but mistypes it.)
fn remove_full_stops(text: &str) -> String {
    let mut removed = 0;
    let mut chars = text.chars().peekable();
    let mut rest = String::with_capacity(text.len());
    while let Some(c) = chars.next() {
        let before_digit = chars.peek().is_some_and(|next| is_digit(*next));
        if c == '.' && !before_digit && removed < MOST_FULL_STOPS {
            removed += 1;
        } else {
            rest.push(c);
        }
    }
    rest
}

/// Numbers to ten in digits, no articles, contractions with their apostrophe.
fn respell(text: &str) -> String {
    let lowered = text.to_lowercase();
    let words = words(&lowered).map(|word| number(word).unwrap_or(word));
    let kept = words.filter(|word| !matches!(*word, "a" | "an" | "the"));
    let spelled: Vec<&str> = kept.map(|word| contraction(word).unwrap_or(word)).collect();
    spelled.join(" ")
}

fn number(word: &str) -> Option<&'static str> {
    Some(match word {
        "none" | "zero" => "0",
        "one" => "1",
        "two" => "2",
        "three" => "3",
        "four" => "4",
        "five" => "5",
        "six" => "6",
        "seven" => "7",
        "eight" => "8",
        "nine" => "9",
        "ten" => "10",
        _ => return None,
    })
}

fn contraction(word: &str) -> Option<&'static str> {
    let place = CONTRACTIONS.binary_search_by_key(&word, |(typed, _)| typed);
    place.ok().map(|place| CONTRACTIONS[place].1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn agreement_of_ten() {
        let score = |same| (agreement(same, 10) * 10.0).round() / 10.0;
        assert_eq!(
            [0, 1, 2, 3, 4, 10].map(score),
            [0.0, 0.3, 0.6, 0.9, 1.0, 1.0]
        );
    }

    #[test]
    fn normalised() {
        let cases = [
            ("A Red Car!", "red car"),
            ("none of the above", "0 of above"),
            ("3.", "3"),
            (".5", ".5"),
            ("u.s.a.", "usa"),
            ("1,000", "1000"),
            ("coca - cola", "coca cola"),
            ("and/or", "and or"),
            ("isnt it", "isn't it"),
            ("john's", "john 's"),
            ("$5.00", "$5.00"),
            ("a b\u{a0}", "b"),
        ];
        for (answer, compared) in cases {
            assert_eq!(normalise(answer), compared, "`{answer}`");
        }
        assert_eq!(
            normalise(&".".repeat(40)),
            ".".repeat(8),
            "32 are taken out"
        );
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(CONTRACTIONS.is_sorted());
    }

    #[test]
    fn people_who_disagree() {
        let mut gold = Gold {
            answers: vec!["red".into(); 7],
            ..Gold::default()
        };
        gold.answers
            .extend(["blue", "Blue", "blue."].map(String::from));
        let score = |answer| soft_accuracy(answer, &gold).score;
        assert_eq!((score("the red"), score("green")), (1.0, 0.0));
        assert!((score("blue") - 0.9).abs() < 1e-12);
        assert_eq!(membership("BLUE", &gold).score, 1.0);
        assert!(!soft_accuracy("the", &gold).parsed);
        assert!(soft_accuracy("green", &gold).parsed);
    }

    proptest! {
        #[test]
        fn any_text_is_normalised(answer in ".{0,40}") {
            let once = normalise(&answer);
            prop_assert_eq!(once.trim(), once.as_str());
        }
    }
}
