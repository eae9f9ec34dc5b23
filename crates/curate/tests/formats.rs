//! Files that are no plain lines, read directly by checks, statistics and curations.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, BinaryArray, ListArray, RecordBatch, StringArray, StructArray,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{Field, Fields};
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
    let stats = stats(&files, &WATCH).unwrap();
    assert_eq!((stats.bad_pictures, stats.picture_sides.total), (1, 0));
}

#[test]
fn broken_pictures_beside_are_counted_once_each() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    std::fs::write(images.join("good.png"), png(1)).unwrap();
    std::fs::write(images.join("bad.png"), "no picture").unwrap();
    let lines = ["good.png", "bad.png", "bad.png", "none.png"]
        .map(|image| format!("{}\n", record(1, Some(image))));
    let path = folder.path().join("s.jsonl");
    std::fs::write(&path, lines.concat()).unwrap();
    let files = Files {
        files: vec![path],
        images: Some(images),
        decode: true,
        ..Files::default()
    };
    let stats = stats(&files, &WATCH).unwrap();
    // What is not there is a fault of its sample.
    assert_eq!((stats.total.samples, stats.bad), (3, 1));
    assert_eq!((stats.picture_sides.total, stats.bad_pictures), (1, 1));
}

/// ShareGPT, where pictures are a list and a system message may open a conversation.
#[test]
fn records_that_look_like_ours_do_not_hide_a_foreign_form() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("images")).unwrap();
    std::fs::write(at("images/a.png"), png(1)).unwrap();
    let plain = record(1, None);
    let mut shown = record(2, Some("a.png"));
    let fields = shown.as_object_mut().unwrap();
    fields.shift_remove("image");
    fields.insert("images".to_owned(), json!(["a.png"]));
    let mut told = record(3, None);
    let turns = told["conversations"].as_array_mut().unwrap();
    turns.insert(0, json!({"from": "system", "value": "Be brief."}));
    std::fs::write(at("s.jsonl"), format!("{plain}\n{shown}\n{told}\n")).unwrap();
    let files = Files {
        files: vec![at("s.jsonl")],
        images: Some(at("images")),
        decode: true,
        ..Files::default()
    };
    let mut bad = |bad| panic!("{bad:?}");
    let checked = check(&files, &has_an_answer, &mut bad, &WATCH).unwrap();
    assert_eq!(checked.good, 3);
    assert_eq!(stats(&files, &WATCH).unwrap().picture_sides.total, 1);
    let made = run(&[at("s.jsonl")], &at("out/")).unwrap();
    assert_eq!(
        (made.inputs[0].kind, made.total.of("kept")),
        (Kind::Chat, 3)
    );
    let lines = shard(&at("out"));
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0], plain);
    assert_eq!(lines[1]["image"], "a.png");
    assert_eq!(lines[2]["system"], "Be brief.");
    assert!(!at("out.partial").exists());
}

#[test]
fn a_picture_that_makes_a_long_line_is_inside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.jsonl");
    let url = format!("data:image/png;base64,{}", "AAAA".repeat(1 << 18));
    let line = json!({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "A cat."}]});
    std::fs::write(&path, format!("{line}\n")).unwrap();
    let error = run(&[path], &folder.path().join("out")).unwrap_err();
    assert!(
        matches!(error, CurateError::PicturesInside { .. }),
        "{error}"
    );
}

#[test]
fn one_element_that_is_no_json_does_not_spoil_an_array() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("llava.json");
    let good = record(1, None).to_string();
    let nan = good.replacen('{', "{\"image\": NaN, ", 1);
    let half = good.replacen("What", "\\ud83d What", 1);
    std::fs::write(&path, format!("[{good},\n{nan},\n{half}]\n")).unwrap();
    let files = Files {
        files: vec![path.clone()],
        ..Files::default()
    };
    let mut found = Vec::new();
    let mut take = |bad: opabinia_curate::look::BadLine| {
        found.push((bad.kind, bad.line));
        Ok(())
    };
    check(&files, &has_an_answer, &mut take, &WATCH).unwrap();
    assert_eq!(found, [("bad_unicode", 3)]);
    let conversion = Conversion {
        files: vec![path],
        images: None,
        to: To::Lines,
        shard_samples: 10,
    };
    let out = folder.path().join("lines/");
    let made = convert(&conversion, &out, &WATCH).unwrap();
    assert_eq!((made.samples, made.lines), (3, 1));
    let lines = shard(&folder.path().join("lines"));
    assert_eq!(lines.lines().nth(2), Some(half.as_str()));
}

