//! `data rewrite`: short answers written out by a served model.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use opabinia_curate::CurateError;
use opabinia_curate::recipe::Prompts;
use opabinia_curate::rewrite::{Rewrite, rewrite};
use opabinia_endpoint::{Endpoint, EndpointOptions, TokenLimit};
use serde_json::json;

use super::watched;
use crate::args::positive;
use crate::failure::Failure;
use crate::{Outcome, output};

/// Have a served model write short answers out as sentences.
///
/// Any server with the chat protocol of OpenAI will do. An answer is taken only if it holds the words of
/// the old one, is longer and was not cut off; all other lines are copied as they are, and
/// `ledger.jsonl` says what became of every short answer. What the model said is kept in
/// `answers.jsonl`, so that a run that was killed or ran out of its budget goes on without asking twice.
#[derive(Args)]
pub struct RewriteVerb {
    /// Files of samples, in any form that `data convert` reads.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Folder to write.
    #[arg(short, long)]
    out: PathBuf,
    /// Address of the server, such as `http://localhost:8000/v1`.
    #[arg(long)]
    url: String,
    /// The model's name on the server.
    #[arg(long)]
    model: String,
    /// Environment variable that holds the server's key.
    #[arg(long, value_name = "VARIABLE")]
    key_variable: Option<String>,
    /// Folder that the samples' pictures are in; with it, the model sees them.
    #[arg(long)]
    images: Option<PathBuf>,
    /// Only samples of this `source`; may be repeated.
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    /// Answers of at most so many words are short.
    #[arg(long, default_value_t = 3)]
    max_words: usize,
    /// TOML file of format prompts: a question that has one asks for its short answer, which stays.
    #[arg(long)]
    prompts: Option<PathBuf>,
    /// Tokens that an answer may have.
    #[arg(long, default_value_t = 200, value_parser = positive)]
    max_tokens: usize,
    /// Requests at the same time.
    #[arg(long, default_value_t = 4, value_parser = positive)]
    concurrency: usize,
    /// Tokens of all questions and answers together, over all runs.
    #[arg(long)]
    budget_tokens: Option<u64>,
    /// Requests over all runs.
    #[arg(long)]
    budget_requests: Option<u64>,
    /// Write the folder even if the budget does not reach all answers; the others stay as they are.
    #[arg(long)]
    finish: bool,
    /// Seconds that one attempt may take.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// How often a failed attempt is made again.
    #[arg(long, default_value_t = 5)]
    retries: u32,
    /// The server calls the limit of an answer `max_completion_tokens`.
    #[arg(long)]
    max_completion_tokens: bool,
    /// Print what came of it as JSON.
    #[arg(long)]
    json: bool,
    /// No progress.
    #[arg(short, long)]
    quiet: bool,
}

impl RewriteVerb {
    /// Does it.
    pub fn run(self) -> Outcome {
        let prompts = match &self.prompts {
            Some(path) => Prompts::read(path)?.prompt,
            None => Vec::new(),
        };
        let endpoint = Endpoint::new(EndpointOptions {
            key_variable: self.key_variable,
            timeout: Duration::from_secs(self.timeout),
            retries: self.retries,
            token_limit: match self.max_completion_tokens {
                true => TokenLimit::MaxCompletionTokens,
                false => TokenLimit::MaxTokens,
            },
            ..EndpointOptions::new(self.url, self.model)
        })?;
        let wanted = Rewrite {
            files: self.files,
            images: self.images,
            sources: self.source,
            max_words: self.max_words,
            prompts,
            max_tokens: self.max_tokens,
            concurrency: self.concurrency,
            budget_tokens: self.budget_tokens,
            budget_requests: self.budget_requests,
            finish: self.finish,
        };
        let done = watched(self.quiet, |watch| {
            match rewrite(&wanted, &endpoint, &self.out, watch) {
                Err(CurateError::Interrupted) => Ok(None),
                done => done.map(Some),
            }
        });
        let Some(done) = done? else {
            output::note("interrupted; the same command goes on from here");
            return Ok(ExitCode::from(130));
        };
        if self.json {
            output::data(&json!(done).to_string());
        } else {
            let answers = done.answers.iter();
            let rows: Vec<Vec<String>> = answers
                .map(|(what, count)| vec![(*what).to_owned(), count.to_string()])
                .collect();
            output::data(&output::table(&["short answers", "count"], &rows));
            output::data(&format!(
                "\n{} of {} samples changed; {} answers of the model, {} tokens",
                done.changed, done.lines, done.requests, done.tokens
            ));
        }
        if done.out_of_budget {
            return Err(Failure::new(
                "the budget is used up, and some answers are not written yet",
            )
            .hint(
                "the same command with a larger budget goes on from here; with `--finish`, what is not \
                 reached stays as it is",
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}
