//! What a world writes is what training reads.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use opabinia_data::SampleFile;
use opabinia_world::conversation::{LETTER_PROMPT, SHORT_PROMPT};
use opabinia_world::make::{MakeOptions, make};
use tempfile::TempDir;

fn small() -> MakeOptions {
    MakeOptions {
        pictures_train: 30,
        pictures_test: 10,
        texts: 30,
        side: 64,
        annotations: false,
        ..MakeOptions::default()
    }
}

#[test]
fn every_sample_can_be_read_by_training() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("world");
    let report = make(&root, &small(), &|_| ()).unwrap();
    let samples = report
        .lines
        .iter()
        .filter(|(file, _)| !file.ends_with("questions.jsonl"));
    for (file, &count) in samples {
        let read = SampleFile::open(root.join(file)).unwrap();
        assert_eq!(read.len(), count, "{file}");
        for index in 0..count {
            let sample = read.sample(index).unwrap();
            sample.check_placeholder().unwrap();
            assert_eq!(
                sample.clone().with_leading_image(),
                sample,
                "already at the front"
            );
            assert!(sample.extra.is_empty(), "{sample:?}");
            assert_eq!(sample.turns.len() % 2, 0, "{sample:?}");
        }
    }
}

/// How requests begin that are answered in few words unasked: listings, things described one by one, and how
/// things stand to each other.
const FEW_WORDS: [&str; 13] = [
    "List ",
    "Read out ",
    "Which values does ",
    "What is written where?",
    "Describe ",
    "Tell me about ",
    "Say all about ",
    "Measure the picture.",
    "Compare ",
    "How does ",
    "Where is ",
    "How far ",
    "What is the distance ",
];

/// What asks for a word gets a word, what asks for a letter gets a letter, and what asks for nothing gets a
/// sentence, unless it is a listing or a comparison.
#[test]
fn single_questions_say_how_they_want_to_be_answered() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("world");
    let options = MakeOptions {
        pictures_train: 60,
        pictures_test: 0,
        texts: 0,
        ..small()
    };
    make(&root, &options, &|_| ()).unwrap();
    let read = SampleFile::open(root.join("train/single.jsonl")).unwrap();
    let (mut words, mut letters, mut sentences) = (0, 0, 0);
    for index in 0..read.len() {
        for exchange in read.sample(index).unwrap().turns.chunks(2) {
            let (asked, answer) = (&exchange[0].text, &exchange[1].text);
            if asked.ends_with(LETTER_PROMPT) {
                letters += 1;
                assert_eq!(answer.len(), 1, "{asked}: {answer}");
                assert!(asked.contains(&format!("({answer})")), "{asked}: {answer}");
            } else if asked.ends_with(SHORT_PROMPT) {
                words += 1;
                assert!(!answer.ends_with('.'), "{asked}: {answer}");
            } else if answer.ends_with('.') {
                sentences += 1;
            } else {
                let few = FEW_WORDS.iter().any(|start| asked.starts_with(start));
                assert!(few || asked.ends_with(" like?"), "{asked}: {answer}");
            }
        }
    }
    assert!(words > letters && letters > 0 && sentences > letters);
}
