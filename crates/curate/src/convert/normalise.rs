//! From the forms of a conversation that users bring to turns of `human` and `gpt`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

/// Who speaks, by the names that are used.
fn speaker(name: &str) -> Option<&'static str> {
    match name.to_lowercase().as_str() {
        "human" | "user" => Some("human"),
        "gpt" | "assistant" | "chatgpt" | "model" | "bing" | "bard" => Some("gpt"),
        _ => None,
    }
}

/// Turns `messages`, roles, content parts, `texts` and `images` into `conversations` and `image`.
/// Pictures written as data URLs are taken out into `pictures`. What is not understood stays, and what
/// has no place in a sample is kept under keys of its own.
pub fn normalise(record: Value, pictures: &mut Vec<Vec<u8>>) -> Value {
    let Value::Object(mut record) = record else {
        return record;
    };
    if let Some(Value::Array(texts)) = record.get("texts")
        && !record.contains_key("conversations")
        && let Some(turns) = from_texts(texts)
    {
        record.shift_remove("texts");
        record.insert("conversations".to_owned(), turns);
    }
    let key = ["conversations", "messages"]
        .into_iter()
        .find(|key| record.contains_key(*key));
    if let Some(key) = key
        && let Some(Value::Array(turns)) = record.get(key)
        && (key == "conversations" || !record.contains_key("conversations"))
    {
        let mut heard = Heard::default();
        let turns = turns.clone().into_iter().enumerate();
        let turns: Vec<Value> = turns
            .filter_map(|(at, turn)| heard.turn(at, turn, pictures))
            .collect();
        record.shift_remove(key);
        record.insert("conversations".to_owned(), Value::Array(turns));
        heard.keep(&mut record);
    }
    one_image(&mut record);
    Value::Object(record)
}

/// Whether a record has somebody else's form: a list of messages, texts or pictures in place of what
/// samples have, or a turn of any other form, such as a system message.
pub(super) fn is_foreign(record: &Value) -> bool {
    let has_list = |key: &str| record.get(key).is_some_and(Value::is_array);
    let has_turns = record.get("conversations").is_some();
    let lists = has_list("images") && !says_image(record.get("image"))
        || !has_turns && (has_list("messages") || has_list("texts"));
    lists || normalise(record.clone(), &mut Vec::new()) != *record
}

/// Whether an `image` is there and not null.
fn says_image(image: Option<&Value>) -> bool {
    image.is_some_and(|image| !image.is_null())
}

/// `[{"user": …, "assistant": …}, …]`, as the Cauldron writes; other keys go with the answer.
fn from_texts(texts: &[Value]) -> Option<Value> {
    let mut turns = Vec::new();
    for text in texts {
        let mut rest = text.as_object()?.clone();
        let (Value::String(user), Value::String(assistant)) =
            (rest.shift_remove("user")?, rest.shift_remove("assistant")?)
        else {
            return None;
        };
        turns.push(json!({"from": "human", "value": user}));
        let mut answer = Map::new();
        answer.insert("from".to_owned(), json!("gpt"));
        answer.insert("value".to_owned(), Value::String(assistant));
        rest.into_iter().for_each(|(key, value)| {
            answer.entry(key).or_insert(value);
        });
        turns.push(Value::Object(answer));
    }
    Some(Value::Array(turns))
}

/// What is said beside turns.
#[derive(Default)]
struct Heard {
    /// What the system says, with the place of each message among all.
    system: Vec<(usize, Map<String, Value>, String)>,
    /// Pictures that are named, not held.
    references: Vec<String>,
}

