//! The analysis of benchmarks: what scores of models say about the models, and about the benchmarks.
//!
//! Cambrian-1 (section 3.1, arXiv 2406.16860) asks which benchmarks measure vision at all, which of
//! them measure the same thing, and which vision encoder is best. This module answers the same
//! questions for any table of scores or set of runs, puts an interval beside every answer, and says in
//! plain sentences what the numbers support and what they do not.
//!
//! ```text
//! tables (CSV, JSON), runs ─ Inputs ─▶ ScoreTable ─ Analysis::of ─▶ Analysis ─ report ─▶ folder
//! ```
//!
//! The folder holds one page, `report.html`, that opens without a network, each plot as SVG, PNG, CSV
//! and JSON under `plots/`, the scores as they were understood (`scores.json`) and every number of the
//! analysis (`analysis.json`).

pub mod agreement;
pub mod averages;
pub mod catalog;
pub mod clusters;
pub mod compare;
pub mod components;
pub mod correlation;
pub mod distribution;
mod error;
pub mod findings;
pub mod gaps;
pub mod ranking;
mod report;
pub mod resolution;
mod runs;
mod sources;
pub mod statistics;
pub mod structure;
mod table;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use error::AnalysisError;
pub(crate) use report::quoted;
pub use runs::{Asked, QuestionFacts, QuestionScore, RunScores};
pub use table::{Benchmark, Model, Printed, RunNote, ScoreTable, Selection};

use averages::{FamilyAverage, PrintedCheck};
use correlation::{CorrelationMatrix, pearson, spearman};
use findings::Finding;
use gaps::Gap;
use ranking::Ranking;
use resolution::Resolution;
pub use sources::Source;
use structure::Structure;

/// What is to be analysed.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Tables, each with a label that tells its models from those of the others.
    pub tables: Vec<(String, ScoreTable)>,
    /// Runs, one for each model and benchmark.
    pub runs: Vec<RunScores>,
}

impl Inputs {
    /// Reads tables; their labels are the names of their files.
    ///
    /// # Errors
    /// Those of [`ScoreTable::read`].
    pub fn read(paths: &[PathBuf]) -> Result<Self, AnalysisError> {
        let read = |path: &PathBuf| {
            let label = path.file_stem().unwrap_or_default().to_string_lossy();
            Ok((label.into_owned(), ScoreTable::read(path)?))
        };
        Ok(Self {
            tables: paths.iter().map(read).collect::<Result<_, _>>()?,
            runs: Vec::new(),
        })
    }

    fn into_table(self) -> Result<ScoreTable, AnalysisError> {
        ScoreTable::merged(self.labelled()?)
    }

    /// The tables, and one of all runs.
    pub(crate) fn tables(self) -> Result<Vec<ScoreTable>, AnalysisError> {
        let labelled = self.labelled()?.into_iter();
        Ok(labelled.map(|(_, table)| table).collect())
    }

    fn labelled(self) -> Result<Vec<(String, ScoreTable)>, AnalysisError> {
        let mut tables = self.tables;
        if !self.runs.is_empty() {
            tables.push(("runs".into(), runs::table_of(self.runs)?));
        }
        Ok(tables)
    }
}

/// How it is to be analysed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnalysisOptions {
    /// What stands over the report.
    pub title: String,
    /// Seed of all resampling and clustering.
    pub seed: u64,
    /// Clusters to look for.
    pub clusters: usize,
    /// Draws of each resampling.
    pub resamples: usize,
    /// Whether plots are written as PNG too.
    pub png: bool,
}

impl Default for AnalysisOptions {
    fn default() -> Self {
        Self {
            title: "Analysis of benchmarks".into(),
            seed: 42,
            clusters: 4,
            resamples: 2_000,
            png: true,
        }
    }
}

