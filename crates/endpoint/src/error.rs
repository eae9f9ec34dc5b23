//! What can go wrong between a question and a served model's answer.

use std::time::Duration;

/// A served model gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The address cannot be used.
    #[error("`{url}` is no address of an endpoint; wanted such as `http://localhost:8000/v1`")]
    Address {
        /// What was given.
        url: String,
    },
    /// The environment has no key.
    #[error("the environment variable `{variable}` holds no key for the endpoint; set it")]
    NoKey {
        /// The variable that was named.
        variable: String,
    },
    /// A setting is out of range.
    #[error("cannot use the endpoint: `{option}` is {found}, wanted {wanted}")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        wanted: &'static str,
    },
    /// A picture is of no format that endpoints take.
    #[error("cannot send the picture: it is no PNG, JPEG, GIF, WebP or BMP")]
    Picture,
    /// Nobody answered, or too late.
    #[error("no answer from `{url}` in {attempts} attempts: {reason}")]
    Connection {
        /// Where.
        url: String,
        /// How often it was tried.
        attempts: u32,
        /// What happened the last time.
        reason: String,
    },
    /// The server refused the request.
    #[error("`{url}` answered with status {status} in attempt {attempts}: {body}")]
    Status {
        /// Where.
        url: String,
        /// The status of HTTP.
        status: u16,
        /// How often it was tried.
        attempts: u32,
        /// The beginning of what the server says.
        body: String,
    },
    /// The answer is not one of a chat.
    #[error("`{url}` answered, but not as a chat: {problem}")]
    Protocol {
        /// Where.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl EndpointError {
    /// Whether another attempt could succeed.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Connection { .. } => true,
            Self::Status { status, .. } => {
                matches!(status, 408 | 409 | 425 | 429) || *status >= 500
            }
            _ => false,
        }
    }
}

/// A failed attempt.
pub(crate) struct Failure {
    pub error: EndpointError,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
}
