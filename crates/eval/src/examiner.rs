//! Asking a model.
//!
//! A worker is a thread with a pool of its own for the operations inside the network: a small model's
//! operations do not divide well, so a question per core beats a question on all cores. Each question
//! is read and answered by itself, greedily, from an empty cache, so that its answer depends neither
//! on the number of workers nor on what was asked before, and a resumed run ends with the scores of
//! one that was never stopped.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use burn::prelude::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::candidate::{Candidate, Who};
use crate::error::EvalError;
use crate::items::Items;
use crate::judging::judge;
use crate::plan::{Appearance, Ask, Job, Shown, Unit};
use crate::record::{Answered, Outcome, Record};
use crate::respondent::{Look, Refusal, Respondent};
use crate::run::EvalOptions;
use crate::vision::Vision;

/// How many questions a served model is asked side by side, if nobody says.
const SERVED_WORKERS: usize = 4;

/// Receives each record; an error or a break ends the asking.
type OnRecord<'a> = dyn FnMut(Record) -> Result<ControlFlow<()>, EvalError> + 'a;

/// Digest of the settings of each benchmark and way of asking.
pub type SettingsOf = BTreeMap<(usize, Vision), String>;

/// Who asks.
pub struct Examiner<'a> {
    candidate: &'a Candidate<'a>,
    respondent: Respondent<'a>,
    items: &'a Items,
    options: &'a EvalOptions,
    settings: &'a SettingsOf,
}

/// An answer without its judgement.
type Raw = Result<Answered, String>;

impl<'a> Examiner<'a> {
    /// Who asks a candidate.
    pub fn new(
        candidate: &'a Candidate<'a>,
        items: &'a Items,
        options: &'a EvalOptions,
        settings: &'a SettingsOf,
    ) -> Self {
        Self {
            candidate,
            respondent: Respondent::new(candidate.who, options),
            items,
            options,
            settings,
        }
    }

