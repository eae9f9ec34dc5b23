//! Perceptual hash: equal, or nearly so, for pictures that look the same.
//!
//! A difference hash (dHash): of 9 × 8 grey cells, whether each is brighter than its right neighbour.
//! It survives another size, another format and another quality, and it is what Cambrian-1 (arXiv
//! 2406.16860, appendix on leakage) compares training and test pictures by.

use crate::resample::{Filter, resize};
use crate::rgb::RgbImage;

/// The difference hash of a picture; the bits of two that differ say how unlike they look.
pub fn dhash(picture: &RgbImage) -> u64 {
    let small = resize(picture, 9, 8, Filter::Bilinear);
    let grey = |x: u32, y: u32| {
        let [r, g, b] = small.pixel(x, y).unwrap_or_default();
        299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b)
    };
    let cells = (0..8).flat_map(|y| (0..8).map(move |x| (x, y)));
    cells.fold(0, |hash, (x, y)| {
        hash << 1 | u64::from(grey(x, y) > grey(x + 1, y))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_has_a_known_hash() {
        let ramp = |falling: bool| {
            let row = (0..90u8).map(|x| if falling { 200 - 2 * x } else { 20 + 2 * x });
            let row: Vec<u8> = row.flat_map(|v| [v; 3]).collect();
            dhash(&RgbImage::from_raw(90, 16, row.repeat(16)).unwrap())
        };
        assert_eq!((ramp(true), ramp(false)), (u64::MAX, 0));
    }
}
