//! What people decided, in SQLite.
//!
//! Rows are added and never changed or removed; triggers see to it. What is true of a question is its
//! latest decision that nobody undid.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use crate::error::CvBenchError;
use crate::published::Published;
use crate::question::{Question, lettered};

/// "OPCV": marks the file as ours.
const APPLICATION: i64 = 0x4f50_4356;
/// Version of the tables.
const VERSION: i64 = 1;
/// Options that a question may have: (A) to (F), as in the published questions.
const MOST_CHOICES: usize = 6;
/// Characters of a text that people write, at most.
const LONGEST: usize = 4_000;

const TABLES: &str = "
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    idx INTEGER NOT NULL,
    digest TEXT NOT NULL,
    reviewer TEXT NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('accept', 'reject', 'mend')),
    mended TEXT,
    note TEXT NOT NULL,
    seconds INTEGER NOT NULL
) STRICT;
CREATE INDEX decisions_idx ON decisions (idx);
CREATE TABLE undone (
    decision INTEGER PRIMARY KEY REFERENCES decisions (id),
    reviewer TEXT NOT NULL,
    seconds INTEGER NOT NULL
) STRICT;
CREATE TRIGGER decisions_stay BEFORE UPDATE ON decisions
    BEGIN SELECT RAISE(ABORT, 'decisions are only ever added'); END;
CREATE TRIGGER decisions_remain BEFORE DELETE ON decisions
    BEGIN SELECT RAISE(ABORT, 'decisions are only ever added'); END;
CREATE TRIGGER undone_stay BEFORE UPDATE ON undone
    BEGIN SELECT RAISE(ABORT, 'decisions are only ever added'); END;
CREATE TRIGGER undone_remain BEFORE DELETE ON undone
    BEGIN SELECT RAISE(ABORT, 'decisions are only ever added'); END;
";

/// Columns of a decision, as [`decision`] reads them.
const COLUMNS: &str = "decisions.id, idx, digest, decisions.reviewer, verdict, mended, note,
    decisions.seconds, undone.reviewer, undone.seconds
    FROM decisions LEFT JOIN undone ON undone.decision = decisions.id";

/// What somebody thinks of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is good.
    Accept,
    /// It is not to be asked.
    Reject,
    /// It is good in other words.
    Mend,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Reject => "reject",
            Self::Mend => "mend",
        }
    }

    fn of(name: &str) -> Option<Self> {
        let all = [Self::Accept, Self::Reject, Self::Mend];
        all.into_iter().find(|verdict| verdict.name() == name)
    }
}

/// A question in other words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mended {
    /// The question alone.
    pub question: String,
    /// Texts of the options.
    pub choices: Vec<String>,
    /// Letter of the right one, such as `(B)`.
    pub answer: String,
}

impl Mended {
    /// Whether it can be asked.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let text = self.question.trim();
        if text.is_empty() || text.chars().count() > LONGEST {
            return Err(format!("a question has 1 to {LONGEST} characters"));
        }
        let count = self.choices.len();
        if !(2..=MOST_CHOICES).contains(&count) {
            return Err(format!(
                "a question has 2 to {MOST_CHOICES} options, not {count}"
            ));
        }
        for (place, choice) in self.choices.iter().enumerate() {
            if choice.trim().is_empty() || choice.chars().count() > LONGEST {
                return Err(format!(
                    "option {} has no text or too much",
                    lettered(place)
                ));
            }
            if self.choices.iter().take(place).any(|other| other == choice) {
                return Err(format!("the option `{choice}` is there twice"));
            }
        }
        match (0..count).any(|place| lettered(place) == self.answer) {
            true => Ok(()),
            false => Err(format!(
                "the answer `{}` is no letter of an option",
                self.answer
            )),
        }
    }
}

/// A decision about a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Counts up.
    pub id: i64,
    /// The question.
    pub idx: i64,
    /// Digest of the question as it was shown.
    pub digest: String,
    /// Who decided.
    pub reviewer: String,
    /// What.
    pub verdict: Verdict,
    /// The other words, if it was mended.
    pub mended: Option<Mended>,
    /// Why.
    pub note: String,
    /// When: seconds since 1970, UTC.
    pub seconds: i64,
    /// Who undid it and when, if somebody did.
    pub undone: Option<(String, i64)>,
}

/// How many questions stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "plain words")]
pub struct Counts {
    pub questions: usize,
    pub accepted: usize,
    pub mended: usize,
    pub rejected: usize,
    pub undecided: usize,
}

