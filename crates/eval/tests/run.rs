//! Evaluations of the golden model: what is asked, what is kept, and that the same comes out however
//! the work is divided.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use opabinia_data::features::{FeatureStore, Precision};
use opabinia_eval::{
    Answered, Candidate, EvalError, EvalOptions, Evaluation, Items, Outcome, QuestionSet, Record,
    RunFolder, Shard, Vision, evaluate, merge, run_scores,
};
use opabinia_image::RgbImage;
use opabinia_model::{LoadModel, Model};
use serde_json::json;
use tempfile::TempDir;

fn golden() -> PathBuf {
    let root = match std::env::var_os("OPABINIA_GOLDEN") {
        Some(root) => root.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
    };
    root.join("cambrian_llama_sva")
}

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let (model, _) = Model::load(&golden(), &LoadModel::default()).unwrap();
    model
});

/// Seven questions about three pictures, and a place for runs.
struct Desk {
    folder: TempDir,
    set: QuestionSet,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["square", "wide"] {
            let file = format!("{name}.png");
            fs::copy(
                golden().join("images").join(&file),
                folder.path().join(&file),
            )
            .unwrap();
        }
        let green = RgbImage::filled(40, 30, [20, 160, 60]).unwrap();
        green.save_png(folder.path().join("green.png")).unwrap();
        let questions = [
            ("square", "general", "check", "Is there a ball?"),
            ("square", "general", "colour", "What colour is it?"),
            ("wide", "general", "check", "Is there a cube?"),
            ("wide", "vision_centric", "count", "How many are there?"),
            (
                "wide",
                "vision_centric",
                "count",
                "How many rings are there?",
            ),
            ("green", "general", "colour", "What colour is the wall?"),
            ("green", "general", "check", "Is it green?"),
        ];
        let lines = questions
            .iter()
            .enumerate()
            .map(|(i, (image, group, task, text))| {
                let line = json!({
                    "id": format!("q{i}"), "image": format!("{image}.png"), "group": group,
                    "task": task, "question": text, "choices": null, "answer": "yes", "chance": 0.5,
                });
                format!("{line}\n")
            });
        let path = folder.path().join("questions.jsonl");
        fs::write(&path, lines.collect::<String>()).unwrap();
        let set = QuestionSet::read(&path).unwrap();
        Self { folder, set }
    }

    fn run(&self, name: &str) -> RunFolder {
        RunFolder::open(self.folder.path().join("runs").join(name)).unwrap()
    }

    fn evaluate(&self, name: &str, options: &EvalOptions) -> Result<Evaluation, EvalError> {
        let candidate = Candidate::new(&MODEL, "golden");
        let mut go_on = |_: &_| ControlFlow::Continue(());
        evaluate(
            &candidate,
            &Items::of_file(&self.set).unwrap(),
            options,
            &mut self.run(name),
            &mut go_on,
        )
    }
}

fn options(vision: &[Vision]) -> EvalOptions {
    EvalOptions {
        vision: vision.to_vec(),
        max_new_tokens: Some(3),
        workers: Some(1),
        ..EvalOptions::default()
    }
}

fn answered(record: &Record) -> &Answered {
    match &record.outcome {
        Outcome::Answered(answered) => answered,
        Outcome::Failed { error } => panic!("{}: {error}", record.id),
    }
}

/// All that must not depend on how the work was divided.
fn without_times(records: &[Record]) -> Vec<Record> {
    let mut records = records.to_vec();
    for record in &mut records {
        if let Outcome::Answered(answered) = &mut record.outcome {
            answered.seconds = 0.0;
        }
    }
    records
}

#[test]
fn each_way_of_asking_shows_what_it_says() {
    let desk = Desk::new();
    let done = desk.evaluate("ways", &options(&Vision::ALL)).unwrap();
    assert!(done.is_complete());
    assert_eq!((done.records.len(), done.done), (28, 28));
    let [square, wide, green] = ["square", "wide", "green"].map(|name| {
        let file = desk.folder.path().join(format!("{name}.png"));
        let source = opabinia_image::ImageSource::File(file);
        let picture = opabinia_image::load(&source, &Default::default()).unwrap();
        picture.content_hash()
    });
    let own = [&square, &square, &wide, &wide, &wide, &green, &green];
    for (records, own) in done.records.chunks(4).zip(own) {
        let [on, off, shuffled, blank] = [0, 1, 2, 3].map(|i| answered(&records[i]));
        assert_eq!(on.picture.as_ref(), Some(own));
        assert_eq!(off.picture, None);
        let wrong = shuffled.picture.as_ref().unwrap();
        assert_ne!(wrong, own);
        assert!([&square, &wide, &green].contains(&wrong));
        assert!(![&square, &wide, &green].contains(&blank.picture.as_ref().unwrap()));
        assert_eq!(
            (off.visual_tokens, on.visual_tokens),
            (0, blank.visual_tokens)
        );
        assert!(on.visual_tokens > 0);
        assert_eq!(on.prompt_sha256, shuffled.prompt_sha256);
        assert_eq!(on.prompt_sha256, blank.prompt_sha256);
        assert_ne!(on.prompt_sha256, off.prompt_sha256);
        assert!(on.answer_tokens <= 3);
    }
}

