//! Format prompts: the cure for the answer machine.
//!
//! A model trained on many short answers answers in one word to everything. Cambrian-1 (arXiv
//! 2406.16860, section 4.2) tells it in the question which form of answer is wanted, so that short
//! answers come only where they were asked for. The prompt goes into the human turn, on a line of its own
//! behind the question, where evaluation prompts stand as well. A turn that has it is left alone, so
//! doing it twice changes nothing.

use opabinia_data::{Sample, parse_json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A format prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// By which sources ask for it.
    pub name: String,
    /// What is added to a question.
    pub text: String,
    /// Which questions it is for.
    #[serde(default)]
    pub when: When,
}

/// Which questions a prompt is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// All of the source.
    #[default]
    Always,
    /// Those that list options, such as `A. red`.
    Choice,
    /// Those that do not; all, if the source has no prompt for those that do.
    Open,
}

impl Prompt {
    /// Whether it is for a question of a source that has all of `prompts`.
    fn is_for(&self, question: &str, prompts: &[&Self]) -> bool {
        match self.when {
            When::Always => true,
            When::Choice => lists_options(question),
            // Only two prompts that exclude each other need to be told apart.
            When::Open if prompts.iter().all(|other| other.when != When::Choice) => true,
            When::Open => !lists_options(question),
        }
    }
}

/// The texts that a question lacks, in their order.
fn missing<'a>(question: &str, prompts: &[&'a Prompt]) -> Vec<&'a str> {
    let own = prompts
        .iter()
        .filter(|prompt| prompt.is_for(question, prompts));
    own.map(|prompt| prompt.text.trim())
        .filter(|text| !question.contains(text))
        .collect()
}

/// Whether a question offers options: at least `A` and `B`, as `A. red`, `A) red`, `(A) red` or
/// `A: red`, each at the beginning of a line or behind white space.
pub fn lists_options(question: &str) -> bool {
    ["A", "B"].into_iter().all(|letter| {
        question.match_indices(letter).any(|(at, _)| {
            let before = question[..at].chars().next_back();
            let mut after = question[at + letter.len()..].chars();
            let opened = before == Some('(');
            let starts = opened || before.is_none_or(char::is_whitespace);
            let closes = match after.next() {
                Some(')') => true,
                Some('.' | ':') => !opened,
                _ => false,
            };
            starts && closes && after.next().is_none_or(char::is_whitespace)
        })
    })
}

/// Adds what is missing to the questions of a line; `None` if nothing is.
///
/// Everything else of the line stays: keys, their order, and turns of the model. A bare `NaN` becomes the
/// `null` that it counts as.
pub fn add(line: &[u8], sample: &Sample, prompts: &[&Prompt]) -> Option<String> {
    let lacks = |text: &str| !missing(text, prompts).is_empty();
    let asks = |turn: &&opabinia_data::Turn| turn.role == opabinia_data::Role::User;
    if !sample
        .turns
        .iter()
        .filter(asks)
        .any(|turn| lacks(&turn.text))
    {
        return None;
    }
    // The sample was read from this line, so it can be read.
    let mut record = parse_json(line).ok()?;
    let turns = record.get_mut("conversations")?.as_array_mut()?;
    for turn in turns {
        if turn.get("from").and_then(Value::as_str) == Some("human")
            && let Some(value) = turn.get_mut("value")
            && let Some(text) = value.as_str()
        {
            *value = Value::String(with(text, prompts));
        }
    }
    Some(record.to_string())
}

fn with(question: &str, prompts: &[&Prompt]) -> String {
    let mut text = question.to_owned();
    // Which kind of question it is does not change by what was added.
    for missing in missing(question, prompts) {
        // One prompt may hold another.
        if !text.contains(missing) {
            text = format!("{}\n{missing}", text.trim_end());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use opabinia_data::Place;

    use super::*;

    fn prompt(text: &str, when: When) -> Prompt {
        Prompt {
            name: text.to_owned(),
            text: text.to_owned(),
            when,
        }
    }

    fn added(line: &str, prompts: &[&Prompt]) -> Option<String> {
        let sample = Sample::parse(line.as_bytes(), Place::new(Path::new("s"), 1)).unwrap();
        add(line.as_bytes(), &sample, prompts)
    }

    #[test]
    fn options_are_told_by_their_letters() {
        for yes in [
            "Which?\nA. red\nB. blue",
            "Which? (A) red (B) blue",
            "A) 1 B) 2",
            "A: x\nB: y",
        ] {
            assert!(lists_options(yes), "{yes}");
        }
        for no in [
            "What is A?",
            "A. red",
            "Plan A.B. is B.C.",
            "",
            "Ä (A",
            "BA. b B.A a",
        ] {
            assert!(!lists_options(no), "{no}");
        }
    }

    #[test]
    fn every_question_gets_it_once() {
        let word = prompt("One word.", When::Always);
        let line = r#"{"x": 1.50, "id": 3, "conversations": [{"from": "human", "value": "<image>\nWhat? "},
            {"from": "gpt", "value": "A"}, {"from": "human", "value": "Why? One word."}, {"from": "gpt", "value": "B"}]}"#;
        let once = added(line, &[&word]).unwrap();
        let value: Value = serde_json::from_str(&once).unwrap();
        assert_eq!(
            value["conversations"][0]["value"],
            "<image>\nWhat?\nOne word."
        );
        assert_eq!(value["conversations"][2]["value"], "Why? One word.");
        assert!(once.starts_with(r#"{"x":1.5,"id":3,"conv"#), "{once}");
        assert_eq!(added(&once, &[&word]), None);
    }

    #[test]
    fn of_a_line_as_python_writes_it_everything_else_stays() {
        let word = prompt("One word.", When::Always);
        let line = r#"{"id": 3, "image": NaN, "conversations": [{"from": "gpt", "value": "Hi"},
            {"from": "human", "value": "What?", "w": 2}, {"from": "gpt", "value": "A", "w": 3}]}"#;
        assert_eq!(
            added(line, &[&word]).unwrap(),
            r#"{"id":3,"image":null,"conversations":[{"from":"gpt","value":"Hi"},"#.to_owned()
                + r#"{"from":"human","value":"What?\nOne word.","w":2},{"from":"gpt","value":"A","w":3}]}"#
        );
    }

    #[test]
    fn the_kind_of_question_decides() {
        let (letter, word) = (
            prompt("The letter.", When::Choice),
            prompt("One word.", When::Open),
        );
        let line = |q: &str| {
            format!(
                r#"{{"n": NaN, "conversations": [{{"from": "human", "value": "{q}"}}, {{"from": "gpt", "value": "A"}}]}}"#
            )
        };
        let both = [&letter, &word];
        let choice = added(&line("Which? A. x B. y"), &both).unwrap();
        assert!(
            choice.contains("The letter.") && !choice.contains("One word."),
            "{choice}"
        );
        let open = added(&line("Which?"), &both).unwrap();
        assert!(
            open.contains("One word.") && !open.contains("letter"),
            "{open}"
        );
        // A source that has nothing else to say to choices says it to them, too.
        let alone = added(&line("Which? A. x B. y"), &[&word]).unwrap();
        assert!(alone.contains("One word."), "{alone}");
    }
}
