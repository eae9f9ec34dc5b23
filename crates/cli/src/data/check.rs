//! `data check`: what is wrong with samples.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use opabinia_curate::look::{self, BadLine};
use opabinia_data::mask::Turns;
use opabinia_data::{FaultLimit, Masker, Sample, SampleError, written};
use opabinia_llm::{ChatTemplate, Tokenizer};
use serde_json::json;

use super::{FilesArgs, watched};
use crate::failure::Failure;
use crate::{Outcome, output};

/// Check samples: schema, turns, placeholders, pictures, and whether anything can be learned.
///
/// Each fault is a line on standard output. Exit code 1 if more samples are bad than `--max-bad` allows.
#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    files: FilesArgs,
    /// Decode every picture.
    #[arg(long)]
    decode: bool,
    #[command(flatten)]
    mask: MaskArgs,
    /// How many samples may be bad: a count, or a share such as `0.1%`.
    #[arg(long, default_value = "0")]
    max_bad: FaultLimit,
    /// Faults and summary as JSON, one object per line.
    #[arg(long)]
    json: bool,
    /// No progress.
    #[arg(short, long)]
    quiet: bool,
}

/// What samples are tokenized with.
#[derive(Args)]
pub struct MaskArgs {
    /// Chat template that samples are trained with.
    #[arg(long)]
    template: Option<String>,
    /// Folder of a model, whose tokenizer is used; needs `--template`. Without it, the mask is known by characters alone.
    #[arg(long, requires = "template")]
    tokenizer: Option<PathBuf>,
    /// Positions that a sample may take; with `--tokenizer`.
    #[arg(long, default_value_t = 2048)]
    max_length: usize,
    /// Positions that a picture takes; with `--tokenizer`.
    #[arg(long, default_value_t = 576)]
    visual_tokens: usize,
    /// Each exchange as if it were the only one, as `data.turns = "apart"` trains it; needs `--tokenizer`.
    #[arg(long, requires = "tokenizer")]
    apart: bool,
}

impl MaskArgs {
    /// The masker, if template and tokenizer are given.
    pub fn masker(&self) -> Result<Option<Masker>, Failure> {
        let (Some(template), Some(tokenizer)) = (&self.template, &self.tokenizer) else {
            return Ok(None);
        };
        let template = ChatTemplate::by_name(template)?;
        let tokenizer = Arc::new(Tokenizer::from_folder(tokenizer)?);
        let turns = match self.apart {
            true => Turns::Apart,
            false => Turns::Together,
        };
        let masker = Masker::new(template, tokenizer, self.max_length)?;
        Ok(Some(masker.with_turns(turns)))
    }

    /// The template, if one is given.
    pub fn template(&self) -> Result<Option<&'static ChatTemplate>, Failure> {
        let named = self.template.as_deref().map(ChatTemplate::by_name);
        Ok(named.transpose()?)
    }

    /// Positions that a picture takes.
    pub fn visual_tokens(&self) -> usize {
        self.visual_tokens
    }
}

impl Check {
    /// Does it.
    pub fn run(self) -> Outcome {
        let files = self.files.look(self.decode)?;
        let (masker, template) = (self.mask.masker()?, self.mask.template()?);
        let trains = |sample: &Sample| -> Result<(), SampleError> {
            match (&masker, template) {
                (Some(masker), _) => masker.tokenize(sample, self.mask.visual_tokens).map(|_| ()),
                (None, Some(template)) => written(template, sample).map(|_| ()),
                (None, None) => look::has_an_answer(sample),
            }
        };
        let mut found = |bad: BadLine| {
            match self.json {
                true => output::data(&json!(bad).to_string()),
                false => output::data(&format!("{}: {}", bad.kind, bad.what)),
            }
            Ok(())
        };
        let checked = watched(self.quiet, |watch| {
            look::check(&files, &trains, &mut found, watch)
        })?;
        let bad = checked.bad_total();
        if self.json {
            output::data(&json!({"summary": checked}).to_string());
        } else {
            let kinds = checked.bad.iter();
            let mut rows: Vec<Vec<String>> = kinds
                .map(|(kind, n)| vec![(*kind).to_owned(), n.to_string()])
                .collect();
            rows.push(vec!["good".to_owned(), checked.good.to_string()]);
            rows.push(vec!["all".to_owned(), checked.samples.to_string()]);
            output::note(&output::table(&["samples", "count"], &rows));
        }
        let all = usize::try_from(checked.samples).unwrap_or(usize::MAX);
        if bad <= self.max_bad.of(all) {
            return Ok(ExitCode::SUCCESS);
        }
        Err(Failure::new(format!(
            "{bad} of {} samples cannot be used; `--max-bad` allows {}",
            checked.samples, self.max_bad
        ))
        .hint("mend or remove them; `data curate` leaves them out and says so in its ledger"))
    }
}
