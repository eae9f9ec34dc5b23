//! Scalar functions and dot products, written so that they vectorise.

use half::bf16;

use super::{Level, level, per_level};

/// `a · b + c`, fused where the processor can: elsewhere `mul_add` would be a slow library call.
#[inline(always)]
pub(super) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `eˣ`, relative error about 1e-7; clamped so that neither infinity nor a subnormal comes out.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    // x = n·ln 2 + r with |r| ≤ ln 2 / 2, then eʳ by its Taylor series and 2ⁿ through the exponent.
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it leaves the rounded integer in the mantissa
    let x = x.clamp(-87.0, 88.0);
    let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FMA>(n, -0.693_359_4, x);
    let r = fma::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.0 / 5040.0;
    for c in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = fma::<FMA>(p, r, c);
    }
    let exponent = shifted
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .wrapping_add(127)
        << 23;
    p * f32::from_bits(exponent)
}

#[inline(always)]
pub(super) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// Φ(x) = ½ erfc(−x/√2), Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7.
#[inline(always)]
pub(super) fn normal_cdf<const FMA: bool>(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / fma::<FMA>(0.327_591_1, z, 1.0);
    let mut p = 1.061_405_4;
    for c in [-1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6, 0.0] {
        p = fma::<FMA>(p, t, c);
    }
    let half_tail = 0.5 * p * exp::<FMA>(-z * z);
    if x < 0.0 { half_tail } else { 1.0 - half_tail }
}

/// Lanes of partial sums: enough registers in flight to hide the latency of an addition.
const LANES: usize = 64;

#[inline(always)]
pub(super) fn dot_body<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            sums[i] = fma::<FMA>(a[i], b[i], sums[i]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

per_level! { pub(super) fn dot_f32 = dot_body(a: &[f32], b: &[f32]) -> f32 }

#[inline(always)]
fn dot_bf16_body<const FMA: bool>(a: &[f32], b: &[bf16]) -> f32 {
    let widen = |v: bf16| f32::from_bits(u32::from(v.to_bits()) << 16);
    let mut sums = [0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            sums[i] = fma::<FMA>(a[i], widen(b[i]), sums[i]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * widen(*b)).sum();
    sums.iter().sum::<f32>() + rest
}

per_level! { pub(super) fn dot_bf16 = dot_bf16_body(a: &[f32], b: &[bf16]) -> f32 }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_exact_to_a_few_units() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            for y in [exp::<true>(x), exp::<false>(x)] {
                let error = (f64::from(y) - exact).abs() / exact;
                assert!(error < 5e-7, "exp({x}) = {y}, error {error}");
            }
        }
    }
}
