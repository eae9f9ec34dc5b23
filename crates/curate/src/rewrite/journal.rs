//! What the model said, under the hash of what it was asked.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use opabinia_endpoint::ChatAnswer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Rewrite;
use crate::error::CurateError;
use crate::table::hex;

/// Hash of a question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(String);

impl Key {
    /// Of everything that an answer depends on.
    pub fn of(model: &str, text: &str, picture: Option<&[u8]>, wanted: &Rewrite) -> Self {
        let mut hash = Sha256::new();
        let parts = [
            model.as_bytes(),
            text.as_bytes(),
            picture.unwrap_or_default(),
        ];
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update([u8::from(picture.is_some())]);
        hash.update((wanted.max_tokens as u64).to_le_bytes());
        Self(hex(&hash.finalize()))
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Said {
    /// The words.
    pub text: String,
    /// Whether the limit of tokens ended it.
    pub cut: bool,
    /// Tokens of question and answer.
    pub tokens: u64,
}

impl From<ChatAnswer> for Said {
    fn from(answer: ChatAnswer) -> Self {
        let tokens = [answer.prompt_tokens, answer.completion_tokens];
        Self {
            cut: answer.finish_reason.as_deref() == Some("length"),
            tokens: tokens.into_iter().flatten().sum(),
            text: answer.text,
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Refusal {
    /// The server does not take the question.
    Refused,
    /// What it sent is no answer of a chat.
    NoAnswer,
}

impl Refusal {
    /// Its name in the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::NoAnswer => "no_answer",
        }
    }
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Reply {
    /// An answer.
    Said(Said),
    /// None.
    Refused {
        /// Why.
        refused: Refusal,
    },
}

#[derive(Serialize, Deserialize)]
struct Entry {
    key: String,
    #[serde(flatten)]
    reply: Reply,
}

/// The journal; answers are on disk before anything is made of them.
pub(super) struct Journal {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: File,
    replies: HashMap<Key, Reply>,
    /// Refusals since the last answer, which are not in the file yet.
    unsettled: Vec<(Key, Refusal)>,
    requests: u64,
    tokens: u64,
    /// Requests under way.
    under_way: u64,
}

impl State {
    fn count(&mut self, key: Key, reply: Reply) {
        if let Reply::Said(said) = &reply {
            self.requests += 1;
            self.tokens += said.tokens;
        }
        self.replies.insert(key, reply);
    }
}

impl Journal {
    /// Opens a journal, with what is in it. A last line that a kill left half is cut off.
    pub fn open(path: &Path) -> Result<Self, CurateError> {
        let io = || CurateError::io("read the journal", path);
        let mut options = OpenOptions::new();
        let options = options.read(true).append(true).create(true);
        let file = options.open(path).map_err(io())?;
        let mut state = State {
            replies: HashMap::new(),
            unsettled: Vec::new(),
            requests: 0,
            tokens: 0,
            under_way: 0,
            file,
        };
        let (mut whole, mut ended) = (0, true);
        let mut reader = BufReader::new(File::open(path).map_err(io())?);
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(io())?;
            if read == 0 {
                break;
            }
            match serde_json::from_slice::<Entry>(&line) {
                Ok(entry) => state.count(Key(entry.key), entry.reply),
                // A kill leaves nothing but a last line without its end.
                Err(_) if !line.ends_with(b"\n") => break,
                Err(error) => {
                    return Err(CurateError::Format {
                        path: path.to_owned(),
                        problem: format!(
                            "line {number} of the journal is no answer ({error}); remove the line to \
                             ask again"
                        ),
                    });
                }
            }
            whole += read as u64;
            ended = line.ends_with(b"\n");
        }
        let there = state.file.metadata().map_err(io())?.len();
        if whole < there {
            state.file.set_len(whole).map_err(io())?;
        } else if !ended {
            // Whole but for its line break.
            state.file.write_all(b"\n").map_err(io())?;
        }
        Ok(Self {
            path: path.to_owned(),
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came of a question.
    pub fn get(&self, key: &Key) -> Option<Reply> {
        self.state().replies.get(key).cloned()
    }

    /// Refusals since the last answer.
    pub fn refusals(&self) -> usize {
        self.state().unsettled.len()
    }

    /// Whether the budget allows one more request, which then counts as under way. Tokens of requests
    /// under way are not known yet, so the last ones may go over that limit.
    pub fn reserve(&self, wanted: &Rewrite) -> bool {
        let mut state = self.state();
        let requests = state.requests + state.under_way;
        let allowed = wanted.budget_requests.is_none_or(|most| requests < most)
            && wanted.budget_tokens.is_none_or(|most| state.tokens < most);
        state.under_way += u64::from(allowed);
        allowed
    }

    /// A request came to nothing.
    pub fn release(&self) {
        let mut state = self.state();
        state.under_way = state.under_way.saturating_sub(1);
    }

    /// Writes an answer down, and the refusals before it.
    pub fn put(&self, key: Key, answer: ChatAnswer) -> Result<Reply, CurateError> {
        let reply = Reply::Said(Said::from(answer));
        let mut state = self.state();
        state.under_way = state.under_way.saturating_sub(1);
        self.settle_in(&mut state)?;
        self.write(&mut state, &key, &reply)?;
        state.count(key, reply.clone());
        Ok(reply)
    }

    /// Keeps a refusal; it is written down when the server answers something else.
    pub fn refuse(&self, key: Key, why: Refusal) -> Reply {
        let reply = Reply::Refused { refused: why };
        let mut state = self.state();
        state.unsettled.push((key.clone(), why));
        state.count(key, reply.clone());
        reply
    }

    /// Writes down all refusals.
    pub fn settle(&self) -> Result<(), CurateError> {
        self.settle_in(&mut self.state())
    }

    fn settle_in(&self, state: &mut State) -> Result<(), CurateError> {
        for (key, refused) in std::mem::take(&mut state.unsettled) {
            self.write(state, &key, &Reply::Refused { refused })?;
        }
        Ok(())
    }

    fn write(&self, state: &mut State, key: &Key, reply: &Reply) -> Result<(), CurateError> {
        let io = || CurateError::io("write the journal", &self.path);
        let entry = Entry {
            key: key.0.clone(),
            reply: reply.clone(),
        };
        let text = serde_json::to_string(&entry).map_err(|error| io()(error.into()))?;
        let written = state.file.write_all(format!("{text}\n").as_bytes());
        written.map_err(io())
    }

    /// Requests and tokens of all runs.
    pub fn spent(&self) -> (u64, u64) {
        let state = self.state();
        (state.requests, state.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> ChatAnswer {
        ChatAnswer {
            text: text.to_owned(),
            finish_reason: None,
            prompt_tokens: Some(3),
            completion_tokens: Some(4),
            attempts: 1,
        }
    }

    #[test]
    fn what_a_kill_leaves_half_is_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        let wanted = Rewrite {
            budget_requests: Some(2),
            ..Rewrite::default()
        };
        let key = |text: &str| Key::of("m", text, None, &wanted);
        let journal = Journal::open(&path).unwrap();
        for text in ["a", "b"] {
            assert!(journal.reserve(&wanted));
            journal.put(key(text), answer(text)).unwrap();
        }
        assert!(!journal.reserve(&wanted));
        assert_eq!(journal.spent(), (2, 14));
        let whole = std::fs::read(&path).unwrap();
        for cut in [1, 10] {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let journal = Journal::open(&path).unwrap();
            assert_eq!(
                journal.get(&key("a")),
                Some(Reply::Said(answer("a").into()))
            );
            assert_eq!(journal.get(&key("b")).is_some(), cut == 1);
            if cut > 1 {
                journal.put(key("b"), answer("b")).unwrap();
            }
            drop(journal);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        assert_ne!(key("a"), Key::of("m", "a", Some(b""), &wanted));

        // Damage in the middle is nobody's kill: nothing behind it is thrown away.
        let text = String::from_utf8(whole.clone()).unwrap();
        let damaged = format!("damage\n{text}");
        std::fs::write(&path, &damaged).unwrap();
        let error = Journal::open(&path).err().unwrap().to_string();
        assert!(
            error.contains("line 1 of the journal is no answer"),
            "{error}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), damaged);
        // Somebody's editor may have changed the ends of lines.
        std::fs::write(&path, text.replace('\n', "\r\n")).unwrap();
        assert_eq!(Journal::open(&path).unwrap().spent(), (2, 14));
    }

    #[test]
    fn refusals_are_written_when_the_server_answers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        let key = |text: &str| Key::of("m", text, None, &Rewrite::default());
        let kept = |text: &str| Journal::open(&path).unwrap().get(&key(text));
        let journal = Journal::open(&path).unwrap();
        let refused = journal.refuse(key("a"), Refusal::NoAnswer);
        assert_eq!(journal.get(&key("a")).as_ref(), Some(&refused));
        assert_eq!((journal.refusals(), kept("a")), (1, None));
        journal.put(key("b"), answer("b")).unwrap();
        assert_eq!((journal.refusals(), kept("a")), (0, Some(refused)));
        journal.refuse(key("c"), Refusal::Refused);
        journal.settle().unwrap();
        assert!(kept("c").is_some());
        assert_eq!(Journal::open(&path).unwrap().spent(), (1, 7));
    }
}
