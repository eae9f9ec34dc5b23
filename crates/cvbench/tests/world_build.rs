//! A CV-Bench out of a small world: all three formats, every file, and the same bytes twice.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use opabinia_cvbench::source::{Corpus, Family, Instance, Part, SourceSpec};
use opabinia_cvbench::{
    Built, CvBenchError, Fate, Published, Question, Rules, Task, build, summarise,
};
use opabinia_eval::benchmark::{Catalogue, Library, PictureStore, Questions};
use opabinia_eval::scorer::Protocol;
use opabinia_image::RgbImage;
use opabinia_world::make::{MakeOptions, make};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const PICTURES: usize = 120;

/// A world of scenes of 128 × 128 pixels.
fn world() -> TempDir {
    let folder = TempDir::new().unwrap();
    let options = MakeOptions {
        seed: 3,
        pictures_train: 1,
        pictures_test: PICTURES,
        texts: 0,
        mix: "scene=1".parse().unwrap(),
        side: 128,
        ..MakeOptions::default()
    };
    make(folder.path(), &options, &|_| ()).unwrap();
    folder
}

fn sources(world: &Path) -> Vec<SourceSpec> {
    let root = world.join("test");
    let spec = |family, annotations: &str, part| SourceSpec {
        family,
        annotations: root.join("annotations").join(annotations),
        pictures: Some(root.clone()),
        collection: None,
        part,
    };
    vec![
        spec(Family::Coco, "coco.json", Part::Odd),
        spec(Family::Ade20k, "ade20k", Part::Even),
        spec(Family::Omni3D, "omni3d.json", Part::All),
    ]
}

fn rules() -> Rules {
    let mut rules = Rules {
        seed: 5,
        ..Rules::default()
    };
    rules.targets.count = 40;
    rules.targets.relation = 20;
    rules.targets.depth = 20;
    rules.targets.distance = 20;
    rules
}

fn built(world: &Path, rules: &Rules, out: &Path) -> Built {
    build(&sources(world), rules, out, false, &mut |_| ()).unwrap()
}

/// Digests of all files below a folder.
fn digests(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let digest = Sha256::digest(fs::read(&path).unwrap()).to_vec();
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), digest);
            }
        }
    }
    found
}

#[test]
fn a_world_becomes_a_cv_bench() {
    let world = world();
    let out = TempDir::new().unwrap();
    let first = out.path().join("first");
    let built = built(world.path(), &rules(), &first);
    assert!(built.report.adds_up(), "{:#?}", built.report.candidates);
    assert!(built.report.faults.is_empty(), "{:?}", built.report.faults);
    for (task, wanted) in [
        (Task::Count, 40),
        (Task::Relation, 20),
        (Task::Depth, 20),
        (Task::Distance, 20),
    ] {
        let of_task = built.questions.iter().filter(|one| one.task == task);
        assert_eq!(of_task.count(), wanted, "{task:?}");
    }
    check_questions(&built.questions);
    check_balance(&built);
    check_published(&first, &built.questions);

    let one_thread = out.path().join("second");
    let pool = rayon_pool();
    pool.install(|| self::built(world.path(), &rules(), &one_thread));
    assert_eq!(
        digests(&first),
        digests(&one_thread),
        "same seed, same bytes"
    );

    let other = Rules { seed: 6, ..rules() };
    let other = self::built(world.path(), &other, &out.path().join("third"));
    assert_ne!(
        other.questions, built.questions,
        "another seed, another choice"
    );

    let again = build(&sources(world.path()), &rules(), &first, false, &mut |_| ());
    assert!(matches!(again, Err(CvBenchError::Exists { .. })));
    build(&sources(world.path()), &rules(), &first, true, &mut |_| ()).unwrap();
    let mine = out.path().join("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("thesis.txt"), "mine").unwrap();
    let refused = build(&sources(world.path()), &rules(), &mine, true, &mut |_| ());
    assert!(matches!(refused, Err(CvBenchError::NotOurs { .. })));
}

fn rayon_pool() -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap()
}

