//! Drawings as pixels: the same shapes, filled with smooth edges on white.

use std::path::Path;

use ab_glyph_rasterizer::{Rasterizer, point};

use super::drawing::{Anchor, Drawing, Paint, Point, Shape, Style, Text, at};
use super::palette::{LIGHT, Rgb};
use super::text::{self, Curve};
use crate::analysis::error::AnalysisError;

/// Pixels for each CSS pixel, so that a plot is sharp on a slide.
const SCALE: f64 = 2.0;

/// Writes a drawing as a PNG file.
pub(super) fn write(drawing: &Drawing, path: &Path) -> Result<(), AnalysisError> {
    let picture = Picture::of(drawing);
    let file = std::fs::File::create(path).map_err(AnalysisError::write(path))?;
    let mut encoder = png::Encoder::new(
        std::io::BufWriter::new(file),
        picture.width as u32,
        picture.height as u32,
    );
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let encoded = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(picture.pixels.as_flattened())?;
        writer.finish()
    });
    encoded.map_err(|source| AnalysisError::Picture {
        path: path.to_owned(),
        source,
    })
}

struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<Rgb>,
}

impl Picture {
    fn of(drawing: &Drawing) -> Self {
        let side = |length: f64| ((length * SCALE).ceil() as usize).clamp(1, 20_000);
        let (width, height) = (side(drawing.width), side(drawing.height));
        let mut picture = Self {
            width,
            height,
            pixels: vec![LIGHT.paper; width * height],
        };
        for shape in &drawing.shapes {
            picture.shape(shape);
        }
        picture
    }

    fn shape(&mut self, shape: &Shape) {
        match shape {
            Shape::Path {
                points,
                closed,
                style,
                ..
            } => self.painted(points, *closed, style),
            Shape::Circle {
                centre,
                radius,
                style,
                ..
            } => self.painted(&circle(*centre, *radius), true, style),
            Shape::Text(text) => self.text(text),
        }
    }

    fn painted(&mut self, points: &[Point], closed: bool, style: &Style) {
        if let Some(paint) = style.fill {
            let mut outline = Outline::default();
            outline.polygon(points);
            self.fill(&outline, paint, style.opacity);
        }
        if let Some(paint) = style.stroke {
            let mut line = points.to_vec();
            if closed {
                line.extend(points.first().copied());
            }
            let mut outline = Outline::default();
            for part in if style.dashed {
                dashes(&line)
            } else {
                vec![line]
            } {
                outline.stroke(&part, style.width);
            }
            self.fill(&outline, paint, 1.0);
        }
    }

    fn text(&mut self, text: &Text) {
        let width = text::width(&text.text, text.size, text.bold);
        let start = match text.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => -width / 2.0,
            Anchor::End => -width,
        };
        let (sine, cosine) = text.turn.to_radians().sin_cos();
        let curves = text::outlines(&text.text, text.size, text.bold);
        let outline = |dx: f64, dy: f64| {
            let place = |(x, y): (f64, f64)| {
                let x = x + start;
                at(
                    text.place.x + cosine * x - sine * y + dx,
                    text.place.y + sine * x + cosine * y + dy,
                )
            };
            let mut outline = Outline::default();
            outline.curves(&curves, place);
            outline
        };
        if text.halo {
            for step in 0..8 {
                let (dy, dx) = (f64::from(step) * std::f64::consts::FRAC_PI_4).sin_cos();
                self.fill(&outline(1.5 * dx, 1.5 * dy), Paint::Paper, 1.0);
            }
        }
        self.fill(&outline(0.0, 0.0), text.paint, 1.0);
    }

    /// Blends a colour where an outline covers pixels.
    fn fill(&mut self, outline: &Outline, paint: Paint, opacity: f64) {
        let colour = LIGHT.colour(paint);
        let Some((left, top, width, height)) = outline.bounds() else {
            return;
        };
        let mut rasterizer = Rasterizer::new(width, height);
        for (from, to) in &outline.lines {
            let place = |p: &Point| {
                point(
                    (p.x * SCALE - left as f64) as f32,
                    (p.y * SCALE - top as f64) as f32,
                )
            };
            rasterizer.draw_line(place(from), place(to));
        }
        rasterizer.for_each_pixel_2d(|x, y, coverage| {
            let (x, y) = (left + i64::from(x), top + i64::from(y));
            let inside =
                (0..self.width as i64).contains(&x) && (0..self.height as i64).contains(&y);
            if inside && coverage > 0.0 {
                let pixel = &mut self.pixels[y as usize * self.width + x as usize];
                blend(pixel, colour, f64::from(coverage.min(1.0)) * opacity);
            }
        });
    }
}

