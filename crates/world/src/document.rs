//! Documents: words on paper, in several faces, sizes and colours.
//!
//! All lengths are for a picture of 256 pixels and grow with it. Texts are never smaller than what
//! gives capitals of about 14 pixels, so that a small model can be asked to read them.

use opabinia_image::RgbImage;
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::font::{self, Face};
use crate::palette::{BLACK, WHITE, contrast, ink_on};
use crate::render::canvas::{Align, Canvas, Pen};
use crate::truth::{Box2d, Colour, Document, Layout, Mark, MarkKind, Truth};
use crate::words::{COLUMNS, Theme, WORDS, draw_words};

/// Least contrast between ink and paper.
const LEAST_CONTRAST: f64 = 4.0;
/// Ink stays this far from the edges, in pixels of 256.
const MARGIN: f64 = 8.0;

/// Draws one big word.
pub(crate) fn draw_word(rng: &mut ChaCha8Rng, side: u32) -> (RgbImage, Layout, Truth) {
    let (canvas, text) = word(rng, side);
    finish(canvas, Document::Word { text })
}

/// Draws two to four lines of one to three words.
pub(crate) fn draw_lines(rng: &mut ChaCha8Rng, side: u32) -> (RgbImage, Layout, Truth) {
    let (canvas, lines) = lines(rng, side);
    finish(canvas, Document::Lines { lines })
}

/// Draws two to four coloured labels.
pub(crate) fn draw_labels(rng: &mut ChaCha8Rng, side: u32) -> (RgbImage, Layout, Truth) {
    let (canvas, labels) = labels(rng, side);
    finish(canvas, Document::Labels { labels })
}

/// Draws a table of two to four rows and one to three columns of numbers.
pub(crate) fn draw_table(rng: &mut ChaCha8Rng, side: u32) -> (RgbImage, Layout, Truth) {
    let (canvas, header, rows) = table(rng, side);
    finish(canvas, Document::Table { header, rows })
}

fn finish(canvas: Canvas, document: Document) -> (RgbImage, Layout, Truth) {
    let (pixels, layout) = canvas.finish();
    (pixels, layout, Truth::Document(document))
}

/// Empty paper, and an ink that is legible on it.
pub(crate) struct Page {
    pub canvas: Canvas,
    pub paper: [u8; 3],
    pub ink: [u8; 3],
    /// Pixels of this picture for a pixel of 256.
    pub unit: f64,
}

impl Page {
    /// Paper that is light more often than dark, sometimes a little mottled.
    pub fn draw(rng: &mut ChaCha8Rng, side: u32) -> Self {
        let lightness = if rng.random_bool(0.8) {
            rng.random_range(222..=250i32)
        } else {
            rng.random_range(18..=52)
        };
        let paper =
            std::array::from_fn(|_| (lightness + rng.random_range(-5..=5)).clamp(0, 255) as u8);
        let mut canvas = Canvas::new(side, paper);
        if rng.random_bool(0.5) {
            canvas.mottle(rng.random(), rng.random_range(2.0..7.0));
        }
        Self {
            canvas,
            paper,
            ink: ink_on(paper),
            unit: f64::from(side) / 256.0,
        }
    }

    /// A coloured ink, or black or white, that is legible on the paper.
    fn draw_ink(&self, rng: &mut ChaCha8Rng) -> [u8; 3] {
        let inks: Vec<[u8; 3]> = Colour::ALL
            .iter()
            .map(|colour| colour.rgb())
            .chain([BLACK, WHITE])
            .filter(|ink| contrast(*ink, self.paper) >= LEAST_CONTRAST)
            .collect();
        inks.choose(rng).copied().unwrap_or(self.ink)
    }
}

fn draw_face(rng: &mut ChaCha8Rng) -> Face {
    *Face::ALL.choose(rng).expect("there are faces")
}

/// A word as it is or, less often, with a capital or in capitals.
fn draw_case(rng: &mut ChaCha8Rng, word: &str) -> String {
    match rng.random_range(0..20u32) {
        0..14 => word.to_owned(),
        14..17 => capitalised(word),
        _ => word.to_ascii_uppercase(),
    }
}

fn capitalised(word: &str) -> String {
    let (first, rest) = word.split_at(word.len().min(1));
    first.to_ascii_uppercase() + rest
}

