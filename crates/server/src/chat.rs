//! What a request asks for: the body of OpenAI's `chat/completions`.

use opabinia_llm::template::{IMAGE_PLACEHOLDER, Role};
use opabinia_llm::{Conversation, Turn};
use opabinia_model::Generation;
use serde_json::{Map, Value};

use crate::refusal::Refusal;
use crate::worker::Question;

/// A request, understood.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub question: Question,
    /// Whether the answer is wanted as it is written.
    pub stream: bool,
    /// Whether a stream is to end with what it took.
    pub usage: bool,
}

/// Most texts that end an answer.
const MOST_STOPS: usize = 16;
/// Most pictures of a conversation: as many as are remembered.
const MOST_PICTURES: usize = 16;
/// Most bytes of all texts; no context holds as many, and making tokens of them cannot be broken off.
const MOST_TEXT: usize = 2 << 20;

/// Understands a body. What it does not say is as in `default`.
pub(crate) fn read(
    body: &[u8],
    default: &Generation,
    system: Option<&str>,
) -> Result<Asked, Refusal> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::body(format!("the body is no JSON: {error}")))?;
    let Value::Object(body) = body else {
        return Err(Refusal::body("the body must be a JSON object"));
    };
    refuse_what_there_is_not(&body)?;
    let fields = Fields(&body);
    let (mut conversation, pictures) = messages(fields.get("messages"))?;
    if conversation.system.is_none() {
        conversation.system = system.map(str::to_owned);
    }
    let usage = match fields.get("stream_options") {
        None => false,
        Some(Value::Object(options)) => Fields(options).flag("include_usage")?,
        Some(other) => return Err(wrong("stream_options", other, "an object")),
    };
    Ok(Asked {
        question: Question {
            conversation,
            pictures,
            generation: fields.generation(default)?,
        },
        stream: fields.flag("stream")?,
        usage,
    })
}

/// Keys that would change the answer in a way that this server does not know, unless their value changes nothing.
fn refuse_what_there_is_not(body: &Map<String, Value>) -> Result<(), Refusal> {
    let harmless = |key: &str, value: &Value| match key {
        "n" => value.as_f64() == Some(1.0),
        "presence_penalty" | "frequency_penalty" | "top_logprobs" => value.as_f64() == Some(0.0),
        "logprobs" => *value == Value::Bool(false),
        "tools" | "functions" => value.as_array().is_some_and(Vec::is_empty),
        "tool_choice" | "function_call" => {
            // Without tools there is nothing to choose.
            value
                .as_str()
                .is_some_and(|choice| ["none", "auto"].contains(&choice))
        }
        "logit_bias" => value.as_object().is_some_and(Map::is_empty),
        "response_format" => value["type"] == "text",
        "modalities" => value.as_array().is_some_and(|all| *all == ["text"]),
        "audio" | "prediction" => false,
        _ => true,
    };
    let refused = body
        .iter()
        .find(|(key, value)| !value.is_null() && !harmless(key, value));
    match refused {
        Some((key, _)) => Err(Refusal::request(
            key,
            format!("this server cannot do what `{key}` asks for; leave it out"),
        )),
        None => Ok(()),
    }
}

