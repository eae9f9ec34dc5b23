//! Asking a model.
//!
//! A worker is a thread with a pool of its own for the operations inside the network: a small model's
//! operations do not divide well, so a question per core beats a question on all cores. A GPU wants
//! several at once: then questions of similar length are answered together, each in a row of its own with
//! padding that nobody attends to ([`crate::batches`]). Each is answered greedily, from an empty cache, so
//! that its answer depends neither on workers and batches nor on what was asked before, and a resumed run
//! ends with the scores of one that was never stopped.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use burn::prelude::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::candidate::{Candidate, Who};
use crate::error::EvalError;
use crate::feature_cache::FeatureCache;
use crate::items::Items;
use crate::judging::judge;
use crate::plan::{Appearance, Ask, Job, Shown, Unit};
use crate::record::{Answered, Outcome, Record};
use crate::respondent::{Asked, Look, Refusal, Respondent};
use crate::run::EvalOptions;
use crate::vision::Vision;

/// How many questions a served model is asked side by side, if nobody says.
const SERVED_WORKERS: usize = 4;

/// Batches' worth of questions that are sorted by length together.
const CHOICE: usize = 4;

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

/// Nobody wants more records.
struct Gone;

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

    /// One worker's part: a unit at a time, or as many as give batches a choice of lengths.
    fn work(&self, queue: &Queue<'_>, records: &mpsc::Sender<Result<Record, EvalError>>) {
        let wanted = match self.options.batch {
            0 | 1 => 1,
            batch => CHOICE * batch,
        };
        loop {
            let mut units = Vec::new();
            let mut jobs = 0;
            while jobs < wanted
                && let Some(unit) = queue.take()
            {
                jobs += unit.jobs.len();
                units.push(unit);
            }
            if units.is_empty() || self.units(&units, queue, records).is_err() {
                return;
            }
        }
    }

    /// Looks, asks, and sends records; an error means that nobody wants more of them.
    fn units(
        &self,
        units: &[&Unit],
        queue: &Queue<'_>,
        records: &mpsc::Sender<Result<Record, EvalError>>,
    ) -> Result<(), Gone> {
        // Whoever has all answers need not look.
        let looks: Vec<Result<Option<Look>, String>> = units
            .iter()
            .map(
                |unit| match unit.jobs.iter().any(|job| job.known.is_none()) {
                    true => self.look(unit.shown),
                    false => Ok(None),
                },
            )
            .collect();
        let jobs = units.iter().zip(&looks);
        let jobs: Vec<(&Job, Result<Option<&Look>, &String>)> = jobs
            .flat_map(|(unit, look)| {
                let look = look.as_ref().map(Option::as_ref);
                unit.jobs.iter().map(move |job| (job, look))
            })
            .collect();
        // What is asked alone is kept at once.
        let together = match self.options.batch {
            0 | 1 => 1,
            _ => jobs.len().max(1),
        };
        for jobs in jobs.chunks(together) {
            if queue.stopped.load(Ordering::Relaxed) {
                return Err(Gone);
            }
            for (&(job, _), raw) in jobs.iter().zip(self.answers(jobs)) {
                let raw = match raw {
                    Ok(raw) => raw,
                    Err(error) => {
                        // The other side may be gone already.
                        let _ = records.send(Err(error));
                        return Err(Gone);
                    }
                };
                for (place, ask) in job.asks.iter().enumerate() {
                    let reused = place > 0 || job.known.is_some();
                    let record = self.record(*ask, raw.clone(), reused);
                    records.send(Ok(record)).map_err(|_| Gone)?;
                }
            }
        }
        Ok(())
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

    /// Answers jobs, each once for all of its questions.
    fn answers(
        &self,
        jobs: &[(&Job, Result<Option<&Look>, &String>)],
    ) -> Vec<Result<Raw, EvalError>> {
        let mut questions = Vec::new();
        for (job, look) in jobs {
            if let (None, Ok(look), Some(ask)) = (&job.known, look, job.asks.first()) {
                let set = &self.items.sets[ask.set];
                questions.push(Asked {
                    prompt: &set.items[ask.item].prompt,
                    look: *look,
                    max_new_tokens: self.options.max_new_tokens(set),
                });
            }
        }
        let mut replies = self.respondent.answer(&questions).into_iter();
        let each = jobs.iter().map(|(job, look)| {
            if let Some(known) = &job.known {
                return Ok(Ok(known.clone()));
            }
            let (Ok(look), Some(_)) = (look, job.asks.first()) else {
                return Ok(Err(look.err().cloned().unwrap_or_default()));
            };
            match replies.next() {
                None => Ok(Err("there is no reply".to_owned())),
                Some(Err(Refusal::All(error))) => Err(error),
                Some(Err(Refusal::Question(problem))) => Ok(Err(problem)),
                Some(Ok(reply)) => Ok(Ok(Answered {
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
        });
        each.collect()
    }

    /// The cache of features, if there is one.
    pub fn features(&self) -> Option<&FeatureCache<'a>> {
        self.respondent.features()
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
