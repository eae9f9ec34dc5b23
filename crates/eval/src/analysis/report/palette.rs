//! The colours of plots and pages.
//!
//! Groups have the first four series, after Okabe and Ito (2008), darkened or lightened so that each
//! stands out from its paper; families of models have the other four, so that nobody takes one for the
//! other. People with any colour vision can tell four of a kind apart, and no plot relies on colour
//! alone: every mark also has a label or a place of its own.

use super::drawing::Paint;

/// Red, green, blue.
pub(super) type Rgb = [u8; 3];

/// All colours of one kind of page.
pub(super) struct Palette {
    pub ink: Rgb,
    pub soft: Rgb,
    pub line: Rgb,
    pub band: Rgb,
    pub paper: Rgb,
    pub series: [Rgb; SERIES],
}

/// Series before colours come again.
pub(super) const SERIES: usize = 8;

/// For paper and daylight.
pub(super) const LIGHT: Palette = Palette {
    ink: [0x1b, 0x1f, 0x24],
    soft: [0x5b, 0x64, 0x70],
    line: [0xd9, 0xde, 0xe4],
    band: [0xf4, 0xf6, 0xf8],
    paper: [0xff, 0xff, 0xff],
    series: [
        [0x00, 0x72, 0xb2],
        [0xd5, 0x5e, 0x00],
        [0x00, 0x8f, 0x68],
        [0xb8, 0x5c, 0x92],
        [0x44, 0x34, 0x8f],
        [0xbf, 0x83, 0x00],
        [0x6b, 0x72, 0x80],
        [0xb0, 0x20, 0x3a],
    ],
};

/// For the dark.
pub(super) const DARK: Palette = Palette {
    ink: [0xe8, 0xeb, 0xef],
    soft: [0x9a, 0xa4, 0xb0],
    line: [0x36, 0x3d, 0x46],
    band: [0x1c, 0x20, 0x26],
    paper: [0x14, 0x17, 0x1b],
    series: [
        [0x4f, 0xa8, 0xde],
        [0xf2, 0x80, 0x3a],
        [0x33, 0xc5, 0x98],
        [0xe3, 0x9a, 0xc4],
        [0xa6, 0x96, 0xf2],
        [0xf0, 0xb9, 0x3a],
        [0xaa, 0xb3, 0xbd],
        [0xf0, 0x68, 0x7f],
    ],
};

impl Palette {
    /// The colour of a paint.
    pub fn colour(&self, paint: Paint) -> Rgb {
        match paint {
            Paint::Ink => self.ink,
            Paint::Soft => self.soft,
            Paint::Line => self.line,
            Paint::Band => self.band,
            Paint::Paper => self.paper,
            Paint::Series(n) => self.series[n % SERIES],
            Paint::Fixed(rgb) => rgb,
        }
    }

    /// The palette as CSS variables.
    pub fn variables(&self) -> String {
        let roles = [
            Paint::Ink,
            Paint::Soft,
            Paint::Line,
            Paint::Band,
            Paint::Paper,
        ];
        let paints = roles.into_iter().chain((0..SERIES).map(Paint::Series));
        paints
            .filter_map(|paint| Some(format!("{}:{};", variable(paint)?, hex(self.colour(paint)))))
            .collect()
    }
}

/// The name of the CSS variable of a paint; `None` for a fixed colour.
pub(super) fn variable(paint: Paint) -> Option<String> {
    Some(match paint {
        Paint::Ink => "--ink".into(),
        Paint::Soft => "--soft".into(),
        Paint::Line => "--line".into(),
        Paint::Band => "--band".into(),
        Paint::Paper => "--paper".into(),
        Paint::Series(n) => format!("--series-{}", n % SERIES),
        Paint::Fixed(_) => return None,
    })
}

/// `#rrggbb`.
pub(super) fn hex([red, green, blue]: Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// From light to dark blue (ColorBrewer's Blues: one hue, so any colour vision reads it).
const BLUES: [Rgb; 9] = [
    [0xf7, 0xfb, 0xff],
    [0xde, 0xeb, 0xf7],
    [0xc6, 0xdb, 0xef],
    [0x9e, 0xca, 0xe1],
    [0x6b, 0xae, 0xd6],
    [0x42, 0x92, 0xc6],
    [0x21, 0x71, 0xb5],
    [0x08, 0x51, 0x9c],
    [0x08, 0x30, 0x6b],
];

/// From white to brown, for values below 0.
const BROWNS: [Rgb; 4] = [
    [0xf7, 0xfb, 0xff],
    [0xfd, 0xd0, 0xa2],
    [0xf1, 0x69, 0x13],
    [0x8c, 0x2d, 0x04],
];

/// The colour of a value from −1 to 1: brown below 0, blue above.
pub(super) fn diverging(value: f64) -> Rgb {
    if value < 0.0 {
        between(&BROWNS, -value)
    } else {
        between(&BLUES, value)
    }
}

/// Black or white, whichever can be read on a colour.
pub(super) fn readable_on(colour: Rgb) -> Paint {
    let [red, green, blue] = colour.map(f64::from);
    let light = 0.299 * red + 0.587 * green + 0.114 * blue;
    Paint::Fixed(if light > 140.0 {
        LIGHT.ink
    } else {
        LIGHT.paper
    })
}

fn between(stops: &[Rgb], value: f64) -> Rgb {
    let place = value.clamp(0.0, 1.0) * (stops.len() - 1) as f64;
    let before = (place.floor() as usize).min(stops.len() - 2);
    let part = place - before as f64;
    let mix = |i: usize| {
        let (a, b) = (f64::from(stops[before][i]), f64::from(stops[before + 1][i]));
        (a + part * (b - a)).round() as u8
    };
    [mix(0), mix(1), mix(2)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_reach_their_ends() {
        assert_eq!(diverging(1.0), BLUES[8]);
        assert_eq!(diverging(0.0), BLUES[0]);
        assert_eq!(diverging(-7.0), BROWNS[3]);
        assert_eq!(readable_on(BLUES[8]), Paint::Fixed(LIGHT.paper));
        assert_eq!(readable_on(BLUES[0]), Paint::Fixed(LIGHT.ink));
    }

    /// WCAG's contrast: at least 3 for marks, 4.5 for text, on both papers.
    #[test]
    fn everything_can_be_seen() {
        let luminance = |rgb: Rgb| {
            let [r, g, b] = rgb.map(|c| {
                let c = f64::from(c) / 255.0;
                if c <= 0.03928 {
                    c / 12.92
                } else {
                    ((c + 0.055) / 1.055).powf(2.4)
                }
            });
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        let contrast = |a: Rgb, b: Rgb| {
            let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
            a.max(b) / a.min(b)
        };
        for palette in [LIGHT, DARK] {
            for text in [palette.ink, palette.soft] {
                assert!(contrast(text, palette.paper) > 4.5);
                assert!(contrast(text, palette.band) > 4.5);
            }
            for series in palette.series {
                assert!(contrast(series, palette.paper) > 2.9, "{series:?}");
            }
        }
    }
}
