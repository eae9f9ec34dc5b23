//! The one who answers: a thread that owns the model.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use opabinia_image::RgbImage;
use opabinia_llm::Conversation;
use opabinia_model::{Answer, Generation, Model, Session};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::refusal::Refusal;

/// A question that waits.
struct Job {
    question: Question,
    events: UnboundedSender<Event>,
}

/// What the worker is asked.
pub(crate) struct Question {
    pub conversation: Conversation,
    /// In the order of their placeholders.
    pub pictures: Vec<RgbImage>,
    pub generation: Generation,
}

/// What it says to it.
pub(crate) enum Event {
    /// The next piece of the answer; never empty.
    Text(String),
    /// The whole of it. Nothing follows.
    Done(Box<Answer>),
    /// There is none. Nothing follows.
    Failed(Refusal),
}

/// Where questions are handed in.
#[derive(Clone)]
pub(crate) struct Desk {
    jobs: SyncSender<Job>,
    /// Questions that wait or are being answered.
    open: Arc<AtomicUsize>,
}

impl Desk {
    /// Hands in a question. Whoever drops what this returns no longer wants the answer.
    pub fn ask(&self, question: Question) -> Result<UnboundedReceiver<Event>, Refusal> {
        let (events, answer) = unbounded_channel();
        self.open.fetch_add(1, Ordering::SeqCst);
        let refused = match self.jobs.try_send(Job { question, events }) {
            Ok(()) => return Ok(answer),
            Err(TrySendError::Full(_)) => Refusal::busy(self.open() - 1),
            Err(TrySendError::Disconnected(_)) => Refusal::server("the server is ending"),
        };
        self.open.fetch_sub(1, Ordering::SeqCst);
        Err(refused)
    }

    /// Questions that wait or are being answered.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

/// Starts the worker. It ends when nobody can hand in questions any more, or with the next token after `stop`.
pub(crate) fn start(
    model: Model,
    queue: usize,
    stop: impl Fn() -> bool + Send + 'static,
) -> (Desk, JoinHandle<()>) {
    let (jobs, received) = sync_channel(queue);
    let open = Arc::new(AtomicUsize::new(0));
    let desk = Desk {
        jobs,
        open: open.clone(),
    };
    let thread = std::thread::spawn(move || work(&model, &received, &open, &stop));
    (desk, thread)
}

fn work(model: &Model, jobs: &Receiver<Job>, open: &AtomicUsize, stop: &dyn Fn() -> bool) {
    let mut session = Session::new(model);
    for job in jobs {
        // What a bug leaves half-done is not gone on with.
        let done = catch_unwind(AssertUnwindSafe(|| answer(&mut session, &job, stop)));
        let event = match done {
            Ok(event) => event,
            Err(_) => {
                session = Session::new(model);
                Event::Failed(Refusal::server("a bug: see the server's log"))
            }
        };
        open.fetch_sub(1, Ordering::SeqCst);
        // Whoever has left is told nothing.
        let _ = job.events.send(event);
    }
}

fn answer(session: &mut Session<'_>, job: &Job, stop: &dyn Fn() -> bool) -> Event {
    let Job { question, events } = job;
    let unwanted = || events.is_closed() || stop();
    if unwanted() {
        return Event::Failed(Refusal::server("the server is ending"));
    }
    let mut seen = Vec::with_capacity(question.pictures.len());
    for picture in &question.pictures {
        match session.see(picture) {
            Ok((picture, _)) => seen.push(picture),
            Err(error) => return Event::Failed(Refusal::request("messages", told(&error))),
        }
    }
    let mut begun = false;
    let mut say = |_: usize, piece: &str| {
        let piece = if begun { piece } else { piece.trim_start() };
        if !piece.is_empty() {
            begun = true;
            let _ = events.send(Event::Text(piece.to_owned()));
        }
        !unwanted()
    };
    let Question {
        conversation,
        generation,
        ..
    } = question;
    match session.answer(conversation, &seen, generation, &mut say) {
        Ok(answer) => Event::Done(Box::new(answer)),
        Err(error) => Event::Failed(Refusal::request("messages", told(&error))),
    }
}

/// An error and what caused it, in one line.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
