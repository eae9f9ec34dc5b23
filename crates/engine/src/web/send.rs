//! One attempt: one request, one answer, with limits on everything, and what a status means.

use std::error::Error;
use std::io::Read;
use std::time::Duration;

use opabinia_endpoint::retry_after_of;
use url::Url;

use super::address::public_only;
use super::{Answer, Purpose, Request, Secret, Validators};
use crate::error::Failure;
use crate::plan::Plan;

/// Our product's name, in robots.txt too.
pub(super) const AGENT: &str = "opabinia";

/// A failed attempt.
pub(super) struct Failed {
    pub failure: Failure,
    /// What is to be done about it.
    pub then: Then,
}

/// What is to be done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Another attempt, after a wait; the host may ask for one.
    Again(Option<Duration>),
    /// Nothing in this run.
    Leave,
    /// A service that the plan names will say no to everything else too.
    Stop,
}

impl From<Failure> for Failed {
    /// What may pass is attempted again.
    fn from(failure: Failure) -> Self {
        let then = match failure.transient {
            true => Then::Again(None),
            false => Then::Leave,
        };
        Self { failure, then }
    }
}

/// What one attempt gave.
pub(super) enum Given {
    Answer(Answer),
    Redirect(String),
}

/// What an attempt saw, whatever it gave.
#[derive(Default)]
pub(super) struct Seen {
    /// Of HTTP; 0 if there was no answer.
    pub status: u16,
    /// Body of an answer with status 200 that cannot be used.
    pub rejected: Option<Vec<u8>>,
}

/// Sends requests.
pub(super) struct Sender<'a> {
    plan: &'a Plan,
    /// For services that the plan names.
    trusted: ureq::Agent,
    /// For what anybody's page names.
    public: ureq::Agent,
    user_agent: String,
}

impl<'a> Sender<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        // Redirects are followed by hand, because each of them has to be judged.
        let agent = || ureq::AgentBuilder::new().redirects(0);
        Self {
            plan,
            trusted: agent().build(),
            public: match plan.web.private_addresses {
                true => agent().build(),
                false => agent().resolver(public_only).build(),
            },
            user_agent: format!(
                "{AGENT}/{} ({})",
                env!("CARGO_PKG_VERSION"),
                plan.web.contact.trim()
            ),
        }
    }

    pub(super) fn send(
        &self,
        request: &Request,
        url: &Url,
        seen: &mut Seen,
    ) -> Result<Given, Failed> {
        let clean = |text: String| without_secret(text, request.secret.as_ref());
        let response = match self.prepared(request, url) {
            Ok(response) | Err(ureq::Error::Status(_, response)) => response,
            Err(ureq::Error::Transport(error)) => {
                let message = format!("no answer from `{}`: {}", request.url, clean(told(&error)));
                return Err(Failure::passing("connection", message).into());
            }
        };
        seen.status = response.status();
        match response.status() {
            304 if request.known.is_some() => Ok(Given::Answer(Answer {
                unchanged: true,
                ..Answer::default()
            })),
            301 | 302 | 303 | 307 | 308 => {
                let to = response.header("Location").unwrap_or_default();
                let to = url.join(to).map_err(|error| {
                    Failure::lasting(
                        "redirect",
                        format!("`{}` redirects to no address: {error}", request.url),
                    )
                })?;
                Ok(Given::Redirect(to.into()))
            }
            200 => {
                let answer = read(response, request, self.limit(request.purpose))?;
                match (request.unusable)(&answer.body) {
                    None => Ok(Given::Answer(answer)),
                    Some(why) => {
                        seen.rejected = Some(answer.body);
                        let message =
                            format!("`{}` gave no usable answer: {}", request.url, clean(why));
                        Err(Failure::passing("busy", message).into())
                    }
                }
            }
            other => {
                let date = response.header("Date");
                let asked = response
                    .header("Retry-After")
                    .and_then(|text| retry_after_of(text, date));
                let mut text = Vec::new();
                let _ = response.into_reader().take(300).read_to_end(&mut text);
                let text = clean(String::from_utf8_lossy(&text).into_owned());
                let message = format!(
                    "`{}` answered with status {other}: {}",
                    request.url,
                    text.trim()
                );
                Err(judge(request.purpose, other, message, asked))
            }
        }
    }

    /// What anybody's page names is limited as the plan says; so are answers of services.
    fn limit(&self, purpose: Purpose) -> u64 {
        match purpose {
            Purpose::Picture => self.plan.pictures.max_bytes,
            _ => self.plan.web.max_page_bytes,
        }
    }

    #[expect(clippy::result_large_err, reason = "ureq's own error")]
    fn prepared(&self, request: &Request, url: &Url) -> Result<ureq::Response, ureq::Error> {
        let (agent, seconds) = match request.purpose {
            Purpose::Model => (&self.trusted, self.plan.llm.timeout_seconds),
            Purpose::Service => (&self.trusted, self.plan.web.timeout_seconds),
            Purpose::Page | Purpose::Picture => (&self.public, self.plan.web.timeout_seconds),
        };
        let mut address = url.clone();
        if let Some(Secret::Query(key)) = &request.secret {
            address.query_pairs_mut().append_pair("key", key);
        }
        let method = if request.body.is_some() {
            "POST"
        } else {
            "GET"
        };
        let mut sent = agent
            .request_url(method, &address)
            .timeout(Duration::from_secs_f64(seconds))
            .set("User-Agent", &self.user_agent);
        // Pictures are packed already.
        if request.purpose != Purpose::Picture {
            sent = sent.set("Accept-Encoding", "gzip");
        }
        if let Some(Secret::Bearer(key)) = &request.secret {
            sent = sent.set("Authorization", &format!("Bearer {key}"));
        }
        if let Some(known) = &request.known {
            if let Some(etag) = &known.etag {
                sent = sent.set("If-None-Match", etag);
            }
            if let Some(date) = &known.last_modified {
                sent = sent.set("If-Modified-Since", date);
            }
        }
        match &request.body {
            // A server that knows the header answers a repeated request without counting it twice.
            Some(body) => sent
                .set("Content-Type", "application/json")
                .set("Idempotency-Key", &request.key())
                .send_string(body),
            None => sent.call(),
        }
    }
}

