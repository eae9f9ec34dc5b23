//! Charts: bars, lines and pies with whole-number values that can be read off.
//!
//! All lengths are for a picture of 256 pixels and grow with it. Axes end at a round number with
//! four or five grid lines, bars have colours of their own, and there is exactly one largest and
//! one smallest value, so that asking for it has one answer.

mod axes;
mod pie;

use opabinia_image::RgbImage;
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use self::axes::Axes;
use crate::document::Page;
use crate::font::Face;
use crate::palette::contrast;
use crate::render::canvas::{Canvas, Pen};
use crate::truth::{Chart, ChartKind, Colour, Layout, Truth};
use crate::words::Theme;

/// Faces that stay legible in small sizes.
const FACES: [Face; 3] = [Face::Sans, Face::SansBold, Face::Serif];
/// Nothing is written smaller than this.
const LEAST_EM: f64 = 15.5;
/// No chart has fewer entries.
const FEWEST: usize = 3;
/// A thin line of less contrast to the paper is hard to see.
const LEAST_LINE_CONTRAST: f64 = 1.6;

/// Draws a chart: pixels and truth.
pub(crate) fn draw(rng: &mut ChaCha8Rng, side: u32, kind: ChartKind) -> (RgbImage, Layout, Truth) {
    let (canvas, chart) = draw_on_canvas(rng, side, kind);
    let (pixels, layout) = canvas.finish();
    (pixels, layout, Truth::Chart(chart))
}

fn draw_on_canvas(rng: &mut ChaCha8Rng, side: u32, kind: ChartKind) -> (Canvas, Chart) {
    let page = Page::draw(rng, side);
    let face = *FACES.choose(rng).expect("there are faces");
    let written = rng.random_bool(0.5);
    let theme = Theme::draw(rng);
    match kind {
        ChartKind::Bar | ChartKind::Line => {
            let count = rng.random_range(FEWEST..=6);
            let axes = Axes::draw(rng, page, face, theme, count, written);
            axes.paint(rng, theme, kind, written)
        }
        ChartKind::Pie => pie::draw(rng, page, face, theme, written),
    }
}

fn write_title(page: &mut Page, face: Face, title: &str) {
    let unit = page.unit;
    let pen = Pen {
        face,
        em: 21.0 * unit,
        colour: page.ink,
    };
    page.canvas
        .write_centred(&pen, title, [128.0 * unit, 18.0 * unit]);
}

fn has_single_extremes(values: &[u32]) -> bool {
    let occurs_once =
        |wanted: Option<&u32>| values.iter().filter(|value| Some(*value) == wanted).count() == 1;
    occurs_once(values.iter().max()) && occurs_once(values.iter().min())
}

/// Different colours, or for a line the same one for all its points, that stands out on the paper.
fn draw_colours(
    rng: &mut ChaCha8Rng,
    kind: ChartKind,
    count: usize,
    paper: [u8; 3],
) -> Vec<Colour> {
    let mut colours = Colour::ALL.to_vec();
    colours.shuffle(rng);
    match kind {
        ChartKind::Bar | ChartKind::Pie => colours.into_iter().take(count).collect(),
        ChartKind::Line => {
            // Stable, so that all but the palest stay in random order.
            colours.sort_by_key(|colour| contrast(colour.rgb(), paper) < LEAST_LINE_CONTRAST);
            vec![colours[0]; count]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::stream;

    #[test]
    fn every_chart_fits_and_can_be_read() {
        for seed in 0..150 {
            for kind in ChartKind::ALL {
                let (canvas, chart) = draw_on_canvas(&mut stream(seed, "test", 0), 256, kind);
                let said: Vec<&String> = canvas.written().iter().map(|(text, _)| text).collect();
                assert!(chart.entries.len() >= 3, "seed {seed}: {chart:?}");
                assert!(said.contains(&&chart.title));
                for (name, _, value) in &chart.entries {
                    assert!(said.contains(&name));
                    assert!((1..=chart.top).contains(value));
                }
                for (index, (text, ink)) in canvas.written().iter().enumerate() {
                    let inside = ink.left >= 0.0
                        && ink.top >= 0.0
                        && ink.right <= 256.0
                        && ink.bottom <= 256.0;
                    assert!(inside, "seed {seed}: {text} is at {ink:?}");
                    for (other, box2d) in &canvas.written()[index + 1..] {
                        assert!(
                            axes::are_apart(ink, box2d),
                            "seed {seed}, {kind:?}: {text} and {other} overlap"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn extremes_are_single() {
        assert!(has_single_extremes(&[1, 2, 2, 3]));
        assert!(!has_single_extremes(&[1, 3, 3]));
        assert!(!has_single_extremes(&[1, 1, 3]));
    }

    /// As many rows show a bar's colour as its value asks for, but for its soft edges.
    #[test]
    fn bars_are_as_high_as_their_values() {
        for seed in 0..40 {
            let (canvas, chart) = draw_on_canvas(&mut stream(seed, "test", 0), 256, ChartKind::Bar);
            let picture = canvas.into_picture();
            let ceiling = if chart.written { 54.0 } else { 42.0 };
            for (_, colour, value) in &chart.entries {
                let rows_of = |x: u32| {
                    let rows = (0..256).filter(|y| picture.pixel(x, *y) == Some(colour.rgb()));
                    rows.count()
                };
                let found = (0..256).map(rows_of).max().unwrap() as f64;
                let wanted = (axes::BOTTOM - ceiling) * f64::from(*value) / f64::from(chart.top);
                assert!(
                    (found - wanted).abs() <= 2.0,
                    "seed {seed}: {found} for {wanted}"
                );
            }
        }
    }
}
