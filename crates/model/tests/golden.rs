//! Every case below `$OPABINIA_GOLDEN` (default: the repository's `tests/golden`), by kind, through
//! the public API. A kind without a single case fails, so that a wrong path cannot pass.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and tell"
)]

use std::path::{Path, PathBuf};

use opabinia_model::parity::{CaseError, find_cases, run_case};
use opabinia_vision::VisionError;

fn root() -> PathBuf {
    match std::env::var_os("OPABINIA_GOLDEN") {
        Some(root) => root.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
    }
}

/// Runs every case of a kind; encoder families that are not built must say so.
fn all_hold(kind: &str) {
    let mut ran = 0;
    for folder in find_cases(&root()).unwrap() {
        let json = std::fs::read_to_string(folder.join("case.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        if json["kind"] != kind {
            continue;
        }
        let report = match run_case(&folder) {
            Ok(report) => report,
            Err(CaseError::Vision(error @ VisionError::UnsupportedFamily { .. })) => {
                println!("{}: {error}", folder.display());
                continue;
            }
            Err(error) => panic!("{}: {error}", folder.display()),
        };
        let failed: Vec<_> = report.checks.iter().filter(|check| !check.holds).collect();
        assert!(report.holds(), "{}: {failed:#?}", report.case);
        ran += 1;
    }
    assert!(ran > 0, "no case of kind {kind} in {}", root().display());
}

#[test]
fn preprocessing() {
    all_hold("preprocess");
}

#[test]
fn conversations() {
    all_hold("conversations");
}

#[test]
fn vision_encoders() {
    all_hold("vision_encoder");
}

#[test]
fn samplers() {
    all_hold("sva");
}

#[test]
fn projectors() {
    all_hold("projector");
}

#[test]
fn whole_models() {
    all_hold("model");
}
