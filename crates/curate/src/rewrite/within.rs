//! Short answers written out inside of a curation.
//!
//! It comes last: what is kept is known, and format prompts are in the questions, so that an answer that is
//! asked for in one word stays one. All questions are asked before the first line is copied; copying
//! looks only into the journal, and so a shard is a function of what was kept and of what was answered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use opabinia_data::Place;
use opabinia_endpoint::{Endpoint, EndpointOptions, TokenLimit};
use rayon::prelude::*;

use super::line::Asked;
use super::scribe::{OUT_OF_BUDGET, Scribe};
use super::{GROUP, Rewrite};
use crate::error::CurateError;
use crate::recipe::{Recipe, Rewriting};
use crate::run::Watch;

/// What a recipe says about rewriting, ready to be done.
pub(crate) struct Ready {
    wanted: Rewrite,
    endpoint: Endpoint,
}

impl Ready {
    /// Gets ready; nothing is sent. `None` if the recipe asks for nothing of this kind.
    pub fn of(recipe: &Recipe) -> Result<Option<Self>, CurateError> {
        let Some(table) = &recipe.rewrite else {
            return Ok(None);
        };
        let endpoint = Endpoint::new(options(table)).map_err(|source| CurateError::Author {
            source: Box::new(source),
        })?;
        let prompts = recipe.prompts.as_ref().map(|prompts| &prompts.prompt);
        let wanted = Rewrite {
            files: Vec::new(),
            images: recipe.input.images.clone(),
            // Sources are told by the recipe's rules, before a line comes here.
            sources: Vec::new(),
            max_words: table.max_words,
            prompts: prompts.cloned().unwrap_or_default(),
            max_tokens: table.max_tokens,
            concurrency: table.concurrency,
            budget_tokens: table.budget_tokens,
            budget_requests: table.budget_requests,
            finish: table.finish,
        };
        Ok(Some(Self { wanted, endpoint }))
    }

    /// Opens the journal.
    pub fn open(&self, answers: &Path) -> Result<Within<'_>, CurateError> {
        Ok(Within {
            scribe: Scribe::open(&self.wanted, &self.endpoint, answers)?,
            wanted: &self.wanted,
        })
    }
}

fn options(table: &Rewriting) -> EndpointOptions {
    EndpointOptions {
        key_variable: table.key_variable.clone(),
        timeout: Duration::from_secs(table.timeout_seconds),
        retries: table.retries,
        token_limit: match table.max_completion_tokens {
            true => TokenLimit::MaxCompletionTokens,
            false => TokenLimit::MaxTokens,
        },
        ..EndpointOptions::new(&table.url, &table.model)
    }
}

/// Rewriting under way.
pub(crate) struct Within<'a> {
    scribe: Scribe<'a>,
    wanted: &'a Rewrite,
}

/// What became of the short answers of a shard.
#[derive(Default)]
pub(crate) struct Settled {
    /// By outcome.
    pub counts: BTreeMap<String, u64>,
    /// A line of JSON for each.
    pub text: String,
}

impl Within<'_> {
    fn asked(&self, line: &[u8]) -> Asked {
        // The place is for no message.
        Asked::of(line, Place::new(PathBuf::new(), 0), self.wanted)
    }

    /// Asks about lines, some at a time; `each` hands them to what it is given.
    pub fn ask(
        &self,
        each: impl FnOnce(&mut dyn FnMut(Vec<u8>) -> Result<(), CurateError>) -> Result<(), CurateError>,
        watch: &Watch<'_>,
    ) -> Result<(), CurateError> {
        let mut group: Vec<Vec<u8>> = Vec::new();
        let flush = |group: &mut Vec<Vec<u8>>| -> Result<(), CurateError> {
            watch.check()?;
            let asked: Vec<Asked> = group.par_iter().map(|line| self.asked(line)).collect();
            group.clear();
            let missing = self.scribe.answers(&asked, watch)?;
            let any = missing.iter().flatten().any(Option::is_none);
            match any && !self.wanted.finish {
                true => Err(self.out_of_budget()),
                false => Ok(()),
            }
        };
        let asked = each(&mut |line| {
            group.push(line);
            match group.len() < GROUP {
                true => Ok(()),
                false => flush(&mut group),
            }
        });
        let asked = asked.and_then(|()| flush(&mut group));
        self.scribe.settle(&asked)?;
        asked
    }

    fn out_of_budget(&self) -> CurateError {
        let (requests, tokens) = self.scribe.spent();
        CurateError::OutOfBudget { requests, tokens }
    }

    /// A line as it is written, if it changes. `number` is its line in the shard, from 1.
    pub fn written(
        &self,
        line: &[u8],
        number: u64,
        settled: &mut Settled,
    ) -> Result<Option<String>, CurateError> {
        let asked = self.asked(line);
        let answers = self.scribe.known(&asked)?;
        let (became, changed) = asked.settle(answers, self.scribe.author());
        for one in &became {
            if one.outcome == OUT_OF_BUDGET && !self.wanted.finish {
                // All were asked before: somebody took answers out of the journal meanwhile.
                return Err(self.out_of_budget());
            }
            *settled.counts.entry(one.outcome.to_owned()).or_default() += 1;
            let text = one
                .entry(None, number)
                .map_err(|error| CurateError::DoesNotAddUp {
                    what: format!("a rewritten answer cannot be written as JSON: {error}"),
                })?;
            settled.text += &text;
            settled.text.push('\n');
        }
        Ok(changed)
    }
}
