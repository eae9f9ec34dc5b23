//! Micro-batches read ahead of the step that needs them.
//!
//! Loader threads take the steps in order and read their micro-batches; the training loop gets
//! them in the same order, whatever thread was faster. At most `ahead` steps wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};

use crate::TrainError;
use crate::task::Task;

/// The random stream of `name` and `index` under a seed: the same numbers in every process, and
/// unrelated to any other stream.
#[must_use]
pub fn stream(seed: u64, name: &str, index: [u64; 2]) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(digest(seed, name, index))
}

/// A seed for whoever wants a number instead of a stream.
#[must_use]
pub fn stream_seed(seed: u64, name: &str, index: [u64; 2]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = digest(seed, name, index);
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn digest(seed: u64, name: &str, index: [u64; 2]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(index[0].to_le_bytes());
    hash.update(index[1].to_le_bytes());
    hash.update(name.as_bytes());
    hash.finalize().into()
}

/// The samples of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepPlan {
    /// Which step, from 0.
    pub step: u64,
    /// Which epoch it belongs to.
    pub epoch: u64,
    /// Its samples.
    pub samples: Vec<u32>,
}

/// A step's micro-batches, read.
pub struct LoadedStep<B> {
    /// What was asked for.
    pub plan: StepPlan,
    /// The micro-batches of which anything could be used.
    pub batches: Vec<B>,
    /// The samples of each of them.
    pub samples: Vec<Vec<u32>>,
}

/// Reads the micro-batches of a step.
///
/// # Errors
/// If too many samples are bad.
pub fn load_step<T: Task>(
    task: &T,
    plan: StepPlan,
    micro: usize,
    seed: u64,
) -> Result<LoadedStep<T::Batch>, TrainError> {
    let (mut batches, mut samples) = (Vec::new(), Vec::new());
    for (i, part) in task.divide(&plan.samples, micro).into_iter().enumerate() {
        let mut random = stream(seed, "batch", [plan.step, i as u64]);
        if let Some(batch) = task.load(&part, &mut random)? {
            batches.push(batch);
            samples.push(part);
        }
    }
    Ok(LoadedStep {
        plan,
        batches,
        samples,
    })
}

type Loaded<B> = Result<LoadedStep<B>, TrainError>;

struct Queue<B> {
    /// Steps that no thread has taken yet, in order.
    plans: Box<dyn Iterator<Item = StepPlan> + Send>,
    /// Number of the next step to be taken.
    taken: u64,
    /// Number of the next step to be given out.
    given: u64,
    ready: BTreeMap<u64, Loaded<B>>,
    /// No more steps.
    exhausted: bool,
    stopped: bool,
}

struct Shared<B> {
    queue: Mutex<Queue<B>>,
    changed: Condvar,
}

/// Loader threads and what they have ready.
pub struct Loader<B> {
    shared: Arc<Shared<B>>,
    threads: Vec<JoinHandle<()>>,
}

impl<B: Send + 'static> Loader<B> {
    /// Starts `threads` threads that read `plans` in order, `ahead` steps at most beyond the one
    /// that was taken last.
    pub fn start<T>(
        task: Arc<T>,
        plans: impl Iterator<Item = StepPlan> + Send + 'static,
        micro: usize,
        seed: u64,
        threads: usize,
        ahead: usize,
    ) -> Self
    where
        T: Task<Batch = B> + 'static,
    {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                plans: Box::new(plans),
                taken: 0,
                given: 0,
                ready: BTreeMap::new(),
                exhausted: false,
                stopped: false,
            }),
            changed: Condvar::new(),
        });
        let threads = (0..threads.max(1))
            .map(|_| {
                let (shared, task) = (shared.clone(), task.clone());
                std::thread::spawn(move || shared.work(&*task, micro, seed, ahead.max(1) as u64))
            })
            .collect();
        Self { shared, threads }
    }
}

impl<B> Loader<B> {
    /// The next step in order; `None` after the last.
    pub fn next(&self) -> Option<Loaded<B>> {
        let mut queue = self.shared.lock();
        loop {
            let wanted = queue.given;
            if let Some(step) = queue.ready.remove(&wanted) {
                queue.given += 1;
                self.shared.changed.notify_all();
                return Some(step);
            }
            if queue.exhausted && queue.given == queue.taken {
                return None;
            }
            queue = self.shared.wait(queue);
        }
    }
}

impl<B> Drop for Loader<B> {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::warn!("a loader thread panicked");
            }
        }
    }
}

impl<B> Shared<B> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue<B>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        queue: std::sync::MutexGuard<'a, Queue<B>>,
    ) -> std::sync::MutexGuard<'a, Queue<B>> {
        self.changed
            .wait(queue)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn work<T: Task<Batch = B>>(&self, task: &T, micro: usize, seed: u64, ahead: u64) {
        loop {
            let (number, plan) = {
                let mut queue = self.lock();
                while !queue.stopped && !queue.exhausted && queue.taken >= queue.given + ahead {
                    queue = self.wait(queue);
                }
                if queue.stopped || queue.exhausted {
                    return;
                }
                let Some(plan) = queue.plans.next() else {
                    queue.exhausted = true;
                    self.changed.notify_all();
                    return;
                };
                queue.taken += 1;
                (queue.taken - 1, plan)
            };
            let step = plan.step;
            // A panic must reach the training loop instead of leaving it waiting for ever.
            let work = || load_step(task, plan, micro, seed);
            let loaded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
                .unwrap_or_else(|_| {
                    Err(TrainError::Refused(format!(
                        "reading the samples of step {step} panicked; this is a fault of the program"
                    )))
                });
            self.lock().ready.insert(number, loaded);
            self.changed.notify_all();
        }
    }
}