/// Values by name; one that is null is not there.
struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn flag(&self, key: &str) -> Result<bool, Refusal> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(wrong(key, other, "true or false")),
        }
    }

    fn number(&self, key: &str) -> Result<Option<f32>, Refusal> {
        let value = self.get(key);
        value
            .map(|value| {
                let number = value.as_f64().map(|number| number as f32);
                number.ok_or_else(|| wrong(key, value, "a number"))
            })
            .transpose()
    }

    fn count(&self, key: &str) -> Result<Option<u64>, Refusal> {
        let value = self.get(key);
        value
            .map(|value| {
                let count = value.as_u64().filter(|count| *count > 0);
                count.ok_or_else(|| wrong(key, value, "a whole number above 0"))
            })
            .transpose()
    }

    fn seed(&self) -> Result<Option<u64>, Refusal> {
        let value = self.get("seed");
        value
            .map(|value| {
                // Any number is as good as another, negative ones too.
                let signed = value.as_i64().map(i64::cast_unsigned);
                let seed = value.as_u64().or(signed);
                seed.ok_or_else(|| wrong("seed", value, "a whole number"))
            })
            .transpose()
    }

    fn stop(&self) -> Result<Option<Vec<String>>, Refusal> {
        let expected = format!("a text, or a list of at most {MOST_STOPS}");
        let Some(value) = self.get("stop") else {
            return Ok(None);
        };
        let texts = match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(list) if list.len() <= MOST_STOPS => list
                .iter()
                .map(|text| text.as_str().map(str::to_owned))
                .collect(),
            _ => None,
        };
        let texts = texts.filter(|texts| texts.iter().all(|text| !text.is_empty()));
        texts
            .map(Some)
            .ok_or_else(|| wrong("stop", value, &expected))
    }

    fn generation(&self, default: &Generation) -> Result<Generation, Refusal> {
        let mut generation = default.clone();
        let sampling = &mut generation.sampling;
        if let Some(temperature) = self.number("temperature")? {
            sampling.temperature = temperature;
        }
        if let Some(top_p) = self.number("top_p")? {
            sampling.top_p = top_p;
        }
        if let Some(penalty) = self.number("repetition_penalty")? {
            sampling.repetition_penalty = penalty;
        }
        sampling.min_p = self.number("min_p")?.or(sampling.min_p);
        match self.get("top_k").and_then(Value::as_i64) {
            // So other servers are told that all tokens count.
            Some(0 | -1) => sampling.top_k = None,
            _ => {
                if let Some(top_k) = self.count("top_k")? {
                    sampling.top_k = Some(u32::try_from(top_k).unwrap_or(u32::MAX));
                }
            }
        }
        if let Some(seed) = self.seed()? {
            sampling.seed = seed;
        }
        let most = match self.count("max_completion_tokens")? {
            None => self.count("max_tokens")?,
            most => most,
        };
        if let Some(most) = most {
            sampling.max_new_tokens = usize::try_from(most).unwrap_or(usize::MAX);
        }
        if let Some(stop) = self.stop()? {
            sampling.stop = stop;
        }
        let checked = sampling.validate();
        checked.map_err(|error| Refusal::body(error.to_string()))?;
        Ok(generation)
    }
}

fn wrong(key: &str, found: &Value, expected: &str) -> Refusal {
    let found = match found {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.len() > 40 => "a long text".to_owned(),
        other => other.to_string(),
    };
    Refusal::request(key, format!("`{key}` is {found}, but must be {expected}"))
}

/// The conversation, and the pictures that it shows.
fn messages(value: Option<&Value>) -> Result<(Conversation, Vec<String>), Refusal> {
    let list = match value {
        Some(Value::Array(list)) => list,
        Some(other) => return Err(wrong("messages", other, "a list")),
        None => return Err(Refusal::request("messages", "`messages` is missing")),
    };
    let mut told = Told::default();
    for (i, message) in list.iter().enumerate() {
        told.message(message, &format!("messages[{i}]"))?;
    }
    let Told {
        system,
        mut turns,
        pictures,
        ..
    } = told;
    match turns.last() {
        Some(turn) if turn.role == Role::User => {}
        _ => {
            let message = "the last message must be a user's: there is nothing to answer";
            return Err(Refusal::request("messages", message));
        }
    }
    turns.push(Turn::open());
    let conversation = Conversation {
        system: (!system.is_empty()).then(|| system.join("\n")),
        turns,
    };
    Ok((conversation, pictures))
}

/// What the messages so far tell.
#[derive(Default)]
struct Told {
    system: Vec<String>,
    turns: Vec<Turn>,
    pictures: Vec<String>,
    /// Bytes of all texts.
    length: usize,
}

