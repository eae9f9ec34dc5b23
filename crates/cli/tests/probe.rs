//! `probe` from the command line: the encoders of the small model on a small world, on classes, on COCO.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::Path;

use common::{Run, opabinia, read_json, text};
use serde_json::{Value, json};
use tempfile::TempDir;

const SIGLIP: &str = "opabinia/small-siglip-128";
const CONVNEXT: &str = "opabinia/small-convnext-256";

/// A world of a few scenes, and a cache.
struct Ground {
    folder: TempDir,
}

impl Ground {
    fn new(train: usize, test: usize) -> Self {
        let ground = Self {
            folder: TempDir::new().unwrap(),
        };
        let (world, train, test) = (ground.path("world"), train.to_string(), test.to_string());
        opabinia(&[
            "world",
            "make",
            &world,
            "--pictures",
            &train,
            "--test",
            &test,
            "--texts",
            "0",
            "--mix",
            "scene=1",
            "--side",
            "128",
            "--seed",
            "4",
        ])
        .ok();
        ground
    }

    fn path(&self, name: &str) -> String {
        text(&self.folder.path().join(name))
    }

    /// Few settings to choose from, so that it is quick.
    fn probe(&self, arguments: &[&str]) -> Run {
        let cache = self.path("features");
        let mut all = vec!["probe", "--feature-cache", &cache, "--device", "cpu"];
        all.extend([
            "--l2",
            "0.01,0.1",
            "--neighbors",
            "5,10",
            "--resamples",
            "50",
        ]);
        all.extend(arguments);
        opabinia(&all)
    }
}

fn score<'a>(report: &'a Value, encoder: usize, method: &str) -> &'a Value {
    let scores = report["encoders"][encoder]["scores"].as_array().unwrap();
    scores
        .iter()
        .find(|score| score["method"] == method)
        .unwrap()
}

#[test]
fn encoders_stand_beside_each_other_on_the_world() {
    let ground = Ground::new(60, 30);
    let (world, out) = (ground.path("world"), ground.path("out"));
    let arguments = [
        "--world",
        &world,
        "--encoder",
        SIGLIP,
        "--encoder",
        CONVNEXT,
        "--out",
        &out,
    ];
    let run = ground.probe(&arguments).ok();
    assert_eq!(run.stdout.lines().count(), 4, "{}", run.everything());
    for word in [
        "linear mAP",
        "kNN mAP",
        "95 %",
        SIGLIP,
        CONVNEXT,
        "without looking",
    ] {
        assert!(run.stdout.contains(word), "`{word}`\n{}", run.everything());
    }
    let report = read_json(Path::new(&out).join("probe.json").as_path());
    assert_eq!(
        (&report["task"], &report["pictures"]),
        (&json!("labels"), &json!(90))
    );
    for encoder in 0..2 {
        let row = &report["encoders"][encoder];
        assert_eq!((&row["train"], &row["test"]), (&json!(60), &json!(30)));
        assert_eq!(
            (&row["pooling"], &row["leaked"]),
            (&json!("mean"), &json!(0))
        );
        let linear = score(&report, encoder, "linear");
        let (found, blind) = (linear["percent"].as_f64(), row["without_looking"].as_f64());
        assert!(found > blind, "the features say nothing: {linear}");
        assert!(linear["interval"]["low"].as_f64() < found && found < Some(100.0));
        let groups: Vec<&str> = linear["more"]
            .as_array()
            .unwrap()
            .iter()
            .map(|group| group["name"].as_str().unwrap())
            .collect();
        assert_eq!(groups, ["colour", "material", "shape"]);
    }
    let markdown = fs::read_to_string(Path::new(&out).join("probe.md")).unwrap();
    assert!(
        markdown.starts_with("| encoder |") && markdown.contains("30 to test on"),
        "{markdown}"
    );
    let scores = fs::read_to_string(Path::new(&out).join("scores.csv")).unwrap();
    assert_eq!(scores.lines().count(), 5, "{scores}");

    // Nothing is looked at twice, and the report is the same.
    let again = ground.probe(&[&arguments[..], &["--json"]].concat()).ok();
    let again = again.mentions(&["90 of 90 pictures were seen before"]);
    assert_eq!(again.json(), report);
    // Models that are called by the names of their encoders stand beside them.
    let models = ground.path("models.csv");
    let lines =
        format!("model,benchmark,score\n{SIGLIP},mmvp,40\n{SIGLIP},gqa,60\n{CONVNEXT},mmvp,30\n");
    fs::write(&models, lines).unwrap();
    let with = ground
        .probe(&[&arguments[..], &["--beside", &models]].concat())
        .ok();
    for word in ["Spearman", "Pearson", "all", "40.0", "50.0"] {
        assert!(
            with.stdout.contains(word),
            "`{word}`\n{}",
            with.everything()
        );
    }
    // `analyze` reads the scores.
    let (csv, drawn) = (
        text(&Path::new(&out).join("scores.csv")),
        ground.path("drawn"),
    );
    opabinia(&["analyze", &csv, "--out", &drawn, "--resamples", "100"]).ok();
}

