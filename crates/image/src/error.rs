//! What can go wrong between a name of a picture and its pixels.
//!
//! Every message says what was being done, what was found and what to do about it; a limit is
//! named with the flag that raises it.

use std::path::PathBuf;

use crate::decode::PictureFormat;

/// Why a picture could not be loaded or written.
///
/// `name` is how the person who gave the picture would call it: a path in backquotes, "standard
/// input", "the data URL".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The picture was named by an address on the web, which this crate does not fetch.
    #[error("cannot load image `{url}`: web addresses are not fetched; download the file first")]
    RemoteUrl {
        /// The address as given.
        url: String,
    },
    /// The name of the picture was an empty string.
    #[error(
        "cannot load an image from an empty name; give a path, `-` for standard input or a data URL"
    )]
    EmptyName,
    /// A data URL that does not have the form `data:image/…;base64,…`.
    #[error("cannot read the data URL `{start}`: {problem}; expected `data:image/png;base64,…`")]
    MalformedDataUrl {
        /// The first characters of the URL.
        start: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The file or stream could not be read.
    #[error("cannot read image {name}")]
    Read {
        /// The picture.
        name: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The path is a folder.
    #[error("cannot load image {name}: it is a folder; name one file in it")]
    IsDirectory {
        /// The picture.
        name: String,
    },
    /// There was not a single byte.
    #[error("cannot load image {name}: it is empty (0 bytes)")]
    Empty {
        /// The picture.
        name: String,
    },
    /// More encoded bytes than [`ImageLimits::max_bytes`](crate::ImageLimits::max_bytes).
    #[error(
        "cannot use image {name}: it has more than {limit} bytes; raise `--max-image-bytes` if you trust it"
    )]
    TooManyBytes {
        /// The picture.
        name: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// More pixels than [`ImageLimits::max_pixels`](crate::ImageLimits::max_pixels).
    #[error(
        "cannot use image {name}: {width} × {height} = {pixels} pixels, limit is {limit}; \
         pass `--max-image-pixels {pixels}` if you trust it"
    )]
    TooManyPixels {
        /// The picture.
        name: String,
        /// Its width in pixels, as its header says.
        width: u32,
        /// Its height in pixels, as its header says.
        height: u32,
        /// `width · height`.
        pixels: u64,
        /// The limit in pixels.
        limit: u64,
    },
    /// A side longer than [`ImageLimits::max_side`](crate::ImageLimits::max_side).
    #[error(
        "cannot use image {name}: {width} × {height} pixels, longest side allowed is {limit}; \
         raise `--max-image-side` if you trust it"
    )]
    SideTooLong {
        /// The picture.
        name: String,
        /// Its width in pixels, as its header says.
        width: u32,
        /// Its height in pixels, as its header says.
        height: u32,
        /// The limit in pixels.
        limit: u32,
    },
    /// A picture without area.
    #[error(
        "cannot use image {name}: its size is {width} × {height} pixels, so there is nothing to see"
    )]
    ZeroSized {
        /// The picture.
        name: String,
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
    },
    /// The bytes are not those of any picture format that we know of.
    #[error(
        "cannot load image {name}: this is not a picture but looks like {start}; \
         give a PNG, JPEG, WebP, GIF, BMP or TIFF file"
    )]
    NotAPicture {
        /// The picture.
        name: String,
        /// A description of the first bytes.
        start: String,
    },
    /// A picture, but in a format that is not read.
    #[error(
        "cannot load image {name}: {format} is not supported; \
         convert it to PNG, JPEG, WebP, GIF, BMP or TIFF"
    )]
    UnsupportedFormat {
        /// The picture.
        name: String,
        /// The format that was recognised.
        format: &'static str,
    },
    /// A known format in a variant that is not read (colour type, bit depth, compression).
    #[error(
        "cannot load image {name}: this kind of {format} is not supported ({kind}); save it as 8-bit RGB PNG"
    )]
    UnsupportedKind {
        /// The picture.
        name: String,
        /// Its format.
        format: PictureFormat,
        /// What is not supported.
        kind: String,
    },
    /// The data ends before the picture does.
    #[error(
        "cannot decode image {name} as {format}: the data is cut off; fetch or save the file again"
    )]
    Truncated {
        /// The picture.
        name: String,
        /// Its format.
        format: PictureFormat,
    },
    /// The data is damaged.
    #[error(
        "cannot decode image {name} as {format}: the data is damaged; fetch or save the file again"
    )]
    Decode {
        /// The picture.
        name: String,
        /// Its format.
        format: PictureFormat,
        /// What the decoder said.
        #[source]
        source: image::ImageError,
    },
    /// The decoder gave up on damaged data in a way that is its own fault.
    #[error(
        "cannot decode image {name} as {format}: the decoder gave up on damaged data; fetch or save the file again"
    )]
    DecoderPanicked {
        /// The picture.
        name: String,
        /// Its format.
        format: PictureFormat,
    },
    /// Pixels that do not fit the size they were said to have.
    #[error(
        "cannot make a picture of {width} × {height} pixels from {found} bytes; \
         expected {width} · {height} · 3 bytes and no side of zero"
    )]
    WrongBuffer {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Number of bytes given.
        found: usize,
    },
    /// A picture could not be encoded.
    #[error("cannot encode a picture as PNG")]
    Encode {
        /// What the encoder said.
        #[source]
        source: image::ImageError,
    },
    /// A picture could not be written.
    #[error("cannot write picture `{}`", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
}