#[test]
fn workers_and_shards_change_nothing() {
    let desk = Desk::new();
    let one = options(&[Vision::On, Vision::Shuffled]);
    let alone = desk.evaluate("alone", &one).unwrap();
    let three = EvalOptions {
        workers: Some(3),
        ..one.clone()
    };
    let together = desk.evaluate("together", &three).unwrap();
    assert_eq!(together.workers, 3);
    assert_eq!(
        without_times(&alone.records),
        without_times(&together.records)
    );

    let part = |index| EvalOptions {
        shard: Shard { index, count: 2 },
        ..one.clone()
    };
    let first = desk.evaluate("parts", &part(0)).unwrap();
    let second = desk.evaluate("parts", &part(1)).unwrap();
    let parts = [first.records, second.records].concat();
    assert_eq!(without_times(&parts), without_times(&alone.records));
    let summed = desk.run("parts").summarise().unwrap();
    assert_eq!((summed.wanted, summed.unfinished), (14, 0));
    assert_eq!(
        summed.overall().unwrap().figure.n,
        7,
        "not only the last part"
    );
    let whole = desk.evaluate("parts", &one).unwrap();
    assert_eq!(whole.done, 0, "shards in one folder make a whole");
    assert_eq!(whole.records, parts);

    let few = EvalOptions {
        limit: Some(3),
        ..one
    };
    let few = desk.evaluate("few", &few).unwrap();
    assert_eq!(
        without_times(&few.records),
        without_times(&alone.records)[..6]
    );
}

/// Questions of different lengths, answers of one, in every grouping.
#[test]
fn batches_change_nothing() {
    let desk = Desk::new();
    let one = options(&Vision::ALL);
    let alone = desk.evaluate("alone", &one).unwrap();
    for batch in [2, 3, 64] {
        let many = EvalOptions {
            batch,
            workers: Some(2),
            ..one.clone()
        };
        let together = desk.evaluate(&format!("by {batch}"), &many).unwrap();
        assert_eq!(
            without_times(&together.records),
            without_times(&alone.records),
            "batches of {batch}"
        );
    }
}

#[test]
fn features_are_kept_from_one_run_to_the_next() {
    let desk = Desk::new();
    let plain = options(&[Vision::On, Vision::Blank]);
    let without = desk.evaluate("without", &plain).unwrap();
    let folder = desk.folder.path().join("features");
    let store = Arc::new(FeatureStore::open(folder, Precision::F32).unwrap());
    let kept = EvalOptions {
        feature_cache: Some(Arc::clone(&store)),
        ..plain
    };
    let first = desk.evaluate("first", &kept).unwrap();
    // Three pictures, and a grey one of each size.
    assert_eq!((first.known_pictures, first.cache_problem), (0, None));
    assert_eq!(store.len(), 6 * MODEL.network.encoders.len());
    let second = desk.evaluate("second", &kept).unwrap();
    assert_eq!(second.known_pictures, 6);
    for run in [first.records, second.records] {
        assert_eq!(without_times(&run), without_times(&without.records));
    }
    assert_eq!(store.len(), 6 * MODEL.network.encoders.len());
}