/// A column of structures.
fn structures(columns: Vec<(&str, ArrayRef)>) -> ArrayRef {
    let fields = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    let fields: Fields = fields.collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    Arc::new(StructArray::try_new(fields, columns, None).unwrap())
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// A column of lists of so many of the values each.
fn lists(values: ArrayRef, lengths: &[usize]) -> ArrayRef {
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
    Arc::new(ListArray::try_new(field, offsets, values, None).unwrap())
}

/// Pictures as data sets of Hugging Face have them.
fn pictures(pictures: &[(Option<&[u8]>, Option<&str>)]) -> ArrayRef {
    let (bytes, paths): (Vec<_>, Vec<_>) = pictures.iter().copied().unzip();
    structures(vec![
        ("bytes", Arc::new(BinaryArray::from(bytes)) as ArrayRef),
        ("path", texts(&paths)),
    ])
}

fn write_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn png(shade: u8) -> Vec<u8> {
    let picture = opabinia_image::RgbImage::filled(5, 4, [shade; 3]).unwrap();
    picture.encode_png().unwrap()
}

/// Converts a file to lines: its records, and what their pictures are.
fn unpacked(file: &Path, out: &Path) -> Vec<(Value, Option<Vec<u8>>)> {
    let conversion = Conversion {
        files: vec![file.to_owned()],
        images: None,
        to: To::Lines,
        shard_samples: 10,
    };
    convert(&conversion, out, &WATCH).unwrap();
    let records = shard(out);
    let records = records.lines().map(|line| {
        let record: Value = serde_json::from_str(line).unwrap();
        let name = record["image"].as_str();
        let bytes = name.and_then(|name| std::fs::read(out.join("images").join(name)).ok());
        (record, bytes)
    });
    records.collect()
}

/// LLaVA's turns in a data set with one picture each, of which two have one name.
#[test]
fn data_sets_with_pictures_inside_become_samples_with_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train-00000-of-00001.parquet");
    let [one, two] = [png(10), png(200)];
    let turns = structures(vec![
        ("from", texts(&[Some("human"), Some("gpt")].repeat(4))),
        (
            "value",
            texts(&[
                Some("<image>\nWhat?"),
                Some("A."),
                Some("And this?"),
                Some("B."),
                Some("Who?"),
                Some("C."),
                Some("Where?"),
                Some("D."),
            ]),
        ),
    ]);
    let columns = vec![
        ("id", texts(&[Some("a"), Some("b"), Some("c"), Some("d")])),
        (
            "image",
            pictures(&[
                (Some(one.as_slice()), Some("coco/1.png")),
                (Some(two.as_slice()), Some("coco/1.png")),
                (None, None),
                (None, Some("beside/4.png")),
            ]),
        ),
        ("conversations", lists(turns, &[2, 2, 2, 2])),
    ];
    write_parquet(&file, columns);
    assert_eq!(Kind::of(&file).unwrap(), Kind::Parquet);
    let found = unpacked(&file, &folder.path().join("lines"));
    assert_eq!(found.len(), 4);
    assert_eq!(found[0].0["image"], "coco/1.png");
    assert_eq!(found[0].1.as_ref(), Some(&one));
    assert_eq!(found[0].0["conversations"][0]["value"], "<image>\nWhat?");
    // The name is taken, so it is named by content, and what it was called is not lost.
    assert_eq!(found[1].0["original_image"], "coco/1.png");
    assert_eq!(found[1].1.as_ref(), Some(&two));
    assert_eq!(
        found[1].0["conversations"][0]["value"],
        "<image>\nAnd this?"
    );
    assert_eq!(found[2].0["image"], Value::Null);
    assert_eq!(
        (&found[3].0["image"], &found[3].1),
        (&json!("beside/4.png"), &None)
    );
    // Read directly, it is checked with its pictures.
    let files = Files {
        files: vec![file],
        decode: true,
        ..Files::default()
    };
    let mut bad = Vec::new();
    let mut take = |line: opabinia_curate::look::BadLine| {
        bad.push((line.line, line.kind));
        Ok(())
    };
    let checked = check(&files, &has_an_answer, &mut take, &WATCH).unwrap();
    assert_eq!((checked.samples, checked.good), (4, 3));
    assert_eq!(bad, [(4, "placeholder_mismatch")], "no question shows it");
}

/// The Cauldron's columns: lists of pictures and of questions with answers.
#[test]
fn lists_of_pictures_and_texts_become_turns() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cauldron.parquet");
    let [one, two, three] = [png(1), png(100), png(250)];
    let asked = structures(vec![
        (
            "user",
            texts(&[Some("How many?"), Some("Which?"), Some("Both?")]),
        ),
        (
            "assistant",
            texts(&[Some("Two."), Some("Red."), Some("Yes.")]),
        ),
        ("source", texts(&[Some("tallyqa"), Some("tallyqa"), None])),
    ]);
    let shown = pictures(&[
        (Some(one.as_slice()), None),
        (Some(two.as_slice()), None),
        (Some(three.as_slice()), None),
    ]);
    let columns = vec![
        ("images", lists(shown, &[1, 2])),
        ("texts", lists(asked, &[2, 1])),
    ];
    write_parquet(&file, columns);
    let found = unpacked(&file, &folder.path().join("lines"));
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].1.as_ref(), Some(&one));
    let turns = json!([
        {"from": "human", "value": "<image>\nHow many?"},
        {"from": "gpt", "value": "Two.", "source": "tallyqa"},
        {"from": "human", "value": "Which?"},
        {"from": "gpt", "value": "Red.", "source": "tallyqa"},
    ]);
    assert_eq!(found[0].0["conversations"], turns);
    // A sample has one picture: both are kept, and a check says so.
    let names = found[1].0["image"].as_array().unwrap();
    let both = names.iter().map(|name| {
        let path = folder
            .path()
            .join("lines/images")
            .join(name.as_str().unwrap());
        std::fs::read(path).unwrap()
    });
    assert_eq!(both.collect::<Vec<_>>(), [two, three]);
}
