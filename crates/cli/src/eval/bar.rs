//! Progress of an evaluation: a bar on a terminal, plain lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use opabinia_eval::Progress;

use crate::output;
use crate::progress::bar;
use crate::watch::time;

/// Time between plain lines.
const LINES_EVERY: Duration = Duration::from_secs(10);

/// A bar on a terminal, plain lines elsewhere.
pub struct Bar {
    bar: Option<ProgressBar>,
    start: Instant,
    shown: Instant,
}

impl Bar {
    pub fn new() -> Self {
        let bar = bar("{bar:24} {pos}/{len} questions  {msg}");
        Self {
            bar,
            start: Instant::now(),
            shown: Instant::now(),
        }
    }

    pub fn show(&mut self, progress: &Progress) {
        let now = (progress.done - progress.earlier) as f64;
        let seconds = self.start.elapsed().as_secs_f64();
        let mut rate = String::new();
        if now > 0.0 {
            let left = (progress.wanted - progress.done) as f64 * seconds / now;
            rate = format!("{:.1} per second, {} left", now / seconds, time(left));
        }
        if let Some(bar) = &self.bar {
            bar.set_length(progress.wanted as u64);
            bar.set_position(progress.done as u64);
            bar.set_message(rate);
        } else if self.shown.elapsed() >= LINES_EVERY {
            self.shown = Instant::now();
            output::note(&format!(
                "{}/{} questions, {rate}",
                progress.done, progress.wanted
            ));
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
