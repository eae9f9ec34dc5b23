use opabinia_image::ImageSource;
use opabinia_llm::template::IMAGE_PLACEHOLDER;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::messages::{MOST_PICTURES, MOST_TEXT};

fn asked(body: &Value) -> Result<Asked, Refusal> {
    read(body.to_string().as_bytes(), &Generation::default(), None)
}

fn data_url(url: &str) -> ImageSource {
    ImageSource::DataUrl(url.to_owned())
}

fn refused(body: &Value) -> (String, String) {
    let error = asked(body).unwrap_err().json();
    let text = |key: &str| error["error"][key].as_str().unwrap_or_default().to_owned();
    (text("param"), text("message"))
}

#[test]
fn a_conversation_with_pictures() {
    let body = json!({
        "model": "any", "user": "somebody", "stream": true,
        "stream_options": {"include_usage": true},
        "temperature": 0.5, "max_tokens": 7, "seed": -1, "stop": "\n", "top_k": 3,
        "n": 1, "tools": [], "presence_penalty": 0, "response_format": {"type": "text"},
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [
                {"type": "text", "text": "What is it? <image>"},
                {"type": "image_url", "image_url": {"url": "data:,a", "detail": "low"}},
            ]},
            {"role": "assistant", "content": "A cat."},
            {"role": "user", "content": [
                {"type": "image_url", "image_url": "DATA:,b"},
                {"type": "image_url", "image_url": {"url": "data:,c"}},
                {"type": "text", "text": "And these?"},
            ]},
        ],
    });
    let asked = asked(&body).unwrap();
    let Question {
        conversation,
        pictures,
        generation,
    } = asked.question;
    assert_eq!(conversation.system.as_deref(), Some("Be brief."));
    let said: Vec<_> = conversation.turns.iter().map(|t| t.text.clone()).collect();
    let wanted = [
        Some("<image>\nWhat is it? (image)".to_owned()),
        Some("A cat.".to_owned()),
        Some("<image>\n<image>\nAnd these?".to_owned()),
        None,
    ];
    assert_eq!(said, wanted);
    assert_eq!(pictures, ["data:,a", "DATA:,b", "data:,c"].map(data_url));
    assert!(asked.stream && asked.usage);
    let sampling = generation.sampling;
    assert_eq!((sampling.temperature, sampling.max_new_tokens), (0.5, 7));
    assert_eq!((sampling.seed, sampling.top_k), (u64::MAX, Some(3)));
    assert_eq!(sampling.stop, ["\n"]);
}

