//! Packed weights in files: written, found again, and refused where they do not fit.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::prelude::*;
use opabinia_nn::{Embedding, Linear};
use opabinia_weights::{
    Checkpoint, CheckpointWriter, KeyMap, LoadOptions, WeightDtype, WeightsError, load_into,
};
use proptest::prelude::*;

#[derive(Module, Debug)]
struct Net {
    table: Embedding,
    up: Linear,
    lm_head: Linear,
}

fn net() -> Net {
    let device = Device::flex();
    Net {
        table: Embedding::new(10, 70, &device),
        up: Linear::new(70, 33, true, &device),
        lm_head: Linear::new(33, 20, false, &device),
    }
}

impl Net {
    fn run(&self) -> Vec<f32> {
        let device = Device::flex();
        let x = Tensor::<2>::from_data(
            TensorData::new((0..140).map(|v| (v % 13) as f32 - 6.0).collect(), [2, 70]),
            &device,
        );
        let y = self.lm_head.forward(self.up.forward(x));
        y.into_data().try_to_vec().unwrap()
    }
}

fn load(file: &Path, dtype: WeightDtype) -> Result<Net, WeightsError> {
    let checkpoint = Checkpoint::open(file)?;
    let options = LoadOptions::new(dtype);
    let (net, report) = load_into(net(), &checkpoint, &KeyMap::new(), &options)?;
    report.deny_unused()?;
    Ok(net)
}

fn write(net: &Net, file: &Path) {
    let mut writer = CheckpointWriter::new(WeightDtype::AsStored);
    writer.add(net, &KeyMap::new()).unwrap();
    writer.write_file(file).unwrap();
}

/// A float file, and a packed one made of it.
fn files(folder: &Path, dtype: WeightDtype) -> (PathBuf, PathBuf) {
    let (plain, packed) = (
        folder.join("plain.safetensors"),
        folder.join("packed.safetensors"),
    );
    Device::flex().seed(3);
    write(&net(), &plain);
    write(&load(&plain, dtype).unwrap(), &packed);
    (plain, packed)
}

const PACKED: [WeightDtype; 3] = [
    WeightDtype::PackedBf16,
    WeightDtype::Int8,
    WeightDtype::Int4,
];

#[test]
fn a_packed_file_is_the_model_that_was_packed() {
    for dtype in PACKED {
        let folder = tempfile::tempdir().unwrap();
        let (plain, packed) = files(folder.path(), dtype);
        let direct = load(&plain, dtype).unwrap();
        for asked in [WeightDtype::AsStored, dtype] {
            let again = load(&packed, asked).unwrap();
            assert_eq!(again.run(), direct.run(), "{dtype}");
            assert!(!again.up.weight.is_initialized());
        }
        let checkpoint = Checkpoint::open(&packed).unwrap();
        assert!(checkpoint.is_packed());
        let head = if dtype == WeightDtype::PackedBf16 {
            "bf16"
        } else {
            "int8"
        };
        assert!(
            checkpoint
                .info(&format!("lm_head.weight.{head}.20x33"))
                .is_some()
        );
        assert!(checkpoint.info("table.weight").is_some());
    }
}

#[test]
fn a_packed_file_becomes_no_other_type() {
    let folder = tempfile::tempdir().unwrap();
    let (_, packed) = files(folder.path(), WeightDtype::Int8);
    for dtype in [WeightDtype::F32, WeightDtype::Bf16, WeightDtype::Int4] {
        let error = load(&packed, dtype).unwrap_err().to_string();
        assert!(
            error.contains("packed as int8") && error.contains("--dtype stored"),
            "{error}"
        );
    }
}

#[test]
fn another_order_of_bytes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_, packed) = files(folder.path(), WeightDtype::Int4);
    let mut bytes = std::fs::read(&packed).unwrap();
    let entry = b"\"opabinia.packing\":\"1\"";
    let at = bytes
        .windows(entry.len())
        .position(|part| part == entry)
        .unwrap();
    bytes[at + entry.len() - 2] = b'7';
    std::fs::write(&packed, bytes).unwrap();
    let error = load(&packed, WeightDtype::AsStored)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("packed in order `7`") && error.contains("quantize"),
        "{error}"
    );
}

/// A tensor that is loaded later takes the place of a packed weight.
#[test]
fn the_last_that_is_loaded_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, _) = files(folder.path(), WeightDtype::Int4);
    let short = load(&plain, WeightDtype::Int4).unwrap();
    let exact = load(&plain, WeightDtype::F32).unwrap();
    assert_ne!(short.run(), exact.run());
    let checkpoint = Checkpoint::open(&plain).unwrap();
    let options = LoadOptions::new(WeightDtype::F32);
    let (long, _) = load_into(short, &checkpoint, &KeyMap::new(), &options).unwrap();
    assert_eq!(long.run(), exact.run());
}

#[test]
fn what_is_not_finite_cannot_be_an_integer() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nan.safetensors");
    let mut broken = net();
    broken.up.weight = broken.up.weight.map(|w| w * f32::NAN);
    write(&broken, &file);
    let error = load(&file, WeightDtype::Int8).unwrap_err().to_string();
    assert!(
        error.contains("`up.weight`") && error.contains("not finite"),
        "{error}"
    );
    assert!(load(&file, WeightDtype::PackedBf16).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A damaged file is an error or a model, never a panic.
    #[test]
    fn damaged_files_do_not_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let folder = tempfile::tempdir().unwrap();
        let (_, packed) = files(folder.path(), WeightDtype::Int4);
        let whole = std::fs::read(&packed).unwrap();
        let mut bytes = whole.clone();
        // The header is where damage matters.
        let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        bytes[at.index(header)] = byte;
        std::fs::write(&packed, &bytes).unwrap();
        if let Ok(net) = load(&packed, WeightDtype::AsStored) {
            let _ = net.run();
        }
        std::fs::write(&packed, &whole[..cut.index(whole.len())]).unwrap();
        prop_assert!(load(&packed, WeightDtype::AsStored).is_err());
    }
}
