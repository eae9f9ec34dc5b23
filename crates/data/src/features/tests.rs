use std::fs::OpenOptions;

use proptest::prelude::*;

use super::*;

fn key(n: u8) -> Key {
    Key::of(&KeyParts {
        picture: &[n; 32],
        encoder: "clip",
        weights: "abc",
        preprocessing: "square",
        grid: (2, 2),
    })
}

fn features(n: u8) -> Features {
    Features {
        rows: 4,
        width: 3,
        values: (0..12).map(|i| f32::from(n) + i as f32 / 4.0).collect(),
    }
}

fn filled(folder: &Path, count: u8) -> FeatureStore {
    let store = FeatureStore::open(folder, Precision::F32).unwrap();
    for n in 0..count {
        store.put(&key(n), &features(n)).unwrap();
    }
    store
}

fn data(folder: &Path) -> PathBuf {
    folder.join("segment-00000.bin")
}

#[test]
fn every_part_of_a_key_counts() {
    let picture = [7; 32];
    let parts = KeyParts {
        picture: &picture,
        encoder: "ab",
        weights: "c",
        preprocessing: "p",
        grid: (2, 8),
    };
    let others = [
        KeyParts {
            picture: &[8; 32],
            ..parts
        },
        KeyParts {
            encoder: "a",
            weights: "bc",
            ..parts
        },
        KeyParts {
            preprocessing: "q",
            ..parts
        },
        KeyParts {
            grid: (8, 2),
            ..parts
        },
    ];
    assert!(others.iter().all(|other| Key::of(other) != Key::of(&parts)));
}

#[test]
fn what_is_put_is_got_now_and_later() {
    let folder = tempfile::tempdir().unwrap();
    for store in [filled(folder.path(), 3), filled(folder.path(), 3)] {
        assert_eq!(store.len(), 3);
        // 64 bytes of header and 48 of values, filled up to 64.
        assert_eq!(store.bytes(), 3 * 128);
        for n in 0..3 {
            assert_eq!(store.get(&key(n)).unwrap(), Some(features(n)));
        }
        assert_eq!(store.get(&key(9)).unwrap(), None);
    }
}

#[test]
fn halves_are_kept_where_they_hold_the_values() {
    let folder = tempfile::tempdir().unwrap();
    let store = FeatureStore::open(folder.path(), Precision::F16).unwrap();
    let mut large = features(1);
    large.values[0] = 1e6;
    store.put(&key(0), &features(0)).unwrap();
    store.put(&key(1), &large).unwrap();
    let precision = |n| store.lock().places[&key(n)].header.precision;
    assert_eq!(
        (precision(0), precision(1)),
        (Precision::F16, Precision::F32)
    );
    assert_eq!(store.get(&key(0)).unwrap(), Some(features(0)));
    assert_eq!(store.get(&key(1)).unwrap(), Some(large));
}

/// The last record is cut at every place; the others stay, and the store goes on.
#[test]
fn a_torn_record_is_cut_off() {
    for kept in [256, 257, 300, 319, 320, 350, 383] {
        for index in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            drop(filled(folder.path(), 3));
            let file = OpenOptions::new().write(true).open(data(folder.path()));
            file.unwrap().set_len(kept).unwrap();
            if !index {
                std::fs::remove_file(folder.path().join("segment-00000.idx")).unwrap();
            }
            let store = FeatureStore::open(folder.path(), Precision::F32).unwrap();
            assert_eq!((store.len(), store.bytes()), (2, 256), "{kept}");
            assert_eq!(std::fs::metadata(data(folder.path())).unwrap().len(), 256);
            store.put(&key(2), &features(2)).unwrap();
            assert_eq!(store.get(&key(2)).unwrap(), Some(features(2)));
            drop(store);
            let store = FeatureStore::open(folder.path(), Precision::F32).unwrap();
            assert_eq!(store.get(&key(2)).unwrap(), Some(features(2)));
        }
    }
}

