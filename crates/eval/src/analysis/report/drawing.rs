//! A drawing: shapes in a rectangle, before it is SVG or pixels.
//!
//! One list of paths, circles and texts serves both; whoever draws a plot knows nothing of file
//! formats. Coordinates are CSS pixels, y downwards.

use super::text;

/// A place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub x: f64,
    pub y: f64,
}

/// `Point { x, y }` for short.
pub(super) fn at(x: f64, y: f64) -> Point {
    Point { x, y }
}

/// A colour by its role, so that a page can be light or dark.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Paint {
    /// Text and axes.
    Ink,
    /// Less important text.
    Soft,
    /// Lines of a grid.
    Line,
    /// Every second row.
    Band,
    /// What lies under everything.
    Paper,
    /// The colour of the n-th group or family.
    Series(usize),
    /// Always this one: red, green, blue.
    Fixed([u8; 3]),
}

/// How a shape is painted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Style {
    pub fill: Option<Paint>,
    /// Of the fill, from 0 to 1.
    pub opacity: f64,
    pub stroke: Option<Paint>,
    pub width: f64,
    pub dashed: bool,
}

impl Style {
    pub fn fill(paint: Paint) -> Self {
        Self {
            fill: Some(paint),
            opacity: 1.0,
            stroke: None,
            width: 0.0,
            dashed: false,
        }
    }

    pub fn stroke(paint: Paint, width: f64) -> Self {
        Self {
            fill: None,
            stroke: Some(paint),
            width,
            ..Self::fill(paint)
        }
    }

    pub fn opacity(self, opacity: f64) -> Self {
        Self { opacity, ..self }
    }

    pub fn outlined(self, paint: Paint, width: f64) -> Self {
        Self {
            stroke: Some(paint),
            width,
            ..self
        }
    }

    pub fn dashed(self) -> Self {
        Self {
            dashed: true,
            ..self
        }
    }
}

/// Which part of a text lies at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A line of text; its place is on the base line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text {
    pub place: Point,
    pub text: String,
    pub size: f64,
    pub bold: bool,
    pub anchor: Anchor,
    pub paint: Paint,
    /// Degrees clockwise about the place.
    pub turn: f64,
    /// Whether it keeps what lies under it at a distance.
    pub halo: bool,
}

impl Text {
    pub fn new(place: Point, text: impl Into<String>) -> Self {
        Self {
            place,
            text: text.into(),
            size: text::SIZE,
            bold: false,
            anchor: Anchor::Start,
            paint: Paint::Ink,
            turn: 0.0,
            halo: false,
        }
    }

    pub fn soft(self) -> Self {
        Self {
            paint: Paint::Soft,
            ..self
        }
    }

    pub fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    pub fn middle(self) -> Self {
        Self {
            anchor: Anchor::Middle,
            ..self
        }
    }

    pub fn end(self) -> Self {
        Self {
            anchor: Anchor::End,
            ..self
        }
    }

    pub fn paint(self, paint: Paint) -> Self {
        Self { paint, ..self }
    }

    pub fn size(self, size: f64) -> Self {
        Self { size, ..self }
    }

    pub fn turned(self, turn: f64) -> Self {
        Self { turn, ..self }
    }

    pub fn halo(self) -> Self {
        Self { halo: true, ..self }
    }
}

/// What can be drawn.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    Path {
        points: Vec<Point>,
        closed: bool,
        style: Style,
        /// What a pointer over it shows.
        hover: Option<String>,
    },
    Circle {
        centre: Point,
        radius: f64,
        style: Style,
        hover: Option<String>,
    },
    Text(Text),
}

/// Shapes in a rectangle, the first ones lowest.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Drawing {
    pub width: f64,
    pub height: f64,
    /// What it shows, for those who cannot see it.
    pub title: String,
    pub shapes: Vec<Shape>,
}

impl Drawing {
    pub fn new(width: f64, height: f64, title: impl Into<String>) -> Self {
        Self {
            width,
            height,
            title: title.into(),
            shapes: Vec::new(),
        }
    }

    pub fn text(&mut self, text: Text) {
        self.shapes.push(Shape::Text(text));
    }

    pub fn line(&mut self, from: Point, to: Point, style: Style) {
        self.path(vec![from, to], style);
    }

    pub fn path(&mut self, points: Vec<Point>, style: Style) {
        self.shapes.push(Shape::Path {
            points,
            closed: false,
            style,
            hover: None,
        });
    }

    pub fn polygon(&mut self, points: Vec<Point>, style: Style, hover: Option<String>) {
        self.shapes.push(Shape::Path {
            points,
            closed: true,
            style,
            hover,
        });
    }

    /// A rectangle by its upper left corner.
    pub fn rect(
        &mut self,
        corner: Point,
        width: f64,
        height: f64,
        style: Style,
        hover: Option<String>,
    ) {
        let Point { x, y } = corner;
        let corners = [
            (x, y),
            (x + width, y),
            (x + width, y + height),
            (x, y + height),
        ];
        self.polygon(corners.map(|(x, y)| at(x, y)).to_vec(), style, hover);
    }

    pub fn circle(&mut self, centre: Point, radius: f64, style: Style, hover: Option<String>) {
        self.shapes.push(Shape::Circle {
            centre,
            radius,
            style,
            hover,
        });
    }

    /// Coloured dots with what they mean, in one or more lines from a place to the right edge; gives
    /// how much height they took.
    pub fn legend(&mut self, place: Point, entries: &[(Paint, String)]) -> f64 {
        const LINE: f64 = 20.0;
        let (mut x, mut y) = (place.x, place.y);
        for (paint, name) in entries {
            let width = 28.0 + text::width(name, text::SIZE, false);
            if x + width > self.width && x > place.x {
                x = place.x;
                y += LINE;
            }
            self.circle(at(x + 6.0, y), 5.0, Style::fill(*paint), None);
            self.text(Text::new(at(x + 15.0, y + 4.5), name.clone()));
            x += width;
        }
        y + LINE - place.y
    }
}
