//! Dense labels: what is in each cell of a grid over a picture.
//!
//! What segmentation, depth and text detection give an encoder to learn from (the paper compares
//! encoders that were taught so: SAM, MiDaS), from the truth of the world. A label map has several
//! *planes*; each says one thing about every cell as the number of a class, or leaves it open
//! ([`IGNORE`]) where the question makes no sense, such as the material of a letter.
//!
//! On disk a map is one PNG with the planes below each other, in the order of `labels.json`
//! ([`describe`]); grey, but for planes of more classes than a byte has values
//! ([`PlaneDescription::wide`]).

use opabinia_image::{ImageError, RgbImage};
use serde::{Deserialize, Serialize};

use crate::truth::{
    Colour, Layout, MarkKind, Material, Object, Picture, Scene, Shape, Size, Truth, Word,
};
use crate::words::{VOCABULARY, place_in_vocabulary};

/// Cells of a map, both ways.
pub const CELLS: usize = 32;
/// A cell that a plane says nothing about.
pub const IGNORE: u16 = u16::MAX;
/// How a plane of few classes writes that.
const IGNORE_BYTE: u8 = u8::MAX;
/// An object or a mark owns a cell from this share of its pixels on.
const LEAST_SHARE: f64 = 0.25;
/// Depths are told apart in steps of a constant ratio between these, in metres.
const DEPTHS: [f64; 2] = [1.5, 20.0];
const DEPTH_STEPS: usize = 24;
/// Steps of a mark's share of its axis.
const SHARE_STEPS: usize = 20;
/// What is written in pictures.
const LETTERS: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Kinds of marks in the order of their classes.
const MARKS: [(MarkKind, &str); 5] = [
    (MarkKind::Label, "label"),
    (MarkKind::Bar, "bar"),
    (MarkKind::Point, "point"),
    (MarkKind::Slice, "slice"),
    (MarkKind::Swatch, "swatch"),
];

/// What a plane says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plane {
    Kind,
    Colour,
    Material,
    Size,
    Depth,
    Middle,
    LetterLeft,
    LetterRight,
    Share,
    Row,
    Column,
    Word,
}

const PLANES: [Plane; 12] = [
    Plane::Kind,
    Plane::Colour,
    Plane::Material,
    Plane::Size,
    Plane::Depth,
    Plane::Middle,
    Plane::LetterLeft,
    Plane::LetterRight,
    Plane::Share,
    Plane::Row,
    Plane::Column,
    Plane::Word,
];

impl Plane {
    fn name(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Colour => "colour",
            Self::Material => "material",
            Self::Size => "size",
            Self::Depth => "depth",
            Self::Middle => "middle",
            Self::LetterLeft => "letter in the left half",
            Self::LetterRight => "letter in the right half",
            Self::Share => "share of the axis",
            Self::Row => "row",
            Self::Column => "column",
            Self::Word => "word",
        }
    }

    fn classes(self) -> Vec<String> {
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        match self {
            Self::Kind => {
                let shapes = Shape::ALL.iter().map(|shape| shape.name());
                let marks = MARKS.iter().map(|(_, name)| *name);
                owned(["nothing"].into_iter().chain(shapes).chain(marks).collect())
            }
            Self::Colour => owned(Colour::ALL.iter().map(|colour| colour.name()).collect()),
            Self::Material => owned(
                Material::ALL
                    .iter()
                    .map(|material| material.name())
                    .collect(),
            ),
            Self::Size => owned(Size::ALL.iter().map(|size| size.name()).collect()),
            Self::Depth => {
                let ratio = DEPTHS[1] / DEPTHS[0];
                let start = |i: usize| DEPTHS[0] * ratio.powf(i as f64 / DEPTH_STEPS as f64);
                (0..DEPTH_STEPS)
                    .map(|i| format!("from {:.2} m", start(i)))
                    .collect()
            }
            Self::Middle => owned(vec!["no", "yes"]),
            Self::LetterLeft | Self::LetterRight => {
                let letters = LETTERS.chars().map(String::from);
                ["none".to_owned()].into_iter().chain(letters).collect()
            }
            Self::Row | Self::Column => (0..CELLS).map(|i| i.to_string()).collect(),
            Self::Word => VOCABULARY.clone(),
            Self::Share => (0..=SHARE_STEPS)
                .map(|i| format!("{:.2}", i as f64 / SHARE_STEPS as f64))
                .collect(),
        }
    }

    /// What it says of a cell that shows nothing of interest.
    fn empty(self) -> u16 {
        match self {
            Self::Kind | Self::Middle | Self::LetterLeft | Self::LetterRight => 0,
            Self::Colour | Self::Material | Self::Size | Self::Depth | Self::Share => IGNORE,
            // Filled in where something is.
            Self::Row | Self::Column | Self::Word => IGNORE,
        }
    }

    /// Whether it has more classes than a byte has values.
    fn is_wide(self) -> bool {
        self == Self::Word
    }

    /// The class of cells that show nothing of interest, where there is one.
    fn background(self) -> Option<u16> {
        Some(self.empty()).filter(|class| *class != IGNORE)
    }
}