    /// A pool for each worker; together they have the processor's cores.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn pools(&self, units: usize) -> Result<Vec<ThreadPool>, EvalError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let side_by_side = match self.candidate.who {
            Who::Local(model) if model.device == Device::flex() => cores,
            Who::Local(_) => 1,
            Who::Served(_) => SERVED_WORKERS,
        };
        let wanted = self.options.workers.unwrap_or(side_by_side);
        let workers = wanted.min(units).max(1);
        let threads = (cores / workers).max(1);
        let pool = |worker| {
            ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(move |thread| format!("eval-{worker}-{thread}"))
                .build()
                .map_err(|source| EvalError::Threads {
                    threads: workers * threads,
                    source,
                })
        };
        (0..workers).map(pool).collect()
    }

    /// Asks everything, a unit per worker at a time.
    ///
    /// # Errors
    /// What `on_record` gives, and if nobody answers.
    pub fn ask_all(
        &self,
        units: &[Unit],
        pools: &[ThreadPool],
        on_record: &mut OnRecord<'_>,
    ) -> Result<(), EvalError> {
        let queue = Queue {
            units,
            next: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        };
        std::thread::scope(|scope| {
            let (sender, records) = mpsc::channel();
            for pool in pools {
                let (sender, queue) = (sender.clone(), &queue);
                scope.spawn(move || pool.install(|| self.work(queue, &sender)));
            }
            drop(sender);
            let mut result = Ok(());
            for record in records {
                let go_on = record.and_then(&mut *on_record);
                if !matches!(go_on, Ok(ControlFlow::Continue(()))) {
                    queue.stopped.store(true, Ordering::Relaxed);
                }
                result = result.and(go_on.map(|_| ()));
            }
            result
        })
    }

    /// One worker's part.
    fn work(&self, queue: &Queue<'_>, records: &mpsc::Sender<Result<Record, EvalError>>) {
        while let Some(unit) = queue.take() {
            // Whoever has all answers need not look.
            let unknown = unit.jobs.iter().any(|job| job.known.is_none());
            let look = if unknown {
                self.look(unit.shown)
            } else {
                Ok(None)
            };
            for job in &unit.jobs {
                if queue.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let raw = match self.answer(job, look.as_ref().map(Option::as_ref)) {
                    Ok(raw) => raw,
                    Err(error) => {
                        // The other side may be gone already.
                        let _ = records.send(Err(error));
                        return;
                    }
                };
                for (place, ask) in job.asks.iter().enumerate() {
                    let reused = place > 0 || job.known.is_some();
                    let record = self.record(*ask, raw.clone(), reused);
                    if records.send(Ok(record)).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Looks at what is shown; `None` where that is nothing, the reason where it cannot be shown.
    fn look(&self, shown: Shown) -> Result<Option<Look>, String> {
        match shown.picture {
            Some(picture) if shown.as_what != Appearance::Nothing => {
                let data = &self.items.pictures[picture];
                self.respondent.look(data, shown.as_what).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Answers a job once for all of its questions.
    fn answer(&self, job: &Job, look: Result<Option<&Look>, &String>) -> Result<Raw, EvalError> {
        if let Some(known) = &job.known {
            return Ok(Ok(known.clone()));
        }
        let (Ok(look), Some(ask)) = (look, job.asks.first()) else {
            return Ok(Err(look.err().cloned().unwrap_or_default()));
        };
        let set = &self.items.sets[ask.set];
        let prompt = &set.items[ask.item].prompt;
        let limit = self.options.max_new_tokens(set);
        match self.respondent.answer(prompt, look, limit) {
            Err(Refusal::All(error)) => Err(error),
            Err(Refusal::Question(problem)) => Ok(Err(problem)),
            Ok(reply) => Ok(Ok(Answered {
                asked: job.asked.clone(),
                prompt_sha256: reply.prompt_sha256,
                picture: look.map(|look| look.hash.clone()),
                answer: reply.text,
                score: None,
                extracted: String::new(),
                parsed: false,
                judge: None,
                unscored: None,
                reused: false,
                cut_off: reply.cut_off,
                seconds: reply.seconds,
                prompt_tokens: reply.prompt_tokens,
                visual_tokens: reply.visual_tokens,
                answer_tokens: reply.answer_tokens,
            })),
        }
    }

    fn record(&self, ask: Ask, raw: Raw, reused: bool) -> Record {
        let set = &self.items.sets[ask.set];
        let item = &set.items[ask.item];
        let outcome = match raw {
            Err(error) => Outcome::Failed { error },
            Ok(answered) => {
                let model = self.options.judge.as_ref();
                let verdict = judge(&set.rules, model, item, &answered.answer);
                Outcome::Answered(Answered {
                    score: verdict.score,
                    extracted: verdict.extracted,
                    parsed: verdict.parsed,
                    judge: verdict.judge,
                    unscored: verdict.unscored,
                    reused,
                    ..answered
                })
            }
        };
        let own = item.picture.map(|picture| &self.items.pictures[picture]);
        Record {
            benchmark: set.benchmark.clone(),
            id: item.id.clone(),
            index: ask.item,
            settings: self.settings[&(ask.set, ask.vision)].clone(),
            vision: ask.vision,
            group: item.group.clone(),
            task: item.task.clone(),
            unit: item.unit.clone(),
            source: item.source.clone(),
            own_picture: own.map(|picture| picture.sha256.clone()),
            prompt: item.prompt.clone(),
            expected: item.expected(),
            chance: item.chance,
            outcome,
        }
    }
}

/// Units that wait for a worker.
struct Queue<'a> {
    units: &'a [Unit],
    next: AtomicUsize,
    stopped: AtomicBool,
}

impl Queue<'_> {
    fn take(&self) -> Option<&Unit> {
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        self.units.get(self.next.fetch_add(1, Ordering::Relaxed))
    }
}