#[test]
fn a_stopped_run_goes_on_without_asking_again() {
    let desk = Desk::new();
    let options = options(&[Vision::On, Vision::Off]);
    let whole = desk.evaluate("whole", &options).unwrap();

    let candidate = Candidate::new(&MODEL, "golden");
    let stop_after = |count| {
        move |progress: &opabinia_eval::Progress| {
            if progress.done >= count {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }
    };
    let stopped = evaluate(
        &candidate,
        &Items::of_file(&desk.set).unwrap(),
        &options,
        &mut desk.run("stopped"),
        &mut stop_after(5),
    );
    let stopped = stopped.unwrap();
    assert!(!stopped.is_complete());
    // One question may have been under way.
    assert!((5..=6).contains(&stopped.records.len()));
    // A killed run may leave half a line.
    let file = desk.folder.path().join("runs/stopped/records.jsonl");
    let mut bytes = fs::read(&file).unwrap();
    bytes.truncate(bytes.len() - 20);
    fs::write(&file, &bytes).unwrap();

    let rest = desk.evaluate("stopped", &options).unwrap();
    assert!(rest.is_complete());
    assert_eq!(rest.done, 14 - (stopped.records.len() - 1));
    assert_eq!(without_times(&rest.records), without_times(&whole.records));
    assert_eq!(desk.evaluate("stopped", &options).unwrap().done, 0);
    let lines = fs::read_to_string(&file).unwrap();
    assert_eq!(lines.lines().count(), 14);
}

#[test]
fn other_settings_are_asked_anew() {
    let desk = Desk::new();
    let few = EvalOptions {
        limit: Some(2),
        ..options(&[Vision::Shuffled])
    };
    assert_eq!(desk.evaluate("run", &few).unwrap().done, 2);
    let longer = EvalOptions {
        max_new_tokens: Some(4),
        ..few.clone()
    };
    assert_eq!(desk.evaluate("run", &longer).unwrap().done, 2);
    let other_pictures = EvalOptions {
        seed: 7,
        ..few.clone()
    };
    assert_eq!(desk.evaluate("run", &other_pictures).unwrap().done, 2);
    assert_eq!(desk.evaluate("run", &few).unwrap().done, 0);
}

#[test]
fn a_damaged_picture_is_counted_and_asked_again() {
    let mut desk = Desk::new();
    let green = desk.folder.path().join("green.png");
    let whole = fs::read(&green).unwrap();
    fs::write(&green, &whole[..whole.len() / 2]).unwrap();
    desk.set = QuestionSet::read(&desk.set.path).unwrap();
    let options = options(&[Vision::On]);
    let done = desk.evaluate("run", &options).unwrap();
    let failures: Vec<&str> = done.records.iter().filter_map(Record::failure).collect();
    assert_eq!(failures.len(), 2);
    assert!(failures[0].contains("green.png"), "{failures:?}");
    let summary = desk.run("run").summarise().unwrap();
    assert_eq!((summary.failed, summary.unfinished), (2, 0));
    assert_eq!(summary.overall().unwrap().figure.n, 7);
    let again = desk.evaluate("run", &options).unwrap();
    assert_eq!(again.done, 2);
    assert_eq!(again.records.len(), 7);
}

/// Shards in folders of their own, put together, are the whole run.
#[test]
fn shards_are_merged() {
    let desk = Desk::new();
    let whole = options(&[Vision::On, Vision::Off, Vision::Shuffled]);
    desk.evaluate("whole", &whole).unwrap();
    let folder = |name: &str| desk.folder.path().join("runs").join(name);
    let names = ["a", "b", "c"];
    for (index, name) in names.iter().enumerate() {
        let part = EvalOptions {
            shard: Shard { index, count: 3 },
            ..whole.clone()
        };
        desk.evaluate(name, &part).unwrap();
    }
    let parts = names.map(folder);
    let merged = merge(&parts, &folder("merged")).unwrap();
    assert_eq!(merged.twice, 0);
    let expected = desk.run("whole").summarise().unwrap();
    assert_eq!(merged.summary.rows, expected.rows);
    assert_eq!(merged.summary.sets, expected.sets);
    let scores = |name: &str| {
        let mut scores = run_scores(&folder(name)).unwrap();
        for scores in &mut scores {
            assert_eq!(Path::new(&scores.run), folder(name));
            scores.run.clear();
        }
        scores
    };
    assert_eq!(scores("merged"), scores("whole"));
    let error = merge(&parts, &folder("merged")).unwrap_err();
    assert!(matches!(error, EvalError::Exists { .. }), "{error}");

    let twice = [folder("a"), folder("whole")];
    assert!(merge(&twice, &folder("twice")).unwrap().twice > 0);
    let seed = EvalOptions { seed: 3, ..whole };
    desk.evaluate("seed", &seed).unwrap();
    let other = [folder("a"), folder("seed")];
    let error = merge(&other, &folder("mixed")).unwrap_err().to_string();
    assert!(
        error.contains("other settings for `shuffled` (seed)"),
        "{error}"
    );
    assert!(!folder("mixed").exists());
    let error = run_scores(&folder("none")).unwrap_err().to_string();
    assert!(error.contains("cannot read"), "{error}");
}

#[test]
fn impossible_options_are_refused() {
    let desk = Desk::new();
    let good = options(&[Vision::On]);
    let bad = [
        EvalOptions {
            vision: vec![],
            ..good.clone()
        },
        EvalOptions {
            limit: Some(0),
            ..good.clone()
        },
        EvalOptions {
            workers: Some(0),
            ..good.clone()
        },
        EvalOptions {
            max_new_tokens: Some(0),
            ..good.clone()
        },
        EvalOptions {
            shard: Shard { index: 2, count: 2 },
            ..good
        },
    ];
    for options in bad {
        let error = desk.evaluate("run", &options).unwrap_err();
        assert!(matches!(error, EvalError::Option { .. }), "{error}");
    }
}
