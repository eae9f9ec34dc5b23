//! Requests over HTTP: attempts with waits between them, redirects by hand, limits on everything.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use url::Url;

use super::address::public_only;
use super::gate::Gate;
use super::robots::{MAX_BYTES, Robots};
use super::{Answer, Purpose, Request, Secret, Validators};
use crate::error::{Failure, Fault, Stop};
use crate::plan::Plan;

/// Our product's name in robots.txt.
const AGENT: &str = "opabinia";

/// One attempt, for the state of the run.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub url: String,
    /// Of HTTP; 0 if there was none.
    pub status: u16,
    pub bytes: usize,
    pub milliseconds: u64,
    /// What went wrong.
    pub error: Option<String>,
}

/// The rules of a host, once they were read.
type KnownRobots = Option<Arc<Robots>>;

/// A client with manners.
pub(crate) struct Client<'a> {
    plan: &'a Plan,
    trusted: ureq::Agent,
    public: ureq::Agent,
    gate: Gate,
    robots: Mutex<HashMap<String, Arc<Mutex<KnownRobots>>>>,
    stop: &'a (dyn Fn() -> bool + Sync),
    user_agent: String,
}

/// A failed attempt.
struct Failed {
    failure: Failure,
    /// How long the host asks to wait.
    asked: Option<Duration>,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            asked: None,
        }
    }
}

/// What one attempt gave.
enum Given {
    Answer(Answer),
    Redirect(String),
}

impl<'a> Client<'a> {
    pub(crate) fn new(plan: &'a Plan, stop: &'a (dyn Fn() -> bool + Sync)) -> Self {
        let agent = || ureq::AgentBuilder::new().redirects(0);
        Self {
            plan,
            trusted: agent().build(),
            public: match plan.web.private_addresses {
                true => agent().build(),
                false => agent().resolver(public_only).build(),
            },
            gate: Gate::new(&plan.web),
            robots: Mutex::default(),
            stop,
            user_agent: format!(
                "{AGENT}/{} ({})",
                env!("CARGO_PKG_VERSION"),
                plan.web.contact.trim()
            ),
        }
    }

    /// Asks, follows redirects, and asks again where that may help.
    pub(crate) fn fetch(&self, request: &Request, note: &dyn Fn(Attempt)) -> Result<Answer, Fault> {
        let mut request = request.clone();
        let mut seen = vec![request.url.clone()];
        loop {
            match self.with_retries(&request, note)? {
                Given::Answer(answer) => return Ok(answer),
                Given::Redirect(to) => {
                    if request.body.is_some() || request.secret.is_some() {
                        // It would carry words or a key somewhere that nobody named.
                        return Err(Failure::lasting(
                            "redirect",
                            format!(
                                "`{}` redirects a request that must not be redirected, to `{to}`",
                                request.url
                            ),
                        )
                        .into());
                    }
                    if seen.contains(&to) {
                        return Err(Failure::lasting(
                            "redirect",
                            format!("`{}` redirects in a circle, back to `{to}`", request.url),
                        )
                        .into());
                    }
                    if seen.len() > self.plan.web.redirects as usize {
                        return Err(Failure::lasting(
                            "redirect",
                            format!(
                                "`{}` redirects more than {} times",
                                seen[0], self.plan.web.redirects
                            ),
                        )
                        .into());
                    }
                    seen.push(to.clone());
                    request.url = to;
                    request.known = None;
                }
            }
        }
    }

