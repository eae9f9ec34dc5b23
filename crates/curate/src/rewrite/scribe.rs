//! Who asks the model about short answers, and remembers what it said.

use std::path::Path;

use opabinia_data::PictureFolder;
use opabinia_endpoint::{ChatRequest, EndpointError, takes_picture};
use opabinia_image::ImageLimits;
use rayon::prelude::*;
use serde::Serialize;

use super::journal::{Journal, Key, Refusal, Reply};
use super::line::{self, Asked, Short};
use super::{Author, Rewrite};
use crate::error::CurateError;
use crate::run::Watch;

/// So many refusals one after the other are no matter of single samples.
const MAX_REFUSALS: usize = 20;

/// What becomes of an answer that was not asked for.
pub(super) const OUT_OF_BUDGET: &str = "out_of_budget";

/// A longer answer, or why the short one stays; nothing if the budget is used up.
pub(super) type Taken = Option<Result<String, &'static str>>;

/// What became of a short answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Became {
    /// Its turn in the line's conversation, from 0.
    pub turn: usize,
    /// A word for counting.
    pub outcome: &'static str,
    /// What it was.
    pub before: String,
    /// What it is now, if it changed.
    pub after: Option<String>,
}

/// A line of a ledger.
#[derive(Serialize)]
struct Entry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    line: u64,
    turn: usize,
    outcome: &'static str,
    before: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<&'a str>,
}

impl Became {
    /// A line of JSON for the ledger, with the place of the sample; the file where there are several.
    pub(super) fn entry(&self, file: Option<&str>, line: u64) -> serde_json::Result<String> {
        serde_json::to_string(&Entry {
            file,
            line,
            turn: self.turn,
            outcome: self.outcome,
            before: &self.before,
            after: self.after.as_deref(),
        })
    }
}

impl Asked {
    /// What becomes of the short answers of a line, and the line if it changes.
    pub(super) fn settle(self, answers: Vec<Taken>, model: &str) -> (Vec<Became>, Option<String>) {
        let mut edited = self.edited;
        let mut became = Vec::new();
        for (short, answer) in self.shorts.into_iter().zip(answers) {
            let (outcome, after) = match answer {
                None => (OUT_OF_BUDGET, None),
                Some(Err(outcome)) => (outcome, None),
                Some(Ok(after)) => match edited.replace(&short, &after) {
                    true => ("rewritten", Some(after)),
                    // It was found in this line, so its turn is there.
                    false => ("not_found", None),
                },
            };
            became.push(Became {
                turn: short.turn,
                outcome,
                before: short.answer,
                after,
            });
        }
        became.extend(self.kept.into_iter().map(|kept| Became {
            turn: kept.turn,
            outcome: "asked_for",
            before: kept.answer,
            after: None,
        }));
        (became, edited.finish(model))
    }
}

/// Asks, and remembers.
pub(super) struct Scribe<'a> {
    wanted: &'a Rewrite,
    author: &'a dyn Author,
    pictures: Option<PictureFolder>,
    journal: Journal,
    pool: rayon::ThreadPool,
}

impl<'a> Scribe<'a> {
    /// Gets ready, with what the journal at `answers` remembers.
    pub fn open(
        wanted: &'a Rewrite,
        author: &'a dyn Author,
        answers: &Path,
    ) -> Result<Self, CurateError> {
        let images = wanted.images.as_ref();
        let pictures = images.map(|images| PictureFolder::open(images, ImageLimits::default()));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(wanted.concurrency.max(1));
        let pool = pool.build().map_err(|error| CurateError::Io {
            doing: "start threads for",
            path: answers.to_owned(),
            source: std::io::Error::other(error),
        })?;
        Ok(Self {
            pictures: pictures.transpose()?,
            journal: Journal::open(answers)?,
            wanted,
            author,
            pool,
        })
    }

    /// The model's name.
    pub fn author(&self) -> &str {
        self.author.name()
    }

    /// Requests and tokens of all runs.
    pub fn spent(&self) -> (u64, u64) {
        self.journal.spent()
    }

