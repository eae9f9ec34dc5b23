//! How wide text is, and what its letters look like.
//!
//! Plots are set in Roboto, which ships with the program (`assets/fonts`): pages carry it along, so
//! that what is measured here is what a reader sees.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, OutlineCurve};

/// The size of text in plots.
pub(super) const SIZE: f64 = 13.0;

/// The font's files.
pub(super) static REGULAR: &[u8] =
    include_bytes!("../../../../../assets/fonts/Roboto-Regular.ascii.ttf");
/// Its bold face.
pub(super) static BOLD: &[u8] = include_bytes!("../../../../../assets/fonts/Roboto-Bold.ascii.ttf");

static FACES: LazyLock<Option<[FontRef<'static>; 2]>> = LazyLock::new(|| {
    let face = |bytes| FontRef::try_from_slice(bytes).ok();
    Some([face(REGULAR)?, face(BOLD)?])
});

/// The width of a line of text, for letters that the font lacks that of their substitute.
pub(super) fn width(text: &str, size: f64, bold: bool) -> f64 {
    let mut width = 0.0;
    glyphs(text, size, bold, |_, end| width = end);
    width
}

/// The text cut so that it is at most so wide, in any weight, with an ellipsis if something is missing.
pub(super) fn fitted(text: &str, most: f64, size: f64) -> String {
    let width = |text: &str| width(text, size, true).max(width(text, size, false));
    if width(text) <= most {
        return text.to_owned();
    }
    let mut kept: String = text.to_owned();
    while kept.pop().is_some() {
        let cut = format!("{}…", kept.trim_end());
        if width(&cut) <= most {
            return cut;
        }
    }
    String::new()
}

/// A curve of an outline: from, over, to.
pub(super) enum Curve {
    Line([(f64, f64); 2]),
    Quad([(f64, f64); 3]),
    Cubic([(f64, f64); 4]),
}

/// The outlines of a line of text that starts at the origin, y downwards.
pub(super) fn outlines(text: &str, size: f64, bold: bool) -> Vec<Curve> {
    let Some((face, scale)) = face(size, bold) else {
        return Vec::new();
    };
    let mut curves = Vec::new();
    let mut start = 0.0;
    glyphs(text, size, bold, |letter, end| {
        if let Some(outline) = face.outline(face.glyph_id(letter)) {
            let place =
                |p: ab_glyph::Point| (start + scale * f64::from(p.x), -scale * f64::from(p.y));
            curves.extend(outline.curves.iter().map(|curve| match *curve {
                OutlineCurve::Line(a, b) => Curve::Line([place(a), place(b)]),
                OutlineCurve::Quad(a, b, c) => Curve::Quad([place(a), place(b), place(c)]),
                OutlineCurve::Cubic(a, b, c, d) => {
                    Curve::Cubic([place(a), place(b), place(c), place(d)])
                }
            }));
        }
        start = end;
    });
    curves
}

/// Visits each letter that is drawn, with where it ends.
fn glyphs(text: &str, size: f64, bold: bool, mut visit: impl FnMut(char, f64)) {
    let Some((face, scale)) = face(size, bold) else {
        return;
    };
    let mut end = 0.0;
    for letter in text.chars() {
        let mut buffer = [0; 4];
        for drawn in substitute(letter, &mut buffer).chars() {
            end += scale * f64::from(face.h_advance_unscaled(face.glyph_id(drawn)));
            visit(drawn, end);
        }
    }
}

/// The face, and pixels for each of its units. That it can be read is tested.
fn face(size: f64, bold: bool) -> Option<(&'static FontRef<'static>, f64)> {
    let face = &FACES.as_ref()?[usize::from(bold)];
    Some((face, size / f64::from(face.units_per_em()?)))
}

/// What stands for a letter that the font lacks. Pages show the letter itself.
fn substitute(letter: char, buffer: &mut [u8; 4]) -> &str {
    match letter {
        ' '..='~' => letter.encode_utf8(buffer),
        '–' | '—' | '−' | '‐' => "-",
        '’' | '‘' => "'",
        '“' | '”' => "\"",
        '…' => "...",
        '×' => "x",
        '·' | '•' => ".",
        '±' => "+-",
        '≥' => ">=",
        '≤' => "<=",
        'τ' => "tau",
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_have_width_and_shape() {
        assert!(width("m", 10.0, false) > width("i", 10.0, false));
        assert!(width("MMBench", 10.0, true) > width("MMBench", 10.0, false));
        assert!((width("ab", 20.0, false) - 2.0 * width("ab", 10.0, false)).abs() < 1e-9);
        assert!(!outlines("a", 10.0, false).is_empty());
        assert_eq!(width("–", 10.0, false), width("-", 10.0, false));
        assert!(outlines(" ", 10.0, false).is_empty());
    }

    #[test]
    fn long_names_are_cut() {
        let cut = fitted("a very long name of a model", 60.0, SIZE);
        assert!(
            cut.ends_with('…') && width(&cut, SIZE, false) <= 60.0,
            "{cut}"
        );
        assert_eq!(fitted("short", 60.0, SIZE), "short");
        assert_eq!(fitted("short", 0.0, SIZE), "");
    }
}
