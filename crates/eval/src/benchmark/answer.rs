//! From the right answer as a data set writes it to what scorers compare with.

use minijinja::Value;

use super::definition::{AnswerKind, Chance};
use super::expression::{is_empty, texts_of};
use super::fault::FaultKind;
use super::options;
use crate::scorer::Gold;

/// What is right in a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Right {
    /// Accepted texts.
    pub answers: Vec<String>,
    /// The right option.
    pub option: Option<usize>,
}

/// The kind of a fault, and what was found.
pub(super) type Problem = (FaultKind, String);

/// Options of a row; none where there is no value.
pub(super) fn options_of(value: &Value) -> Result<Vec<String>, Problem> {
    if is_empty(value) {
        return Ok(Vec::new());
    }
    let texts = texts_of(value).filter(|_| value.as_str().is_none());
    texts.ok_or_else(|| {
        let problem = format!("`options` is a {}, wanted a list of texts", value.kind());
        (FaultKind::WrongType, problem)
    })
}

/// What is right; `None` where the data set does not say.
pub(super) fn right_of(
    value: &Value,
    kind: AnswerKind,
    options: &[String],
) -> Result<Option<Right>, Problem> {
    if is_empty(value) {
        return Ok(None);
    }
    let Some(texts) = texts_of(value) else {
        let problem = format!(
            "`answer` is a {}, wanted a text, a number or a list",
            value.kind()
        );
        return Err((FaultKind::WrongType, problem));
    };
    let is_letter = matches!(kind, AnswerKind::Letter | AnswerKind::UncheckedLetter);
    let may_be_letter = is_letter && texts.len() == 1;
    if kind == AnswerKind::Text || (options.is_empty() && !may_be_letter) {
        return Ok(Some(text(texts, options)));
    }
    let [answer] = texts.as_slice() else {
        let problem = format!("`answer` lists {} texts, wanted one option", texts.len());
        return Err((FaultKind::WrongType, problem));
    };
    let option = match kind {
        AnswerKind::Index => answer.trim().parse().ok(),
        AnswerKind::Letter | AnswerKind::UncheckedLetter => {
            options::index_of_letter(answer).or_else(|| place(answer, options))
        }
        AnswerKind::Option | AnswerKind::Text => place(answer, options),
    };
    if options.is_empty() {
        // A letter of options that stand in the question, or the answer to an open one.
        return Ok(Some(Right {
            answers: texts,
            option,
        }));
    }
    match option.and_then(|index| Some((index, options.get(index)?))) {
        Some((index, option)) => Ok(Some(Right {
            answers: vec![option.clone()],
            option: Some(index),
        })),
        None if kind == AnswerKind::UncheckedLetter => Ok(Some(Right {
            answers: texts,
            option,
        })),
        None => {
            let shown = options.join("`, `");
            let problem = format!("`answer` is `{answer}`, the options are `{shown}`");
            Err((FaultKind::AnswerNotAnOption, problem))
        }
    }
}

/// Accepted texts; the option too if one has the only text.
fn text(answers: Vec<String>, options: &[String]) -> Right {
    let option = match answers.as_slice() {
        [answer] => place(answer, options),
        _ => None,
    };
    Right { answers, option }
}

/// The option with this text.
fn place(answer: &str, options: &[String]) -> Option<usize> {
    let exact = options.iter().position(|option| option == answer);
    exact.or_else(|| {
        let mut options = options.iter();
        options.position(|option| option.trim() == answer.trim())
    })
}

/// How often guessing is right, from 0 to 1.
pub(super) fn chance_of(chance: Chance, gold: &Gold) -> f64 {
    let among_options = match gold.options.len() {
        0 => 0.0,
        options => 1.0 / options as f64,
    };
    match chance {
        Chance::Fixed(share) => share,
        Chance::YesNo => 0.5,
        Chance::Options => among_options,
        Chance::OptionsOrYesNo if gold.options.is_empty() && is_yes_no(gold) => 0.5,
        Chance::OptionsOrYesNo => among_options,
    }
}

