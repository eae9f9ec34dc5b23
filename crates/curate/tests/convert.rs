//! Formats there and back: what was said by samples, and their pictures, survive.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use opabinia_curate::convert::{Conversion, Converted, To, convert};
use opabinia_curate::look::{Files, check, has_an_answer};
use opabinia_curate::{CurateError, Watch};
use serde_json::{Value, json};

const WATCH: Watch<'static> = Watch {
    progress: &|_| {},
    cancelled: &|| false,
};

fn picture() -> Vec<u8> {
    opabinia_image::RgbImage::filled(3, 2, [1, 2, 3])
        .unwrap()
        .encode_png()
        .unwrap()
}

/// Three samples, the first with a picture `a/1.png`.
fn samples(folder: &Path) -> PathBuf {
    std::fs::create_dir_all(folder.join("images/a")).unwrap();
    std::fs::write(folder.join("images/a/1.png"), picture()).unwrap();
    let turns = |question: &str| json!([{"from": "human", "value": question}, {"from": "gpt", "value": "Ja"}]);
    let lines = [
        json!({"id": "1", "image": "a/1.png", "source": "s", "conversations": turns("<image>\nWas?")}),
        json!({"id": "2", "source": "s", "conversations": turns("Wer?"), "score": 0.5}),
        json!({"id": "3", "category": "c", "conversations": turns("Wo?")}),
    ];
    let path = folder.join("samples.jsonl");
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, text).unwrap();
    path
}

fn run(
    files: Vec<PathBuf>,
    to: To,
    images: Option<PathBuf>,
    out: &Path,
) -> Result<Converted, CurateError> {
    let conversion = Conversion {
        files,
        images,
        to,
        shard_samples: 2,
    };
    convert(&conversion, out, &WATCH)
}

fn shards(folder: &Path, converted: &Converted) -> Vec<PathBuf> {
    converted
        .shards
        .iter()
        .map(|shard| folder.join(shard))
        .collect()
}

fn lines(folder: &Path, converted: &Converted) -> Vec<Value> {
    let texts = shards(folder, converted)
        .into_iter()
        .map(|path| std::fs::read_to_string(path).unwrap());
    let parse = |line: &str| serde_json::from_str(line).unwrap();
    texts
        .flat_map(|text| text.lines().map(parse).collect::<Vec<Value>>())
        .collect()
}

#[test]
fn samples_survive_parquet_and_webdataset() {
    for to in [To::Parquet, To::WebDataset] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let there = run(
            vec![samples(root)],
            to,
            Some(root.join("images")),
            &root.join("there"),
        )
        .unwrap();
        assert_eq!((there.samples, there.shards.len()), (3, 2));
        let back = root.join("back");
        let converted = run(shards(&root.join("there"), &there), To::Lines, None, &back).unwrap();
        assert_eq!(
            (converted.samples, converted.pictures, converted.lines),
            (3, 1, 0)
        );
        let lines = lines(&back, &converted);
        assert_eq!(lines[0]["conversations"][0]["value"], "<image>\nWas?");
        assert_eq!(lines[1]["conversations"][1]["value"], "Ja");
        assert_eq!(lines[2]["category"], "c");
        let image = lines[0]["image"].as_str().unwrap();
        assert_eq!(
            std::fs::read(back.join("images").join(image)).unwrap(),
            picture()
        );
        // It is what every other verb reads.
        let files = Files {
            files: shards(&back, &converted),
            images: Some(back.join("images")),
            decode: true,
            ..Files::default()
        };
        let checked = check(&files, &has_an_answer, &mut |bad| panic!("{bad:?}"), &WATCH).unwrap();
        assert_eq!(checked.good, 3);
        assert!(!root.join("back.partial").exists());
    }
}

#[test]
fn the_same_files_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let file = samples(root);
    for to in [To::Parquet, To::WebDataset, To::Lines] {
        let images = Some(root.join("images"));
        let (one, two) = (root.join(format!("{to:?}1")), root.join(format!("{to:?}2")));
        let made = run(vec![file.clone()], to, images.clone(), &one).unwrap();
        run(vec![file.clone()], to, images, &two).unwrap();
        for shard in &made.shards {
            assert_eq!(
                std::fs::read(one.join(shard)).unwrap(),
                std::fs::read(two.join(shard)).unwrap()
            );
        }
    }
}

#[test]
fn nothing_half_written_is_taken_for_whole() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let broken = root.join("broken.json");
    std::fs::write(&broken, "[{\"id\": 1}, ").unwrap();
    let out = root.join("out");
    let error = run(vec![broken], To::Lines, None, &out)
        .unwrap_err()
        .to_string();
    assert!(error.contains("breaks off"), "{error}");
    assert!(!out.exists());
    // What was left is thrown away by the next try.
    run(vec![samples(root)], To::Lines, None, &out).unwrap();
    let error = run(vec![samples(root)], To::Lines, None, &out)
        .unwrap_err()
        .to_string();
    assert!(error.contains("there already"), "{error}");
}
