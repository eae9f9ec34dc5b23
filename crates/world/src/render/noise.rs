//! Smooth noise over the plane: value noise on an integer lattice, the same for the same seed.

/// Noise of one octave at `(x, y)`, in `-1..=1`, with features of about unit size.
pub(crate) fn value_noise(seed: u32, x: f64, y: f64) -> f64 {
    let (x0, y0) = (x.floor(), y.floor());
    let (u, v) = (ease(x - x0), ease(y - y0));
    let corner = |dx: f64, dy: f64| lattice(seed, (x0 + dx) as i64, (y0 + dy) as i64);
    let near = mix(corner(0.0, 0.0), corner(1.0, 0.0), u);
    let far = mix(corner(0.0, 1.0), corner(1.0, 1.0), u);
    mix(near, far, v)
}

/// `3t² - 2t³`: flat at both ends, so that lattice lines do not show.
fn ease(t: f64) -> f64 {
    t * t * (3.0 - 2.0 * t)
}

fn mix(a: f64, b: f64, t: f64) -> f64 {
    a + (b - a) * t
}

/// A number in `-1..=1` for each lattice point: multiply and shift until all bits depend on all.
fn lattice(seed: u32, x: i64, y: i64) -> f64 {
    let mut bits = u64::from(seed)
        ^ (x as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (y as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    bits ^= bits >> 29;
    bits = bits.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits ^= bits >> 32;
    f64::from(bits as u32) / f64::from(u32::MAX) * 2.0 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_bounded_continuous_and_depends_on_its_seed() {
        let mut differs = false;
        for step in -400..400 {
            let x = f64::from(step) * 0.037;
            let here = value_noise(1, x, 0.3 * x);
            assert!(here.abs() <= 1.0);
            assert!((here - value_noise(1, x + 1e-4, 0.3 * x)).abs() < 1e-3);
            differs |= (here - value_noise(2, x, 0.3 * x)).abs() > 0.1;
        }
        assert!(differs);
    }
}
