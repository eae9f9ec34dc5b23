//! The faces that words are written in, and how wide words are in them.
//!
//! The files lie in `assets/fonts` with their licences and are part of the program.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, GlyphId, OutlinedGlyph, PxScale, ScaleFont, point};

use crate::truth::Box2d;

/// A face.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Face {
    /// Roboto: plain strokes.
    Sans,
    /// Roboto Bold.
    SansBold,
    /// Caladea: fine strokes with serifs.
    Serif,
    /// DejaVu Serif Bold: strong strokes with serifs.
    SerifBold,
    /// DejaVu Sans Mono: all letters of one width.
    Mono,
}

impl Face {
    /// All faces, in the order of the enum.
    pub const ALL: [Self; 5] = [
        Self::Sans,
        Self::SansBold,
        Self::Serif,
        Self::SerifBold,
        Self::Mono,
    ];

    fn font(self) -> &'static FontRef<'static> {
        &FONTS[self as usize]
    }
}

static FONTS: LazyLock<[FontRef<'static>; 5]> = LazyLock::new(|| {
    let files: [&'static [u8]; 5] = [
        include_bytes!("../../../assets/fonts/Roboto-Regular.ascii.ttf"),
        include_bytes!("../../../assets/fonts/Roboto-Bold.ascii.ttf"),
        include_bytes!("../../../assets/fonts/Caladea-Regular.ttf"),
        include_bytes!("../../../assets/fonts/DejaVuSerif-Bold.ascii.ttf"),
        include_bytes!("../../../assets/fonts/DejaVuSansMono.ascii.ttf"),
    ];
    files.map(|file| FontRef::try_from_slice(file).expect("the fonts in assets/fonts are fonts"))
});

/// A line of text that has a place: its glyphs in pixels of a picture.
pub(crate) struct Line {
    /// Letters that leave ink.
    pub glyphs: Vec<(char, OutlinedGlyph)>,
    /// The box around the ink.
    pub ink: Box2d,
}

/// How far the pen moves over a text, in pixels; `em` is the size of the face in pixels.
pub fn width(face: Face, em: f64, text: &str) -> f64 {
    let font = face.font().as_scaled(scale(face, em));
    pen_positions(face, em, text)
        .last()
        .map_or(0.0, |(id, x)| f64::from(x + font.h_advance(id)))
}

/// Height of capital letters, in pixels.
pub fn capital_height(face: Face, em: f64) -> f64 {
    lay_out(face, em, "H", 0.0, 0.0).map_or(0.0, |line| line.ink.bottom - line.ink.top)
}

/// The largest size up to `em` at which a text is at most `room` pixels wide.
pub fn fit(face: Face, em: f64, text: &str, room: f64) -> f64 {
    let wide = width(face, em, text);
    if wide <= room { em } else { em * room / wide }
}

/// Puts a text with its pen's start at `x` and its base line at `y`; `None` if it leaves no ink.
pub(crate) fn lay_out(face: Face, em: f64, text: &str, x: f64, y: f64) -> Option<Line> {
    let size = scale(face, em);
    let glyphs: Vec<(char, OutlinedGlyph)> = text
        .chars()
        .zip(pen_positions(face, em, text))
        .filter_map(|(letter, (id, pen))| {
            let start = point(x as f32 + pen, y as f32);
            let glyph = id.with_scale_and_position(size, start);
            Some((letter, face.font().outline_glyph(glyph)?))
        })
        .collect();
    let ink = glyphs
        .iter()
        .map(|(_, glyph)| bounds(glyph))
        .reduce(Box2d::joined)?;
    Some(Line { glyphs, ink })
}

/// The box around a glyph's ink, in pixels.
pub(crate) fn bounds(glyph: &OutlinedGlyph) -> Box2d {
    let bounds = glyph.px_bounds();
    Box2d {
        left: f64::from(bounds.min.x),
        top: f64::from(bounds.min.y),
        right: f64::from(bounds.max.x),
        bottom: f64::from(bounds.max.y),
    }
}

/// Each letter with the pen's way to it, in pixels.
fn pen_positions(face: Face, em: f64, text: &str) -> impl Iterator<Item = (GlyphId, f32)> {
    let font = face.font().as_scaled(scale(face, em));
    let mut pen = 0.0;
    let mut before: Option<GlyphId> = None;
    text.chars().map(move |letter| {
        let id = font.glyph_id(letter);
        if let Some(before) = before {
            pen += font.kern(before, id);
        }
        let at = pen;
        pen += font.h_advance(id);
        before = Some(id);
        (id, at)
    })
}

/// `ab_glyph` measures a face by its line height; we, as everybody else, by its em.
fn scale(face: Face, em: f64) -> PxScale {
    let font = face.font();
    let per_em = font.units_per_em().unwrap_or(1000.0);
    PxScale::from(em as f32 * font.height_unscaled() / per_em)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_face_has_every_letter_that_we_write() {
        for face in Face::ALL {
            for letter in (33u8..127).map(char::from) {
                let text = letter.to_string();
                assert!(
                    lay_out(face, 20.0, &text, 0.0, 0.0).is_some(),
                    "{face:?} {letter}"
                );
            }
            assert!(lay_out(face, 20.0, " ", 0.0, 0.0).is_none());
        }
    }

    /// All glyphs of DejaVu Sans Mono are 1233 of 2048 units wide.
    #[test]
    fn widths_are_in_ems() {
        let wide = width(Face::Mono, 20.48, "abcde");
        assert!((wide - 5.0 * 12.33).abs() < 0.01, "{wide}");
    }

    #[test]
    fn capitals_are_about_seven_tenths_of_an_em() {
        for face in Face::ALL {
            let share = capital_height(face, 100.0) / 100.0;
            assert!((0.6..0.76).contains(&share), "{face:?}: {share}");
        }
    }

    #[test]
    fn a_fitted_text_has_the_width_of_its_room() {
        let em = fit(Face::Sans, 100.0, "elephant", 120.0);
        assert!((width(Face::Sans, em, "elephant") - 120.0).abs() < 0.5);
        assert_eq!(fit(Face::Sans, 10.0, "ox", 120.0), 10.0);
    }
}
