//! The manners of requests: attempts with waits between them, redirects by hand, robots.txt.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use url::Url;

use super::gate::Gate;
use super::robots::{MAX_BYTES, Robots};
use super::send::{AGENT, Failed, Given, Seen, Sender, Then};
use super::{Answer, Purpose, Request};
use crate::error::{Failure, Fault, Stop};
use crate::plan::Plan;

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
    /// Body of an answer with status 200 that cannot be used: a service may have counted it.
    pub rejected: Option<Vec<u8>>,
}

/// Who is told of every attempt, and may end it all.
pub(crate) type Note<'a> = &'a dyn Fn(Attempt) -> Result<(), Fault>;

/// The rules of a host once they were asked for, or why they cannot be read in this run.
type KnownRobots = Option<Result<Arc<Robots>, String>>;

/// A client with manners.
pub(crate) struct Client<'a> {
    plan: &'a Plan,
    sender: Sender<'a>,
    gate: Gate,
    robots: Mutex<HashMap<String, Arc<Mutex<KnownRobots>>>>,
    stop: &'a (dyn Fn() -> bool + Sync),
}

impl<'a> Client<'a> {
    pub(crate) fn new(plan: &'a Plan, stop: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self {
            plan,
            sender: Sender::new(plan),
            gate: Gate::new(&plan.web),
            robots: Mutex::default(),
            stop,
        }
    }

    /// Asks, follows redirects, and asks again where that may help.
    pub(crate) fn fetch(&self, request: &Request, note: Note<'_>) -> Result<Answer, Fault> {
        let mut request = request.clone();
        let mut seen = vec![request.url.clone()];
        loop {
            let to = match self.ask(&request, note)? {
                Given::Answer(answer) => return Ok(answer),
                Given::Redirect(to) => to,
            };
            let from = &request.url;
            let problem = if request.body.is_some() || request.secret.is_some() {
                // It would carry words or a key somewhere that nobody named.
                format!("`{from}` redirects a request that must not be redirected, to `{to}`")
            } else if seen.contains(&to) {
                format!("`{from}` redirects in a circle, back to `{to}`")
            } else if seen.len() > self.plan.web.redirects as usize {
                let most = self.plan.web.redirects;
                format!("`{}` redirects more than {most} times", seen[0])
            } else {
                seen.push(to.clone());
                request.url = to;
                request.known = None;
                continue;
            };
            return Err(Failure::lasting("redirect", problem).into());
        }
    }

    /// Asks one address, if its host has nothing against it.
    fn ask(&self, request: &Request, note: Note<'_>) -> Result<Given, Fault> {
        let (url, host) = place(&request.url)?;
        if matches!(request.purpose, Purpose::Page | Purpose::Picture) {
            self.check_robots(&url, note)?;
        }
        self.persist(request, &url, &host, note)
    }

    /// Attempts until something lasting comes of it.
    fn persist(
        &self,
        request: &Request,
        url: &Url,
        host: &str,
        note: Note<'_>,
    ) -> Result<Given, Fault> {
        let web = &self.plan.web;
        let longest = Duration::from_secs_f64(web.longest_wait_seconds);
        let mut wait = Duration::from_secs_f64(web.first_wait_seconds);
        let mut attempt = 0;
        // Nothing of a run depends on one page or picture, and all of it on the services.
        let is_named = matches!(request.purpose, Purpose::Service | Purpose::Model);
        loop {
            let failures = self.gate.failures(host);
            if !is_named && failures >= web.give_up_after {
                let message =
                    format!("`{host}` failed {failures} times in a row and is left alone");
                return Err(Failure::passing("connection", message).into());
            }
            let pass = self
                .gate
                .enter(host, self.stop)
                .ok_or(Fault::Stop(Stop::Interrupted))?;
            let given = self.attempt(request, url, note)?;
            drop(pass);
            let Failed { failure, then } = match given {
                Ok(given) => {
                    self.gate.note(host, true);
                    return Ok(given);
                }
                Err(failed) => failed,
            };
            let asked = match then {
                Then::Again(asked) => asked,
                Then::Stop => {
                    return Err(Fault::Stop(Stop::Refused {
                        reason: failure.message,
                    }));
                }
                Then::Leave if !is_named => {
                    self.gate.note(host, true);
                    return Err(failure.into());
                }
                Then::Leave => return Err(self.failed(failure, host, is_named)),
            };
            // What a host asks for holds for everybody who asks it.
            if let Some(asked) = asked {
                self.gate.pause(host, asked.min(longest));
            }
            if attempt >= web.retries {
                return Err(self.failed(failure, host, is_named));
            }
            attempt += 1;
            self.sleep(
                asked.map_or_else(|| jitter(wait, &request.url, attempt), |a| a.min(longest)),
            )?;
            wait = (2 * wait).min(longest);
        }
    }

    /// A request failed for good; a service that only fails stops the run.
    fn failed(&self, failure: Failure, host: &str, is_named: bool) -> Fault {
        let times = self.gate.note(host, false);
        match is_named && times >= self.plan.web.give_up_after {
            true => Fault::Stop(Stop::HostDown {
                host: host.to_owned(),
                times,
                reason: failure.message,
            }),
            false => failure.into(),
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

    fn check_robots(&self, url: &Url, note: Note<'_>) -> Result<(), Fault> {
        let origin = url.origin().ascii_serialization();
        let cell = {
            let mut all = self.robots.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(origin.clone()).or_default())
        };
        let known = {
            let mut cell = cell.lock().unwrap_or_else(PoisonError::into_inner);
            match &*cell {
                Some(known) => known.clone(),
                None => {
                    let read = match self.read_robots(&origin, note) {
                        Ok(robots) => Ok(Arc::new(robots)),
                        Err(Fault::Failed(failure)) => Err(failure.message),
                        Err(fault) => return Err(fault),
                    };
                    if let (Ok(robots), Ok((_, host))) = (&read, place(url.as_str())) {
                        let longest = self.plan.web.longest_wait_seconds;
                        let delay = robots.delay().map(|seconds| seconds.min(longest));
                        self.gate.slow(&host, delay.map(Duration::from_secs_f64));
                    }
                    *cell = Some(read.clone());
                    read
                }
            }
        };
        let robots = known.map_err(|why| {
            Failure::passing(
                "robots",
                format!("robots.txt of `{origin}` cannot be read: {why}"),
            )
        })?;
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
    fn read_robots(&self, origin: &str, note: Note<'_>) -> Result<Robots, Fault> {
        let mut address = format!("{origin}/robots.txt");
        for _ in 0..=self.plan.web.redirects {
            let Ok((url, host)) = place(&address) else {
                return Ok(Robots::closed());
            };
            let request = Request::get(Purpose::Page, address.as_str());
            match self.persist(&request, &url, &host, note) {
                Ok(Given::Answer(answer)) => {
                    let bytes = &answer.body[..answer.body.len().min(MAX_BYTES)];
                    return Ok(Robots::parse(&String::from_utf8_lossy(bytes), AGENT));
                }
                Ok(Given::Redirect(to)) => address = to,
                Err(Fault::Failed(failure)) if failure.transient => return Err(failure.into()),
                Err(Fault::Failed(failure)) if failure.kind == "status" => {
                    return Ok(Robots::default());
                }
                Err(Fault::Failed(_)) => return Ok(Robots::closed()),
                Err(fault) => return Err(fault),
            }
        }
        Ok(Robots::default())
    }

    fn attempt(
        &self,
        request: &Request,
        url: &Url,
        note: Note<'_>,
    ) -> Result<Result<Given, Failed>, Fault> {
        let began = Instant::now();
        let mut seen = Seen::default();
        let given = self.sender.send(request, url, &mut seen);
        let (bytes, error) = match &given {
            Ok(Given::Answer(answer)) => (answer.body.len(), None),
            Ok(Given::Redirect(_)) => (0, None),
            Err(failed) => (0, Some(failed.failure.message.clone())),
        };
        note(Attempt {
            url: request.url.clone(),
            status: seen.status,
            bytes,
            milliseconds: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            error,
            rejected: seen.rejected,
        })?;
        Ok(given)
    }
}

/// An address of the web and its host, with the port where it is not the usual one.
fn place(address: &str) -> Result<(Url, String), Failure> {
    let url = Url::parse(address).map_err(|error| {
        Failure::lasting("address", format!("`{address}` is no address: {error}"))
    })?;
    let host = match (matches!(url.scheme(), "http" | "https"), url.host_str()) {
        (true, Some(host)) => host.to_owned(),
        _ => {
            let message = format!("`{address}` is no address of the web");
            return Err(Failure::lasting("address", message));
        }
    };
    let host = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host,
    };
    Ok((url, host))
}

/// Between half and the whole of a wait: many who wait do not come back at once. Seeded by what is asked.
fn jitter(wait: Duration, url: &str, attempt: u32) -> Duration {
    let digest = Sha256::digest(format!("{attempt} {url}"));
    wait.mul_f64(0.5 + f64::from(digest[0]) / 510.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    #[test]
    fn hosts_are_told_by_their_ports() {
        let host = |address| place(address).map(|(_, host)| host).ok();
        assert_eq!(host("https://h:443/a").as_deref(), Some("h"));
        assert_eq!(host("http://h:81/a").as_deref(), Some("h:81"));
        for wrong in ["h", "ftp://h/a", "data:image/png,x", "file:///etc/passwd"] {
            assert_eq!(host(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_address_makes_it_panic(text in "(http|https|ftp|file|data)?:?/{0,3}[a-z0-9.:@\\[\\]%?# é]{0,30}") {
            if let Ok((url, host)) = place(&text) {
                prop_assert!(matches!(url.scheme(), "http" | "https") && !host.is_empty());
            }
        }
    }
}
