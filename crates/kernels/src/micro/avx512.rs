//! AVX-512: a row of a panel is one register.
//!
//! 12 rows times two panels keep 24 sums in registers, two weights beside them, and activations are
//! broadcast from memory as operands. Integers use `vpdpbusd` (VNNI), rounded activations `vdpbf16ps`.

use std::arch::x86_64::*;

use super::{Lanes, blocks};
use crate::activations::Part;
use crate::format::{BLOCK, Format, GROUP, PANEL, ROW, ZERO4, ZERO8};

/// Bytes from the scales of a block of nibbles to those of the one after the next.
const AHEAD: usize = 2 * (BLOCK / 8 * ROW + BLOCK / GROUP * PANEL * 2);

/// Picks the instance for the number of rows and panels.
macro_rules! by_size {
    ($f:ident($rows:expr, $panels:expr)($($arg:expr),*)) => {
        match ($rows, $panels) {
            (12, 2) => $f::<12, 2>($($arg),*),
            (8, 2) => $f::<8, 2>($($arg),*),
            (4, 2) => $f::<4, 2>($($arg),*),
            (2, 2) => $f::<2, 2>($($arg),*),
            (1, 2) => $f::<1, 2>($($arg),*),
            (12, 1) => $f::<12, 1>($($arg),*),
            (8, 1) => $f::<8, 1>($($arg),*),
            (4, 1) => $f::<4, 1>($($arg),*),
            (2, 1) => $f::<2, 1>($($arg),*),
            (1, 1) => $f::<1, 1>($($arg),*),
            (rows, panels) => unreachable!("no kernel of {rows} rows and {panels} panels"),
        }
    };
}

/// Activations in f32, weights in f32 or bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn floats(format: Format, a: Part<'_>, panels: &[&[u8]], out: &mut [Lanes]) {
    match format {
        Format::F32 => by_size!(float(a.rows, panels.len())(a, panels, out)),
        Format::Bf16 => by_size!(half(a.rows, panels.len())(a, panels, out)),
        Format::Int8 | Format::Int4 => unreachable!("integers have a kernel of their own"),
    }
}

/// Activations and weights in bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,avx512bf16")]
pub(super) fn pairs(a: Part<'_>, panels: &[&[u8]], out: &mut [Lanes]) {
    by_size!(pair(a.rows, panels.len())(a, panels, out));
}

/// Activations in int8, weights in int8 or int4.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,avx512vnni")]
pub(super) fn integers(format: Format, a: Part<'_>, panels: &[&[u8]], out: &mut [Lanes]) {
    match format {
        Format::Int8 => by_size!(int8(a.rows, panels.len())(a, panels, out)),
        Format::Int4 => match (a.rows, panels.len()) {
            (2, 2) => int4_beside::<2, 2>(a, panels, out),
            (1, 2) => int4_beside::<1, 2>(a, panels, out),
            _ => by_size!(int4(a.rows, panels.len())(a, panels, out)),
        },
        Format::F32 | Format::Bf16 => unreachable!("floats have kernels of their own"),
    }
}

/// Row `row` of a panel.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(panel: &[u8], row: usize) -> __m512i {
    debug_assert!((row + 1) * ROW <= panel.len());
    // SAFETY: callers count the rows before their loops; the load wants no alignment.
    unsafe { _mm512_loadu_si512(panel.as_ptr().add(row * ROW).cast()) }
}

/// A word for all columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(words: &[u32], at: usize) -> __m512i {
    debug_assert!(at < words.len());
    // SAFETY: callers count the words before their loops.
    let word = unsafe { _mm_load_ss(words.as_ptr().add(at).cast()) };
    _mm512_broadcastd_epi32(_mm_castps_si128(word))
}

/// The same bits as bf16.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves(bits: __m512i) -> __m512bh {
    // SAFETY: both types are 64 plain bytes.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store<const MR: usize, const NR: usize>(sums: &[[__m512; NR]; MR], out: &mut [Lanes]) {
    for (sums, out) in sums.iter().zip(out.as_chunks_mut::<NR>().0) {
        for (sum, out) in sums.iter().zip(out) {
            // SAFETY: 16 values fit.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *sum) };
        }
    }
}

