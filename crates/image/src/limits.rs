//! How large a picture may be: the one owner of these numbers.
//!
//! A hundred bytes of PNG can claim to be 60 000 × 60 000 pixels. The limits are therefore checked
//! against the header, before any pixel is decoded, and bytes are never read beyond their limit.

use serde::{Deserialize, Serialize};

use crate::error::ImageError;

/// Limits on a picture from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ImageLimits {
    /// Most pixels (`width · height`); flag `--max-image-pixels`.
    pub max_pixels: u64,
    /// Longest side in pixels; flag `--max-image-side`.
    pub max_side: u32,
    /// Most bytes of the encoded picture; flag `--max-image-bytes`.
    pub max_bytes: u64,
}

impl Default for ImageLimits {
    /// 178 956 970 pixels (the number at which Pillow refuses a picture as a "decompression
    /// bomb"), a side of 65 535 pixels (the longest that a JPEG can have), 256 MiB of file.
    fn default() -> Self {
        Self {
            max_pixels: 178_956_970,
            max_side: 65_535,
            max_bytes: 256 << 20,
        }
    }
}

impl ImageLimits {
    /// Refuses a picture whose header claims a size outside the limits.
    ///
    /// # Errors
    /// [`ImageError::ZeroSized`], [`ImageError::SideTooLong`], [`ImageError::TooManyPixels`].
    pub(crate) fn check_size(&self, name: &str, width: u32, height: u32) -> Result<(), ImageError> {
        let name = || name.to_owned();
        if width == 0 || height == 0 {
            return Err(ImageError::ZeroSized {
                name: name(),
                width,
                height,
            });
        }
        if width.max(height) > self.max_side {
            let limit = self.max_side;
            return Err(ImageError::SideTooLong {
                name: name(),
                width,
                height,
                limit,
            });
        }
        let pixels = u64::from(width) * u64::from(height);
        if pixels > self.max_pixels {
            let limit = self.max_pixels;
            return Err(ImageError::TooManyPixels {
                name: name(),
                width,
                height,
                pixels,
                limit,
            });
        }
        Ok(())
    }
}