    /// Writes down what was refused, unless it was the server that ended the work: only a server that answers
    /// is believed when it refuses.
    pub fn settle(&self, ended: &Result<(), CurateError>) -> Result<(), CurateError> {
        match ended {
            Err(CurateError::Author { .. }) => Ok(()),
            _ => self.journal.settle(),
        }
    }

    /// Answers for several lines, several requests at a time.
    pub fn answers(
        &self,
        asked: &[Asked],
        watch: &Watch<'_>,
    ) -> Result<Vec<Vec<Taken>>, CurateError> {
        let of_line = |asked: &Asked| -> Result<Vec<Taken>, CurateError> {
            let own = asked.shorts.iter();
            own.map(|short| self.answer(asked, short, Some(watch)))
                .collect()
        };
        self.pool
            .install(|| asked.par_iter().map(of_line).collect())
    }

    /// Answers that are known; nobody is asked.
    pub fn known(&self, asked: &Asked) -> Result<Vec<Taken>, CurateError> {
        let own = asked.shorts.iter();
        own.map(|short| self.answer(asked, short, None)).collect()
    }

    /// What becomes of a short answer: a longer one, why it stays, or `None` if nothing is known and the
    /// budget is used up, or nobody is to be asked.
    fn answer(
        &self,
        asked: &Asked,
        short: &Short,
        watch: Option<&Watch<'_>>,
    ) -> Result<Taken, CurateError> {
        let picture = match (&self.pictures, &asked.sample) {
            (Some(pictures), Some(sample)) => match pictures.find(sample) {
                Err(_) => return Ok(Some(Err("missing_image"))),
                Ok(None) => None,
                Ok(Some(path)) => {
                    let bytes = std::fs::read(&path);
                    Some(bytes.map_err(CurateError::io("read the picture", &path))?)
                }
            },
            _ => None,
        };
        // No word of the server's, so it is not remembered as one.
        if picture
            .as_deref()
            .is_some_and(|bytes| !takes_picture(bytes))
        {
            return Ok(Some(Err("picture_format")));
        }
        let text = short.request(picture.is_some());
        let key = Key::of(self.author.name(), &text, picture.as_deref(), self.wanted);
        let reply = match (self.journal.get(&key), watch) {
            (Some(reply), _) => reply,
            (None, None) => return Ok(None),
            (None, Some(watch)) => match self.ask(key, &text, picture.as_deref(), watch)? {
                Some(reply) => reply,
                None => return Ok(None),
            },
        };
        Ok(Some(match reply {
            Reply::Said(said) => short.check(&said),
            Reply::Refused { refused } => Err(refused.name()),
        }))
    }

    /// Asks the model; `None` if the budget does not allow it.
    fn ask(
        &self,
        key: Key,
        text: &str,
        picture: Option<&[u8]>,
        watch: &Watch<'_>,
    ) -> Result<Option<Reply>, CurateError> {
        watch.check()?;
        if !self.journal.reserve(self.wanted) {
            return Ok(None);
        }
        let request = ChatRequest {
            system: Some(line::SYSTEM),
            picture,
            text,
            max_tokens: self.wanted.max_tokens,
        };
        match self.author.ask(&request, watch.cancelled) {
            Ok(said) => Ok(Some(self.journal.put(key, said)?)),
            Err(error) => {
                self.journal.release();
                match self.refused(key, error) {
                    // The wait for another attempt was given up.
                    Err(_) if (watch.cancelled)() => Err(CurateError::Interrupted),
                    reply => reply.map(Some),
                }
            }
        }
    }

    /// A question that the server refuses is a matter of one sample; all else ends the run.
    fn refused(&self, key: Key, error: EndpointError) -> Result<Reply, CurateError> {
        let why = match &error {
            EndpointError::Status {
                status: 400 | 413 | 415 | 422,
                ..
            } => Some(Refusal::Refused),
            EndpointError::Protocol { .. } => Some(Refusal::NoAnswer),
            _ => None,
        };
        match why {
            Some(why) if self.journal.refusals() + 1 < MAX_REFUSALS => {
                Ok(self.journal.refuse(key, why))
            }
            _ => Err(CurateError::Author {
                source: Box::new(error),
            }),
        }
    }
}
