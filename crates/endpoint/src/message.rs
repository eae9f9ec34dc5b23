//! The words of the protocol: a question as JSON, an answer from JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::EndpointError;

/// What a served model is asked.
#[derive(Clone, Copy, Debug)]
pub struct ChatRequest<'a> {
    /// The system's words, if there are some.
    pub system: Option<&'a str>,
    /// The picture's file, if there is one; it comes before the text.
    pub picture: Option<&'a [u8]>,
    /// The user's words.
    pub text: &'a str,
    /// How many tokens the answer may have.
    pub max_tokens: usize,
}

/// What was said before, when a model is asked again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What the model answered.
    pub answer: String,
    /// What it is told about it.
    pub reply: String,
}

/// What an answer has to look like.
#[derive(Clone, Copy, Debug)]
pub enum AnswerForm<'a> {
    /// Any text.
    Text,
    /// A JSON object of any shape (`json_object`).
    Object,
    /// A JSON object of this schema (`json_schema`).
    Schema {
        /// What the schema is called.
        name: &'a str,
        /// The JSON schema.
        schema: &'a Value,
    },
}

/// What a served model answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatAnswer {
    /// Its words, without white space around them.
    pub text: String,
    /// Why it stopped, such as `stop` or `length`.
    pub finish_reason: Option<String>,
    /// Tokens of the question, if the server says so.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer, if the server says so.
    pub completion_tokens: Option<u64>,
    /// How often it was asked until it answered.
    pub attempts: u32,
}

/// The name of the limit of an answer, on which servers do not agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenLimit {
    /// `max_tokens`.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`.
    MaxCompletionTokens,
}

impl ChatRequest<'_> {
    /// The body of the request. Decoding is greedy.
    ///
    /// # Errors
    /// [`EndpointError::Picture`] if the picture is of no format that endpoints take.
    pub fn body(&self, model: &str, limit: TokenLimit) -> Result<Value, EndpointError> {
        let text = json!({"type": "text", "text": self.text});
        let content = match self.picture {
            None => self.text.into(),
            Some(picture) => json!([
                {"type": "image_url", "image_url": {"url": data_url(picture)?}},
                text,
            ]),
        };
        let mut messages = Vec::new();
        if let Some(system) = self.system {
            messages.push(json!({"role": "system", "content": system}));
        }
        messages.push(json!({"role": "user", "content": content}));
        let limit = match limit {
            TokenLimit::MaxTokens => "max_tokens",
            TokenLimit::MaxCompletionTokens => "max_completion_tokens",
        };
        Ok(json!({
            "model": model,
            "messages": messages,
            limit: self.max_tokens,
            "temperature": 0,
            "stream": false,
        }))
    }

    /// The body of a request for an answer of a form, after what was said before. Decoding is greedy.
    ///
    /// # Errors
    /// As [`body`](Self::body).
    pub fn body_of_form(
        &self,
        model: &str,
        limit: TokenLimit,
        form: AnswerForm<'_>,
        before: &[Exchange],
    ) -> Result<Value, EndpointError> {
        let mut body = self.body(model, limit)?;
        if let Some(messages) = body.get_mut("messages").and_then(Value::as_array_mut) {
            for Exchange { answer, reply } in before {
                messages.push(json!({"role": "assistant", "content": answer}));
                messages.push(json!({"role": "user", "content": reply}));
            }
        }
        match form {
            AnswerForm::Text => {}
            AnswerForm::Object => body["response_format"] = json!({"type": "json_object"}),
            AnswerForm::Schema { name, schema } => {
                body["response_format"] = json!({
                    "type": "json_schema",
                    "json_schema": {"name": name, "strict": true, "schema": schema},
                });
            }
        }
        Ok(body)
    }
}

/// A picture's file as a `data:` URL.
///
/// # Errors
/// [`EndpointError::Picture`] if it is of no format that endpoints take.
pub fn data_url(picture: &[u8]) -> Result<String, EndpointError> {
    let kind = media_type(picture).ok_or(EndpointError::Picture)?;
    Ok(format!("data:{kind};base64,{}", STANDARD.encode(picture)))
}

/// Whether a picture's file is of a format that endpoints take.
#[must_use]
pub fn takes_picture(picture: &[u8]) -> bool {
    media_type(picture).is_some()
}

/// What a picture is, by how it begins.
fn media_type(bytes: &[u8]) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 5] = [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF8", "image/gif"),
        (b"BM", "image/bmp"),
        (b"RIFF", "image/webp"),
    ];
    let mut kinds = KINDS.iter();
    let (_, kind) = kinds.find(|(start, _)| bytes.starts_with(start))?;
    let fits = *kind != "image/webp" || bytes.get(8..12) == Some(b"WEBP");
    fits.then_some(kind)
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<Content>,
}

