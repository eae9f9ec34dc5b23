//! A picture with a border that exists on paper only.
//!
//! Padding a picture of 1 × 20 000 pixels to a square makes 400 million pixels, nearly all of one
//! colour, only for the next step to shrink them. A [`Canvas`] remembers the border instead of
//! filling it, and resampling reads from the canvas.

use std::borrow::Cow;
use std::ops::Range;

use crate::rgb::{CHANNELS, RgbImage};

/// A rectangle of pixels within a larger picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) x: u32,
    pub(crate) y: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl Region {
    /// All of a picture of that size.
    pub(crate) fn whole(width: u32, height: u32) -> Self {
        Self {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    pub(crate) fn columns(&self) -> Range<u32> {
        self.x..self.x + self.width
    }

    pub(crate) fn rows(&self) -> Range<u32> {
        self.y..self.y + self.height
    }
}

/// A picture on a ground of one colour, which is at least as large as the picture.
pub(crate) struct Canvas<'a> {
    picture: Cow<'a, RgbImage>,
    width: u32,
    height: u32,
    left: u32,
    top: u32,
    ground: [u8; 3],
}

impl<'a> Canvas<'a> {
    /// A picture without a border.
    pub(crate) fn bare(picture: Cow<'a, RgbImage>) -> Self {
        let (width, height) = picture.size();
        Self {
            picture,
            width,
            height,
            left: 0,
            top: 0,
            ground: [0; 3],
        }
    }

    /// A picture of which the upper left pixel lies at column `left` and row `top` of a ground of
    /// `width × height` pixels.
    ///
    /// # Panics
    /// If the picture reaches beyond the ground: a mistake in this crate.
    pub(crate) fn around(
        picture: Cow<'a, RgbImage>,
        (width, height): (u32, u32),
        (left, top): (u32, u32),
        ground: [u8; 3],
    ) -> Self {
        assert!(
            left + picture.width() <= width && top + picture.height() <= height,
            "{picture:?} at ({left}, {top}) reaches beyond its ground of {width} × {height}"
        );
        Self {
            picture,
            width,
            height,
            left,
            top,
            ground,
        }
    }

    pub(crate) fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    pub(crate) fn height(&self) -> u32 {
        self.height
    }

    pub(crate) fn width(&self) -> u32 {
        self.width
    }

    pub(crate) fn ground(&self) -> [u8; 3] {
        self.ground
    }

    /// Columns that the picture covers.
    pub(crate) fn picture_columns(&self) -> Range<u32> {
        self.left..self.left + self.picture.width()
    }

    /// Rows that the picture covers.
    pub(crate) fn picture_rows(&self) -> Range<u32> {
        self.top..self.top + self.picture.height()
    }

    /// The colour at column `x`, row `y`.
    pub(crate) fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        match (x.checked_sub(self.left), y.checked_sub(self.top)) {
            (Some(x), Some(y)) => self.picture.pixel(x, y).unwrap_or(self.ground),
            _ => self.ground,
        }
    }

    /// Writes some columns of row `y` to `out`, `[columns, 3]`.
    pub(crate) fn copy_row(&self, y: u32, columns: Range<u32>, out: &mut [u8]) {
        let covered = overlap(&columns, &self.picture_columns());
        if covered.is_empty() || !self.picture_rows().contains(&y) {
            fill(out, self.ground);
            return;
        }
        let bytes = |from: u32, to: u32| (to - from) as usize * CHANNELS;
        let (before, rest) = out.split_at_mut(bytes(columns.start, covered.start));
        let (middle, after) = rest.split_at_mut(bytes(covered.start, covered.end));
        fill(before, self.ground);
        let row = self.picture.row(y - self.top);
        middle.copy_from_slice(&row[bytes(self.left, covered.start)..][..middle.len()]);
        fill(after, self.ground);
    }

    /// A part of the canvas as a picture.
    pub(crate) fn copy_region(&self, region: Region) -> RgbImage {
        let row_bytes = region.width as usize * CHANNELS;
        let mut data = vec![0; row_bytes * region.height as usize];
        for (out, y) in data.chunks_exact_mut(row_bytes).zip(region.rows()) {
            self.copy_row(y, region.columns(), out);
        }
        RgbImage::from_computed(region.width, region.height, data)
    }

    /// The whole canvas as a picture; without a border nothing is copied.
    pub(crate) fn into_picture(self) -> Cow<'a, RgbImage> {
        if self.picture.size() == self.size() {
            return self.picture;
        }
        Cow::Owned(self.copy_region(Region::whole(self.width, self.height)))
    }
}

/// What two ranges share; empty if nothing.
pub(crate) fn overlap(a: &Range<u32>, b: &Range<u32>) -> Range<u32> {
    a.start.max(b.start)..a.end.min(b.end)
}

fn fill(pixels: &mut [u8], colour: [u8; 3]) {
    for pixel in pixels.chunks_exact_mut(CHANNELS) {
        pixel.copy_from_slice(&colour);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One white pixel at column 1, row 1 of a 3 × 2 canvas of grey 9.
    fn dot() -> Canvas<'static> {
        let white = RgbImage::filled(1, 1, [255; 3]).unwrap();
        Canvas::around(Cow::Owned(white), (3, 2), (1, 1), [9; 3])
    }

    #[test]
    fn the_border_has_the_colour_of_the_ground() {
        let picture = dot().into_picture();
        let red: Vec<u8> = picture.data().iter().step_by(3).copied().collect();
        assert_eq!(red, [9, 9, 9, 9, 255, 9]);
    }

    #[test]
    fn pixels_and_rows_agree() {
        let canvas = dot();
        for y in 0..2 {
            let mut row = [0; 9];
            canvas.copy_row(y, 0..3, &mut row);
            for (x, pixel) in (0..3).zip(row.chunks_exact(3)) {
                assert_eq!(canvas.pixel(x, y), pixel);
            }
        }
    }

    #[test]
    fn a_region_may_miss_the_picture() {
        let region = Region {
            x: 2,
            y: 0,
            width: 1,
            height: 2,
        };
        assert_eq!(dot().copy_region(region).data(), [9; 6]);
    }
}