#[test]
fn histories_as_clients_send_them() {
    let body = json!({"top_k": -1, "tool_choice": "auto", "messages": [
        {"role": "user", "content": "A", "name": "somebody"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,b"}}]},
        {"role": "assistant", "content": null, "tool_calls": []},
        {"role": "user", "content": "C"},
        {"role": "assistant", "content": "D"},
        {"role": "assistant", "content": "E"},
        {"role": "user", "content": "F"},
    ]});
    let Question {
        conversation,
        pictures,
        generation,
    } = asked(&body).unwrap().question;
    let turns = conversation.turns.iter();
    let said: Vec<_> = turns.map(|turn| turn.text.as_deref()).collect();
    let first = Some("A\n<image>\n\nC");
    assert_eq!(said, [first, Some("D\nE"), Some("F"), None]);
    assert_eq!(pictures, ["data:,b"].map(data_url));
    assert_eq!(generation.sampling.top_k, None);
}

#[test]
fn refusals_name_the_key() {
    let user = json!([{"role": "user", "content": "Hello"}]);
    let shown = |url: &str| json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]);
    let bodies = [
        (json!({}), "messages", "missing"),
        (json!({"messages": []}), "messages", "nothing to answer"),
        (json!({"messages": "Hello"}), "messages", "a list"),
        (
            json!({"messages": [{"role": "user", "content": " "}]}),
            "messages[0].content",
            "nothing",
        ),
        (
            json!({"messages": [{"role": "user", "content": 7}]}),
            "messages[0].content",
            "is 7",
        ),
        (
            json!({"messages": [{"role": "tool", "content": "x"}]}),
            "messages[0].role",
            "`assistant`",
        ),
        (
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "x"}]}),
            "messages",
            "nothing to answer",
        ),
        (
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}),
            "messages[1]",
            "before all turns",
        ),
        (
            json!({"messages": [{"role": "assistant", "content": null, "tool_calls": [{}]}]}),
            "messages[0].tool_calls",
            "no tools",
        ),
        (
            json!({"messages": [{"role": "user", "content": "a".repeat(MOST_TEXT + 1)}]}),
            "messages[0]",
            "longer",
        ),
        (
            json!({"messages": vec![shown("data:,a")[0].clone(); MOST_PICTURES + 1]}),
            "messages[16]",
            "at most 16",
        ),
        (
            json!({"messages": user, "stream_options": {"include_usage": 1}}),
            "include_usage",
            "true or false",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "video"}]}]}),
            "messages[0].content[0].type",
            "`image_url`",
        ),
        (
            json!({"messages": shown("https://example.org/a.png")}),
            "messages[0].content[0].image_url",
            "fetches nothing",
        ),
        (
            json!({"messages": shown("/etc/passwd")}),
            "messages[0].content[0].image_url",
            "fetches nothing",
        ),
        (
            json!({"messages": shown("-")}),
            "messages[0].content[0].image_url",
            "fetches nothing",
        ),
        (json!({"messages": user, "n": 2}), "n", "cannot do"),
        (
            json!({"messages": user, "tools": [{}]}),
            "tools",
            "cannot do",
        ),
        (
            json!({"messages": user, "response_format": {"type": "json_object"}}),
            "response_format",
            "cannot do",
        ),
        (
            json!({"messages": user, "temperature": "hot"}),
            "temperature",
            "a number",
        ),
        (
            json!({"messages": user, "temperature": -1}),
            "",
            "temperature",
        ),
        (
            json!({"messages": user, "max_tokens": 0}),
            "max_tokens",
            "above 0",
        ),
        (json!({"messages": user, "stop": [""]}), "stop", "a text"),
        (
            json!({"messages": user, "stream": 1}),
            "stream",
            "true or false",
        ),
    ];
    for (body, param, words) in bodies {
        let (found, message) = refused(&body);
        assert_eq!(found, param, "{body}: {message}");
        assert!(message.contains(words), "{body}: {message}");
    }
    assert!(read(b"{", &Generation::default(), None).is_err());
    assert!(read(b"[]", &Generation::default(), None).is_err());
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "(text|image_url|user|assistant|system|data:,x|<image>|)".prop_map(Value::from),
    ];
    let keys = "(role|content|type|text|image_url|url|messages|stop|seed|n|stream)";
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(keys, inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A user's messages with an assistant's between some of them; most can be answered.
fn any_messages() -> impl Strategy<Value = Vec<Value>> {
    let text = || "(<image>|<ima|ge>|a|\n| )+";
    let part = prop_oneof![
        text().prop_map(|text| json!({"type": "text", "text": text})),
        Just(json!({"type": "image_url", "image_url": {"url": "data:,x"}})),
    ];
    let user = prop_oneof![
        text().prop_map(Value::from),
        proptest::collection::vec(part, 1..4).prop_map(Value::from),
    ];
    let user = user.prop_map(|content| json!({"role": "user", "content": content}));
    let other = text().prop_map(|text| json!({"role": "assistant", "content": text}));
    proptest::collection::vec(prop_oneof![3 => user, 1 => other], 1..6)
}

/// How many pictures a conversation asks for, and how many it has.
fn counted(asked: &Asked) -> (usize, usize) {
    let Question {
        conversation,
        pictures,
        ..
    } = &asked.question;
    let said = conversation
        .turns
        .iter()
        .filter_map(|turn| turn.text.as_deref());
    let placeholders = said
        .map(|text| text.matches(IMAGE_PLACEHOLDER).count())
        .sum();
    (placeholders, pictures.len())
}

proptest! {
    /// There are as many pictures as placeholders, whatever people write; and turns alternate.
    #[test]
    fn messages_become_turns(mut messages in any_messages()) {
        messages.push(json!({"role": "user", "content": "?"}));
        let Ok(asked) = asked(&json!({"messages": messages})) else {
            // Somebody says nothing at all.
            let blank = |message: &Value| {
                let content = &message["content"];
                let parts = content.as_array().cloned().unwrap_or_else(|| vec![json!({"text": content})]);
                let said = |part: &Value| part["text"].as_str().is_none_or(|text| !text.trim().is_empty());
                message["role"] == "user" && !parts.iter().any(said)
            };
            prop_assert!(messages.iter().any(blank));
            return Ok(());
        };
        let (placeholders, pictures) = counted(&asked);
        prop_assert_eq!(placeholders, pictures);
        let shown = json!(messages).to_string().matches("data:,x").count();
        prop_assert_eq!(pictures, shown);
        let turns = &asked.question.conversation.turns;
        prop_assert!(turns.windows(2).all(|pair| pair[0].role != pair[1].role));
    }

    /// Whatever comes, it is understood or refused.
    #[test]
    fn any_body_is_answered(messages in any_value(), other in any_value()) {
        let mut body = json!({"messages": messages});
        if let (Value::Object(body), Value::Object(other)) = (&mut body, other) {
            body.extend(other.into_iter().filter(|(key, _)| key != "messages"));
        }
        if let Ok(asked) = asked(&body) {
            let (placeholders, pictures) = counted(&asked);
            prop_assert_eq!(placeholders, pictures);
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = read(&bytes, &Generation::default(), None);
    }
}
