//! Damaged files are errors or listed faults, never panics.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::fs;

use opabinia_cvbench::score::{ScoreOptions, read_answers};
use opabinia_cvbench::source::{Corpus, Family, Part, SourceSpec};
use opabinia_cvbench::{Published, Rules};
use proptest::prelude::*;

const COCO: &str = r#"{"images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}],
"categories": [{"id": 1, "name": "cat"}],
"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "iscrowd": 0}]}"#;
const ADE20K: &str = r#"{"annotation": {"filename": "a.jpg", "folder": "x", "imsize": [64, 64, 3],
"object": [{"id": 0, "name": "cat, kitty", "raw_name": "cat", "name_ndx": 7, "parts": {"hasparts": 1,
"ispartof": [], "part_level": "0"}, "polygon": {"x": [1, 30, 30], "y": [2, 40, 2]}}]}}"#;
const OMNI3D: &str = r#"{"info": {"source": "SUNRGBD"}, "images": [{"id": 1, "file_path": "a.png",
"width": 64, "height": 64}], "annotations": [{"image_id": 1, "category_name": "bed", "valid3D": true,
"bbox2D_tight": [1, 2, 30, 40], "bbox3D_cam": [[0,0,1],[1,0,1],[1,1,1],[0,1,1],[0,0,2],[1,0,2],[1,1,2],
[0,1,2]], "center_cam": [0.5, 0.5, 1.5], "dimensions": [1, 1, 1]}]}"#;
const QUESTION: &str = r#"{"idx": 1, "type": "2D", "task": "Count", "question": "?", "choices": ["1", "2"], "answer": "(A)", "prompt": "?", "filename": "img/a.png", "source": "COCO"}"#;
const ANSWER: &str = r#"{"idx": 1, "source": "COCO", "task": "Count", "answer": "A", "choices": ["1", "2"], "gold": "(A)"}"#;

/// A text with some bytes changed, and cut.
fn damaged(text: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let change = (0..text.len(), any::<u8>());
    let changes = proptest::collection::vec(change, 0..6);
    (changes, 0..=text.len()).prop_map(move |(changes, end)| {
        let mut bytes = text.as_bytes().to_vec();
        for (place, byte) in changes {
            bytes[place] = byte;
        }
        bytes.truncate(if end % 4 == 0 { end } else { text.len() });
        bytes
    })
}

fn read(family: Family, name: &str, bytes: &[u8]) -> Option<Corpus> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let annotations = match family {
        Family::Ade20k => folder.path().to_owned(),
        _ => path,
    };
    let spec = SourceSpec {
        family,
        annotations,
        pictures: None,
        collection: None,
        part: Part::All,
    };
    Corpus::read(&[spec], &Rules::default().omni3d, &mut |_| ()).ok()
}

#[test]
fn whole_files_are_read() {
    for (family, text) in [
        (Family::Coco, COCO),
        (Family::Ade20k, ADE20K),
        (Family::Omni3D, OMNI3D),
    ] {
        let corpus = read(family, "a.json", text.as_bytes()).unwrap();
        let [picture] = &corpus.pictures[..] else {
            panic!("{corpus:?}")
        };
        let [one] = &picture.instances[..] else {
            panic!("{picture:?}")
        };
        let corners = match family {
            Family::Coco => [1.0, 2.0, 31.0, 42.0],
            _ => [1.0, 2.0, 30.0, 40.0],
        };
        assert_eq!(one.place.unwrap().corners(), corners, "{family:?}");
        assert_eq!(one.ignored, None);
    }
    let omni = read(Family::Omni3D, "a.json", OMNI3D.as_bytes()).unwrap();
    assert_eq!(omni.pictures[0].collection, "Omni3D_SUNRGBD");
    let hidden = OMNI3D.replace("\"valid3D\": true", "\"visibility\": 0.005");
    let hidden = read(Family::Omni3D, "a.json", hidden.as_bytes()).unwrap();
    assert_eq!(hidden.pictures[0].instances[0].ignored, Some("hidden"));
}

/// Parts of things are no things, but their names are remembered.
#[test]
fn parts_are_only_words() {
    let part = ADE20K.replace("\"part_level\": \"0\"", "\"part_level\": 1");
    let corpus = read(Family::Ade20k, "a.json", part.as_bytes()).unwrap();
    assert!(corpus.pictures[0].instances.is_empty());
    assert!(corpus.pictures[0].words.contains("kitty"));
}

#[test]
fn whole_lines_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test_2d.jsonl");
    fs::write(&path, QUESTION).unwrap();
    assert_eq!(Published::read(&path).unwrap().questions.len(), 1);
    fs::write(&path, ANSWER).unwrap();
    let options = ScoreOptions {
        protocol: None,
        partial: false,
    };
    let answers = read_answers(&path, None, options).unwrap();
    assert_eq!(answers[0].judgement.score, 1.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn coco(bytes in damaged(COCO)) {
        read(Family::Coco, "a.json", &bytes);
    }

    #[test]
    fn ade20k(bytes in damaged(ADE20K)) {
        read(Family::Ade20k, "a.json", &bytes);
    }

    #[test]
    fn omni3d(bytes in damaged(OMNI3D)) {
        read(Family::Omni3D, "a.json", &bytes);
    }

    #[test]
    fn questions(bytes in damaged(QUESTION)) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("test_2d.jsonl"), bytes).unwrap();
        if let Ok(published) = Published::read(folder.path()) {
            for question in &published.questions {
                prop_assert!(question.right().is_some());
                prop_assert!(published.picture(question).is_err());
            }
        }
    }

    #[test]
    fn answers(bytes in damaged(ANSWER)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        fs::write(&path, bytes).unwrap();
        let options = ScoreOptions { protocol: None, partial: true };
        let _ = read_answers(&path, None, options);
    }

    #[test]
    fn rules(text in "\\PC{0,60}") {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.toml");
        fs::write(&path, text).unwrap();
        let _ = Rules::read(&path);
    }
}

/// A picture's name that leads out of the folder is refused: it would be read, and by `revise` written.
#[test]
fn names_stay_inside() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret.png"), "secret").unwrap();
    let bench = folder.path().join("bench");
    fs::create_dir(&bench).unwrap();
    for name in ["../secret.png", "/etc/hostname", "img/../../secret.png"] {
        let line = QUESTION.replace("img/a.png", name);
        fs::write(bench.join("test_2d.jsonl"), line).unwrap();
        let error = Published::read(&bench).unwrap_err();
        assert!(
            error.to_string().contains("outside of the folder"),
            "{error}"
        );
    }
}
