//! Preprocessing as data: the steps from a picture to what a vision encoder takes.
//!
//! The reference implementation of Cambrian-1 (arXiv 2406.16860) gives each encoder its own
//! picture: padded to a square with the encoder's mean colour, resized with Pillow's bicubic
//! filter to the encoder's side, then run through the processor that was published with the
//! encoder. The constructors `reference_*` are those chains; `clip`, `siglip` and so on are the
//! published processors alone. Because the picture is already square and of the right size, most
//! processors' own resizing does nothing in the chain; [`Preprocessor::reference_imagenet_crop`]
//! is the one that really cuts a border off.
//!
//! Steps on bytes come first, arithmetic on floats after. `x / 255`, minus the mean, divided by
//! the standard deviation are rounded to `f32` in that order, as torchvision and transformers do,
//! so that results are equal and not merely close.

mod frame;
mod presets;

use std::borrow::Cow;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::frame::{Frame, check_room, check_side, next_frame, pad_square, reframe, representable};
use crate::canvas::Canvas;
use crate::error::PrepareError;
use crate::pixels::PixelBatch;
use crate::resample::Filter;
use crate::rgb::{CHANNELS, RgbImage};

/// Mean colour of CLIP's training pictures (OpenAI CLIP, `image_mean`).
pub const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Standard deviation of CLIP's training pictures (OpenAI CLIP, `image_std`).
pub const CLIP_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];
/// Mean colour of ImageNet.
pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet.
pub const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];
/// The "mean" and "standard deviation" that map 0..=1 to −1..=1.
pub const HALF: [f64; 3] = [0.5; 3];
/// ImageNet's mean colour in units of 0..=255 (Segment Anything, `pixel_mean`).
pub const SAM_MEAN: [f64; 3] = [123.675, 116.28, 103.53];
/// ImageNet's standard deviation in units of 0..=255 (Segment Anything, `pixel_std`).
pub const SAM_STD: [f64; 3] = [58.395, 57.12, 57.375];

/// The longest side that a configuration may ask for, in pixels.
const MAX_SIDE: u32 = 65_535;

/// Most pixels between two steps (805 MB); beyond, the machine would suffer before the user knew.
const MAX_STEP_PIXELS: u64 = 1 << 28;

/// One step on 8-bit pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Put the picture in the middle of a square as large as its longer side; an odd pixel of
    /// border goes to the right or the bottom. Nothing happens to a square picture.
    PadSquare {
        /// The colour of the border.
        colour: [u8; 3],
    },
    /// Resize to a fixed size, whatever the proportions.
    Resize {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// How.
        filter: Filter,
    },
    /// Resize so that the shorter side becomes `side` and the longer `⌊side · longer / shorter⌋`,
    /// as transformers and torchvision do.
    ResizeShortest {
        /// The shorter side in pixels.
        side: u32,
        /// How.
        filter: Filter,
    },
    /// Resize so that the longer side becomes `side` and the shorter is rounded to the nearest,
    /// but at least one pixel, as Segment Anything does.
    ResizeLongest {
        /// The longer side in pixels.
        side: u32,
        /// How.
        filter: Filter,
    },
    /// Keep a square from the middle; a picture that is smaller gets a black border.
    CenterCrop {
        /// The side in pixels.
        side: u32,
        /// Where the middle is when it falls between two pixels.
        rounding: CropRounding,
    },
}

/// Where a crop begins when half the surplus is not a whole number of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CropRounding {
    /// Transformers: surplus rounded down; a border's first part rounded up.
    Down,
    /// Torchvision: surplus rounded to the even neighbour; a border's first part rounded down.
    Even,
}

/// The unit of the samples that mean and standard deviation apply to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rescale {
    /// 0..=1, bytes divided by 255.
    Unit,
    /// 0..=255, bytes as they are.
    Byte,
}

/// A canvas of zeros, right and below of the normalised picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZeroPad {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// All that is done to a picture before an encoder sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Preprocessor {
    /// Steps on 8-bit pixels, in this order.
    pub steps: Vec<Step>,
    /// The unit of `mean` and `std`.
    pub rescale: Rescale,
    /// Subtracted from red, green, blue.
    pub mean: [f64; 3],
    /// Then divided by.
    pub std: [f64; 3],
    /// What to fill up with zeros to at last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_pad: Option<ZeroPad>,
}

