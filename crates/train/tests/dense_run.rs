//! A run of dense supervision belongs to its label maps.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::prelude::Device;
use opabinia_image::RgbImage;
use opabinia_train::TrainError;
use opabinia_train::engine::record::Unobserved;
use opabinia_train::job::{Finished, JobOptions, run};
use opabinia_train::pretrain::LabelFiles;
use opabinia_train::recipe::Recipe;
use serde_json::json;

static STOP: AtomicBool = AtomicBool::new(false);

/// A map of 2 × 2 cells in one plane.
fn map(folder: &Path, name: &str, cells: [u8; 4]) {
    let grey = cells.iter().flat_map(|cell| [*cell; 3]).collect();
    let map = RgbImage::from_raw(2, 2, grey).unwrap();
    map.save_png(folder.join("labels").join(name)).unwrap();
}

fn description(folder: &Path, second: &str) {
    let meaning = json!({"rows": 2, "cols": 2, "ignore": 255,
        "planes": [{"name": "kind", "classes": ["nothing", second]}]});
    fs::write(folder.join("labels/labels.json"), meaning.to_string()).unwrap();
}

/// Two pictures with maps, and a recipe for two steps of which the first is saved.
fn ground(folder: &Path) -> Recipe {
    fs::create_dir_all(folder.join("labels")).unwrap();
    description(folder, "ball");
    let mut samples = String::new();
    for (name, grey) in [("0.png", 40), ("1.png", 200)] {
        let picture = RgbImage::filled(32, 32, [grey; 3]).unwrap();
        picture.save_png(folder.join(name)).unwrap();
        map(folder, name, [0, 1, 1, 0]);
        let sample = json!({"image": name, "conversations": [
            {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]});
        samples += &format!("{sample}\n");
    }
    fs::write(folder.join("samples.jsonl"), samples).unwrap();
    let encoder = json!({"model_type": "siglip_vision_model", "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "patch_size": 8, "image_size": 32, "intermediate_size": 32});
    fs::write(folder.join("siglip.json"), encoder.to_string()).unwrap();
    let path = |name: &str| folder.join(name);
    let text = format!(
        "name = \"dense\"\nstage = \"dense\"\nseed = 1\n[encoder]\nname = \"opabinia/small-siglip-128\"\n\
         config = {:?}\n[dense]\nlabels = {:?}\n[data]\nfiles = [{:?}]\nimages = {folder:?}\n[batch]\n\
         global = 2\nmicro = 2\n[optimizer]\nlr = 1e-3\n[schedule]\nsteps = 2\n",
        path("siglip.json"),
        path("labels"),
        path("samples.jsonl"),
    );
    fs::write(path("recipe.toml"), text).unwrap();
    Recipe::read(&path("recipe.toml")).unwrap()
}

fn step(recipe: &Recipe, folder: &Path) -> Result<Finished, TrainError> {
    let options = JobOptions {
        folder: Some(folder.join("run")),
        devices: vec![Device::flex()],
        memory: None,
        disk: None,
        at_most: Some(1),
        stop: &STOP,
    };
    run(recipe, &options, &mut Unobserved)
}

#[test]
fn a_run_does_not_go_on_with_other_label_maps() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let recipe = ground(folder);
    assert_eq!(step(&recipe, folder).unwrap().step, 1);
    map(folder, "1.png", [1, 1, 1, 0]);
    let error = step(&recipe, folder).unwrap_err().to_string();
    assert!(error.contains("other data"), "{error}");
    map(folder, "1.png", [0, 1, 1, 0]);
    description(folder, "box");
    let error = step(&recipe, folder).unwrap_err().to_string();
    assert!(error.contains("other data"), "{error}");
    // As they were, they are the same.
    description(folder, "ball");
    assert_eq!(step(&recipe, folder).unwrap().step, 2);
}

#[test]
fn a_map_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = ground(folder.path());
    fs::remove_file(folder.path().join("labels/1.png")).unwrap();
    let error = step(&recipe, folder.path()).unwrap_err();
    assert!(error.to_string().contains("1.png"), "{error}");
    let names = ["0.png", "1.png"].map(str::to_owned);
    let labels = LabelFiles::open(&folder.path().join("labels"), &names).unwrap();
    assert!(labels.hash().is_err());
}