fn word(rng: &mut ChaCha8Rng, side: u32) -> (Canvas, String) {
    let mut page = Page::draw(rng, side);
    let word = WORDS.choose(rng).expect("there are words");
    let text = draw_case(rng, word);
    let face = draw_face(rng);
    let wanted = page.unit * rng.random_range(24f64.ln()..72f64.ln()).exp();
    let margin = page.unit * MARGIN;
    let room = f64::from(side) - 2.0 * margin - 2.0;
    let pen = Pen {
        face,
        em: font::fit(face, wanted, &text, room),
        colour: page.draw_ink(rng),
    };
    let half_width = pen.width(&text) / 2.0 + margin;
    let half_height = 0.75 * pen.em + margin;
    let x = rng.random_range(half_width..=(f64::from(side) - half_width).max(half_width));
    let y = rng.random_range(half_height..=f64::from(side) - half_height);
    page.canvas.write_centred(&pen, &text, [x, y]);
    (page.canvas, text)
}

fn lines(rng: &mut ChaCha8Rng, side: u32) -> (Canvas, Vec<String>) {
    let mut page = Page::draw(rng, side);
    let pen = Pen {
        face: draw_face(rng),
        em: page.unit * rng.random_range(21.0..30.0),
        colour: page.draw_ink(rng),
    };
    let room = f64::from(side) - 2.0 * (MARGIN + 1.0) * page.unit;
    let wanted = rng.random_range(2..=4usize);
    let mut words = draw_words(rng, 3 * wanted, 8).into_iter();
    let lines: Vec<String> = (0..wanted)
        .map(|_| {
            let count = rng.random_range(1..=3usize);
            let line: Vec<String> = words.by_ref().take(count).collect();
            longest_that_fits(&line, |text| pen.width(text) <= room)
        })
        .collect();
    let spacing = pen.em * rng.random_range(1.35..1.7);
    let height = spacing * (lines.len() - 1) as f64;
    let first = page.unit * MARGIN + 0.8 * pen.em;
    let last = f64::from(side) - page.unit * MARGIN - 0.3 * pen.em - height;
    let mut y = rng.random_range(first..=last.max(first));
    let align = *[Align::Left, Align::Centre]
        .choose(rng)
        .unwrap_or(&Align::Left);
    let x = match align {
        Align::Centre => f64::from(side) / 2.0,
        Align::Left | Align::Right => page.unit * (MARGIN + 1.0),
    };
    for line in &lines {
        page.canvas.write(&pen, line, [x, y], align);
        y += spacing;
    }
    (page.canvas, lines)
}

/// As many of the words, from the first, as fit into a line; the first in any case.
fn longest_that_fits(words: &[String], fits: impl Fn(&str) -> bool) -> String {
    (1..=words.len())
        .rev()
        .map(|count| words[..count].join(" "))
        .find(|line| fits(line))
        .or_else(|| words.first().cloned())
        .unwrap_or_default()
}

fn labels(rng: &mut ChaCha8Rng, side: u32) -> (Canvas, Vec<(Colour, String)>) {
    let mut page = Page::draw(rng, side);
    let count = rng.random_range(2..=4usize);
    let in_a_row = count == 2 && rng.random_bool(0.4);
    let mut colours = Colour::ALL;
    colours.shuffle(rng);
    let words = draw_words(rng, count, if in_a_row { 6 } else { 8 });
    let labels: Vec<(Colour, String)> = colours.into_iter().zip(words).collect();
    let face = draw_face(rng);
    let em = page.unit * rng.random_range(22.0..32.0);
    let radius = page.unit * [0.0, 5.0, 12.0].choose(rng).copied().unwrap_or(0.0);
    let side = f64::from(side);
    let slot = side / count as f64;
    for (index, (colour, text)) in labels.iter().enumerate() {
        let room = if in_a_row { slot } else { side } - 40.0 * page.unit;
        let pen = Pen {
            face,
            em: font::fit(face, em, text, room),
            colour: ink_on(colour.rgb()),
        };
        let half = [
            pen.width(text) / 2.0 + 12.0 * page.unit,
            0.5 * pen.em + 8.0 * page.unit,
        ];
        let middle = slot * (index as f64 + 0.5);
        let jitter = rng.random_range(-1.0..1.0);
        let free = |extent: f64, half: f64| (extent / 2.0 - half - 4.0 * page.unit).max(0.0);
        let [x, y] = if in_a_row {
            [middle, side / 2.0 + jitter * 0.8 * free(side, half[1])]
        } else {
            [side / 2.0 + jitter * free(side, half[0]), middle]
        };
        let area = Box2d {
            left: x - half[0],
            top: y - half[1],
            right: x + half[0],
            bottom: y + half[1],
        };
        let mark = Mark {
            kind: MarkKind::Label,
            colour: *colour,
            share: None,
            name: None,
        };
        let paint = |canvas: &mut Canvas| canvas.rectangle(area, radius, colour.rgb());
        page.canvas.mark(mark, paint);
        page.canvas.write_centred(&pen, text, [x, y]);
    }
    (page.canvas, labels)
}

