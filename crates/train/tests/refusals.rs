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

/// A recipe for a stage over one picture with the golden model, in a folder.
fn recipe(folder: &Path) -> Recipe {
    let model = golden().join("cambrian_llama_sva");
    let sample = r#"{"image": "square.png", "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]}"#;
    let samples = folder.join("samples.jsonl");
    fs::write(&samples, format!("{sample}\n")).unwrap();
    let text = format!(
        "name = \"small\"\nstage = \"align\"\n[model]\nfrom = {model:?}\n[data]\nfiles = \
         [{samples:?}]\nimages = {:?}\nfeature_cache = {:?}\n[batch]\nglobal = 1\nmicro = 1\n\
         [optimizer]\nlr = 1e-3\n[schedule]\nsteps = 1\n",
        model.join("images"),
        folder.join("features"),
    );
    let path = folder.join("recipe.toml");
    fs::write(&path, text).unwrap();
    Recipe::read(&path).unwrap()
}

/// Weights, gradients and moments fit, and what one step was seen to take does not; and the same of the
/// disk with checkpoints, and checkpoints and features.
#[test]
fn what_a_step_shows_not_to_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path());
    let look = |memory, disk| {
        let options = JobOptions {
            devices: vec![Device::flex()],
            memory,
            disk,
            folder: Some(folder.path().join("run")),
            at_most: None,
            stop: &STOP,
        };
        preflight(&recipe, &options)
    };
    let flight = look(None, None).unwrap();
    let cache = flight.cache_bytes.unwrap();
    assert!(cache > 0 && flight.peak_bytes.unwrap() > flight.state_bytes);
    let refused = |memory, disk| look(memory, disk).unwrap_err().to_string();
    let error = refused(Some(flight.state_bytes), None);
    assert!(error.contains("GB of memory"), "{error}");
    for disk in [flight.disk_bytes - 1, flight.disk_bytes + cache - 1] {
        let error = refused(None, Some(disk));
        assert!(
            error.contains("GB of disk") && error.contains("--out"),
            "{error}"
        );
    }
    assert!(look(Some(1 << 40), Some(flight.disk_bytes + cache)).is_ok());
    assert!(!folder.path().join("features").exists());
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
