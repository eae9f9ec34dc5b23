//! Short answers: a word, a number or a short phrase, compared with the one right answer after both
//! were [normalised](normalise).
//!
//! It does not search sentences for the answer: the prompt asks for a single word or phrase, and
//! whoever finds "no" in "I do not know" is too kind. This is the scorer of the small world's
//! questions.

use super::gold::{Gold, Judgement};

/// What is right.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The right answer.
    pub answer: &'a str,
    /// The options, empty where there are none.
    pub choices: &'a [String],
    /// Whether the prompt shows the options with letters. Otherwise a letter is no answer.
    pub lettered: bool,
}

impl Expected<'_> {
    /// As the scorers take it: without options where their letters are not shown.
    #[must_use]
    pub fn gold(&self) -> Gold {
        let options = if self.lettered { self.choices } else { &[] };
        Gold {
            answers: vec![self.answer.to_owned()],
            options: options.to_vec(),
            ..Gold::default()
        }
    }
}

/// Equal after normalising; where the question has options, the option's letter or its text.
pub(super) fn judge(prediction: &str, gold: &Gold) -> Judgement {
    let right = accepts(prediction, gold);
    let usable = !prediction.trim().is_empty();
    let expected = gold.right_text().unwrap_or_default();
    Judgement::verdict(right, usable, normalise(prediction), expected)
}

fn accepts(prediction: &str, gold: &Gold) -> bool {
    if gold.answers.iter().any(|answer| same(prediction, answer)) {
        return true;
    }
    let index = gold.right.or_else(|| right_option(gold));
    let Some((right, text)) = index.and_then(|index| Some((index, gold.options.get(index)?)))
    else {
        return false;
    };
    match letter(prediction) {
        Some((index, "")) => index == right,
        Some((index, rest)) => index == right && same(rest, text),
        None => same(prediction, text),
    }
}

/// Index of the right option, which the benchmark gives as text or as a letter.
fn right_option(gold: &Gold) -> Option<usize> {
    let answer = gold.answers.first()?;
    let mut texts = gold.options.iter();
    texts
        .position(|option| same(option, answer))
        .or_else(|| match letter(answer) {
            Some((index, "")) if index < gold.options.len() => Some(index),
            _ => None,
        })
}

/// The option that an answer begins with, and what follows: `B`, `(b)`, `B.`, `B: two balls`.
fn letter(text: &str) -> Option<(usize, &str)> {
    let text = text.trim();
    let (bracket, inner) = match text.strip_prefix('(') {
        Some(inner) => (true, inner),
        None => (false, text),
    };
    let mut chars = inner.chars();
    let letter = chars.next().filter(char::is_ascii_alphabetic)?;
    let index = usize::from(letter.to_ascii_uppercase() as u8 - b'A');
    let rest = chars.as_str();
    match (bracket, rest.chars().next()) {
        (false, None) => Some((index, "")),
        (true, Some(')')) | (false, Some('.' | ')' | ':')) => Some((index, rest[1..].trim())),
        _ => None,
    }
}

/// Whether two answers are the same one. Nothing but punctuation is the same as itself only.
fn same(one: &str, other: &str) -> bool {
    let (a, b) = (normalise(one), normalise(other));
    (a == b && !a.is_empty()) || (one.trim() == other.trim() && !one.trim().is_empty())
}

/// An answer as it is compared: lower case, single spaces, no punctuation around words, no article
/// in front, numbers up to a hundred in digits without thousands separators or an empty fraction,
/// no percent sign behind them, American spelling of colours.
#[must_use]
pub fn normalise(text: &str) -> String {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    let words = match words.as_slice() {
        [first, rest @ ..] if is_article(first) && rest.iter().any(|word| !is_bare(word)) => rest,
        all => all,
    };
    let words = words.iter().map(|word| trim_punctuation(word));
    let words: Vec<String> = words.filter(|word| !word.is_empty()).map(spell).collect();
    words.join(" ")
}

/// Whether a word is an article. With a point behind it, as in `A. red`, it is the letter of an
/// option.
fn is_article(word: &str) -> bool {
    matches!(word.trim_start_matches(MARKS), "a" | "an" | "the")
}

/// Whether a word is nothing but punctuation.
fn is_bare(word: &str) -> bool {
    trim_punctuation(word).is_empty()
}

/// Punctuation that may stand around a word.
const MARKS: &[char] = &[
    '.', ',', ';', ':', '!', '?', '\'', '"', '(', ')', '[', ']', '{', '}', '<', '>', '*', '_', '`',
    '~', '-', '–', '—', '…', '“', '”', '„', '‘', '’', '«', '»', '¿', '¡',
];

/// A word without the punctuation around it. A minus sign and a point before a digit belong to the
/// number.
fn trim_punctuation(word: &str) -> &str {
    let mut rest = word.trim_end_matches(MARKS);
    while let Some(mark) = rest.chars().next().filter(|mark| MARKS.contains(mark)) {
        let behind = &rest[mark.len_utf8()..];
        let before_digit = behind.starts_with(|next: char| next.is_ascii_digit());
        if matches!(mark, '-' | '.') && before_digit {
            break;
        }
        rest = behind;
    }
    rest
}

