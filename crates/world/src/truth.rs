//! What is true about a picture of the world: the types that everything else reads.
//!
//! A picture is made from its truth and never the other way round, so every number here is exact.
//! Lengths are metres, angles radians. World coordinates: `x` to the right, `y` away from the
//! viewer, `z` up, the ground is `z = 0`. Camera coordinates follow OpenCV: `x` right, `y` down,
//! `z` forward, so `depth` is the camera `z`. Pixels count from the top left corner, and the centre
//! of the first pixel is at `(0.5, 0.5)`.

use serde::{Deserialize, Serialize};

/// Kinds of solid objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// A sphere.
    Ball,
    /// A cube.
    Cube,
    /// An upright cylinder.
    Cylinder,
    /// An upright cone.
    Cone,
    /// A pyramid on a square.
    Pyramid,
    /// A lying ring.
    Ring,
}

impl Shape {
    /// All kinds, in the order of the enum.
    pub const ALL: [Self; 6] = [
        Self::Ball,
        Self::Cube,
        Self::Cylinder,
        Self::Cone,
        Self::Pyramid,
        Self::Ring,
    ];

    /// Its name in sentences and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ball => "ball",
            Self::Cube => "cube",
            Self::Cylinder => "cylinder",
            Self::Cone => "cone",
            Self::Pyramid => "pyramid",
            Self::Ring => "ring",
        }
    }
}

/// Colours of objects, bars and text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "colours")]
pub enum Colour {
    Red,
    Green,
    Blue,
    Yellow,
    Orange,
    Purple,
    Cyan,
    Gray,
}

impl Colour {
    /// All colours, in the order of the enum.
    pub const ALL: [Self; 8] = [
        Self::Red,
        Self::Green,
        Self::Blue,
        Self::Yellow,
        Self::Orange,
        Self::Purple,
        Self::Cyan,
        Self::Gray,
    ];

    /// Its name in sentences and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Yellow => "yellow",
            Self::Orange => "orange",
            Self::Purple => "purple",
            Self::Cyan => "cyan",
            Self::Gray => "gray",
        }
    }
}

/// What a surface looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Material {
    /// Diffuse.
    Rubber,
    /// With a highlight.
    Metal,
}

impl Material {
    /// Both materials.
    pub const ALL: [Self; 2] = [Self::Rubber, Self::Metal];

    /// Its name in sentences and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rubber => "rubber",
            Self::Metal => "metal",
        }
    }
}

/// Two sizes that differ visibly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    /// About 0.35 m.
    Small,
    /// About 0.7 m.
    Large,
}

impl Size {
    /// Both sizes.
    pub const ALL: [Self; 2] = [Self::Small, Self::Large];

    /// Its name in sentences and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
        }
    }
}

/// A pinhole camera above the ground, looking along `+y` and down by `pitch`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Camera {
    /// Focal length in pixels.
    pub focal: f64,
    /// Principal point in pixels.
    pub centre: [f64; 2],
    /// Metres above the ground.
    pub height: f64,
    /// Downward angle of the optical axis.
    pub pitch: f64,
}

/// A rectangle in pixels, right and lower edges exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "a rectangle")]
pub struct Box2d {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

impl Box2d {
    /// The smallest one around two.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }
}

/// One solid object of a scene.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Kind.
    pub shape: Shape,
    /// Colour.
    pub colour: Colour,
    /// Surface.
    pub material: Material,
    /// Size class.
    pub size: Size,
    /// Centre of its bounding box in world coordinates.
    pub centre: [f64; 3],
    /// Its extent along its own axes: width, depth, height.
    pub extent: [f64; 3],
    /// Turn about the vertical axis.
    pub yaw: f64,
    /// Camera `z` of the centre.
    pub depth: f64,
    /// Tight box around the visible pixels.
    pub box2d: Box2d,
    /// Pixels of it that are visible.
    pub visible: u32,
    /// Pixels it would cover alone, inside the picture.
    pub covered: u32,
}

