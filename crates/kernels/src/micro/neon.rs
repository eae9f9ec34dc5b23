//! NEON: a row of a panel is four registers.
//!
//! Bytes are multiplied by `sdot` where the processor has it, else widened to 16 bits. `sdot` is no
//! stable intrinsic yet, so it is one line of assembly.

use std::arch::aarch64::*;
use std::arch::asm;

use half::f16;

use super::{Lanes, blocks};
use crate::activations::Part;
use crate::format::{Format, PANEL, ROW, ZERO4};

/// See [`super::Kernel::run`]; the lengths were checked there. `DOT`: the processor has `sdot`.
#[target_feature(enable = "neon")]
pub(super) fn run<const DOT: bool>(
    format: Format,
    a: Part<'_>,
    panels: &[&[u8]],
    out: &mut [Lanes],
) {
    for (p, panel) in panels.iter().enumerate() {
        let mut lanes = [[0f32; PANEL]; 6];
        let lanes = &mut lanes[..a.rows];
        match (format, a.rows) {
            (Format::F32, 6) => float::<6>(a, panel, lanes),
            (Format::F32, 4) => float::<4>(a, panel, lanes),
            (Format::F32, 2) => float::<2>(a, panel, lanes),
            (Format::F32, 1) => float::<1>(a, panel, lanes),
            (Format::Bf16, 6) => half::<6>(a, panel, lanes),
            (Format::Bf16, 4) => half::<4>(a, panel, lanes),
            (Format::Bf16, 2) => half::<2>(a, panel, lanes),
            (Format::Bf16, 1) => half::<1>(a, panel, lanes),
            (Format::Int8, 4) => int8::<4, DOT>(a, panel, lanes),
            (Format::Int8, 2) => int8::<2, DOT>(a, panel, lanes),
            (Format::Int8, 1) => int8::<1, DOT>(a, panel, lanes),
            (Format::Int4, 4) => int4::<4, DOT>(a, panel, lanes),
            (Format::Int4, 2) => int4::<2, DOT>(a, panel, lanes),
            (Format::Int4, 1) => int4::<1, DOT>(a, panel, lanes),
            (_, rows) => unreachable!("no kernel of {rows} rows"),
        }
        for (row, lanes) in lanes.iter().enumerate() {
            out[row * panels.len() + p] = *lanes;
        }
    }
}

/// Row `row` of a panel.
#[inline]
#[target_feature(enable = "neon")]
fn load(panel: &[u8], row: usize) -> [uint8x16_t; 4] {
    debug_assert!((row + 1) * ROW <= panel.len());
    // SAFETY: callers count the rows before their loops; the loads want no alignment.
    unsafe {
        let first = panel.as_ptr().add(row * ROW);
        [
            vld1q_u8(first),
            vld1q_u8(first.add(16)),
            vld1q_u8(first.add(32)),
            vld1q_u8(first.add(48)),
        ]
    }
}

/// A word of the activations.
#[inline]
fn word(words: &[u32], at: usize) -> u32 {
    debug_assert!(at < words.len());
    // SAFETY: callers count the words before their loops.
    unsafe { *words.get_unchecked(at) }
}

#[inline]
#[target_feature(enable = "neon")]
fn store<const MR: usize>(sums: &[[float32x4_t; 4]; MR], out: &mut [Lanes]) {
    for (sums, out) in sums.iter().zip(out) {
        for (sum, out) in sums.iter().zip(out.as_chunks_mut::<4>().0) {
            // SAFETY: 4 values fit.
            unsafe { vst1q_f32(out.as_mut_ptr(), *sum) };
        }
    }
}

#[target_feature(enable = "neon")]
fn float<const MR: usize>(a: Part<'_>, panel: &[u8], out: &mut [Lanes]) {
    let words = a.words.len() / MR;
    assert!(panel.len() >= words * ROW);
    let mut sums = [[vdupq_n_f32(0.0); 4]; MR];
    for k in 0..words {
        let weights = load(panel, k);
        for r in 0..MR {
            let x = f32::from_bits(word(a.words, k * MR + r));
            for i in 0..4 {
                sums[r][i] = vfmaq_n_f32(sums[r][i], vreinterpretq_f32_u8(weights[i]), x);
            }
        }
    }
    store(&sums, out);
}

#[target_feature(enable = "neon")]
fn half<const MR: usize>(a: Part<'_>, panel: &[u8], out: &mut [Lanes]) {
    let pairs = a.words.len() / MR / 2;
    assert!(panel.len() >= pairs * ROW);
    let upper = vdupq_n_u32(0xffff_0000);
    let mut sums = [[vdupq_n_f32(0.0); 4]; MR];
    for k in 0..pairs {
        let weights = load(panel, k);
        for r in 0..MR {
            let low = f32::from_bits(word(a.words, 2 * k * MR + r));
            let high = f32::from_bits(word(a.words, (2 * k + 1) * MR + r));
            for i in 0..4 {
                let both = vreinterpretq_u32_u8(weights[i]);
                let first = vreinterpretq_f32_u32(vshlq_n_u32::<16>(both));
                let second = vreinterpretq_f32_u32(vandq_u32(both, upper));
                sums[r][i] = vfmaq_n_f32(sums[r][i], first, low);
                sums[r][i] = vfmaq_n_f32(sums[r][i], second, high);
            }
        }
    }
    store(&sums, out);
}

