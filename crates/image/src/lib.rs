//! The one door for pictures: bytes to a checked RGB picture, resized, padded, normalised.
//!
//! Every picture that reaches a vision encoder takes the same three calls:
//!
//! ```
//! use opabinia_image::{ImageLimits, ImageSource, Preprocessor, RgbImage, load, prepare};
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("photo.png");
//! # RgbImage::filled(12, 8, [200, 100, 0])?.save_png(&path)?;
//!
//! let source: ImageSource = path.to_str().unwrap_or("-").parse()?;
//! let picture = load(&source, &ImageLimits::default())?;
//! let pixels = prepare(&picture, &Preprocessor::reference_clip(336))?;
//! assert_eq!(pixels.shape(), [1, 3, 336, 336]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What this crate decides:
//!
//! - **Nothing from outside may panic or eat the machine.** Sizes are checked from the header,
//!   before a pixel is decoded, against [`ImageLimits`], their only owner.
//! - **Parity to the last bit.** A vision encoder was trained on pictures that Pillow resized, and
//!   Pillow computes in fixed point. [`resize`] computes the same numbers, so that a difference
//!   between this program and the reference implementation of Cambrian-1 (arXiv 2406.16860) is
//!   never the picture's fault.
//! - **Preprocessing is data.** A [`Preprocessor`] is an ordered list of steps that can be written
//!   to and read from a configuration file.
//!
//! The crate knows no model and no tensor library; a [`PixelBatch`] is a plain buffer of `f32`.

mod canvas;
mod decode;
mod error;
mod limits;
mod looks;
mod pixels;
mod preprocess;
mod resample;
mod rgb;
mod source;

pub use decode::{LoadInfo, PictureFormat, Turn, load, load_with_info};
pub use error::{ImageError, PrepareError};
pub use limits::ImageLimits;
pub use looks::dhash;
pub use pixels::PixelBatch;
pub use preprocess::{
    CLIP_MEAN, CLIP_STD, CropRounding, HALF, IMAGENET_MEAN, IMAGENET_STD, Preprocessor, Rescale,
    SAM_MEAN, SAM_STD, Step, ZeroPad, pad_colour, prepare,
};
pub use resample::{Filter, resize};
pub use rgb::RgbImage;
pub use source::ImageSource;