#[test]
fn classes_are_read_from_folders() {
    let ground = Ground::new(24, 1);
    let classes = ground.folder.path().join("classes");
    let train = ground.folder.path().join("world/train");
    let annotated = read_json(&train.join("annotations/coco.json"));
    let images = annotated["images"].as_array().unwrap().iter();
    let names: Vec<_> = images
        .map(|image| train.join(image["file_name"].as_str().unwrap()))
        .collect();
    assert_eq!(names.len(), 24);
    for (place, path) in names.iter().enumerate() {
        let class = classes.join(["one", "two"][place % 2]);
        fs::create_dir_all(&class).unwrap();
        fs::copy(path, class.join(path.file_name().unwrap())).unwrap();
    }
    fs::write(classes.join("one/notes.txt"), "no picture").unwrap();
    fs::write(classes.join("one/torn.png"), b"\x89PNG\r\n\x1a\n torn").unwrap();
    let classes = text(&classes);
    let probe = |max_bad: &[&str]| {
        let arguments = [
            "--classes",
            &classes,
            "--encoder",
            SIGLIP,
            "--method",
            "knn",
            "--json",
        ];
        ground.probe(&[&arguments[..], max_bad].concat())
    };
    probe(&[]).fails_with(
        1,
        &[
            "1 of 25 pictures and entries cannot be used, and at most 0.1% may",
            "torn.png",
            "`--max-bad`",
        ],
    );
    let run = probe(&["--max-bad", "1"]);
    let run = run.ok().mentions(&[
        "1 files are no pictures by their names",
        "1 pictures cannot be used",
        "torn.png",
    ]);
    let report = run.json();
    let row = &report["encoders"][0];
    let used = row["train"].as_u64().unwrap() + row["test"].as_u64().unwrap();
    assert_eq!((used, report["pictures"].as_u64()), (24, Some(25)));
    assert_eq!(score(&report, 0, "knn")["metric"], "accuracy");
    let classes_of = score(&report, 0, "knn")["by_label"].as_array().unwrap();
    let of: u64 = classes_of
        .iter()
        .map(|class| class["of"].as_u64().unwrap())
        .sum();
    assert_eq!(Some(of), row["test"].as_u64());
}

#[test]
fn coco_annotations_are_divided_by_the_seed() {
    let ground = Ground::new(40, 1);
    let annotations = ground.path("world/train/annotations/coco.json");
    let pictures = ground.path("world/train");
    let probe = |more: &[&str]| {
        let arguments = [
            "--coco",
            &annotations,
            "--coco-pictures",
            &pictures,
            "--encoder",
            SIGLIP,
            "--method",
            "linear",
            "--test-share",
            "0.4",
            "--json",
        ];
        ground.probe(&[&arguments[..], more].concat())
    };
    let report = probe(&[]).ok().json();
    let row = &report["encoders"][0];
    assert_eq!((&row["train"], &row["test"]), (&json!(24), &json!(16)));
    assert_eq!(report["labels"], 6, "shapes");
    let other = probe(&["--seed", "5"]).ok().json();
    assert_ne!(score(&other, 0, "linear"), score(&report, 0, "linear"));
    let few = probe(&["--limit", "12"]).ok().json();
    assert_eq!(
        (&few["encoders"][0]["train"], &few["encoders"][0]["test"]),
        (&json!(12), &json!(12))
    );
}

#[test]
fn what_cannot_be_probed_is_refused() {
    let folder = TempDir::new().unwrap();
    let (empty, cache) = (text(folder.path()), text(&folder.path().join("cache")));
    let probe = |arguments: &[&str]| {
        let mut all = vec!["probe", "--feature-cache", &cache];
        all.extend(arguments);
        opabinia(&all)
    };
    probe(&["--encoder", SIGLIP]).fails_with(1, &["no pictures", "hint: name some", "--world"]);
    probe(&["--world", &empty, "--encoder", SIGLIP])
        .fails_with(1, &["coco.json", "opabinia world make"]);
    probe(&["--classes", &empty, "--encoder", SIGLIP]).fails_with(1, &["two or more; found 0"]);
    probe(&["--classes", &empty, "--encoder", "nobody/knows"]).fails_with(1, &["`nobody/knows`"]);
    probe(&["--classes", &empty, "--encoder", SIGLIP, "--l2", "0"]).fails_with(1, &["`l2` is 0"]);
    probe(&[
        "--classes",
        &empty,
        "--encoder",
        SIGLIP,
        "--encoder",
        SIGLIP,
    ])
    .fails_with(1, &["named twice"]);
    probe(&["--classes", &empty]).fails_with(2, &["--encoder"]);
    // Its weights are on the hub, which the tests are cut off from.
    probe(&["--classes", &empty, "--encoder", "facebook/dinov2-small"])
        .fails_with(1, &["HF_HUB_OFFLINE"]);
    for class in ["a", "b"] {
        fs::create_dir_all(folder.path().join(class)).unwrap();
        for file in ["1.png", "2.png"] {
            let picture = common::picture("square");
            fs::copy(picture, folder.path().join(class).join(file)).unwrap();
        }
    }
    probe(&["--classes", &empty, "--encoder", SIGLIP, "--pool", "class"])
        .fails_with(1, &["no class token", "mean"]);
}