fn is_yes_no(gold: &Gold) -> bool {
    let answer = |text: &String| matches!(text.trim().to_lowercase().as_str(), "yes" | "no");
    gold.answers.first().is_some_and(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(value: Value, kind: AnswerKind, options: &[&str]) -> Result<Option<Right>, Problem> {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        right_of(&value, kind, &options)
    }

    #[track_caller]
    fn option(value: impl Into<Value>, kind: AnswerKind, expected: usize) {
        let right = right(value.into(), kind, &["red", "blue"])
            .unwrap()
            .unwrap();
        assert_eq!(right.option, Some(expected));
        assert_eq!(right.answers, [["red", "blue"][expected]]);
    }

    #[test]
    fn every_way_to_name_an_option() {
        option("B", AnswerKind::Letter, 1);
        option("(a)", AnswerKind::Letter, 0);
        option("blue", AnswerKind::Letter, 1);
        option(1, AnswerKind::Index, 1);
        option("0", AnswerKind::Index, 0);
        option(" blue ", AnswerKind::Option, 1);
        option("red", AnswerKind::Text, 0);
    }

    #[test]
    fn answers_that_are_no_option() {
        for (value, kind) in [
            (Value::from("C"), AnswerKind::Letter),
            (Value::from(2), AnswerKind::Index),
            (Value::from(-1), AnswerKind::Index),
            (Value::from("green"), AnswerKind::Option),
        ] {
            let (fault, _) = right(value, kind, &["red", "blue"]).unwrap_err();
            assert_eq!(fault, FaultKind::AnswerNotAnOption);
        }
        let both = Value::from(vec!["A", "B"]);
        let (fault, _) = right(both, AnswerKind::Letter, &["red", "blue"]).unwrap_err();
        assert_eq!(fault, FaultKind::WrongType);
    }

    /// The reference loses options of MMMU, and keeps the letter.
    #[test]
    fn letters_may_go_unchecked() {
        let right = right(
            Value::from("C"),
            AnswerKind::UncheckedLetter,
            &["red", "blue"],
        );
        let right = right.unwrap().unwrap();
        assert_eq!(
            (right.option, right.answers),
            (Some(2), vec!["C".to_owned()])
        );
        option("B", AnswerKind::UncheckedLetter, 1);
    }

    #[test]
    fn open_questions() {
        let right = |value, kind| right(value, kind, &[]).unwrap();
        let letter = right(Value::from("B"), AnswerKind::Letter).unwrap();
        assert_eq!(
            (letter.option, letter.answers),
            (Some(1), vec!["B".to_owned()])
        );
        let word = right(Value::from("Yes"), AnswerKind::Letter).unwrap();
        assert_eq!((word.option, word.answers), (None, vec!["Yes".to_owned()]));
        let number = right(Value::from(7), AnswerKind::Option).unwrap();
        assert_eq!(number.answers, ["7"]);
        let ten = right(Value::from(vec!["a"; 10]), AnswerKind::Text).unwrap();
        assert_eq!(ten.answers.len(), 10);
        assert_eq!(right(Value::from(""), AnswerKind::Text), None);
        assert_eq!(right(Value::from(()), AnswerKind::Letter), None);
    }

    #[test]
    fn chances() {
        let gold = |options: &[&str], answer: &str| Gold {
            answers: vec![answer.to_owned()],
            options: options.iter().map(|&option| option.to_owned()).collect(),
            right: None,
            category: None,
            kind: None,
        };
        let four = gold(&["a", "b", "c", "d"], "a");
        assert_eq!(chance_of(Chance::Options, &four), 0.25);
        assert_eq!(chance_of(Chance::Options, &gold(&[], "yes")), 0.0);
        assert_eq!(chance_of(Chance::OptionsOrYesNo, &gold(&[], "Yes")), 0.5);
        assert_eq!(chance_of(Chance::OptionsOrYesNo, &gold(&[], "3")), 0.0);
        assert_eq!(chance_of(Chance::OptionsOrYesNo, &four), 0.25);
        assert_eq!(chance_of(Chance::YesNo, &gold(&[], "x")), 0.5);
        assert_eq!(chance_of(Chance::Fixed(0.3), &four), 0.3);
    }
}
