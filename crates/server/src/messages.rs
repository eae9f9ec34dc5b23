//! What was said and shown so far: the `messages` of a request.

use opabinia_image::ImageSource;
use opabinia_llm::template::{IMAGE_PLACEHOLDER, Role};
use opabinia_llm::{Conversation, Turn};
use serde_json::Value;

use crate::refusal::Refusal;

/// Most pictures of a conversation: as many as are remembered.
pub(crate) const MOST_PICTURES: usize = 16;
/// Most bytes of all texts; no context holds as many, and making tokens of them cannot be broken off.
pub(crate) const MOST_TEXT: usize = 2 << 20;

/// The conversation, and the pictures that it shows.
pub(crate) fn messages(value: Option<&Value>) -> Result<(Conversation, Vec<ImageSource>), Refusal> {
    let list = match value {
        Some(Value::Array(list)) => list,
        Some(other) => return Err(Refusal::wrong("messages", other, "a list")),
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
    pictures: Vec<ImageSource>,
    /// Bytes of all texts.
    length: usize,
}

impl Told {
    fn message(&mut self, message: &Value, at: &str) -> Result<(), Refusal> {
        let role = match &message["role"] {
            Value::String(role) => role.as_str(),
            other => return Err(Refusal::wrong(&format!("{at}.role"), other, "a text")),
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
                return Err(Refusal::wrong(
                    &format!("{at}.role"),
                    &message["role"],
                    expected,
                ));
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
    pictures: Vec<ImageSource>,
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
            other => return Err(Refusal::wrong(at, other, "a text or a list of parts")),
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
                other => return Err(Refusal::wrong(&format!("{at}.text"), other, "a text")),
            },
            Some("image_url") => {
                let at = format!("{at}.image_url");
                let url = match &part["image_url"] {
                    Value::Object(image) => image.get("url").unwrap_or(&Value::Null),
                    url => url,
                };
                let Value::String(url) = url else {
                    return Err(Refusal::wrong(&at, url, "`{\"url\": \"data:image/…\"}`"));
                };
                let scheme = url.get(..5);
                if !scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:")) {
                    return Err(Refusal::request(
                        at,
                        "a picture must come with the request, as a `data:image/png;base64,…` URL: this \
                         server fetches nothing",
                    ));
                }
                self.pictures.push(ImageSource::DataUrl(url.clone()));
            }
            _ => {
                let at = format!("{at}.type");
                return Err(Refusal::wrong(&at, &part["type"], "`text` or `image_url`"));
            }
        }
        Ok(())
    }
}