/// The content of `labels.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Rows of cells.
    pub rows: usize,
    /// Columns of cells.
    pub cols: usize,
    /// Value of a cell that a plane says nothing about.
    pub ignore: u8,
    /// The planes from top to bottom.
    pub planes: Vec<PlaneDescription>,
}

/// A plane in `labels.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaneDescription {
    /// What it says.
    pub name: String,
    /// Names of the values from 0.
    pub classes: Vec<String>,
    /// The value of cells that show nothing of interest, which are most; none if there is none.
    pub background: Option<u16>,
    /// Whether a value is red plus 256 times green of its pixel, and 65535 where nothing is said; else it is
    /// red, and 255.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wide: bool,
}

/// What the maps of the world say.
pub fn describe() -> Description {
    let plane = |plane: &Plane| PlaneDescription {
        name: plane.name().to_owned(),
        classes: plane.classes(),
        background: plane.background(),
        wide: plane.is_wide(),
    };
    Description {
        rows: CELLS,
        cols: CELLS,
        ignore: IGNORE_BYTE,
        planes: PLANES.iter().map(plane).collect(),
    }
}

/// The label map of a picture as a picture of [`CELLS`] columns, planes below each other; grey, but for wide
/// planes ([`PlaneDescription::wide`]).
///
/// # Errors
/// None for pictures that [`crate::draw`] gave.
pub fn label_map(picture: &Picture) -> Result<RgbImage, ImageError> {
    let mut map = Map::new();
    match &picture.truth {
        Truth::Scene(scene) => map.solids(picture, scene),
        Truth::Document(_) | Truth::Chart(_) => map.layout(&picture.layout, picture.pixels.size()),
    }
    map.places();
    let planes = PLANES.iter().zip(map.values.chunks(CELLS * CELLS));
    let pixels = planes.flat_map(|(plane, values)| {
        let pixel = |value: &u16| match (value.to_le_bytes(), plane.is_wide()) {
            ([low, high], true) => [low, high, 0],
            ([low, 0], false) => [low; 3],
            _ => [IGNORE_BYTE; 3],
        };
        values.iter().flat_map(pixel)
    });
    let pixels = pixels.collect();
    RgbImage::from_raw(CELLS as u32, (PLANES.len() * CELLS) as u32, pixels)
}

struct Map {
    /// Planes, rows, columns.
    values: Vec<u16>,
}

impl Map {
    fn new() -> Self {
        let planes = PLANES.iter();
        let values = planes.flat_map(|plane| [plane.empty(); CELLS * CELLS]);
        Self {
            values: values.collect(),
        }
    }

    fn set(&mut self, plane: Plane, cell: usize, class: usize) {
        let at = Self::index(plane, cell);
        if let Some(value) = at.and_then(|at| self.values.get_mut(at)) {
            *value = u16::try_from(class).unwrap_or(IGNORE);
        }
    }

    /// Says of every cell that shows something where it is.
    fn places(&mut self) {
        for cell in 0..CELLS * CELLS {
            let shown = [Plane::Kind, Plane::LetterLeft, Plane::LetterRight];
            let shown = shown.iter().any(|plane| self.get(*plane, cell) > 0);
            if shown || self.get(Plane::Word, cell) != IGNORE {
                self.set(Plane::Row, cell, cell / CELLS);
                self.set(Plane::Column, cell, cell % CELLS);
            }
        }
    }

    fn index(plane: Plane, cell: usize) -> Option<usize> {
        let start = PLANES.iter().position(|other| *other == plane)?;
        Some(start * CELLS * CELLS + cell)
    }

    fn get(&self, plane: Plane, cell: usize) -> u16 {
        let value = Self::index(plane, cell).and_then(|at| self.values.get(at));
        value.copied().unwrap_or(IGNORE)
    }

