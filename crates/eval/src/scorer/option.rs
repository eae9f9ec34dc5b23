//! Which option an answer means, by the rules of the reference implementation.
//!
//! Each of its scripts has a rule of its own; here they are as they are, for parity with published
//! numbers. They are not safe: whatever begins with the letter counts ("Both A and B", "bird"), and
//! because `answer is` is looked for before `answer is:`, "Answer is: B" is wrong where "Answer: B"
//! is right. An empty answer, on which some of the scripts stop, is wrong and unparsed here.

use super::gold::{Gold, Judgement};
use super::python::{strip, words};

/// Phrases that announce an answer, in the order in which they are looked for.
const KEYWORDS: [&str; 3] = ["answer is", "answer is:", "answer:"];

/// What follows the last of each keyword, or everything.
fn after_keyword(text: &str) -> &str {
    KEYWORDS.iter().fold(text, |rest, keyword| {
        rest.rsplit_once(keyword).map_or(rest, |(_, after)| after)
    })
}

/// The first letter of what is announced (MMBench, SEED-Bench, MMMU, V*). The scripts differ in the
/// punctuation that they drop behind it, which never decides about a letter.
pub(super) fn letter(prediction: &str, gold: &Gold) -> Judgement {
    let found = first_letter(prediction);
    compare(found, gold)
}

/// As [`letter`]; a digit is the index of an option (AI2D).
pub(super) fn ai2d(prediction: &str, gold: &Gold) -> Judgement {
    let found = first_letter(prediction);
    let index = match found.as_str() {
        "a" => "0",
        "b" => "1",
        "c" => "2",
        "d" => "3",
        other => other,
    };
    let right = gold.right.map(|right| right.to_string());
    let usable = matches!(index, "0" | "1" | "2" | "3");
    let expected = right.clone().unwrap_or_default();
    Judgement::verdict(right.as_deref() == Some(index), usable, index, expected)
}

/// As [`letter`] for the questions of CV-Bench's 2D part. In its 3D part the text of the option
/// counts too, which after the cut to one character only matters for texts of one.
pub(super) fn cv_bench(prediction: &str, gold: &Gold) -> Judgement {
    let found = first_letter(prediction);
    let is_3d = matches!(gold.category.as_deref(), Some("Depth" | "Distance" | "3D"));
    if is_3d && !found.is_empty() && gold.right_text() == Some(&found) {
        let expected = found.clone();
        return Judgement::new(1.0, found, expected);
    }
    compare(found, gold)
}

/// The first word in front of a full stop, without brackets (BLINK).
pub(super) fn blink(prediction: &str, gold: &Gold) -> Judgement {
    let lowered = before_stop(prediction).to_lowercase();
    let word = strip(&lowered).split(' ').next().unwrap_or_default();
    let found = word.trim_start_matches('(').trim_end_matches(')');
    compare(found.to_owned(), gold)
}

/// Everything in front of a full stop (Q-Bench).
pub(super) fn q_bench(prediction: &str, gold: &Gold) -> Judgement {
    let lowered = before_stop(prediction).to_lowercase();
    compare(strip(&lowered).to_owned(), gold)
}

/// The first word, without what may end it (MMStar, MMBench-CN, POPE).
pub(super) fn first_word(prediction: &str, gold: &Gold) -> Judgement {
    let lowered = prediction.to_lowercase();
    let word = words(&lowered).next().unwrap_or_default();
    compare(word.trim_end_matches(['.', ':', ',']).to_owned(), gold)
}

/// The first word of what is announced (RealWorldQA).
pub(super) fn real_world_qa(prediction: &str, gold: &Gold) -> Judgement {
    let announced = announced(prediction);
    let word = words(&announced).next().unwrap_or_default();
    if word.is_empty() {
        return Judgement::unparsed("", expected(gold));
    }
    compare(word.to_owned(), gold)
}

/// The text of the option, or its letter in front of a full stop (ScienceQA).
pub(super) fn science_qa(prediction: &str, gold: &Gold) -> Judgement {
    let found = announced(prediction);
    let letter = before_stop(&found);
    let plain = without_punctuation(&found);
    let by_text = gold
        .right_text()
        .is_some_and(|text| without_punctuation(strip(&text.to_lowercase())) == plain);
    let by_letter = gold.letter().is_some_and(|right| is_only(letter, right));
    let usable = names_option(letter, gold) || names_option(&found, gold);
    Judgement::verdict(by_text || by_letter, usable, found.clone(), expected(gold))
}

/// The letter or the text of the option, with nothing around but brackets and an end (MMVP).
pub(super) fn mmvp(prediction: &str, gold: &Gold) -> Judgement {
    let found = bare(prediction);
    let text = gold.right.and_then(|right| gold.options.get(right));
    if text.is_some_and(|text| text.to_lowercase() == found) {
        return Judgement::new(1.0, found.clone(), found);
    }
    compare(found, gold)
}

