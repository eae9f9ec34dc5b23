//! What a world writes is what training reads.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use opabinia_data::SampleFile;
use opabinia_world::make::{MakeOptions, make};
use tempfile::TempDir;

#[test]
fn every_sample_can_be_read_by_training() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("world");
    let options = MakeOptions {
        pictures_train: 30,
        pictures_test: 10,
        texts: 30,
        side: 64,
        annotations: false,
        ..MakeOptions::default()
    };
    let report = make(&root, &options, &|_| ()).unwrap();
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
