//! From bytes to a checked, upright RGB picture.
//!
//! The decisions, all of them those of Pillow's `Image.convert("RGB")` unless said otherwise:
//!
//! - Alpha is dropped, not composited: a transparent pixel shows whatever colour lies beneath it.
//! - Of 16-bit samples the high byte is taken. Pillow does so for 16-bit RGB; its 16-bit grey is
//!   clipped at 255, which turns nearly every such picture white, so here grey is treated as RGB
//!   is.
//! - CMYK is inverted and multiplied, `r = (255 − c)(255 − k) / 255`, as Pillow does. JPEG files
//!   store it inverted (Adobe's convention) whether or not they say so. TIFF's is rounded down
//!   where Pillow rounds to the nearest.
//! - Of an animation the first frame is taken.
//! - The orientation in EXIF or TIFF metadata is applied, so that the model sees what people see.
//!   (Pillow leaves it to the caller.) Broken metadata means "upright", not an error.
//! - Colour profiles are ignored.
//! - A JPEG without its end marker is cut off, as Pillow has it; decoders fill the rest with grey.

mod sniff;

use std::fmt;
use std::io::{Cursor, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::error::{UnsupportedError, UnsupportedErrorKind};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

use crate::error::ImageError;
use crate::limits::ImageLimits;
use crate::rgb::RgbImage;
use crate::source::ImageSource;
use sniff::Sniffed;

/// Memory a decoder may use beside the pixels: metadata, tables, rows in flight.
const DECODER_BYTES: u64 = 64 << 20;

/// The picture formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PictureFormat {
    /// Portable Network Graphics, 1 to 16 bits, grey, palette, RGB, with or without alpha.
    Png,
    /// JPEG, 8 bits, grey, RGB, CMYK.
    Jpeg,
    /// WebP, lossy and lossless.
    WebP,
    /// GIF.
    Gif,
    /// Windows bitmap.
    Bmp,
    /// TIFF, 8 and 16 bits, grey, RGB, CMYK.
    Tiff,
}

impl PictureFormat {
    fn codec(self) -> image::ImageFormat {
        match self {
            Self::Png => image::ImageFormat::Png,
            Self::Jpeg => image::ImageFormat::Jpeg,
            Self::WebP => image::ImageFormat::WebP,
            Self::Gif => image::ImageFormat::Gif,
            Self::Bmp => image::ImageFormat::Bmp,
            Self::Tiff => image::ImageFormat::Tiff,
        }
    }
}

impl fmt::Display for PictureFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        })
    }
}

/// How a picture was turned upright, by its EXIF orientation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Turn(Orientation);

impl Turn {
    /// The EXIF value, 1 (already upright) to 8.
    pub fn exif(self) -> u8 {
        self.0.to_exif()
    }

    /// Whether any pixel was moved.
    pub fn moved_pixels(self) -> bool {
        self.0 != Orientation::NoTransforms
    }
}

/// What was found and done while loading a picture, for `--verbose`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadInfo {
    /// What the picture is called in messages.
    pub name: String,
    /// Its format, decided by its bytes.
    pub format: PictureFormat,
    /// Encoded size.
    pub bytes: u64,
    /// Width in pixels as stored, before it was turned upright.
    pub stored_width: u32,
    /// Height in pixels as stored, before it was turned upright.
    pub stored_height: u32,
    /// Bits per sample as stored (of a palette: per index).
    pub bit_depth: u8,
    /// Whether there were pixels that were not opaque; alpha was dropped.
    pub had_alpha: bool,
    /// How it was turned upright.
    pub turn: Turn,
}

impl fmt::Display for LoadInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            format,
            bytes,
            stored_width,
            stored_height,
            bit_depth,
            ..
        } = self;
        write!(
            f,
            "{name}: {format}, {stored_width} × {stored_height} pixels, "
        )?;
        write!(f, "{bit_depth} bits per sample, {bytes} bytes")?;
        if self.turn.moved_pixels() {
            write!(
                f,
                ", turned upright (EXIF orientation {})",
                self.turn.exif()
            )?;
        }
        if self.had_alpha {
            write!(f, ", alpha dropped")?;
        }
        Ok(())
    }
}

/// Loads a picture.
///
/// # Errors
/// Any [`ImageError`] but those of writing: the source cannot be read, is not a picture, is over a
/// limit, or is damaged.
pub fn load(source: &ImageSource, limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    load_with_info(source, limits).map(|(picture, _)| picture)
}

