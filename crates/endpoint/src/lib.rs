//! Served models: peers that are judged on the same questions, models that judge, and models that write
//! questions.
//!
//! [`Endpoint`] speaks the chat protocol of OpenAI, which vLLM, SGLang, llama.cpp and most services
//! speak too, with pictures as data URLs and greedy decoding. It blocks, and one endpoint may be used
//! from as many threads as the caller likes. What may pass (too many requests, a server that starts,
//! a dropped connection) is tried again with growing waits. The key comes from an environment variable
//! that the caller names; it is in no message, log or error.
//!
//! Who sends requests by other means, such as a client that archives what it was sent, takes the protocol
//! alone: [`chat_url`], [`key_of`], [`ChatRequest::body`] and [`read_answer`].

mod error;
mod message;

use std::fmt;
use std::io::{self, Read};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

pub use error::EndpointError;
pub use message::{
    AnswerForm, ChatAnswer, ChatRequest, Exchange, TokenLimit, data_url, read_answer, takes_picture,
};

use error::Failure;

/// The longest wait between two attempts.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// How often a wait looks whether it is still wanted.
const LISTEN: Duration = Duration::from_millis(100);

/// The longest answer that is read, in bytes.
const MAX_BODY: u64 = 16 << 20;

/// How much of a refusal is shown, in characters.
const SHOWN: usize = 300;

/// Where a model is served, and how it is asked.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    /// Address, such as `http://localhost:8000/v1`.
    pub url: String,
    /// The model's name on the server.
    pub model: String,
    /// The environment variable that holds the key; none for servers without one.
    pub key_variable: Option<String>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How often a failed attempt is made again.
    pub retries: u32,
    /// How long to wait before the second attempt; each further wait is twice as long, one minute at
    /// most.
    pub first_wait: Duration,
    /// What the server calls the limit of an answer.
    pub token_limit: TokenLimit,
}

impl EndpointOptions {
    /// A model at an address, without key, with two minutes for an answer and five retries.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            model: model.into(),
            key_variable: None,
            timeout: Duration::from_secs(120),
            retries: 5,
            first_wait: Duration::from_secs(1),
            token_limit: TokenLimit::default(),
        }
    }
}

/// A served model.
pub struct Endpoint {
    agent: ureq::Agent,
    url: String,
    key: Option<String>,
    options: EndpointOptions,
}

impl fmt::Debug for Endpoint {
    /// Everything but the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &self.url)
            .field("has_key", &self.key.is_some())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Gets ready; nothing is sent.
    ///
    /// # Errors
    /// If the address cannot be used, or the environment has no key.
    pub fn new(options: EndpointOptions) -> Result<Self, EndpointError> {
        let url = chat_url(&options.url).ok_or_else(|| EndpointError::Address {
            url: options.url.clone(),
        })?;
        if options.timeout.is_zero() {
            return Err(EndpointError::Option {
                option: "timeout",
                found: "0".to_owned(),
                wanted: "more than 0 seconds",
            });
        }
        let key = options.key_variable.as_deref().map(key_of).transpose()?;
        // A redirect would carry the question somewhere that nobody named.
        let agent = ureq::AgentBuilder::new()
            .timeout(options.timeout)
            .redirects(0)
            .build();
        Ok(Self {
            agent,
            url,
            key,
            options,
        })
    }

    /// The model's name on the server.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.options.model
    }

    /// Where requests go.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks, and asks again where that may help.
    ///
    /// # Errors
    /// If the last attempt failed, if the server refuses, or if its answer is not one of a chat.
    pub fn ask(&self, request: &ChatRequest<'_>) -> Result<ChatAnswer, EndpointError> {
        self.ask_unless(request, &|| false)
    }

    /// Asks, and asks again until `given_up` says that nobody wants the answer any more: then the last
    /// failure is all there is. It is heard between attempts and while waiting for the next one.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn ask_unless(
        &self,
        request: &ChatRequest<'_>,
        given_up: &dyn Fn() -> bool,
    ) -> Result<ChatAnswer, EndpointError> {
        let body = request.body(&self.options.model, self.options.token_limit)?;
        let body = body.to_string();
        let mut wait = self.options.first_wait.min(MAX_WAIT);
        let mut attempts = 1;
        loop {
            let failure = match self.attempt(&body, attempts) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if attempts > self.options.retries || !failure.error.may_pass() {
                return Err(failure.error);
            }
            let asked = failure.retry_after.map(|asked| asked.min(MAX_WAIT));
            if !slept(asked.unwrap_or(wait), given_up) {
                return Err(failure.error);
            }
            wait = (2 * wait).min(MAX_WAIT);
            attempts += 1;
        }
    }

    fn attempt(&self, body: &str, attempts: u32) -> Result<ChatAnswer, Failure> {
        let mut request = self.agent.post(&self.url);
        request = request.set("Content-Type", "application/json");
        if let Some(key) = &self.key {
            request = request.set("Authorization", &format!("Bearer {key}"));
        }
        let response = match request.send_string(body) {
            // Without redirects, 3xx comes as a response.
            Ok(response) if response.status() < 300 => response,
            Ok(response) | Err(ureq::Error::Status(_, response)) => {
                return Err(self.refused(response, attempts));
            }
            Err(ureq::Error::Transport(error)) => {
                return Err(self.lost(error.to_string(), attempts));
            }
        };
        let text = match read_limited(response) {
            Ok(text) => text,
            Err(error) => return Err(self.lost(error.to_string(), attempts)),
        };
        read_answer(&text, attempts).map_err(|problem| Failure {
            error: EndpointError::Protocol {
                url: self.url.clone(),
                problem: self.without_key(&problem),
            },
            retry_after: None,
        })
    }

    fn refused(&self, response: ureq::Response, attempts: u32) -> Failure {
        let status = response.status();
        let date = response.header("Date");
        let retry_after = response.header("Retry-After");
        let retry_after = retry_after.and_then(|text| retry_after_of(text, date));
        let body = read_limited(response).unwrap_or_default();
        let body = self.without_key(body.trim());
        Failure {
            error: EndpointError::Status {
                url: self.url.clone(),
                status,
                attempts,
                body: body.chars().take(SHOWN).collect(),
            },
            retry_after,
        }
    }

    fn lost(&self, reason: String, attempts: u32) -> Failure {
        Failure {
            error: EndpointError::Connection {
                url: self.url.clone(),
                attempts,
                reason: self.without_key(&reason),
            },
            retry_after: None,
        }
    }

    /// Servers may repeat what they were sent.
    fn without_key(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(key.as_str(), "(key)"),
            None => text.to_owned(),
        }
    }
}

