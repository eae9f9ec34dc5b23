//! One sample: a conversation about at most one picture, as a line of LLaVA JSON.
//!
//! ```
//! use opabinia_data::{Place, Sample};
//! use std::path::Path;
//!
//! let line = br#"{"id": 7, "image": "coco/7.png", "conversations": [
//!     {"from": "human", "value": "<image>\nHow many balls?"}, {"from": "gpt", "value": "Three."}]}"#;
//! let sample = Sample::parse(line, Place::new(Path::new("samples.jsonl"), 1))?;
//! assert_eq!(sample.image.as_deref(), Some("coco/7.png"));
//! assert_eq!(sample.turns[1].text, "Three.");
//! # Ok::<(), opabinia_data::SampleError>(())
//! ```
//!
//! Reading is lenient where published files differ, and strict where a mistake would be trained
//! (Cambrian-1, arXiv 2406.16860, trains on files of some 40 makers):
//! - `id` is a text, an integer or absent; a bare `NaN`, which Python writes, counts as `null`;
//! - `image` is absent, or says that there is none by `null`, `""`, `"None"`, `"none"`, `"nan"` or
//!   `NaN`; a list is refused, because a sample has one picture;
//! - a first turn of the model's is dropped, as in the reference implementation; apart from that,
//!   turns alternate and a person begins;
//! - keys that are not known are kept, and written again by [`Sample::to_line`].

use std::borrow::Cow;

use opabinia_llm::{IMAGE_PLACEHOLDER, Role};
use serde_json::{Map, Value, json};

use crate::error::{Place, SampleError};

/// What says "no picture" in published files.
const NO_IMAGE: [&str; 5] = ["", "None", "none", "nan", "NaN"];

/// One utterance of a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said; `<image>` where the picture is shown.
    pub text: String,
}

/// One instruction item.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Where it is written.
    pub place: Place,
    /// Its name; not unique across sources.
    pub id: Option<String>,
    /// Path of its picture, relative to the folder of pictures.
    pub image: Option<String>,
    /// The file or data set that it comes from.
    pub source: Option<String>,
    /// What kind of sample it is.
    pub category: Option<String>,
    /// Alternating turns, a person's first; never empty.
    pub turns: Vec<Turn>,
    /// All other keys of the line.
    pub extra: Map<String, Value>,
}

impl Sample {
    /// Reads one JSON object.
    ///
    /// # Errors
    /// [`SampleError::Json`] if the bytes are not JSON, [`SampleError::Schema`] if the JSON is not a
    /// sample.
    pub fn parse(line: &[u8], place: Place) -> Result<Self, SampleError> {
        match parse_json(line) {
            Ok(value) => Self::of_value(value, place),
            Err(source) => Err(SampleError::Json { place, source }),
        }
    }

    /// Reads one JSON object that is parsed already.
    ///
    /// # Errors
    /// [`SampleError::Schema`] if it is not a sample.
    pub fn of_value(value: Value, place: Place) -> Result<Self, SampleError> {
        match from_value(value) {
            Ok(parts) => Ok(parts.at(place)),
            Err(what) => Err(SampleError::Schema { place, what }),
        }
    }

    /// The sample as a line of JSON, without the line break.
    pub fn to_line(&self) -> String {
        let mut record = Map::new();
        let mut put = |key: &str, text: &Option<String>| {
            if let Some(text) = text {
                record.insert(key.to_owned(), json!(text));
            }
        };
        put("id", &self.id);
        put("image", &self.image);
        put("source", &self.source);
        put("category", &self.category);
        let turns = self.turns.iter().map(|turn| {
            let from = match turn.role {
                Role::User => "human",
                Role::Assistant => "gpt",
            };
            json!({"from": from, "value": turn.text})
        });
        record.insert("conversations".to_owned(), turns.collect());
        record.extend(self.extra.clone());
        Value::Object(record).to_string()
    }

    /// Words of all turns, the measure of length that the reference groups samples by.
    pub fn words(&self) -> usize {
        self.turns
            .iter()
            .map(|turn| turn.text.split_whitespace().count())
            .sum()
    }

