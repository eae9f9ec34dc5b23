//! The ground that everything stands on, and how it fades into the distance.

use crate::render::light::{Rgb, mix};
use crate::render::noise::value_noise;

/// Distance at which the ground begins to fade into the horizon, in metres.
const HAZE_FROM: f64 = 8.0;
/// Distance at which it has faded, in metres.
const HAZE_TO: f64 = 40.0;

/// How the ground looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pattern {
    /// One tone.
    Plain,
    /// Two tones in squares of this many metres.
    Checker {
        /// Side of a square.
        tile: f64,
    },
    /// Two tones in blotches of about this many metres.
    Blotches {
        /// Size of a blotch.
        size: f64,
    },
}

/// The ground `z = 0`.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    pub pattern: Pattern,
    /// The two tones.
    pub tones: [Rgb; 2],
    /// Sine and cosine of the angle by which the pattern is turned.
    pub turn: [f64; 2],
    /// Which noise.
    pub seed: u32,
}

impl Ground {
    /// The colour at `(x, y)`; a pixel there is `footprint` metres wide and deep.
    pub fn colour(&self, x: f64, y: f64, footprint: [f64; 2]) -> Rgb {
        let share = match self.pattern {
            Pattern::Plain => 0.0,
            Pattern::Checker { tile } => self.checker(x, y, footprint, tile),
            Pattern::Blotches { size } => {
                let (x, y) = (x / size, y / size);
                let noise = value_noise(self.seed, x, y)
                    + 0.5 * value_noise(self.seed ^ 1, 2.7 * x, 2.7 * y);
                (0.5 + 0.5 * noise).clamp(0.0, 1.0)
            }
        };
        mix(self.tones[0], self.tones[1], share)
    }

    /// How far the ground at a distance has become horizon, 0 to 1.
    pub fn haze(distance: f64) -> f64 {
        ((distance - HAZE_FROM) / (HAZE_TO - HAZE_FROM)).clamp(0.0, 1.0)
    }

    /// Share of the second tone in a pixel: two square waves, each averaged over the pixel's width
    /// across its edges, so that far squares turn gray and do not flicker.
    fn checker(&self, x: f64, y: f64, footprint: [f64; 2], tile: f64) -> f64 {
        let [s, c] = self.turn;
        let along = [c * x + s * y, c * y - s * x];
        let widths = [
            c.abs() * footprint[0] + s.abs() * footprint[1],
            s.abs() * footprint[0] + c.abs() * footprint[1],
        ];
        0.5 - 0.5
            * square_wave(along[0] / tile, widths[0] / tile)
            * square_wave(along[1] / tile, widths[1] / tile)
    }
}

/// A wave that is 1 and -1 over alternating units of `x`, averaged over `width` units; it fades out
/// where a pixel is about as wide as a unit.
fn square_wave(x: f64, width: f64) -> f64 {
    let phase = x - 2.0 * (x / 2.0).floor();
    let sign = if phase < 1.0 { 1.0 } else { -1.0 };
    let within = if phase < 1.0 { phase } else { phase - 1.0 };
    let to_edge = within.min(1.0 - within);
    let fading = (1.0 - (width - 0.7) / 0.8).clamp(0.0, 1.0);
    sign * fading * (2.0 * to_edge / width.max(1e-9)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_pixel_sees_one_square_and_a_pixel_on_an_edge_half_of_each() {
        assert_eq!(square_wave(0.5, 0.1), 1.0);
        assert_eq!(square_wave(1.5, 0.1), -1.0);
        assert_eq!(square_wave(-0.5, 0.1), -1.0);
        assert!(square_wave(1.0, 0.1).abs() < 1e-9);
        assert!((square_wave(0.025, 0.1) - 0.5).abs() < 1e-9);
        assert_eq!(square_wave(0.5, 1.6), 0.0);
    }

    #[test]
    fn squares_alternate_both_ways() {
        let ground = Ground {
            pattern: Pattern::Checker { tile: 0.5 },
            tones: [[0.0; 3], [1.0; 3]],
            turn: [0.0, 1.0],
            seed: 0,
        };
        let tone = |x, y| ground.colour(x, y, [0.01, 0.01])[0];
        assert_eq!(tone(0.25, 0.25), 0.0);
        assert_eq!(tone(0.75, 0.25), 1.0);
        assert_eq!(tone(0.25, 0.75), 1.0);
        assert_eq!(tone(0.75, 0.75), 0.0);
    }
}
