//! What a request asks for: the body of OpenAI's `chat/completions`.

use opabinia_model::Generation;
use serde_json::{Map, Value};

use crate::messages::messages;
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
        Some(other) => return Err(Refusal::wrong("stream_options", other, "an object")),
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
            Some(other) => Err(Refusal::wrong(key, other, "true or false")),
        }
    }

    fn number(&self, key: &str) -> Result<Option<f32>, Refusal> {
        let value = self.get(key);
        value
            .map(|value| {
                let number = value.as_f64().map(|number| number as f32);
                number.ok_or_else(|| Refusal::wrong(key, value, "a number"))
            })
            .transpose()
    }

    fn count(&self, key: &str) -> Result<Option<u64>, Refusal> {
        let value = self.get(key);
        value
            .map(|value| {
                let count = value.as_u64().filter(|count| *count > 0);
                count.ok_or_else(|| Refusal::wrong(key, value, "a whole number above 0"))
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
                seed.ok_or_else(|| Refusal::wrong("seed", value, "a whole number"))
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
            .ok_or_else(|| Refusal::wrong("stop", value, &expected))
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

#[cfg(test)]
mod tests;
