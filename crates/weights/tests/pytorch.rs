//! Reading what `torch.save` wrote. The files come from `fixtures/make_fixtures.py`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::error::Error as _;
use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};
use opabinia_weights::{
    Checkpoint, Dtype, FloatDtype, KeyMap, LoadOptions, WeightsError, load_into,
};
use proptest::prelude::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn f32s(checkpoint: &Checkpoint, key: &str) -> Vec<f32> {
    let data = checkpoint.tensor(key, Some(FloatDtype::F32)).unwrap();
    data.try_to_vec::<f32>().unwrap()
}

/// What every file with the standard contents must give.
fn check_contents(checkpoint: &Checkpoint) {
    assert_eq!(checkpoint.keys().len(), 9);
    assert_eq!(f32s(checkpoint, "weight"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(f32s(checkpoint, "bias"), [0.5, -2.0]);
    assert_eq!(f32s(checkpoint, "half"), [1.0, 2.5, -3.0, 65504.0]);
    assert_eq!(f32s(checkpoint, "double"), [1e-3, 1e30]);
    // A view of other strides is gathered: columns of [[0, 1, 2], [3, 4, 5]].
    assert_eq!(
        f32s(checkpoint, "transposed"),
        [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
    );
    assert_eq!(f32s(checkpoint, "tail"), [4.0, 5.0]);
    assert_eq!(f32s(checkpoint, "scalar"), [2.6592]);
    let info = checkpoint.info("bias").unwrap();
    assert_eq!(
        (info.dtype, info.shape, info.bytes),
        (Dtype::Bf16, vec![2], 4)
    );
    let ids = checkpoint.tensor("ids", None).unwrap();
    assert_eq!(ids.try_to_vec::<i64>().unwrap(), [0, 1, 2]);
    assert!(matches!(
        checkpoint.tensor("ids", Some(FloatDtype::F32)),
        Err(WeightsError::Dtype { .. })
    ));
    let rows = checkpoint.rows("weight", Some(1..2), None).unwrap();
    assert_eq!(rows.dtype(), DType::F32);
    assert_eq!(rows.try_to_vec::<f32>().unwrap(), [3.0, 4.0, 5.0]);
    assert!(matches!(
        checkpoint.rows("weight", Some(1..3), None),
        Err(WeightsError::Rows { .. })
    ));
    let halves = checkpoint.tensor("weight", Some(FloatDtype::F16)).unwrap();
    assert_eq!(halves.dtype(), DType::F16);
}

#[test]
fn zip_archives_are_read() {
    check_contents(&Checkpoint::open(fixture("zip.bin")).unwrap());
}

#[test]
fn legacy_streams_are_read() {
    check_contents(&Checkpoint::open(fixture("legacy.pt")).unwrap());
}

#[test]
fn nested_dictionaries_are_reached_by_prefix() {
    let checkpoint = Checkpoint::open(fixture("nested.pth")).unwrap();
    assert!(checkpoint.contains("state_dict.module.weight"));
    check_contents(&checkpoint.with_prefix("state_dict.module."));
}

#[test]
fn shards_are_found_through_the_index() {
    let checkpoint = Checkpoint::open(fixture("shards")).unwrap();
    assert_eq!(
        checkpoint.keys().collect::<Vec<_>>(),
        ["a.weight", "b.weight"]
    );
    assert_eq!(f32s(&checkpoint, "b.weight"), [3.0, 3.0]);
}

#[test]
fn a_module_is_loaded_from_a_zip_archive() {
    #[derive(Module, Debug)]
    struct Net {
        weight: Param<Tensor<2>>,
        bias: Param<Tensor<1>>,
    }
    let device = Device::flex();
    let net = Net {
        weight: Param::from_tensor(Tensor::zeros([2, 3], &device)),
        bias: Param::from_tensor(Tensor::zeros([2], &device)),
    };
    let checkpoint = Checkpoint::open(fixture("zip.bin")).unwrap();
    let options = LoadOptions::default().ignore("ids|flags");
    let (net, report) = load_into(net, &checkpoint, &KeyMap::new(), &options).unwrap();
    let weight = net.weight.val().into_data();
    assert_eq!(weight.try_to_vec::<f32>().unwrap()[5], 5.0);
    assert_eq!(report.ignored, ["flags", "ids"]);
    assert_eq!(
        report.unused,
        ["double", "half", "scalar", "tail", "transposed"]
    );
}

#[test]
fn a_view_that_is_larger_than_its_file_is_refused() {
    let checkpoint = Checkpoint::open(fixture("expanded.pt")).unwrap();
    let error = checkpoint.tensor("weight", None).unwrap_err();
    let cause = error.source().unwrap().to_string();
    assert!(cause.contains("more than the whole file"), "{cause}");
}

#[test]
fn a_pickle_that_calls_code_is_not_obeyed() {
    // The call is parsed as data: there is no tensor, and nothing was printed.
    match Checkpoint::open(fixture("calls.pt")) {
        Ok(checkpoint) => assert_eq!(checkpoint.keys().len(), 0),
        Err(error) => assert!(matches!(error, WeightsError::Pytorch { .. })),
    }
}

#[test]
fn other_files_are_refused_with_their_names() {
    let folder = tempfile::tempdir().unwrap();
    for contents in [&b""[..], b"PK\x03\x04", b"{\"a\": 1}", &[0x80, 2, b'.']] {
        let path = folder.path().join("model.bin");
        std::fs::write(&path, contents).unwrap();
        let error = Checkpoint::open(&path).unwrap_err();
        assert!(error.to_string().contains("model.bin"), "{error}");
    }
}

/// Opens a mutated file and reads whatever it still offers; only errors may come of it.
fn survive(bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    std::fs::write(&path, bytes).unwrap();
    if let Ok(checkpoint) = Checkpoint::open(&path) {
        for key in checkpoint.keys() {
            let _ = checkpoint.tensor(key, None);
            let _ = checkpoint.rows(key, Some(0..1), Some(FloatDtype::F32));
        }
    }
}

fn mutated(name: &str, edits: &[(prop::sample::Index, u8)], keep: prop::sample::Index) -> Vec<u8> {
    let mut bytes = std::fs::read(fixture(name)).unwrap();
    for (at, value) in edits {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    // Half of the cases are cut short as well.
    let keep = keep.index(2 * bytes.len());
    bytes.truncate(keep.max(1));
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn mutated_zip_archives_never_panic(
        edits in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..6),
        keep in any::<prop::sample::Index>(),
    ) {
        survive(&mutated("zip.bin", &edits, keep));
    }

    #[test]
    fn mutated_legacy_streams_never_panic(
        edits in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..6),
        keep in any::<prop::sample::Index>(),
    ) {
        survive(&mutated("legacy.pt", &edits, keep));
    }

    #[test]
    fn arbitrary_pickles_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        survive(&[&[0x80, 2][..], &body].concat());
    }
}