/// The colour of the border for an encoder whose pictures have this mean: `⌊255 · mean⌋`, cut to
/// a byte, as the reference computes it (a mean in units of 0..=255 gives white).
pub fn pad_colour(mean: [f64; 3]) -> [u8; 3] {
    // Conversion to a byte cuts towards zero and stops at 0 and 255.
    mean.map(|value| (value * 255.0) as u8)
}

/// Runs a picture through a preprocessor.
///
/// # Shapes
/// Output: `[1, 3, height, width]`.
///
/// # Errors
/// [`PrepareError::InvalidConfig`] if a value of the preprocessor makes no sense,
/// [`PrepareError::TooLarge`] if a step would need too much memory,
/// [`PrepareError::DoesNotFit`] if the picture is larger than its canvas of zeros.
pub fn prepare(
    picture: &RgbImage,
    preprocessor: &Preprocessor,
) -> Result<PixelBatch, PrepareError> {
    let picture = preprocessor.apply_steps(picture)?;
    let (width, height) = preprocessor.canvas_for(&picture)?;
    let data = preprocessor.normalise(&picture, width as usize, height as usize);
    PixelBatch::from_raw(1, height as usize, width as usize, data)
}

/// Carrying the steps out.
impl Preprocessor {
    /// The steps on bytes alone: what the encoder will see, as a picture.
    ///
    /// # Errors
    /// As [`prepare`].
    pub fn apply_steps(&self, picture: &RgbImage) -> Result<RgbImage, PrepareError> {
        self.validate()?;
        let mut canvas = Canvas::bare(Cow::Borrowed(picture));
        let mut steps = self.steps.iter().copied().enumerate().peekable();
        while let Some((index, step)) = steps.next() {
            canvas = match step {
                Step::PadSquare { colour } => pad_square(canvas, colour, index)?,
                Step::CenterCrop { side, rounding } => {
                    let frame = Frame::centred(canvas.size(), side, rounding);
                    reframe(canvas, index, None, frame)?
                }
                Step::Resize { filter, .. }
                | Step::ResizeShortest { filter, .. }
                | Step::ResizeLongest { filter, .. } => {
                    let target = step.resized(canvas.size());
                    let target = representable(target, canvas.size(), index)?;
                    let frame = next_frame(&mut steps, target);
                    reframe(canvas, index, Some((target, filter)), frame)?
                }
            };
        }
        let index = self.steps.len().saturating_sub(1);
        check_room(canvas.size(), canvas.size(), index)?;
        Ok(canvas.into_picture().into_owned())
    }

    /// Checks every value that could come from a configuration file.
    ///
    /// # Errors
    /// [`PrepareError::InvalidConfig`] for a size of zero or beyond 65 535, and for a mean or
    /// standard deviation that is not a number one can compute with.
    pub fn validate(&self) -> Result<(), PrepareError> {
        for (index, step) in self.steps.iter().enumerate() {
            for (field, side) in step.sides() {
                check_side(|| format!("steps[{index}].{field}"), side)?;
            }
        }
        if let Some(ZeroPad { width, height }) = self.zero_pad {
            check_side(|| "zero-pad.width".to_owned(), width)?;
            check_side(|| "zero-pad.height".to_owned(), height)?;
        }
        if !self.mean.iter().all(|value| value.is_finite()) {
            let (field, found) = ("mean".to_owned(), format!("{:?}", self.mean));
            return Err(PrepareError::InvalidConfig {
                field,
                found,
                expected: "finite numbers",
            });
        }
        if !self
            .std
            .iter()
            .all(|value| value.is_finite() && *value > 0.0)
        {
            let (field, found) = ("std".to_owned(), format!("{:?}", self.std));
            return Err(PrepareError::InvalidConfig {
                field,
                found,
                expected: "positive numbers",
            });
        }
        Ok(())
    }

