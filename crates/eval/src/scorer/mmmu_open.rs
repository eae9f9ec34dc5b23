//! Open answers to MMMU, taken apart as the benchmark's authors do.
//!
//! Of each line the shortest tail behind a word such as "is" or "therefore", and all numbers in these
//! tails; without any such word the whole answer. Numbers are compared at two decimals, texts in lower
//! case. The authors also want to cut at the ends of sentences, but look for a capital letter in what
//! is already lower case, so only lines are cut.

use std::fmt;

use super::python::{float, is_digit, is_word, len, round, strip};

/// Part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// At two decimals.
    Number(f64),
    /// In lower case; a single character has a space before or behind, so that it does not match
    /// inside words.
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{}", serde_json::Value::from(text.as_str())),
        }
    }
}

/// Words that announce an answer.
const INDICATORS: [&str; 8] = [
    "could be ",
    "so ",
    "is ",
    "thus ",
    "therefore ",
    "final ",
    "answer ",
    "result ",
];

/// Everything in an answer that may be right: numbers in rising order, then texts.
pub(super) fn parse(answer: &str) -> Vec<Value> {
    let tails = tails(answer);
    let found = tails.iter().flat_map(|tail| numbers(tail));
    let parts = tails.iter().cloned().chain(found);
    let mut numbers = Vec::new();
    let mut texts = Vec::new();
    for value in parts.flat_map(|part| values(&part)) {
        match value {
            Value::Number(number) if !number.is_nan() => numbers.push(number),
            Value::Number(_) => {}
            Value::Text(text) => texts.push(text),
        }
    }
    numbers.sort_by(f64::total_cmp);
    numbers.dedup();
    texts.sort();
    texts.dedup();
    let numbers = numbers.into_iter().map(Value::Number);
    numbers.chain(texts.into_iter().map(Value::Text)).collect()
}

/// A number, commas aside, or a text; of a single character two texts.
pub(super) fn values(text: &str) -> Vec<Value> {
    let text = strip(text);
    if let Some(number) = float(&text.replace(',', "")) {
        return vec![Value::Number(round(number, 2))];
    }
    let text = text.to_lowercase();
    if len(&text) == 1 {
        return vec![
            Value::Text(format!(" {text}")),
            Value::Text(format!("{text} ")),
        ];
    }
    vec![Value::Text(text)]
}

/// What the lines of an answer announce, or the answer.
fn tails(answer: &str) -> Vec<String> {
    let answer = strip(answer).trim_matches('.').to_lowercase();
    let lines: Vec<&str> = answer.split('\n').collect();
    let last = lines.len() - 1;
    let announced: Vec<String> = lines
        .iter()
        .enumerate()
        .filter_map(|(number, line)| shortest_tail(line, number == last))
        .filter(|tail| !matches!(*tail, ":" | "," | "." | "!" | "?" | ";" | "'"))
        .map(str::to_owned)
        .collect();
    if announced.is_empty() {
        return vec![answer];
    }
    announced
}

/// The shortest text behind the last occurrence of an indicator; in the last line an equals sign is
/// one too. An empty one gives way to whatever comes next.
fn shortest_tail(line: &str, is_last: bool) -> Option<&str> {
    let equals = is_last.then_some("=");
    let indicators = INDICATORS.into_iter().chain(equals);
    let tails = indicators.filter_map(|indicator| Some(strip(line.rsplit_once(indicator)?.1)));
    let shortest = tails.reduce(|shortest, tail| {
        if shortest.is_empty() || len(tail) < len(shortest) {
            tail
        } else {
            shortest
        }
    });
    shortest.filter(|tail| !tail.is_empty())
}

/// All numbers in a text: those with commas, then scientific ones, then plain ones. One number may be
/// found in several ways, and in parts.
fn numbers(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let forms = [grouped, scientific, plain];
    forms
        .iter()
        .flat_map(|form| find_all(&chars, *form))
        .collect()
}

/// Where a form that begins at a place ends, if it does.
type Form = fn(&[char], usize) -> Option<usize>;

/// All places of a form, from the left, without overlap.
fn find_all(chars: &[char], form: Form) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        match form(chars, at) {
            Some(end) => {
                found.push(chars[at..end].iter().collect());
                at = end;
            }
            None => at += 1,
        }
    }
    found
}

