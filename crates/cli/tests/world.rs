//! `world`: a small world from the command line.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;

use common::{opabinia, text};
use tempfile::TempDir;

/// A world of a few small pictures in `folder`, with further arguments.
fn make(folder: &TempDir, more: &[&str]) -> common::Run {
    let path = text(&folder.path().join("world"));
    let few = [
        "--pictures",
        "6",
        "--test",
        "4",
        "--texts",
        "5",
        "--side",
        "64",
    ];
    let mut arguments = vec!["world", "make", &path];
    arguments.extend(few);
    arguments.extend(more);
    opabinia(&arguments)
}

#[test]
fn a_world_is_made_and_summarized() {
    let folder = TempDir::new().unwrap();
    let run = make(&folder, &["--mix", "scene=2,word=1", "--threads", "1"]).ok();
    let run = run.mentions(&["pictures/s", "per thread"]);
    for word in [
        "train/instruct.jsonl",
        "vision_centric",
        "spatial",
        "knowledge",
        "majority",
    ] {
        assert!(
            run.stdout.contains(word),
            "`{word}` is missing\n{}",
            run.everything()
        );
    }
    let world = folder.path().join("world");
    for file in [
        "world.json",
        "train/align.jsonl",
        "train/instruct.jsonl",
        "train/apart.jsonl",
        "train/single.jsonl",
        "train/listed.jsonl",
        "train/text.jsonl",
        "train/images/00/000005.png",
        "train/annotations/coco.json",
        "train/annotations/omni3d.json",
        "train/annotations/ade20k/objectInfo.txt",
        "test/instruct.jsonl",
        "test/questions.jsonl",
        "test/images/00/000003.png",
    ] {
        assert!(world.join(file).is_file(), "{file} is missing");
    }
    assert!(
        !run.stdout.contains("\ntable  "),
        "only what the mix names is counted"
    );
}

#[test]
fn a_world_is_made_once() {
    let folder = TempDir::new().unwrap();
    let first = make(&folder, &["--json"]).ok().json();
    assert_eq!(first["options"]["pictures_train"], 6);
    assert_eq!(first["lines"]["train/align.jsonl"], 6);
    let again = make(&folder, &["--json", "--threads", "2"]).ok();
    let again = again.mentions(&["already there"]).json();
    assert_eq!(again["seconds"], first["seconds"], "nothing was made again");
    make(&folder, &["--seed", "1"]).fails_with(1, &["other options", "hint: `--force`"]);
    let replaced = make(&folder, &["--seed", "1", "--force", "--json"])
        .ok()
        .json();
    assert_eq!(replaced["options"]["seed"], 1);
}

#[test]
fn a_folder_with_other_files_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let world = folder.path().join("world");
    fs::create_dir(&world).unwrap();
    fs::write(world.join("thesis.txt"), "mine").unwrap();
    make(&folder, &["--force"]).fails_with(1, &["holds other files"]);
    assert_eq!(fs::read(world.join("thesis.txt")).unwrap(), b"mine");
}

#[test]
fn wrong_options_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    make(&folder, &["--mix", "scenes=1"]).fails_with(2, &["scenes", "labels"]);
    make(&folder, &["--mix", "scene=0"]).fails_with(1, &["`mix`"]);
    make(&folder, &["--turns", "0"]).fails_with(1, &["`turns` is 0"]);
    make(&folder, &["--sentences", "1.5"]).fails_with(1, &["`sentences` is 1.5"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_picture_is_shown_by_its_seed() {
    let folder = TempDir::new().unwrap();
    let out = text(&folder.path().join("scene.png"));
    let arguments = [
        "world",
        "show",
        "--seed",
        "5",
        "--subject",
        "scene",
        "--out",
        &out,
    ];
    let run = opabinia(&arguments).quiet();
    for word in ["scene of seed 5", "\"objects\"", "short: ", "sentence: "] {
        assert!(
            run.stdout.contains(word),
            "`{word}` is missing\n{}",
            run.everything()
        );
    }
    assert!(fs::read(out).unwrap().starts_with(b"\x89PNG"));
    let json = opabinia(&["world", "show", "--subject", "bar", "--json"])
        .quiet()
        .json();
    assert_eq!(json["subject"], "bar");
    assert_eq!(json["truth"]["kind"], "chart");
    assert!(!json["questions"].as_array().unwrap().is_empty());
    opabinia(&["world", "show", "--subject", "boat"]).fails_with(2, &["boat", "scene"]);
    opabinia(&["world", "show", "--side", "3"]).fails_with(2, &["--side", "64..=2048"]);
    opabinia(&["world", "show", "--turns", "0"]).fails_with(2, &["--turns", "1..=64"]);
}

#[test]
fn a_picture_of_a_world_is_shown_as_it_is_there() {
    let folder = TempDir::new().unwrap();
    make(&folder, &[]).ok();
    let world = text(&folder.path().join("world"));
    let out = text(&folder.path().join("again.png"));
    let picture = [
        "world",
        "show",
        &world,
        "--split",
        "test",
        "--picture",
        "2",
        "--out",
        &out,
    ];
    opabinia(&picture).quiet();
    let there = folder.path().join("world/test/images/00/000002.png");
    assert_eq!(fs::read(out).unwrap(), fs::read(there).unwrap());
    let missing = ["world", "show", &world, "--picture", "6"];
    opabinia(&missing).fails_with(1, &["no picture 6", "hint: this split has 6"]);
    let summary = opabinia(&["world", "show", &world]).quiet();
    assert!(
        summary.stdout.contains("train/align.jsonl"),
        "{}",
        summary.everything()
    );
    let empty = text(folder.path());
    opabinia(&["world", "show", &empty]).fails_with(1, &["world.json"]);
}
