//! The one who answers: a thread that owns the model.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use opabinia_image::{ImageLimits, ImageSource, RgbImage, load};
use opabinia_llm::Conversation;
use opabinia_model::{Answer, Generation, ImagePosition, Model, ModelError, Session};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::refusal::Refusal;

/// A question that waits.
struct Job {
    question: Question,
    events: UnboundedSender<Event>,
}

/// What the worker is asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Question {
    pub conversation: Conversation,
    /// `data:` URLs in the order of their placeholders. They are decoded when it is their turn, so that what
    /// waits is no larger than what was sent.
    pub pictures: Vec<ImageSource>,
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
pub(crate) struct Desk(Arc<Counter>);

struct Counter {
    state: Mutex<State>,
    changed: Condvar,
    /// Questions that may wait.
    queue: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    /// Whether one is being answered.
    busy: bool,
    closed: bool,
}

impl Desk {
    fn new(queue: usize) -> Self {
        Self(Arc::new(Counter {
            state: Mutex::default(),
            changed: Condvar::new(),
            queue,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands in a question. Whoever drops what this returns no longer wants the answer, and leaves the queue.
    pub fn ask(&self, question: Question) -> Result<UnboundedReceiver<Event>, Refusal> {
        let (events, answer) = unbounded_channel();
        let mut state = self.state();
        if state.closed {
            return Err(Refusal::ending());
        }
        state.waiting.retain(|job| !job.events.is_closed());
        // Where nothing is being answered the first does not wait.
        let room = self.0.queue + usize::from(!state.busy);
        if state.waiting.len() >= room {
            return Err(Refusal::busy(state.waiting.len()));
        }
        state.waiting.push_back(Job { question, events });
        drop(state);
        self.0.changed.notify_one();
        Ok(answer)
    }

    /// Questions that wait or are being answered.
    pub fn open(&self) -> usize {
        let mut state = self.state();
        state.waiting.retain(|job| !job.events.is_closed());
        state.waiting.len() + usize::from(state.busy)
    }

    /// Takes no more questions. The worker ends, and whoever waits is told.
    pub fn close(&self) {
        self.state().closed = true;
        self.0.changed.notify_all();
    }

    /// The next question that somebody waits for; none once the desk is closed.
    fn next(&self) -> Option<Job> {
        let mut state = self.state();
        state.busy = false;
        loop {
            if state.closed {
                for job in state.waiting.drain(..) {
                    let _ = job.events.send(Event::Failed(Refusal::ending()));
                }
                return None;
            }
            match state.waiting.pop_front() {
                Some(job) if job.events.is_closed() => {}
                Some(job) => {
                    state.busy = true;
                    return Some(job);
                }
                None => {
                    let woken = self.0.changed.wait(state);
                    state = woken.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

/// Starts the worker. It ends when the desk is closed; an answer under way then ends with its next token.
pub(crate) fn start(model: Model, queue: usize, limits: ImageLimits) -> (Desk, JoinHandle<()>) {
    let desk = Desk::new(queue);
    let worker = desk.clone();
    let thread = std::thread::spawn(move || work(&model, &worker, &limits));
    (desk, thread)
}

fn work(model: &Model, desk: &Desk, limits: &ImageLimits) {
    let mut session = Session::new(model);
    while let Some(job) = desk.next() {
        let unwanted = || job.events.is_closed() || desk.state().closed;
        // What a bug leaves half-done is not gone on with.
        let done = catch_unwind(AssertUnwindSafe(|| {
            answer(model, &mut session, &job, limits, &unwanted)
        }));
        let event = match done {
            Ok(Ok(answer)) => Event::Done(Box::new(answer)),
            Ok(Err(refusal)) => Event::Failed(refusal),
            Err(_) => {
                session = Session::new(model);
                Event::Failed(Refusal::server("a bug: see the server's log"))
            }
        };
        // Whoever has left is told nothing.
        let _ = job.events.send(event);
    }
}

fn answer(
    model: &Model,
    session: &mut Session<'_>,
    job: &Job,
    limits: &ImageLimits,
    unwanted: &dyn Fn() -> bool,
) -> Result<Answer, Refusal> {
    let Job { question, events } = job;
    let mut seen = Vec::with_capacity(question.pictures.len());
    // All pictures together have no more pixels than one may have.
    let mut left = *limits;
    for (i, source) in question.pictures.iter().enumerate() {
        let picture = decoded(i, source, &left)?;
        left.max_pixels -= u64::from(picture.width()) * u64::from(picture.height());
        if unwanted() {
            return Err(Refusal::ending());
        }
        seen.push(session.see(&picture).map_err(|error| refused(&error))?.0);
    }
    let mut generation = question.generation.clone();
    // A system text of another length moves the picture; layers inside the language model go with it.
    let misplaced = model.misplaced_image(&question.conversation, &generation);
    if misplaced.map_err(|error| refused(&error))?.is_some() {
        generation.image_position = ImagePosition::Actual;
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
    let answer = session.answer(&question.conversation, &seen, &generation, &mut say);
    answer.map_err(|error| refused(&error))
}

fn decoded(i: usize, source: &ImageSource, limits: &ImageLimits) -> Result<RgbImage, Refusal> {
    load(source, limits).map_err(|error| {
        let together = match i {
            0 => "",
            _ => " (all pictures together may have as many pixels as one)",
        };
        let message = format!(
            "picture {} cannot be used{together}: {}",
            i + 1,
            told(&error)
        );
        Refusal::request("messages", message)
    })
}

/// What the request could have avoided is its fault, and all else the server's.
fn refused(error: &ModelError) -> Refusal {
    match error {
        ModelError::TooLong { .. }
        | ModelError::TextOnly
        | ModelError::Template(_)
        | ModelError::Prepare(_)
        | ModelError::EmptyPrompt
        | ModelError::Placeholders { .. } => Refusal::request("messages", told(error)),
        other => Refusal::server(told(other)),
    }
}

/// An error and what caused it, in one line.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            conversation: Conversation::new(Vec::new()),
            pictures: Vec::new(),
            generation: Generation::default(),
        }
    }

    #[test]
    fn who_leaves_gives_his_place_to_the_next() {
        let desk = Desk::new(1);
        let first = desk.ask(question()).unwrap();
        let under_way = desk.next().unwrap();
        let second = desk.ask(question()).unwrap();
        assert_eq!(desk.open(), 2);
        assert!(desk.ask(question()).is_err(), "one may wait");
        drop(second);
        assert_eq!(desk.open(), 1);
        let third = desk.ask(question()).unwrap();
        assert_eq!(desk.open(), 2);
        assert!(!under_way.events.is_closed());
        drop(first);
        assert!(under_way.events.is_closed());
        drop(third);
        let mut last = desk.ask(question()).unwrap();
        desk.close();
        assert!(desk.next().is_none());
        let told = last.blocking_recv();
        assert!(matches!(told, Some(Event::Failed(why)) if why == Refusal::ending()));
        assert!(desk.ask(question()).is_err());
    }

    #[test]
    fn without_a_queue_there_is_one_at_a_time() {
        let desk = Desk::new(0);
        let _first = desk.ask(question()).unwrap();
        let _job = desk.next().unwrap();
        assert!(desk.ask(question()).is_err());
    }
}