/// A scene and the size of its picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// The camera.
    pub camera: Camera,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// The objects; `Picture::mask` holds their index plus one.
    pub objects: Vec<Object>,
    /// Whether one object is seen through a long lens, so that nothing tells its size.
    #[serde(default)]
    pub close_up: bool,
}

impl Scene {
    /// Whether the picture tells which objects are small and which are large: it shows both, and
    /// through a long lens nothing else tells them apart.
    #[must_use]
    pub fn shows_sizes(&self) -> bool {
        let sizes = |wanted| self.objects.iter().any(|object| object.size == wanted);
        !self.close_up && sizes(Size::Small) && sizes(Size::Large)
    }
}

/// A rendered document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Document {
    /// One big word.
    Word {
        /// The word.
        text: String,
    },
    /// A few lines of words.
    Lines {
        /// From top to bottom.
        lines: Vec<String>,
    },
    /// Coloured labels with a word on each, from left to right or top to bottom.
    Labels {
        /// Background colour and text of each.
        labels: Vec<(Colour, String)>,
    },
    /// A table with a header row and a name in the first column.
    Table {
        /// Column names, the first column's included.
        header: Vec<String>,
        /// Name of a row and its numbers.
        rows: Vec<(String, Vec<u32>)>,
    },
}

/// A rendered chart: names, colours and whole-number values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// Kind of chart.
    pub kind: ChartKind,
    /// Title above it.
    pub title: String,
    /// Name, colour and value of each bar, point or slice (per cent for a pie), in drawing order.
    pub entries: Vec<(String, Colour, u32)>,
    /// Largest value of the axis.
    pub top: u32,
    /// Whether each value is also written at its mark.
    pub written: bool,
}

impl Chart {
    /// Whether values can be read: from an axis, or from what is written at the marks.
    #[must_use]
    pub fn shows_values(&self) -> bool {
        self.kind != ChartKind::Pie || self.written
    }
}

/// Kinds of charts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "their names say it")]
pub enum ChartKind {
    Bar,
    Line,
    Pie,
}

impl ChartKind {
    /// All kinds, in the order of the enum.
    pub const ALL: [Self; 3] = [Self::Bar, Self::Line, Self::Pie];

    /// Its name in sentences and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bar => "bar",
            Self::Line => "line",
            Self::Pie => "pie",
        }
    }
}

/// What a picture shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "truth", rename_all = "lowercase")]
pub enum Truth {
    /// Solid objects on the ground.
    Scene(Scene),
    /// Text.
    Document(Document),
    /// Numbers.
    Chart(Chart),
}

/// A letter in a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Letter {
    /// Which.
    pub letter: char,
    /// The box around its ink.
    pub ink: Box2d,
}

/// A word in a picture: letters without a space between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// Its letters.
    pub text: String,
    /// The box around its ink.
    pub ink: Box2d,
}

/// What a coloured area of a document or a chart stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// What it is.
    pub kind: MarkKind,
    /// Its colour.
    pub colour: Colour,
    /// Its value over the largest that the axis has, from 0 to 1; none if it has none.
    pub share: Option<f64>,
    /// What it is called, where the name stands below it.
    pub name: Option<String>,
}

/// Kinds of marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MarkKind {
    /// The ground of a label.
    Label,
    /// A bar.
    Bar,
    /// A point of a line chart.
    Point,
    /// A slice of a pie.
    Slice,
    /// The colour beside a name in a legend.
    Swatch,
}

/// What is where in a document or a chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    /// In the order of writing.
    pub letters: Vec<Letter>,
    /// In the order of writing, too.
    pub words: Vec<Word>,
    /// In the order of painting.
    pub marks: Vec<Mark>,
    /// Row-major: 0 where there is no mark, else its index plus one.
    pub covered: Vec<u8>,
}

/// A picture and what is true about it.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Its seed within the world.
    pub seed: u64,
    /// The pixels.
    pub pixels: opabinia_image::RgbImage,
    /// For scenes, row-major: 0 for the ground, else the object's index plus one.
    pub mask: Vec<u8>,
    /// For documents and charts, what is where.
    pub layout: Layout,
    /// What is true.
    pub truth: Truth,
}