/// What a table says.
type Rows = Vec<(String, Vec<u32>)>;

fn table(rng: &mut ChaCha8Rng, side: u32) -> (Canvas, Vec<String>, Rows) {
    let mut page = Page::draw(rng, side);
    let theme = Theme::draw(rng);
    let columns = rng.random_range(1..=3usize);
    let longest = if columns == 3 { 5 } else { 6 };
    let count = rng.random_range(2..=4usize);
    let rows: Rows = theme
        .draw_names(rng, count, |name| name.len() <= longest)
        .into_iter()
        .map(|name| {
            (
                name,
                (0..columns).map(|_| rng.random_range(0..100)).collect(),
            )
        })
        .collect();
    let header: Vec<String> = std::iter::once(theme.header)
        .chain(COLUMNS.choose_multiple(rng, columns).copied())
        .map(str::to_owned)
        .collect();
    let faces = if columns == 3 {
        &[Face::Sans, Face::SansBold, Face::Serif][..]
    } else {
        &Face::ALL[..]
    };
    let face = *faces.choose(rng).expect("the list is not empty");
    let layout = TableLayout::new(rng, &page, face, &header, &rows);
    layout.paint(rng, &mut page, &header, &rows);
    (page.canvas, header, rows)
}

/// Where the cells of a table are.
struct TableLayout {
    pen: Pen,
    /// Left edges of the columns and the right edge of the last.
    edges: Vec<f64>,
    top: f64,
    row_height: f64,
}

impl TableLayout {
    /// Columns as wide as their widest text, the whole a little off the middle.
    fn new(rng: &mut ChaCha8Rng, page: &Page, face: Face, header: &[String], rows: &Rows) -> Self {
        let side = 256.0 * page.unit;
        let pad = 8.0 * page.unit;
        let room = side - 2.0 * MARGIN * page.unit;
        let widths_at = |em: f64| -> Vec<f64> {
            let names = rows.iter().map(|(name, _)| font::width(face, em, name));
            let names = names.fold(0.0, f64::max);
            let numbers = font::width(face, em, "88");
            header
                .iter()
                .enumerate()
                .map(|(column, text)| {
                    let cells = if column == 0 { names } else { numbers };
                    font::width(face, em, text).max(cells) + 2.0 * pad
                })
                .collect()
        };
        let wanted = page.unit * rng.random_range(21.0..25.0);
        let total: f64 = widths_at(wanted).iter().sum();
        let padding = 2.0 * pad * header.len() as f64;
        let em = wanted * ((room - padding) / (total - padding)).min(1.0);
        let widths = widths_at(em);
        let total: f64 = widths.iter().sum();
        let row_height = em * rng.random_range(1.55..1.95);
        let height = row_height * (rows.len() + 1) as f64;
        let place = |rng: &mut ChaCha8Rng, free: f64| rng.random_range(0.2..0.8) * free;
        let margin = MARGIN * page.unit;
        let left = margin + place(rng, (room - total).max(0.0));
        let top = margin + place(rng, (room - height).max(0.0));
        let mut edges = vec![left];
        for width in widths {
            edges.push(edges.last().copied().unwrap_or(left) + width);
        }
        Self {
            pen: Pen {
                face,
                em,
                colour: page.ink,
            },
            edges,
            top,
            row_height,
        }
    }

