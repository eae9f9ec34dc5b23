//! Everything that the engine learns from outside comes through here, once.
//!
//! What was answered, or failed for good, is archived under the hash of the question; asked again, the
//! archive answers. A run is therefore a function of its plan and its archive, and a replay is a run with
//! an archive and without a web.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::error::{Fault, Stop};
use crate::plan::Plan;
use crate::store::{Archived, Cost, Store};
use crate::web::{Answer, Attempt, Client, Purpose, Request};

/// No answer has more tokens, whatever a server says.
const MOST_TOKENS: u64 = 1 << 32;

/// The web behind an archive, or the archive alone.
pub(crate) struct Outside<'a> {
    pub plan: &'a Plan,
    pub store: &'a Store,
    pub source: Source<'a>,
    pub refresh: bool,
    reserved: Mutex<Cost>,
}

/// Where answers come from that the run does not have.
pub(crate) enum Source<'a> {
    Web(Client<'a>),
    /// The archive of another run.
    Recording(&'a Store),
}

/// Who asks.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub stage: &'a str,
    pub job: &'a str,
}

impl<'a> Outside<'a> {
    pub(crate) fn new(plan: &'a Plan, store: &'a Store, source: Source<'a>, refresh: bool) -> Self {
        Self {
            plan,
            store,
            source,
            refresh,
            reserved: Mutex::default(),
        }
    }

    pub(crate) fn fetch(&self, request: &Request, asker: Asker<'_>) -> Result<Answer, Fault> {
        let key = request.key();
        let mut request = request.clone();
        let mut known = None;
        match self.store.archived(&key)? {
            Some(Archived::Answer(answer)) => {
                // What was posted, to a model or to an encoder pair, is no page that may change.
                let volatile = request.body.is_none();
                if !(self.refresh && volatile) {
                    return Ok(answer);
                }
                request.known = Some(answer.validators.clone());
                known = Some(answer);
            }
            Some(Archived::Failure(failure)) => return Err(failure.into()),
            None => {}
        }
        let reserved = self.reserve(&request)?;
        let fetched = self.ask_source(&key, &request, asker);
        let estimate = reserved.unwrap_or_default();
        let done = self.keep(&key, &request, asker, fetched, known, estimate);
        self.release(estimate);
        done
    }

    fn ask_source(&self, key: &str, request: &Request, asker: Asker<'_>) -> Result<Answer, Fault> {
        match &self.source {
            Source::Recording(recording) => match recording.archived(key)? {
                Some(Archived::Answer(answer)) => Ok(answer),
                Some(Archived::Failure(failure)) => Err(failure.into()),
                None => Err(Fault::Unrecorded),
            },
            Source::Web(client) => client.fetch(request, &|attempt| {
                let number = self.store.note(asker.stage, asker.job, &attempt)?;
                match request.purpose {
                    Purpose::Model => self.book_rejected(key, asker, number, &attempt),
                    _ => Ok(()),
                }
            }),
        }
    }

    /// Books an answer of the model that cannot be used, if it says what it cost, and refuses another
    /// attempt that could go beyond the budget: what is reserved for it was reserved for this one.
    fn book_rejected(
        &self,
        key: &str,
        asker: Asker<'_>,
        number: i64,
        attempt: &Attempt,
    ) -> Result<(), Fault> {
        let Some((tokens_in, tokens_out)) = attempt.rejected.as_deref().and_then(usage) else {
            return Ok(());
        };
        let cost = self.priced(tokens_in, tokens_out);
        let reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        // A name of its own: the answer that may come yet is booked under the key.
        let name = format!("{key} attempt {number}");
        self.store.charge(&name, asker.stage, cost, false)?;
        self.check_budget(&reserved, Cost::default())
    }

    fn keep(
        &self,
        key: &str,
        request: &Request,
        asker: Asker<'_>,
        fetched: Result<Answer, Fault>,
        known: Option<Answer>,
        estimate: Cost,
    ) -> Result<Answer, Fault> {
        let shown = match &request.body {
            Some(body) => format!("POST {}\n{body}", request.url),
            None => format!("GET {}", request.url),
        };
        match fetched {
            Ok(answer) if answer.unchanged => known.ok_or(Fault::Unrecorded),
            Ok(answer) => {
                if request.purpose == Purpose::Model {
                    let (cost, estimated) = self.cost(&answer, estimate);
                    self.store.charge(key, asker.stage, cost, estimated)?;
                }
                self.store.archive(key, &shown, Ok(&answer))?;
                Ok(answer)
            }
            // What cannot be asked for just now still is what it was.
            Err(Fault::Failed(failure)) if failure.transient && known.is_some() => {
                known.ok_or_else(|| failure.into())
            }
            Err(Fault::Failed(failure)) => {
                self.store.archive(key, &shown, Err(&failure))?;
                Err(failure.into())
            }
            Err(other) => Err(other),
        }
    }

