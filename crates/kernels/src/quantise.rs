//! Rounding weights to integers.

use crate::format::{GROUP, ZERO4, ZERO8};

/// Scale and bytes (with offset 128) of values; the largest becomes ±127.
///
/// Values are finite: packing refuses others.
pub(crate) fn to_int8(values: &[f32], bytes: &mut [u8]) -> f32 {
    let largest = values.iter().fold(0f32, |a, v| a.max(v.abs()));
    let scale = largest / 127.0;
    let inverse = inverse(scale);
    for (byte, value) in bytes.iter_mut().zip(values) {
        let steps = rounded((value * inverse).clamp(-127.0, 127.0));
        *byte = (steps as i32 + ZERO8) as u8;
    }
    scale
}

/// A scale that f16 can hold and nibbles (with offset 8) of 32 values.
///
/// The nibbles reach from −8 to 7, so either sign of the scale is tried, and a few sizes around the
/// one that just fits: clipping the largest value a little often pays for all the others. The scale
/// with the least squared error stays.
pub(crate) fn to_int4(values: &[f32; GROUP], nibbles: &mut [u8; GROUP]) -> half::f16 {
    let extreme = values
        .iter()
        .fold(0f32, |a, &v| if v.abs() > a.abs() { v } else { a });
    let mut best = (f32::INFINITY, half::f16::ZERO);
    for steps in [-8.0, 7.0, -7.5, 7.4, -8.6, -9.2] {
        let scale = half::f16::from_f32(extreme / steps);
        let (value, inverse) = (scale.to_f32(), inverse(scale.to_f32()));
        if !value.is_finite() {
            continue;
        }
        let error: f32 = values
            .iter()
            .map(|v| {
                let error = v - nibble(*v, inverse) * value;
                error * error
            })
            .sum();
        if error < best.0 {
            best = (error, scale);
        }
    }
    let inverse = inverse(best.1.to_f32());
    for (to, value) in nibbles.iter_mut().zip(values) {
        *to = (nibble(*value, inverse) as i32 + ZERO4) as u8;
    }
    best.1
}

fn nibble(value: f32, inverse: f32) -> f32 {
    rounded((value * inverse).clamp(-8.0, 7.0))
}

/// To the nearest integer, ties to even, of values below 2²²; unlike `round` no call of a function, so
/// that loops are vectors.
fn rounded(value: f32) -> f32 {
    // 1.5 · 2²³: what is added to it loses its fraction.
    const SHIFT: f32 = 12_582_912.0;
    value + SHIFT - SHIFT
}

/// `1 / scale`, 0 where that is not finite: values too small to be scaled become 0.
fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_integers_by_hand() {
        let values = [0.4, 0.6, -0.6, 1.5, 2.5, -126.9, 127.0];
        assert_eq!(
            values.map(rounded),
            [0.0, 1.0, -1.0, 2.0, 2.0, -127.0, 127.0]
        );
    }

    #[test]
    fn int8_by_hand() {
        let mut bytes = [0; 4];
        assert_eq!(to_int8(&[127.0, -127.0, 0.0, 1.4], &mut bytes), 1.0);
        assert_eq!(bytes, [255, 1, 128, 129]);
        assert_eq!(to_int8(&[0.0; 4], &mut bytes), 0.0);
        assert_eq!(bytes, [128; 4]);
    }

    /// −8 … 7 is held exactly, whichever sign the larger end has.
    #[test]
    fn int4_holds_sixteen_steps() {
        for sign in [1.0, -1.0] {
            let values: [f32; GROUP] = std::array::from_fn(|i| sign * ((i % 16) as f32 - 8.0));
            let mut nibbles = [0; GROUP];
            let scale = to_int4(&values, &mut nibbles).to_f32();
            for (value, nibble) in values.iter().zip(nibbles) {
                assert_eq!(*value, (f32::from(nibble) - 8.0) * scale);
            }
        }
    }

    #[test]
    fn tiny_and_huge_values_stay_finite() {
        for value in [1e-40f32, 1e-9, 1e9, 3e38] {
            let mut nibbles = [0; GROUP];
            let scale = to_int4(&[value; GROUP], &mut nibbles);
            assert!(scale.is_finite(), "{value}");
            let mut bytes = [0; GROUP];
            assert!(to_int8(&[value; GROUP], &mut bytes).is_finite());
        }
    }
}
