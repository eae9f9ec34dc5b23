//! The report: one page and the plots, written into a folder.
//!
//! The page carries everything it needs (styles, script, font, plots as SVG), so that it opens
//! without a network and can be sent to somebody as one file. Plots are drawn once, as shapes
//! ([`drawing`]), and written as SVG by [`svg`] and as pixels by [`png`].

mod data;
mod drawing;
mod figures;
mod labels;
mod page;
mod palette;
mod png;
mod scale;
mod svg;
mod tables;
mod text;

pub(crate) use data::quoted;

use std::path::{Path, PathBuf};

use super::Analysis;
use super::error::AnalysisError;

/// What the page is called.
pub(super) const PAGE: &str = "report.html";
/// The folder of the plots.
const PLOTS: &str = "plots";

/// Writes the report and gives the files it consists of.
pub(super) fn write(analysis: &Analysis, folder: &Path) -> Result<Vec<PathBuf>, AnalysisError> {
    let plots = folder.join(PLOTS);
    std::fs::create_dir_all(&plots).map_err(AnalysisError::write(&plots))?;
    let figures = figures::figures(analysis);
    let mut files = Vec::new();
    let mut save = |path: PathBuf, text: String| -> Result<(), AnalysisError> {
        std::fs::write(&path, text).map_err(AnalysisError::write(&path))?;
        files.push(path);
        Ok(())
    };
    save(folder.join(PAGE), page::html(analysis, &figures))?;
    save(folder.join("scores.json"), analysis.table.to_json()?)?;
    let everything = serde_json::to_string_pretty(analysis);
    let everything = everything.map_err(|source| AnalysisError::Json {
        what: "the analysis",
        source,
    })?;
    save(folder.join("analysis.json"), everything)?;
    for figure in &figures {
        let path = |extension: &str| plots.join(format!("{}.{extension}", figure.name));
        save(path("svg"), svg::svg(&figure.drawing, svg::Place::File))?;
        save(path("csv"), figure.data.csv())?;
        save(path("json"), figure.data.json()?)?;
    }
    if analysis.options.png {
        for figure in &figures {
            let path = plots.join(format!("{}.png", figure.name));
            png::write(&figure.drawing, &path)?;
            files.push(path);
        }
    }
    Ok(files)
}