impl Counts {
    /// Counts the latest verdicts.
    #[must_use]
    pub fn of(questions: usize, current: &HashMap<i64, Decision>) -> Self {
        let count = |verdict| {
            let decisions = current.values();
            decisions
                .filter(|decision| decision.verdict == verdict)
                .count()
        };
        let (accepted, mended) = (count(Verdict::Accept), count(Verdict::Mend));
        let rejected = count(Verdict::Reject);
        Self {
            questions,
            accepted,
            mended,
            rejected,
            undecided: questions.saturating_sub(accepted + mended + rejected),
        }
    }
}

/// A database of decisions about one set of questions.
#[derive(Debug)]
pub struct Decisions {
    path: PathBuf,
    connection: Connection,
}

impl Decisions {
    /// Opens the database of some questions, or makes it.
    ///
    /// # Errors
    /// If it cannot be opened, is something else, or is about other questions.
    pub fn open(path: &Path, questions: &Published) -> Result<Self, CvBenchError> {
        let connection = Connection::open(path).map_err(failed(path))?;
        let mut decisions = Self {
            path: path.to_owned(),
            connection,
        };
        decisions.prepare(&questions.digest())?;
        Ok(decisions)
    }

    fn prepare(&mut self, digest: &str) -> Result<(), CvBenchError> {
        let path = self.path.clone();
        let connection = &mut self.connection;
        let foreign = |problem: String| CvBenchError::NotDecisions {
            path: path.clone(),
            problem,
        };
        connection
            .busy_timeout(Duration::from_secs(5))
            .map_err(failed(&path))?;
        let pragma = |connection: &Connection, name: &str| {
            connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0))
        };
        // The first read of a file that is no database fails here.
        let application = pragma(connection, "application_id");
        let application = application.map_err(|error| foreign(error.to_string()))?;
        let version = pragma(connection, "user_version").map_err(failed(&path))?;
        let transaction = connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(failed(&path))?;
        let objects = "SELECT count(*) FROM sqlite_schema";
        let objects: i64 = transaction
            .query_row(objects, [], |row| row.get(0))
            .map_err(failed(&path))?;
        if objects == 0 {
            transaction.execute_batch(TABLES).map_err(failed(&path))?;
            for (name, value) in [("application_id", APPLICATION), ("user_version", VERSION)] {
                transaction
                    .pragma_update(None, name, value)
                    .map_err(failed(&path))?;
            }
            transaction
                .execute("INSERT INTO about VALUES ('questions', ?1)", [digest])
                .map_err(failed(&path))?;
        } else if application != APPLICATION {
            return Err(foreign("its tables are another program's".to_owned()));
        } else if version != VERSION {
            return Err(foreign(format!(
                "its version is {version}, this program knows {VERSION}"
            )));
        }
        let sql = "SELECT value FROM about WHERE key = 'questions'";
        let found: Option<String> = transaction
            .query_row(sql, [], |row| row.get(0))
            .optional()
            .map_err(failed(&path))?;
        transaction.commit().map_err(failed(&path))?;
        match found {
            Some(found) if found == digest => Ok(()),
            found => Err(CvBenchError::OtherQuestions {
                path,
                found: short(&found.unwrap_or_default()),
                wanted: short(digest),
            }),
        }
    }

    /// Adds a decision.
    ///
    /// # Errors
    /// If the question has changed since it was shown, the other words cannot be asked, or the database
    /// fails.
    pub fn add(
        &mut self,
        question: &Question,
        digest: &str,
        reviewer: &str,
        verdict: Verdict,
        mended: Option<&Mended>,
        note: &str,
    ) -> Result<i64, CvBenchError> {
        let refuse = |problem: String| Err(CvBenchError::Decision { problem });
        if question.digest() != digest {
            return refuse("the question has changed since it was shown".to_owned());
        }
        if reviewer.trim().is_empty() {
            return refuse("a decision needs a reviewer".to_owned());
        }
        if note.chars().count() > LONGEST {
            return refuse(format!("a note has at most {LONGEST} characters"));
        }
        match (verdict, mended) {
            (Verdict::Mend, None) => return refuse("a mended question needs its words".to_owned()),
            (Verdict::Mend, Some(mended)) => {
                if let Err(problem) = mended.check() {
                    return refuse(problem);
                }
            }
            (_, Some(_)) => return refuse("only a mended question has other words".to_owned()),
            (_, None) => (),
        }
        let mended = mended.map(serde_json::to_string).transpose();
        let mended = mended.map_err(CvBenchError::json(&self.path))?;
        let sql = "INSERT INTO decisions (idx, digest, reviewer, verdict, mended, note, seconds)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let values = params![
            question.idx,
            digest,
            reviewer,
            verdict.name(),
            mended,
            note,
            now()
        ];
        self.connection
            .execute(sql, values)
            .map_err(failed(&self.path))?;
        Ok(self.connection.last_insert_rowid())
    }

    /// Undoes the latest decision of a reviewer, and says which question it was about.
    ///
    /// # Errors
    /// If the database fails.
    pub fn undo(&mut self, reviewer: &str) -> Result<Option<i64>, CvBenchError> {
        let path = &self.path;
        let transaction = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(failed(path))?;
        let sql = "SELECT id, idx FROM decisions
                   WHERE reviewer = ?1 AND id NOT IN (SELECT decision FROM undone)
                   ORDER BY id DESC LIMIT 1";
        let last: Option<(i64, i64)> = transaction
            .query_row(sql, [reviewer], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(failed(path))?;
        let Some((id, idx)) = last else {
            return Ok(None);
        };
        transaction
            .execute(
                "INSERT INTO undone VALUES (?1, ?2, ?3)",
                params![id, reviewer, now()],
            )
            .map_err(failed(path))?;
        transaction.commit().map_err(failed(path))?;
        Ok(Some(idx))
    }

    /// All decisions, the oldest first.
    ///
    /// # Errors
    /// If the database fails or holds something that is no decision.
    pub fn all(&self) -> Result<Vec<Decision>, CvBenchError> {
        self.select("ORDER BY decisions.id", None)
    }

    /// All decisions about a question, the oldest first.
    ///
    /// # Errors
    /// As [`Self::all`].
    pub fn about(&self, idx: i64) -> Result<Vec<Decision>, CvBenchError> {
        self.select("WHERE idx = ?1 ORDER BY decisions.id", Some(idx))
    }

    /// The latest decision about each question that has one.
    ///
    /// # Errors
    /// As [`Self::all`].
    pub fn current(&self) -> Result<HashMap<i64, Decision>, CvBenchError> {
        let decisions = self.all()?.into_iter();
        let standing = decisions.filter(|decision| decision.undone.is_none());
        Ok(standing.map(|decision| (decision.idx, decision)).collect())
    }

    /// How many decisions of each reviewer stand.
    ///
    /// # Errors
    /// As [`Self::all`].
    pub fn reviewers(&self) -> Result<BTreeMap<String, usize>, CvBenchError> {
        let mut reviewers = BTreeMap::new();
        for decision in self.all()? {
            if decision.undone.is_none() {
                *reviewers.entry(decision.reviewer).or_default() += 1;
            }
        }
        Ok(reviewers)
    }

    /// Writes all decisions as JSONL, undone ones too.
    ///
    /// # Errors
    /// As [`Self::all`], or if `out` cannot be written to.
    pub fn export(&self, out: &mut dyn Write) -> Result<(), CvBenchError> {
        for decision in self.all()? {
            let line = serde_json::to_string(&decision).map_err(CvBenchError::json(&self.path))?;
            writeln!(out, "{line}").map_err(CvBenchError::write(&self.path))?;
        }
        Ok(())
    }

    fn select(&self, condition: &str, idx: Option<i64>) -> Result<Vec<Decision>, CvBenchError> {
        let fail = || failed(&self.path);
        let sql = format!("SELECT {COLUMNS} {condition}");
        let mut statement = self.connection.prepare(&sql).map_err(fail())?;
        let rows = match idx {
            Some(idx) => statement.query_map([idx], decision),
            None => statement.query_map([], decision),
        };
        let rows: Result<Vec<_>, _> = rows.map_err(fail())?.collect();
        let rows: Result<Vec<Decision>, String> = rows.map_err(fail())?.into_iter().collect();
        rows.map_err(|problem| CvBenchError::NotDecisions {
            path: self.path.clone(),
            problem,
        })
    }
}

fn decision(row: &Row<'_>) -> rusqlite::Result<Result<Decision, String>> {
    let id: i64 = row.get(0)?;
    let verdict: String = row.get(4)?;
    let Some(verdict) = Verdict::of(&verdict) else {
        return Ok(Err(format!("decision {id} is `{verdict}`")));
    };
    let mended: Option<String> = row.get(5)?;
    let mended = mended.as_deref().map(serde_json::from_str).transpose();
    let mended = match mended {
        Ok(mended) => mended,
        Err(error) => return Ok(Err(format!("the words of decision {id}: {error}"))),
    };
    let undone: (Option<String>, Option<i64>) = (row.get(8)?, row.get(9)?);
    Ok(Ok(Decision {
        id,
        idx: row.get(1)?,
        digest: row.get(2)?,
        reviewer: row.get(3)?,
        verdict,
        mended,
        note: row.get(6)?,
        seconds: row.get(7)?,
        undone: undone.0.zip(undone.1),
    }))
}

fn failed(path: &Path) -> impl FnOnce(rusqlite::Error) -> CvBenchError {
    let path = path.to_owned();
    move |source| CvBenchError::Database { path, source }
}

fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}
