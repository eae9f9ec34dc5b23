//! Progress of a transfer: a bar on a terminal, a line for every tenth elsewhere. On stderr.

use std::io::{IsTerminal, Write, stderr};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// Files below this size are over before a bar could be read.
const WORTH_SHOWING_BYTES: u64 = 10_000_000;

/// Shows how much of one file has arrived.
pub(super) struct Shown {
    name: String,
    how: How,
    total: u64,
    done: u64,
    next_tenth: u64,
}

enum How {
    Not,
    Bar(ProgressBar),
    Lines,
}

impl Shown {
    /// Progress of `name` with `total` bytes, if anybody is to see it.
    pub(super) fn new(name: &str, total: u64, show: bool) -> Self {
        let how = if !show || total < WORTH_SHOWING_BYTES {
            How::Not
        } else if stderr().is_terminal() {
            How::Bar(bar(name, total))
        } else {
            How::Lines
        };
        Self {
            name: name.to_owned(),
            how,
            total,
            done: 0,
            next_tenth: 1,
        }
    }

    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        match &self.how {
            How::Not => {}
            How::Bar(bar) => bar.set_position(self.done),
            How::Lines => {
                if let Some(line) = self.due_line() {
                    // Nobody reads it: nothing to be done about it.
                    let _ = writeln!(stderr(), "{line}");
                }
            }
        }
    }

    /// The line to print, if another tenth is complete.
    fn due_line(&mut self) -> Option<String> {
        let tenth = (10 * self.done).checked_div(self.total)?;
        if tenth < self.next_tenth {
            return None;
        }
        self.next_tenth = tenth + 1;
        Some(format!(
            "fetching {}: {}% of {}",
            self.name,
            10 * tenth,
            HumanBytes(self.total)
        ))
    }
}

fn bar(name: &str, total: u64) -> ProgressBar {
    let template = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
    let bar = ProgressBar::new(total).with_message(name.to_owned());
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

impl hf_hub::api::Progress for Shown {
    /// Called once for each attempt, with what is there already following as the first update.
    fn init(&mut self, _size: usize, _filename: &str) {
        self.done = 0;
    }

    fn update(&mut self, size: usize) {
        self.add(size as u64);
    }

    fn finish(&mut self) {
        if let How::Bar(bar) = &self.how {
            bar.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_once_for_every_tenth() {
        let mut shown = Shown::new("w", 1000, false);
        let mut lines = Vec::new();
        for _ in 0..100 {
            shown.done += 10;
            lines.extend(shown.due_line());
        }
        assert_eq!(lines.len(), 10);
        assert_eq!(lines[0], "fetching w: 10% of 1000 B");
        assert_eq!(lines[9], "fetching w: 100% of 1000 B");
    }

    #[test]
    fn an_empty_file_has_no_tenths() {
        assert_eq!(Shown::new("w", 0, false).due_line(), None);
    }
}