    /// Checks that a sample with a picture shows it in exactly one question, and that no other
    /// sample has a placeholder.
    ///
    /// # Errors
    /// [`SampleError::Placeholder`]
    pub fn check_placeholder(&self) -> Result<(), SampleError> {
        let shows = |turn: &Turn| turn.text.contains(IMAGE_PLACEHOLDER);
        let showing: Vec<&Turn> = self.turns.iter().filter(|turn| shows(turn)).collect();
        let what = match (&self.image, showing.as_slice()) {
            (None, []) => return Ok(()),
            (Some(_), [turn]) if turn.role == Role::User => return Ok(()),
            (Some(_), [_]) => format!(
                "`{IMAGE_PLACEHOLDER}` is in an answer; put it into the question that shows the picture"
            ),
            (Some(_), []) => format!(
                "there is an `image`, but no question shows it; put `{IMAGE_PLACEHOLDER}` into one, or \
                 remove `image`"
            ),
            (Some(_), turns) => format!(
                "{} turns contain `{IMAGE_PLACEHOLDER}`, but a sample has one picture, shown once; leave one \
                 of them",
                turns.len()
            ),
            (None, _) => format!(
                "a turn contains `{IMAGE_PLACEHOLDER}`, but there is no `image`; name the picture, or \
                 remove the placeholder"
            ),
        };
        Err(SampleError::Placeholder {
            place: self.place.clone(),
            what,
        })
    }

    /// Moves the placeholder of a turn to its front, a line break behind it: where the reference
    /// trains and the released checkpoints expect it. Several placeholders of one turn become one;
    /// the placeholder stays in its turn. Samples without a picture are left alone.
    #[must_use]
    pub fn with_leading_image(mut self) -> Self {
        if self.image.is_some() {
            for turn in &mut self.turns {
                if turn.text.contains(IMAGE_PLACEHOLDER) {
                    let rest = turn.text.replace(IMAGE_PLACEHOLDER, "");
                    let moved = format!("{IMAGE_PLACEHOLDER}\n{}", rest.trim());
                    turn.text = moved.trim_end().to_owned();
                }
            }
        }
        self
    }
}

/// A sample that does not know yet where it is written.
struct Parts {
    id: Option<String>,
    image: Option<String>,
    source: Option<String>,
    category: Option<String>,
    turns: Vec<Turn>,
    extra: Map<String, Value>,
}

impl Parts {
    fn at(self, place: Place) -> Sample {
        Sample {
            place,
            id: self.id,
            image: self.image,
            source: self.source,
            category: self.category,
            turns: self.turns,
            extra: self.extra,
        }
    }
}

fn from_value(value: Value) -> Result<Parts, String> {
    let Value::Object(mut record) = value else {
        return Err(format!(
            "a sample is a JSON object, this is {}",
            kind_of(&value)
        ));
    };
    let mut take = |key: &str| record.shift_remove(key).unwrap_or(Value::Null);
    Ok(Parts {
        id: id(take("id"))?,
        image: image(take("image"))?,
        source: text("source", take("source"))?,
        category: text("category", take("category"))?,
        turns: turns(take("conversations"))?,
        extra: record,
    })
}

fn id(value: Value) -> Result<Option<String>, String> {
    match value {
        Value::Number(number) => Ok(Some(number.to_string())),
        other => text("id", other),
    }
}

fn image(value: Value) -> Result<Option<String>, String> {
    match value {
        Value::Array(list) => Err(format!(
            "`image` is a list of {}; a sample has one picture, so make one sample of each",
            list.len()
        )),
        other => Ok(text("image", other)?.filter(|image| !NO_IMAGE.contains(&image.as_str()))),
    }
}

fn text(key: &str, value: Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        other => Err(format!(
            "`{key}` should be a text, but is {}",
            kind_of(&other)
        )),
    }
}

fn turns(value: Value) -> Result<Vec<Turn>, String> {
    let list = match value {
        Value::Array(list) => list,
        Value::Null => return Err("there are no `conversations`".to_owned()),
        other => {
            return Err(format!(
                "`conversations` should be a list of turns, but is {}",
                kind_of(&other)
            ));
        }
    };
    let mut turns = list
        .into_iter()
        .enumerate()
        .map(|(index, value)| turn(index, value))
        .collect::<Result<Vec<_>, _>>()?;
    if turns
        .first()
        .is_some_and(|turn| turn.role == Role::Assistant)
    {
        turns.remove(0);
    }
    if turns.is_empty() {
        return Err("nobody asks anything in `conversations`".to_owned());
    }
    let repeated = turns
        .windows(2)
        .position(|pair| pair[0].role == pair[1].role);
    match repeated {
        Some(index) => Err(format!(
            "two turns in a row come from `{}` (turns {} and {} after an opening one of the \
             model's); turns alternate",
            name_of(turns[index].role),
            index + 1,
            index + 2
        )),
        None => Ok(turns),
    }
}

