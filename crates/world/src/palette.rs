//! Colours as numbers: what each named colour looks like, and which ink is legible on it.

use crate::truth::Colour;

/// Black that is not quite black, as ink is.
pub const BLACK: [u8; 3] = [24, 24, 28];
/// Paper white.
pub const WHITE: [u8; 3] = [250, 250, 248];

impl Colour {
    /// Its sRGB value under full light.
    ///
    /// The eight are far apart in hue, and yellow, orange and red also in lightness, so that shading
    /// never turns one into another.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [208, 32, 36],
            Self::Green => [36, 150, 56],
            Self::Blue => [36, 76, 214],
            Self::Yellow => [244, 214, 30],
            Self::Orange => [242, 124, 20],
            Self::Purple => [132, 48, 178],
            Self::Cyan => [40, 196, 210],
            Self::Gray => [118, 118, 120],
        }
    }
}

/// Relative luminance of an sRGB colour, 0 for black to 1 for white (WCAG 2.1).
pub fn luminance(rgb: [u8; 3]) -> f64 {
    let linear = rgb.map(|channel| {
        let value = f64::from(channel) / 255.0;
        if value <= 0.04045 {
            value / 12.92
        } else {
            ((value + 0.055) / 1.055).powf(2.4)
        }
    });
    0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
}

/// Contrast ratio of two colours, 1 for equal to 21 for black on white (WCAG 2.1).
pub fn contrast(a: [u8; 3], b: [u8; 3]) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

/// Black or white, whichever is more legible on `background`.
pub fn ink_on(background: [u8; 3]) -> [u8; 3] {
    if contrast(BLACK, background) >= contrast(WHITE, background) {
        BLACK
    } else {
        WHITE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn black_on_white_has_the_largest_contrast() {
        assert!((contrast([0; 3], [255; 3]) - 21.0).abs() < 1e-9);
        assert!((contrast([9; 3], [9; 3]) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn every_colour_has_a_legible_ink() {
        for colour in Colour::ALL {
            let background = colour.rgb();
            assert!(contrast(ink_on(background), background) > 4.0, "{colour:?}");
        }
    }

    #[test]
    fn colours_are_far_apart() {
        for (index, a) in Colour::ALL.iter().enumerate() {
            for b in &Colour::ALL[index + 1..] {
                let pairs = a.rgb().into_iter().zip(b.rgb());
                let squares = pairs.map(|(a, b)| (f64::from(a) - f64::from(b)).powi(2));
                assert!(squares.sum::<f64>().sqrt() > 80.0, "{a:?} and {b:?}");
            }
        }
    }
}
