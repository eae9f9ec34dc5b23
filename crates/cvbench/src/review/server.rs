//! The page and what it asks for.
//!
//! ```text
//! GET  /                       the page
//! GET  /api/session            who reviews, and how every question stands
//! GET  /api/questions/{place}  a question and its decisions
//! GET  /api/pictures/{place}   its picture
//! POST /api/decisions          decide
//! POST /api/undo               undo the reviewer's latest decision
//! GET  /api/export.jsonl       all decisions
//! ```
//!
//! One person looks at one question at a time, so a few threads that each answer one request after
//! the other are enough.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use opabinia_eval::in_full;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tiny_http::{Method, Request, Response, Server};

use super::decisions::{Counts, Decision, Decisions, Mended, Verdict};
use super::guard::{Guard, Head};
use crate::error::CvBenchError;
use crate::published::Published;
use crate::question::Question;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Bytes that a request may send.
const LONGEST_BODY: u64 = 64 * 1024;
/// Requests that are answered at the same time.
const THREADS: usize = 4;

/// A review of a CV-Bench by one person.
#[derive(Debug)]
pub struct Review {
    /// The questions, with their pictures stored.
    pub questions: Published,
    /// What was decided.
    pub decisions: Decisions,
    /// Who reviews.
    pub reviewer: String,
}

/// Serves the page on this machine until the process ends. `ready` is told where; port 0 lets the
/// system choose one.
///
/// # Errors
/// If the port cannot be listened on.
pub fn serve(
    review: Review,
    port: u16,
    ready: &mut dyn FnMut(SocketAddr),
) -> Result<(), CvBenchError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let failed = |source: io::Error| CvBenchError::Serve {
        address: address.to_string(),
        source,
    };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    let found = listener.local_addr().map_err(failed)?;
    let server = Server::from_listener(listener, None);
    let server = server.map_err(|error| failed(io::Error::other(error)))?;
    let desk = Desk {
        guard: Guard::new(found, SCRIPT, STYLE),
        questions: review.questions,
        decisions: Mutex::new(review.decisions),
        reviewer: review.reviewer,
    };
    ready(found);
    std::thread::scope(|threads| {
        for _ in 0..THREADS {
            threads.spawn(|| {
                while let Ok(request) = server.recv() {
                    desk.serve(request);
                }
            });
        }
    });
    Ok(())
}

/// Answers requests.
struct Desk {
    guard: Guard,
    questions: Published,
    decisions: Mutex<Decisions>,
    reviewer: String,
}

/// An answer.
struct Reply {
    status: u16,
    kind: &'static str,
    body: Vec<u8>,
}

impl Reply {
    fn json(value: &impl Serialize) -> Result<Self, Refused> {
        let body = serde_json::to_vec(value);
        let body = body.map_err(|error| Refused(500, error.to_string()))?;
        Ok(Self {
            status: 200,
            kind: "application/json",
            body,
        })
    }
}

/// Why a request has no answer.
struct Refused(u16, String);

impl From<CvBenchError> for Refused {
    fn from(error: CvBenchError) -> Self {
        let status = match error {
            CvBenchError::Decision { .. } => 422,
            _ => 500,
        };
        Self(status, in_full(&error))
    }
}

impl From<Refused> for Reply {
    fn from(Refused(status, problem): Refused) -> Self {
        Self {
            status,
            kind: "application/json",
            body: json!({"error": problem}).to_string().into_bytes(),
        }
    }
}

/// How everything stands; one letter for each question keeps thousands of them small.
#[derive(Serialize)]
struct Session<'a> {
    reviewer: &'a str,
    folder: String,
    counts: Counts,
    /// `.` undecided, `a` accepted, `m` mended, `r` rejected.
    standing: String,
    tasks: Vec<&'static str>,
}

#[derive(Serialize)]
struct Shown<'a> {
    place: usize,
    digest: String,
    question: &'a Question,
    /// All decisions about it, the oldest first.
    decisions: Vec<Decision>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    place: usize,
    digest: String,
    verdict: Verdict,
    #[serde(default)]
    mended: Option<Mended>,
    #[serde(default)]
    note: String,
}

impl Desk {
    fn serve(&self, mut request: Request) {
        let head = head(&request);
        let reply = match self.guard.refuse(&head) {
            Some((status, problem)) => Err(Refused(status, problem.to_owned())),
            None => body(&mut request).and_then(|body| self.answer(&head, &body)),
        };
        let reply = reply.unwrap_or_else(Reply::from);
        let mut response = Response::from_data(reply.body).with_status_code(reply.status);
        let headers = self.guard.headers().into_iter();
        for (name, value) in headers.chain([("Content-Type", reply.kind)]) {
            if let Ok(header) = tiny_http::Header::from_bytes(name, value) {
                response.add_header(header);
            }
        }
        // Nobody is left to tell if the browser went away.
        let _ = request.respond(response);
    }

