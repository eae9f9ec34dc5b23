//! Short answers written out by a served model.
//!
//! The other cure for the answer machine (Cambrian-1, arXiv 2406.16860, section 4.2, has 77 thousand samples
//! rewritten in this way): where an answer is a word or two and the question asks for no such form, a
//! model writes it as a sentence. It is not believed: an answer is taken only if it holds the words of
//! the old one, is longer, and was not cut off. Every line of the inputs is in the output, in order; a
//! line whose answers stay is copied byte for byte, and a changed one says under `rewritten` what its
//! answers were and who changed them.
//!
//! Whatever the model said is in a journal beside the output, under the hash of what it was asked. So
//! nothing is asked twice: a run that was killed, or that ran out of its budget, goes on from there. A
//! refusal counts as said once the server has answered something else: before, it may refuse everything.
//!
//! A curation does the same with what it keeps ([`within`]), if its recipe has a table `rewrite`.

mod journal;
mod line;
mod scribe;
pub(crate) mod within;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use opabinia_data::Place;
use opabinia_endpoint::{ChatAnswer, ChatRequest, Endpoint, EndpointError};
use rayon::prelude::*;
use serde::Serialize;

use crate::convert::{Incoming, Kind, read};
use crate::copy::ShardWriter;
use crate::error::CurateError;
use crate::lines::Lines;
use crate::partial::{Leftover, Marked};
use crate::prompt::Prompt;
use crate::run::{Progress, Watch};
use crate::table::write_json;
use line::Asked;
use scribe::{OUT_OF_BUDGET, Scribe, Taken};

/// Lines whose answers are asked for at once.
const GROUP: usize = 256;

/// A file that says whose folder this is while it is not whole.
const MARK: &str = ".rewrite";

/// What is rewritten, and how.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// Files of samples, in order.
    pub files: Vec<PathBuf>,
    /// The folder of the samples' pictures; the model sees them if it is given.
    pub images: Option<PathBuf>,
    /// Values of `source` whose samples are rewritten; all if there is none.
    pub sources: Vec<String>,
    /// Answers of at most that many words are short.
    pub max_words: usize,
    /// Format prompts: a question that has one asks for its short answer, which stays.
    pub prompts: Vec<Prompt>,
    /// Tokens of an answer.
    pub max_tokens: usize,
    /// Requests at the same time.
    pub concurrency: usize,
    /// Tokens of all questions and answers together, over all runs.
    pub budget_tokens: Option<u64>,
    /// Requests over all runs.
    pub budget_requests: Option<u64>,
    /// Whether answers that the budget does not reach stay as they are, in place of waiting for more.
    pub finish: bool,
}

impl Default for Rewrite {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            images: None,
            sources: Vec::new(),
            max_words: 3,
            prompts: Vec::new(),
            max_tokens: 200,
            concurrency: 4,
            budget_tokens: None,
            budget_requests: None,
            finish: false,
        }
    }
}

/// Who writes.
pub trait Author: Sync {
    /// The model's name.
    fn name(&self) -> &str;

    /// Asks it, until `given_up` says that nobody wants the answer any more.
    ///
    /// # Errors
    /// If there is no answer.
    fn ask(
        &self,
        request: &ChatRequest<'_>,
        given_up: &dyn Fn() -> bool,
    ) -> Result<ChatAnswer, EndpointError>;
}

impl Author for Endpoint {
    fn name(&self) -> &str {
        self.model()
    }

    fn ask(
        &self,
        request: &ChatRequest<'_>,
        given_up: &dyn Fn() -> bool,
    ) -> Result<ChatAnswer, EndpointError> {
        self.ask_unless(request, given_up)
    }
}

/// What became of the answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rewritten {
    /// Lines, in and out.
    pub lines: u64,
    /// Lines with an answer that changed.
    pub changed: u64,
    /// Short answers by what became of them.
    pub answers: BTreeMap<&'static str, u64>,
    /// Answers that the model gave, in this run and before.
    pub requests: u64,
    /// Their tokens and those of the questions, as far as the server says.
    pub tokens: u64,
    /// Whether the budget ended it before the last answer: then nothing is written but the journal.
    pub out_of_budget: bool,
}

/// Rewrites short answers into the folder `out`, which appears when it is whole.
///
/// # Errors
/// If an input cannot be read, the output cannot be written, the server cannot be reached or refuses
/// everything, or somebody asked for an end. What was answered by then is kept for the next try.
pub fn rewrite(
    wanted: &Rewrite,
    author: &dyn Author,
    out: &Path,
    watch: &Watch<'_>,
) -> Result<Rewritten, CurateError> {
    let partial = Marked::open(out, MARK, Leftover::Keep)?;
    let mut work = Work::begin(wanted, author, partial.folder())?;
    let mut files = wanted.files.iter();
    let ended = files.try_for_each(|file| work.file(file, watch));
    work.scribe.settle(&ended)?;
    ended?;
    let done = work.finish()?;
    if done.out_of_budget {
        return Ok(done);
    }
    write_json(&partial.folder().join("summary.json"), &done)?;
    partial.publish()?;
    Ok(done)
}

