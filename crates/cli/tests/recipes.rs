//! The small model's recipes, one after the other, as docs/training.md says it: two steps of each, in worlds of a few
//! pictures. How well they do is not judged here; that each finds what the one before it left is.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::Path;

use tempfile::TempDir;

/// The commands of docs/training.md from nothing to a model that is examined.
fn commands() -> Vec<Vec<String>> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/training.md");
    let document = fs::read_to_string(document).unwrap().replace("\\\n", " ");
    let (_, from) = document
        .split_once("\n## From nothing to a model\n")
        .unwrap();
    let (_, from) = from.split_once("```sh\n").unwrap();
    let (block, _) = from.split_once("```").unwrap();
    let words = |line: &str| line.split_whitespace().skip(1).map(str::to_owned).collect();
    block.lines().map(words).collect()
}

/// Another value for an option that is there.
fn set(command: &mut [String], option: &str, value: &str) {
    if let Some(at) = command.iter().position(|word| word == option) {
        command[at + 1] = value.to_owned();
    }
}

#[test]
fn the_document_trains_a_model_from_nothing() {
    let folder = TempDir::new().unwrap();
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/small");
    let small = folder.path().join("recipes/small");
    fs::create_dir_all(&small).unwrap();
    for recipe in fs::read_dir(recipes).unwrap() {
        let recipe = recipe.unwrap();
        fs::copy(recipe.path(), small.join(recipe.file_name())).unwrap();
    }
    let (mut worlds, mut stages) = (0, 0);
    for mut command in commands() {
        match command[0].as_str() {
            "world" => {
                worlds += 1;
                set(&mut command, "--pictures", "24");
                set(&mut command, "--test", "8");
                set(&mut command, "--texts", "200");
            }
            "train" => {
                stages += 1;
                let small = ["schedule.steps=2", "batch.global=8", "batch.micro=8"];
                let sets = small.into_iter().flat_map(|value| ["--set", value]);
                command.extend(sets.map(str::to_owned));
            }
            "eval" => command.extend(["--limit", "12"].map(str::to_owned)),
            other => panic!("docs/training.md trains with `{other}`"),
        }
        let mut program = common::program(&command);
        program.current_dir(folder.path());
        common::run(program, b"").ok();
    }
    assert!(
        worlds >= 3 && stages >= 5,
        "{worlds} worlds, {stages} stages"
    );
    let model = folder
        .path()
        .join("runs/small/instruct-more/model/model.safetensors");
    assert!(model.is_file());
}
