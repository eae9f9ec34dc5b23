//! Every golden case of kind `preprocess`: decoding, padding and resizing exact, the processors'
//! floats to 1e-6.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use opabinia_image::{
    Filter, ImageLimits, ImageSource, Preprocessor, RgbImage, Step, load, pad_colour, prepare,
    resize,
};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;

/// The order of operations is the reference's, so equal bits are found; the rest is room for the
/// arithmetic of other machines.
const TOLERANCE: f32 = 1e-6;

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

/// `(how its names begin, the processor alone, the processor behind square padding)`.
type Processor = (
    &'static str,
    fn(u32) -> Preprocessor,
    fn(u32) -> Preprocessor,
);

const PROCESSORS: [Processor; 8] = [
    ("clip", Preprocessor::clip, Preprocessor::reference_clip),
    (
        "siglip",
        Preprocessor::siglip,
        Preprocessor::reference_siglip,
    ),
    (
        "convnext",
        Preprocessor::convnext_clip,
        Preprocessor::reference_convnext_clip,
    ),
    (
        "dinov2",
        Preprocessor::dinov2,
        Preprocessor::reference_dinov2,
    ),
    ("sam", Preprocessor::sam, Preprocessor::reference_sam),
    (
        "imagenet",
        Preprocessor::imagenet_crop,
        Preprocessor::reference_imagenet_crop,
    ),
    (
        "diffusion",
        Preprocessor::diffusion,
        Preprocessor::reference_diffusion,
    ),
    ("dpt", Preprocessor::dpt, Preprocessor::reference_dpt),
];

/// The preprocessor for a tensor called `clip56` or `nosquare.clip56`.
fn processor(what: &str, side: u32) -> Preprocessor {
    let name = what.strip_prefix("nosquare.").unwrap_or(what);
    let (_, alone, square_padded) = PROCESSORS
        .into_iter()
        .find(|(begin, ..)| name.starts_with(begin))
        .unwrap_or_else(|| panic!("no processor for {what}"));
    if name == what {
        square_padded(side)
    } else {
        alone(side)
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
    assert!(error <= TOLERANCE, "{key}: largest difference {error:e}");
}
