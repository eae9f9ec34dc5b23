//! Progress of long work: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// A bar in this form if standard error is a terminal.
pub fn bar(template: &str) -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::new(0);
        match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    })
}

/// Work in stages: a bar for the one that is under way; elsewhere a line for every tenth of a stage.
pub struct Stages {
    bar: Option<ProgressBar>,
    last: Mutex<(&'static str, u64)>,
}

impl Stages {
    /// Nothing done yet.
    pub fn new() -> Self {
        Self {
            bar: bar("{msg:20} {bar:24} {pos}/{len}  {per_sec}  {eta} left"),
            last: Mutex::default(),
        }
    }

    /// So much of a stage is done.
    pub fn update(&self, stage: &'static str, done: u64, total: u64) {
        let Ok(mut last) = self.last.lock() else {
            return;
        };
        let now = (stage, 10 * done / total.max(1));
        let (begun, moved) = (last.0 != now.0, last.0 != now.0 || last.1 < now.1);
        match &self.bar {
            Some(bar) => {
                if begun {
                    bar.reset();
                }
                bar.set_message(stage);
                bar.set_length(total);
                bar.set_position(done);
            }
            None if moved => output::note(&format!("{stage}: {done}/{total}")),
            None => {}
        }
        if moved {
            *last = now;
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