    fn with_retries(&self, request: &Request, note: &dyn Fn(Attempt)) -> Result<Given, Fault> {
        let url = Url::parse(&request.url).map_err(|error| {
            Failure::lasting(
                "address",
                format!("`{}` is no address: {error}", request.url),
            )
        })?;
        let (true, Some(host)) = (matches!(url.scheme(), "http" | "https"), url.host_str()) else {
            return Err(
                Failure::lasting("address", format!("`{url}` is no address of the web")).into(),
            );
        };
        let host = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        if matches!(request.purpose, Purpose::Page | Purpose::Picture) {
            self.check_robots(&url, &host, note)?;
        }
        let web = &self.plan.web;
        let longest = Duration::from_secs_f64(web.longest_wait_seconds);
        let mut wait = Duration::from_secs_f64(web.first_wait_seconds);
        let mut attempt = 0;
        loop {
            let pass = self
                .gate
                .enter(&host, self.stop)
                .ok_or(Fault::Stop(Stop::Interrupted))?;
            let given = self.attempt(request, &url, note);
            drop(pass);
            let Failed { failure, asked } = match given {
                Ok(given) => {
                    self.gate.note(&host, true);
                    return Ok(given);
                }
                Err(failed) => failed,
            };
            if !failure.transient {
                self.gate.note(&host, true);
                return Err(failure.into());
            }
            // What a host asks for holds for everybody who asks it.
            if let Some(asked) = asked {
                self.gate.pause(&host, asked.min(longest));
            }
            if attempt >= web.retries {
                let times = self.gate.note(&host, false);
                return Err(match times >= web.give_up_after {
                    true => Fault::Stop(Stop::HostDown {
                        host,
                        times,
                        reason: failure.message,
                    }),
                    false => failure.into(),
                });
            }
            attempt += 1;
            self.sleep(
                asked.map_or_else(|| jitter(wait, &request.url, attempt), |a| a.min(longest)),
            )?;
            wait = (2 * wait).min(longest);
        }
    }

