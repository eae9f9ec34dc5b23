//! Scorers and aggregates against what the reference implementation and common harnesses make of the
//! same answers.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod answers;
mod vectors;

use std::path::{Path, PathBuf};

use opabinia_eval::scorer::{Aggregate, Judged, Judgement, Metric, Protocol};
use serde_json::Value;

fn golden() -> PathBuf {
    let root = match std::env::var_os("OPABINIA_GOLDEN") {
        Some(root) => root.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
    };
    root.join("scorers")
}

fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().flat_map(strings).collect(),
        Value::Object(values) => values.values().flat_map(strings).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}

fn index(letter: char) -> usize {
    letter as usize - 'a' as usize
}

#[track_caller]
fn assert_close(found: f64, wanted: f64, what: &str) {
    let close = (found - wanted).abs() <= 1e-9 * wanted.abs().max(1.0);
    assert!(close, "{what}: {found}, wanted {wanted}");
}

/// A question and what became of it.
struct Line {
    id: String,
    unit: String,
    picture: Option<String>,
    category: Option<String>,
    source: Option<String>,
    judgement: Judgement,
}

impl Line {
    fn new(number: usize, judgement: Judgement) -> Self {
        Self {
            id: number.to_string(),
            unit: (number / 2).to_string(),
            picture: None,
            category: None,
            source: None,
            judgement,
        }
    }

    fn judged(&self) -> Judged<'_> {
        Judged {
            id: &self.id,
            unit: Some(&self.unit),
            picture: self.picture.as_deref(),
            category: self.category.as_deref(),
            source: self.source.as_deref(),
            judgement: &self.judgement,
        }
    }
}

fn metrics(aggregate: Aggregate, protocol: Protocol, lines: &[Line]) -> Vec<Metric> {
    let judged: Vec<Judged<'_>> = lines.iter().map(Line::judged).collect();
    aggregate.metrics_under(protocol, &judged).unwrap()
}

#[track_caller]
fn metric<'a>(metrics: &'a [Metric], name: &str) -> &'a Metric {
    let found = metrics.iter().find(|metric| metric.name == name);
    found.unwrap_or_else(|| panic!("no `{name}` in {metrics:?}"))
}

#[track_caller]
fn assert_metric(metrics: &[Metric], name: &str, wanted: &Value, scale: f64) {
    let wanted = wanted.as_f64().unwrap() * scale;
    assert_close(metric(metrics, name).value, wanted, name);
}