/// `-?\b\d{1,3}(?:,\d{3})+\b`
fn grouped(chars: &[char], start: usize) -> Option<usize> {
    let first = behind_minus(chars, start);
    let glued = first > 0 && is_word(chars[first - 1]);
    let digits = digits(chars, first) - first;
    if glued || !(1..=3).contains(&digits) {
        return None;
    }
    let mut end = first + digits;
    let mut good = None;
    while chars.get(end) == Some(&',') && digits_at_least(chars, end + 1, 3) {
        end += 4;
        if !chars.get(end).copied().is_some_and(is_word) {
            good = Some(end);
        }
    }
    good
}

/// `-?\d+(?:\.\d+)?[eE][+-]?\d+`
fn scientific(chars: &[char], start: usize) -> Option<usize> {
    let first = behind_minus(chars, start);
    let mut end = some_digits(chars, first)?;
    if chars.get(end) == Some(&'.') {
        end = some_digits(chars, end + 1).unwrap_or(end);
    }
    exponent(chars, end)
}

/// `-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])`
fn plain(chars: &[char], start: usize) -> Option<usize> {
    let first = behind_minus(chars, start);
    let whole = some_digits(chars, first);
    let point = whole.unwrap_or(first);
    let fraction = (chars.get(point) == Some(&'.'))
        .then(|| some_digits(chars, point + 1))
        .flatten();
    let at_boundary = |end: &usize| !chars.get(*end).copied().is_some_and(is_word);
    let goes_on = |end: usize| exponent(chars, end).is_some() || chars.get(end) == Some(&',');
    fraction
        .filter(|end| !goes_on(*end))
        .or_else(|| whole.filter(at_boundary).filter(|end| !goes_on(*end)))
}

/// `[eE][+-]?\d+`
fn exponent(chars: &[char], at: usize) -> Option<usize> {
    if !matches!(chars.get(at), Some('e' | 'E')) {
        return None;
    }
    let signed = matches!(chars.get(at + 1), Some('+' | '-'));
    some_digits(chars, at + 1 + usize::from(signed))
}

fn behind_minus(chars: &[char], at: usize) -> usize {
    at + usize::from(chars.get(at) == Some(&'-'))
}

/// Where the digits from here end.
fn digits(chars: &[char], at: usize) -> usize {
    let behind = chars.get(at..).unwrap_or_default();
    at + behind.iter().take_while(|c| is_digit(**c)).count()
}

fn some_digits(chars: &[char], at: usize) -> Option<usize> {
    Some(digits(chars, at)).filter(|end| *end > at)
}

fn digits_at_least(chars: &[char], at: usize, count: usize) -> bool {
    digits(chars, at) >= at + count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn found(text: &str) -> Vec<String> {
        numbers(text)
    }

    #[test]
    fn numbers_in_texts() {
        assert_eq!(found("24,320"), ["24,320", "320"]);
        assert_eq!(found("1e3"), ["1e3", "3"]);
        assert_eq!(found("12.5e3 m"), ["12.5e3", "12", "3"]);
        assert_eq!(found("-.5 and -3"), ["-.5", "-3"]);
        assert_eq!(found("7 or 8,"), ["7"], "a comma follows the other");
        assert_eq!(found("1,234,5678"), ["1,234", "5678"]);
        assert_eq!(found("1234,567"), ["567"]);
        assert_eq!(found("3cm x4 5²"), ["4"]);
        assert_eq!(found("no"), [""; 0]);
    }

    #[test]
    fn tails_of_lines() {
        assert_eq!(tails("The answer is 24.32."), ["24.32"]);
        assert_eq!(tails("x = 5"), ["5"]);
        assert_eq!(tails("x = 5\ny"), ["x = 5\ny"], "not the last line");
        assert_eq!(tails("so ="), ["so ="], "nothing is behind the last");
        assert_eq!(tails("is :\nthus 7"), ["7"]);
        assert_eq!(tails(""), [""]);
    }

    #[test]
    fn parsed() {
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(parse("$6"), [Value::Number(6.0), text("$6")]);
        assert_eq!(parse("B"), [text(" b"), text("b ")]);
        assert_eq!(parse("nan"), []);
        assert_eq!(parse("2.675"), [Value::Number(2.67)]);
        assert_eq!(text("a \"b\"").to_string(), r#""a \"b\"""#);
    }

    proptest! {
        #[test]
        fn any_answer_is_parsed(answer in "[-a-z0-9.,=eE \n²]{0,30}") {
            let _ = parse(&answer);
        }

        #[test]
        fn whole_numbers_are_found(number in -99_999_i32..99_999) {
            prop_assert_eq!(found(&format!("it is {number} there")), [number.to_string()]);
        }
    }
}
