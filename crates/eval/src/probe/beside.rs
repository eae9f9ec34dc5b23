//! The traditional protocol beside the one with a language model: do they rank encoders alike?
//!
//! Cambrian-1 sets linear probing beside what language models that see with these encoders score
//! (arXiv 2406.16860, section 3.4). Here a model is the one of an encoder if it has its name. For each group
//! of benchmarks, and for all, encoders are compared by the model's average; a correlation says how much
//! of the order is the same. Of few encoders it says little: its interval is printed with it.

use serde::Serialize;

use super::report::ProbeReport;
use crate::analysis::averages::{average, members};
use crate::analysis::correlation::{fisher_interval, pearson, spearman};
use crate::analysis::{AnalysisError, Inputs, ScoreTable};
use crate::interval::Interval;
use crate::summary::Table;

/// What the average over all benchmarks is called.
const ALL: &str = "all";

/// Encoders by both protocols.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Beside {
    /// Groups of benchmarks, and `all`.
    pub columns: Vec<String>,
    /// The encoders of which there is a model.
    pub rows: Vec<BesideRow>,
    /// For each column how alike both protocols rank.
    pub agreement: Vec<Agreement>,
    /// Encoders of which there is no model.
    pub without_model: Vec<String>,
}

/// One encoder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BesideRow {
    /// The encoder.
    pub encoder: String,
    /// By the first method of the probe, in percent.
    pub probe: f64,
    /// The model's average of each column, in percent; `None` if a score is missing.
    pub averages: Vec<Option<f64>>,
}

/// How alike two protocols are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// The column.
    pub column: String,
    /// Encoders that have both.
    pub encoders: usize,
    /// Spearman's correlation of the ranks.
    pub spearman: Option<f64>,
    /// Pearson's correlation.
    pub pearson: Option<f64>,
    /// Its 95 % interval.
    pub interval: Option<Interval>,
}

impl Beside {
    /// The encoders of a report beside the models of tables and runs.
    ///
    /// # Errors
    /// If runs do not fit together.
    pub fn of(report: &ProbeReport, models: Inputs) -> Result<Self, AnalysisError> {
        let probes = report.encoders.iter().filter_map(|row| {
            let score = row.found.scores.first()?;
            Some((row.encoder.clone(), score.percent))
        });
        Ok(Self::between(
            &probes.collect::<Vec<_>>(),
            &models.tables()?,
        ))
    }

    /// Encoders with their scores in percent, beside the models of the first table that has one of
    /// the encoder's name.
    #[must_use]
    pub fn between(probes: &[(String, f64)], tables: &[ScoreTable]) -> Self {
        let mut columns: Vec<String> = Vec::new();
        for group in tables.iter().flat_map(ScoreTable::groups) {
            if !columns.contains(&group) {
                columns.push(group);
            }
        }
        columns.push(ALL.to_owned());
        let (mut rows, mut without_model) = (Vec::new(), Vec::new());
        for (encoder, probe) in probes {
            let found = tables.iter().find_map(|table| {
                let mut models = table.models.iter();
                let place = models.position(|model| model.name.eq_ignore_ascii_case(encoder))?;
                Some((table, place))
            });
            match found {
                Some((table, model)) => rows.push(BesideRow {
                    encoder: encoder.clone(),
                    probe: *probe,
                    averages: columns
                        .iter()
                        .map(|column| of_column(table, model, column))
                        .collect(),
                }),
                None => without_model.push(encoder.clone()),
            }
        }
        let agreement = columns
            .iter()
            .enumerate()
            .map(|(place, column)| agreement(column, place, &rows))
            .collect();
        Self {
            columns,
            rows,
            agreement,
            without_model,
        }
    }

    /// One row for each encoder, the better ones of the probe first, and one for each correlation.
    #[must_use]
    pub fn table(&self) -> Table {
        let header = ["encoder", "probe"].map(str::to_owned).into_iter();
        let number = |value: Option<f64>, digits| {
            value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
        };
        let mut sorted: Vec<&BesideRow> = self.rows.iter().collect();
        sorted.sort_by(|a, b| b.probe.total_cmp(&a.probe));
        let mut rows: Vec<Vec<String>> = sorted
            .into_iter()
            .map(|row| {
                let averages = row.averages.iter().map(|average| number(*average, 1));
                let start = [row.encoder.clone(), format!("{:.1}", row.probe)];
                start.into_iter().chain(averages).collect()
            })
            .collect();
        let line = |name: &str, cells: Vec<String>| {
            let start = [name.to_owned(), String::new()];
            start.into_iter().chain(cells).collect::<Vec<_>>()
        };
        let each = self.agreement.iter();
        let spearman = each.clone().map(|found| number(found.spearman, 2));
        rows.push(line("Spearman", spearman.collect()));
        let pearson = each.map(|found| match (found.pearson, found.interval) {
            (Some(r), Some(interval)) => {
                format!("{r:.2} ({:.2} to {:.2})", interval.low, interval.high)
            }
            (r, _) => number(r, 2),
        });
        rows.push(line("Pearson", pearson.collect()));
        Table {
            header: header.chain(self.columns.iter().cloned()).collect(),
            rows,
        }
    }
}

fn of_column(table: &ScoreTable, model: usize, column: &str) -> Option<f64> {
    let all: Vec<usize> = (0..table.benchmarks.len()).collect();
    match column {
        ALL => average(table, model, &all),
        group => average(table, model, &members(table, &all, group)),
    }
}

fn agreement(column: &str, place: usize, rows: &[BesideRow]) -> Agreement {
    let both = rows.iter().filter_map(|row| {
        let average = row.averages.get(place).copied().flatten()?;
        Some((row.probe, average))
    });
    let (probes, averages): (Vec<f64>, Vec<f64>) = both.unzip();
    let pearson = pearson(&probes, &averages);
    Agreement {
        column: column.to_owned(),
        encoders: probes.len(),
        spearman: spearman(&probes, &averages),
        pearson,
        interval: pearson.and_then(|r| fisher_interval(r, probes.len())),
    }
}