    fn paint(&self, rng: &mut ChaCha8Rng, page: &mut Page, header: &[String], rows: &Rows) {
        let (ink, paper) = (page.ink, page.paper);
        let shade: [u8; 3] =
            std::array::from_fn(|i| ((5 * u32::from(paper[i]) + u32::from(ink[i])) / 6) as u8);
        let left = self.edges.first().copied().unwrap_or_default();
        let right = self.edges.last().copied().unwrap_or_default();
        let bottom = self.top + self.row_height * (rows.len() + 1) as f64;
        if rng.random_bool(0.6) {
            let area = Box2d {
                left,
                top: self.top,
                right,
                bottom: self.top + self.row_height,
            };
            page.canvas.rectangle(area, 0.0, shade);
        }
        let rule = page.unit.max(1.0);
        let every_line = rng.random_bool(0.7);
        for line in 0..=rows.len() + 1 {
            if every_line || line <= 1 || line == rows.len() + 1 {
                let y = self.top + self.row_height * line as f64;
                page.canvas.line([left, y], [right, y], rule, ink);
            }
        }
        if every_line {
            for x in &self.edges {
                page.canvas.line([*x, self.top], [*x, bottom], rule, ink);
            }
        }
        for (column, text) in header.iter().enumerate() {
            self.write(page, column, 0, text);
        }
        for (row, (name, numbers)) in rows.iter().enumerate() {
            self.write(page, 0, row + 1, name);
            for (column, number) in numbers.iter().enumerate() {
                self.write(page, column + 1, row + 1, &number.to_string());
            }
        }
    }

    /// Writes a text into the middle of a cell.
    fn write(&self, page: &mut Page, column: usize, row: usize, text: &str) {
        let middle = (self.edges[column] + self.edges[column + 1]) / 2.0;
        let y = self.top + self.row_height * (row as f64 + 0.5);
        page.canvas.write_centred(&self.pen, text, [middle, y]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::stream;

    /// Every text is inside the picture and apart from all others.
    fn assert_legible(canvas: &Canvas, side: f64, seed: u64) {
        let written = canvas.written();
        for (index, (text, ink)) in written.iter().enumerate() {
            assert!(
                ink.left >= 0.0 && ink.top >= 0.0 && ink.right <= side && ink.bottom <= side,
                "seed {seed}: {text:?} is at {ink:?}"
            );
            for (other_text, other) in &written[index + 1..] {
                let apart = ink.right <= other.left
                    || other.right <= ink.left
                    || ink.bottom <= other.top
                    || other.bottom <= ink.top;
                assert!(apart, "seed {seed}: {text:?} and {other_text:?} overlap");
            }
        }
    }

    fn texts(canvas: &Canvas) -> Vec<String> {
        canvas
            .written()
            .iter()
            .map(|(text, _)| text.clone())
            .collect()
    }

    #[test]
    fn every_document_fits_and_says_what_its_truth_says() {
        for seed in 0..150 {
            for side in [128, 256] {
                let rng = &mut stream(seed, "test", 0);
                let (canvas, text) = word(rng, side);
                assert_legible(&canvas, f64::from(side), seed);
                assert_eq!(texts(&canvas), [text]);

                let (canvas, lines) = lines(rng, side);
                assert_legible(&canvas, f64::from(side), seed);
                assert_eq!(texts(&canvas), lines);
                assert!((2..=4).contains(&lines.len()));

                let (canvas, labels) = labels(rng, side);
                assert_legible(&canvas, f64::from(side), seed);
                let said: Vec<String> = labels.into_iter().map(|(_, text)| text).collect();
                assert_eq!(texts(&canvas), said);

                let (canvas, header, rows) = table(rng, side);
                assert_legible(&canvas, f64::from(side), seed);
                assert_eq!(canvas.written().len(), header.len() * (rows.len() + 1));
                assert!(rows.len() >= 2, "{rows:?}");
                assert!(
                    rows.iter()
                        .all(|(_, numbers)| numbers.len() + 1 == header.len())
                );
            }
        }
    }

    #[test]
    fn words_that_do_not_fit_are_left_out_of_a_line() {
        let words = ["one", "two", "three"].map(str::to_owned);
        assert_eq!(longest_that_fits(&words, |line| line.len() <= 8), "one two");
        assert_eq!(longest_that_fits(&words, |_| false), "one");
    }

    #[test]
    fn a_capital_comes_first() {
        assert_eq!(capitalised("otter"), "Otter");
        assert_eq!(capitalised(""), "");
    }
}