/// What to do about a status that is no answer.
fn judge(purpose: Purpose, status: u16, message: String, asked: Option<Duration>) -> Failed {
    let named = matches!(purpose, Purpose::Service | Purpose::Model);
    match status {
        408 | 425 | 429 | 500.. => Failed {
            failure: Failure::passing("status", message),
            then: Then::Again(asked),
        },
        // A wrong key, an unpaid bill, a wrong address or name: the next request fares no better, and jobs
        // must not be lost to it.
        401..=405 if named => Failed {
            failure: Failure::passing("status", message),
            then: Then::Stop,
        },
        // Something about this one request; other settings of the server may do.
        _ if named => Failed {
            failure: Failure::passing("status", message),
            then: Then::Leave,
        },
        _ => Failure::lasting("status", message).into(),
    }
}

/// The words of an error without the address, which may hold a key.
fn told(error: &ureq::Transport) -> String {
    let mut text = error.kind().to_string();
    for more in [
        error.message().map(str::to_owned),
        error.source().map(ToString::to_string),
    ] {
        if let Some(more) = more.filter(|more| !text.contains(more)) {
            text = format!("{text}: {more}");
        }
    }
    text
}

/// Servers and errors may repeat what was sent.
fn without_secret(text: String, secret: Option<&Secret>) -> String {
    let Some(Secret::Bearer(key) | Secret::Query(key)) = secret else {
        return text;
    };
    let encoded: String = url::form_urlencoded::byte_serialize(key.as_bytes()).collect();
    text.replace(key.as_str(), "(key)")
        .replace(&encoded, "(key)")
}

fn read(response: ureq::Response, request: &Request, limit: u64) -> Result<Answer, Failed> {
    let header = |name: &str| response.header(name).map(str::to_owned);
    let too_large = || {
        Failed::from(Failure::lasting(
            "too large",
            format!("`{}` is larger than {limit} bytes", request.url),
        ))
    };
    let mut answer = Answer {
        url: request.url.clone(),
        content_type: header("Content-Type").unwrap_or_default(),
        validators: Validators {
            etag: header("ETag"),
            last_modified: header("Last-Modified"),
        },
        ..Answer::default()
    };
    let declared: Option<u64> = header("Content-Length").and_then(|text| text.parse().ok());
    if declared.is_some_and(|bytes| bytes > limit) {
        return Err(too_large());
    }
    let encoding = header("Content-Encoding")
        .unwrap_or_default()
        .to_ascii_lowercase();
    let reader = response.into_reader();
    let mut reader: Box<dyn Read> = match encoding.as_str() {
        "" | "identity" => reader,
        "gzip" | "x-gzip" => Box::new(flate2::read::MultiGzDecoder::new(reader)),
        other => {
            let message = format!(
                "`{}` is packed as `{other}`, which was not asked for",
                request.url
            );
            return Err(Failure::lasting("encoding", message).into());
        }
    };
    // The limit is on what is unpacked: a small file may unpack to anything.
    let read = reader
        .by_ref()
        .take(limit.saturating_add(1))
        .read_to_end(&mut answer.body);
    read.map_err(|error| {
        Failure::passing(
            "connection",
            format!("`{}` broke off: {error}", request.url),
        )
    })?;
    match answer.body.len() as u64 > limit {
        true => Err(too_large()),
        false => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_means_what_it_means_to_whom_was_asked() {
        let then = |purpose, status| judge(purpose, status, String::new(), None).then;
        assert_eq!(then(Purpose::Picture, 503), Then::Again(None));
        assert_eq!(then(Purpose::Picture, 404), Then::Leave);
        assert_eq!(then(Purpose::Model, 401), Then::Stop);
        assert_eq!(then(Purpose::Model, 400), Then::Leave);
        assert!(
            judge(Purpose::Model, 400, String::new(), None)
                .failure
                .transient
        );
        assert!(
            !judge(Purpose::Page, 403, String::new(), None)
                .failure
                .transient
        );
    }

    #[test]
    fn keys_are_taken_out_however_they_are_written() {
        let secret = Some(Secret::Query("a/b+c".to_owned()));
        assert_eq!(
            without_secret("x a/b+c y a%2Fb%2Bc".to_owned(), secret.as_ref()),
            "x (key) y (key)"
        );
    }
}