/// Loads a picture and tells what was found and done.
///
/// # Errors
/// As [`load`].
pub fn load_with_info(
    source: &ImageSource,
    limits: &ImageLimits,
) -> Result<(RgbImage, LoadInfo), ImageError> {
    let bytes = source.read(limits)?;
    let file = Encoded {
        name: source.name(),
        format: recognise(source, &bytes)?,
        bytes: &bytes,
    };
    // The decoders are written not to panic, but they are large and the bytes are anybody's: one
    // bad picture must not take a server's thread with it. They share nothing with us that a panic
    // could leave half-changed.
    catch_unwind(AssertUnwindSafe(|| file.decode(limits))).unwrap_or_else(|_| {
        Err(ImageError::DecoderPanicked {
            name: file.name.clone(),
            format: file.format,
        })
    })
}

fn recognise(source: &ImageSource, bytes: &[u8]) -> Result<PictureFormat, ImageError> {
    let name = source.name();
    match sniff::sniff(bytes) {
        Sniffed::Supported(format) => Ok(format),
        Sniffed::Unsupported(format) => Err(ImageError::UnsupportedFormat { name, format }),
        Sniffed::Unknown => Err(ImageError::NotAPicture {
            name,
            start: sniff::describe_start(bytes),
        }),
    }
}

/// An encoded picture of known format.
struct Encoded<'a> {
    name: String,
    format: PictureFormat,
    bytes: &'a [u8],
}

impl Encoded<'_> {
    fn decode(&self, limits: &ImageLimits) -> Result<(RgbImage, LoadInfo), ImageError> {
        if let Some((width, height)) = self.png_size() {
            // The decoder reads on to the first pixels before it tells.
            limits.check_size(&self.name, width, height)?;
        }
        let mut decoder = self.open(limits)?;
        let (stored_width, stored_height) = decoder.dimensions();
        limits.check_size(&self.name, stored_width, stored_height)?;
        if self.format == PictureFormat::Jpeg && !sniff::jpeg_has_end(self.bytes) {
            return Err(self.truncated());
        }

        let mut codec_limits = Limits::no_limits();
        // Twice the pixels: CMYK in TIFF is larger than the RGB it becomes, and GIF has frames
        // beside the canvas.
        codec_limits.max_alloc = Some(decoder.total_bytes().saturating_mul(2) + DECODER_BYTES);
        decoder
            .set_limits(codec_limits)
            .map_err(|error| self.explain(error))?;
        let orientation = self.orientation(&mut decoder);
        let bit_depth = self.bit_depth(&decoder);

        let pixels = DynamicImage::from_decoder(decoder).map_err(|error| self.explain(error))?;
        let had_alpha = has_transparent_pixels(&pixels);
        let picture = upright(self.to_rgb8(pixels)?, orientation)?;
        let info = LoadInfo {
            name: self.name.clone(),
            format: self.format,
            bytes: self.bytes.len() as u64,
            stored_width,
            stored_height,
            bit_depth,
            had_alpha,
            turn: Turn(orientation),
        };
        Ok((picture, info))
    }

    /// The size in a PNG's header, which always stands first.
    fn png_size(&self) -> Option<(u32, u32)> {
        if self.format != PictureFormat::Png || self.bytes.get(12..16)? != b"IHDR" {
            return None;
        }
        let number = |at: usize| {
            let bytes = self.bytes.get(at..at + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().ok()?))
        };
        Some((number(16)?, number(20)?))
    }

    /// Reads the header, no pixels.
    fn open(&self, limits: &ImageLimits) -> Result<impl ImageDecoder, ImageError> {
        let mut header_limits = Limits::no_limits();
        // PNG allots its row buffers here: up to 8 bytes a pixel, one row and its predecessor.
        header_limits.max_alloc = Some(DECODER_BYTES + 16 * u64::from(limits.max_side));
        let mut reader = ImageReader::with_format(Cursor::new(self.bytes), self.format.codec());
        reader.limits(header_limits);
        reader.into_decoder().map_err(|error| self.explain(error))
    }

    /// The orientation in the metadata; upright if there is none or it cannot be read.
    fn orientation(&self, decoder: &mut impl ImageDecoder) -> Orientation {
        let found = if self.format == PictureFormat::Tiff {
            decoder.orientation().ok()
        } else {
            decoder.exif_metadata().ok().flatten().and_then(|exif| {
                // Some writers keep JPEG's prefix where the format has none.
                let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(&exif);
                Orientation::from_exif_chunk(exif)
            })
        };
        found.unwrap_or(Orientation::NoTransforms)
    }

    /// Bits per sample as stored. The PNG decoder widens palettes and small greys before it
    /// reports a type, so there the header is asked: IHDR keeps the depth in byte 24 of the file.
    fn bit_depth(&self, decoder: &impl ImageDecoder) -> u8 {
        if self.format == PictureFormat::Png
            && let Some(&depth) = self.bytes.get(24)
        {
            return depth;
        }
        let colour = decoder.original_color_type();
        let bits = colour.bits_per_pixel() / u16::from(colour.channel_count()).max(1);
        u8::try_from(bits).unwrap_or(u8::MAX)
    }

    fn to_rgb8(&self, pixels: DynamicImage) -> Result<image::RgbImage, ImageError> {
        let (width, height) = (pixels.width(), pixels.height());
        let rgb: Vec<u8> = match pixels {
            DynamicImage::ImageRgb8(rgb) => return Ok(rgb),
            DynamicImage::ImageLuma8(grey) => grey.iter().flat_map(|&v| [v; 3]).collect(),
            DynamicImage::ImageLumaA8(grey) => grey.pixels().flat_map(|p| [p.0[0]; 3]).collect(),
            DynamicImage::ImageRgba8(rgba) => {
                rgba.pixels().flat_map(|p| first_three(p.0)).collect()
            }
            DynamicImage::ImageLuma16(grey) => {
                grey.iter().flat_map(|&v| [high_byte(v); 3]).collect()
            }
            DynamicImage::ImageLumaA16(grey) => {
                grey.pixels().flat_map(|p| [high_byte(p.0[0]); 3]).collect()
            }
            DynamicImage::ImageRgb16(rgb) => rgb.iter().map(|&v| high_byte(v)).collect(),
            DynamicImage::ImageRgba16(rgba) => rgba
                .pixels()
                .flat_map(|p| first_three(p.0.map(high_byte)))
                .collect(),
            other => {
                // Floating point: no range is agreed upon, so any conversion would be a guess.
                return Err(self.unsupported(format!("samples of type {:?}", other.color())));
            }
        };
        image::RgbImage::from_raw(width, height, rgb).ok_or_else(|| self.truncated())
    }

    /// Sorts a decoder's error into ours.
    fn explain(&self, error: image::ImageError) -> ImageError {
        match error {
            image::ImageError::Unsupported(kind) => self.unsupported(kind_text(&kind)),
            error if is_cut_off(&error) => self.truncated(),
            source => ImageError::Decode {
                name: self.name.clone(),
                format: self.format,
                source,
            },
        }
    }

    fn unsupported(&self, kind: String) -> ImageError {
        ImageError::UnsupportedKind {
            name: self.name.clone(),
            format: self.format,
            kind,
        }
    }

    fn truncated(&self) -> ImageError {
        ImageError::Truncated {
            name: self.name.clone(),
            format: self.format,
        }
    }
}

