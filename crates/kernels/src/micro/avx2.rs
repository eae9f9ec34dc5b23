//! AVX2: a row of a panel is two registers.
//!
//! Bytes are multiplied by `pmaddubsw`, whose sums of two products saturate at 16 bits: int8 weights
//! are made signed and multiplied as `|w| · sign(w) x`, at most 2 · 127²; nibbles are small enough for
//! eight sums.

use std::arch::x86_64::*;

use super::{Lanes, blocks};
use crate::activations::Part;
use crate::format::{Format, PANEL, ROW, ZERO4};

/// Picks the instance for the number of rows.
macro_rules! by_rows {
    ($f:ident($rows:expr, [$($n:literal),*])($a:expr, $panel:expr, $out:expr)) => {
        match $rows {
            $($n => $f::<$n>($a, $panel, $out),)*
            rows => unreachable!("no kernel of {rows} rows"),
        }
    };
}

/// See [`super::Kernel::run`]; the lengths were checked there.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn run(format: Format, a: Part<'_>, panels: &[&[u8]], out: &mut [Lanes]) {
    for (p, panel) in panels.iter().enumerate() {
        let mut lanes = [[0f32; PANEL]; 6];
        let lanes = &mut lanes[..a.rows];
        match format {
            Format::F32 => by_rows!(float(a.rows, [6, 4, 2, 1])(a, panel, lanes)),
            Format::Bf16 => by_rows!(half(a.rows, [6, 4, 2, 1])(a, panel, lanes)),
            Format::Int8 => by_rows!(int8(a.rows, [4, 2, 1])(a, panel, lanes)),
            Format::Int4 => by_rows!(int4(a.rows, [4, 2, 1])(a, panel, lanes)),
        }
        for (row, lanes) in lanes.iter().enumerate() {
            out[row * panels.len() + p] = *lanes;
        }
    }
}

/// Row `row` of a panel.
#[inline]
#[target_feature(enable = "avx2")]
fn load(panel: &[u8], row: usize) -> [__m256i; 2] {
    debug_assert!((row + 1) * ROW <= panel.len());
    // SAFETY: callers count the rows before their loops; the loads want no alignment.
    unsafe {
        let first = panel.as_ptr().add(row * ROW).cast::<__m256i>();
        [_mm256_loadu_si256(first), _mm256_loadu_si256(first.add(1))]
    }
}

/// A word for all columns.
#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(words: &[u32], at: usize) -> __m256i {
    debug_assert!(at < words.len());
    // SAFETY: callers count the words before their loops.
    _mm256_set1_epi32(unsafe { *words.get_unchecked(at) } as i32)
}

