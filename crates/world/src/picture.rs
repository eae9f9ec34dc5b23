//! From a seed to a picture: the one door to everything that the world can draw.

use opabinia_image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::truth::{ChartKind, Layout, Picture, Truth};
use crate::{chart, document, scene, stream::stream};

/// The smallest and the largest side of a picture in pixels.
///
/// Below, neither objects nor letters can be told apart; above, a seed would cost gigabytes.
pub const SIDES: std::ops::RangeInclusive<u32> = 64..=2048;

/// The fewest and the most objects that a scene may be allowed.
pub const OBJECTS: std::ops::RangeInclusive<usize> = 1..=8;

/// How a picture is drawn, whatever it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureOptions {
    /// Width and height in pixels; [`draw`] takes the nearest of [`SIDES`]. Everything in a picture
    /// grows with its side.
    pub side: u32,
    /// Most objects in a scene; [`draw`] takes the nearest of [`OBJECTS`]. A picture of few things is
    /// an easier one: the fewer they are, the more of it each fills.
    pub objects: usize,
}

impl Default for PictureOptions {
    fn default() -> Self {
        Self {
            side: 256,
            objects: *OBJECTS.end(),
        }
    }
}

/// What a picture is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// Solid objects on the ground.
    Scene,
    /// One solid object that fills most of the picture.
    #[serde(rename = "close_up")]
    CloseUp,
    /// One big word.
    Word,
    /// A few lines of words.
    Lines,
    /// Coloured labels.
    Labels,
    /// A small table of numbers.
    Table,
    /// A bar chart.
    Bar,
    /// A line chart.
    Line,
    /// A pie chart.
    Pie,
}

impl Subject {
    /// All subjects, in the order of the enum.
    pub const ALL: [Self; 9] = [
        Self::Scene,
        Self::CloseUp,
        Self::Word,
        Self::Lines,
        Self::Labels,
        Self::Table,
        Self::Bar,
        Self::Line,
        Self::Pie,
    ];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scene => "scene",
            Self::CloseUp => "close_up",
            Self::Word => "word",
            Self::Lines => "lines",
            Self::Labels => "labels",
            Self::Table => "table",
            Self::Bar => "bar",
            Self::Line => "line",
            Self::Pie => "pie",
        }
    }
}

/// Draws the picture of `subject` that belongs to `seed`, and says what is true about it.
///
/// A pure function: the same arguments give the same bytes.
pub fn draw(seed: u64, subject: Subject, options: &PictureOptions) -> Picture {
    let side = options.side.clamp(*SIDES.start(), *SIDES.end());
    let objects = options.objects.clamp(*OBJECTS.start(), *OBJECTS.end());
    let mut rng = stream(seed, subject.name(), 0);
    let flat =
        |(pixels, layout, truth): (RgbImage, Layout, Truth)| (pixels, Vec::new(), layout, truth);
    let solid = |(pixels, mask, truth): (RgbImage, Vec<u8>, Truth)| {
        (pixels, mask, Layout::default(), truth)
    };
    let (pixels, mask, layout, truth) = match subject {
        Subject::Scene => solid(scene::draw(&mut rng, side, objects)),
        Subject::CloseUp => solid(scene::draw_close_up(&mut rng, side)),
        Subject::Word => flat(document::draw_word(&mut rng, side)),
        Subject::Lines => flat(document::draw_lines(&mut rng, side)),
        Subject::Labels => flat(document::draw_labels(&mut rng, side)),
        Subject::Table => flat(document::draw_table(&mut rng, side)),
        Subject::Bar => flat(chart::draw(&mut rng, side, ChartKind::Bar)),
        Subject::Line => flat(chart::draw(&mut rng, side, ChartKind::Line)),
        Subject::Pie => flat(chart::draw(&mut rng, side, ChartKind::Pie)),
    };
    Picture {
        seed,
        pixels,
        mask,
        layout,
        truth,
    }
}