    /// What an answer of the model cost; by the length of its texts, if the server does not say.
    fn cost(&self, answer: &Answer, estimate: Cost) -> (Cost, bool) {
        let body = String::from_utf8_lossy(&answer.body);
        let said = opabinia_endpoint::read_answer(&body, 1).ok();
        let usage = said.as_ref().and_then(|said| {
            let limited = |tokens: u64| tokens.min(MOST_TOKENS);
            Some((
                limited(said.prompt_tokens?),
                limited(said.completion_tokens?),
            ))
        });
        let (tokens_in, tokens_out) = usage.unwrap_or_else(|| {
            let words = said.as_ref().map_or(0, |said| said.text.len() as u64);
            (estimate.tokens_in, words.div_ceil(3))
        });
        (self.priced(tokens_in, tokens_out), usage.is_none())
    }

    fn priced(&self, tokens_in: u64, tokens_out: u64) -> Cost {
        let llm = &self.plan.llm;
        Cost {
            requests: 1,
            tokens_in,
            tokens_out,
            money: (tokens_in as f64 * llm.price_in + tokens_out as f64 * llm.price_out) / 1e6,
        }
    }

    /// Refuses what could go beyond the budget, counting what others are just asking and the longest answer.
    /// Three bytes count as a token, which is more than tokenizers make of prose.
    fn reserve(&self, request: &Request) -> Result<Option<Cost>, Fault> {
        if request.purpose != Purpose::Model || matches!(self.source, Source::Recording(_)) {
            return Ok(None);
        }
        let bytes = request.body.as_deref().unwrap_or_default().len() as u64;
        let estimate = self.priced(bytes.div_ceil(3), self.plan.llm.max_tokens as u64);
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_budget(&reserved, estimate)?;
        reserved.requests += 1;
        reserved.tokens_in += estimate.tokens_in;
        reserved.tokens_out += estimate.tokens_out;
        reserved.money += estimate.money;
        Ok(Some(estimate))
    }

    /// Refuses to ask for `more`, if that and what is spent and reserved may be more than the budget.
    fn check_budget(&self, reserved: &Cost, more: Cost) -> Result<(), Fault> {
        let spent = self.store.spent(None)?;
        let tokens = |cost: &Cost| cost.tokens_in + cost.tokens_out;
        let budget = &self.plan.budget;
        let stop = |what, spent: String, limit: String| {
            Err(Fault::Stop(Stop::Budget { what, spent, limit }))
        };
        if let Some(limit) = budget
            .tokens
            .filter(|limit| tokens(&spent) + tokens(reserved) + tokens(&more) > *limit)
        {
            return stop("tokens", tokens(&spent).to_string(), limit.to_string());
        }
        if let Some(limit) = budget
            .requests
            .filter(|limit| spent.requests + reserved.requests + more.requests > *limit)
        {
            return stop("requests", spent.requests.to_string(), limit.to_string());
        }
        if let Some(limit) = budget
            .money
            .filter(|limit| spent.money + reserved.money + more.money > *limit)
        {
            return stop("money", format!("{:.4}", spent.money), limit.to_string());
        }
        Ok(())
    }

    fn release(&self, estimate: Cost) {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        reserved.requests -= estimate.requests;
        reserved.tokens_in -= estimate.tokens_in;
        reserved.tokens_out -= estimate.tokens_out;
        reserved.money = (reserved.money - estimate.money).max(0.0);
    }
}

/// Tokens that were read and written, as an answer says that holds no words; `None` if it says neither.
fn usage(body: &[u8]) -> Option<(u64, u64)> {
    let said: Value = serde_json::from_slice(body).ok()?;
    let tokens = |name: &str| said["usage"][name].as_u64();
    let (read, written) = (tokens("prompt_tokens"), tokens("completion_tokens"));
    let limited = |tokens: Option<u64>| tokens.unwrap_or(0).min(MOST_TOKENS);
    (read.is_some() || written.is_some()).then(|| (limited(read), limited(written)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_where_nothing_was_said() {
        let of = |text: &str| usage(text.as_bytes());
        let both = r#"{"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}"#;
        assert_eq!(of(both), Some((100, 10)));
        assert_eq!(of(r#"{"usage": {"prompt_tokens": 7}}"#), Some((7, 0)));
        let absurd = format!(r#"{{"usage": {{"completion_tokens": {}}}}}"#, u64::MAX);
        assert_eq!(of(&absurd), Some((0, MOST_TOKENS)));
        for nothing in [
            "",
            "<p>busy",
            "[]",
            r#"{"usage": null}"#,
            r#"{"usage": {"prompt_tokens": -1}}"#,
        ] {
            assert_eq!(of(nothing), None, "{nothing}");
        }
    }
}
