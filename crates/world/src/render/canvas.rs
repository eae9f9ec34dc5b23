//! Flat drawing: rectangles, lines, discs, slices and letters with soft edges.
//!
//! Every shape is given by its signed distance in pixels (negative inside): a pixel whose centre is
//! half a pixel inside is fully covered, one that is half a pixel outside is not touched.

use std::f64::consts::PI;

use opabinia_image::RgbImage;

use crate::font::{self, Face};
use crate::render::noise::value_noise;
use crate::truth::{Box2d, Layout, Letter, Mark, Word};

/// How a text sits on its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// The point is its left end.
    Left,
    /// The point is its middle.
    Centre,
    /// The point is its right end.
    Right,
}

/// A face in a size and a colour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pen {
    pub face: Face,
    /// Pixels.
    pub em: f64,
    pub colour: [u8; 3],
}

impl Pen {
    /// How far it moves over a text, in pixels.
    pub fn width(&self, text: &str) -> f64 {
        font::width(self.face, self.em, text)
    }

    /// Height of capital letters, in pixels.
    pub fn capital_height(&self) -> f64 {
        font::capital_height(self.face, self.em)
    }
}

/// A picture that is being drawn on, and where what was drawn on it is.
#[derive(Clone, Debug)]
pub(crate) struct Canvas {
    picture: RgbImage,
    /// The box around the ink of each text, in the order of writing.
    written: Vec<(String, Box2d)>,
    letters: Vec<Letter>,
    words: Vec<Word>,
    marks: Vec<Mark>,
    /// For each pixel the mark that covers it, counted from one; 0 for none.
    covered: Vec<u8>,
    /// What is painted now belongs to this mark; 0 for none.
    current: u8,
}

impl Canvas {
    /// A square of one colour.
    ///
    /// # Panics
    /// If `side` is zero: pictures have at least the smallest of `SIDES`.
    pub fn new(side: u32, background: [u8; 3]) -> Self {
        Self {
            picture: RgbImage::filled(side, side, background)
                .expect("the side of a picture is above zero"),
            written: Vec::new(),
            letters: Vec::new(),
            words: Vec::new(),
            marks: Vec::new(),
            covered: vec![0; side as usize * side as usize],
            current: 0,
        }
    }

    /// What `paint` paints is a mark that means something. Text is never part of one.
    pub fn mark(&mut self, mark: Mark, paint: impl FnOnce(&mut Self)) {
        self.marks.push(mark);
        self.current = u8::try_from(self.marks.len()).unwrap_or(0);
        paint(self);
        self.current = 0;
    }

    /// Makes what is there lighter and darker in soft blotches, by at most `strength` of 255.
    pub fn mottle(&mut self, seed: u32, strength: f64) {
        let width = self.picture.width() as usize;
        let unit = width as f64 / 5.0;
        let pixels = self.picture.data_mut().chunks_exact_mut(3);
        for (at, pixel) in pixels.enumerate() {
            let (x, y) = ((at % width) as f64 / unit, (at / width) as f64 / unit);
            let change = strength * value_noise(seed, x, y);
            for channel in pixel {
                *channel = (f64::from(*channel) + change + 0.5).clamp(0.0, 255.0) as u8;
            }
        }
    }

    /// A rectangle with corners rounded by `radius` pixels.
    pub fn rectangle(&mut self, area: Box2d, radius: f64, colour: [u8; 3]) {
        let middle = [
            (area.left + area.right) / 2.0,
            (area.top + area.bottom) / 2.0,
        ];
        let half = [
            (area.right - area.left) / 2.0,
            (area.bottom - area.top) / 2.0,
        ];
        self.fill(area, colour, |x, y| {
            let dx = (x - middle[0]).abs() - half[0] + radius;
            let dy = (y - middle[1]).abs() - half[1] + radius;
            dx.max(0.0).hypot(dy.max(0.0)) + dx.max(dy).min(0.0) - radius
        });
    }

    /// A line with round ends, `width` pixels thick.
    pub fn line(&mut self, from: [f64; 2], to: [f64; 2], width: f64, colour: [u8; 3]) {
        let area = Box2d {
            left: from[0].min(to[0]) - width,
            top: from[1].min(to[1]) - width,
            right: from[0].max(to[0]) + width,
            bottom: from[1].max(to[1]) + width,
        };
        let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
        let squared = (dx * dx + dy * dy).max(1e-12);
        self.fill(area, colour, |x, y| {
            let along = ((x - from[0]) * dx + (y - from[1]) * dy) / squared;
            let along = along.clamp(0.0, 1.0);
            (x - from[0] - along * dx).hypot(y - from[1] - along * dy) - width / 2.0
        });
    }

