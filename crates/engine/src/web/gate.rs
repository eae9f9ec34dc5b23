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
    /// Least time between two requests, if the host names one.
    delay: Duration,
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
                state.next = Some(now + interval.max(state.delay));
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

    /// Less often than the plan says, if the host wants it so.
    pub(super) fn slow(&self, host: &str, delay: Option<Duration>) {
        let delay = delay.unwrap_or_default();
        let mut states = self.states();
        let state = states.entry(host.to_owned()).or_default();
        state.delay = delay;
        if !delay.is_zero() {
            // It holds from the request on that asked for the rules.
            let next = Instant::now() + delay;
            state.next = Some(state.next.map_or(next, |known| known.max(next)));
        }
    }

    /// Requests to a host that failed in a row.
    pub(super) fn failures(&self, host: &str) -> u32 {
        self.states().get(host).map_or(0, |state| state.failed)
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
        // A paused host lets nobody in, whatever the rate.
        gate.pause("h", Duration::from_secs(3600));
        assert!(is_shut(&gate, "h"));
    }

    /// Whether nobody is let in before somebody stops the wait.
    fn is_shut(gate: &Gate, host: &str) -> bool {
        let asked = std::cell::Cell::new(0);
        let stop = || {
            asked.set(asked.get() + 1);
            asked.get() > 2
        };
        gate.enter(host, &stop).is_none()
    }

    #[test]
    fn a_rate_lets_one_through_at_a_time() {
        let rate = |per_second| Rate {
            per_second,
            concurrent: 2,
        };
        let mut web = WebTable {
            per_second: 1e9,
            ..WebTable::default()
        };
        web.hosts.insert("slow".to_owned(), rate(1e-4));
        let gate = Gate::new(&web);
        assert!(gate.enter("slow", &|| false).is_some());
        assert!(is_shut(&gate, "slow"));
        assert!(gate.enter("fast", &|| false).is_some());
        assert!(!is_shut(&gate, "fast"));
        // A host may want it slower.
        gate.slow("fast", Some(Duration::from_secs(3600)));
        assert!(is_shut(&gate, "fast"));
    }
}