/// Killed between a record and its entry in the index.
#[test]
fn a_record_that_the_index_lacks_is_found() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(folder.path(), 3));
    let index = folder.path().join("segment-00000.idx");
    for entries in [2 * 64, 2 * 64 + 10, 0] {
        let file = OpenOptions::new().write(true).open(&index).unwrap();
        file.set_len(entries).unwrap();
        drop(file);
        let store = FeatureStore::open(folder.path(), Precision::F32).unwrap();
        assert_eq!(store.len(), 3);
        assert_eq!(std::fs::metadata(&index).unwrap().len(), 3 * 64);
    }
}

#[test]
fn a_damaged_record_is_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(folder.path(), 3));
    let mut bytes = std::fs::read(data(folder.path())).unwrap();
    bytes[128 + 64 + 5] ^= 1;
    std::fs::write(data(folder.path()), bytes).unwrap();
    let store = FeatureStore::open(folder.path(), Precision::F32).unwrap();
    assert_eq!(store.get(&key(1)).unwrap(), None);
    assert_eq!((store.damaged(), store.len()), (1, 2));
    store.put(&key(1), &features(1)).unwrap();
    drop(store);
    let store = FeatureStore::open(folder.path(), Precision::F32).unwrap();
    assert_eq!(store.get(&key(1)).unwrap(), Some(features(1)));
    assert_eq!(store.get(&key(2)).unwrap(), Some(features(2)));
}

#[test]
fn full_segments_are_followed_by_others() {
    let folder = tempfile::tempdir().unwrap();
    let open = || FeatureStore::with_segments_of(folder.path(), Precision::F32, 200).unwrap();
    let store = open();
    for n in 0..5 {
        store.put(&key(n), &features(n)).unwrap();
    }
    drop(store);
    let store = open();
    assert_eq!(store.lock().segments.len(), 3);
    for n in 0..5 {
        assert_eq!(store.get(&key(n)).unwrap(), Some(features(n)));
    }
}

#[test]
fn two_may_write_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let first = filled(folder.path(), 2);
    let second = FeatureStore::open(folder.path(), Precision::F32).unwrap();
    assert_eq!(second.get(&key(1)).unwrap(), Some(features(1)));
    second.put(&key(7), &features(7)).unwrap();
    first.put(&key(8), &features(8)).unwrap();
    assert_eq!(second.get(&key(7)).unwrap(), Some(features(7)));
    drop((first, second));
    let third = FeatureStore::open(folder.path(), Precision::F32).unwrap();
    assert_eq!(third.len(), 4);
    assert_eq!(third.get(&key(8)).unwrap(), Some(features(8)));
}

#[test]
fn threads_may_share_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = FeatureStore::open(folder.path(), Precision::F32).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..20 {
                    store.put(&key(n), &features(n)).unwrap();
                    let found = store.get(&key(n)).unwrap();
                    assert_eq!(found, Some(features(n)), "{thread}");
                }
            });
        }
    });
    assert_eq!((store.len(), store.bytes()), (20, 20 * 128));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens to the files, what the store gives is what was put.
    #[test]
    fn damage_is_never_given_out(
        damage in proptest::collection::vec((any::<bool>(), 0_usize..400, any::<u8>()), 1..6),
        lengths in (0_u64..400, 0_u64..200),
    ) {
        let folder = tempfile::tempdir().unwrap();
        drop(filled(folder.path(), 3));
        let files = [data(folder.path()), folder.path().join("segment-00000.idx")];
        for (in_data, at, byte) in damage {
            let path = &files[usize::from(!in_data)];
            let mut bytes = std::fs::read(path).unwrap();
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            std::fs::write(path, bytes).unwrap();
        }
        for (path, length) in files.iter().zip([lengths.0, lengths.1]) {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            let length = length.min(file.metadata().unwrap().len());
            file.set_len(length).unwrap();
        }
        let store = FeatureStore::open(folder.path(), Precision::F32).unwrap();
        for n in 0..3 {
            let found = store.get(&key(n)).unwrap();
            prop_assert!(found.is_none_or(|found| found == features(n)));
        }
    }

    #[test]
    fn any_bytes_are_a_store(data_bytes: Vec<u8>, index: Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(data(folder.path()), data_bytes).unwrap();
        std::fs::write(folder.path().join("segment-00000.idx"), index).unwrap();
        let store = FeatureStore::open(folder.path(), Precision::F32).unwrap();
        prop_assert!(store.is_empty());
    }
}