    /// Sleeps in pieces, so that somebody who stops the run need not wait.
    fn sleep(&self, wait: Duration) -> Result<(), Fault> {
        let end = Instant::now() + wait;
        loop {
            if (self.stop)() {
                return Err(Fault::Stop(Stop::Interrupted));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    fn check_robots(&self, url: &Url, host: &str, note: &dyn Fn(Attempt)) -> Result<(), Fault> {
        let origin = url.origin().ascii_serialization();
        let cell = {
            let mut all = self.robots.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(origin.clone()).or_default())
        };
        let mut cell = cell.lock().unwrap_or_else(PoisonError::into_inner);
        let robots = match &*cell {
            Some(robots) => Arc::clone(robots),
            None => {
                let robots = Arc::new(self.read_robots(&origin, host, note)?);
                *cell = Some(Arc::clone(&robots));
                robots
            }
        };
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        match robots.allows(&path) {
            true => Ok(()),
            false => Err(Failure::lasting(
                "robots",
                format!("robots.txt of `{origin}` forbids `{path}`"),
            )
            .into()),
        }
    }

    /// A file that is not there allows everything; one that cannot be reached, nothing (RFC 9309,
    /// section 2.3.1).
    fn read_robots(
        &self,
        origin: &str,
        host: &str,
        note: &dyn Fn(Attempt),
    ) -> Result<Robots, Fault> {
        let mut address = format!("{origin}/robots.txt");
        for _ in 0..=self.plan.web.redirects {
            let url = Url::parse(&address)
                .map_err(|error| Failure::lasting("robots", format!("`{address}`: {error}")))?;
            let request = Request::get(Purpose::Page, address.as_str());
            let pass = self
                .gate
                .enter(host, self.stop)
                .ok_or(Fault::Stop(Stop::Interrupted))?;
            let given = self.attempt(&request, &url, note);
            drop(pass);
            match given {
                Ok(Given::Answer(answer)) => {
                    let bytes = &answer.body[..answer.body.len().min(MAX_BYTES)];
                    return Ok(Robots::parse(&String::from_utf8_lossy(bytes), AGENT));
                }
                Ok(Given::Redirect(to)) => address = to,
                Err(failed) if failed.failure.transient => {
                    return Err(Failure::passing(
                        "robots",
                        format!(
                            "robots.txt of `{origin}` cannot be read: {}",
                            failed.failure.message
                        ),
                    )
                    .into());
                }
                Err(failed) if failed.failure.kind == "status" => return Ok(Robots::default()),
                Err(_) => return Ok(Robots::closed()),
            }
        }
        Ok(Robots::default())
    }

    fn attempt(
        &self,
        request: &Request,
        url: &Url,
        note: &dyn Fn(Attempt),
    ) -> Result<Given, Failed> {
        let began = Instant::now();
        let mut status = 0;
        let given = self.send(request, url, &mut status);
        let (bytes, error) = match &given {
            Ok(Given::Answer(answer)) => (answer.body.len(), None),
            Ok(Given::Redirect(_)) => (0, None),
            Err(failed) => (0, Some(failed.failure.message.clone())),
        };
        note(Attempt {
            url: request.url.clone(),
            status,
            bytes,
            milliseconds: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            error,
        });
        given
    }

    fn send(&self, request: &Request, url: &Url, status: &mut u16) -> Result<Given, Failed> {
        let web = &self.plan.web;
        let (agent, seconds, limit) = match request.purpose {
            Purpose::Model => (
                &self.trusted,
                self.plan.llm.timeout_seconds,
                web.max_page_bytes,
            ),
            Purpose::Service => (&self.trusted, web.timeout_seconds, web.max_page_bytes),
            Purpose::Page => (&self.public, web.timeout_seconds, web.max_page_bytes),
            Purpose::Picture => (
                &self.public,
                web.timeout_seconds,
                self.plan.pictures.max_bytes,
            ),
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
        let result = match &request.body {
            // A server that knows the header answers a repeated request without counting it twice.
            Some(body) => sent
                .set("Content-Type", "application/json")
                .set("Idempotency-Key", &request.key())
                .send_string(body),
            None => sent.call(),
        };
        let clean = |text: String| match &request.secret {
            Some(Secret::Bearer(key) | Secret::Query(key)) => text.replace(key.as_str(), "(key)"),
            None => text,
        };
        let response = match result {
            Ok(response) | Err(ureq::Error::Status(_, response)) => response,
            Err(ureq::Error::Transport(error)) => {
                let message = format!(
                    "no answer from `{}`: {}",
                    request.url,
                    clean(error.to_string())
                );
                return Err(Failure::passing("connection", message).into());
            }
        };
        *status = response.status();
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
                let answer = read(response, request, limit)?;
                match (request.busy)(&answer.body) {
                    None => Ok(Given::Answer(answer)),
                    Some(why) => Err(Failure::passing(
                        "busy",
                        format!("`{}` is busy: {}", request.url, clean(why)),
                    )
                    .into()),
                }
            }
            other => {
                let asked = response
                    .header("Retry-After")
                    .and_then(|text| text.trim().parse().ok());
                let mut text = String::new();
                let _ = response.into_reader().take(300).read_to_string(&mut text);
                let message = format!(
                    "`{}` answered with status {other}: {}",
                    request.url,
                    clean(text).trim()
                );
                let failure = match other {
                    408 | 425 | 429 | 500.. => Failure::passing("status", message),
                    _ => Failure::lasting("status", message),
                };
                Err(Failed {
                    failure,
                    asked: asked.map(Duration::from_secs),
                })
            }
        }
    }
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

/// Between half and the whole of a wait: many who wait do not come back at once. Seeded by what is asked.
fn jitter(wait: Duration, url: &str, attempt: u32) -> Duration {
    let digest = Sha256::digest(format!("{attempt} {url}"));
    wait.mul_f64(0.5 + f64::from(digest[0]) / 510.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_vary_within_half_of_their_length() {
        let wait = Duration::from_secs(8);
        for attempt in 0..50 {
            let jittered = jitter(wait, "http://h/", attempt);
            assert!(jittered >= wait / 2 && jittered <= wait, "{jittered:?}");
        }
        assert_eq!(jitter(wait, "a", 1), jitter(wait, "a", 1));
    }
}