/// Some servers answer in parts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}

/// Reads an answer; `attempts` is noted in it.
///
/// # Errors
/// What is wrong with what is none.
pub fn read_answer(body: &str, attempts: u32) -> Result<ChatAnswer, String> {
    let completion: Completion = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let mut choices = completion.choices.into_iter();
    let choice = choices.next().ok_or("`choices` is empty")?;
    let text = match choice.message.content {
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => parts.into_iter().map(|part| part.text).collect(),
        // Nothing was said, which is an answer too: it scores as an empty one.
        None => String::new(),
    };
    let usage = completion.usage;
    Ok(ChatAnswer {
        text: text.trim().to_owned(),
        finish_reason: choice.finish_reason,
        prompt_tokens: usage.as_ref().and_then(|usage| usage.prompt_tokens),
        completion_tokens: usage.as_ref().and_then(|usage| usage.completion_tokens),
        attempts,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request<'a>(picture: Option<&'a [u8]>) -> ChatRequest<'a> {
        ChatRequest {
            system: None,
            picture,
            text: "What is it?",
            max_tokens: 16,
        }
    }

    #[test]
    fn questions_as_json() {
        let body = request(None).body("m", TokenLimit::MaxTokens).unwrap();
        let expected = json!({
            "model": "m", "messages": [{"role": "user", "content": "What is it?"}],
            "max_tokens": 16, "temperature": 0, "stream": false,
        });
        assert_eq!(body, expected);
        let seeing = ChatRequest {
            system: Some("Be brief."),
            ..request(Some(b"\xff\xd8\xff\xe0"))
        };
        let body = seeing.body("m", TokenLimit::MaxCompletionTokens).unwrap();
        assert_eq!(body["messages"][0]["content"], "Be brief.");
        let content = &body["messages"][1]["content"];
        assert_eq!(
            content[0]["image_url"]["url"],
            "data:image/jpeg;base64,/9j/4A=="
        );
        assert_eq!(content[1]["text"], "What is it?");
        assert_eq!(body["max_completion_tokens"], 16);
        let error = request(Some(b"text")).body("m", TokenLimit::MaxTokens);
        assert!(matches!(error, Err(EndpointError::Picture)));
    }

    #[test]
    fn forms_of_answers_and_what_was_said_before() {
        let body = |form| {
            let before = [Exchange {
                answer: "Sure!".to_owned(),
                reply: "JSON only.".to_owned(),
            }];
            request(None)
                .body_of_form("m", TokenLimit::MaxTokens, form, &before)
                .unwrap()
        };
        let plain = body(AnswerForm::Text);
        assert_eq!(plain.get("response_format"), None);
        assert_eq!(plain["messages"][1]["role"], "assistant");
        assert_eq!(plain["messages"][2]["content"], "JSON only.");
        let object = body(AnswerForm::Object);
        assert_eq!(object["response_format"]["type"], "json_object");
        let schema = json!({"type": "object"});
        let schema = body(AnswerForm::Schema {
            name: "topics",
            schema: &schema,
        });
        let format = &schema["response_format"]["json_schema"];
        assert_eq!(
            (&format["name"], &format["strict"]),
            (&json!("topics"), &json!(true))
        );
    }

    #[test]
    fn kinds_of_pictures() {
        assert_eq!(media_type(b"RIFF1234WEBPVP8"), Some("image/webp"));
        assert_eq!(media_type(b"RIFF1234WAVE"), None);
        assert_eq!(media_type(b""), None);
        assert!(takes_picture(b"GIF89a") && !takes_picture(b"II*\0"));
    }

    #[test]
    fn answers_from_json() {
        let text = |content: Value| {
            let body = json!({
                "choices": [{"message": {"content": content}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 7, "completion_tokens": 2},
            });
            read_answer(&body.to_string(), 1).unwrap()
        };
        let answer = text(json!(" a cat\n"));
        assert_eq!(answer.text, "a cat");
        assert_eq!(
            (answer.prompt_tokens, answer.completion_tokens),
            (Some(7), Some(2))
        );
        let parts = json!([{"type": "text", "text": "a "}, {"type": "other"}, {"text": "cat"}]);
        assert_eq!(text(parts).text, "a cat");
        assert_eq!(text(Value::Null).text, "");
        assert_eq!(
            read_answer("{\"choices\": []}", 1).unwrap_err(),
            "`choices` is empty"
        );
        assert!(read_answer("<html>", 1).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn damaged_answers_never_panic(at in 0usize..100, byte: u8, cut in 0usize..100) {
            let body = r#"{"choices": [{"message": {"content": "a"}, "finish_reason": null}]}"#;
            let mut bytes = body.as_bytes().to_vec();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(length - cut % length);
            let _ = read_answer(&String::from_utf8_lossy(&bytes), 1);
        }
    }
}
