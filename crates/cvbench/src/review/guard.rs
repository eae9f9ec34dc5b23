//! Who may talk to the page: the browser of whoever started it, and no other page in that browser.
//!
//! The server listens on this machine alone, but every page that is open in a browser here can send
//! requests to it. So the `Host` must be this server (a name that another page made point here is
//! not), and what changes something must be JSON and come from the page itself. The page may load
//! nothing but its own script, style, pictures and data.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// What is known of a request before its body is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    /// Whether it only reads.
    pub reads: bool,
    /// Its path.
    pub path: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header; with two of a name nobody knows which is meant, so there is none.
    fn header(&self, name: &str) -> Header<'_> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name);
        match (values.next(), values.next()) {
            (None, _) => Header::None,
            (Some((_, value)), None) => Header::One(value),
            (Some(_), Some(_)) => Header::Several,
        }
    }
}

enum Header<'a> {
    None,
    One(&'a str),
    Several,
}

impl Header<'_> {
    /// Whether it is there once and fits.
    fn is(&self, fits: impl Fn(&str) -> bool) -> bool {
        matches!(self, Self::One(value) if fits(value))
    }

    /// Whether it is not there, or once and fits.
    fn may_be(&self, fits: impl Fn(&str) -> bool) -> bool {
        matches!(self, Self::None) || self.is(fits)
    }
}

/// What is allowed.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    hosts: Vec<String>,
    policy: String,
}

impl Guard {
    /// For a server at an address, and a page with this script and style.
    pub fn new(address: SocketAddr, script: &str, style: &str) -> Self {
        let port = address.port();
        let names = ["127.0.0.1", "localhost", "[::1]"];
        let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
        let policy = format!(
            "default-src 'none'; img-src 'self'; connect-src 'self'; script-src 'sha256-{}'; \
             style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(script),
            hash(style)
        );
        Self {
            hosts: names.iter().map(|name| format!("{name}:{port}")).collect(),
            policy,
        }
    }

    /// Why a request is refused, if it is.
    pub fn refuse(&self, head: &Head) -> Option<(u16, &'static str)> {
        let host = head.header("host");
        if !host.is(|host| self.hosts.iter().any(|known| known == host)) {
            return Some((
                403,
                "this page is only for this machine: its name is not known here",
            ));
        }
        if head.reads {
            return None;
        }
        let of_host = |origin: &str| host.is(|host| origin == format!("http://{host}"));
        let origin = head.header("origin").may_be(of_host);
        let site = head.header("sec-fetch-site");
        if !origin || !site.may_be(|site| site == "same-origin" || site == "none") {
            return Some((403, "the request comes from another page"));
        }
        let kind = head.header("content-type");
        let json =
            kind.is(|kind| kind.split(';').next().map(str::trim) == Some("application/json"));
        (!json).then_some((415, "only JSON is understood"))
    }

    /// What the browser is told with every answer.
    pub fn headers(&self) -> [(&'static str, &str); 5] {
        [
            ("Content-Security-Policy", self.policy.as_str()),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reads: bool, headers: &[(&str, &str)]) -> Option<u16> {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let guard = Guard::new(address, "script", "style");
        let headers = headers.iter();
        let head = Head {
            reads,
            path: "/".to_owned(),
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        guard.refuse(&head).map(|(status, _)| status)
    }

    #[test]
    fn only_this_machine_may_read() {
        assert_eq!(refused(true, &[("host", "127.0.0.1:80")]), None);
        assert_eq!(refused(true, &[("host", "localhost:80")]), None);
        assert_eq!(refused(true, &[("host", "evil.example:80")]), Some(403));
        assert_eq!(refused(true, &[("host", "127.0.0.1:81")]), Some(403));
        assert_eq!(refused(true, &[]), Some(403));
        let two = [("host", "127.0.0.1:80"), ("host", "evil.example:80")];
        assert_eq!(refused(true, &two), Some(403));
    }

    #[test]
    fn only_the_page_itself_may_write() {
        let check = |more: &[(&str, &str)]| {
            let known = [
                ("host", "127.0.0.1:80"),
                ("content-type", "application/json"),
            ];
            refused(false, &[&known[..], more].concat())
        };
        assert_eq!(check(&[]), None);
        assert_eq!(check(&[("origin", "http://127.0.0.1:80")]), None);
        assert_eq!(check(&[("origin", "http://evil.example")]), Some(403));
        assert_eq!(check(&[("origin", "http://localhost:80")]), Some(403));
        assert_eq!(check(&[("origin", "null")]), Some(403));
        assert_eq!(check(&[("sec-fetch-site", "cross-site")]), Some(403));
        assert_eq!(refused(false, &[("host", "127.0.0.1:80")]), Some(415));
    }
}
