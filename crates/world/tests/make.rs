//! A whole world on disk, made by one thread and by two.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use opabinia_world::conversation::Sample;
use opabinia_world::make::{
    self, BenchmarkQuestion, MakeError, MakeOptions, MakeReport, Split, WORLD_FILE, make,
};
use opabinia_world::question::Task;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

fn options() -> MakeOptions {
    MakeOptions {
        seed: 11,
        pictures_train: 40,
        pictures_test: 20,
        texts: 30,
        side: 64,
        ..MakeOptions::default()
    }
}

fn made(folder: &Path, options: &MakeOptions) -> MakeReport {
    make(folder, options, &|_| ()).unwrap()
}

/// Every file below a folder, by its path.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(
                    path.strip_prefix(folder).unwrap().to_owned(),
                    fs::read(&path).unwrap(),
                );
            }
        }
    }
    found
}

fn lines<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn files_do_not_depend_on_the_number_of_threads() {
    let folder = TempDir::new().unwrap();
    let world = |threads: usize| {
        let path = folder.path().join(threads.to_string());
        made(
            &path,
            &MakeOptions {
                threads: Some(threads),
                ..options()
            },
        );
        let mut files = files(&path);
        // It holds the time.
        files.remove(Path::new(WORLD_FILE)).unwrap();
        files
    };
    let (one, two) = (world(1), world(2));
    assert_eq!(
        one.keys().collect::<Vec<_>>(),
        two.keys().collect::<Vec<_>>()
    );
    for (path, bytes) in &one {
        assert!(bytes == &two[path], "{} differs", path.display());
    }
    // Nothing temporary is left.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn samples_name_pictures_that_are_there() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("world");
    let report = made(&root, &options());
    for (file, count) in &report.lines {
        let split = root.join(file).parent().unwrap().to_owned();
        if file.ends_with("questions.jsonl") {
            continue;
        }
        let samples: Vec<Sample> = lines(&root.join(file));
        assert_eq!(samples.len(), *count, "{file}");
        let ids: BTreeSet<&str> = samples.iter().map(|sample| sample.id.as_str()).collect();
        assert_eq!(ids.len(), samples.len(), "{file}");
        for sample in &samples {
            well_formed(&split, sample);
        }
    }
    assert_eq!(report.lines["train/align.jsonl"], 40);
    assert_eq!(
        report.lines["train/text.jsonl"],
        30 + 40,
        "texts, and every picture in words"
    );
}

fn well_formed(split: &Path, sample: &Sample) {
    let turns = &sample.conversations;
    assert!(
        !turns.is_empty() && turns.len().is_multiple_of(2),
        "{sample:?}"
    );
    for (index, turn) in turns.iter().enumerate() {
        let from = if index % 2 == 0 { "human" } else { "gpt" };
        assert_eq!(turn.from, from, "{sample:?}");
        assert!(!turn.value.trim().is_empty(), "{sample:?}");
        let shows = index == 0 && sample.image.is_some();
        assert_eq!(
            turn.value.matches("<image>").count(),
            usize::from(shows),
            "{sample:?}"
        );
        assert!(!shows || turn.value.starts_with("<image>\n"), "{sample:?}");
    }
    if let Some(image) = &sample.image {
        let bytes = fs::read(split.join(image)).unwrap();
        assert!(bytes.starts_with(b"\x89PNG"), "{image}");
    }
}

#[test]
fn the_benchmark_covers_its_pictures() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("world");
    let report = made(&root, &options());
    let questions: Vec<BenchmarkQuestion> = lines(&root.join("test/questions.jsonl"));
    assert_eq!(questions.len(), report.lines["test/questions.jsonl"]);
    let asked: BTreeSet<&str> = questions
        .iter()
        .map(|question| question.image.as_str())
        .collect();
    assert_eq!(asked.len(), 20, "every picture is asked about");
    let ids: BTreeSet<&str> = questions
        .iter()
        .map(|question| question.id.as_str())
        .collect();
    assert_eq!(ids.len(), questions.len());
    for question in &questions {
        assert!(root.join("test").join(&question.image).is_file());
        let prompt = "\nAnswer the question using a single word or phrase.";
        assert!(question.question.ends_with(prompt), "{question:?}");
        assert_eq!(question.group, question.task.group());
    }
    let knowledge = questions
        .iter()
        .filter(|question| question.task == Task::Knowledge)
        .count();
    assert_eq!(knowledge, 10);
    let counted: usize = report.questions.values().map(|count| count.test).sum();
    assert_eq!(counted, questions.len());
}

/// A world of one word per picture and few pixels has equal pictures; none may be in both splits.
#[test]
fn no_picture_is_in_both_splits() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("world");
    let options = MakeOptions {
        pictures_train: 150,
        pictures_test: 150,
        ..options()
    };
    let report = made(&root, &options);
    assert_eq!(report.in_both, 0);
    let of = |split: &str| -> BTreeSet<Vec<u8>> {
        let pictures = files(&root.join(split).join("images"));
        pictures.into_values().collect()
    };
    assert!(of("train").is_disjoint(&of("test")));
}

