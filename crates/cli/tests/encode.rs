//! `opabinia encode`: features of the four encoders of the released models, in both file formats.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;

use common::{Run, model, opabinia, picture, text};
use opabinia_image::{ImageLimits, ImageSource, load};
use safetensors::SafeTensors;
use tempfile::TempDir;

/// Published name, folder of the golden weights, rows (= columns) and width of its features.
const ENCODERS: [(&str, &str, usize, usize); 4] = [
    ("siglip/CLIP-ViT-SO400M-14-384", "siglip", 6, 32),
    ("openai/clip-vit-large-patch14-336", "clip", 5, 32),
    ("facebook/dinov2-giant-res98", "dinov2", 7, 36),
    ("clip-convnext-XXL-multi-stage-res96", "convnext", 24, 60),
];

/// Features from a file.
#[derive(Debug, PartialEq)]
struct Features {
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// A place for outputs.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, file: &str) -> String {
        text(&self.folder.path().join(file))
    }

    /// Encodes the wide picture into `file`.
    fn encode(&self, name: &str, tower: &str, file: &str, flags: &[&str]) -> Run {
        let weights = text(&model().join("towers").join(tower));
        let (out, components) = (self.path(file), self.path("components.png"));
        let wide = picture("wide");
        let mut arguments = vec!["encode", &wide, "--encoder", name, "--weights", &weights];
        arguments.extend(["--out", &out, "--picture", &components]);
        arguments.extend(flags);
        opabinia(&arguments)
    }

    fn features(&self, name: &str, tower: &str, flags: &[&str]) -> Features {
        self.encode(name, tower, "f.safetensors", flags).quiet();
        read_safetensors(self.path("f.safetensors").as_ref())
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let (words, []) = bytes.as_chunks::<4>() else {
        panic!("{} bytes are no 32-bit numbers", bytes.len());
    };
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn read_safetensors(path: &Path) -> Features {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("features").unwrap();
    Features {
        shape: tensor.shape().to_vec(),
        values: floats(tensor.data()),
    }
}

/// Reads NumPy's format as its specification says, version 1.0.
fn read_npy(path: &Path) -> Features {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!((10 + length) % 64, 0, "data begin at a multiple of 64");
    let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    assert!(header.contains("'descr': '<f4'"), "{header}");
    assert!(header.contains("'fortran_order': False"), "{header}");
    assert!(header.ends_with('\n'), "{header}");
    let (_, shape) = header.split_once("'shape': (").unwrap();
    let (shape, _) = shape.split_once(')').unwrap();
    Features {
        shape: shape
            .split(',')
            .map(|n| n.trim().parse().unwrap())
            .collect(),
        values: floats(&bytes[10 + length..]),
    }
}

#[test]
fn both_formats_hold_the_same_features() {
    let bench = Bench::new();
    for (name, tower, side, width) in ENCODERS {
        let features = bench.features(name, tower, &[]);
        assert_eq!(features.shape, [side, side, width], "{name}");
        assert_eq!(features.values.len(), side * side * width, "{name}");
        assert!(
            features.values.iter().all(|value| value.is_finite()),
            "{name}"
        );
        let run = bench.encode(name, tower, "f.npy", &[]).quiet();
        assert!(
            run.stdout
                .contains(&format!("{side}×{side} features of width {width}"))
        );
        assert_eq!(read_npy(bench.path("f.npy").as_ref()), features, "{name}");
    }
}

#[test]
fn features_are_those_of_the_reference() {
    let bench = Bench::new();
    let io = std::fs::read(model().join("io.safetensors")).unwrap();
    let io = SafeTensors::deserialize(&io).unwrap();
    for (i, (name, tower, _, width)) in ENCODERS.into_iter().take(3).enumerate() {
        let reference = io.tensor(&format!("wide.tower{i}")).unwrap();
        assert_eq!(reference.shape(), [1, 36, width]);
        let ours = bench.features(name, tower, &["--tokens", "36"]);
        assert_eq!(ours.shape, [6, 6, width]);
        for (a, b) in ours.values.iter().zip(floats(reference.data())) {
            assert!(
                (a - b).abs() <= 5e-4 + 5e-4 * b.abs(),
                "{name}: {a}, not {b}"
            );
        }
    }
}

#[test]
fn tokens_may_be_asked_for_in_the_name_or_by_the_flag() {
    let bench = Bench::new();
    let plain = "openai/clip-vit-large-patch14-336";
    let named = bench.features(&format!("{plain}-interp36"), "clip", &[]);
    assert_eq!(named.shape, [6, 6, 32]);
    assert_eq!(named, bench.features(plain, "clip", &["--tokens", "36"]));
    let flag_wins = bench.features(&format!("{plain}-interp36"), "clip", &["--tokens", "4"]);
    assert_eq!(flag_wins.shape, [2, 2, 32]);
}

#[test]
fn another_resolution_gives_another_grid() {
    let bench = Bench::new();
    let features = bench.features("facebook/dinov2-giant-res70", "dinov2", &[]);
    assert_eq!(features.shape, [5, 5, 36]);
}

#[test]
fn components_are_a_picture_with_one_square_per_feature() {
    let bench = Bench::new();
    for (name, tower, side, _) in ENCODERS {
        bench.encode(name, tower, "f.npy", &[]).quiet();
        let source = ImageSource::File(bench.path("components.png").into());
        let components = load(&source, &ImageLimits::default()).unwrap();
        let scale = components.width() / side as u32;
        assert_eq!(
            components.size(),
            (scale * side as u32, scale * side as u32),
            "{name}"
        );
        assert!(scale > 1, "{name}: too small to look at");
        let corner = components.pixel(0, 0).unwrap();
        assert_eq!(
            components.pixel(scale - 1, scale - 1),
            Some(corner),
            "{name}"
        );
        let colours = components
            .data()
            .iter()
            .collect::<std::collections::BTreeSet<_>>();
        assert!(colours.len() > 8, "{name}: all features look the same");
    }
}

#[test]
fn weights_of_16_bits_give_nearly_the_same_features() {
    let bench = Bench::new();
    let full = bench.features(
        "siglip/CLIP-ViT-SO400M-14-384",
        "siglip",
        &["--dtype", "f32"],
    );
    for dtype in ["bf16", "f16"] {
        let half = bench.features(
            "siglip/CLIP-ViT-SO400M-14-384",
            "siglip",
            &["--dtype", dtype],
        );
        assert_eq!(half.shape, full.shape);
        assert_ne!(half.values, full.values, "{dtype}");
        for (a, b) in half.values.iter().zip(&full.values) {
            assert!((a - b).abs() < 0.1 + 0.1 * b.abs(), "{dtype}: {a}, not {b}");
        }
    }
}

#[test]
fn verbose_says_how() {
    let run = Bench::new()
        .encode(ENCODERS[1].0, "clip", "f.npy", &["--verbose"])
        .ok();
    run.mentions(&[
        "160 × 90 pixels",
        "loaded 37 tensors",
        "5×5 features of width 32",
    ]);
}

/// Those of the shipped model need no `--weights`; those that a recipe trains do.
#[test]
fn shipped_encoders_are_found() {
    let bench = Bench::new();
    let (wide, out, components) = (picture("wide"), bench.path("f.npy"), bench.path("c.png"));
    let encode = |name| {
        let files = ["--out", &out, "--picture", &components];
        opabinia(&[&["encode", &wide, "--encoder", name][..], &files].concat())
    };
    let run = encode("opabinia/small-siglip-128").quiet();
    assert!(run.stdout.contains("8×8 features of width 128"));
    encode("opabinia/small-dinov2-mae-128").fails_with(1, &["small-dinov2-mae-128"]);
}

#[test]
fn impossible_wishes_are_refused() {
    let bench = Bench::new();
    let clip = ENCODERS[1].0;
    let wish = |flags: &[&str]| bench.encode(clip, "clip", "f.npy", flags);
    wish(&["--tokens", "35"]).fails_with(1, &["35 tokens", "25", "36"]);
    wish(&["--tokens", "0"]).fails_with(1, &["0 tokens", "hint: use 1"]);
    wish(&["--tokens", "-1"]).fails_with(2, &[]);
    wish(&["--device", "tpu"]).fails_with(1, &["`tpu`", "cpu"]);
    bench
        .encode(clip, "clip", "f.mat", &[])
        .fails_with(1, &["f.mat", ".safetensors or .npy"]);
    bench
        .encode(clip, "clip", "no-such-folder/f.npy", &[])
        .fails_with(1, &["cannot write", "no-such-folder"]);
    bench
        .encode(clip, "dinov2", "f.npy", &[])
        .fails_with(1, &["CLIP", "DINOv2"]);
    bench
        .encode("openai/clip-vit-large-patch14-337", "clip", "f.npy", &[])
        .fails_with(1, &["did you mean", "`openai/clip-vit-large-patch14-336`"]);
    bench
        .encode(&format!("{clip}-interp35"), "clip", "f.npy", &[])
        .fails_with(1, &["-interp35", "square"]);
    assert!(
        !Path::new(&bench.path("f.npy")).exists(),
        "a refused wish wrote a file"
    );
}

#[test]
fn more_tokens_than_memory_holds_are_refused() {
    Bench::new()
        .encode(
            ENCODERS[1].0,
            "clip",
            "f.npy",
            &["--tokens", "1000000000000"],
        )
        .fails_with(1, &["1000000000000"]);
}
