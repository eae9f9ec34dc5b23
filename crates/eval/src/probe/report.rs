//! Several encoders beside each other: as a table, as Markdown, as JSON, and as scores for `analyze`.

use serde::Serialize;

use super::{
    Beside, Method, Pooling, ProbeData, ProbeFault, ProbeOptions, ProbeScore, ProbeScores, Task,
};
use crate::analysis::quoted;
use crate::summary::Table;

/// An encoder and its scores.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeRow {
    /// The encoder's name.
    pub encoder: String,
    /// SHA-256 of its weights.
    pub weights_sha256: String,
    /// Side of the pictures that it sees, in pixels.
    pub side_px: u32,
    /// Width of its features.
    pub width: usize,
    /// What became one vector for each picture.
    pub pooling: Pooling,
    /// Test pictures whose file is also one of the training's.
    pub leaked: usize,
    /// Pictures that could not be used.
    pub faults: Vec<ProbeFault>,
    /// What was found.
    #[serde(flatten)]
    pub found: ProbeScores,
}

/// What several encoders show on the same pictures.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeReport {
    /// What the pictures are called.
    pub data: String,
    /// What they are asked for.
    pub task: Task,
    /// Classes or labels.
    pub labels: usize,
    /// All pictures of the source.
    pub pictures: usize,
    /// Files beside them that are no pictures.
    pub other_files: usize,
    /// Entries of the source that cannot be used.
    pub faults: Vec<ProbeFault>,
    /// How it was done.
    pub options: ProbeOptions,
    /// The encoders, in the order in which they were named.
    pub encoders: Vec<ProbeRow>,
    /// What models score that see with them, if somebody gave their scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<Beside>,
}

impl ProbeReport {
    /// A report without encoders.
    #[must_use]
    pub fn new(data: &ProbeData, options: &ProbeOptions) -> Self {
        Self {
            data: data.name.clone(),
            task: data.task,
            labels: data.labels.len(),
            pictures: data.pictures.len(),
            other_files: data.other_files,
            faults: data.faults.clone(),
            options: options.clone(),
            encoders: Vec::new(),
            beside: None,
        }
    }

    /// One row for each encoder, the better ones of the first method first.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut header = vec!["encoder", "features", "px", "width"];
        let first = self.encoders.first();
        let methods: Vec<&ProbeScore> = first.iter().flat_map(|row| &row.found.scores).collect();
        let names: Vec<String> = methods
            .iter()
            .map(|score| format!("{} {}", score.method.name(), score.metric))
            .collect();
        for name in &names {
            header.extend([name.as_str(), "95 %", "chosen"]);
        }
        header.push("without looking");
        let mut rows: Vec<&ProbeRow> = self.encoders.iter().collect();
        let main = |row: &ProbeRow| row.found.scores.first().map_or(0.0, |score| score.percent);
        rows.sort_by(|a, b| main(b).total_cmp(&main(a)));
        Table {
            header: header.into_iter().map(str::to_owned).collect(),
            rows: rows.into_iter().map(cells).collect(),
        }
    }

    /// The table in Markdown, and what its words mean.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = in_markdown(&self.table(), 2);
        let (train, test) = self
            .encoders
            .first()
            .map_or((0, 0), |row| (row.found.train, row.found.test));
        let (what, baseline) = match self.task {
            Task::Classes => (
                "accuracy is the share of test pictures whose class is found, with Wilson's interval",
                "always naming the most common class",
            ),
            Task::Labels => (
                "mAP is the mean over labels of the average precision, with an interval from resampled \
                 pictures",
                "any order of the pictures",
            ),
        };
        text.push_str(&format!(
            "\n{}: {train} pictures to train on, {test} to test on, {} {}. Percentages; {what}. \
             Hyper-parameters were chosen on {} % of the training pictures. *Without looking* is what \
             {baseline} reaches.\n",
            self.data,
            self.labels,
            match self.task {
                Task::Classes => "classes",
                Task::Labels => "labels",
            },
            100.0 * self.options.held_out,
        ));
        if let Some(beside) = &self.beside {
            text.push_str(
                "\nBeside them, the averages of models that see with these encoders, by groups of \
                 benchmarks, and how alike both rank:\n\n",
            );
            text.push_str(&in_markdown(&beside.table(), 1));
        }
        text
    }

    /// The scores as a table that `analyze` reads, so that they stand beside those of models.
    #[must_use]
    pub fn scores_csv(&self) -> String {
        let mut text = "model,benchmark,score,questions,chance\n".to_owned();
        for row in &self.encoders {
            for score in &row.found.scores {
                let method = match score.method {
                    Method::Linear => "linear",
                    Method::Knn => "knn",
                };
                text.push_str(&format!(
                    "{},{},{},{},{}\n",
                    quoted(&row.encoder),
                    quoted(&format!("{}-{method}", self.data)),
                    score.percent,
                    row.found.test,
                    row.found.without_looking
                ));
            }
        }
        text
    }

    /// What is wrong or should be known.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.other_files > 0 {
            notes.push(format!(
                "{} files are no pictures by their names and were passed over",
                self.other_files
            ));
        }
        notes.extend(some("entries cannot be used", &self.faults));
        for row in &self.encoders {
            let name = &row.encoder;
            notes.extend(some(
                &format!("pictures cannot be used with {name}"),
                &row.faults,
            ));
            for score in row.found.scores.iter().filter(|score| !score.converged) {
                notes.push(format!(
                    "{name}: the optimum of {} was not reached in {} steps; `--iterations` allows more",
                    score.setting, self.options.iterations
                ));
            }
        }
        let alone = self.beside.iter().flat_map(|beside| &beside.without_model);
        for name in alone {
            notes.push(format!("no model among those given is called {name}"));
        }
        if let Some(row) = self.encoders.first() {
            if row.leaked > 0 {
                notes.push(format!(
                    "{} test pictures are also among those that are trained on, byte by byte",
                    row.leaked
                ));
            }
            if !row.found.left_out.is_empty() {
                notes.push(format!(
                    "not scored, because all pictures of a split have it or none: {}",
                    row.found.left_out.join(", ")
                ));
            }
        }
        notes
    }
}

/// A table in Markdown, of which some columns are text and the others numbers.
fn in_markdown(Table { header, rows }: &Table, texts: usize) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(header);
    text.push_str(&"| --- ".repeat(texts));
    text.push_str(&"| ---: ".repeat(header.len().saturating_sub(texts)));
    text.push_str("|\n");
    rows.iter().for_each(|cells| text.push_str(&line(cells)));
    text
}

fn some(what: &str, faults: &[ProbeFault]) -> Option<String> {
    let first = faults.first()?;
    Some(format!(
        "{} {what}, such as {}: {}",
        faults.len(),
        first.what,
        first.problem
    ))
}

fn cells(row: &ProbeRow) -> Vec<String> {
    let one = |value: f64| format!("{value:.1}");
    let mut cells = vec![
        row.encoder.clone(),
        row.pooling.name().to_owned(),
        row.side_px.to_string(),
        row.width.to_string(),
    ];
    for score in &row.found.scores {
        let interval = score.interval;
        cells.extend([
            one(score.percent),
            format!("{:.1}–{:.1}", interval.low, interval.high),
            score.setting.to_string(),
        ]);
    }
    cells.push(one(row.found.without_looking));
    cells
}
