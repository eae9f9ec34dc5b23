//! What values of a plan are refused.

use super::{Finder, Plan};

impl Plan {
    /// What is wrong with a value, with its key.
    pub(super) fn complaint(&self) -> Option<String> {
        let say = |key: &str, wanted: &str| Some(format!("`{key}` must be {wanted}"));
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let positive = |value: f64| value.is_finite() && value > 0.0;
        // A name is part of paths and of identifiers.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || self.name.starts_with('.') || !self.name.chars().all(plain) {
            return say("name", "letters, digits, `-`, `_` and `.`");
        }
        if opabinia_endpoint::chat_url(&self.llm.url).is_none() {
            return say("llm.url", "an address such as `http://localhost:8000/v1`");
        }
        if self.llm.model.is_empty() {
            return say("llm.model", "the name of a model");
        }
        if self.llm.tries == 0 || self.llm.max_tokens == 0 {
            return say("llm.tries` and `llm.max_tokens", "above 0");
        }
        if !(1e-6..1e6).contains(&self.llm.timeout_seconds) {
            return say("llm.timeout_seconds", "above 0, and below a million");
        }
        let price = |price: f64| price.is_finite() && price >= 0.0;
        if !price(self.llm.price_in) || !price(self.llm.price_out) {
            return say("llm.price_in` and `llm.price_out", "0 or more");
        }
        if self.budget.money.is_some_and(|money| !price(money)) {
            return say("budget.money", "0 or more");
        }
        if self.budget.money.is_some() && self.llm.price_in + self.llm.price_out == 0.0 {
            return say(
                "llm.price_in` and `llm.price_out",
                "given where `budget.money` is",
            );
        }
        let on_the_web = |text: &str| {
            url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
        };
        if !on_the_web(&self.wiki.api) {
            return say(
                "wiki.api",
                "an address such as `https://en.wikipedia.org/w/api.php`",
            );
        }
        if !(1..=10).contains(&self.search.results) {
            return say("search.results", "1 to 10");
        }
        if self.search.provider == Finder::Google && self.search.google_engine.is_empty() {
            return say("search.google_engine", "the identifier of a search engine");
        }
        if self.search.provider == Finder::Google && !on_the_web(&self.search.google_url) {
            return say("search.google_url", "an address with http or https");
        }
        if let Some(pair) = &self.agreement {
            if opabinia_endpoint::service_url(&pair.url, "/embeddings").is_none() {
                return say(
                    "agreement.url",
                    "an address such as `http://localhost:7997/v1`",
                );
            }
            if pair.model.is_empty() {
                return say("agreement.model", "the name of an encoder pair");
            }
            let cosine = |value: f64| (-1.0..=1.0).contains(&value);
            if !cosine(pair.min_caption) || !cosine(pair.min_question) {
                return say(
                    "agreement.min_caption` and `agreement.min_question",
                    "-1 to 1",
                );
            }
        }
        if self.topics.subfields == 0 || self.topics.topics == 0 {
            return say("topics.subfields` and `topics.topics", "1 or more");
        }
        if self.questions.per_picture == 0 || self.questions.max_pictures == 0 {
            return say(
                "questions.per_picture` and `questions.max_pictures",
                "1 or more",
            );
        }
        if !share(self.filters.max_leak) {
            return say("filters.max_leak", "0 to 1");
        }
        if !(self.pictures.max_aspect.is_finite() && self.pictures.max_aspect >= 1.0) {
            return say("pictures.max_aspect", "1 or more");
        }
        let line = |c: char| !c.is_control() && c.is_ascii();
        if self.web.contact.trim().is_empty() || !self.web.contact.chars().all(line) {
            return say(
                "web.contact",
                "a mail address or a page: hosts want to know whom to reach",
            );
        }
        let web = &self.web;
        let rates = web
            .hosts
            .values()
            .map(|rate| (rate.per_second, rate.concurrent));
        for (per_second, concurrent) in rates.chain([(web.per_second, web.concurrent)]) {
            if !(1e-6..=1e9).contains(&per_second) || concurrent == 0 {
                return say(
                    "per_second` and `concurrent",
                    "above 0: a millionth per second is the least",
                );
            }
        }
        let waits = [
            web.timeout_seconds,
            web.first_wait_seconds,
            web.longest_wait_seconds,
        ];
        if !waits.into_iter().all(|wait| positive(wait) && wait < 1e6) {
            return say("web`'s seconds `", "above 0");
        }
        if !(1..=64).contains(&web.workers) || web.give_up_after == 0 {
            return say(
                "web.workers` and `web.give_up_after",
                "1 or more (64 workers at most)",
            );
        }
        if self.fields.is_empty() || self.fields.iter().any(|field| field.name.trim().is_empty()) {
            return say("fields", "at least one, each with a name");
        }
        None
    }
}
