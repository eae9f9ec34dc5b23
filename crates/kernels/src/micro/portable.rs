//! For any processor: plain loops over 16 columns, which compilers turn into what vectors there are.

use half::f16;

use super::{Lanes, blocks};
use crate::activations::Part;
use crate::format::{Format, GROUP, PANEL, ROW, ZERO4, ZERO8};

/// See [`super::Kernel::run`]; the lengths were checked there.
pub(super) fn run(format: Format, a: Part<'_>, panels: &[&[u8]], out: &mut [Lanes]) {
    for (p, panel) in panels.iter().enumerate() {
        for row in 0..a.rows {
            out[row * panels.len() + p] = match format {
                Format::F32 => float(a, row, panel),
                Format::Bf16 => half(a, row, panel),
                Format::Int8 => int8(a, row, panel),
                Format::Int4 => int4(a, row, panel),
            };
        }
    }
}

/// One row of activations, four bytes at a time.
fn words<'a>(a: Part<'a>, row: usize) -> impl Iterator<Item = u32> + 'a {
    a.words[row..].iter().step_by(a.rows).copied()
}

fn lanes(row: &[u8; ROW]) -> &[[u8; 4]; PANEL] {
    row.as_chunks::<4>()
        .0
        .as_array()
        .expect("64 bytes are 16 times 4")
}

fn float(a: Part<'_>, row: usize, panel: &[u8]) -> Lanes {
    let mut sums = [0f32; PANEL];
    for (x, weights) in words(a, row).zip(panel.as_chunks::<ROW>().0) {
        let x = f32::from_bits(x);
        for (sum, weight) in sums.iter_mut().zip(lanes(weights)) {
            *sum += x * f32::from_le_bytes(*weight);
        }
    }
    sums
}

fn half(a: Part<'_>, row: usize, panel: &[u8]) -> Lanes {
    let mut sums = [0f32; PANEL];
    let mut words = words(a, row).map(f32::from_bits);
    for weights in panel.as_chunks::<ROW>().0 {
        let [low, high] = [(); 2].map(|()| words.next().unwrap_or(0.0));
        for (sum, weight) in sums.iter_mut().zip(lanes(weights)) {
            let weight = u32::from_le_bytes(*weight);
            *sum += low * f32::from_bits(weight << 16);
            *sum += high * f32::from_bits(weight & 0xffff_0000);
        }
    }
    sums
}

fn int8(a: Part<'_>, row: usize, panel: &[u8]) -> Lanes {
    let mut total = [0f32; PANEL];
    for (a, panel) in blocks(Format::Int8, a, panel) {
        let (weights, scales) = panel.split_at(panel.len() - ROW);
        let mut sums = [-ZERO8 * a.sums[row]; PANEL];
        for (x, weights) in words(a, row).zip(weights.as_chunks::<ROW>().0) {
            let x = x.to_le_bytes().map(|v| i32::from(v as i8));
            for (sum, weight) in sums.iter_mut().zip(lanes(weights)) {
                *sum += dot(x, weight.map(i32::from));
            }
        }
        let scales = scales.as_chunks::<4>().0;
        for ((total, sum), scale) in total.iter_mut().zip(sums).zip(scales) {
            *total += sum as f32 * (a.scales[row] * f32::from_le_bytes(*scale));
        }
    }
    total
}

fn int4(a: Part<'_>, row: usize, panel: &[u8]) -> Lanes {
    let mut total = [0f32; PANEL];
    for (a, panel) in blocks(Format::Int4, a, panel) {
        let groups = a.sums.len() / a.rows;
        let (weights, scales) = panel.split_at(groups * GROUP / 8 * ROW);
        let mut of_block = [0f32; PANEL];
        let mut words = words(a, row).map(|x| x.to_le_bytes().map(|v| i32::from(v as i8)));
        for group in 0..groups {
            let mut sums = [-ZERO4 * a.sums[group * a.rows + row]; PANEL];
            for weights in &weights.as_chunks::<ROW>().0[group * 4..][..4] {
                let [low, high] = [(); 2].map(|()| words.next().unwrap_or_default());
                for (sum, weight) in sums.iter_mut().zip(lanes(weights)) {
                    *sum += dot(low, weight.map(|w| i32::from(w & 15)));
                    *sum += dot(high, weight.map(|w| i32::from(w >> 4)));
                }
            }
            let scales = scales[group * PANEL * 2..].as_chunks::<2>().0;
            for ((to, sum), scale) in of_block.iter_mut().zip(sums).zip(scales) {
                *to += sum as f32 * f16::from_le_bytes(*scale).to_f32();
            }
        }
        for (total, sum) in total.iter_mut().zip(of_block) {
            *total += sum * a.scales[row];
        }
    }
    total
}

fn dot(x: [i32; 4], weight: [i32; 4]) -> i32 {
    x[0] * weight[0] + x[1] * weight[1] + x[2] * weight[2] + x[3] * weight[3]
}