#[inline]
#[target_feature(enable = "avx2")]
fn store<const MR: usize>(sums: &[[__m256; 2]; MR], out: &mut [Lanes]) {
    for (sums, out) in sums.iter().zip(out) {
        for (sum, out) in sums.iter().zip(out.as_chunks_mut::<8>().0) {
            // SAFETY: 8 values fit.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), *sum) };
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn float<const MR: usize>(a: Part<'_>, panel: &[u8], out: &mut [Lanes]) {
    let words = a.words.len() / MR;
    assert!(panel.len() >= words * ROW);
    let mut sums = [[_mm256_setzero_ps(); 2]; MR];
    for k in 0..words {
        let [left, right] = load(panel, k);
        let weights = [_mm256_castsi256_ps(left), _mm256_castsi256_ps(right)];
        for r in 0..MR {
            let x = _mm256_castsi256_ps(broadcast(a.words, k * MR + r));
            for i in 0..2 {
                sums[r][i] = _mm256_fmadd_ps(x, weights[i], sums[r][i]);
            }
        }
    }
    store(&sums, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn half<const MR: usize>(a: Part<'_>, panel: &[u8], out: &mut [Lanes]) {
    let pairs = a.words.len() / MR / 2;
    assert!(panel.len() >= pairs * ROW);
    let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
    let mut sums = [[_mm256_setzero_ps(); 2]; MR];
    for k in 0..pairs {
        let weights = load(panel, k);
        for r in 0..MR {
            let x = _mm256_castsi256_ps(broadcast(a.words, 2 * k * MR + r));
            for i in 0..2 {
                let low = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(weights[i]));
                sums[r][i] = _mm256_fmadd_ps(x, low, sums[r][i]);
            }
        }
        for r in 0..MR {
            let x = _mm256_castsi256_ps(broadcast(a.words, (2 * k + 1) * MR + r));
            for i in 0..2 {
                let high = _mm256_castsi256_ps(_mm256_and_si256(weights[i], upper));
                sums[r][i] = _mm256_fmadd_ps(x, high, sums[r][i]);
            }
        }
    }
    store(&sums, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn int8<const MR: usize>(a: Part<'_>, panel: &[u8], out: &mut [Lanes]) {
    let (offset, ones) = (_mm256_set1_epi8(-128), _mm256_set1_epi16(1));
    let mut total = [[_mm256_setzero_ps(); 2]; MR];
    for (a, panel) in blocks(Format::Int8, a, panel) {
        let words = a.words.len() / MR;
        assert!(panel.len() >= (words + 1) * ROW);
        let mut sums = [[_mm256_setzero_si256(); 2]; MR];
        for k in 0..words {
            let weights = load(panel, k);
            for i in 0..2 {
                let signed = _mm256_xor_si256(weights[i], offset);
                let size = _mm256_abs_epi8(signed);
                for r in 0..MR {
                    let x = _mm256_sign_epi8(broadcast(a.words, k * MR + r), signed);
                    let two = _mm256_madd_epi16(_mm256_maddubs_epi16(size, x), ones);
                    sums[r][i] = _mm256_add_epi32(sums[r][i], two);
                }
            }
        }
        let scales = load(panel, words);
        for r in 0..MR {
            let of_row = _mm256_set1_ps(a.scales[r]);
            for i in 0..2 {
                let scale = _mm256_mul_ps(_mm256_castsi256_ps(scales[i]), of_row);
                total[r][i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[r][i]), scale, total[r][i]);
            }
        }
    }
    store(&total, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn int4<const MR: usize>(a: Part<'_>, panel: &[u8], out: &mut [Lanes]) {
    let (mask, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let mut total = [[_mm256_setzero_ps(); 2]; MR];
    for (a, panel) in blocks(Format::Int4, a, panel) {
        let groups = a.sums.len() / MR;
        let (weights, scales) = panel.split_at(groups * 4 * ROW);
        let scales = scales.as_chunks::<{ PANEL * 2 }>().0;
        assert!(scales.len() >= groups && a.words.len() >= groups * 8 * MR);
        let mut of_block = [[_mm256_setzero_ps(); 2]; MR];
        for group in 0..groups {
            // At most 8 · 2 · 15 · 127 = 30480 in each of 16 bits.
            let mut sums = [[_mm256_setzero_si256(); 2]; MR];
            for step in 0..4 {
                let both = load(weights, group * 4 + step);
                for i in 0..2 {
                    let low = _mm256_and_si256(both[i], mask);
                    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(both[i]), mask);
                    for r in 0..MR {
                        let at = (group * 8 + 2 * step) * MR + r;
                        let two = _mm256_add_epi16(
                            _mm256_maddubs_epi16(low, broadcast(a.words, at)),
                            _mm256_maddubs_epi16(high, broadcast(a.words, at + MR)),
                        );
                        sums[r][i] = _mm256_add_epi16(sums[r][i], two);
                    }
                }
            }
            let scale = nibble_scales(&scales[group]);
            for r in 0..MR {
                let zero = _mm256_set1_epi32(ZERO4 * a.sums[group * MR + r]);
                for i in 0..2 {
                    let sum = _mm256_sub_epi32(_mm256_madd_epi16(sums[r][i], ones), zero);
                    of_block[r][i] =
                        _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale[i], of_block[r][i]);
                }
            }
        }
        for r in 0..MR {
            let of_row = _mm256_set1_ps(a.scales[r]);
            for i in 0..2 {
                total[r][i] = _mm256_fmadd_ps(of_block[r][i], of_row, total[r][i]);
            }
        }
    }
    store(&total, out);
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn nibble_scales(scales: &[u8; PANEL * 2]) -> [__m256; 2] {
    // SAFETY: 32 bytes are there; the loads want no alignment.
    unsafe {
        let first = scales.as_ptr().cast::<__m128i>();
        [
            _mm256_cvtph_ps(_mm_loadu_si128(first)),
            _mm256_cvtph_ps(_mm_loadu_si128(first.add(1))),
        ]
    }
}
