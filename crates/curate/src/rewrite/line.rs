//! A line: which of its answers are short, what is asked about them, and how they are replaced.

use opabinia_data::{Place, Sample, parse_json};
use serde_json::{Map, Value, json};

use super::Rewrite;
use super::journal::Said;
use crate::minhash::words;

/// Answers of more words than this are no rewriting, but something else.
const MAX_WORDS: usize = 150;

/// Under which key a sample says what its answers were.
const REWRITTEN: &str = "rewritten";

/// What the model is.
pub(super) const SYSTEM: &str =
    "You write the answers that a vision-language model learns from: true, complete sentences.";

/// A short answer of a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Short {
    /// Its turn in the line's conversation, from 0.
    pub turn: usize,
    /// What was asked.
    pub question: String,
    /// The answer.
    pub answer: String,
}

/// What is asked about a line.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The sample; only where something is asked about it.
    pub sample: Option<Sample>,
    /// The answers to be written out.
    pub shorts: Vec<Short>,
    /// Answers that stay, because the question asks for a short one.
    pub kept: Vec<Short>,
    /// The line, to be changed.
    pub edited: Edited,
}

impl Asked {
    /// What is asked about a line; nothing if it is no sample.
    pub fn of(line: &[u8], place: Place, wanted: &Rewrite) -> Self {
        let Ok(record) = parse_json(line) else {
            return Self::default();
        };
        let source = record.get("source").and_then(Value::as_str);
        let source = source.unwrap_or_default();
        if !wanted.sources.is_empty() && !wanted.sources.iter().any(|name| name == source) {
            return Self::default();
        }
        let (shorts, kept) = short_answers(&record, wanted);
        if shorts.is_empty() && kept.is_empty() {
            return Self::default();
        }
        match Sample::of_value(record.clone(), place) {
            Err(_) => Self::default(),
            Ok(sample) => Self {
                sample: Some(sample),
                shorts,
                kept,
                edited: Edited {
                    record: Some(record),
                    before: Map::new(),
                },
            },
        }
    }
}

/// The short answers of a line: to be written out, and asked for as they are.
fn short_answers(record: &Value, wanted: &Rewrite) -> (Vec<Short>, Vec<Short>) {
    let (mut shorts, mut kept) = (Vec::new(), Vec::new());
    let turns = record.get("conversations").and_then(Value::as_array);
    let mut question = None;
    for (turn, about) in turns.into_iter().flatten().enumerate() {
        let text = about.get("value").and_then(Value::as_str);
        let text = text.unwrap_or_default();
        if about.get("from").and_then(Value::as_str) == Some("human") {
            question = Some(text);
            continue;
        }
        let Some(question) = question.take() else {
            continue;
        };
        let count = text.split_whitespace().count();
        if count == 0 || count > wanted.max_words {
            continue;
        }
        let mut prompts = wanted.prompts.iter();
        let asks_for_it = prompts.any(|prompt| question.contains(prompt.text.trim()));
        let short = Short {
            turn,
            question: question.replace("<image>", "").trim().to_owned(),
            answer: text.trim().to_owned(),
        };
        match asks_for_it {
            true => kept.push(short),
            false => shorts.push(short),
        }
    }
    (shorts, kept)
}

impl Short {
    /// What the model is asked.
    pub fn request(&self, has_picture: bool) -> String {
        let known = match has_picture {
            true => "the picture, the question and the short answer show",
            false => "the question and the short answer say",
        };
        format!(
            "Question: {}\nShort answer: {}\n\nWrite this answer as one to three complete sentences. The short \
             answer is right: keep its words and its meaning. Say nothing beyond what {known}. Reply with \
             the sentences alone.",
            self.question, self.answer
        )
    }

    /// The longer answer, or why it is not taken.
    pub fn check(&self, said: &Said) -> Result<String, &'static str> {
        let text = said.text.trim();
        let count = text.split_whitespace().count();
        if said.cut {
            return Err("cut_off");
        }
        if count <= self.answer.split_whitespace().count() {
            return Err("not_longer");
        }
        if count > MAX_WORDS {
            return Err("too_long");
        }
        if text.contains("<image>") {
            return Err("placeholder");
        }
        let (old, new) = (words(&self.answer), words(text));
        let holds = match old.is_empty() {
            // Signs without a letter or digit are looked for as they are.
            true => text.contains(&self.answer),
            false => format!(" {new} ").contains(&format!(" {old} ")),
        };
        match holds {
            true => Ok(text.to_owned()),
            false => Err("lost_the_answer"),
        }
    }
}

/// A line on its way out.
#[derive(Debug, Default)]
pub(super) struct Edited {
    record: Option<Value>,
    before: Map<String, Value>,
}

