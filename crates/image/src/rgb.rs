//! The picture type that everything else in this crate takes or gives.

use std::fmt;
use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use sha2::{Digest, Sha256};

use crate::error::ImageError;

/// Bytes of one pixel.
pub(crate) const CHANNELS: usize = 3;

/// A picture of 8-bit RGB pixels, row by row, upright, with at least one pixel.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    width: u32,
    height: u32,
    data: Vec<u8>,
}

impl RgbImage {
    /// Takes pixels laid out `[height, width, 3]`.
    ///
    /// # Errors
    /// [`ImageError::WrongBuffer`] if a side is zero or the number of bytes is not
    /// `width · height · 3`.
    pub fn from_raw(width: u32, height: u32, data: Vec<u8>) -> Result<Self, ImageError> {
        let expected = u64::from(width) * u64::from(height) * CHANNELS as u64;
        if expected == 0 || data.len() as u64 != expected {
            return Err(ImageError::WrongBuffer {
                width,
                height,
                found: data.len(),
            });
        }
        Ok(Self {
            width,
            height,
            data,
        })
    }

    /// A picture of one colour.
    ///
    /// # Errors
    /// [`ImageError::WrongBuffer`] if a side is zero.
    pub fn filled(width: u32, height: u32, colour: [u8; 3]) -> Result<Self, ImageError> {
        let pixels = width as usize * height as usize;
        Self::from_raw(width, height, colour.repeat(pixels))
    }

    /// Takes pixels that this crate has just computed, `[height, width, 3]`.
    ///
    /// # Panics
    /// If size and buffer disagree: a mistake in this crate.
    pub(crate) fn from_computed(width: u32, height: u32, data: Vec<u8>) -> Self {
        assert!(
            width > 0 && height > 0 && data.len() == width as usize * height as usize * CHANNELS,
            "a picture of {width} × {height} pixels was computed as {} bytes",
            data.len()
        );
        Self {
            width,
            height,
            data,
        }
    }

    /// Width in pixels, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// `(width, height)` in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// All pixels, `[height, width, 3]`.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// All pixels for writing, `[height, width, 3]`.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// Gives the pixels away, `[height, width, 3]`.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// One row of pixels, `[width, 3]`.
    ///
    /// # Panics
    /// If `y` is not below the height: a mistake in the caller's loop.
    pub fn row(&self, y: u32) -> &[u8] {
        let bytes = self.width as usize * CHANNELS;
        &self.data[y as usize * bytes..][..bytes]
    }

    /// The colour at column `x`, row `y`, or `None` outside the picture.
    pub fn pixel(&self, x: u32, y: u32) -> Option<[u8; 3]> {
        if x >= self.width || y >= self.height {
            return None;
        }
        let at = (y as usize * self.width as usize + x as usize) * CHANNELS;
        self.data.get(at..at + CHANNELS)?.try_into().ok()
    }

    /// A stable name for the content: SHA-256 of width, height (both 32-bit little-endian) and
    /// pixels, as 64 lower-case hexadecimal digits.
    ///
    /// Two files with the same pixels have the same hash, whatever their format and metadata.
    pub fn content_hash(&self) -> String {
        use fmt::Write;
        let mut hasher = Sha256::new();
        hasher.update(self.width.to_le_bytes());
        hasher.update(self.height.to_le_bytes());
        hasher.update(&self.data);
        hasher
            .finalize()
            .iter()
            .fold(String::with_capacity(64), |mut hex, byte| {
                // Writing to a string cannot fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            })
    }

    /// The picture as the bytes of a PNG file.
    ///
    /// # Errors
    /// [`ImageError::Encode`] if the encoder refuses, as it does beyond 2³¹ pixels a side.
    pub fn encode_png(&self) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes)
            .write_image(&self.data, self.width, self.height, ExtendedColorType::Rgb8)
            .map_err(|source| ImageError::Encode { source })?;
        Ok(bytes)
    }

    /// Writes the picture as a PNG file.
    ///
    /// # Errors
    /// [`ImageError::Encode`], or [`ImageError::Write`] if the file cannot be written.
    pub fn save_png(&self, path: impl AsRef<Path>) -> Result<(), ImageError> {
        let path = path.as_ref();
        std::fs::write(path, self.encode_png()?).map_err(|source| ImageError::Write {
            path: path.to_owned(),
            source,
        })
    }
}

impl fmt::Debug for RgbImage {
    /// The size only: millions of numbers help nobody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RgbImage({} × {})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_by_one() -> RgbImage {
        RgbImage::from_raw(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap()
    }

    #[test]
    fn pixels_are_row_major() {
        let picture = RgbImage::from_raw(1, 2, vec![1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(picture.pixel(0, 1), Some([4, 5, 6]));
        assert_eq!(picture.row(1), [4, 5, 6]);
        assert_eq!(picture.pixel(1, 0), None);
    }

    #[test]
    fn a_buffer_of_the_wrong_length_is_refused() {
        assert!(matches!(
            RgbImage::from_raw(2, 2, vec![0; 11]),
            Err(ImageError::WrongBuffer {
                width: 2,
                height: 2,
                found: 11
            })
        ));
        assert!(RgbImage::from_raw(0, 2, vec![]).is_err());
        assert!(RgbImage::filled(3, 0, [0; 3]).is_err());
    }

    /// The number is SHA-256 of the bytes `02000000 01000000 010203040506`.
    #[test]
    fn the_content_hash_is_stable() {
        assert_eq!(
            two_by_one().content_hash(),
            "f25af82c68d29a6c012779bae23ccc6e5640b399d8b0e0b4eddb25ea7f2a61dd"
        );
    }

    #[test]
    fn the_content_hash_sees_the_size() {
        let wide = RgbImage::filled(2, 1, [7; 3]).unwrap();
        let tall = RgbImage::filled(1, 2, [7; 3]).unwrap();
        assert_ne!(wide.content_hash(), tall.content_hash());
    }

    #[test]
    fn saving_into_a_missing_folder_names_the_path() {
        let error = two_by_one().save_png("/no/such/folder/a.png").unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot write picture `/no/such/folder/a.png`"
        );
    }
}