#[test]
fn a_larger_world_begins_with_the_smaller_one() {
    let folder = TempDir::new().unwrap();
    let [small, large] = ["small", "large"].map(|name| folder.path().join(name));
    made(
        &small,
        &MakeOptions {
            pictures_train: 5,
            ..options()
        },
    );
    made(
        &large,
        &MakeOptions {
            pictures_train: 9,
            ..options()
        },
    );
    let [small, large] = [small, large].map(|root| files(&root.join("train/images")));
    assert_eq!((small.len(), large.len()), (5, 9));
    assert!(small.iter().all(|(path, bytes)| &large[path] == bytes));
}

#[test]
fn a_picture_can_be_drawn_again() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("world");
    made(&root, &options());
    let world = make::read(&root).unwrap();
    for (split, index) in [(Split::Train, 39), (Split::Test, 0)] {
        let (_, picture) = make::picture(&world, split, index).unwrap();
        let path = root
            .join(split.name())
            .join(format!("images/00/{index:06}.png"));
        assert_eq!(
            picture.pixels.encode_png().unwrap(),
            fs::read(path).unwrap()
        );
    }
    assert!(make::picture(&world, Split::Test, 20).is_none());
}

#[test]
fn every_picture_is_reported() {
    let folder = TempDir::new().unwrap();
    let calls = AtomicUsize::new(0);
    let options = MakeOptions {
        annotations: false,
        ..options()
    };
    let root = folder.path().join("world");
    make(&root, &options, &|progress| {
        assert_eq!(progress.total, 60);
        calls.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(calls.into_inner(), 60);
    assert!(!root.join("train/annotations").exists());
}

#[test]
fn a_world_that_is_there_is_not_made_again() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("world");
    let first = made(&root, &options());
    assert!(!first.already_there);
    let again = make(&root, &options(), &|_| panic!("drawn again")).unwrap();
    assert!(again.already_there);
    assert_eq!(again.lines, first.lines);
}

#[test]
fn another_world_is_replaced_by_force_alone() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("world");
    made(&root, &options());
    let other = MakeOptions {
        seed: 12,
        ..options()
    };
    let before = files(&root);
    let refused = make(&root, &other, &|_| ()).unwrap_err();
    assert!(matches!(refused, MakeError::OtherWorld { .. }), "{refused}");
    assert!(files(&root) == before, "nothing has changed");
    let report = made(
        &root,
        &MakeOptions {
            force: true,
            ..other
        },
    );
    assert_eq!(make::read(&root).unwrap().options.seed, 12);
    assert_eq!(report.options.seed, 12);
}

#[test]
fn files_of_somebody_else_are_never_touched() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("thesis.txt"), "mine").unwrap();
    for force in [false, true] {
        let refused =
            make(folder.path(), &MakeOptions { force, ..options() }, &|_| ()).unwrap_err();
        assert!(matches!(refused, MakeError::NotAWorld { .. }), "{refused}");
    }
    assert_eq!(files(folder.path()).len(), 1);
}

#[test]
fn what_a_killed_run_left_does_not_matter() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("world");
    let left = folder.path().join(".world.unfinished/train/images/00");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("000000.png"), "half").unwrap();
    fs::create_dir(&root).unwrap();
    made(&root, &options());
    assert!(!folder.path().join(".world.unfinished").exists());
    assert!(!files(&root).values().any(|bytes| bytes == b"half"));
}

#[test]
fn a_damaged_description_is_named() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("world");
    made(&root, &options());
    fs::write(root.join(WORLD_FILE), "{\"format\": 1}").unwrap();
    let refused = make(&root, &options(), &|_| ()).unwrap_err();
    assert!(refused.to_string().contains("world.json"), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A description that was cut off or changed anywhere is read or refused, never a panic.
    #[test]
    fn any_description_is_read_or_refused(cut in 0.0..1.0f64, at in 0.0..1.0f64, byte in any::<u8>()) {
        let folder = TempDir::new().unwrap();
        let mut text = DESCRIPTION.clone();
        let place = (at * text.len() as f64) as usize;
        text[place] = byte;
        text.truncate((2.0 * cut * text.len() as f64) as usize);
        fs::write(folder.path().join(WORLD_FILE), text).unwrap();
        if let Ok(world) = make::read(folder.path()) {
            let index = world.options.pictures_train;
            prop_assert!(make::picture(&world, Split::Train, index).is_none());
        }
    }
}

/// The world.json of a small world.
static DESCRIPTION: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("world");
    let options = MakeOptions {
        pictures_train: 2,
        pictures_test: 1,
        ..options()
    };
    made(&root, &options);
    fs::read(root.join(WORLD_FILE)).unwrap()
});