    /// A disc.
    pub fn disc(&mut self, centre: [f64; 2], radius: f64, colour: [u8; 3]) {
        self.slice(centre, radius, [0.0, 2.0 * PI], colour);
    }

    /// A slice of a disc between two angles, in radians clockwise from the top.
    pub fn slice(&mut self, centre: [f64; 2], radius: f64, turn: [f64; 2], colour: [u8; 3]) {
        let area = Box2d {
            left: centre[0] - radius,
            top: centre[1] - radius,
            right: centre[0] + radius,
            bottom: centre[1] + radius,
        };
        let [(s0, c0), (s1, c1)] = turn.map(f64::sin_cos);
        let wide = turn[1] - turn[0];
        self.fill(area, colour, |x, y| {
            let (dx, dy) = (x - centre[0], y - centre[1]);
            let to_rim = dx.hypot(dy) - radius;
            if wide >= 2.0 * PI {
                return to_rim;
            }
            // Clockwise from the first edge, and anticlockwise from the second.
            let after_first = -(dx * c0 + dy * s0);
            let before_second = dx * c1 + dy * s1;
            let between = if wide <= PI {
                after_first.max(before_second)
            } else {
                after_first.min(before_second)
            };
            to_rim.max(between)
        });
    }

    /// Writes a text whose base line is at `point`, and says where its ink is.
    pub fn write(&mut self, pen: &Pen, text: &str, point: [f64; 2], align: Align) -> Box2d {
        let start = match align {
            Align::Left => point[0],
            Align::Centre => point[0] - pen.width(text) / 2.0,
            Align::Right => point[0] - pen.width(text),
        };
        let Some(line) = font::lay_out(pen.face, pen.em, text, start, point[1]) else {
            return Box2d {
                left: point[0],
                top: point[1],
                right: point[0],
                bottom: point[1],
            };
        };
        let mut letters = Vec::with_capacity(line.glyphs.len());
        for (letter, glyph) in line.glyphs {
            let corner = glyph.px_bounds().min;
            glyph.draw(|x, y, covered| {
                let (x, y) = (x as f32 + corner.x, y as f32 + corner.y);
                if x >= 0.0 && y >= 0.0 {
                    self.blend(x as u32, y as u32, pen.colour, f64::from(covered));
                }
            });
            let ink = font::bounds(&glyph);
            letters.push(Letter { letter, ink });
        }
        // Every letter leaves ink, and a space none.
        let mut inks = letters.iter().map(|letter| letter.ink);
        for word in text.split_whitespace() {
            if let Some(ink) = inks
                .by_ref()
                .take(word.chars().count())
                .reduce(Box2d::joined)
            {
                let text = word.to_owned();
                self.words.push(Word { text, ink });
            }
        }
        self.letters.append(&mut letters);
        self.written.push((text.to_owned(), line.ink));
        line.ink
    }

    /// Writes a text whose capitals are centred on `point`, and says where its ink is.
    pub fn write_centred(&mut self, pen: &Pen, text: &str, point: [f64; 2]) -> Box2d {
        let base = point[1] + pen.capital_height() / 2.0;
        self.write(pen, text, [point[0], base], Align::Centre)
    }

    /// The box around the ink of each text, in the order of writing.
    #[cfg(test)]
    pub fn written(&self) -> &[(String, Box2d)] {
        &self.written
    }

    /// The picture.
    #[cfg(test)]
    pub fn into_picture(self) -> RgbImage {
        self.picture
    }

    /// The picture, and what is where in it.
    pub fn finish(self) -> (RgbImage, Layout) {
        let layout = Layout {
            letters: self.letters,
            words: self.words,
            marks: self.marks,
            covered: self.covered,
        };
        (self.picture, layout)
    }