struct Work<'a> {
    wanted: &'a Rewrite,
    scribe: Scribe<'a>,
    samples: ShardWriter,
    ledger: BufWriter<File>,
    ledger_path: PathBuf,
    done: Rewritten,
    bytes: u64,
    total: u64,
}

impl<'a> Work<'a> {
    fn begin(
        wanted: &'a Rewrite,
        author: &'a dyn Author,
        folder: &Path,
    ) -> Result<Self, CurateError> {
        let size = |file: &PathBuf| {
            let about = file.metadata().map(|about| about.len());
            about.map_err(CurateError::io("read the samples", file))
        };
        let ledger_path = folder.join("ledger.jsonl");
        let ledger = File::create(&ledger_path);
        Ok(Self {
            total: wanted.files.iter().map(size).sum::<Result<u64, _>>()?,
            scribe: Scribe::open(wanted, author, &folder.join("answers.jsonl"))?,
            samples: ShardWriter::create(&folder.join("samples.jsonl"))?,
            ledger: BufWriter::new(ledger.map_err(CurateError::io("write", &ledger_path))?),
            ledger_path,
            done: Rewritten::default(),
            bytes: 0,
            wanted,
        })
    }

    /// Rewrites a file, some lines at a time.
    fn file(&mut self, path: &Path, watch: &Watch<'_>) -> Result<(), CurateError> {
        let mut group: Vec<Vec<u8>> = Vec::new();
        let mut first = 1;
        let position = AtomicU64::new(0);
        let mut take = |line: Vec<u8>| {
            group.push(line);
            if group.len() < GROUP {
                return Ok(());
            }
            let lines = std::mem::take(&mut group);
            let from = first;
            first += lines.len() as u64;
            let bytes: usize = lines.iter().map(Vec::len).sum();
            position.fetch_add(bytes as u64, Ordering::Relaxed);
            (watch.progress)(Progress {
                stage: "rewrite",
                done: (self.bytes + position.load(Ordering::Relaxed)).min(self.total),
                total: self.total,
            });
            self.group(path, from, &lines, watch)
        };
        match Kind::of(path)?.is_lines() {
            true => {
                let io = || CurateError::io("read", path);
                let opened = File::open(path).map_err(io())?;
                let mut lines = Lines::new(BufReader::with_capacity(1 << 20, opened));
                while let Some(line) = lines.next_line().map_err(io())? {
                    take(line.text.to_vec())?;
                }
            }
            false => read(path, &AtomicU64::new(0), &mut |incoming| match incoming {
                Incoming::Record { pictures, .. } if !pictures.is_empty() => {
                    Err(CurateError::PicturesInside {
                        path: path.to_owned(),
                    })
                }
                Incoming::Record { record, .. } => take(record.to_string().into_bytes()),
                Incoming::Line(line) => take(line),
                Incoming::Blank => take(Vec::new()),
                Incoming::LeftOut => Ok(()),
            })?,
        }
        self.group(path, first, &group, watch)?;
        self.bytes += path.metadata().map_or(0, |about| about.len());
        Ok(())
    }

    fn group(
        &mut self,
        path: &Path,
        first: u64,
        lines: &[Vec<u8>],
        watch: &Watch<'_>,
    ) -> Result<(), CurateError> {
        watch.check()?;
        let place = |i: usize| Place::new(path, first + i as u64);
        let asked: Vec<Asked> = lines
            .par_iter()
            .enumerate()
            .map(|(i, line)| Asked::of(line, place(i), self.wanted))
            .collect();
        let answered: Vec<Vec<Taken>> = self.scribe.answers(&asked, watch)?;
        let name = path.display().to_string();
        for (i, ((line, asked), answers)) in lines.iter().zip(asked).zip(answered).enumerate() {
            self.done.lines += 1;
            let (became, changed) = asked.settle(answers, self.scribe.author());
            for one in &became {
                self.done.out_of_budget |= one.outcome == OUT_OF_BUDGET && !self.wanted.finish;
                *self.done.answers.entry(one.outcome).or_default() += 1;
                self.enter(one.entry(Some(&name), first + i as u64))?;
            }
            match changed {
                None => self.samples.line(line)?,
                Some(changed) => {
                    self.done.changed += 1;
                    self.samples.line(changed.as_bytes())?;
                }
            }
        }
        Ok(())
    }

    fn enter(&mut self, entry: serde_json::Result<String>) -> Result<(), CurateError> {
        let io = || CurateError::io("write", &self.ledger_path);
        let text = entry.map_err(|error| io()(error.into()))?;
        writeln!(self.ledger, "{text}").map_err(io())
    }

    fn finish(mut self) -> Result<Rewritten, CurateError> {
        let io = || CurateError::io("write", &self.ledger_path);
        self.ledger.flush().map_err(io())?;
        self.samples.finish()?;
        (self.done.requests, self.done.tokens) = self.scribe.spent();
        Ok(self.done)
    }
}