/// Why a picture could not be prepared for an encoder, or prepared pictures not be put together.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// A value in the preprocessing configuration makes no sense.
    #[error("preprocessing configuration: `{field}` is {found}, expected {expected}")]
    InvalidConfig {
        /// Where in the configuration, e.g. `steps[1].width`.
        field: String,
        /// The value found.
        found: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// A step would make a picture that no memory holds.
    #[error(
        "preprocessing a picture of {from_width} × {from_height} pixels: `steps[{step}]` would make \
         {to_width} × {to_height} pixels, more than {limit}; crop the picture or pad it to a square first"
    )]
    TooLarge {
        /// Index of the step.
        step: usize,
        /// Width before the step.
        from_width: u32,
        /// Height before the step.
        from_height: u32,
        /// Width after the step.
        to_width: u64,
        /// Height after the step.
        to_height: u64,
        /// Largest number of pixels between two steps.
        limit: u64,
    },
    /// The picture is larger than the canvas of zeros that it is to be put on.
    #[error(
        "preprocessing: a picture of {width} × {height} pixels does not fit `zero-pad` of \
         {pad_width} × {pad_height}; resize it with `resize-longest` first"
    )]
    DoesNotFit {
        /// Width of the picture in pixels.
        width: u32,
        /// Height of the picture in pixels.
        height: u32,
        /// Width of the canvas.
        pad_width: u32,
        /// Height of the canvas.
        pad_height: u32,
    },
    /// Nothing to stack.
    #[error("cannot stack zero pictures into a batch")]
    EmptyBatch,
    /// Pictures of different sizes in one batch.
    #[error(
        "cannot stack pictures into a batch: picture 0 is {first_width} × {first_height}, \
         picture {index} is {width} × {height}; use a preprocessor with a fixed output size"
    )]
    DifferentSizes {
        /// Width of the first picture in pixels.
        first_width: usize,
        /// Height of the first picture in pixels.
        first_height: usize,
        /// Which picture differs.
        index: usize,
        /// Its width in pixels.
        width: usize,
        /// Its height in pixels.
        height: usize,
    },
    /// Pixels that do not fit the shape they were said to have.
    #[error(
        "cannot make a pixel batch of shape [{batch}, 3, {height}, {width}] from {found} values"
    )]
    WrongBuffer {
        /// Pictures.
        batch: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// Number of values given.
        found: usize,
    },
}