fn turn(index: usize, mut value: Value) -> Result<Turn, String> {
    let at = format!("turn {} of `conversations`", index + 1);
    let mut take = |key: &str| value.get_mut(key).map(Value::take);
    let role = match take("from") {
        Some(Value::String(from)) if from == "human" => Role::User,
        Some(Value::String(from)) if from == "gpt" => Role::Assistant,
        Some(Value::String(from)) => {
            return Err(format!(
                "{at} comes from `{from}`; it should be `human` or `gpt`"
            ));
        }
        _ => return Err(format!("{at} has no `from`; it should be `human` or `gpt`")),
    };
    match take("value") {
        Some(Value::String(text)) => Ok(Turn { role, text }),
        Some(other) => Err(format!(
            "the `value` of {at} should be a text, but is {}",
            kind_of(&other)
        )),
        None => Err(format!("{at} has no `value`")),
    }
}

fn name_of(role: Role) -> &'static str {
    match role {
        Role::User => "human",
        Role::Assistant => "gpt",
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Reads JSON, strict or as Python writes it: `NaN` and infinities outside of texts count as `null`.
///
/// # Errors
/// If the bytes are neither.
pub fn parse_json(line: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(line).or_else(|error| match without_bare_constants(line) {
        Cow::Owned(line) => serde_json::from_slice(&line),
        Cow::Borrowed(_) => Err(error),
    })
}

/// Replaces the constants that Python's JSON has and the standard has not.
fn without_bare_constants(line: &[u8]) -> Cow<'_, [u8]> {
    const CONSTANTS: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];
    let mut out: Option<Vec<u8>> = None;
    let (mut in_text, mut copied, mut at) = (false, 0, 0);
    while let Some(&byte) = line.get(at) {
        if in_text {
            match byte {
                b'\\' => at += 1,
                b'"' => in_text = false,
                _ => {}
            }
        } else if byte == b'"' {
            in_text = true;
        } else if let Some(found) = CONSTANTS.iter().find(|c| line[at..].starts_with(c)) {
            let out = out.get_or_insert_default();
            out.extend_from_slice(&line[copied..at]);
            out.extend_from_slice(b"null");
            at += found.len();
            copied = at;
            continue;
        }
        at += 1;
    }
    match out {
        Some(mut out) => {
            out.extend_from_slice(&line[copied..]);
            Cow::Owned(out)
        }
        None => Cow::Borrowed(line),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn place() -> Place {
        Place::new(Path::new("samples.jsonl"), 3)
    }

    fn parse(line: &str) -> Result<Sample, SampleError> {
        Sample::parse(line.as_bytes(), place())
    }

    fn one(head: &str, question: &str) -> Sample {
        parse(&format!(
            r#"{{{head} "conversations": [{{"from": "human", "value": "{question}"}},
                {{"from": "gpt", "value": "Yes."}}]}}"#
        ))
        .unwrap()
    }

    fn complaint(line: &str) -> String {
        parse(line).unwrap_err().to_string()
    }

    #[test]
    fn what_published_files_do_is_understood() {
        let sample = one(
            r#""id": 12, "image": NaN, "score": -Infinity,"#,
            "NaN \\\" NaN?",
        );
        assert_eq!(sample.id.as_deref(), Some("12"));
        assert_eq!(sample.image, None);
        assert_eq!(sample.turns[0].text, "NaN \" NaN?");
        assert_eq!(sample.extra["score"], Value::Null);
        for nothing in ["null", "\"\"", "\"None\"", "\"none\"", "\"nan\"", "\"NaN\""] {
            assert_eq!(one(&format!("\"image\": {nothing},"), "?").image, None);
        }
    }

    #[test]
    fn an_opening_turn_of_the_model_is_dropped() {
        let sample = parse(
            r#"{"conversations": [{"from": "gpt", "value": "Welcome."},
                {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes?"}]}"#,
        )
        .unwrap();
        assert_eq!(sample.turns.len(), 2);
        assert_eq!(sample.turns[0].role, Role::User);
    }

    #[test]
    fn a_complaint_says_where_what_and_what_to_do() {
        assert_eq!(
            complaint(r#"{"conversations": [{"from": "user", "value": "Hi"}]}"#),
            "`samples.jsonl:3`: turn 1 of `conversations` comes from `user`; it should be `human` \
             or `gpt`"
        );
        assert!(complaint(r#"{"image": ["a", "b"]}"#).contains("`image` is a list of 2"));
        assert!(complaint("[]").contains("this is a list"));
        assert!(complaint("{}").contains("there are no `conversations`"));
        assert!(complaint(r#"{"conversations": []}"#).contains("nobody asks anything"));
        assert!(
            complaint(r#"{"conversations": [{"from": "gpt", "value": "a"}]}"#).contains("nobody")
        );
        let twice = r#"{"conversations": [{"from": "human", "value": "a"}, {"from": "human", "value": "b"}]}"#;
        assert!(complaint(twice).contains("two turns in a row come from `human`"));
        let numbered = r#"{"conversations": [{"from": "human", "value": 3}]}"#;
        assert!(complaint(numbered).contains("should be a text, but is a number"));
        assert!(matches!(parse("{\"a\": "), Err(SampleError::Json { .. })));
        // Half of a pair of surrogates is no character.
        assert!(matches!(
            parse(r#"{"id": "\ud800"}"#),
            Err(SampleError::Json { .. })
        ));
    }

    #[test]
    fn the_placeholder_moves_to_the_front_of_its_turn() {
        let moved = |text: &str| {
            one(r#""image": "a.png","#, text).with_leading_image().turns[0]
                .text
                .clone()
        };
        assert_eq!(moved("What is it?\\n<image>"), "<image>\nWhat is it?");
        assert_eq!(moved("Look at <image> here"), "<image>\nLook at  here");
        assert_eq!(moved("<image>\\n<image>\\nWhich?"), "<image>\nWhich?");
        assert_eq!(moved(" <image> "), "<image>");
        assert_eq!(moved("No picture"), "No picture");
        let text_only = one("", "About <image>").with_leading_image();
        assert_eq!(text_only.turns[0].text, "About <image>");
    }

    #[test]
    fn placeholder_and_picture_belong_together() {
        let check = |sample: Sample| sample.check_placeholder().map_err(|e| e.to_string());
        assert_eq!(
            check(one(r#""image": "a.png","#, "<image> <image>?")),
            Ok(())
        );
        assert_eq!(check(one("", "Hi")), Ok(()));
        let error = check(one(r#""image": "a.png","#, "Hi")).unwrap_err();
        assert!(error.contains("no question shows it"), "{error}");
        let error = check(one("", "<image>?")).unwrap_err();
        assert!(error.contains("there is no `image`"), "{error}");
        let mut sample = one(r#""image": "a.png","#, "<image>?");
        sample.turns[1].text = "<image>".to_owned();
        let error = check(sample.clone()).unwrap_err();
        assert!(error.contains("2 turns contain"), "{error}");
        sample.turns[0].text = "?".to_owned();
        let error = check(sample).unwrap_err();
        assert!(error.contains("is in an answer"), "{error}");
    }

    #[test]
    fn words_are_counted_as_the_reference_does() {
        assert_eq!(one("", "  How  many\\tballs? ").words(), 4);
    }

    fn texts() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec(".{0,20}", 1..6)
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_sample_or_an_error(bytes: Vec<u8>) {
            let _ = Sample::parse(&bytes, place());
        }

        #[test]
        fn damaged_samples_are_a_sample_or_an_error(at in 0_usize..120, byte: u8) {
            let mut line = br#"{"id": 1, "image": NaN, "conversations": [{"from": "human", "value": "a\n"}, {"from": "gpt", "value": "b"}]}"#.to_vec();
            if let Some(place) = line.get_mut(at) {
                *place = byte;
            }
            let _ = Sample::parse(&line, place());
        }

        #[test]
        fn what_is_written_is_read(texts in texts(), id: Option<String>, extra in ".{0,9}") {
            let turns = texts.into_iter().enumerate().map(|(i, text)| Turn {
                role: if i % 2 == 0 { Role::User } else { Role::Assistant },
                text,
            });
            let sample = Sample {
                place: place(),
                id,
                image: Some("a/b.png".to_owned()),
                source: None,
                category: Some("Counting".to_owned()),
                turns: turns.collect(),
                extra: Map::from_iter([("note".to_owned(), json!(extra))]),
            };
            let line = sample.to_line();
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(Sample::parse(line.as_bytes(), place()).unwrap(), sample);
        }
    }
}
