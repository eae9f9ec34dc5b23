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
/// Pictures written as data URLs are taken out into `pictures`. What is not understood stays.
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
    {
        let mut system = Vec::new();
        let turns: Vec<Value> = turns
            .clone()
            .into_iter()
            .filter_map(|turn| one_turn(turn, &mut system, pictures))
            .collect();
        record.shift_remove(key);
        record.insert("conversations".to_owned(), Value::Array(turns));
        if !system.is_empty() && !record.contains_key("system") {
            record.insert("system".to_owned(), json!(system.join("\n")));
        }
    }
    one_image(&mut record);
    Value::Object(record)
}

/// `[{"user": …, "assistant": …}, …]`, as the Cauldron writes.
fn from_texts(texts: &[Value]) -> Option<Value> {
    let mut turns = Vec::new();
    for text in texts {
        let (user, assistant) = (
            text.get("user")?.as_str()?,
            text.get("assistant")?.as_str()?,
        );
        turns.push(json!({"from": "human", "value": user}));
        turns.push(json!({"from": "gpt", "value": assistant}));
    }
    Some(Value::Array(turns))
}

/// A turn in the form of samples; `None` for a system message, which is no turn.
fn one_turn(turn: Value, system: &mut Vec<String>, pictures: &mut Vec<Vec<u8>>) -> Option<Value> {
    let get = |keys: [&str; 2]| keys.into_iter().find_map(|key| turn.get(key));
    let who = get(["from", "role"])
        .and_then(Value::as_str)
        .unwrap_or_default();
    let Some(content) = get(["value", "content"]) else {
        return Some(turn);
    };
    let text = match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => joined(parts, pictures),
        _ => return Some(turn),
    };
    if who.eq_ignore_ascii_case("system") {
        system.push(text);
        return None;
    }
    match speaker(who) {
        Some(from) => Some(json!({"from": from, "value": text})),
        None => Some(turn),
    }
}

/// Parts of a message: texts, and a placeholder for each picture.
fn joined(parts: &[Value], pictures: &mut Vec<Vec<u8>>) -> String {
    let mut lines = Vec::new();
    for part in parts {
        if let Some(text) = part.get("text").and_then(Value::as_str) {
            lines.push(text.to_owned());
            continue;
        }
        let url = part.get("image_url");
        let url = url.and_then(|url| url.as_str().or_else(|| url.get("url")?.as_str()));
        let data = url.and_then(|url| url.split_once(";base64,"));
        if let Some(bytes) = data.and_then(|(_, data)| BASE64_STANDARD.decode(data).ok()) {
            pictures.push(bytes);
        }
        lines.push("<image>".to_owned());
    }
    lines.join("\n")
}

/// A list of one picture is a picture.
fn one_image(record: &mut Map<String, Value>) {
    let Some(Value::Array(images)) = record.get("images") else {
        return;
    };
    let path = match images.as_slice() {
        [one] => one
            .as_str()
            .or_else(|| one.get("path")?.as_str())
            .map(str::to_owned),
        _ => None,
    };
    if let Some(path) = path
        && !record.contains_key("image")
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
    fn other_names_and_texts_become_turns() {
        let (record, _) = done(
            json!({"conversations": [{"from": "user", "value": "q"}, {"from": "chatgpt", "value": "a"}], "images": ["x.png"]}),
        );
        assert_eq!(record["conversations"][1]["from"], "gpt");
        assert_eq!(record["image"], "x.png");
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