    /// Width and height of the normalised picture with its zeros.
    fn canvas_for(&self, picture: &RgbImage) -> Result<(u32, u32), PrepareError> {
        let (width, height) = picture.size();
        match self.zero_pad {
            None => Ok((width, height)),
            Some(pad) if width <= pad.width && height <= pad.height => Ok((pad.width, pad.height)),
            Some(ZeroPad {
                width: pad_width,
                height: pad_height,
            }) => Err(PrepareError::DoesNotFit {
                width,
                height,
                pad_width,
                pad_height,
            }),
        }
    }

    /// The picture as planes of `height × width` floats, zeros where it has no pixels.
    fn normalise(&self, picture: &RgbImage, width: usize, height: usize) -> Vec<f32> {
        let tables: [[f32; 256]; 3] = std::array::from_fn(|channel| self.table(channel));
        let mut data = vec![0.0; CHANNELS * height * width];
        data.par_chunks_exact_mut(width)
            .enumerate()
            .for_each(|(line, out)| {
                let (channel, row) = (line / height, (line % height) as u32);
                if row < picture.height() {
                    let pixels = picture.row(row).chunks_exact(CHANNELS);
                    for (value, pixel) in out.iter_mut().zip(pixels) {
                        *value = tables[channel][usize::from(pixel[channel])];
                    }
                }
            });
        data
    }

    /// What each byte becomes in one channel, each operation rounded to `f32`.
    fn table(&self, channel: usize) -> [f32; 256] {
        let (mean, std) = (self.mean[channel] as f32, self.std[channel] as f32);
        std::array::from_fn(|byte| {
            let value = byte as f32;
            let scaled = match self.rescale {
                Rescale::Unit => value / 255.0,
                Rescale::Byte => value,
            };
            (scaled - mean) / std
        })
    }
}

impl Step {
    /// The sides that the step names, with the names of their fields.
    fn sides(self) -> Vec<(&'static str, u32)> {
        match self {
            Self::PadSquare { .. } => vec![],
            Self::Resize { width, height, .. } => vec![("width", width), ("height", height)],
            Self::ResizeShortest { side, .. }
            | Self::ResizeLongest { side, .. }
            | Self::CenterCrop { side, .. } => vec![("side", side)],
        }
    }