fn blend(pixel: &mut Rgb, colour: Rgb, share: f64) {
    for (below, above) in pixel.iter_mut().zip(colour) {
        let mixed = f64::from(*below) + share * (f64::from(above) - f64::from(*below));
        *below = mixed.round() as u8;
    }
}

/// Directed lines around what is to be filled; parts that overlap turn the same way.
#[derive(Default)]
struct Outline {
    lines: Vec<(Point, Point)>,
}

impl Outline {
    fn polygon(&mut self, points: &[Point]) {
        let next = points.iter().cycle().skip(1);
        self.lines.extend(points.iter().copied().zip(next.copied()));
    }

    /// A line of some width, round at its corners and ends.
    fn stroke(&mut self, points: &[Point], width: f64) {
        let half = width / 2.0;
        for pair in points.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            let length = (to.x - from.x).hypot(to.y - from.y);
            if length > 0.0 {
                let (dx, dy) = (
                    half * (to.x - from.x) / length,
                    half * (to.y - from.y) / length,
                );
                self.polygon(&[
                    at(from.x + dy, from.y - dx),
                    at(to.x + dy, to.y - dx),
                    at(to.x - dy, to.y + dx),
                    at(from.x - dy, from.y + dx),
                ]);
            }
        }
        let corners = points.get(1..points.len().saturating_sub(1)).unwrap_or(&[]);
        for corner in corners.iter().filter(|_| width > 1.0) {
            self.polygon(&circle(*corner, half));
        }
    }

    fn curves(&mut self, curves: &[Curve], place: impl Fn((f64, f64)) -> Point) {
        const STEPS: u32 = 6;
        for curve in curves {
            let at_part = |t: f64| match curve {
                Curve::Line(points) => bezier(points, t),
                Curve::Quad(points) => bezier(points, t),
                Curve::Cubic(points) => bezier(points, t),
            };
            let steps = if matches!(curve, Curve::Line(_)) {
                1
            } else {
                STEPS
            };
            let part = |step: u32| place(at_part(f64::from(step) / f64::from(steps)));
            self.lines
                .extend((0..steps).map(|step| (part(step), part(step + 1))));
        }
    }

    /// Left, top, width and height in pixels, a pixel wider than needed on each side.
    fn bounds(&self) -> Option<(i64, i64, usize, usize)> {
        let ends = || self.lines.iter().flat_map(|(from, to)| [from, to]);
        let low = |value: fn(&Point) -> f64| ends().map(value).fold(f64::INFINITY, f64::min);
        let high = |value: fn(&Point) -> f64| ends().map(value).fold(f64::NEG_INFINITY, f64::max);
        let (x, y) = (|p: &Point| p.x * SCALE, |p: &Point| p.y * SCALE);
        let (left, top) = (low(x).floor() - 1.0, low(y).floor() - 1.0);
        let (width, height) = (high(x).ceil() + 2.0 - left, high(y).ceil() + 2.0 - top);
        let drawable = |size: f64| size.is_finite() && size < 100_000.0;
        (drawable(width) && drawable(height)).then_some((
            left as i64,
            top as i64,
            width as usize,
            height as usize,
        ))
    }
}

/// A point on a Bézier curve, after de Casteljau.
fn bezier<const N: usize>(points: &[(f64, f64); N], t: f64) -> (f64, f64) {
    let mut left = *points;
    for round in 1..N {
        for i in 0..N - round {
            left[i].0 += t * (left[i + 1].0 - left[i].0);
            left[i].1 += t * (left[i + 1].1 - left[i].1);
        }
    }
    left[0]
}

