//! Who may ask.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::ServeError;
use crate::api::received;
use crate::refusal::Refusal;

/// Of what is sent along with a refused request so much is heard out.
const REFUSED_BYTES: usize = 64 << 20;

/// A key that can be sent in a header.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Takes a text without the white space around it.
    ///
    /// # Errors
    /// [`ServeError::Key`] if it is empty or has other characters than visible ones of ASCII.
    pub fn new(text: &str) -> Result<Self, ServeError> {
        let text = text.trim();
        match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Self(text.to_owned())),
            false => Err(ServeError::Key),
        }
    }
}

/// Nobody reads it in a log.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What is wanted of requests.
pub(crate) struct Guard {
    /// A digest of the key, so that comparing takes the same time however much of it is right.
    key: Option<[u8; 32]>,
    /// Whether whoever is on this machine may ask, and nobody else can reach the server.
    local: bool,
}

impl Guard {
    pub fn new(key: Option<&Key>, address: SocketAddr) -> Self {
        Self {
            key: key.map(|key| digest(&key.0)),
            local: key.is_none() && address.ip().is_loopback(),
        }
    }

    /// Whether a page of somebody else cannot have sent this. A browser sends the name that the page used, and
    /// a name that others have made point here is not one of this machine's.
    fn is_at_home(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        match (self.local, hosts.next(), hosts.next()) {
            (false, ..) => true,
            (true, Some(host), None) => host.to_str().is_ok_and(is_loopback),
            (true, ..) => false,
        }
    }

    fn has_key(&self, headers: &HeaderMap) -> bool {
        let Some(key) = self.key else { return true };
        let given = headers.get(header::AUTHORIZATION);
        let given = given.and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer "));
        given.is_some_and(|given| digest(given.trim()) == key)
    }

    /// Why a request is not let through.
    fn refusal(&self, request: &Request) -> Option<Refusal> {
        let headers = request.headers();
        if !self.is_at_home(headers) {
            return Some(Refusal::client(
                StatusCode::FORBIDDEN,
                "this server is for this machine alone; ask it as `localhost`",
            ));
        }
        // A browser asks before it sends JSON to another site, and gets no leave; the page itself asks for nothing.
        let kind = headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if *request.method() == Method::POST && !kind.eq_ignore_ascii_case("application/json") {
            return Some(Refusal::client(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "`Content-Type` must be application/json",
            ));
        }
        let open = ["/", "/page.css", "/page.js", "/health"];
        if !open.contains(&request.uri().path()) && !self.has_key(headers) {
            return Some(Refusal::client(
                StatusCode::UNAUTHORIZED,
                "this server wants its key, as `Authorization: Bearer KEY`",
            ));
        }
        None
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Whether a `Host` names this machine, with any port or none.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Lets a request through, or not. A client that is still sending would not hear a refusal, so it is heard out first.
pub(crate) async fn guard(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(refusal) = guard.refusal(&request) else {
        return next.run(request).await;
    };
    let _ = received(request.into_body(), 0, REFUSED_BYTES).await;
    refusal.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_can_be_sent() {
        assert_eq!(Key::new(" abc\n").unwrap().0, "abc");
        for text in ["", " ", "a b", "schlüssel"] {
            assert!(Key::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_of_this_machine() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.8.9.1",
            "[::1]:8080",
            "[::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "localhost.evil.test",
            "evil.test:8080",
            "127.0.0.1.evil.test",
            "10.0.0.1",
            "localhost:80x",
            ":8080",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
