//! Formats there and back: what was said by samples, and their pictures, survive.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use opabinia_curate::convert::{Conversion, Converted, To, convert};
use opabinia_curate::look::{Files, check, has_an_answer};
use opabinia_curate::{CurateError, Watch};
use proptest::prelude::*;
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

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9_f64).prop_map(Value::from),
        "[a-z<>\"\\\\ é\n]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,3}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn turns() -> impl Strategy<Value = Value> {
    let turn = (
        "(human|gpt|system|tool|user)",
        "[a-zé<\n]{0,8}",
        prop::option::of(json_value()),
    );
    let turn = turn.prop_map(|(from, value, weight)| match weight {
        Some(weight) => json!({"from": from, "value": value, "weight": weight}),
        None => json!({"from": from, "value": value}),
    });
    prop::collection::vec(turn, 0..4).prop_map(Value::from)
}

/// Records with and without everything that samples have, pictures `a.png` and `b.png` among it.
fn record() -> impl Strategy<Value = Value> {
    let image = prop_oneof![
        Just(json!("a.png")),
        Just(json!(["a.png", "b.png"])),
        Just(json!("../a.png")),
        Just(json!("none.png")),
        json_value(),
    ];
    let field = |value: BoxedStrategy<Value>| prop::option::of(value);
    (
        field(json_value().boxed()),
        field(image.boxed()),
        field(prop_oneof![turns(), json_value()].boxed()),
        field(json_value().boxed()),
        field(prop_oneof![Just(json!(["a.png"])), json_value()].boxed()),
        prop::collection::btree_map("(source|category|extra|line|weight)", json_value(), 0..3),
    )
        .prop_map(|(id, image, turns, system, images, more)| {
            let named = [
                ("id", id),
                ("image", image),
                ("conversations", turns),
                ("system", system),
                ("images", images),
            ];
            let named = named
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value?)));
            Value::Object(named.chain(more).collect())
        })
}

/// Texts and numbers that a value has.
fn leaves(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| leaves(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| leaves(value, found)),
        Value::Null => {}
        other => found.push(other.to_string()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_this_program_wrote_comes_back_as_it_was(
        records in prop::collection::vec(record(), 1..6),
        broken in "[{a\"é]{1,8}",
    ) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let images = root.join("images");
        std::fs::create_dir(&images).unwrap();
        for (name, shade) in [("a.png", 1), ("b.png", 2)] {
            let picture = opabinia_image::RgbImage::filled(3, 2, [shade; 3]).unwrap();
            picture.save_png(images.join(name)).unwrap();
        }
        let file = root.join("samples.jsonl");
        let text: String = records.iter().map(|record| format!("{record}\n")).collect();
        std::fs::write(&file, format!("{text}{{{broken}\n")).unwrap();
        let plain = run(vec![file], To::Lines, None, &root.join("plain")).unwrap();
        let texts = |name: &str, converted: &Converted| -> String {
            let shards = shards(&root.join(name), converted).into_iter();
            shards.map(|shard| std::fs::read_to_string(shard).unwrap()).collect()
        };
        let before = texts("plain", &plain);
        for to in [To::Parquet, To::WebDataset] {
            let (there, back) = (format!("{to:?}"), format!("{to:?}-back"));
            let files = shards(&root.join("plain"), &plain);
            let made = run(files, to, Some(images.clone()), &root.join(&there)).unwrap();
            let files = shards(&root.join(&there), &made);
            let made = run(files, To::Lines, None, &root.join(&back)).unwrap();
            let after = texts(&back, &made);
            prop_assert_eq!(before.lines().count(), after.lines().count());
            for (before, after) in before.lines().zip(after.lines()) {
                match serde_json::from_str::<Value>(before) {
                    Ok(before) => prop_assert_eq!(before, serde_json::from_str::<Value>(after).unwrap()),
                    Err(_) => prop_assert_eq!(before, after),
                }
            }
            // Pictures keep their names.
            for name in ["a.png", "b.png"] {
                let saved = root.join(&back).join("images").join(name);
                if saved.exists() {
                    prop_assert_eq!(std::fs::read(saved).unwrap(), std::fs::read(images.join(name)).unwrap());
                }
            }
        }
    }

    #[test]
    fn nothing_that_somebody_else_wrote_is_lost(record in record(), parts in prop::collection::vec(json_value(), 0..3)) {
        let mut record = record;
        let texts = parts.iter().map(|part| json!({"type": "text", "text": "t", "cache": part}));
        record["messages"] = json!([
            {"role": "system", "content": "be brief", "name": "s"},
            {"role": "user", "content": texts.chain([json!({"type": "image_url", "image_url": {"url": "https://h/x.png", "detail": "high"}})]).collect::<Vec<_>>()},
            {"role": "assistant", "content": "yes", "weight": 0.5},
        ]);
        let done = opabinia_curate::convert::normalise(record.clone(), &mut Vec::new());
        let (mut before, mut after) = (Vec::new(), Vec::new());
        leaves(&record, &mut before);
        leaves(&done, &mut after);
        // Names of roles and kinds are structure, and texts of parts are joined.
        let after = after.join("\n");
        for leaf in before.iter().filter(|leaf| !["\"user\"", "\"assistant\"", "\"system\"", "\"text\"", "\"image_url\"", "\"t\""].contains(&leaf.as_str())) {
            prop_assert!(after.contains(leaf.trim_matches('"')), "{leaf} of {record} is not in {done}");
        }
    }
}