    fn solids(&mut self, picture: &Picture, scene: &Scene) {
        let owners = Owners::of(&picture.mask, picture.pixels.size());
        for (cell, owner) in owners.cells() {
            if let Some(object) = scene.objects.get(owner) {
                self.object(cell, object, scene);
            }
        }
        for (cell, owner) in owners.middles() {
            if let Some(object) = scene.objects.get(owner) {
                self.object(cell, object, scene);
                self.set(Plane::Middle, cell, 1);
            }
        }
    }

    /// A close-up tells no distance, and not every picture tells sizes.
    fn object(&mut self, cell: usize, object: &Object, scene: &Scene) {
        self.set(Plane::Kind, cell, 1 + object.shape as usize);
        self.set(Plane::Colour, cell, object.colour as usize);
        self.set(Plane::Material, cell, object.material as usize);
        if scene.shows_sizes() {
            self.set(Plane::Size, cell, object.size as usize);
        }
        if !scene.close_up {
            self.set(Plane::Depth, cell, depth_step(object.depth));
        }
    }

    fn layout(&mut self, layout: &Layout, size: (u32, u32)) {
        let owners = Owners::of(&layout.covered, size);
        for (cell, owner) in owners.cells().chain(owners.middles()) {
            if let Some(mark) = layout.marks.get(owner) {
                let kind = MARKS.iter().position(|(kind, _)| *kind == mark.kind);
                let first = 1 + Shape::ALL.len();
                self.set(Plane::Kind, cell, first + kind.unwrap_or_default());
                self.set(Plane::Colour, cell, mark.colour as usize);
                if let Some(name) = &mark.name {
                    self.word(cell, name);
                }
                if let Some(share) = mark.share {
                    let step = (share.clamp(0.0, 1.0) * SHARE_STEPS as f64).round();
                    self.set(Plane::Share, cell, step as usize);
                }
            }
        }
        for (cell, _) in owners.middles() {
            self.set(Plane::Middle, cell, 1);
        }
        for word in &layout.words {
            self.written(word, size);
        }
        // Backwards, so that of two letters in one half of a cell the first stays.
        for letter in layout.letters.iter().rev() {
            let Some(class) = LETTERS.chars().position(|other| other == letter.letter) else {
                continue;
            };
            let x = (letter.ink.left + letter.ink.right) / 2.0 / f64::from(size.0);
            let y = (letter.ink.top + letter.ink.bottom) / 2.0 / f64::from(size.1);
            if (0.0..1.0).contains(&x) && (0.0..1.0).contains(&y) {
                let half = (x * 2.0 * CELLS as f64) as usize;
                let cell = (y * CELLS as f64) as usize * CELLS + half / 2;
                let plane = if half.is_multiple_of(2) {
                    Plane::LetterLeft
                } else {
                    Plane::LetterRight
                };
                self.set(plane, cell, 1 + class);
            }
        }
    }

    /// Says of a cell which word it shows.
    fn word(&mut self, cell: usize, written: &str) {
        if let Some(class) = place_in_vocabulary(written) {
            self.set(Plane::Word, cell, class);
        }
    }

    /// A word owns the cells that it covers enough of, and the one of its middle.
    fn written(&mut self, word: &Word, size: (u32, u32)) {
        let cells = |[from, to]: [f64; 2], side: u32| {
            let [from, to] = [from, to].map(|at| at / f64::from(side) * CELLS as f64);
            let middle = ((from + to) / 2.0).clamp(0.0, (CELLS - 1) as f64) as usize;
            let covered = move |cell: &usize| {
                let start = *cell as f64;
                let share = to.min(start + 1.0) - from.max(start);
                share >= 0.5 || *cell == middle
            };
            ((0..CELLS).filter(covered).collect::<Vec<_>>(), middle)
        };
        let (cols, col) = cells([word.ink.left, word.ink.right], size.0);
        let (rows, row) = cells([word.ink.top, word.ink.bottom], size.1);
        for row in rows {
            for col in &cols {
                self.word(row * CELLS + col, &word.text);
            }
        }
        self.set(Plane::Middle, row * CELLS + col, 1);
    }
}

fn depth_step(depth: f64) -> usize {
    let share = (depth / DEPTHS[0]).ln() / (DEPTHS[1] / DEPTHS[0]).ln();
    let step = (share * DEPTH_STEPS as f64).floor();
    step.clamp(0.0, (DEPTH_STEPS - 1) as f64) as usize
}

