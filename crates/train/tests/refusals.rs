//! What cannot work is refused before it costs anything.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::prelude::Device;
use opabinia_train::job::{JobOptions, preflight};
use opabinia_train::recipe::Recipe;

static STOP: AtomicBool = AtomicBool::new(false);

fn golden() -> PathBuf {
    std::env::var_os("OPABINIA_GOLDEN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
        PathBuf::from,
    )
}

/// A model needs four bytes for a number that is frozen and sixteen for one that trains; where they
/// are not free, it is not even loaded.
#[test]
fn a_model_that_is_too_large_is_not_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let samples = folder.path().join("samples.jsonl");
    fs::write(&samples, "{}\n").unwrap();
    let recipe = folder.path().join("recipe.toml");
    let text = format!(
        "name = \"large\"\nstage = \"instruct\"\nseed = 1\n[model]\nfrom = {:?}\n[data]\nfiles = \
         [{samples:?}]\nimages = {:?}\n[batch]\nglobal = 1\nmicro = 1\n[optimizer]\nlr = 1e-3\n\
         [schedule]\nsteps = 1\n",
        golden().join("cambrian_llama_sva"),
        folder.path(),
    );
    fs::write(&recipe, text).unwrap();
    let recipe = Recipe::read(&recipe).unwrap();
    let options = JobOptions {
        devices: vec![Device::flex()],
        memory: Some(100_000),
        disk: None,
        folder: Some(folder.path().join("run")),
        at_most: None,
        stop: &STOP,
    };
    let error = preflight(&recipe, &options).unwrap_err().to_string();
    assert!(error.contains("GB of memory"), "{error}");
    assert!(error.contains("[lora]"), "{error}");
}