/// Adds to each of four sums the products of four bytes.
#[inline]
#[target_feature(enable = "neon")]
fn dot<const DOT: bool>(sum: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    if DOT {
        let mut sum = sum;
        // SAFETY: registers only; `DOT` says that the processor has the instruction.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {sum:v}.4s, {weights:v}.16b, {x:v}.16b",
                sum = inout(vreg) sum,
                weights = in(vreg) weights,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        return sum;
    }
    let low = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
    let high = vmull_high_s8(weights, x);
    vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)))
}

#[inline]
#[target_feature(enable = "neon")]
fn broadcast(words: &[u32], at: usize) -> int8x16_t {
    vreinterpretq_s8_u32(vdupq_n_u32(word(words, at)))
}

#[target_feature(enable = "neon")]
fn int8<const MR: usize, const DOT: bool>(a: Part<'_>, panel: &[u8], out: &mut [Lanes]) {
    let offset = vdupq_n_u8(128);
    let mut total = [[vdupq_n_f32(0.0); 4]; MR];
    for (a, panel) in blocks(Format::Int8, a, panel) {
        let words = a.words.len() / MR;
        assert!(panel.len() >= (words + 1) * ROW);
        let mut sums = [[vdupq_n_s32(0); 4]; MR];
        for k in 0..words {
            let weights = load(panel, k);
            for i in 0..4 {
                let signed = vreinterpretq_s8_u8(veorq_u8(weights[i], offset));
                for r in 0..MR {
                    sums[r][i] = dot::<DOT>(sums[r][i], signed, broadcast(a.words, k * MR + r));
                }
            }
        }
        let scales = load(panel, words);
        for r in 0..MR {
            for i in 0..4 {
                let scale = vmulq_n_f32(vreinterpretq_f32_u8(scales[i]), a.scales[r]);
                total[r][i] = vfmaq_f32(total[r][i], vcvtq_f32_s32(sums[r][i]), scale);
            }
        }
    }
    store(&total, out);
}

#[target_feature(enable = "neon")]
fn int4<const MR: usize, const DOT: bool>(a: Part<'_>, panel: &[u8], out: &mut [Lanes]) {
    let mask = vdupq_n_u8(15);
    let mut total = [[vdupq_n_f32(0.0); 4]; MR];
    for (a, panel) in blocks(Format::Int4, a, panel) {
        let groups = a.sums.len() / MR;
        let (weights, scales) = panel.split_at(groups * 4 * ROW);
        assert!(scales.len() >= groups * PANEL * 2 && a.words.len() >= groups * 8 * MR);
        let mut of_block = [[vdupq_n_f32(0.0); 4]; MR];
        for group in 0..groups {
            let mut sums = [[vdupq_n_s32(0); 4]; MR];
            for r in 0..MR {
                sums[r] = [vdupq_n_s32(-ZERO4 * a.sums[group * MR + r]); 4];
            }
            for step in 0..4 {
                let both = load(weights, group * 4 + step);
                for i in 0..4 {
                    let low = vreinterpretq_s8_u8(vandq_u8(both[i], mask));
                    let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(both[i]));
                    for r in 0..MR {
                        let at = (group * 8 + 2 * step) * MR + r;
                        sums[r][i] = dot::<DOT>(sums[r][i], low, broadcast(a.words, at));
                        sums[r][i] = dot::<DOT>(sums[r][i], high, broadcast(a.words, at + MR));
                    }
                }
            }
            let scale = nibble_scales(&scales[group * PANEL * 2..]);
            for r in 0..MR {
                for i in 0..4 {
                    let sum = vcvtq_f32_s32(sums[r][i]);
                    of_block[r][i] = vfmaq_f32(of_block[r][i], sum, scale[i]);
                }
            }
        }
        for r in 0..MR {
            for i in 0..4 {
                total[r][i] = vfmaq_n_f32(total[r][i], of_block[r][i], a.scales[r]);
            }
        }
    }
    store(&total, out);
}

#[inline]
#[target_feature(enable = "neon")]
fn nibble_scales(scales: &[u8]) -> [float32x4_t; 4] {
    let mut wide = [0f32; PANEL];
    for (wide, scale) in wide.iter_mut().zip(scales.as_chunks::<2>().0) {
        *wide = f16::from_le_bytes(*scale).to_f32();
    }
    // SAFETY: 16 values are there.
    unsafe {
        let first = wide.as_ptr();
        [
            vld1q_f32(first),
            vld1q_f32(first.add(4)),
            vld1q_f32(first.add(8)),
            vld1q_f32(first.add(12)),
        ]
    }
}