impl AnalysisOptions {
    fn check(&self) -> Result<(), AnalysisError> {
        let out_of_range = |option, found: usize, wanted| {
            Err(AnalysisError::Option {
                option,
                found: found.to_string(),
                wanted,
            })
        };
        if !(2..=64).contains(&self.clusters) {
            return out_of_range("clusters", self.clusters, "2 to 64");
        }
        if !(100..=1_000_000).contains(&self.resamples) {
            return out_of_range("resamples", self.resamples, "100 to 1000000");
        }
        Ok(())
    }
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Analysis {
    /// How it was found.
    pub options: AnalysisOptions,
    /// The scores.
    pub table: ScoreTable,
    /// The part of them that has no holes; averages and ranks are of this part.
    pub selection: Selection,
    /// Pearson's correlations over models, pair by pair, CV-Bench as one benchmark.
    pub correlations: CorrelationMatrix,
    /// Spearman's, the same way.
    pub rank_correlations: CorrelationMatrix,
    /// Components and clusters; `None` where there are too few models or benchmarks.
    pub structure: Option<Structure>,
    /// `None` where there are too few models.
    pub ranking: Option<Ranking>,
    /// What pictures are worth, where models were asked without them.
    pub gaps: Vec<Gap>,
    /// What each benchmark can tell apart.
    pub resolutions: Vec<Resolution>,
    /// Averages of families of models.
    pub families: Vec<FamilyAverage>,
    /// Averages that the files state, computed anew.
    pub printed: Vec<PrintedCheck>,
    /// What the numbers support and what they do not.
    pub findings: Vec<Finding>,
}

impl Analysis {
    /// Analyses scores.
    ///
    /// # Errors
    /// If there are none, if they contradict each other, or if an option is out of range.
    pub fn of(inputs: Inputs, options: &AnalysisOptions) -> Result<Self, AnalysisError> {
        options.check()?;
        let table = inputs.into_table()?;
        if table.models.is_empty() || table.benchmarks.is_empty() {
            return Err(AnalysisError::NoScores);
        }
        let selection = table.selection();
        let whole = table.with_whole_cv_bench();
        let names: Vec<String> = whole.benchmarks.iter().map(|b| b.name.clone()).collect();
        let all: Vec<usize> = (0..whole.models.len()).collect();
        let columns: Vec<_> = (0..names.len()).map(|b| whole.column(b, &all)).collect();
        let (models, benchmarks) = (&selection.models, &selection.benchmarks);
        let mut analysis = Self {
            options: options.clone(),
            correlations: CorrelationMatrix::of(&names, &columns, pearson),
            rank_correlations: CorrelationMatrix::of(&names, &columns, spearman),
            structure: structure::structure(&whole, options.clusters, options.seed),
            ranking: ranking::ranking(&table, &selection, options.resamples, options.seed),
            gaps: gaps::gaps(&table),
            resolutions: resolution::resolutions(&table),
            families: averages::family_averages(&table, models, benchmarks),
            printed: averages::printed_checks(&table),
            findings: Vec::new(),
            table,
            selection,
        };
        analysis.findings = findings::findings(&analysis);
        Ok(analysis)
    }

    /// What was left out of averages, ranks, components and clusters, and why.
    #[must_use]
    pub fn left_out(&self) -> Vec<String> {
        let mut notes = self.table.notes.clone();
        notes.extend(self.selection.left_out.iter().cloned());
        // With CV-Bench as one column the same models have holes, only fewer.
        let subject = |note: &str| note.split(": ").next().map(str::to_owned);
        for note in self.structure.iter().flat_map(|s| &s.left_out) {
            if notes.iter().all(|other| subject(other) != subject(note)) {
                notes.push(note.clone());
            }
        }
        if self.ranking.is_none() {
            notes.push("ranking: it needs two models that have a score on every benchmark".into());
        }
        if self.structure.is_none() {
            notes.push(format!(
                "components and clusters: they need three models without holes, and as many \
                 benchmarks that vary as there are clusters ({}), at least three",
                self.options.clusters
            ));
        }
        notes
    }
}

/// What was found, and where it lies.
#[derive(Clone, Debug)]
pub struct AnalysisOutcome {
    /// The numbers.
    pub analysis: Analysis,
    /// The page.
    pub report: PathBuf,
    /// All files that were written.
    pub files: Vec<PathBuf>,
}

/// Analyses scores and writes the report into a folder, which is made if it is not there; files of an
/// earlier report are replaced.
///
/// # Errors
/// Those of [`Analysis::of`], and if a file cannot be written.
pub fn analyze(
    inputs: Inputs,
    options: &AnalysisOptions,
    folder: &Path,
) -> Result<AnalysisOutcome, AnalysisError> {
    let analysis = Analysis::of(inputs, options)?;
    let files = report::write(&analysis, folder)?;
    Ok(AnalysisOutcome {
        report: folder.join(report::PAGE),
        analysis,
        files,
    })
}
