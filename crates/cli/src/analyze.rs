//! `analyze`: what scores say about models and about benchmarks, as one page and its plots.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use opabinia_eval::analysis::{Analysis, AnalysisOptions, Inputs, analyze};
use opabinia_eval::run_scores;

use crate::{Outcome, output};

/// Draw a report of scores: what pictures are worth, which benchmarks agree, which model is best and
/// how sure that is.
#[derive(Args)]
pub struct Analyze {
    /// Tables of scores (.csv, .json) and folders of finished runs of `eval`.
    #[arg(required = true)]
    scores: Vec<PathBuf>,
    /// Folder of the report: `report.html`, each plot as SVG, PNG, CSV and JSON, every number as
    /// JSON.
    #[arg(short, long, value_name = "FOLDER")]
    out: PathBuf,
    /// What stands over the report.
    #[arg(long, default_value_t = AnalysisOptions::default().title)]
    title: String,
    /// Clusters of benchmarks to look for.
    #[arg(long, default_value_t = AnalysisOptions::default().clusters)]
    clusters: usize,
    /// Draws of each resampling.
    #[arg(long, default_value_t = AnalysisOptions::default().resamples)]
    resamples: usize,
    /// Seed of resampling and clustering.
    #[arg(long, default_value_t = AnalysisOptions::default().seed)]
    seed: u64,
}

impl Analyze {
    /// Reads, analyses, writes, and says what was found.
    pub fn run(self) -> Outcome {
        let (folders, tables): (Vec<_>, Vec<_>) =
            self.scores.into_iter().partition(|path| path.is_dir());
        let mut inputs = Inputs::read(&tables)?;
        for folder in &folders {
            inputs.runs.extend(run_scores(folder)?);
        }
        let options = AnalysisOptions {
            title: self.title,
            seed: self.seed,
            clusters: self.clusters,
            resamples: self.resamples,
            ..AnalysisOptions::default()
        };
        let done = analyze(inputs, &options, &self.out)?;
        for finding in &done.analysis.findings {
            output::note(&format!("{}: {}", finding.about, finding.text));
        }
        output::note(&rules(&done.analysis));
        for caution in &done.analysis.table.cautions {
            output::note(&format!("warning: {caution}"));
        }
        for note in done.analysis.left_out() {
            output::note(&format!("left out: {note}"));
        }
        output::data(&done.report.display().to_string());
        Ok(ExitCode::SUCCESS)
    }
}

/// By whose rules the scores were judged, as a table; one line if there are no runs.
fn rules(analysis: &Analysis) -> String {
    let sources = analysis.sources();
    if sources.is_empty() {
        return format!("{}: the scores are from tables", analysis.protocols());
    }
    let rows: Vec<Vec<String>> = sources
        .into_iter()
        .map(|source| {
            let questions = source.questions.to_string();
            let runs = source.runs.join(", ");
            vec![
                source.benchmark,
                source.protocol,
                questions,
                source.data,
                runs,
            ]
        })
        .collect();
    output::table(
        &["benchmark", "protocol", "questions", "data", "runs"],
        &rows,
    )
}
