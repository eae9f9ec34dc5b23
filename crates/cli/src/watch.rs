//! Watching a training run: a bar on a terminal, plain lines elsewhere.

use indicatif::ProgressBar;
use opabinia_train::engine::record::{Observer, StepRecord};

use crate::output;
use crate::progress::bar;

/// Weight of a new step in the running figures.
const NEW: f64 = 0.05;

/// Shows steps as they are done.
pub struct Watch {
    bar: Option<ProgressBar>,
    /// Steps between plain lines; 0 for the first and the last alone.
    every: u64,
    figures: Option<Figures>,
    first: u64,
}

/// Running means.
struct Figures {
    loss: f64,
    seconds: f64,
    tokens: f64,
    samples: f64,
}

impl Figures {
    /// Tokens in a second; where a stage has none, samples.
    fn rate(&self) -> String {
        let (amount, unit) = match self.tokens > 0.0 {
            true => (self.tokens, "tokens"),
            false => (self.samples, "samples"),
        };
        let rate = amount / self.seconds.max(1e-9);
        format!("{} {unit}/s", output::count(rate as u64))
    }
}

impl Watch {
    /// A bar if standard error is a terminal, else a line every so many steps.
    pub fn new(every: u64) -> Self {
        let bar = bar("{bar:24} {pos}/{len}  {msg}");
        Self {
            bar,
            every,
            figures: None,
            first: 0,
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, record: &StepRecord, total: u64) -> String {
        let Some(figures) = &self.figures else {
            return String::new();
        };
        let lr = record.lr.values().copied().fold(0.0, f64::max);
        let left = figures.seconds * total.saturating_sub(record.step) as f64;
        let mut line = format!(
            "loss {:.4}  lr {lr:.1e}  |g| {:.2}  {}  {} left",
            figures.loss,
            record.grad_norm,
            figures.rate(),
            time(left),
        );
        for (name, value) in &record.metrics {
            line.push_str(&format!("  {name} {value:.3}"));
        }
        // Waiting for data for more than a tenth of a step is worth knowing.
        if record.waited > 0.1 * record.seconds {
            let share = 100.0 * record.waited / record.seconds.max(1e-9);
            line.push_str(&format!("  (waits for data {share:.0} %)"));
        }
        line
    }
}

impl Observer for Watch {
    fn begin(&mut self, done: u64, total: u64) {
        self.first = done;
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    fn step(&mut self, record: &StepRecord, total: u64) {
        let mean = |old: f64, new: f64| old + NEW * (new - old);
        let (tokens, samples) = (record.tokens as f64, record.samples as f64);
        self.figures = Some(match self.figures.take() {
            None => Figures {
                loss: record.loss,
                seconds: record.seconds,
                tokens,
                samples,
            },
            Some(old) => Figures {
                loss: mean(old.loss, record.loss),
                seconds: mean(old.seconds, record.seconds),
                tokens: mean(old.tokens, tokens),
                samples: mean(old.samples, samples),
            },
        });
        if let Some(bar) = &self.bar {
            bar.set_position(record.step);
            bar.set_message(self.line(record, total));
        }
        if let Some(loss) = record.validation {
            self.note(&format!("step {}: validation loss {loss:.4}", record.step));
        }
        let due = self.every > 0 && record.step.is_multiple_of(self.every);
        let end = record.step == self.first + 1 || record.step == total;
        if self.bar.is_none() && (due || end) {
            let line = self.line(record, total);
            output::note(&format!("step {}/{total}  {line}", record.step));
        }
    }

    fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => output::note(text),
        }
    }
}

/// Seconds as people read them.
pub fn time(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}
