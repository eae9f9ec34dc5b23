//! Preparing what comes next while the step computes.
//!
//! Threads take jobs in order and run them ahead of the consumer, never more than a fixed number of
//! results ahead, and the consumer gets the results in the order of the jobs: what is trained does not
//! depend on which thread was faster.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Results of jobs, in order, prepared ahead by threads.
///
/// Errors are results like any other: let `T` be a `Result`. A job that panics makes `next` panic
/// with the same message when its turn comes. Dropping it stops the threads after their current jobs.
#[derive(Debug)]
pub struct Prefetch<T> {
    shared: Arc<Shared<T>>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    /// A result is there, or a worker has ended.
    ready: Condvar,
    /// There is room for results, or the consumer is gone.
    room: Condvar,
}

/// A result, or what its job panicked with.
type Outcome<T> = Result<T, Box<dyn Any + Send>>;

#[derive(Debug)]
struct State<T> {
    /// Number of the next job to hand out.
    next_job: u64,
    /// Number of the next result to give.
    next_result: u64,
    /// Finished jobs that were not asked for yet.
    done: BTreeMap<u64, Outcome<T>>,
    /// No job is left.
    exhausted: bool,
    /// Nobody wants results any more.
    stopped: bool,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Runs `load` for each of `jobs` on `workers` threads (at least one), at most `ahead` results
    /// (at least one) ahead of the consumer. `jobs` itself is asked by one thread at a time, and has
    /// to be quick: all others wait meanwhile.
    pub fn new<J, I, F>(jobs: I, workers: usize, ahead: usize, load: F) -> Self
    where
        J: Send + 'static,
        I: Iterator<Item = J> + Send + 'static,
        F: Fn(J) -> T + Send + Sync + 'static,
    {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                next_job: 0,
                next_result: 0,
                done: BTreeMap::new(),
                exhausted: false,
                stopped: false,
            }),
            ready: Condvar::new(),
            room: Condvar::new(),
        });
        let jobs = Arc::new(Mutex::new(jobs));
        let load = Arc::new(load);
        let worker = |_| {
            let (shared, jobs, load) = (Arc::clone(&shared), Arc::clone(&jobs), Arc::clone(&load));
            std::thread::spawn(move || {
                while let Some((number, job)) = shared.take_job(&jobs, ahead.max(1) as u64) {
                    let outcome = catch_unwind(AssertUnwindSafe(|| load(job)));
                    shared.put(number, outcome);
                }
            })
        };
        let workers = (0..workers.max(1)).map(worker).collect();
        Self { shared, workers }
    }
}

impl<T> Shared<T> {
    /// The state is whole between any two statements, so a poisoned lock is as good as another.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room and takes the next job; `None` if there is none or nobody wants it.
    fn take_job<J>(&self, jobs: &Mutex<impl Iterator<Item = J>>, ahead: u64) -> Option<(u64, J)> {
        let mut state = self.lock();
        while !state.stopped && !state.exhausted && state.next_job >= state.next_result + ahead {
            state = self
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped || state.exhausted {
            return None;
        }
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(job) = next else {
            state.exhausted = true;
            self.ready.notify_all();
            self.room.notify_all();
            return None;
        };
        let number = state.next_job;
        state.next_job += 1;
        Some((number, job))
    }

    fn put(&self, number: u64, outcome: Outcome<T>) {
        self.lock().done.insert(number, outcome);
        self.ready.notify_all();
    }
}

impl<T> Iterator for Prefetch<T> {
    type Item = T;

    /// Waits for the next result.
    ///
    /// # Panics
    /// If the job panicked.
    fn next(&mut self) -> Option<T> {
        let mut state = self.shared.lock();
        loop {
            let number = state.next_result;
            if let Some(outcome) = state.done.remove(&number) {
                state.next_result += 1;
                drop(state);
                self.shared.room.notify_all();
                return Some(outcome.unwrap_or_else(|panic| resume_unwind(panic)));
            }
            if state.exhausted && number == state.next_job {
                return None;
            }
            state = self
                .shared
                .ready
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.room.notify_all();
        for worker in self.workers.drain(..) {
            // Panics of jobs were caught, and nobody is left to tell of others.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn results_come_in_order() {
        for (workers, ahead) in [(1, 1), (4, 2), (3, 100), (0, 0)] {
            let results: Vec<u64> = Prefetch::new(0..200_u64, workers, ahead, |i| {
                // Later jobs are often faster.
                for _ in 0..(200 - i) * 20 {
                    std::hint::spin_loop();
                }
                i * i
            })
            .collect();
            assert_eq!(results, (0..200).map(|i| i * i).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nobody_runs_further_ahead_than_allowed() {
        let begun = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&begun);
        let mut results = Prefetch::new(0..100_u64, 4, 3, move |i| {
            count.fetch_add(1, Ordering::SeqCst);
            i
        });
        for taken in 1..=100 {
            assert!(results.next().is_some());
            assert!(begun.load(Ordering::SeqCst) <= taken + 3);
        }
        assert_eq!(results.next(), None);
        assert_eq!(results.next(), None);
    }

    #[test]
    fn errors_are_results() {
        let odd = |i: u32| if i % 2 == 1 { Err(i) } else { Ok(i) };
        let results: Vec<_> = Prefetch::new(0..4, 2, 2, odd).collect();
        assert_eq!(results, [Ok(0), Err(1), Ok(2), Err(3)]);
    }

    #[test]
    fn a_panic_comes_in_its_turn() {
        let mut results = Prefetch::new(0..3_u32, 2, 2, |i| {
            assert!(i != 1, "job 1 is bad");
            i
        });
        assert_eq!(results.next(), Some(0));
        let panic = catch_unwind(AssertUnwindSafe(|| results.next())).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"job 1 is bad"));
        assert_eq!(results.next(), Some(2));
    }

    #[test]
    fn dropping_it_stops_an_endless_sequence() {
        let mut results = Prefetch::new(0_u64.., 3, 5, |i| i);
        assert_eq!(results.next(), Some(0));
        drop(results);
    }
}