fn check_questions(questions: &[Question]) {
    for (place, question) in questions.iter().enumerate() {
        assert_eq!(question.idx, place as i64);
        assert!(question.right().is_some());
        let lines: Vec<&str> = question.prompt.lines().collect();
        assert_eq!(lines.len(), question.choices.len() + 1);
        let (options, boxes) = match question.task {
            Task::Count => (4..=6, None),
            Task::Relation => (2..=2, None),
            Task::Depth => (2..=2, Some(2)),
            Task::Distance => (2..=2, Some(3)),
        };
        assert!(options.contains(&question.choices.len()), "{question:?}");
        assert_eq!(question.bbox.as_ref().map(Vec::len), boxes, "{question:?}");
        assert_eq!(question.target_class.is_some(), question.source == "COCO");
        let dimension = if boxes.is_some() { "3D" } else { "2D" };
        assert_eq!(question.dimension, dimension);
        assert_eq!((question.source == "Omni3D"), (dimension == "3D"));
    }
}

/// Letters are even to one, sources too, and no answer is given too often.
fn check_balance(built: &Built) {
    for cell in &built.report.questions.cells {
        let even = match cell.task {
            Task::Count => 20,
            Task::Relation => 10,
            Task::Depth | Task::Distance => 20,
        };
        assert_eq!(cell.questions, even, "{cell:?}");
        assert!(cell.majority <= 0.4, "{cell:?}");
    }
    for task in [Task::Relation, Task::Depth, Task::Distance] {
        let mut letters = BTreeMap::new();
        for question in built.questions.iter().filter(|one| one.task == task) {
            *letters.entry(question.answer.as_str()).or_insert(0usize) += 1;
        }
        assert!(letters["(A)"].abs_diff(letters["(B)"]) <= 1, "{letters:?}");
    }
    let sides = built
        .questions
        .iter()
        .filter(|one| one.task == Task::Relation);
    let mut answers = BTreeMap::new();
    for question in sides {
        let gold = question.gold();
        *answers
            .entry(gold.right_text().unwrap().to_owned())
            .or_insert(0usize) += 1;
    }
    assert_eq!(answers.len(), 4, "left, right, above, below: {answers:?}");
}

/// Parquet and JSONL read back as they were built, and pictures have the boxes that questions name.
fn check_published(folder: &Path, questions: &[Question]) {
    let published = Published::read(folder).unwrap();
    assert_eq!(published.questions, questions);
    let lines: Vec<Question> = ["test_2d", "test_3d"]
        .iter()
        .flat_map(|stem| {
            Published::read(&folder.join(format!("{stem}.jsonl")))
                .unwrap()
                .questions
        })
        .collect();
    assert_eq!(lines, questions);
    assert_eq!(summarise(&lines).questions, questions.len());
    for question in questions {
        let path = folder.join(&question.filename);
        let picture = fs::read(&path).unwrap();
        assert_eq!(&*published.picture(question).unwrap(), &picture[..]);
        let pixels = opabinia_image::load(
            &opabinia_image::ImageSource::File(path),
            &opabinia_image::ImageLimits::default(),
        );
        let pixels = pixels.unwrap();
        let has = |colour: [u8; 3]| pixels.data().chunks(3).any(|pixel| pixel == colour);
        if question.question.contains("red box") {
            assert!(has([255, 0, 0]), "{question:?}");
        }
        if question.question.contains("blue box") {
            assert!(has([0, 0, 255]), "{question:?}");
        }
        if question.question.contains("green box") {
            assert!(has([0, 255, 0]), "{question:?}");
        }
    }
    // Without the files beside them, the pictures come out of the Parquet files.
    fs::rename(folder.join("img"), folder.join("away")).unwrap();
    let mut packed = Published::read(folder).unwrap();
    assert!(packed.picture(&packed.questions[0]).is_err());
    packed
        .store_pictures(&mut PictureStore::in_memory())
        .unwrap();
    let first = &packed.questions[0];
    let there = fs::read(
        folder
            .join("away")
            .join(first.filename.strip_prefix("img/").unwrap()),
    );
    assert_eq!(&*packed.picture(first).unwrap(), &there.unwrap()[..]);
    fs::rename(folder.join("away"), folder.join("img")).unwrap();
}

