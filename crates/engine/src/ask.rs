//! Asking the served model for JSON, and not believing it.

use opabinia_endpoint::{AnswerForm, ChatRequest, Exchange, chat_url, key_of, read_answer};
use serde_json::Value;

use crate::error::{EngineError, Failure, Fault};
use crate::outside::{Asker, Outside};
use crate::plan::{LlmTable, Structured};
use crate::web::{Purpose, Request, Secret};

/// Somebody who answers questions in words.
pub(crate) trait Chat: Sync {
    /// An answer, after what was said before.
    fn answer(
        &self,
        wanted: &Wanted<'_>,
        before: &[Exchange],
        outside: &Outside<'_>,
        asker: Asker<'_>,
    ) -> Result<String, Fault>;
}

/// What is wanted of an answer.
pub(crate) struct Wanted<'a> {
    pub name: &'a str,
    pub schema: Value,
    pub text: String,
}

/// A chat endpoint as OpenAI has it, and most servers of models.
pub(crate) struct OpenAi<'a> {
    table: &'a LlmTable,
    url: String,
    secret: Option<Secret>,
}

/// The key of a service from its environment variable; none in a replay, where nobody is asked.
pub(crate) fn bearer(variable: Option<&str>, replay: bool) -> Result<Option<Secret>, EngineError> {
    let key = variable.filter(|_| !replay).map(key_of).transpose()?;
    Ok(key.map(Secret::Bearer))
}

impl<'a> OpenAi<'a> {
    /// `replay`: no key is needed, since nobody is asked.
    pub(crate) fn new(table: &'a LlmTable, replay: bool) -> Result<Self, EngineError> {
        let url =
            chat_url(&table.url).ok_or_else(|| opabinia_endpoint::EndpointError::Address {
                url: table.url.clone(),
            })?;
        Ok(Self {
            table,
            url,
            secret: bearer(table.key_variable.as_deref(), replay)?,
        })
    }
}

impl Chat for OpenAi<'_> {
    fn answer(
        &self,
        wanted: &Wanted<'_>,
        before: &[Exchange],
        outside: &Outside<'_>,
        asker: Asker<'_>,
    ) -> Result<String, Fault> {
        let request = ChatRequest {
            system: Some(SYSTEM),
            picture: None,
            text: &wanted.text,
            max_tokens: self.table.max_tokens,
        };
        let form = match self.table.structured {
            Structured::Schema => AnswerForm::Schema {
                name: wanted.name,
                schema: &wanted.schema,
            },
            Structured::Object => AnswerForm::Object,
            Structured::Words => AnswerForm::Text,
        };
        let body = request.body_of_form(&self.table.model, self.table.token_limit, form, before)?;
        let mut request = Request::get(Purpose::Model, &self.url);
        request.body = Some(body.to_string());
        request.secret = self.secret.clone();
        request.unusable = |body| read_answer(&String::from_utf8_lossy(body), 1).err();
        let answer = outside.fetch(&request, asker)?;
        let said = read_answer(&String::from_utf8_lossy(&answer.body), 1);
        let said = said.map_err(|why| {
            Failure::lasting("answer", format!("`{}` gave no chat: {why}", self.url))
        })?;
        Ok(said.text)
    }
}

/// Asks until `check` is content with an answer, and tells the model what is wrong with the others.
pub(crate) fn ask<T>(
    chat: &dyn Chat,
    outside: &Outside<'_>,
    asker: Asker<'_>,
    wanted: &Wanted<'_>,
    check: impl Fn(&Value) -> Result<T, String>,
) -> Result<T, Fault> {
    let tries = outside.plan.llm.tries;
    let mut before = Vec::new();
    let mut problem = String::new();
    for _ in 0..tries {
        let text = chat.answer(wanted, &before, outside, asker)?;
        let checked = json_in(&text).ok_or_else(|| "it holds no JSON".to_owned());
        match checked.and_then(|value| check(&value)) {
            Ok(value) => return Ok(value),
            Err(why) => problem = why,
        }
        // All of them: a request that repeats an earlier one would be answered by the archive.
        before.push(Exchange {
            answer: text.chars().take(4000).collect(),
            reply: format!(
                "That cannot be used: {problem}. Answer again, with the JSON object alone."
            ),
        });
    }
    let message = format!("no answer of {tries} can be used: {problem}");
    Err(Failure::lasting("answer", message).into())
}

const SYSTEM: &str = "You prepare material that teaches a vision-language model. Answer with one JSON object and nothing else.";

/// The first JSON object or list of a text: alone, in a fence, or between words.
pub(crate) fn json_in(text: &str) -> Option<Value> {
    let holds = |value: &Value| value.is_object() || value.is_array();
    if let Some(value) = serde_json::from_str(text.trim()).ok().filter(holds) {
        return Some(value);
    }
    // Each opening is tried; a bounded number of them, because each may read to the end.
    text.match_indices(['{', '[']).take(64).find_map(|(at, _)| {
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        values.next()?.ok().filter(holds)
    })
}

/// All texts of a value, however it nests: models wrap lists in objects and objects in lists.
pub(crate) fn texts(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Value::String(text) => {
                let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                if !text.is_empty() && text.chars().count() <= 120 {
                    found.push(text);
                }
            }
            Value::Array(list) => open.extend(list.iter().rev()),
            Value::Object(map) => open.extend(map.values().rev()),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_found_where_models_put_it() {
        assert_eq!(json_in("{\"a\": 1}"), Some(json!({"a": 1})));
        assert_eq!(
            json_in("Sure!\n```json\n[\"x\"]\n```\n```json\n{}\n```"),
            Some(json!(["x"]))
        );
        assert_eq!(json_in("a {b} {\"c\": 2} d"), Some(json!({"c": 2})));
        assert_eq!(json_in("nothing [here"), None);
        assert_eq!(
            texts(&json!({"x": {"y": ["a  b", ""]}, "z": [{"t": "c"}]})),
            ["a b", "c"]
        );
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(text in ".{0,80}") {
            let _ = json_in(&text);
        }
    }
}