    /// Colours the pixels around `area` by how far inside `distance` says that they are.
    fn fill(&mut self, area: Box2d, colour: [u8; 3], distance: impl Fn(f64, f64) -> f64) {
        let (width, height) = self.picture.size();
        let first = |edge: f64| (edge - 1.0).max(0.0) as u32;
        let end = |edge: f64, limit: u32| ((edge + 2.0).max(0.0) as u32).min(limit);
        for y in first(area.top)..end(area.bottom, height) {
            for x in first(area.left)..end(area.right, width) {
                let covered = 0.5 - distance(f64::from(x) + 0.5, f64::from(y) + 0.5);
                if covered > 0.0 {
                    self.blend(x, y, colour, covered.min(1.0));
                }
                if covered >= 0.5
                    && let Some(mark) = self
                        .covered
                        .get_mut(y as usize * width as usize + x as usize)
                {
                    *mark = self.current;
                }
            }
        }
    }

    /// Lays `share` of a colour over a pixel; outside the picture nothing happens.
    fn blend(&mut self, x: u32, y: u32, colour: [u8; 3], share: f64) {
        let (width, height) = self.picture.size();
        if x >= width || y >= height {
            return;
        }
        let at = 3 * (y as usize * width as usize + x as usize);
        for (channel, colour) in self.picture.data_mut()[at..at + 3].iter_mut().zip(colour) {
            let old = f64::from(*channel);
            *channel = (old + (f64::from(colour) - old) * share + 0.5) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLACK: [u8; 3] = [0; 3];

    fn page() -> Canvas {
        Canvas::new(64, [255; 3])
    }

    fn black_pixels(canvas: Canvas) -> f64 {
        let picture = canvas.into_picture();
        let channels = picture.data().iter();
        channels
            .map(|channel| 1.0 - f64::from(*channel) / 255.0)
            .sum::<f64>()
            / 3.0
    }

    #[test]
    fn a_rectangle_covers_its_area_and_nothing_else() {
        let mut canvas = page();
        let area = Box2d {
            left: 10.0,
            top: 20.0,
            right: 30.0,
            bottom: 25.0,
        };
        canvas.rectangle(area, 0.0, BLACK);
        let picture = canvas.clone().into_picture();
        assert_eq!(picture.pixel(10, 20), Some(BLACK));
        assert_eq!(picture.pixel(9, 20), Some([255; 3]));
        assert_eq!(picture.pixel(29, 24), Some(BLACK));
        assert!((black_pixels(canvas) - 100.0).abs() < 1e-6);
    }

    #[test]
    fn slices_add_up_to_a_disc() {
        let disc = {
            let mut canvas = page();
            canvas.disc([32.0, 32.0], 20.0, BLACK);
            black_pixels(canvas)
        };
        assert!((disc - PI * 400.0).abs() < 10.0, "{disc}");
        let slice = |from: f64, to: f64| {
            let mut canvas = page();
            canvas.slice([32.0, 32.0], 20.0, [from, to], BLACK);
            black_pixels(canvas)
        };
        let (small, large) = (slice(0.0, 2.0), slice(2.0, 2.0 * PI));
        assert!((small / disc - 2.0 / (2.0 * PI)).abs() < 0.01, "{small}");
        assert!((small + large - disc).abs() < 12.0);
    }

    /// The first quarter, clockwise from the top, is upper right.
    #[test]
    fn angles_run_clockwise_from_the_top() {
        let mut canvas = page();
        canvas.slice([32.0, 32.0], 20.0, [0.0, PI / 2.0], BLACK);
        let picture = canvas.into_picture();
        assert_eq!(picture.pixel(40, 24), Some(BLACK));
        for (x, y) in [(24, 24), (24, 40), (40, 40)] {
            assert_eq!(picture.pixel(x, y), Some([255; 3]));
        }
    }

    #[test]
    fn ink_is_inside_the_box_that_write_gives() {
        let mut canvas = page();
        let pen = Pen {
            face: Face::Serif,
            em: 20.0,
            colour: BLACK,
        };
        let ink = canvas.write_centred(&pen, "fjord", [32.0, 32.0]);
        assert_eq!(canvas.written().len(), 1);
        let picture = canvas.into_picture();
        for y in 0..64 {
            for x in 0..64 {
                let inside = (ink.left..ink.right).contains(&f64::from(x))
                    && (ink.top..ink.bottom).contains(&f64::from(y));
                assert!(inside || picture.pixel(x, y) == Some([255; 3]));
            }
        }
    }

    #[test]
    fn drawing_over_the_edge_is_cut_off() {
        let mut canvas = page();
        canvas.line([-20.0, -20.0], [90.0, 90.0], 3.0, BLACK);
        assert!(black_pixels(canvas) > 100.0);
    }
}
