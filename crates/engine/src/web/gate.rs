//! Rates and concurrency per host, shared by all workers.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::plan::{Rate, WebTable};

/// Lets requests to each host through at its rate.
pub(super) struct Gate {
    default: Rate,
    hosts: HashMap<String, Rate>,
    states: Mutex<HashMap<String, State>>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    active: usize,
    /// No request begins before.
    next: Option<Instant>,
    /// Requests that failed in a row.
    failed: u32,
}

/// One request under way.
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    host: String,
}

impl Gate {
    pub(super) fn new(web: &WebTable) -> Self {
        Self {
            default: Rate {
                per_second: web.per_second,
                concurrent: web.concurrent,
            },
            hosts: web.hosts.clone().into_iter().collect(),
            states: Mutex::default(),
            freed: Condvar::new(),
        }
    }

    fn states(&self) -> std::sync::MutexGuard<'_, HashMap<String, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place and for the host's time. `stop` is asked now and then.
    pub(super) fn enter(&self, host: &str, stop: &dyn Fn() -> bool) -> Option<Pass<'_>> {
        let rate = self.hosts.get(host).copied().unwrap_or(self.default);
        let interval = Duration::from_secs_f64(1.0 / rate.per_second);
        let mut states = self.states();
        loop {
            if stop() {
                return None;
            }
            let now = Instant::now();
            let state = states.entry(host.to_owned()).or_default();
            let early = state
                .next
                .map_or(Duration::ZERO, |next| next.saturating_duration_since(now));
            if state.active < rate.concurrent && early.is_zero() {
                state.active += 1;
                state.next = Some(now + interval);
                let host = host.to_owned();
                return Some(Pass { gate: self, host });
            }
            let wait = match early.is_zero() {
                true => Duration::from_millis(100),
                false => early.min(Duration::from_millis(100)),
            };
            let woken = self.freed.wait_timeout(states, wait);
            states = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Nobody asks this host before the time is over.
    pub(super) fn pause(&self, host: &str, wait: Duration) {
        let until = Instant::now() + wait;
        let mut states = self.states();
        let state = states.entry(host.to_owned()).or_default();
        state.next = Some(state.next.map_or(until, |next| next.max(until)));
    }

    /// Notes whether a request succeeded at last; gives the failures in a row.
    pub(super) fn note(&self, host: &str, succeeded: bool) -> u32 {
        let mut states = self.states();
        let state = states.entry(host.to_owned()).or_default();
        state.failed = if succeeded { 0 } else { state.failed + 1 };
        state.failed
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.gate.states().get_mut(&self.host) {
            state.active -= 1;
        }
        self.gate.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_given_back() {
        let web = WebTable {
            concurrent: 1,
            per_second: 1e9,
            ..WebTable::default()
        };
        let gate = Gate::new(&web);
        let never = || false;
        let pass = gate.enter("h", &never).unwrap();
        assert!(gate.enter("h", &|| true).is_none());
        assert!(gate.enter("other", &never).is_some());
        drop(pass);
        assert!(gate.enter("h", &never).is_some());
        assert_eq!(
            [
                gate.note("h", false),
                gate.note("h", false),
                gate.note("h", true)
            ],
            [1, 2, 0]
        );
        // A paused host lets nobody in, whatever the rate: the stop is what ends the wait.
        gate.pause("h", Duration::from_secs(3600));
        let asked = std::cell::Cell::new(0);
        assert!(
            gate.enter("h", &|| {
                asked.set(asked.get() + 1);
                asked.get() > 2
            })
            .is_none()
        );
    }
}
