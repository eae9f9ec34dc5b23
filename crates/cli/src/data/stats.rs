//! `data stats`: what is in files of samples.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use opabinia_curate::look::{self, Stats};
use opabinia_curate::page;
use serde_json::json;

use super::{FilesArgs, watched};
use crate::failure::Failure;
use crate::{Outcome, output};

/// Count samples by source and category, and measure them.
#[derive(Args)]
pub struct StatsVerb {
    #[command(flatten)]
    files: FilesArgs,
    /// Decode the pictures and measure them, each once.
    #[arg(long)]
    pictures: bool,
    /// Write a page with plots.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
    /// No progress.
    #[arg(short, long)]
    quiet: bool,
}

impl StatsVerb {
    /// Does it.
    pub fn run(self) -> Outcome {
        let files = self.files.look(self.pictures)?;
        let stats = watched(self.quiet, |watch| look::stats(&files, watch))?;
        match self.json {
            true => output::data(&json!(stats).to_string()),
            false => output::data(&tables(&stats)),
        }
        if let Some(path) = &self.page {
            let names: Vec<String> = files
                .files
                .iter()
                .map(|f| f.display().to_string())
                .collect();
            let text = page::html(&names.join(", "), &stats);
            std::fs::write(path, text).map_err(|error| {
                Failure::new(format!("cannot write `{}`: {error}", path.display()))
            })?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn tables(stats: &Stats) -> String {
    let mut sources: Vec<_> = stats.sources.iter().collect();
    sources.sort_by(|a, b| (a.2.samples, &a.0).cmp(&(b.2.samples, &b.0)));
    let mut running = 0;
    let mut rows: Vec<Vec<String>> = Vec::new();
    let total = ("all".to_owned(), String::new(), stats.total.clone());
    for (name, category, own) in sources.into_iter().chain([&total]) {
        let is_total = std::ptr::eq(own, &raw const total.2);
        if !is_total {
            running += own.samples;
        }
        rows.push(vec![
            name.clone(),
            category.clone(),
            own.samples.to_string(),
            running.to_string(),
            own.with_picture.to_string(),
            format!("{:.1}", own.turns.mean()),
            format!("{:.1}", own.words.mean()),
            format!("{:.1}", own.answer_words.mean()),
            format!("{:.1} %", 100.0 * own.short_share()),
        ]);
    }
    let header = [
        "source",
        "category",
        "samples",
        "running total",
        "with picture",
        "turns",
        "words",
        "answer's words",
        "short answers",
    ];
    let mut text = output::table(&header, &rows);
    let categories: Vec<Vec<String>> = page::categories(stats)
        .into_iter()
        .map(|(name, count)| {
            let share = 100.0 * count as f64 / stats.total.samples.max(1) as f64;
            vec![name, count.to_string(), format!("{share:.2} %")]
        })
        .collect();
    text += &format!(
        "\n\n{}",
        output::table(&["category", "samples", "share"], &categories)
    );
    if stats.picture_sides.total > 0 {
        text += &format!(
            "\n\n{} pictures, the longer side {:.0} pixels in the mean, {} at most",
            stats.picture_sides.total,
            stats.picture_sides.mean(),
            stats.picture_sides.max
        );
    }
    if stats.bad_pictures > 0 {
        text += &format!(
            "\n\n{} pictures cannot be decoded; `data check --decode` says which",
            stats.bad_pictures
        );
    }
    if stats.bad > 0 {
        text += &format!(
            "\n\n{} lines are no samples; `data check` says why",
            stats.bad
        );
    }
    text
}