/// The benchmark `world-cvbench` of the catalogue reads what was built, in full.
#[test]
fn the_catalogue_asks_what_was_built() {
    let world = world();
    let out = TempDir::new().unwrap();
    let built = built(world.path(), &rules(), &out.path().join("world-cvbench"));
    let catalogue = Catalogue::built_in().unwrap();
    let definition = &catalogue.find("world-cvbench").unwrap().definition;
    let library = Library {
        folders: vec![out.path().to_owned()],
        ..Library::default()
    };
    let mut store = PictureStore::in_memory();
    let read = Questions::read(definition, Protocol::Standard, &library, &mut store).unwrap();
    assert_eq!((read.counts.scored, read.faults.len()), (100, 0));
    for (read, built) in read.questions.iter().zip(&built.questions) {
        assert_eq!(read.id, built.idx.to_string());
        assert_eq!(read.category.as_deref(), Some(built.task.name()));
        assert_eq!(read.source.as_deref(), Some(built.source.as_str()));
        assert!(read.prompt.starts_with(&built.prompt));
        assert_eq!(read.gold.as_ref().unwrap().right, built.right());
    }
}

/// Every answer is true of the annotations: counts, sides, and which of two is nearer.
#[test]
fn answers_are_true_of_the_world() {
    let world = world();
    let out = TempDir::new().unwrap();
    let built = built(world.path(), &rules(), &out.path().join("bench"));
    let corpus = Corpus::read(&sources(world.path()), &rules().omni3d, &mut |_| ()).unwrap();
    for question in &built.questions {
        let mut pictures = corpus.pictures.iter();
        let picture = pictures
            .find(|one| {
                one.family.name() == question.source && one.name == question.source_filename
            })
            .unwrap();
        let gold = question.gold();
        let right = gold.right_text().unwrap();
        let at = |corners: &Vec<f64>| {
            let mut all = picture.instances.iter();
            all.find(|one| one.place.unwrap().corners().to_vec() == *corners)
                .unwrap()
        };
        match question.task {
            Task::Count => {
                let shown: usize = right.parse().unwrap();
                let mut classes = ["ball", "cube", "cylinder", "cone", "pyramid", "ring"].iter();
                let class = classes
                    .find(|class| question.question.contains(**class))
                    .unwrap();
                let members = picture.instances.iter();
                let count = members.filter(|one| one.class == **class).count();
                assert_eq!(count, shown, "{question:?}");
            }
            Task::Depth => {
                let boxes = question.bbox.as_ref().unwrap();
                let (red, blue) = (at(&boxes[0]), at(&boxes[1]));
                let distance = |one: &Instance| one.solid.unwrap().range_from(&[[0.0; 3]])[0];
                let nearer = if distance(red) < distance(blue) {
                    red
                } else {
                    blue
                };
                assert_eq!(right, nearer.class, "{question:?}");
            }
            Task::Distance => {
                let boxes = question.bbox.as_ref().unwrap();
                let [anchor, one, other] = [0, 1, 2].map(|i| at(&boxes[i]));
                let from = anchor.solid.unwrap();
                let distance = |to: &Instance| to.solid.unwrap().range_from(from.corners())[0];
                let nearer = if distance(one) < distance(other) {
                    one
                } else {
                    other
                };
                assert_eq!(right, nearer.class, "{question:?}");
            }
            Task::Relation => {
                let (_, asked) = question.question.split_once("where is the ").unwrap();
                let (first, second) = asked.split_once(" located with respect to the ").unwrap();
                let of = |text: &str| {
                    let class = text.split([' ', '?']).next().unwrap().to_owned();
                    let all = picture.instances.iter();
                    all.filter(move |one| one.class == class)
                };
                // Of several of a class one has a red box, which only the picture shows.
                let mut pairs = of(first).flat_map(|a| of(second).map(move |b| (a, b)));
                let lies = |(a, b): (&Instance, &Instance)| {
                    let (a, b) = (a.place.unwrap(), b.place.unwrap());
                    match right {
                        "left" => a.right <= b.left,
                        "right" => b.right <= a.left,
                        "above" => a.bottom <= b.top,
                        "below" => b.bottom <= a.top,
                        _ => false,
                    }
                };
                assert!(pairs.any(lies), "{question:?}");
            }
        }
    }
}

