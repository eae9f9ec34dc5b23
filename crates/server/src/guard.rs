//! Who may ask.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::refusal::Refusal;

/// What is wanted of requests.
pub(crate) struct Guard {
    /// A digest of the key, so that comparing takes the same time however much of it is right.
    key: Option<[u8; 32]>,
    /// Whether only this machine can reach the server.
    local: bool,
}

impl Guard {
    pub fn new(key: Option<&str>, address: SocketAddr) -> Self {
        Self {
            key: key.map(digest),
            local: address.ip().is_loopback(),
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

/// Lets a request through, or not.
pub(crate) async fn guard(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let (headers, method) = (request.headers(), request.method());
    let refuse = |status, message: &str| Refusal::client(status, message).into_response();
    if !guard.is_at_home(headers) {
        return refuse(
            StatusCode::FORBIDDEN,
            "this server is for this machine alone; ask it as `localhost`",
        );
    }
    // A browser asks before it sends JSON to another site, and gets no leave; the page itself asks for nothing.
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if *method == Method::POST && !kind.eq_ignore_ascii_case("application/json") {
        return refuse(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "`Content-Type` must be application/json",
        );
    }
    let open = ["/", "/page.css", "/page.js", "/health"];
    if !open.contains(&request.uri().path()) && !guard.has_key(headers) {
        return refuse(
            StatusCode::UNAUTHORIZED,
            "this server wants its key, as `Authorization: Bearer KEY`",
        );
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

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