/// One way to write a word.
fn spell(word: &str) -> String {
    if let Some(number) = number_word(word) {
        return number.to_string();
    }
    match word {
        "grey" => "gray".to_owned(),
        "colour" => "color".to_owned(),
        "colours" => "colors".to_owned(),
        _ => plain_number(word).unwrap_or_else(|| word.to_owned()),
    }
}

/// `zero` to `ninety-nine`.
fn number_word(word: &str) -> Option<usize> {
    const SMALL: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 8] = [
        "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
    ];
    let small = |word: &str| SMALL.iter().position(|known| *known == word);
    let tens = |word: &str| {
        let place = TENS.iter().position(|known| *known == word)?;
        Some(10 * (place + 2))
    };
    if let Some((ten, one)) = word.split_once('-') {
        let one = small(one).filter(|one| (1..10).contains(one))?;
        return Some(tens(ten)? + one);
    }
    small(word).or_else(|| tens(word))
}

/// `1,200` as `1200`, `3.0` as `3`, `35%` as `35`; `None` for what is not a number.
fn plain_number(word: &str) -> Option<String> {
    let word = word.strip_suffix('%').unwrap_or(word);
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", word),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    let mut groups = whole.split(',');
    let first = groups.next()?;
    let grouped = groups.clone().next().is_none() || (1..=3).contains(&first.len());
    let rest_fits = groups
        .clone()
        .all(|group| group.len() == 3 && all_digits(group));
    if first.is_empty() || !all_digits(first) || !grouped || !rest_fits || !all_digits(fraction) {
        return None;
    }
    let whole = whole.replace(',', "");
    let fraction = fraction.trim_end_matches('0');
    Some(if fraction.is_empty() {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn judge(answer: &str, right: &str, choices: &[&str], lettered: bool) -> bool {
        let choices: Vec<String> = choices.iter().map(|&choice| choice.to_owned()).collect();
        let expected = Expected {
            answer: right,
            choices: &choices,
            lettered,
        };
        super::judge(answer, &expected.gold()).score == 1.0
    }

    #[test]
    fn short_answers() {
        let right = [
            ("cyan", "cyan"),
            (" Cyan.\n", "cyan"),
            ("\"Rainfall\"", "rainfall"),
            ("**yes**", "yes"),
            ("The blue  ring", "blue ring"),
            ("an orange ring", "orange ring"),
            ("corner, broom", "corner broom"),
            ("three", "3"),
            ("3", "Three"),
            ("twenty-one", "21"),
            ("forty", "40"),
            ("three cubes", "3 cubes"),
            ("1,200", "1200"),
            ("1200.0", "1200"),
            ("35%", "35"),
            ("-5", "-5.0"),
            ("2.50", "2.5"),
            ("grey", "gray"),
            ("light grey ball", "light gray ball"),
            ("a", "A"),
            ("?", "?"),
        ];
        for (answer, key) in right {
            assert!(judge(answer, key, &[], false), "`{answer}` for `{key}`");
        }
    }

    #[test]
    fn wrong_answers() {
        let wrong = [
            ("", "no"),
            ("   ", "no"),
            ("?!", "no"),
            ("", "?"),
            ("none", "no"),
            ("I do not know", "no"),
            ("yes, no", "no"),
            ("the", "a"),
            ("5", "-5"),
            ("25", "2.5"),
            ("12,00", "1200"),
            ("one", "21"),
            ("ring", "blue ring"),
            ("gray gray", "gray"),
        ];
        for (answer, key) in wrong {
            assert!(!judge(answer, key, &[], false), "`{answer}` for `{key}`");
        }
    }

    #[test]
    fn letters_and_texts_of_options() {
        let options = ["red", "two balls", "a"];
        let right = [
            "B",
            "b",
            "(B)",
            "B.",
            "B) two balls",
            "(b) 2 balls",
            "two balls",
        ];
        for answer in right {
            for key in ["two balls", "B"] {
                assert!(judge(answer, key, &options, true), "`{answer}` for `{key}`");
            }
        }
        let wrong = [
            "A",
            "A. two balls",
            "B. red",
            "(B",
            "ball",
            "Both",
            "D",
            "z",
            "é",
        ];
        for answer in wrong {
            assert!(!judge(answer, "two balls", &options, true), "`{answer}`");
        }
        assert!(judge("a", "a", &options, true), "the text counts first");
        assert!(!judge("z", "q", &options, true));
    }

    #[test]
    fn a_letter_is_no_answer_where_no_letters_are_shown() {
        assert!(!judge("B", "blue", &["red", "blue"], false));
        assert!(judge("blue", "blue", &["red", "blue"], false));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn any_text_can_be_judged(answer in ".{0,24}", right in ".{0,24}", option in ".{0,12}", lettered: bool) {
            let choices = [option, right.clone()];
            let expected = Expected { answer: &right, choices: &choices, lettered };
            let score = super::judge(&answer, &expected.gold()).score;
            prop_assert!(score == 0.0 || score == 1.0);
            let itself = super::judge(&right, &expected.gold()).score;
            prop_assert_eq!(itself == 1.0, !right.trim().is_empty());
        }

        #[test]
        fn normalising_twice_changes_nothing(text in "[a-e0-9 .,%()-]{0,16}") {
            let once = normalise(&text);
            // Articles are taken from the front once.
            prop_assume!(!once.split(' ').next().is_some_and(is_article));
            prop_assert_eq!(normalise(&once), once);
        }
    }
}