/// One picture is gone and one has another size: both are listed, nothing about them is asked, and the
/// wanted number of questions is there all the same.
#[test]
fn broken_pictures_and_entries_are_listed() {
    let world = world();
    let out = TempDir::new().unwrap();
    let rules = rules();
    let whole = built(world.path(), &rules, &out.path().join("whole"));
    let asked = |task, but: &str| {
        let mut questions = whole.questions.iter();
        let found = questions
            .find(|one| one.task == task && one.source != "COCO" && one.source_filename != but);
        found.unwrap().source_filename.clone()
    };
    let gone = asked(Task::Count, "");
    let other = asked(Task::Depth, &gone);
    let path = |name: &str| world.path().join("test").join(name);
    fs::remove_file(path(&gone)).unwrap();
    let small = RgbImage::filled(20, 20, [1, 2, 3]).unwrap();
    small.save_png(path(&other)).unwrap();
    let coco = world.path().join("test/annotations/coco.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&coco).unwrap()).unwrap();
    json["annotations"][0]["bbox"] = "nowhere".into();
    json["annotations"][1]["image_id"] = 100_000.into();
    fs::write(&coco, json.to_string()).unwrap();

    let built = built(world.path(), &rules, &out.path().join("broken"));
    assert!(built.report.adds_up());
    assert!(built.report.unusable_pictures >= 2);
    let faults = &built.report.faults;
    let about = |text: &str| {
        let count = faults
            .iter()
            .filter(|fault| fault.entry.contains(text))
            .count();
        assert!(count >= 1, "{text}: {faults:?}");
    };
    about("annotations[0]");
    about("annotations[1]");
    about(&gone);
    about(&other);
    assert!(
        faults
            .iter()
            .any(|fault| fault.problem.contains("20 × 20 pixels"))
    );
    let bad =
        |question: &Question| question.source_filename == gone || question.source_filename == other;
    assert!(!built.questions.iter().any(bad));
    assert_eq!(built.questions.len(), whole.questions.len());
    let faulty: usize = built
        .report
        .candidates
        .iter()
        .filter_map(|row| row.fates.get(&Fate::FaultyAnnotation))
        .sum();
    assert!(faulty > 0, "a class with a broken box is not counted");
}

#[test]
fn other_files_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("coco.json");
    let spec = |family| SourceSpec {
        family,
        annotations: path.clone(),
        pictures: None,
        collection: None,
        part: Part::All,
    };
    let out = folder.path().join("out");
    let fail = |text: &str, family| {
        fs::write(&path, text).unwrap();
        let built = build(&[spec(family)], &Rules::default(), &out, false, &mut |_| ());
        assert!(!out.exists(), "nothing is left half done");
        built.unwrap_err()
    };
    let json = fail("[1, 2", Family::Coco);
    assert!(matches!(json, CvBenchError::Annotations { .. }), "{json}");
    let empty = r#"{"images": [{"id": 1}], "categories": [], "annotations": []}"#;
    let empty = fail(empty, Family::Coco).to_string();
    assert!(
        empty.contains("images[0]: missing field `file_name`"),
        "{empty}"
    );
    let nothing = r#"{"images": [{"id": 1, "file_path": "a.png", "width": 9, "height": 9}],
                      "annotations": []}"#;
    let nothing = fail(nothing, Family::Omni3D).to_string();
    assert!(nothing.contains("none of 0 candidates"), "{nothing}");
    let none = build(&[], &Rules::default(), &out, false, &mut |_| ());
    assert!(matches!(none, Err(CvBenchError::NoSources)));
}