/// Waits; `false` if the wait was given up.
fn slept(wait: Duration, given_up: &dyn Fn() -> bool) -> bool {
    let end = Instant::now() + wait;
    loop {
        if given_up() {
            return false;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(LISTEN));
    }
}

fn read_limited(response: ureq::Response) -> io::Result<String> {
    let mut bytes = Vec::new();
    response
        .into_reader()
        .take(MAX_BODY)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The key that an environment variable holds.
///
/// # Errors
/// [`EndpointError::NoKey`] if it is not set, or holds what cannot stand in a header.
pub fn key_of(variable: &str) -> Result<String, EndpointError> {
    let key = std::env::var(variable).unwrap_or_default();
    let key = key.trim();
    // Anything else cannot stand in a header.
    let usable = !key.is_empty() && key.chars().all(|c| c.is_ascii_graphic());
    usable
        .then(|| key.to_owned())
        .ok_or_else(|| EndpointError::NoKey {
            variable: variable.to_owned(),
        })
}

/// The address of chats: a bare host has them under `/v1`. `None` if `url` is no address.
#[must_use]
pub fn chat_url(url: &str) -> Option<String> {
    service_url(url, "/chat/completions")
}

/// How long a server asks to wait with `Retry-After`, in seconds or as a date (RFC 9110, section 10.2.3). A
/// date counts from the answer's own `Date`, so that clocks need not agree, or else from now; one that is
/// over asks for no wait. `None` if it is neither.
#[must_use]
pub fn retry_after_of(retry_after: &str, date: Option<&str>) -> Option<Duration> {
    let text = retry_after.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let since = date
        .and_then(|date| httpdate::parse_http_date(date.trim()).ok())
        .unwrap_or_else(SystemTime::now);
    Some(until.duration_since(since).unwrap_or_default())
}

/// The address of a service such as `/embeddings`: a bare host has it under `/v1`. `None` if `url` is no
/// address.
#[must_use]
pub fn service_url(url: &str, service: &str) -> Option<String> {
    let url = url.trim().trim_end_matches('/');
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))?;
    let usable = |c: char| c.is_ascii_graphic() && !"?#@\\".contains(c);
    if rest.is_empty() || rest.starts_with('/') || !rest.chars().all(usable) {
        return None;
    }
    Some(match rest.split_once('/') {
        None => format!("{url}/v1{service}"),
        Some(_) if url.ends_with(service) => url.to_owned(),
        Some(_) => format!("{url}{service}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_can_be_given_up() {
        assert!(!slept(Duration::from_secs(1 << 20), &|| true));
        assert!(slept(Duration::ZERO, &|| false));
    }

    #[test]
    fn addresses() {
        for (given, expected) in [
            (
                "http://localhost:8000",
                "http://localhost:8000/v1/chat/completions",
            ),
            (
                "http://localhost:8000/v1/",
                "http://localhost:8000/v1/chat/completions",
            ),
            ("https://h/api/v3", "https://h/api/v3/chat/completions"),
            (
                "https://h/v1/chat/completions",
                "https://h/v1/chat/completions",
            ),
        ] {
            assert_eq!(chat_url(given).as_deref(), Some(expected));
        }
        for wrong in [
            "",
            "localhost:8000",
            "http://",
            "http:///v1",
            "ftp://h",
            "http://u@h",
            "http://a b",
        ] {
            assert_eq!(chat_url(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn waits_are_asked_for_in_seconds_or_until_a_date() {
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        for (asked, seconds) in [
            (" 120 ", Some(120)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:49:39 GMT", Some(2)),
            ("Sun Nov  6 08:49:38 1994", Some(1)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let wait = retry_after_of(asked, date);
            assert_eq!(wait, seconds.map(Duration::from_secs), "{asked}");
        }
        let past = retry_after_of("Sun, 06 Nov 1994 08:49:37 GMT", None);
        assert_eq!(past, Some(Duration::ZERO));
    }

    #[test]
    fn a_key_that_is_not_there_is_an_error() {
        let options = EndpointOptions {
            key_variable: Some("OPABINIA_NO_SUCH_KEY".to_owned()),
            ..EndpointOptions::new("http://localhost", "m")
        };
        let error = Endpoint::new(options).unwrap_err().to_string();
        assert!(
            error.contains("`OPABINIA_NO_SUCH_KEY` holds no key"),
            "{error}"
        );
    }
}
