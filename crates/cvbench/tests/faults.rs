//! Names and boxes that cannot be used are listed, each with its place in the file.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use opabinia_cvbench::Rules;
use opabinia_cvbench::source::{Corpus, Family, Part, SourceSpec};
use serde_json::{Value, json};

fn read(family: Family, annotations: &Path) -> Corpus {
    let spec = SourceSpec {
        family,
        annotations: annotations.to_owned(),
        pictures: None,
        collection: None,
        part: Part::All,
    };
    Corpus::read(&[spec], &Rules::default().omni3d, &mut |_| ()).unwrap()
}

fn of_file(family: Family, json: &Value) -> Corpus {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    fs::write(&path, json.to_string()).unwrap();
    match family {
        Family::Ade20k => read(family, folder.path()),
        Family::Coco | Family::Omni3D => read(family, &path),
    }
}

/// Entries and problems, in the order of the file.
#[track_caller]
fn check(corpus: &Corpus, wanted: &[(&str, &str)]) {
    let found: Vec<(&str, &str)> = corpus
        .faults
        .iter()
        .map(|fault| (fault.entry.as_str(), fault.problem.as_str()))
        .collect();
    assert_eq!(found.len(), wanted.len(), "{found:?}");
    for ((entry, problem), (place, text)) in found.iter().zip(wanted) {
        assert!(
            entry == place && problem.contains(text),
            "{entry}: {problem}"
        );
    }
}

#[test]
fn coco() {
    let corpus = of_file(
        Family::Coco,
        &json!({
            "categories": [
                {"id": 1, "name": "cup"}, {"id": 2, "name": " "}, {"id": 1, "name": "dish"},
            ],
            "images": [
                {"id": 1, "file_name": "a.jpg", "width": 100, "height": 50},
                {"id": 2, "file_name": "", "width": 100, "height": 50},
            ],
            "annotations": [
                {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]},
                {"image_id": 1, "category_id": 1, "bbox": [10, 10, 0, 20]},
                {"image_id": 1, "category_id": 1, "bbox": [200, 10, 20, 20]},
                {"image_id": 1, "category_id": 2, "bbox": [10, 10, 20, 20]},
            ],
        }),
    );
    check(
        &corpus,
        &[
            ("categories[1]", "its name is empty"),
            ("categories[2]", "that of `cup` already"),
            ("images[1]", "the name of its file is empty"),
            ("annotations[1]", "nothing inside the picture"),
            ("annotations[2]", "nothing inside the picture"),
            ("annotations[3]", "its class is not listed"),
        ],
    );
    // What is in the picture is known all the same, so nothing is counted wrong.
    let picture = &corpus.pictures[0];
    assert_eq!((picture.instances.len(), picture.unclear), (3, true));
    assert!(picture.instances[1].place.is_none());
}

#[test]
fn ade20k() {
    let square = json!({"x": [10, 30, 30], "y": [10, 10, 30]});
    let corpus = of_file(
        Family::Ade20k,
        &json!({"annotation": {
            "filename": "a.jpg", "folder": "", "imsize": [50, 100, 3],
            "object": [
                {"name": "cup", "polygon": square},
                {"name": " , ", "polygon": square},
                {"name": "dish", "polygon": {"x": [500, 600], "y": [10, 20]}},
                {"name": "spoon"},
                {"name": "handle", "parts": {"part_level": 1}},
            ],
        }}),
    );
    check(
        &corpus,
        &[
            ("annotation.object[1]", "it has no name"),
            ("annotation.object[2]", "nothing inside the picture"),
            ("annotation.object[3]", "nothing inside the picture"),
        ],
    );
    assert_eq!(corpus.pictures[0].instances.len(), 3, "a part is no thing");
}

#[test]
fn omni3d() {
    let corners_3d = vec![[0.0, 0.0, 1.0]; 8];
    let thing = |name: &str, corners: [f64; 4]| {
        json!({
            "image_id": 1, "category_name": name, "bbox2D_tight": corners,
            "bbox3D_cam": corners_3d, "center_cam": [0, 0, 1], "dimensions": [1, 1, 1],
        })
    };
    let corpus = of_file(
        Family::Omni3D,
        &json!({
            "images": [
                {"id": 1, "file_path": "a.jpg", "width": 100, "height": 50},
                {"id": 2, "file_path": "", "width": 100, "height": 50},
            ],
            "annotations": [
                thing("chair", [10.0, 10.0, 30.0, 30.0]),
                thing("", [10.0, 10.0, 30.0, 30.0]),
                thing("desk", [200.0, 10.0, 230.0, 30.0]),
                // Unknown is no fault.
                thing("lamp", [-1.0; 4]),
            ],
        }),
    );
    check(
        &corpus,
        &[
            ("images[1]", "the name of its file is empty"),
            ("annotations[1]", "the name of its class is empty"),
            ("annotations[2]", "nothing inside the picture"),
        ],
    );
    let ignored: Vec<_> = corpus.pictures[0]
        .instances
        .iter()
        .map(|one| one.ignored)
        .collect();
    assert_eq!(ignored, [None, Some("no_2d_box"), Some("no_2d_box")]);
}