    /// The size that a picture of `width × height` is resized to; other steps keep the size.
    fn resized(self, (width, height): (u32, u32)) -> (u64, u64) {
        let (shorter, longer) = (width.min(height), width.max(height));
        let oriented = |shorter: u64, longer: u64| {
            if width <= height {
                (shorter, longer)
            } else {
                (longer, shorter)
            }
        };
        match self {
            Self::Resize { width, height, .. } => (u64::from(width), u64::from(height)),
            Self::ResizeShortest { side, .. } => {
                let side = u64::from(side);
                oriented(side, side * u64::from(longer) / u64::from(shorter))
            }
            Self::ResizeLongest { side, .. } => {
                let scale = f64::from(side) / f64::from(longer);
                let rounded = (f64::from(shorter) * scale + 0.5) as u64;
                oriented(rounded.max(1), u64::from(side))
            }
            Self::PadSquare { .. } | Self::CenterCrop { .. } => {
                (u64::from(width), u64::from(height))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::frame::Span;
    use super::*;
    use proptest::prelude::*;

    fn plain(steps: Vec<Step>) -> Preprocessor {
        Preprocessor {
            steps,
            rescale: Rescale::Unit,
            mean: [0.0; 3],
            std: [1.0; 3],
            zero_pad: None,
        }
    }

    fn dotted(width: u32, height: u32) -> RgbImage {
        let values = (0..width * height).flat_map(|i| [i as u8 + 1; 3]).collect();
        RgbImage::from_raw(width, height, values).unwrap()
    }

    fn reds(picture: &RgbImage) -> Vec<u8> {
        picture.data().iter().step_by(3).copied().collect()
    }

    #[test]
    fn the_border_has_the_colours_of_the_reference() {
        assert_eq!(pad_colour(CLIP_MEAN), [122, 116, 104]);
        assert_eq!(pad_colour(IMAGENET_MEAN), [123, 116, 103]);
        assert_eq!(pad_colour(HALF), [127, 127, 127]);
        assert_eq!(pad_colour(SAM_MEAN), [255, 255, 255]);
        assert_eq!(pad_colour([-1.0, f64::NAN, 0.0]), [0, 0, 0]);
    }

    #[test]
    fn the_odd_pixel_of_border_comes_last() {
        let padded = plain(vec![Step::PadSquare { colour: [0; 3] }]).apply_steps(&dotted(2, 3));
        assert_eq!(reds(&padded.unwrap()), [1, 2, 0, 3, 4, 0, 5, 6, 0]);
    }

    #[test]
    fn crops_begin_where_the_two_libraries_say() {
        let starts = |rounding| {
            [0, 1, 2, 3, 4, 5, 7].map(|surplus| Span::centred(10 + surplus, 10, rounding).start)
        };
        assert_eq!(starts(CropRounding::Down), [0, 0, 1, 1, 2, 2, 3]);
        assert_eq!(starts(CropRounding::Even), [0, 0, 1, 2, 2, 2, 4]);
        let borders = |rounding| {
            [0, 1, 2, 3].map(|missing| Span::centred(10 - missing, 10, rounding).border_before)
        };
        assert_eq!(borders(CropRounding::Down), [0, 1, 1, 2]);
        assert_eq!(borders(CropRounding::Even), [0, 0, 1, 1]);
    }

    #[test]
    fn a_small_picture_gets_a_black_border_from_a_crop() {
        let crop = Step::CenterCrop {
            side: 3,
            rounding: CropRounding::Even,
        };
        let cropped = plain(vec![crop]).apply_steps(&dotted(1, 4)).unwrap();
        assert_eq!(reds(&cropped), [0, 1, 0, 0, 2, 0, 0, 3, 0]);
    }

    #[test]
    fn proportions_are_kept_as_the_libraries_keep_them() {
        let filter = Filter::Bicubic;
        let shortest = Step::ResizeShortest { side: 56, filter };
        assert_eq!(shortest.resized((101, 47)), (120, 56));
        assert_eq!(shortest.resized((40, 90)), (56, 126));
        let longest = Step::ResizeLongest { side: 64, filter };
        assert_eq!(longest.resized((101, 47)), (64, 30));
        assert_eq!(longest.resized((1, 20_000)), (1, 64));
    }

    #[test]
    fn samples_are_rescaled_then_normalised() {
        let picture = RgbImage::from_raw(1, 1, vec![0, 51, 255]).unwrap();
        let pixels = prepare(&picture, &Preprocessor::siglip(1)).unwrap();
        assert_eq!(pixels.shape(), [1, 3, 1, 1]);
        assert_eq!(pixels.data(), [-1.0, (0.2_f32 - 0.5) / 0.5, 1.0]);
        let pixels = prepare(&picture, &Preprocessor::sam(1)).unwrap();
        assert_eq!(pixels.data()[0], -123.675_f32 / 58.395);
    }

    /// Transformers multiplies by 1/255 in double precision and then rounds; torchvision divides
    /// in single precision. Both give the same 256 numbers.
    #[test]
    fn both_ways_of_rescaling_agree() {
        for byte in 0..=255_u8 {
            let transformers = (f64::from(byte) * (1.0 / 255.0)) as f32;
            assert_eq!(transformers, f32::from(byte) / 255.0);
        }
    }

    #[test]
    fn zeros_go_to_the_right_and_the_bottom() {
        let mut preprocessor = plain(vec![]);
        preprocessor.mean = [-1.0; 3];
        preprocessor.zero_pad = Some(ZeroPad {
            width: 2,
            height: 2,
        });
        let black = RgbImage::filled(1, 1, [0; 3]).unwrap();
        let pixels = prepare(&black, &preprocessor).unwrap();
        assert_eq!(pixels.data()[..4], [1.0, 0.0, 0.0, 0.0]);
        assert!(matches!(
            prepare(&dotted(3, 1), &preprocessor),
            Err(PrepareError::DoesNotFit {
                width: 3,
                pad_width: 2,
                ..
            })
        ));
    }

    /// A thread of a picture goes through every chain of the reference, in little memory.
    #[test]
    fn extreme_proportions_are_prepared() {
        let chains = [
            Preprocessor::reference_clip(28),
            Preprocessor::reference_sam(32),
            Preprocessor::reference_imagenet_crop(32),
            Preprocessor::clip(28),
            Preprocessor::sam(32),
        ];
        for (width, height) in [(1, 20_000), (20_000, 1)] {
            let thread = RgbImage::filled(width, height, [200; 3]).unwrap();
            for chain in &chains {
                let pixels = prepare(&thread, chain).unwrap();
                assert!(matches!(pixels.shape(), [1, 3, 28, 28] | [1, 3, 32, 32]));
            }
        }
    }

    #[test]
    fn a_step_that_needs_too_much_memory_is_refused() {
        let thread = RgbImage::filled(1, 20_000, [0; 3]).unwrap();
        for steps in [
            vec![Step::PadSquare { colour: [0; 3] }],
            vec![Step::ResizeShortest {
                side: 300,
                filter: Filter::Bicubic,
            }],
            vec![Step::Resize {
                width: 65_535,
                height: 1,
                filter: Filter::Bicubic,
            }],
        ] {
            let error = prepare(&thread, &plain(steps)).unwrap_err();
            assert!(
                matches!(error, PrepareError::TooLarge { step: 0, .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn senseless_configurations_are_refused_by_name() {
        let message = |preprocessor: Preprocessor| preprocessor.validate().unwrap_err().to_string();
        assert!(message(Preprocessor::clip(0)).contains("`steps[0].side` is 0"));
        let mut clip = Preprocessor::clip(8);
        clip.std = [1.0, 0.0, 1.0];
        assert!(message(clip).contains("`std` is [1.0, 0.0, 1.0]"));
        let mut sam = Preprocessor::sam(8);
        sam.zero_pad = Some(ZeroPad {
            width: 8,
            height: 70_000,
        });
        assert!(message(sam).contains("`zero-pad.height` is 70000"));
        let mut dpt = Preprocessor::dpt(8);
        dpt.mean[2] = f64::NAN;
        assert!(message(dpt).contains("`mean`"));
    }

    #[test]
    fn a_preprocessor_survives_being_written_down() {
        let sam = Preprocessor::reference_sam(64);
        let text = serde_json::to_string(&sam).unwrap();
        assert!(text.contains(r#"{"step":"resize-longest","side":64,"filter":"bilinear"}"#));
        assert_eq!(serde_json::from_str::<Preprocessor>(&text).unwrap(), sam);
        let unknown = text.replace("\"side\"", "\"sides\"");
        assert!(serde_json::from_str::<Preprocessor>(&unknown).is_err());
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let filter = prop_oneof![
            Just(Filter::Nearest),
            Just(Filter::Box),
            Just(Filter::Bicubic)
        ];
        let rounding = prop_oneof![Just(CropRounding::Down), Just(CropRounding::Even)];
        (0..5, 1..20_u32, 1..20_u32, filter, rounding).prop_map(
            |(kind, side, height, filter, rounding)| match kind {
                0 => Step::PadSquare { colour: [9; 3] },
                1 => Step::Resize {
                    width: side,
                    height,
                    filter,
                },
                2 => Step::ResizeShortest { side, filter },
                3 => Step::ResizeLongest { side, filter },
                _ => Step::CenterCrop { side, rounding },
            },
        )
    }

    proptest! {
        /// Joining a resize with the crop behind it changes nothing.
        #[test]
        fn steps_at_once_equal_steps_one_by_one(
            steps in prop::collection::vec(any_step(), 0..5),
            width in 1..14_u32,
            height in 1..14_u32,
        ) {
            let picture = dotted(width, height);
            let at_once = plain(steps.clone()).apply_steps(&picture).unwrap();
            let one_by_one = steps
                .into_iter()
                .fold(picture, |picture, step| plain(vec![step]).apply_steps(&picture).unwrap());
            prop_assert_eq!(at_once, one_by_one);
        }
    }
}
