//! Progress of long work: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

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

/// Work in stages: a bar for the one that is under way; elsewhere a line for every tenth of a stage that takes
/// longer than [`QUIET`].
pub struct Stages {
    bar: Option<ProgressBar>,
    last: Mutex<Stage>,
}

/// What lasts no longer needs no line.
const QUIET: Duration = Duration::from_secs(2);

/// The stage under way, the tenths of it that are done, and its begin.
struct Stage {
    name: &'static str,
    tenths: u64,
    begun: Instant,
}

impl Stages {
    /// Nothing done yet.
    pub fn new() -> Self {
        Self {
            bar: bar("{msg:20} {bar:24} {pos}/{len}  {per_sec}  {eta} left"),
            last: Mutex::new(Stage {
                name: "",
                tenths: 0,
                begun: Instant::now(),
            }),
        }
    }

    /// So much of a stage is done.
    pub fn update(&self, stage: &'static str, done: u64, total: u64) {
        let Ok(mut last) = self.last.lock() else {
            return;
        };
        let tenths = 10 * done / total.max(1);
        let begun = last.name != stage;
        if begun {
            *last = Stage {
                name: stage,
                tenths: 0,
                begun: Instant::now(),
            };
        }
        match &self.bar {
            Some(bar) => {
                if begun {
                    bar.reset();
                }
                bar.set_message(stage);
                bar.set_length(total);
                bar.set_position(done);
            }
            None if last.tenths < tenths && last.begun.elapsed() > QUIET => {
                last.tenths = tenths;
                output::note(&format!("{stage}: {} %", 10 * tenths));
            }
            None => {}
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