    fn answer(&self, head: &Head, body: &[u8]) -> Result<Reply, Refused> {
        let parts: Vec<&str> = head.path.split('/').skip(1).collect();
        match (head.reads, &parts[..]) {
            (true, [""]) => Ok(page()),
            (true, ["api", "session"]) => self.session(),
            (true, ["api", "questions", place]) => self.question(number(place)?),
            (true, ["api", "pictures", place]) => self.picture(number(place)?),
            (true, ["api", "export.jsonl"]) => self.export(),
            (false, ["api", "decisions"]) => self.decide(&parsed(body)?),
            (false, ["api", "undo"]) => self.undo(),
            _ => Err(Refused(404, format!("there is no {}", head.path))),
        }
    }

    fn decisions(&self) -> MutexGuard<'_, Decisions> {
        // Every change is one transaction, so a panic elsewhere leaves nothing half done.
        self.decisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, place: usize) -> Result<&Question, Refused> {
        let questions = &self.questions.questions;
        questions.get(place).ok_or_else(|| {
            let last = questions.len().saturating_sub(1);
            Refused(
                404,
                format!("there is no question {place}: they are 0 to {last}"),
            )
        })
    }

    fn session(&self) -> Result<Reply, Refused> {
        let current = self.decisions().current()?;
        let questions = &self.questions.questions;
        let letter = |question: &Question| match current.get(&question.idx) {
            None => '.',
            Some(decision) => match decision.verdict {
                Verdict::Accept => 'a',
                Verdict::Mend => 'm',
                Verdict::Reject => 'r',
            },
        };
        Reply::json(&Session {
            reviewer: &self.reviewer,
            folder: self.questions.root().display().to_string(),
            counts: Counts::of(questions.len(), &current),
            standing: questions.iter().map(letter).collect(),
            tasks: questions
                .iter()
                .map(|question| question.task.name())
                .collect(),
        })
    }

    fn question(&self, place: usize) -> Result<Reply, Refused> {
        let question = self.at(place)?;
        Reply::json(&Shown {
            place,
            digest: question.digest(),
            question,
            decisions: self.decisions().about(question.idx)?,
        })
    }

    fn picture(&self, place: usize) -> Result<Reply, Refused> {
        let bytes = self.questions.picture(self.at(place)?)?;
        let kind = match &bytes[..] {
            [0xff, 0xd8, ..] => "image/jpeg",
            [b'G', b'I', b'F', ..] => "image/gif",
            [b'R', b'I', b'F', b'F', ..] => "image/webp",
            _ => "image/png",
        };
        Ok(Reply {
            status: 200,
            kind,
            body: bytes.to_vec(),
        })
    }

    fn decide(&self, wanted: &Wanted) -> Result<Reply, Refused> {
        let question = self.at(wanted.place)?;
        let id = self.decisions().add(
            question,
            &wanted.digest,
            &self.reviewer,
            wanted.verdict,
            wanted.mended.as_ref(),
            wanted.note.trim(),
        )?;
        Reply::json(&json!({"id": id}))
    }

    fn undo(&self) -> Result<Reply, Refused> {
        let undone = self.decisions().undo(&self.reviewer)?;
        let mut questions = self.questions.questions.iter();
        let place = undone.and_then(|idx| questions.position(|question| question.idx == idx));
        match place {
            Some(place) => Reply::json(&json!({"place": place})),
            None => Err(Refused(
                409,
                format!("{} has nothing to undo", self.reviewer),
            )),
        }
    }

    fn export(&self) -> Result<Reply, Refused> {
        let mut body = Vec::new();
        self.decisions().export(&mut body)?;
        Ok(Reply {
            status: 200,
            kind: "application/jsonl",
            body,
        })
    }
}

fn page() -> Reply {
    let page = PAGE
        .replace("/*style*/", STYLE)
        .replace("/*script*/", SCRIPT);
    Reply {
        status: 200,
        kind: "text/html; charset=utf-8",
        body: page.into_bytes(),
    }
}

fn head(request: &Request) -> Head {
    let url = request.url();
    let headers = request.headers().iter();
    let text = |header: &tiny_http::Header| {
        let name = header.field.as_str().as_str().to_ascii_lowercase();
        (name, header.value.as_str().to_owned())
    };
    Head {
        reads: matches!(request.method(), Method::Get | Method::Head),
        path: url.split_once('?').map_or(url, |(path, _)| path).to_owned(),
        headers: headers.map(text).collect(),
    }
}

fn body(request: &mut Request) -> Result<Vec<u8>, Refused> {
    let mut body = Vec::new();
    let mut reader = request.as_reader().take(LONGEST_BODY + 1);
    let read = reader.read_to_end(&mut body);
    read.map_err(|error| Refused(400, format!("the request broke off: {error}")))?;
    match body.len() as u64 > LONGEST_BODY {
        true => Err(Refused(413, format!("more than {LONGEST_BODY} bytes"))),
        false => Ok(body),
    }
}

fn number(text: &str) -> Result<usize, Refused> {
    let number = text.parse();
    number.map_err(|_| Refused(404, format!("`{text}` is no number of a question")))
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body)
        .map_err(|error| Refused(400, format!("it is no decision: {error}")))
}
