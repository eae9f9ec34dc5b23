//! Files that are no plain lines, read directly by checks, statistics and curations.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write;
use std::path::{Path, PathBuf};

use opabinia_curate::convert::{Conversion, Kind, To, convert};
use opabinia_curate::look::{Files, check, has_an_answer, nth, stats};
use opabinia_curate::{CurateError, Manifest, Options, Recipe, Watch, curate, ledger};
use serde_json::{Value, json};

const WATCH: Watch<'static> = Watch {
    progress: &|_| {},
    cancelled: &|| false,
};

fn record(id: u32, image: Option<&str>) -> Value {
    let question = if image.is_some() {
        "<image>\nWhat is it?"
    } else {
        "What is it?"
    };
    let mut record = json!({"id": format!("{id}"), "source": "s", "conversations": [
        {"from": "human", "value": question}, {"from": "gpt", "value": format!("number {id}")}]});
    if let Some(image) = image {
        record["image"] = json!(image);
    }
    record
}

/// Four samples, of which the third repeats the first, and a line that is none.
fn lines() -> String {
    let ids = [1, 2, 1, 3].map(|id| record(id, None).to_string());
    format!(
        "{}\n\nnonsense\n{}\n{}\n{}\n",
        ids[0], ids[1], ids[2], ids[3]
    )
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn run(files: &[PathBuf], out: &Path) -> Result<Manifest, CurateError> {
    let mut recipe: Recipe = toml::from_str("[dedup]\nexact = true\n").unwrap();
    recipe.input.files = files.to_vec();
    let recipe = recipe.resolved("test", Path::new("")).unwrap();
    let options = Options {
        threads: 2,
        part_bytes: 300,
        cluster: None,
        memory_bytes: 64 << 20,
    };
    curate(&recipe, out, &options, &WATCH)
}

fn shard(out: &Path) -> String {
    std::fs::read_to_string(out.join("samples-00000.jsonl")).unwrap()
}

#[test]
fn a_curation_reads_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("plain"), lines()).unwrap();
    let made = run(&[at("plain")], &at("out-plain")).unwrap();
    assert_eq!((made.total.of("kept"), made.total.of("duplicate")), (3, 1));
    let expected = shard(&at("out-plain"));
    let records: Vec<Value> = [1, 2, 1, 3].map(|id| record(id, None)).into();
    let chat = |record: &Value| {
        let mut record = record.clone();
        for turn in record["conversations"].as_array_mut().unwrap() {
            let who = if turn["from"] == "human" {
                "user"
            } else {
                "assistant"
            };
            turn["from"] = json!(who);
        }
        format!("{record}\n")
    };
    let files = [
        ("gz", gz(lines().as_bytes()), Kind::Gzip),
        (
            "zst",
            zstd::encode_all(lines().as_bytes(), 1).unwrap(),
            Kind::Zstd,
        ),
        (
            "array",
            json!(records).to_string().into_bytes(),
            Kind::Array,
        ),
        (
            "chat",
            records.iter().map(chat).collect::<String>().into_bytes(),
            Kind::Chat,
        ),
    ];
    for (name, bytes, kind) in files {
        std::fs::write(at(name), bytes).unwrap();
        let out = at(&format!("out-{name}"));
        let made = run(&[at(name)], &out).unwrap();
        assert_eq!(made.inputs[0].kind, kind);
        assert_eq!(shard(&out), expected, "{name}");
        assert!(!out.join("work").exists());
        // Done already, and known by the file itself.
        assert_eq!(run(&[at(name)], &out).unwrap(), made);
    }
    // Lines keep their numbers.
    let entries = ledger::find(&at("out-gz"), 9, &|entry| entry.outcome == "duplicate").unwrap();
    assert_eq!((entries[0].line, entries.len()), (5, 1));
    assert!(entries[0].why.ends_with("gz:1`"), "{}", entries[0].why);
}

/// A sample with a picture and one without, in a form with pictures inside.
fn with_pictures(folder: &Path, to: To) -> PathBuf {
    let images = folder.join("images");
    std::fs::create_dir_all(&images).unwrap();
    let picture = opabinia_image::RgbImage::filled(30, 20, [1, 2, 3]).unwrap();
    picture.save_png(images.join("a.png")).unwrap();
    let file = folder.join("with.jsonl");
    let text = format!("{}\n{}\n", record(1, Some("a.png")), record(2, None));
    std::fs::write(&file, text).unwrap();
    let conversion = Conversion {
        files: vec![file],
        images: Some(images),
        to,
        shard_samples: 10,
    };
    let out = folder.join(format!("{to:?}"));
    let made = convert(&conversion, &out, &WATCH).unwrap();
    out.join(&made.shards[0])
}

#[test]
fn pictures_inside_are_checked_measured_and_shown_but_not_curated() {
    for to in [To::Parquet, To::WebDataset] {
        let folder = tempfile::tempdir().unwrap();
        let file = with_pictures(folder.path(), to);
        let files = Files {
            files: vec![file.clone()],
            decode: true,
            ..Files::default()
        };
        let mut bad = |bad| panic!("{bad:?}");
        let checked = check(&files, &has_an_answer, &mut bad, &WATCH).unwrap();
        assert_eq!((checked.samples, checked.good), (2, 2));
        let stats = stats(&files, &WATCH).unwrap();
        assert_eq!((stats.total.samples, stats.total.with_picture), (2, 1));
        assert_eq!(
            (stats.picture_sides.total, stats.picture_sides.max),
            (1, 30)
        );
        let (line, pictures) = nth(&file, 1).unwrap().unwrap();
        assert!(String::from_utf8(line).unwrap().contains("a.png"));
        assert_eq!(pictures.len(), 1);
        assert!(nth(&file, 3).unwrap().is_none());
        let error = run(std::slice::from_ref(&file), &folder.path().join("out")).unwrap_err();
        assert!(
            matches!(error, CurateError::PicturesInside { .. }),
            "{error}"
        );
        assert!(
            error.to_string().contains("opabinia data convert"),
            "{error}"
        );
    }
}

#[test]
fn broken_pictures_inside_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let json = record(1, None).to_string();
    for (name, bytes) in [
        ("1.json", json.as_bytes()),
        ("1.png", b"no picture"),
        ("1.cls", b"7"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    }
    let path = folder.path().join("a.tar");
    std::fs::write(&path, tar.into_inner().unwrap()).unwrap();
    let files = Files {
        files: vec![path],
        decode: true,
        ..Files::default()
    };
    let mut found = Vec::new();
    let mut take = |bad: opabinia_curate::look::BadLine| {
        found.push((bad.kind, bad.line));
        Ok(())
    };
    let checked = check(&files, &has_an_answer, &mut take, &WATCH).unwrap();
    assert_eq!((checked.samples, found), (1, vec![("bad_image", 1)]));
}