/// The question is lettered: equal to the letter. Else: equal to an accepted answer.
fn compare(found: String, gold: &Gold) -> Judgement {
    let (right, usable) = match gold.letter() {
        Some(letter) => (is_only(&found, letter), names_option(&found, gold)),
        None => {
            let mut answers = gold.answers.iter();
            let right = answers.any(|answer| answer.to_lowercase() == found);
            (right, !found.is_empty())
        }
    };
    Judgement::verdict(right, usable, found, expected(gold))
}

/// What the rules here compare with, for the record.
fn expected(gold: &Gold) -> String {
    let letter = gold.letter().map(String::from);
    letter.unwrap_or_else(|| gold.right_text().unwrap_or_default().to_lowercase())
}

/// Whether a text in lower case is the letter or the text of one of the options.
fn names_option(text: &str, gold: &Gold) -> bool {
    let lowered = |letter: char| letter.to_ascii_lowercase();
    let mut options = gold.options.iter();
    gold.letters().any(|letter| is_only(text, lowered(letter)))
        || options.any(|option| !text.is_empty() && option.to_lowercase() == text)
}

fn is_only(text: &str, letter: char) -> bool {
    let mut chars = text.chars();
    chars.next() == Some(letter) && chars.next().is_none()
}

fn before_stop(text: &str) -> &str {
    text.split('.').next().unwrap_or_default()
}

/// What a keyword announces, in lower case, without full stops at the end.
pub(super) fn announced(prediction: &str) -> String {
    let lowered = prediction.to_lowercase();
    let rest = strip(after_keyword(strip(&lowered)));
    rest.trim_end_matches('.').to_owned()
}

/// What a keyword announces, in lower case, without brackets and what may end it.
fn bare(prediction: &str) -> String {
    let lowered = prediction.to_lowercase();
    let rest = strip(after_keyword(strip(&lowered)));
    let rest = rest.trim_end_matches(['.', ':', ',']);
    let rest = rest.trim_start_matches('(').trim_end_matches(')');
    rest.to_owned()
}

fn first_letter(prediction: &str) -> String {
    bare(prediction).chars().take(1).collect()
}

/// In lower case, without ASCII punctuation and without space around.
fn without_punctuation(text: &str) -> String {
    let kept: String = text.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    strip(&kept.to_lowercase()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cat() -> Gold {
        Gold::option(1, &["a dog", "the cat", "two birds", "none of these"])
    }

    #[test]
    fn the_first_keyword_wins() {
        assert_eq!(letter("Answer: B", &cat()).score, 1.0);
        assert_eq!(letter("The answer is B", &cat()).score, 1.0);
        let trap = letter("Answer is: B", &cat());
        assert_eq!((trap.score, trap.extracted.as_str()), (0.0, ":"));
        assert!(!trap.parsed);
    }

    #[test]
    fn whatever_begins_with_the_letter_counts() {
        for answer in ["bird", "Both A and B", "By elimination, A", "((b))"] {
            assert_eq!(letter(answer, &cat()).score, 1.0, "`{answer}`");
        }
        assert_eq!(letter("[B]", &cat()).score, 0.0);
    }

    #[test]
    fn unparsed_is_not_the_same_as_wrong() {
        assert!(letter("A", &cat()).parsed, "wrong");
        assert!(!letter("E", &cat()).parsed, "there is no fifth option");
        assert!(!first_word("", &cat()).parsed);
        assert!(!real_world_qa("...", &Gold::text("")).parsed);
        assert!(mmvp("a dog", &cat()).parsed);
        assert_eq!(science_qa("", &Gold::option(1, &[])).score, 0.0);
    }

    #[test]
    fn the_text_of_one_character_counts_in_3d_only() {
        let mut gold = Gold::option(1, &["2", "3"]);
        gold.category = Some("Depth".to_owned());
        assert_eq!(cv_bench("3", &gold).score, 1.0);
        gold.category = Some("Count".to_owned());
        assert_eq!(cv_bench("3", &gold).score, 0.0);
        assert_eq!(cv_bench("(B)", &gold).score, 1.0);
    }

    #[test]
    fn words_without_options() {
        let yes = Gold::text("Yes");
        assert_eq!(first_word("Yes, there is", &yes).score, 1.0);
        assert_eq!(first_word("yes!", &yes).score, 0.0);
        assert!(first_word("yes!", &yes).parsed);
        assert_eq!(ai2d("1", &cat()).score, 1.0);
        assert_eq!(ai2d("B.", &cat()).score, 1.0);
    }
}
