//! Burn's terminal dashboard, watching a training run: curves of the figures, progress, and a key to stop.
//!
//! It takes the whole terminal, so it is asked for with `--dashboard` and built with the Cargo feature
//! `dashboard`. What a run says besides its figures is shown when the dashboard has closed.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn_train::Interrupter;
use burn_train::logger::TrainingProgressLogger;
use burn_train::metric::{
    MetricAttributes, MetricDefinition, MetricEntry, MetricId, NumericAttributes, NumericEntry,
    SerializedEntry,
};
use burn_train::renderer::tui::TuiMetricsRendererWrapper;
use burn_train::renderer::{MetricState, MetricsRenderer, MetricsRendererTraining};
use opabinia_train::engine::record::{Observer, StepRecord};

use crate::failure::Failure;
use crate::output;
use crate::watch::time;

/// Shows steps as curves.
pub struct Dashboard {
    renderer: Option<TuiMetricsRendererWrapper>,
    /// Set by the dashboard's own key for stopping.
    interrupter: Interrupter,
    /// What the run looks at after each step.
    stop: &'static AtomicBool,
    /// Figures that the renderer knows.
    known: BTreeSet<String>,
    notes: Vec<String>,
    /// Mean seconds of a step.
    pace: f64,
}

/// A figure as the dashboard wants it.
struct Figure<'a> {
    name: &'a str,
    value: f64,
    text: String,
    higher_is_better: bool,
}

impl Dashboard {
    /// Takes the terminal.
    ///
    /// # Errors
    /// If standard output is no terminal.
    pub fn new(stop: &'static AtomicBool) -> Result<Self, Failure> {
        if !std::io::stdout().is_terminal() {
            return Err(Failure::new(
                "the dashboard needs a terminal, and standard output is none",
            )
            .hint("leave out `--dashboard`: the log in the run's folder has every figure"));
        }
        let interrupter = Interrupter::new();
        Ok(Self {
            renderer: Some(TuiMetricsRendererWrapper::new(interrupter.clone(), None)),
            interrupter,
            stop,
            known: BTreeSet::new(),
            notes: Vec::new(),
            pace: 0.0,
        })
    }

    /// Gives the terminal back, and says what was said meanwhile.
    pub fn finish(&mut self) {
        self.renderer = None;
        for note in self.notes.drain(..) {
            output::note(&note);
        }
    }

    fn figure(&mut self, figure: Figure<'_>, validation: bool) {
        let Some(renderer) = &mut self.renderer else {
            return;
        };
        let id = MetricId::new(Arc::new(figure.name.to_owned()));
        if self.known.insert(figure.name.to_owned()) {
            renderer.register_metric(MetricDefinition {
                metric_id: id.clone(),
                name: Arc::new(figure.name.to_owned()),
                description: None,
                attributes: MetricAttributes::Numeric(NumericAttributes {
                    unit: None,
                    higher_is_better: figure.higher_is_better,
                }),
            });
        }
        let entry = MetricEntry::new(
            id,
            SerializedEntry {
                serialized: figure.value.to_string(),
                formatted: figure.text,
            },
        );
        let state = MetricState::Numeric(entry, Some(NumericEntry::Value(figure.value)));
        if validation {
            renderer.update_valid(state);
        } else {
            renderer.update_train(state);
        }
    }
}

impl Observer for Dashboard {
    fn begin(&mut self, done: u64, total: u64) {
        let Some(renderer) = &mut self.renderer else {
            return;
        };
        renderer.start(1, 1, None, Some("training"));
        renderer.start_split("train", total as usize);
        renderer.update_split(done as usize);
    }

    fn step(&mut self, record: &StepRecord, total: u64) {
        self.pace = match self.pace {
            0.0 => record.seconds,
            pace => pace + 0.05 * (record.seconds - pace),
        };
        for figure in figures(record, self.pace, total) {
            self.figure(figure, false);
        }
        if let Some(loss) = record.validation {
            self.figure(loss_figure(loss), true);
        }
        if let Some(renderer) = &mut self.renderer {
            renderer.update_split(record.step as usize);
        }
        if self.interrupter.should_stop() {
            self.stop.store(true, Ordering::SeqCst);
        }
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

fn loss_figure(loss: f64) -> Figure<'static> {
    Figure {
        name: "Loss",
        value: loss,
        text: format!("{loss:.4}"),
        higher_is_better: false,
    }
}

/// What is drawn of a step: `pace` is the mean seconds of one.
fn figures(record: &StepRecord, pace: f64, total: u64) -> Vec<Figure<'_>> {
    let rate = record.lr.values().copied().fold(0.0, f64::max);
    let tokens = record.tokens as f64 / record.seconds.max(1e-9);
    let left = pace * total.saturating_sub(record.step) as f64;
    let plain = |name, value, text, higher_is_better| Figure {
        name,
        value,
        text,
        higher_is_better,
    };
    let mut figures = vec![
        loss_figure(record.loss),
        plain("Learning rate", rate, format!("{rate:.2e}"), false),
        plain(
            "Gradient norm",
            record.grad_norm,
            format!("{:.3}", record.grad_norm),
            false,
        ),
        plain(
            "Tokens per second",
            tokens,
            output::count(tokens as u64),
            true,
        ),
        plain("Minutes left", left / 60.0, time(left), false),
    ];
    for (name, &value) in &record.metrics {
        figures.push(plain(name, value, format!("{value:.4}"), true));
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_becomes_figures() {
        let record = StepRecord {
            loss: 1.25,
            lr: [("decoder".to_owned(), 1e-3), ("encoders".to_owned(), 1e-4)].into(),
            grad_norm: 0.5,
            tokens: 500,
            seconds: 2.0,
            metrics: [("retrieval".to_owned(), 0.25)].into(),
            ..StepRecord::at(10)
        };
        let drawn: Vec<(String, f64)> = figures(&record, 3.0, 70)
            .into_iter()
            .map(|figure| (figure.name.to_owned(), figure.value))
            .collect();
        let expected = [
            ("Loss", 1.25),
            ("Learning rate", 1e-3),
            ("Gradient norm", 0.5),
            ("Tokens per second", 250.0),
            ("Minutes left", 3.0),
            ("retrieval", 0.25),
        ];
        let expected: Vec<(String, f64)> = expected
            .map(|(name, value)| (name.to_owned(), value))
            .into();
        assert_eq!(drawn, expected);
    }
}
