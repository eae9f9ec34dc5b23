//! Does this program compute what the reference computes?
//!
//! A *case* is a folder with `case.json` (what it is and the tolerance), weights, inputs and the
//! reference's outputs. Running a case goes through the same public functions that answer
//! questions, and compares every tensor the reference left: `|a − b| ≤ max_abs + rel · |b|`,
//! elementwise. Texts and token ids must be equal.
//!
//! This is for users as well as for tests: whoever converts a checkpoint can write a case from the
//! original and prove the conversion.

mod case;
mod conversations;
mod model;
mod parts;
mod preprocess;
mod vision;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
pub use case::{Case, CaseError, Extent, Tolerance, reduced_tolerance};
use opabinia_weights::WeightDtype;
use serde::Serialize;

/// What came out of one case.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// Name of the folder.
    pub case: String,
    /// `kind` in its `case.json`.
    pub kind: String,
    /// One per tensor, text or list of ids that was compared.
    pub checks: Vec<Check>,
    /// Tensors of the reference that this program has no value for.
    pub not_compared: Vec<String>,
}

impl CaseReport {
    /// Whether something was compared and everything held.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.holds)
    }
}

/// One comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was compared.
    pub name: String,
    /// Whether it held.
    pub holds: bool,
    /// Largest absolute deviation; none for texts and ids.
    pub max_abs: Option<f64>,
    /// Largest deviation relative to the reference's value, where that is not tiny.
    pub max_rel: Option<f64>,
    /// Largest deviation in units of what is allowed; at most 1 holds.
    pub of_allowed: Option<f64>,
    /// What differs, if it does not hold.
    pub difference: Option<String>,
}

/// Runs one case folder.
///
/// # Errors
/// If the case cannot be read, is of a kind or an encoder family that is not built, or a file in it
/// does not fit its configuration. A deviation is no error: it is in the report.
pub fn run_case(folder: &Path) -> Result<CaseReport, CaseError> {
    run_case_as(folder, WeightDtype::F32, &Device::flex())
}

/// [`run_case`] on any device, and with the large weights in another type: tensors are then compared as a whole
/// ([`reduced_tolerance`]), and greedy tokens, which a small deviation may change, are not.
///
/// # Errors
/// As [`run_case`].
pub fn run_case_as(
    folder: &Path,
    dtype: WeightDtype,
    device: &Device,
) -> Result<CaseReport, CaseError> {
    let mut case = Case::open(folder)?;
    case.dtype = dtype;
    case.device = device.clone();
    let checks = match case.kind.as_str() {
        "preprocess" => preprocess::run(&case),
        "conversations" => conversations::run(&case),
        "sva" => parts::run_sampler(&case),
        "projector" => parts::run_projector(&case),
        "vision_encoder" => vision::run(&case),
        "model" => model::run(&case),
        _ => return Err(case.unknown_kind()),
    }?;
    let not_compared = case.untouched();
    Ok(CaseReport {
        case: case.name,
        kind: case.kind,
        checks,
        not_compared,
    })
}

/// The case folders that a path means: itself, or the folders in it that are cases.
///
/// # Errors
/// If there is none, or the path cannot be read.
pub fn find_cases(path: &Path) -> Result<Vec<PathBuf>, CaseError> {
    if path.join("case.json").is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|source| CaseError::Io {
        path: path.to_owned(),
        source,
    })?;
    let mut cases: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("case.json").is_file())
        .collect();
    if cases.is_empty() {
        return Err(CaseError::NoCases {
            path: path.to_owned(),
        });
    }
    cases.sort();
    Ok(cases)
}
