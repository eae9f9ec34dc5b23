//! What a recipe must not say, checked before anything is read.

use std::collections::BTreeSet;

use crate::recipe::{Decontaminate, Pictures, Ratios, Recipe};
use crate::toml_file::with_nearest;

impl Recipe {
    /// What is wrong with the recipe, if anything is.
    pub(crate) fn complaint(&self) -> Option<String> {
        if self.input.files.is_empty() {
            return Some("`input.files` names no file of samples".to_owned());
        }
        if self.input.decode && self.input.images.is_none() {
            return Some(
                "`input.decode` needs `input.images`, the folder of the pictures".to_owned(),
            );
        }
        if self.output.shard_samples == 0 {
            return Some("`output.shard_samples` must be 1 or more".to_owned());
        }
        if let Some(rule) = self.source.iter().find(|rule| rule.name.is_empty()) {
            return Some(format!(
                "a `source` has no `name` (category {:?})",
                rule.category
            ));
        }
        self.idle_complaint()
            .or_else(|| self.likeness_complaint())
            .or_else(|| self.mix_complaint())
            .or_else(|| self.prompts_complaint())
            .or_else(|| self.rewrite_complaint())
    }

    /// A table that drops nothing is a step that somebody believes in, and may still decode every picture.
    fn idle_complaint(&self) -> Option<String> {
        if let Some(dedup) = &self.dedup
            && !dedup.exact
            && dedup.near.is_none()
        {
            let what = match dedup.pictures {
                Pictures::Path => "`dedup` asks for nothing",
                _ => {
                    "`dedup.pictures` says what makes two pictures the same, but no duplicate is dropped by it"
                }
            };
            return Some(format!(
                "{what}; write `exact = true` to keep equal samples once, `near = 0.8` for texts that are that \
                 alike, or leave `dedup` out"
            ));
        }
        let clean = self.decontaminate.as_ref()?;
        (clean.questions.is_empty() && clean.images.is_empty()).then(|| {
            "`decontaminate` names nothing to keep samples away from; name files of benchmarks in `questions` or \
             folders of their pictures in `images`, or leave `decontaminate` out"
                .to_owned()
        })
    }

    fn likeness_complaint(&self) -> Option<String> {
        let dedup = self.dedup.clone().unwrap_or_default();
        if dedup.near.is_some_and(|near| !(0.5..=1.0).contains(&near)) {
            return Some("`dedup.near` must be 0.5 to 1".to_owned());
        }
        let empty = Decontaminate::default();
        let clean = self.decontaminate.as_ref().unwrap_or(&empty);
        if clean.distance > crate::benchmarks::MAX_DISTANCE {
            return Some("`decontaminate.distance` must be 0 to 3".to_owned());
        }
        let looks = dedup.pictures != Pictures::Path || !clean.images.is_empty();
        match looks && self.input.images.is_none() {
            true => {
                Some("comparing pictures needs `input.images`, the folder they are in".to_owned())
            }
            false => None,
        }
    }

    fn mix_complaint(&self) -> Option<String> {
        let mix = self.mix.as_ref()?;
        let Ratios::Table(ratios) = &mix.ratios else {
            return None;
        };
        let bad = ratios
            .iter()
            .find(|(_, weight)| !(weight.is_finite() && **weight >= 0.0));
        if let Some((name, weight)) = bad {
            return Some(format!(
                "`mix.ratios.{name}` is {weight}; it must be 0 or more"
            ));
        }
        if ratios.values().sum::<f64>() <= 0.0 {
            return Some("`mix.ratios` gives no category a weight".to_owned());
        }
        let stranger = ratios.keys().find(|name| {
            !self.categories.is_empty() && !self.categories.iter().any(|known| known == *name)
        })?;
        Some(with_nearest(
            &format!("`mix.ratios` names `{stranger}`, which is not in `categories`"),
            stranger,
            self.categories.iter().map(String::as_str),
        ))
    }

    fn rewrite_complaint(&self) -> Option<String> {
        let table = self.rewrite.as_ref()?;
        if opabinia_endpoint::chat_url(&table.url).is_none() {
            return Some(format!(
                "`rewrite.url` is \"{}\"; it must be an address such as `http://localhost:8000/v1`",
                table.url
            ));
        }
        if table.model.is_empty() {
            return Some("`rewrite.model` names no model".to_owned());
        }
        let counts = [table.max_words, table.max_tokens, table.concurrency];
        (counts.contains(&0) || table.timeout_seconds == 0).then(|| {
            "`max_words`, `max_tokens`, `concurrency` and `timeout_seconds` of `rewrite` must be 1 or more"
                .to_owned()
        })
    }

    fn prompts_complaint(&self) -> Option<String> {
        let prompts = self.prompts.as_ref()?;
        let known: BTreeSet<&str> = prompts.prompt.iter().map(|p| p.name.as_str()).collect();
        if known.len() < prompts.prompt.len() {
            return Some("two format prompts have the same `name`".to_owned());
        }
        if let Some(empty) = prompts.prompt.iter().find(|p| p.text.trim().is_empty()) {
            return Some(format!("the format prompt `{}` has no text", empty.name));
        }
        let ruled = self
            .source
            .iter()
            .map(|rule| (rule.name.as_str(), &rule.prompts));
        let named = prompts
            .sources
            .iter()
            .map(|(name, list)| (name.as_str(), list));
        let asked = ruled.chain(named);
        let mut asked =
            asked.flat_map(|(source, list)| list.iter().map(move |name| (source, name)));
        let (source, name) = asked.find(|(_, name)| !known.contains(name.as_str()))?;
        Some(with_nearest(
            &format!(
                "the source `{source}` asks for the format prompt `{name}`, which is not there"
            ),
            name,
            known.into_iter(),
        ))
    }
}
