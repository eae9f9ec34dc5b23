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
use std::sync::{Arc, mpsc};

use burn::prelude::Device;
use opabinia_image::{ImageSource, RgbImage};
use opabinia_llm::{Conversation, SamplingOptions, StopReason};
use opabinia_model::{Generation, Model, ModelError, Seen};
use opabinia_nn::Trace;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::digest;
use crate::error::{EvalError, in_full};
use crate::plan::{Appearance, Ask, Shown, Unit};
use crate::questions::{Question, QuestionSet};
use crate::record::{Answered, Outcome, Record};
use crate::run::EvalOptions;
use crate::vision::Vision;

/// Of a blank picture.
const GREY: [u8; 3] = [128; 3];

/// Receives each record; an error or a break ends the asking.
type OnRecord<'a> = dyn FnMut(Record) -> Result<ControlFlow<()>, EvalError> + 'a;

/// Who asks.
pub struct Examiner<'a> {
    model: &'a Model,
    set: &'a QuestionSet,
    options: &'a EvalOptions,
    generation: Generation,
    /// Digest of the settings of each way of asking.
    settings: &'a BTreeMap<Vision, String>,
}

/// A picture as the model sees it, and its content hash.
type Look = (Arc<Seen>, String);

impl<'a> Examiner<'a> {
    /// Who asks `model` the questions of `set`.
    pub fn new(
        model: &'a Model,
        set: &'a QuestionSet,
        options: &'a EvalOptions,
        settings: &'a BTreeMap<Vision, String>,
    ) -> Self {
        let generation = Generation {
            sampling: SamplingOptions {
                temperature: 0.0,
                max_new_tokens: options.max_new_tokens,
                ..SamplingOptions::default()
            },
            image_position: options.image_position,
            ..Generation::default()
        };
        Self {
            model,
            set,
            options,
            generation,
            settings,
        }
    }

    /// A pool for each worker; together they have the processor's cores.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn pools(&self, units: usize) -> Result<Vec<ThreadPool>, EvalError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let side_by_side = if self.model.device == Device::flex() {
            cores
        } else {
            1
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
    /// What `on_record` gives.
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
                let go_on = on_record(record);
                if !matches!(go_on, Ok(ControlFlow::Continue(()))) {
                    queue.stopped.store(true, Ordering::Relaxed);
                }
                result = result.and(go_on.map(|_| ()));
            }
            result
        })
    }

    /// One worker's part.
    fn work(&self, queue: &Queue<'_>, records: &mpsc::Sender<Record>) {
        while let Some(unit) = queue.take() {
            let look = self.look(unit.shown);
            for ask in &unit.asks {
                if queue.stopped.load(Ordering::Relaxed) {
                    return;
                }
                if records.send(self.record(*ask, look.as_ref())).is_err() {
                    return;
                }
            }
        }
    }

    /// Looks at what is shown; `None` where that is nothing, the reason where it cannot be shown.
    fn look(&self, shown: Shown) -> Result<Option<Look>, String> {
        if shown.as_what == Appearance::Nothing {
            return Ok(None);
        }
        let file = &self.set.pictures[shown.picture].path;
        let source = ImageSource::File(file.clone());
        let load = || -> Result<RgbImage, opabinia_image::ImageError> {
            let picture = opabinia_image::load(&source, &self.options.image_limits)?;
            match shown.as_what {
                Appearance::Blank => RgbImage::filled(picture.width(), picture.height(), GREY),
                _ => Ok(picture),
            }
        };
        let picture = load().map_err(|error| in_full(&error))?;
        let seen = self.model.see(&picture, &mut Trace::off());
        match seen {
            Ok(seen) => Ok(Some((seen, picture.content_hash()))),
            Err(error) => Err(format!("{}: {}", file.display(), in_full(&error))),
        }
    }

    fn record(&self, ask: Ask, look: Result<&Option<Look>, &String>) -> Record {
        let question = &self.set.questions[ask.question];
        let outcome = match look {
            Err(error) => Outcome::Failed {
                error: error.clone(),
            },
            Ok(look) => match self.answer(question, look.as_ref()) {
                Ok(answered) => Outcome::Answered(answered),
                Err(error) => Outcome::Failed {
                    error: in_full(&error),
                },
            },
        };
        Record {
            id: question.id.clone(),
            settings: self.settings[&ask.vision].clone(),
            vision: ask.vision,
            group: question.group.clone(),
            task: question.task.clone(),
            expected: question.answer.clone(),
            chance: question.chance,
            outcome,
        }
    }

    fn answer(&self, question: &Question, look: Option<&Look>) -> Result<Answered, ModelError> {
        let pictures: Vec<Arc<Seen>> = look.map(|(seen, _)| seen.clone()).into_iter().collect();
        let conversation =
            Conversation::question(question.question.as_str()).with_images(pictures.len());
        let prompt = self.model.prompt(&conversation)?;
        let packed = self.model.pack(&[(&prompt, &pictures)])?;
        let answers = self
            .model
            .generate(&packed, &self.generation, &mut |_, _| true)?;
        let answer = answers.into_iter().next().ok_or(ModelError::EmptyPrompt)?;
        let scorer = self.options.scorer;
        Ok(Answered {
            prompt_sha256: digest::of(&prompt.text),
            picture: look.map(|(_, hash)| hash.clone()),
            score: scorer.score(&answer.text, &question.expected()),
            cut_off: matches!(answer.stop, StopReason::MaxTokens | StopReason::ContextFull),
            seconds: answer.prefill_seconds + answer.decode_seconds,
            prompt_tokens: answer.prompt_tokens,
            visual_tokens: answer.visual_tokens,
            answer_tokens: answer.ids.len(),
            answer: answer.text,
        })
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