impl Heard {
    /// A turn in the form of samples; `None` for a system message, which is no turn.
    fn turn(&mut self, at: usize, turn: Value, pictures: &mut Vec<Vec<u8>>) -> Option<Value> {
        let Value::Object(turn) = turn else {
            return Some(turn);
        };
        let named = |keys: [&'static str; 2]| keys.into_iter().find(|key| turn.contains_key(*key));
        let (Some(who_key), Some(text_key)) =
            (named(["from", "role"]), named(["value", "content"]))
        else {
            return Some(Value::Object(turn));
        };
        let who = turn
            .get(who_key)
            .and_then(Value::as_str)
            .unwrap_or_default();
        let is_system = who.eq_ignore_ascii_case("system");
        let from = match (speaker(who), is_system) {
            (None, false) => return Some(Value::Object(turn)),
            (from, _) => from.unwrap_or_default(),
        };
        let joined = match turn.get(text_key) {
            Some(Value::String(text)) => Joined::of_text(text),
            Some(Value::Array(parts)) => match Joined::of_parts(parts) {
                Some(joined) => joined,
                None => return Some(Value::Object(turn)),
            },
            _ => return Some(Value::Object(turn)),
        };
        pictures.extend(joined.pictures);
        self.references.extend(joined.references);
        let mut rest = turn;
        rest.shift_remove(who_key);
        rest.shift_remove(text_key);
        if let Some(parts) = joined.more {
            rest.entry("parts").or_insert(parts);
        }
        if is_system {
            self.system.push((at, rest, joined.text));
            return None;
        }
        let mut made = Map::new();
        made.insert("from".to_owned(), json!(from));
        made.insert("value".to_owned(), Value::String(joined.text));
        rest.into_iter().for_each(|(key, value)| {
            made.entry(key).or_insert(value);
        });
        Some(Value::Object(made))
    }

    /// Puts what was said beside turns into the record.
    fn keep(self, record: &mut Map<String, Value>) {
        let plain = |(i, (at, rest, _)): (usize, &(usize, Map<String, Value>, String))| {
            i == *at && rest.is_empty()
        };
        let in_front = self.system.iter().enumerate().all(plain);
        let texts: Vec<&str> = self
            .system
            .iter()
            .map(|(_, _, text)| text.as_str())
            .collect();
        let has_system = record.contains_key("system");
        if !texts.is_empty() && !has_system {
            record.insert("system".to_owned(), json!(texts.join("\n")));
        }
        if !texts.is_empty() && (has_system || !in_front) {
            // Where and how it was said, which one text cannot say.
            let messages = self.system.into_iter().map(|(at, mut rest, text)| {
                rest.insert("turn".to_owned(), json!(at));
                rest.insert("value".to_owned(), Value::String(text));
                Value::Object(rest)
            });
            insert_free(record, "system_messages", messages.collect());
        }
        let named = ["image", "images"]
            .into_iter()
            .any(|key| record.contains_key(key));
        match (self.references.as_slice(), named) {
            ([], _) => {}
            ([one], false) => {
                record.insert("image".to_owned(), json!(one));
            }
            (several, _) => insert_free(record, "image_references", json!(several)),
        }
    }
}

/// Inserts under a key that is free: the name, or the name with underlines behind it.
pub(super) fn insert_free(record: &mut Map<String, Value>, name: &str, value: Value) {
    let mut key = name.to_owned();
    while record.contains_key(&key) {
        key.push('_');
    }
    record.insert(key, value);
}

/// Parts of a message as one text.
#[derive(Default)]
struct Joined {
    text: String,
    pictures: Vec<Vec<u8>>,
    references: Vec<String>,
    /// The parts, if they say more than texts and pictures.
    more: Option<Value>,
}

impl Joined {
    fn of_text(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            ..Self::default()
        }
    }

    /// Texts, and a placeholder for each picture; `None` if a part is neither.
    fn of_parts(parts: &[Value]) -> Option<Self> {
        let mut joined = Self::default();
        let (mut lines, mut rests, mut says_more) = (Vec::new(), Vec::new(), false);
        for part in parts {
            let (line, rest) = match part {
                Value::String(text) => (text.clone(), Map::new()),
                Value::Object(part) => joined.part(part.clone())?,
                _ => return None,
            };
            says_more |= !rest.is_empty();
            lines.push(line);
            rests.push(Value::Object(rest));
        }
        joined.text = lines.join("\n");
        joined.more = says_more.then_some(Value::Array(rests));
        Some(joined)
    }

    /// Text of a part, and what else it says.
    fn part(&mut self, mut part: Map<String, Value>) -> Option<(String, Map<String, Value>)> {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
        let is_text = matches!(kind, "" | "text" | "input_text" | "output_text");
        let is_picture = matches!(kind, "" | "image" | "image_url" | "input_image");
        if is_text && part.get("text").is_some_and(Value::is_string) {
            part.shift_remove("type");
            let Some(Value::String(text)) = part.shift_remove("text") else {
                return None;
            };
            return Some((text, part));
        }
        if !is_picture {
            return None;
        }
        let key = ["image_url", "image"]
            .into_iter()
            .find(|key| part.contains_key(*key));
        if kind.is_empty() && key.is_none() {
            return None;
        }
        part.shift_remove("type");
        let held = key.and_then(|key| part.shift_remove(key));
        let url = match held {
            None | Some(Value::Null) => None,
            Some(Value::String(url)) => Some(url),
            Some(Value::Object(mut held)) => {
                let Some(Value::String(url)) = held.shift_remove("url") else {
                    return None;
                };
                held.into_iter().for_each(|(key, value)| {
                    part.entry(key).or_insert(value);
                });
                Some(url)
            }
            Some(_) => return None,
        };
        if let Some(url) = url {
            let data = url.split_once(";base64,").map(|(_, data)| data);
            match data.and_then(|data| BASE64_STANDARD.decode(data).ok()) {
                Some(bytes) => self.pictures.push(bytes),
                None => self.references.push(url),
            }
        }
        Some(("<image>".to_owned(), part))
    }
}