impl Told {
    fn message(&mut self, message: &Value, at: &str) -> Result<(), Refusal> {
        let role = match &message["role"] {
            Value::String(role) => role.as_str(),
            other => return Err(wrong(&format!("{at}.role"), other, "a text")),
        };
        let assistant = role == "assistant";
        let content = match &message["content"] {
            Value::Null if assistant => Content::default(),
            content => Content::read(content, &format!("{at}.content"))?,
        };
        self.length += content.text.len();
        if self.length > MOST_TEXT {
            let message = format!("the texts are longer than {MOST_TEXT} bytes");
            return Err(Refusal::request(at, message));
        }
        let shows = !content.pictures.is_empty();
        if shows && role != "user" {
            return Err(Refusal::request(at, "only a user shows pictures"));
        }
        let empty = content.text.trim().is_empty();
        match role {
            "system" | "developer" if self.turns.is_empty() => self.system.push(content.text),
            "system" | "developer" => {
                return Err(Refusal::request(at, "system text stands before all turns"));
            }
            "user" if empty && !shows => {
                return Err(Refusal::request(format!("{at}.content"), "it says nothing"));
            }
            "user" => {
                // Before the text, where the released models were trained to have them.
                let shown = format!("{IMAGE_PLACEHOLDER}\n").repeat(content.pictures.len());
                self.turn(Turn::user(shown + &content.text));
                self.pictures.extend(content.pictures);
            }
            "assistant" => {
                let called = ["tool_calls", "function_call"];
                if let Some(key) = called.iter().find(|key| is_something(&message[**key])) {
                    let why = "this server knows no tools";
                    return Err(Refusal::request(format!("{at}.{key}"), why));
                }
                // An answer that ended at once.
                if !empty {
                    self.turn(Turn::assistant(content.text));
                }
            }
            _ => {
                let expected = "`system`, `developer`, `user` or `assistant`";
                return Err(wrong(&format!("{at}.role"), &message["role"], expected));
            }
        }
        if self.pictures.len() > MOST_PICTURES {
            let message = format!("a conversation shows at most {MOST_PICTURES} pictures");
            return Err(Refusal::request(at, message));
        }
        Ok(())
    }

    /// Says more. Templates know turns that alternate, so who goes on speaking says it all at once.
    fn turn(&mut self, turn: Turn) {
        match self.turns.last_mut() {
            Some(Turn {
                role,
                text: Some(said),
            }) if *role == turn.role => {
                said.push('\n');
                said.push_str(turn.text.as_deref().unwrap_or_default());
            }
            _ => self.turns.push(turn),
        }
    }
}

fn is_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        _ => true,
    }
}

/// What one message says and shows.
#[derive(Default)]
struct Content {
    text: String,
    pictures: Vec<String>,
}

impl Content {
    /// A text, or a list of parts.
    fn read(value: &Value, at: &str) -> Result<Self, Refusal> {
        let mut content = Self::default();
        match value {
            Value::String(text) => content.say(text),
            Value::Array(parts) => {
                for (i, part) in parts.iter().enumerate() {
                    content.part(part, &format!("{at}[{i}]"))?;
                }
            }
            other => return Err(wrong(at, other, "a text or a list of parts")),
        }
        Ok(content)
    }

    /// A placeholder that somebody writes shows no picture.
    fn say(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text += &text.replace(IMAGE_PLACEHOLDER, "(image)");
    }

    fn part(&mut self, part: &Value, at: &str) -> Result<(), Refusal> {
        match part["type"].as_str() {
            Some("text") => match &part["text"] {
                Value::String(text) => self.say(text),
                other => return Err(wrong(&format!("{at}.text"), other, "a text")),
            },
            Some("image_url") => {
                let at = format!("{at}.image_url");
                let url = match &part["image_url"] {
                    Value::Object(image) => image.get("url").unwrap_or(&Value::Null),
                    url => url,
                };
                let Value::String(url) = url else {
                    return Err(wrong(&at, url, "`{\"url\": \"data:image/…\"}`"));
                };
                let scheme = url.get(..5);
                if !scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:")) {
                    return Err(Refusal::request(
                        at,
                        "a picture must come with the request, as a `data:image/png;base64,…` URL: this \
                         server fetches nothing",
                    ));
                }
                self.pictures.push(url.clone());
            }
            _ => {
                let at = format!("{at}.type");
                return Err(wrong(&at, &part["type"], "`text` or `image_url`"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn asked(body: &Value) -> Result<Asked, Refusal> {
        read(body.to_string().as_bytes(), &Generation::default(), None)
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
        assert_eq!(pictures, ["data:,a", "DATA:,b", "data:,c"]);
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
        assert_eq!(pictures, ["data:,b"]);
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
}
