//! Kind `preprocess`: pictures to the pixels each encoder is given.

use opabinia_image::{
    Filter, ImageLimits, ImageSource, Preprocessor, RgbImage, Step, load, prepare,
};

use super::case::{Tolerance, compare_values};
use super::{Case, CaseError, Check};

/// Eight-bit values must be equal.
const EXACT: Tolerance = Tolerance {
    max_abs: 0.0,
    rel: 0.0,
};

pub(super) fn run(case: &Case) -> Result<Vec<Check>, CaseError> {
    let tolerance = case.tolerance()?;
    let images = case.json["images"]
        .as_object()
        .ok_or_else(|| case.wrong("no `images`"))?;
    let mut checks = Vec::new();
    for (image, entry) in images {
        let file = entry["file"]
            .as_str()
            .ok_or_else(|| case.wrong("an image without `file`"))?;
        let source = ImageSource::File(case.folder.join(file));
        let picture = load(&source, &ImageLimits::default())?;
        let suffix = format!(".{image}");
        for (name, reference) in &case.tensors {
            let Some(step) = name.strip_suffix(&suffix) else {
                continue;
            };
            let (ours, tolerance) = match eight_bit(&picture, step, &reference.shape)? {
                Some(bytes) => (bytes, EXACT),
                None => (pixels(case, &picture, step, &reference.shape)?, tolerance),
            };
            let theirs = case.tensor(name)?;
            checks.push(compare_values(name, &ours, &theirs.values, tolerance));
        }
    }
    Ok(checks)
}

/// The steps before pixels become floats.
fn eight_bit(
    picture: &RgbImage,
    step: &str,
    shape: &[usize],
) -> Result<Option<Vec<f64>>, CaseError> {
    let colour = opabinia_image::pad_colour(opabinia_image::CLIP_MEAN);
    let mut steps = vec![Step::PadSquare { colour }];
    match step {
        "raw" => steps.clear(),
        "square" => {}
        _ if step.starts_with("square_resized") => {
            let side = |axis: usize| shape.get(axis).and_then(|&n| u32::try_from(n).ok());
            let (height, width) = (side(0).unwrap_or(0), side(1).unwrap_or(0));
            steps.push(Step::Resize {
                width,
                height,
                filter: Filter::Bicubic,
            });
        }
        _ => return Ok(None),
    }
    let done = Preprocessor {
        steps,
        ..Preprocessor::clip(1)
    }
    .apply_steps(picture)?;
    Ok(Some(
        done.data().iter().map(|&byte| f64::from(byte)).collect(),
    ))
}

fn pixels(
    case: &Case,
    picture: &RgbImage,
    step: &str,
    shape: &[usize],
) -> Result<Vec<f64>, CaseError> {
    let (name, square) = match step.strip_prefix("nosquare.") {
        Some(name) => (name, false),
        None => (step, true),
    };
    let side = shape
        .get(3)
        .and_then(|&n| u32::try_from(n).ok())
        .unwrap_or(0);
    let family = name
        .trim_end_matches(|c: char| c.is_ascii_digit())
        .trim_end_matches('_');
    let preprocessor = match (family, square) {
        ("clip", true) => Preprocessor::reference_clip(side),
        ("clip", false) => Preprocessor::clip(side),
        ("siglip", true) => Preprocessor::reference_siglip(side),
        ("siglip", false) => Preprocessor::siglip(side),
        ("convnext", true) => Preprocessor::reference_convnext_clip(side),
        ("convnext", false) => Preprocessor::convnext_clip(side),
        ("dinov2", true) => Preprocessor::reference_dinov2(side),
        ("dinov2", false) => Preprocessor::dinov2(side),
        ("sam", true) => Preprocessor::reference_sam(side),
        ("imagenet_224style", true) => Preprocessor::reference_imagenet_crop(side),
        ("imagenet_224style", false) => Preprocessor::imagenet_crop(side),
        ("diffusion", true) => Preprocessor::reference_diffusion(side),
        ("dpt", true) => Preprocessor::reference_dpt(side),
        _ => return Err(case.wrong(format!("no preprocessor is called `{step}`"))),
    };
    let batch = prepare(picture, &preprocessor)?;
    Ok(batch.data().iter().map(|&value| f64::from(value)).collect())
}