/// A list of one picture is a picture.
fn one_image(record: &mut Map<String, Value>) {
    let Some(Value::Array(images)) = record.get("images") else {
        return;
    };
    let path = match images.as_slice() {
        [Value::String(path)] => Some(path.clone()),
        [Value::Object(one)] => {
            let nothing_else = one.iter().all(|(key, v)| key == "path" || v.is_null());
            let path = one.get("path").and_then(Value::as_str);
            path.filter(|_| nothing_else).map(str::to_owned)
        }
        _ => None,
    };
    if let Some(path) = path
        && !says_image(record.get("image"))
    {
        record.shift_remove("images");
        record.insert("image".to_owned(), Value::String(path));
    }
}

/// Shows the picture of a record in its first question, if no turn does.
pub fn show_picture(record: &mut Value) {
    let Some(turns) = record
        .get_mut("conversations")
        .and_then(Value::as_array_mut)
    else {
        return;
    };
    let text = |turn: &Value| turn.get("value").and_then(Value::as_str).map(str::to_owned);
    if turns
        .iter()
        .filter_map(text)
        .any(|text| text.contains("<image>"))
    {
        return;
    }
    let question = turns
        .iter_mut()
        .find(|turn| turn.get("from").and_then(Value::as_str) == Some("human"));
    if let Some(value) = question.and_then(|turn| turn.get_mut("value"))
        && let Some(text) = value.as_str()
    {
        *value = Value::String(format!("<image>\n{text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(record: Value) -> (Value, Vec<Vec<u8>>) {
        let mut pictures = Vec::new();
        (normalise(record, &mut pictures), pictures)
    }

    #[test]
    fn messages_become_turns() {
        let url = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(b"PNG"));
        let (record, pictures) = done(json!({"id": 1, "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What?"}]},
            {"role": "assistant", "content": "A cat."},
        ]}));
        assert_eq!(
            record,
            json!({"id": 1, "conversations": [
                {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}],
                "system": "Be brief."})
        );
        assert_eq!(pictures, [b"PNG"]);
    }

    #[test]
    fn a_foreign_form_shows_anywhere_in_a_record() {
        let said = |turns: Value| json!({"conversations": turns});
        let (human, gpt) = (
            json!({"from": "human", "value": "q", "weight": 1}),
            json!({"from": "gpt", "value": "a"}),
        );
        let mut ours = said(json!([human, gpt]));
        assert!(!is_foreign(&ours));
        for image in [json!("a.png"), json!(["a.png", "b.png"])] {
            ours["image"] = image;
            ours["images"] = json!(["a.png"]);
            assert!(!is_foreign(&ours), "{ours}");
        }
        // Nobody knows how to read these, so they are a fault and no form.
        let tool = json!({"from": "tool", "value": "t"});
        for odd in [said(json!([human, tool])), said(json!("a")), json!([1])] {
            assert!(!is_foreign(&odd), "{odd}");
        }
        for foreign in [
            json!({"conversations": [human, gpt], "images": ["a.png"]}),
            json!({"conversations": [human, gpt], "images": [], "image": null}),
            json!({"messages": []}),
            json!({"texts": []}),
            said(json!([{"from": "system", "value": "s"}, human, gpt])),
            said(json!([human, gpt, {"from": "System", "value": "s"}])),
            said(json!([human, {"from": "assistant", "value": "a"}])),
            said(json!([human, {"role": "gpt", "content": "a"}])),
        ] {
            assert!(is_foreign(&foreign), "{foreign}");
        }
    }

    #[test]
    fn other_names_and_texts_become_turns() {
        let (record, _) = done(
            json!({"conversations": [{"from": "user", "value": "q"}, {"from": "chatgpt", "value": "a"}], "images": ["x.png"]}),
        );
        assert_eq!(record["conversations"][1]["from"], "gpt");
        assert_eq!(record["image"], "x.png");
        let (record, _) = done(json!({"image": null, "images": ["x.png"]}));
        assert_eq!(record, json!({"image": "x.png"}));
        let (mut record, _) =
            done(json!({"texts": [{"user": "q", "assistant": "a", "source": "s"}]}));
        show_picture(&mut record);
        assert_eq!(record["conversations"][0]["value"], "<image>\nq");
        // What is not understood stays, and is no sample.
        let odd = json!({"conversations": [{"from": "tool", "value": "x"}]});
        assert_eq!(done(odd.clone()).0, odd);
        assert_eq!(done(json!([1])).0, json!([1]));
    }
}