/// The panels as an array, each long enough for `rows` rows.
#[inline]
fn counted<'a, const NR: usize>(panels: &[&'a [u8]], rows: usize) -> [&'a [u8]; NR] {
    let panels: [&[u8]; NR] = std::array::from_fn(|p| panels[p]);
    assert!(panels.iter().all(|panel| panel.len() >= rows * ROW));
    panels
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn float<const MR: usize, const NR: usize>(a: Part<'_>, panels: &[&[u8]], out: &mut [Lanes]) {
    let words = a.words.len() / MR;
    let panels = counted::<NR>(panels, words);
    let mut sums = [[_mm512_setzero_ps(); NR]; MR];
    for k in 0..words {
        let mut weights = [_mm512_setzero_ps(); NR];
        for p in 0..NR {
            weights[p] = _mm512_castsi512_ps(load(panels[p], k));
        }
        for r in 0..MR {
            let x = _mm512_castsi512_ps(broadcast(a.words, k * MR + r));
            for p in 0..NR {
                sums[r][p] = _mm512_fmadd_ps(x, weights[p], sums[r][p]);
            }
        }
    }
    store(&sums, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn half<const MR: usize, const NR: usize>(a: Part<'_>, panels: &[&[u8]], out: &mut [Lanes]) {
    let pairs = a.words.len() / MR / 2;
    let panels = counted::<NR>(panels, pairs);
    let mut sums = [[_mm512_setzero_ps(); NR]; MR];
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    for k in 0..pairs {
        let mut low = [_mm512_setzero_ps(); NR];
        let mut high = low;
        for p in 0..NR {
            let weights = load(panels[p], k);
            low[p] = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(weights));
            high[p] = _mm512_castsi512_ps(_mm512_and_si512(weights, upper));
        }
        for r in 0..MR {
            let x = _mm512_castsi512_ps(broadcast(a.words, 2 * k * MR + r));
            for p in 0..NR {
                sums[r][p] = _mm512_fmadd_ps(x, low[p], sums[r][p]);
            }
        }
        for r in 0..MR {
            let x = _mm512_castsi512_ps(broadcast(a.words, (2 * k + 1) * MR + r));
            for p in 0..NR {
                sums[r][p] = _mm512_fmadd_ps(x, high[p], sums[r][p]);
            }
        }
    }
    store(&sums, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,avx512bf16")]
fn pair<const MR: usize, const NR: usize>(a: Part<'_>, panels: &[&[u8]], out: &mut [Lanes]) {
    let words = a.words.len() / MR;
    let panels = counted::<NR>(panels, words);
    let mut sums = [[_mm512_setzero_ps(); NR]; MR];
    for k in 0..words {
        let mut weights = [_mm512_setzero_si512(); NR];
        for p in 0..NR {
            weights[p] = load(panels[p], k);
        }
        for r in 0..MR {
            let x = broadcast(a.words, k * MR + r);
            for p in 0..NR {
                sums[r][p] = _mm512_dpbf16_ps(sums[r][p], halves(weights[p]), halves(x));
            }
        }
    }
    store(&sums, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,avx512vnni")]
fn int8<const MR: usize, const NR: usize>(a: Part<'_>, panels: &[&[u8]], out: &mut [Lanes]) {
    let words = a.words.len() / MR;
    let all = counted::<NR>(panels, words);
    let mut total = [[_mm512_setzero_ps(); NR]; MR];
    for block in 0..words.div_ceil(BLOCK / 4) {
        let (from, to) = (block * (BLOCK / 4), words.min((block + 1) * (BLOCK / 4)));
        let begin = Format::Int8.offset(from * 4);
        let mut panels = [all[0]; NR];
        for p in 0..NR {
            panels[p] = &all[p][begin..];
            assert!(panels[p].len() >= (to - from + 1) * ROW);
        }
        let mut sums = [[_mm512_setzero_si512(); NR]; MR];
        for k in 0..to - from {
            let mut weights = [_mm512_setzero_si512(); NR];
            for p in 0..NR {
                weights[p] = load(panels[p], k);
            }
            for r in 0..MR {
                let x = broadcast(a.words, (from + k) * MR + r);
                for p in 0..NR {
                    sums[r][p] = _mm512_dpbusd_epi32(sums[r][p], weights[p], x);
                }
            }
        }
        for p in 0..NR {
            let scale = _mm512_castsi512_ps(load(panels[p], to - from));
            for r in 0..MR {
                let at = block * MR + r;
                let zero = _mm512_set1_epi32(ZERO8 * a.sums[at]);
                let sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[r][p], zero));
                let scale = _mm512_mul_ps(scale, _mm512_set1_ps(a.scales[at]));
                total[r][p] = _mm512_fmadd_ps(sum, scale, total[r][p]);
            }
        }
    }
    store(&total, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,avx512vnni")]
fn int4<const MR: usize, const NR: usize>(a: Part<'_>, panels: &[&[u8]], out: &mut [Lanes]) {
    for p in 0..NR {
        let mut total = [_mm512_setzero_ps(); MR];
        for (a, panel) in blocks(Format::Int4, a, panels[p]) {
            let groups = a.sums.len() / MR;
            let (weights, scales) = panel.split_at(groups * 4 * ROW);
            let scales = scales.as_chunks::<{ PANEL * 2 }>().0;
            assert!(scales.len() >= groups && a.words.len() >= groups * 8 * MR);
            let mut of_block = [_mm512_setzero_ps(); MR];
            for group in 0..groups {
                let scale = nibble_scales(&scales[group]);
                let weights = unpacked(weights, group);
                for r in 0..MR {
                    let zero = -ZERO4 * a.sums[group * MR + r];
                    let mut sum = _mm512_set1_epi32(zero);
                    for step in 0..8 {
                        let x = broadcast(a.words, (group * 8 + step) * MR + r);
                        sum = _mm512_dpbusd_epi32(sum, weights[step], x);
                    }
                    of_block[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, of_block[r]);
                }
            }
            for r in 0..MR {
                total[r] = _mm512_fmadd_ps(of_block[r], _mm512_set1_ps(a.scales[r]), total[r]);
            }
        }
        for r in 0..MR {
            // SAFETY: 16 values fit.
            unsafe { _mm512_storeu_ps(out[r * NR + p].as_mut_ptr(), total[r]) };
        }
    }
}

/// The same for a row or two, which are bound by reading the weight: panels are read side by side, so that
/// more of memory is on its way at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,avx512vnni")]
fn int4_beside<const MR: usize, const NR: usize>(a: Part<'_>, panels: &[&[u8]], out: &mut [Lanes]) {
    let mut total = [[_mm512_setzero_ps(); NR]; MR];
    let mut parts: [_; NR] = std::array::from_fn(|p| blocks(Format::Int4, a, panels[p]));
    loop {
        let found: [_; NR] = std::array::from_fn(|p| parts[p].next());
        let Some((a, _)) = found[0] else { break };
        let groups = a.sums.len() / MR;
        assert!(a.words.len() >= groups * 8 * MR);
        let parts = found.map(|part| {
            let panel = part.map_or(&[][..], |(_, panel)| panel);
            let (weights, scales) = panel.split_at(groups * 4 * ROW);
            let scales = scales.as_chunks::<{ PANEL * 2 }>().0;
            assert!(scales.len() >= groups);
            (weights, scales)
        });
        let mut of_block = [[_mm512_setzero_ps(); NR]; MR];
        for group in 0..groups {
            for (p, (weights, scales)) in parts.iter().enumerate() {
                ahead(&scales[group]);
                ahead(&weights[group * 4 * ROW..]);
                let scale = nibble_scales(&scales[group]);
                let weights = sixteenfold(weights, group);
                for r in 0..MR {
                    let zero = -ZERO4 * a.sums[group * MR + r];
                    let mut sums = [_mm512_set1_epi32(zero), _mm512_setzero_si512()];
                    for step in 0..8 {
                        let x = broadcast(a.words, (group * 8 + step) * MR + r);
                        sums[step % 2] = _mm512_dpbusd_epi32(sums[step % 2], weights[step], x);
                    }
                    let sum = _mm512_add_epi32(sums[0], _mm512_srai_epi32::<4>(sums[1]));
                    let sum = _mm512_cvtepi32_ps(sum);
                    of_block[r][p] = _mm512_fmadd_ps(sum, scale, of_block[r][p]);
                }
            }
        }
        for r in 0..MR {
            let scale = _mm512_set1_ps(a.scales[r]);
            for p in 0..NR {
                total[r][p] = _mm512_fmadd_ps(of_block[r][p], scale, total[r][p]);
            }
        }
    }
    store(&total, out);
}

/// Asks for what lies [`AHEAD`] bytes after the first four lines of a slice: unpacking leaves no room in the
/// processor's window to see so far itself, and scales are wanted before the weights in front of them.
#[inline]
#[target_feature(enable = "avx512f")]
fn ahead(bytes: &[u8]) {
    let next = bytes.as_ptr().wrapping_add(AHEAD);
    for line in 0..bytes.len().div_ceil(ROW).min(4) {
        // Nothing is read; an address that is not there is passed over.
        _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(line * ROW).cast());
    }
}

/// As [`unpacked`], but the odd ones, the upper nibbles, are 16 times as large: a shift less.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn sixteenfold(weights: &[u8], group: usize) -> [__m512i; 8] {
    let (lower, upper) = (_mm512_set1_epi8(15), _mm512_set1_epi8(-16));
    let mut rows = [_mm512_setzero_si512(); 8];
    assert!(weights.len() >= (group * 4 + 4) * ROW);
    for i in 0..4 {
        let both = load(weights, group * 4 + i);
        rows[2 * i] = _mm512_and_si512(both, lower);
        rows[2 * i + 1] = _mm512_and_si512(both, upper);
    }
    rows
}

/// The eight rows of bytes of a group of nibbles.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn unpacked(weights: &[u8], group: usize) -> [__m512i; 8] {
    let mask = _mm512_set1_epi8(15);
    let mut rows = [_mm512_setzero_si512(); 8];
    assert!(weights.len() >= (group * 4 + 4) * ROW);
    for i in 0..4 {
        let both = load(weights, group * 4 + i);
        rows[2 * i] = _mm512_and_si512(both, mask);
        rows[2 * i + 1] = _mm512_and_si512(_mm512_srli_epi16::<4>(both), mask);
    }
    rows
}

#[inline]
#[target_feature(enable = "avx512f")]
fn nibble_scales(scales: &[u8; PANEL * 2]) -> __m512 {
    // SAFETY: 32 bytes are there; the load wants no alignment.
    let scales = unsafe { _mm256_loadu_si256(scales.as_ptr().cast()) };
    _mm512_cvtph_ps(scales)
}