impl Edited {
    /// Replaces an answer; `false` if the line is not what it was.
    pub fn replace(&mut self, short: &Short, after: &str) -> bool {
        let Some(record) = &mut self.record else {
            return false;
        };
        let turns = record.get_mut("conversations");
        let value = turns.and_then(|turns| turns.get_mut(short.turn)?.get_mut("value"));
        let Some(value) = value else { return false };
        let old = std::mem::replace(value, json!(after));
        self.before.insert(short.turn.to_string(), old);
        true
    }

    /// The changed line, a bare `NaN` as the `null` that it counts as; `None` if nothing changed.
    pub fn finish(self, model: &str) -> Option<String> {
        let mut record = self.record.filter(|_| !self.before.is_empty())?;
        let fields = record.as_object_mut()?;
        let note = json!({"model": model, "answers": self.before});
        // A sample may be rewritten more than once.
        match fields.get_mut(REWRITTEN) {
            Some(Value::Array(notes)) => notes.push(note),
            _ => {
                fields.insert(REWRITTEN.to_owned(), json!([note]));
            }
        }
        Some(record.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::prompt::{Prompt, When};

    fn said(text: &str) -> Said {
        serde_json::from_value(json!({"text": text, "cut": false, "tokens": 0})).unwrap()
    }

    #[test]
    fn an_answer_must_hold_the_old_one_and_be_longer() {
        let short = Short {
            turn: 1,
            question: "Which animal?".to_owned(),
            answer: "A cat.".to_owned(),
        };
        let check = |text: &str| short.check(&said(text));
        assert_eq!(check(" It is a cat. ").unwrap(), "It is a cat.");
        assert_eq!(check("It is a category."), Err("lost_the_answer"));
        assert_eq!(check("A cat."), Err("not_longer"));
        assert_eq!(check("<image> shows a cat here."), Err("placeholder"));
        assert_eq!(check(&"a cat ".repeat(80)), Err("too_long"));
        let cut = Said {
            cut: true,
            ..said("It is a cat")
        };
        assert_eq!(short.check(&cut), Err("cut_off"));
    }

    #[test]
    fn what_changed_is_said_and_the_rest_stays() {
        let line = br#"{"x": [1.5], "conversations": [{"from": "gpt", "value": "Hi"}, {"from": "human", "value":
            "<image>\nHow many?", "w": 2}, {"from": "gpt", "value": "Two", "w": 3}, {"from": "human", "value":
            "And red? One word."}, {"from": "gpt", "value": "One"}], "image": "a.png"}"#;
        let line: Vec<u8> = line
            .iter()
            .map(|b| if *b == b'\n' { b' ' } else { *b })
            .collect();
        let word = Prompt {
            name: "word".to_owned(),
            text: "One word.".to_owned(),
            when: When::Always,
        };
        let wanted = Rewrite {
            prompts: vec![word],
            ..Rewrite::default()
        };
        let place = || Place::new(Path::new("s"), 1);
        let asked = Asked::of(&line, place(), &wanted);
        assert_eq!(
            (asked.kept.len(), asked.kept[0].answer.as_str()),
            (1, "One")
        );
        assert_eq!((asked.shorts.len(), asked.shorts[0].turn), (1, 2));
        assert_eq!(asked.shorts[0].question, "How many?");
        assert_eq!(Asked::of(&line, place(), &wanted).edited.finish("m"), None);
        let Asked {
            mut edited, shorts, ..
        } = asked;
        assert!(edited.replace(&shorts[0], "There are two."));
        let after: Value = serde_json::from_str(&edited.finish("m").unwrap()).unwrap();
        let mut expected: Value = serde_json::from_slice(&line).unwrap();
        expected["conversations"][2]["value"] = json!("There are two.");
        expected[REWRITTEN] = json!([{"model": "m", "answers": {"2": "Two"}}]);
        assert_eq!(after, expected);
    }

    #[test]
    fn lines_as_python_writes_them_are_asked_about_too() {
        let line = br#"{"image": NaN, "conversations": [{"from": "human", "value": "How many?", "w": 2}, {"from": "gpt", "value": "Two"}]}"#;
        let asked = Asked::of(line, Place::new(Path::new("s"), 1), &Rewrite::default());
        let Asked {
            mut edited, shorts, ..
        } = asked;
        assert_eq!(shorts.len(), 1);
        assert!(edited.replace(&shorts[0], "There are two."));
        let after: Value = serde_json::from_str(&edited.finish("m").unwrap()).unwrap();
        let expected = json!({"image": null, "conversations": [
            {"from": "human", "value": "How many?", "w": 2}, {"from": "gpt", "value": "There are two."}],
            REWRITTEN: [{"model": "m", "answers": {"1": "Two"}}]});
        assert_eq!(after, expected);
    }
}
