//! Boxes in pictures, in the pure colours that questions name.

use opabinia_image::RgbImage;

use crate::geometry::Box2;
use crate::rules::LineRules;

/// A colour that a question can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Red,
    Blue,
    Green,
}

impl Colour {
    fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [255, 0, 0],
            Self::Blue => [0, 0, 255],
            Self::Green => [0, 255, 0],
        }
    }
}

/// A box that is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mark {
    pub place: Box2,
    pub colour: Colour,
}

/// Draws boxes; the line lies inside the box, and later boxes over earlier ones.
pub(crate) fn mark(picture: &mut RgbImage, marks: &[Mark], line: &LineRules) {
    let (width, height) = picture.size();
    let wide = (line.share * f64::from(width.min(height))).round() as u32;
    let wide = wide.max(line.min);
    for mark in marks {
        outline(picture, mark, wide);
    }
}

fn outline(picture: &mut RgbImage, mark: &Mark, wide: u32) {
    let (width, height) = picture.size();
    // A box has been cut off at the edges, so these are pixels of the picture.
    let pixel = |value: f64, end: u32| (value.max(0.0) as u32).min(end.saturating_sub(1));
    let Box2 {
        left,
        top,
        right,
        bottom,
    } = mark.place;
    let columns = pixel(left.floor(), width)..=pixel(right.ceil() - 1.0, width);
    let rows = pixel(top.floor(), height)..=pixel(bottom.ceil() - 1.0, height);
    let near = |value: u32, range: &std::ops::RangeInclusive<u32>| {
        value - range.start() < wide || range.end() - value < wide
    };
    let data = picture.data_mut();
    for row in rows.clone() {
        for column in columns.clone() {
            if near(row, &rows) || near(column, &columns) {
                let at = 3 * (row as usize * width as usize + column as usize);
                if let Some(pixel) = data.get_mut(at..at + 3) {
                    pixel.copy_from_slice(&mark.colour.rgb());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A box of 6 × 5 pixels with a line of 2: 30 pixels less the 2 × 1 in the middle.
    #[test]
    fn the_line_lies_inside() {
        let mut picture = RgbImage::filled(10, 10, [9; 3]).unwrap();
        let place = Box2::within([2.0, 3.0, 8.0, 8.0], 10, 10).unwrap();
        let marks = [Mark {
            place,
            colour: Colour::Blue,
        }];
        mark(&mut picture, &marks, &LineRules::default());
        let blue = picture
            .data()
            .chunks(3)
            .filter(|pixel| *pixel == [0, 0, 255]);
        assert_eq!(blue.count(), 28);
        assert_eq!(picture.pixel(2, 3), Some([0, 0, 255]));
        assert_eq!(picture.pixel(7, 7), Some([0, 0, 255]));
        assert_eq!(picture.pixel(4, 5), Some([9; 3]));
        assert_eq!(picture.pixel(8, 8), Some([9; 3]));
    }

    #[test]
    fn boxes_of_a_whole_picture_and_of_a_pixel() {
        let mut picture = RgbImage::filled(4, 3, [0; 3]).unwrap();
        for corners in [[0.0, 0.0, 4.0, 3.0], [3.5, 2.5, 4.0, 3.0]] {
            let place = Box2::within(corners, 4, 3).unwrap();
            let marks = [Mark {
                place,
                colour: Colour::Green,
            }];
            mark(&mut picture, &marks, &LineRules::default());
        }
        assert_eq!(picture.pixel(3, 2), Some([0, 255, 0]));
    }
}
