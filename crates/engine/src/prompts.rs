//! What the model is asked, and what is taken of its answers.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::ask::{Wanted, texts};
use crate::filter::words;

/// Asks for parts of a field.
pub(crate) fn subfields(field: &str, count: usize) -> Wanted<'static> {
    names(format!(
        "Name the {count} parts of the field \"{field}\" in which pictures, diagrams or photographs explain most. \
         Give short names, as an encyclopedia's categories have them. Answer as {{\"names\": [\"…\"]}}."
    ))
}

/// Asks for topics of a part of a field.
pub(crate) fn topics(field: &Value, part: &Value, count: usize) -> Wanted<'static> {
    names(format!(
        "Name {count} different topics of {part} (a part of {field}) that have an encyclopedia article with \
         explanatory pictures. Each name must be a likely title of an article. Answer as {{\"names\": [\"…\"]}}."
    ))
}

fn names(text: String) -> Wanted<'static> {
    Wanted {
        name: "names",
        schema: json!({
            "type": "object", "additionalProperties": false, "required": ["names"],
            "properties": {"names": {"type": "array", "items": {"type": "string"}}},
        }),
        text,
    }
}

/// Different names, `count` at most.
pub(crate) fn read_names(value: &Value, count: usize) -> Result<Vec<String>, String> {
    let mut seen = HashSet::new();
    let mut found = texts(value);
    found.retain(|name| seen.insert(words(name)));
    found.truncate(count);
    match found.is_empty() {
        true => Err("there is no name in it".to_owned()),
        false => Ok(found),
    }
}

/// Asks for questions and answers about the pictures of a section.
pub(crate) fn questions(input: &Value, each: usize) -> Wanted<'static> {
    let captions = input["captions"].as_array().into_iter().flatten();
    let listed: Vec<String> = captions
        .enumerate()
        .map(|(i, caption)| format!("{}. {}", i + 1, caption.as_str().unwrap_or_default()))
        .collect();
    let part = |key: &str| input[key].as_str().unwrap_or_default();
    let text = format!(
        "An article about \"{}\" has a section \"{}\":\n\n{}\n\nIts pictures, by number, with their captions:\n{}\n\n\
         For each picture write {each} question(s) that somebody who sees only the picture and knows the subject well could \
         answer, and that cannot be answered without the picture. Do not mention caption, text or article. The answer is \
         concise and follows from the section. Answer as {{\"items\": [{{\"picture\": 1, \"question\": \"…\", \"answer\": \"…\"}}]}}.",
        part("title"),
        part("heading"),
        part("text"),
        listed.join("\n"),
    );
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["items"],
        "properties": {"items": {"type": "array", "items": {
            "type": "object", "additionalProperties": false, "required": ["picture", "question", "answer"],
            "properties": {"picture": {"type": "integer"}, "question": {"type": "string"}, "answer": {"type": "string"}},
        }}},
    });
    Wanted {
        name: "questions",
        schema,
        text,
    }
}

/// What can be used of an answer, and what cannot and why: `{"items": […], "refused": […]}`.
pub(crate) fn read_questions(value: &Value, pictures: usize, each: usize) -> Result<Value, String> {
    let list = value
        .as_array()
        .or_else(|| value["items"].as_array())
        .ok_or("there is no list `items`")?;
    let (mut items, mut refused) = (Vec::new(), Vec::new());
    let mut counts = vec![0; pictures];
    for item in list {
        match read_question(item, &mut counts, each) {
            Ok(item) => items.push(item),
            Err(why) => refused.push(json!({"what": item, "why": why})),
        }
    }
    if items.is_empty() {
        let first = refused.first().and_then(|refused| refused["why"].as_str());
        return Err(first.unwrap_or("`items` is empty").to_owned());
    }
    Ok(json!({"items": items, "refused": refused}))
}

/// One question, if its picture is there and wants another; `counts` are those that pictures have.
fn read_question(item: &Value, counts: &mut [usize], each: usize) -> Result<Value, String> {
    let pictures = counts.len();
    let cited = &item["picture"];
    // Without a schema, models write numbers as texts.
    let number = cited
        .as_u64()
        .or_else(|| cited.as_str()?.trim().parse().ok())
        .and_then(|n| usize::try_from(n).ok());
    let count = number
        .and_then(|n| counts.get_mut(n.checked_sub(1)?))
        .ok_or_else(|| format!("it is about picture {cited}, and there are {pictures}"))?;
    let text = |key: &str| {
        let text = item[key].as_str().map(str::trim);
        text.filter(|text| !text.is_empty())
    };
    let (Some(question), Some(answer)) = (text("question"), text("answer")) else {
        return Err("question or answer is missing".to_owned());
    };
    if *count >= each {
        return Err(format!("picture {cited} has its {each} already"));
    }
    *count += 1;
    Ok(json!({"picture": number, "question": question, "answer": answer}))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_be_used_of_an_answer_is_told() {
        let item = |picture: Value, question: &str| json!({"picture": picture, "question": question, "answer": " b "});
        let answer = json!({"items": [item(json!(2), "a"), item(json!("1"), "c"), item(json!(2), "d"), item(json!(3), "e"), item(json!(1), " ")]});
        let read = read_questions(&answer, 2, 1).unwrap();
        assert_eq!(
            read["items"],
            json!([{"picture": 2, "question": "a", "answer": "b"}, {"picture": 1, "question": "c", "answer": "b"}])
        );
        let why: Vec<&str> = read["refused"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["why"].as_str().unwrap())
            .collect();
        assert_eq!(
            why,
            [
                "picture 2 has its 1 already",
                "it is about picture 3, and there are 2",
                "question or answer is missing"
            ]
        );
        assert_eq!(
            read_questions(&json!({"items": []}), 2, 1).unwrap_err(),
            "`items` is empty"
        );
        assert!(read_questions(&json!({"a": 1}), 2, 1).is_err());
        assert_eq!(
            read_names(&json!({"x": ["A b", "a  B", "c", "d"]}), 2).unwrap(),
            ["A b", "c"]
        );
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(text in "[{}\\[\\]\",:0-9pictureqsonaw ]{0,60}", pictures in 0usize..3) {
            for text in [text.clone(), format!("{{\"items\": [{{\"picture\": {text}}}]}}")] {
                if let Ok(value) = serde_json::from_str::<Value>(&text) {
                    let _ = read_questions(&value, pictures, 1);
                    let _ = read_names(&value, 3);
                }
            }
        }
    }
}