/// What is in each cell, from a mask with 0 for nothing and an index plus one.
struct Owners {
    /// For each cell the index of what owns it.
    owners: Vec<Option<usize>>,
    /// For each index the cell where its visible pixels have their middle; none if it has none.
    middles: Vec<Option<usize>>,
}

impl Owners {
    fn of(mask: &[u8], (width, height): (u32, u32)) -> Self {
        let (width, height) = (width as usize, height as usize);
        let count = mask.iter().copied().max().map_or(0, usize::from);
        // Pixels of each cell that show each thing; pixels, columns and rows of each thing.
        let mut seen = vec![0u32; CELLS * CELLS * count];
        let mut sums = vec![[0u64; 3]; count];
        for (at, &value) in mask.iter().enumerate() {
            if value == 0 || width == 0 {
                continue;
            }
            let owner = usize::from(value) - 1;
            let (x, y) = (at % width, at / width);
            let cell = (y * CELLS / height.max(1)).min(CELLS - 1) * CELLS + x * CELLS / width;
            seen[cell * count + owner] += 1;
            let [pixels, columns, rows] = &mut sums[owner];
            *pixels += 1;
            *columns += x as u64;
            *rows += y as u64;
        }
        let least = LEAST_SHARE * (width * height) as f64 / (CELLS * CELLS) as f64;
        let owner_of = |cell: usize| {
            let counts = seen[cell * count..][..count].iter().enumerate();
            let (owner, pixels) = counts.max_by_key(|(_, pixels)| **pixels)?;
            (*pixels > 0 && f64::from(*pixels) >= least).then_some(owner)
        };
        let middle_of = |[pixels, columns, rows]: &[u64; 3]| {
            if *pixels == 0 {
                return None;
            }
            let share = |sum: u64, extent: usize| {
                let middle = (sum as f64 / *pixels as f64 + 0.5) / extent as f64;
                ((middle * CELLS as f64) as usize).min(CELLS - 1)
            };
            Some(share(*rows, height) * CELLS + share(*columns, width))
        };
        Self {
            owners: (0..CELLS * CELLS).map(owner_of).collect(),
            middles: sums.iter().map(middle_of).collect(),
        }
    }

    /// Cells that somebody owns, and who.
    fn cells(&self) -> impl Iterator<Item = (usize, usize)> {
        let owners = self.owners.iter().enumerate();
        owners.filter_map(|(cell, owner)| owner.map(|owner| (cell, owner)))
    }

