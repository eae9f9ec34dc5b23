//! The state of a run: jobs, attempts, costs, and everything that was ever answered.
//!
//! A run is a folder. `state.sqlite` holds what was asked and what became of it; the answers themselves
//! are files named by the hash of their content, in `archive/`. A job is done when its row says so, in one
//! transaction, so that a kill at any moment leaves it either done or to be done.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{EngineError, Failure};
use crate::files::{remove_partial, write_whole};
use crate::plan::hex;
use crate::web::{Answer, Attempt, Validators};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
  stage TEXT NOT NULL, key TEXT NOT NULL, position INTEGER NOT NULL, input TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'pending', result TEXT, kind TEXT, error TEXT,
  transient INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (stage, key));
CREATE TABLE IF NOT EXISTS attempts (
  id INTEGER PRIMARY KEY, stage TEXT NOT NULL, job TEXT NOT NULL, url TEXT NOT NULL, at INTEGER NOT NULL,
  status INTEGER NOT NULL, bytes INTEGER NOT NULL, milliseconds INTEGER NOT NULL, error TEXT);
CREATE TABLE IF NOT EXISTS archive (
  key TEXT PRIMARY KEY, request TEXT NOT NULL, sha256 TEXT, url TEXT, content_type TEXT, etag TEXT,
  last_modified TEXT, kind TEXT, error TEXT, transient INTEGER NOT NULL DEFAULT 0, at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS costs (
  key TEXT PRIMARY KEY, stage TEXT NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL,
  money REAL NOT NULL, estimated INTEGER NOT NULL);
";

/// The state of a run.
pub(crate) struct Store {
    folder: PathBuf,
    connection: Mutex<Connection>,
    /// Held as long as the run is open for writing.
    _lock: Option<File>,
}

/// A piece of work.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub key: String,
    pub input: Value,
}

/// A job and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub key: String,
    pub input: Value,
    /// `None` if it failed.
    pub result: Option<Value>,
    pub kind: String,
    pub error: String,
}

/// What was archived about a request.
pub(crate) enum Archived {
    Answer(Answer),
    Failure(Failure),
}

/// Costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Requests to the model that were answered.
    pub requests: u64,
    /// Tokens that it read.
    pub tokens_in: u64,
    /// Tokens that it wrote.
    pub tokens_out: u64,
    /// Money.
    pub money: f64,
}

/// Progress and costs of a stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StageStatus {
    /// The stage.
    pub stage: String,
    /// Jobs that are known.
    pub jobs: u64,
    /// Of them done.
    pub done: u64,
    /// Of them failed.
    pub failed: u64,
    /// What came out of it, in its own units.
    pub yielded: u64,
    /// Attempts at requests.
    pub attempts: u64,
    /// Of them failed.
    pub failed_attempts: u64,
    /// Bytes that were received.
    pub bytes: u64,
    /// Costs.
    #[serde(flatten)]
    pub cost: Cost,
}

