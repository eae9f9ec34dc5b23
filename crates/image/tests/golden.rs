//! Every golden case of kind `preprocess`: decoding, padding and resizing exact, the processors'
//! floats to 1e-5.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use opabinia_image::{
    Filter, ImageLimits, ImageSource, Preprocessor, RgbImage, Step, load, pad_colour, prepare,
    resize,
};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;

const TOLERANCE: f32 = 1e-5;

#[test]
fn golden_preprocessing() {
    let cases = cases_of_kind("preprocess");
    assert!(
        !cases.is_empty(),
        "no golden case of kind `preprocess` below {:?}",
        golden_root()
    );
    for case in cases {
        check_case(&case);
    }
}

fn golden_root() -> PathBuf {
    std::env::var_os("OPABINIA_GOLDEN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
        PathBuf::from,
    )
}

fn cases_of_kind(kind: &str) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(golden_root())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    folders
        .filter(|folder| folder.join("case.json").is_file())
        .filter(|folder| description(folder)["kind"] == kind)
        .collect()
}

fn description(case: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(case.join("case.json")).unwrap()).unwrap()
}

/// Looks at every tensor of the case; one whose name is not understood is a failure.
fn check_case(case: &Path) {
    let bytes = std::fs::read(case.join("io.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let description = description(case);
    for (key, tensor) in tensors.tensors() {
        let (what, image) = key.rsplit_once('.').unwrap();
        let file = description["images"][image]["file"].as_str().unwrap();
        let source = ImageSource::File(case.join(file));
        let picture = load(&source, &ImageLimits::default()).unwrap();
        match what {
            "raw" => check_bytes(&key, &picture, &tensor),
            "square" => check_bytes(&key, &square(&picture), &tensor),
            _ if what.starts_with("square_resized") => {
                let side: u32 = what.trim_start_matches("square_resized").parse().unwrap();
                let resized = resize(&square(&picture), side, side, Filter::Bicubic);
                check_bytes(&key, &resized, &tensor);
            }
            _ => check_pixels(&key, &picture, &processor(what, side_of(&tensor)), &tensor),
        }
    }
}

/// The picture padded to a square with the border of CLIP.
fn square(picture: &RgbImage) -> RgbImage {
    let mut padding = Preprocessor::clip(1);
    padding.steps = vec![Step::PadSquare {
        colour: pad_colour(opabinia_image::CLIP_MEAN),
    }];
    padding.apply_steps(picture).unwrap()
}

fn side_of(tensor: &TensorView<'_>) -> u32 {
    u32::try_from(tensor.shape()[3]).unwrap()
}

/// The preprocessor for a tensor of the golden file: its name begins with the encoder's.
fn processor(name: &str, side: u32) -> Preprocessor {
    match name.strip_prefix("nosquare.") {
        Some("clip56") => Preprocessor::clip(side),
        Some("siglip48") => Preprocessor::siglip(side),
        Some("convnext64") => Preprocessor::convnext_clip(side),
        Some("dinov2_42") => Preprocessor::dinov2(side),
        Some("imagenet_224style") => Preprocessor::imagenet_crop(side),
        Some(other) => panic!("no processor for nosquare.{other}"),
        None => match name {
            "clip56" => Preprocessor::reference_clip(side),
            "siglip48" => Preprocessor::reference_siglip(side),
            "convnext64" => Preprocessor::reference_convnext_clip(side),
            "dinov2_42" => Preprocessor::reference_dinov2(side),
            "sam64" => Preprocessor::reference_sam(side),
            "imagenet_224style" => Preprocessor::reference_imagenet_crop(side),
            "diffusion48" => Preprocessor::reference_diffusion(side),
            "dpt48" => Preprocessor::reference_dpt(side),
            other => panic!("no processor for {other}"),
        },
    }
}

fn check_bytes(key: &str, picture: &RgbImage, expected: &TensorView<'_>) {
    let shape = [picture.height() as usize, picture.width() as usize, 3];
    assert_eq!(expected.shape(), shape, "{key}");
    assert!(expected.data() == picture.data(), "{key}: bytes differ");
}

fn check_pixels(
    key: &str,
    picture: &RgbImage,
    preprocessor: &Preprocessor,
    expected: &TensorView<'_>,
) {
    let found = prepare(picture, preprocessor).unwrap();
    assert_eq!(expected.shape(), found.shape(), "{key}");
    let expected = expected
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&b| f32::from_le_bytes(b));
    let error = expected
        .zip(found.data())
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    eprintln!("{key}: largest difference {error:e}");
    assert!(error <= TOLERANCE, "{key}: largest difference {error:e}");
}
