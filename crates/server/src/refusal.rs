//! Refusals, in the form that clients of OpenAI's API read.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Why a request gets no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    kind: &'static str,
    message: String,
    /// The key of the request that it is about.
    param: Option<String>,
    /// Seconds after which another try makes sense.
    again: Option<u16>,
}

impl Refusal {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            param: None,
            again: None,
        }
    }

    /// The request cannot be understood, or asks for what there is not.
    pub fn request(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..Self::body(message)
        }
    }

    /// A key has another value than it may have.
    pub fn wrong(key: &str, found: &Value, expected: &str) -> Self {
        let found = match found {
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
            Value::String(text) if text.len() > 40 => "a long text".to_owned(),
            other => other.to_string(),
        };
        Self::request(key, format!("`{key}` is {found}, but must be {expected}"))
    }

    /// As [`request`](Self::request), about the whole of it.
    pub fn body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// Another kind of mistake of the client's.
    pub fn client(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, "invalid_request_error", message)
    }

    /// The queue is full.
    pub fn busy(waiting: usize) -> Self {
        let message = format!("{waiting} questions wait already; try again later");
        Self {
            again: Some(5),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded_error", message)
        }
    }

    /// The server is told to end.
    pub fn ending() -> Self {
        let message = "the server is ending";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message)
    }

    /// It is not the client's fault.
    pub fn server(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// `{"error": …}`.
    pub fn json(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": null,
        }})
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.json())).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.again {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let wanted = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, wanted);
        }
        response
    }
}