impl Store {
    /// Opens a run for work, or begins one.
    pub(crate) fn open(folder: &Path, fingerprint: &str) -> Result<Self, EngineError> {
        fs::create_dir_all(folder.join("archive")).map_err(EngineError::io("create", folder))?;
        let path = folder.join("lock");
        let lock = File::create(&path).map_err(EngineError::io("create", &path))?;
        if lock.try_lock().is_err() {
            return Err(EngineError::InUse {
                folder: folder.to_owned(),
            });
        }
        let connection = Connection::open(folder.join("state.sqlite"))?;
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
        connection.execute_batch(SCHEMA)?;
        connection.execute(
            "INSERT OR IGNORE INTO meta VALUES ('plan', ?1)",
            [fingerprint],
        )?;
        let known: String =
            connection.query_row("SELECT value FROM meta WHERE name = 'plan'", [], |row| {
                row.get(0)
            })?;
        if known != fingerprint {
            return Err(EngineError::OtherPlan {
                folder: folder.to_owned(),
            });
        }
        remove_partial(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            connection: Mutex::new(connection),
            _lock: Some(lock),
        })
    }

    /// Opens a run to look at.
    pub(crate) fn look(folder: &Path) -> Result<Self, EngineError> {
        let path = folder.join("state.sqlite");
        if !path.is_file() {
            return Err(EngineError::NoRun {
                folder: folder.to_owned(),
            });
        }
        let connection = Connection::open(path)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        connection.execute_batch("PRAGMA query_only = ON;")?;
        Ok(Self {
            folder: folder.to_owned(),
            connection: Mutex::new(connection),
            _lock: None,
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the jobs of a stage that are not known yet, and forgets pending ones that are no longer
    /// wanted.
    pub(crate) fn plan(&self, stage: &str, jobs: &[Job]) -> Result<(), EngineError> {
        let mut db = self.db();
        let transaction = db.transaction()?;
        transaction.execute("UPDATE jobs SET position = -1 WHERE stage = ?1", [stage])?;
        {
            let mut add = transaction.prepare(
                "INSERT INTO jobs (stage, key, position, input) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET position = ?3, input = ?4",
            )?;
            for (position, job) in (0_i64..).zip(jobs) {
                add.execute(params![stage, job.key, position, job.input.to_string()])?;
            }
        }
        transaction.execute(
            "DELETE FROM jobs WHERE stage = ?1 AND position = -1 AND state = 'pending'",
            [stage],
        )?;
        transaction.commit()?;
        Ok(())
    }

    pub(crate) fn pending(&self, stage: &str) -> Result<Vec<Job>, EngineError> {
        let db = self.db();
        let mut query = db.prepare("SELECT key, input FROM jobs WHERE stage = ?1 AND state = 'pending' AND position >= 0 ORDER BY position")?;
        let rows = query.query_map([stage], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
        rows.map(|row| {
            let (key, input) = row?;
            Ok(Job {
                key,
                input: json(&input)?,
            })
        })
        .collect()
    }

    /// Finished jobs of a stage that are still wanted, in order.
    pub(crate) fn finished(&self, stage: &str) -> Result<Vec<Finished>, EngineError> {
        let mut all = Vec::new();
        self.each_finished(stage, |job| {
            all.push(job);
            Ok(())
        })?;
        Ok(all)
    }

    /// The same one by one: pages are large, and there are many. `take` must leave the store alone.
    pub(crate) fn each_finished(
        &self,
        stage: &str,
        mut take: impl FnMut(Finished) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let db = self.db();
        let mut query = db.prepare(
            "SELECT key, input, result, kind, error FROM jobs WHERE stage = ?1 AND state != 'pending' AND position >= 0 ORDER BY position",
        )?;
        let mut rows = query.query([stage])?;
        while let Some(row) = rows.next()? {
            let input: String = row.get(1)?;
            let result: Option<String> = row.get(2)?;
            take(Finished {
                key: row.get(0)?,
                input: json(&input)?,
                result: result.as_deref().map(json).transpose()?,
                kind: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
                error: row.get::<_, Option<String>>(4)?.unwrap_or_default(),
            })?;
        }
        Ok(())
    }

    pub(crate) fn finish(
        &self,
        stage: &str,
        key: &str,
        outcome: Result<&Value, &Failure>,
    ) -> Result<(), EngineError> {
        let db = self.db();
        match outcome {
            Ok(value) => db.execute(
                "UPDATE jobs SET state = 'done', result = ?3 WHERE stage = ?1 AND key = ?2",
                params![stage, key, value.to_string()],
            )?,
            Err(failure) => db.execute(
                "UPDATE jobs SET state = 'failed', kind = ?3, error = ?4, transient = ?5 WHERE stage = ?1 AND key = ?2",
                params![stage, key, failure.kind, failure.message, failure.transient],
            )?,
        };
        Ok(())
    }

    /// Lets failures that may pass be tried again.
    pub(crate) fn retry(&self) -> Result<(), EngineError> {
        let mut db = self.db();
        let transaction = db.transaction()?;
        transaction.execute("DELETE FROM archive WHERE transient = 1", [])?;
        transaction.execute("UPDATE jobs SET state = 'pending', kind = NULL, error = NULL WHERE state = 'failed' AND transient = 1", [])?;
        Ok(transaction.commit()?)
    }

    /// Lets the jobs of a stage be done again.
    pub(crate) fn reopen(&self, stage: &str) -> Result<(), EngineError> {
        self.db().execute("UPDATE jobs SET state = 'pending', result = NULL, kind = NULL, error = NULL WHERE stage = ?1", [stage])?;
        Ok(())
    }

    /// Keeps an attempt; gives its number.
    pub(crate) fn note(
        &self,
        stage: &str,
        job: &str,
        attempt: &Attempt,
    ) -> Result<i64, EngineError> {
        let db = self.db();
        db.execute(
            "INSERT INTO attempts (stage, job, url, at, status, bytes, milliseconds, error) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![stage, job, attempt.url, now(), attempt.status, attempt.bytes as i64, attempt.milliseconds as i64, attempt.error],
        )?;
        Ok(db.last_insert_rowid())
    }

    /// What is archived under a key; an answer whose file is not whole counts as none.
    pub(crate) fn archived(&self, key: &str) -> Result<Option<Archived>, EngineError> {
        type Row = (
            Option<String>,
            Option<String>,
            Option<String>,
            Option<String>,
            Option<String>,
            Option<String>,
            Option<String>,
            bool,
        );
        let row: Option<Row> = self.db().query_row(
            "SELECT sha256, url, content_type, etag, last_modified, kind, error, transient FROM archive WHERE key = ?1",
            [key],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?)),
        ).optional()?;
        let Some((sha256, url, content_type, etag, last_modified, kind, error, transient)) = row
        else {
            return Ok(None);
        };
        let Some(sha256) = sha256 else {
            let kind = KINDS.iter().find(|known| Some(**known) == kind.as_deref());
            return Ok(Some(Archived::Failure(Failure {
                transient,
                kind: kind.copied().unwrap_or("other"),
                message: error.unwrap_or_default(),
            })));
        };
        Ok(self.blob(&sha256)?.map(|body| {
            Archived::Answer(Answer {
                url: url.unwrap_or_default(),
                content_type: content_type.unwrap_or_default(),
                validators: Validators {
                    etag,
                    last_modified,
                },
                body,
                unchanged: false,
            })
        }))
    }

    pub(crate) fn archive(
        &self,
        key: &str,
        request: &str,
        outcome: Result<&Answer, &Failure>,
    ) -> Result<(), EngineError> {
        // For people; what is asked is known by its key.
        let end = request.floor_char_boundary(SHOWN_BYTES);
        let request = &request[..end];
        match outcome {
            Ok(answer) => {
                let sha256 = self.keep(&answer.body)?;
                let Validators {
                    etag,
                    last_modified,
                } = &answer.validators;
                self.db().execute(
                    "INSERT OR REPLACE INTO archive (key, request, sha256, url, content_type, etag, last_modified, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    params![key, request, sha256, answer.url, answer.content_type, etag, last_modified, now()],
                )?;
            }
            Err(failure) => {
                self.db().execute(
                    "INSERT OR REPLACE INTO archive (key, request, kind, error, transient, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![key, request, failure.kind, failure.message, failure.transient, now()],
                )?;
            }
        }
        Ok(())
    }

    pub(crate) fn blob_path(&self, sha256: &str) -> PathBuf {
        self.folder
            .join("archive")
            .join(sha256.get(..2).unwrap_or("00"))
            .join(sha256)
    }

    fn keep(&self, bytes: &[u8]) -> Result<String, EngineError> {
        let sha256 = hex(&Sha256::digest(bytes));
        let path = self.blob_path(&sha256);
        // A file of the right name and length may still be damaged; writing it again costs little.
        write_whole(&path, bytes)?;
        Ok(sha256)
    }

    /// The bytes of this hash; `None` if they are gone or damaged.
    pub(crate) fn blob(&self, sha256: &str) -> Result<Option<Vec<u8>>, EngineError> {
        match fs::read(self.blob_path(sha256)) {
            Ok(bytes) if hex(&Sha256::digest(&bytes)) == sha256 => Ok(Some(bytes)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(EngineError::io("read", self.blob_path(sha256))(error)),
        }
    }

    /// Keeps what was found in other pools.
    pub(crate) fn keep_known(&self, known: &str) -> Result<(), EngineError> {
        self.db().execute(
            "INSERT OR REPLACE INTO meta VALUES ('other pools', ?1)",
            [known],
        )?;
        Ok(())
    }

    /// What was found in other pools, if the run came to a pool.
    pub(crate) fn known(&self) -> Result<Option<String>, EngineError> {
        let query = "SELECT value FROM meta WHERE name = 'other pools'";
        let db = self.db();
        Ok(db.query_row(query, [], |row| row.get(0)).optional()?)
    }

    pub(crate) fn charge(
        &self,
        key: &str,
        stage: &str,
        cost: Cost,
        estimated: bool,
    ) -> Result<(), EngineError> {
        self.db().execute(
            "INSERT OR REPLACE INTO costs VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                key,
                stage,
                cost.tokens_in as i64,
                cost.tokens_out as i64,
                cost.money,
                estimated
            ],
        )?;
        Ok(())
    }

    pub(crate) fn spent(&self, stage: Option<&str>) -> Result<Cost, EngineError> {
        Ok(self.db().query_row(
            "SELECT count(*), coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0), coalesce(sum(money), 0.0) FROM costs WHERE ?1 IS NULL OR stage = ?1",
            [stage],
            |row| Ok(Cost {
                requests: row.get::<_, i64>(0)? as u64,
                tokens_in: row.get::<_, i64>(1)? as u64,
                tokens_out: row.get::<_, i64>(2)? as u64,
                money: row.get(3)?,
            }),
        )?)
    }

    pub(crate) fn status(&self, stage: &str) -> Result<StageStatus, EngineError> {
        let cost = self.spent(Some(stage))?;
        let db = self.db();
        // One query, so that a run that goes on meanwhile does not come between the numbers.
        let (jobs, done, failed): (i64, i64, i64) = db.query_row(
            "SELECT count(*), coalesce(sum(state = 'done'), 0), coalesce(sum(state = 'failed'), 0) FROM jobs WHERE stage = ?1 AND position >= 0",
            [stage],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        let (attempts, failed_attempts, bytes): (i64, i64, i64) = db.query_row(
            "SELECT count(*), count(error), coalesce(sum(bytes), 0) FROM attempts WHERE stage = ?1",
            [stage],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        Ok(StageStatus {
            stage: stage.to_owned(),
            jobs: jobs as u64,
            done: done as u64,
            failed: failed as u64,
            yielded: 0,
            attempts: attempts as u64,
            failed_attempts: failed_attempts as u64,
            bytes: bytes as u64,
            cost,
        })
    }
}

impl StageStatus {
    /// Jobs that are neither done nor failed.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.jobs
            .saturating_sub(self.done)
            .saturating_sub(self.failed)
    }
}

/// As much of a request as is kept to be looked at; some hold pictures.
const SHOWN_BYTES: usize = 32 << 10;

/// Kinds of failures, as they are archived.
const KINDS: [&str; 11] = [
    "address",
    "redirect",
    "robots",
    "connection",
    "busy",
    "status",
    "too large",
    "encoding",
    "answer",
    "page",
    "picture",
];

fn json(text: &str) -> Result<Value, EngineError> {
    serde_json::from_str(text).map_err(|error| EngineError::Damaged(error.to_string()))
}

/// Seconds since 1970, for people who look at the state; nothing is decided by it.
fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs() as i64)
}