    /// The cell of each middle, and whose it is; what lies in front, and so comes last, wins.
    fn middles(&self) -> impl Iterator<Item = (usize, usize)> {
        let middles = self.middles.iter().enumerate();
        middles.filter_map(|(owner, cell)| cell.map(|cell| (cell, owner)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::{PictureOptions, Subject, draw};

    fn plane(map: &RgbImage, wanted: Plane) -> Vec<u16> {
        let index = PLANES.iter().position(|plane| *plane == wanted).unwrap();
        let cells = map.data().chunks(3).skip(index * CELLS * CELLS);
        let value = |cell: &[u8]| match (u16::from_le_bytes([cell[0], cell[1]]), cell[0]) {
            (wide, _) if wanted.is_wide() => wide,
            (_, IGNORE_BYTE) => IGNORE,
            (_, value) => u16::from(value),
        };
        cells.take(CELLS * CELLS).map(value).collect()
    }

    fn map_of(seed: u64, subject: Subject) -> (Picture, RgbImage) {
        let picture = draw(seed, subject, &PictureOptions::default());
        let map = label_map(&picture).unwrap();
        (picture, map)
    }

    #[test]
    fn every_value_has_a_name() {
        let description = describe();
        assert_eq!(description.planes.len(), PLANES.len());
        for subject in Subject::ALL {
            for seed in 0..4 {
                let (_, map) = map_of(seed, subject);
                for (index, described) in description.planes.iter().enumerate() {
                    for value in plane(&map, PLANES[index]) {
                        let known = usize::from(value) < described.classes.len();
                        assert!(known || value == IGNORE, "{subject:?} {}", described.name);
                    }
                }
            }
        }
    }

    /// Every object that can be seen has a middle, unless two share a cell.
    #[test]
    fn objects_have_one_middle_each() {
        for seed in 0..10 {
            let (picture, map) = map_of(seed, Subject::Scene);
            let Truth::Scene(scene) = &picture.truth else {
                panic!("asked for a scene")
            };
            let middles = plane(&map, Plane::Middle)
                .iter()
                .filter(|v| **v == 1)
                .count();
            assert!(middles <= scene.objects.len());
            assert!(middles + 1 >= scene.objects.len(), "seed {seed}");
            let kinds = plane(&map, Plane::Kind);
            for object in &scene.objects {
                assert!(kinds.contains(&(1 + object.shape as u16)), "seed {seed}");
            }
        }
    }

    /// The letters of a word stand in its cells from left to right.
    #[test]
    fn a_word_can_be_read_from_its_map() {
        for seed in 0..10 {
            let (picture, map) = map_of(seed, Subject::Word);
            let Truth::Document(crate::truth::Document::Word { text }) = &picture.truth else {
                panic!("asked for a word")
            };
            let left = plane(&map, Plane::LetterLeft);
            let right = plane(&map, Plane::LetterRight);
            let mut found: Vec<(usize, char)> = Vec::new();
            for cell in 0..CELLS * CELLS {
                for (half, value) in [left[cell], right[cell]].into_iter().enumerate() {
                    if value > 0 {
                        let letter = LETTERS.chars().nth(usize::from(value) - 1).unwrap();
                        found.push((cell % CELLS * 2 + half, letter));
                    }
                }
            }
            found.sort_unstable();
            let read: String = found.into_iter().map(|(_, letter)| letter).collect();
            assert_eq!(&read, text, "seed {seed}");
        }
    }

    /// Every word has a class, whatever its case, and is said where it stands, and by the bar or the point above
    /// it, and nowhere else.
    #[test]
    fn words_say_themselves() {
        for subject in Subject::ALL {
            for seed in 0..6 {
                let (picture, map) = map_of(seed, subject);
                let said = plane(&map, Plane::Word);
                let (layout, (width, height)) = (&picture.layout, picture.pixels.size());
                let class = |text: &str| place_in_vocabulary(text).unwrap() as u16;
                let reach = |from: f64, to: f64, side: u32| {
                    let cell = |at: f64| (at / f64::from(side) * CELLS as f64) as usize;
                    cell(from)..=cell(to).min(CELLS - 1)
                };
                for (cell, value) in said.iter().enumerate().filter(|(_, v)| **v != IGNORE) {
                    let by_word = layout.words.iter().any(|word| {
                        class(&word.text) == *value
                            && reach(word.ink.left, word.ink.right, width).contains(&(cell % CELLS))
                            && reach(word.ink.top, word.ink.bottom, height)
                                .contains(&(cell / CELLS))
                    });
                    let by_mark = || {
                        let mut names = layout.marks.iter().filter_map(|mark| mark.name.as_ref());
                        names.any(|name| class(name) == *value)
                    };
                    assert!(by_word || by_mark(), "{subject:?} {seed} {cell}");
                }
                // A narrow number may lose its only cell to its neighbour.
                let middles = layout.words.iter().filter(|word| {
                    let middle = |from: f64, to: f64, side: u32| {
                        let at = (from + to) / 2.0 / f64::from(side) * CELLS as f64;
                        at.clamp(0.0, (CELLS - 1) as f64) as usize
                    };
                    let row = middle(word.ink.top, word.ink.bottom, height);
                    let col = middle(word.ink.left, word.ink.right, width);
                    said.get(row * CELLS + col) == Some(&class(&word.text))
                });
                assert!(
                    middles.count() + 1 >= layout.words.len(),
                    "{subject:?} {seed}"
                );
            }
        }
    }

    #[test]
    fn bars_know_their_share() {
        let (picture, map) = map_of(3, Subject::Bar);
        let Truth::Chart(chart) = &picture.truth else {
            panic!("asked for a chart")
        };
        let shares = plane(&map, Plane::Share);
        for (_, _, value) in &chart.entries {
            let step = (20.0 * f64::from(*value) / f64::from(chart.top)).round() as u16;
            assert!(shares.contains(&step), "{value} of {}", chart.top);
        }
    }

    #[test]
    fn depths_are_steps_of_a_ratio() {
        assert_eq!(depth_step(0.1), 0);
        assert_eq!(depth_step(1.5), 0);
        // 24 steps from 1.5 to 20 m: half of them up to √30 m.
        assert_eq!(depth_step(30f64.sqrt() * 1.001), 12);
        assert_eq!(depth_step(100.0), 23);
    }
}