/// A polygon that nobody can tell from a circle, turning the way of [`Outline::stroke`].
fn circle(centre: Point, radius: f64) -> Vec<Point> {
    const CORNERS: u32 = 48;
    let corner = |i: u32| {
        let (sine, cosine) = (std::f64::consts::TAU * f64::from(i) / f64::from(CORNERS)).sin_cos();
        at(centre.x + radius * cosine, centre.y + radius * sine)
    };
    (0..CORNERS).map(corner).collect()
}

/// The parts of a line that a pattern of 4 on and 3 off leaves.
fn dashes(line: &[Point]) -> Vec<Vec<Point>> {
    const ON: f64 = 4.0;
    const BOTH: f64 = 7.0;
    let mut parts = Vec::new();
    for pair in line.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let length = (to.x - from.x).hypot(to.y - from.y);
        let along = |s: f64| {
            let t = (s / length).min(1.0);
            at(from.x + t * (to.x - from.x), from.y + t * (to.y - from.y))
        };
        let starts = (0..)
            .map(|i| f64::from(i) * BOTH)
            .take_while(|s| *s < length);
        parts.extend(starts.map(|start| vec![along(start), along(start + ON)]));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixel(picture: &Picture, x: f64, y: f64) -> Rgb {
        picture.pixels[(y * SCALE) as usize * picture.width + (x * SCALE) as usize]
    }

    #[test]
    fn shapes_cover_what_they_should() {
        let mut drawing = Drawing::new(100.0, 40.0, "");
        let ink = LIGHT.ink;
        drawing.rect(at(10.0, 10.0), 10.0, 10.0, Style::fill(Paint::Ink), None);
        drawing.circle(at(40.0, 15.0), 6.0, Style::stroke(Paint::Ink, 2.0), None);
        drawing.path(
            vec![at(60.0, 5.0), at(60.0, 25.0), at(90.0, 25.0)],
            Style::stroke(Paint::Ink, 4.0),
        );
        // Beyond the edge nothing happens.
        drawing.rect(
            at(-50.0, 30.0),
            60.0,
            99.0,
            Style::fill(Paint::Ink).opacity(0.5),
            None,
        );
        let picture = Picture::of(&drawing);
        assert_eq!((picture.width, picture.height), (200, 80));
        assert_eq!(pixel(&picture, 15.0, 15.0), ink);
        assert_eq!(pixel(&picture, 5.0, 15.0), LIGHT.paper);
        assert_eq!(
            pixel(&picture, 40.0, 15.0),
            LIGHT.paper,
            "inside of the ring"
        );
        assert_eq!(pixel(&picture, 40.0, 8.7), ink, "the ring");
        for (x, y) in [(60.0, 12.0), (60.0, 25.0), (80.0, 25.0)] {
            assert_eq!(pixel(&picture, x, y), ink, "the line at {x}, {y}");
        }
        let mixed = pixel(&picture, 5.0, 35.0)[0];
        assert!(mixed > ink[0] && mixed < LIGHT.paper[0]);
    }

    #[test]
    fn text_is_dark_and_turns() {
        let dark = |turn: f64| {
            let mut drawing = Drawing::new(60.0, 60.0, "");
            drawing.text(Text::new(at(30.0, 30.0), "HHH").turned(turn).halo());
            let picture = Picture::of(&drawing);
            let dark = |y: f64| (0..60).any(|x| pixel(&picture, f64::from(x), y)[0] < 100);
            (dark(26.0), dark(5.0))
        };
        assert_eq!(dark(0.0), (true, false));
        assert_eq!(dark(-90.0), (true, true));
    }

    #[test]
    fn dashes_leave_gaps() {
        let parts = dashes(&[at(0.0, 0.0), at(10.0, 0.0)]);
        assert_eq!(
            parts,
            [[at(0.0, 0.0), at(4.0, 0.0)], [at(7.0, 0.0), at(10.0, 0.0)]]
        );
    }
}