/// The short form of what a decoder does not support.
fn kind_text(error: &UnsupportedError) -> String {
    match error.kind() {
        UnsupportedErrorKind::Color(colour) => format!("colour type {colour:?}"),
        UnsupportedErrorKind::GenericFeature(feature) => feature,
        _ => error.to_string(),
    }
}

/// Whether the decoder met the end of the data before the end of the picture.
fn is_cut_off(error: &image::ImageError) -> bool {
    // This variant passes over the error it holds when asked for its source.
    if let image::ImageError::IoError(io) = error {
        return io.kind() == ErrorKind::UnexpectedEof;
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == ErrorKind::UnexpectedEof)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

fn upright(rgb: image::RgbImage, orientation: Orientation) -> Result<RgbImage, ImageError> {
    let mut picture = DynamicImage::ImageRgb8(rgb);
    picture.apply_orientation(orientation);
    let rgb = picture.into_rgb8();
    RgbImage::from_raw(rgb.width(), rgb.height(), rgb.into_raw())
}

fn has_transparent_pixels(pixels: &DynamicImage) -> bool {
    match pixels {
        DynamicImage::ImageLumaA8(p) => p.pixels().any(|p| p.0[1] != u8::MAX),
        DynamicImage::ImageRgba8(p) => p.pixels().any(|p| p.0[3] != u8::MAX),
        DynamicImage::ImageLumaA16(p) => p.pixels().any(|p| p.0[1] != u16::MAX),
        DynamicImage::ImageRgba16(p) => p.pixels().any(|p| p.0[3] != u16::MAX),
        _ => false,
    }
}

fn high_byte(sample: u16) -> u8 {
    sample.to_be_bytes()[0]
}

fn first_three([red, green, blue, _]: [u8; 4]) -> [u8; 3] {
    [red, green, blue]
}
