//! Activations in the order in which kernels read them.
//!
//! Rows are taken in tiles of a few (how many depends on the path); within a tile, four bytes of the
//! first row, four of the second, and so on, then the next four of each. Four bytes are one f32, two
//! bf16, or four int8 with a scale per row and 256 values.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::Path;
use crate::format::{BLOCK, GROUP};
use crate::micro::{Kernel, MAX_ROWS};
use crate::pack::bf16_pair;
use crate::transpose::interleave;

/// What four bytes hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One f32.
    Float,
    /// Two bf16.
    Pairs,
    /// Four int8, sums over 256 values.
    Bytes,
    /// Four int8, sums over 32 values.
    Groups,
}

impl Kind {
    fn per_word(self) -> usize {
        match self {
            Self::Float => 1,
            Self::Pairs => 2,
            Self::Bytes | Self::Groups => 4,
        }
    }

    /// Values that share a sum; 0 where there are none.
    pub(crate) fn per_sum(self) -> usize {
        match self {
            Self::Float | Self::Pairs => 0,
            Self::Bytes => BLOCK,
            Self::Groups => GROUP,
        }
    }
}

/// Rows that are computed together.
pub(crate) struct Tile {
    /// First row.
    pub(crate) first: usize,
    /// Number of rows.
    pub(crate) rows: usize,
}

/// Prepared activations.
pub(crate) struct Prepared {
    pub(crate) kind: Kind,
    pub(crate) tiles: Vec<Tile>,
    k: usize,
    words: Box<[u32]>,
    /// One per row of a tile and block of 256, in the order of the tiles.
    scales: Vec<f32>,
    /// As [`Kind::per_sum`] says.
    sums: Vec<i32>,
}

/// A part of a tile: the words, scales and sums from one `k` to another.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) rows: usize,
    pub(crate) words: &'a [u32],
    pub(crate) scales: &'a [f32],
    pub(crate) sums: &'a [i32],
}

impl Prepared {
    /// Prepares `x`, `[m, k]`, for a kernel.
    pub(crate) fn new(x: &[f32], m: usize, kernel: Kernel) -> Self {
        let k = x.len() / m.max(1);
        let kind = kernel.kind();
        let padded = kernel.format().padded(k);
        let tiles = tiles(m, kernel.rows());
        let words = padded / kind.per_word();
        let blocks = match kind {
            Kind::Float | Kind::Pairs => 0,
            Kind::Bytes | Kind::Groups => padded.div_ceil(BLOCK),
        };
        let sums = padded
            .checked_div(kind.per_sum())
            .map_or(0, |_| padded.div_ceil(kind.per_sum()));
        let mut all_words = Box::new_uninit_slice(words * m);
        let mut all_scales = vec![0.0; blocks * m];
        let mut all_sums = vec![0; sums * m];
        let mut rest = (&mut *all_words, &mut *all_scales, &mut *all_sums);
        let mut jobs = Vec::with_capacity(tiles.len());
        for &Tile { first, rows } in &tiles {
            let job;
            (job, rest) = TileJob::split(
                &x[first * k..][..rows * k],
                rows,
                rest,
                [words, blocks, sums],
            );
            jobs.push(job);
        }
        let run = |job: TileJob<'_>| job.run(kind, kernel.path());
        if m * k < 1 << 14 {
            jobs.into_iter().for_each(run);
        } else {
            jobs.into_par_iter().for_each(run);
        }
        Self {
            kind,
            k: padded,
            // SAFETY: tiles are all of the rows, and every job fills its words.
            words: unsafe { all_words.assume_init() },
            scales: all_scales,
            sums: all_sums,
            tiles,
        }
    }

    /// A part of a tile; `from` and `to` are multiples of [`BLOCK`], or the padded end.
    pub(crate) fn part(&self, tile: &Tile, from: usize, to: usize) -> Part<'_> {
        let part = |per: usize| {
            let all = self.k.div_ceil(per);
            let begin = tile.first * all;
            begin + from / per * tile.rows..begin + to.div_ceil(per) * tile.rows
        };
        let (scales, sums) = match self.kind.per_sum() {
            0 => (0..0, 0..0),
            per => (part(BLOCK), part(per)),
        };
        Part {
            rows: tile.rows,
            words: &self.words[part(self.kind.per_word())],
            scales: &self.scales[scales],
            sums: &self.sums[sums],
        }
    }
}

/// What is prepared of all tiles, or of those that are left.
type Parts<'a> = (&'a mut [MaybeUninit<u32>], &'a mut [f32], &'a mut [i32]);

/// A tile to be prepared.
struct TileJob<'a> {
    x: &'a [f32],
    rows: usize,
    parts: Parts<'a>,
}

impl<'a> TileJob<'a> {
    /// Takes what is its own from the beginning of `parts`; returns the rest, too.
    fn split(
        x: &'a [f32],
        rows: usize,
        (words, scales, sums): Parts<'a>,
        per_row: [usize; 3],
    ) -> (Self, Parts<'a>) {
        let (words, other_words) = words.split_at_mut(per_row[0] * rows);
        let (scales, other_scales) = scales.split_at_mut(per_row[1] * rows);
        let (sums, other_sums) = sums.split_at_mut(per_row[2] * rows);
        let parts = (words, scales, sums);
        (
            Self { x, rows, parts },
            (other_words, other_scales, other_sums),
        )
    }

    fn run(self, kind: Kind, path: Path) {
        let Self { x, rows, parts } = self;
        let (words, scales, sums) = parts;
        // Padding stays 0. Here, and not when memory was taken, the words are in a cache, and each
        // thread has its own.
        words.fill(MaybeUninit::new(0));
        // SAFETY: all of them have just been written.
        let words = unsafe { words.assume_init_mut() };
        match kind {
            Kind::Float => floats(x, rows, words, path),
            Kind::Pairs => pairs(x, rows, words, path),
            Kind::Bytes | Kind::Groups => {
                bytes(x, (rows, kind.per_sum()), words, scales, sums, path);
            }
        }
    }
}

/// `m` rows in tiles of the given sizes, the largest first.
fn tiles(m: usize, sizes: &[usize]) -> Vec<Tile> {
    let mut tiles = Vec::new();
    let mut first = 0;
    for &rows in sizes {
        while m - first >= rows {
            tiles.push(Tile { first, rows });
            first += rows;
        }
    }
    tiles
}

/// Values of a row that are prepared at a time: what they become stays in the first cache.
const PIECE: usize = 2 * BLOCK;

fn floats(x: &[f32], rows: usize, words: &mut [u32], path: Path) {
    let k = x.len() / rows;
    interleave(bytemuck::cast_slice(x), k, rows, k, words, path);
}

fn pairs(x: &[f32], rows: usize, words: &mut [u32], path: Path) {
    const WORDS: usize = PIECE / 2;
    let k = x.len() / rows;
    let mut piece = [0u32; MAX_ROWS * WORDS];
    for start in (0..k).step_by(PIECE) {
        let count = (k - start).min(PIECE).div_ceil(2);
        for (x, piece) in x.chunks_exact(k).zip(piece.chunks_exact_mut(WORDS)) {
            let x = &x[start..k.min(start + PIECE)];
            let done = rounded(x, piece, path);
            let (two, rest) = x[2 * done..].as_chunks::<2>();
            let piece = &mut piece[done..];
            for (to, &[low, high]) in piece.iter_mut().zip(two) {
                *to = bf16_pair(low, high);
            }
            if let [low] = *rest {
                piece[two.len()] = bf16_pair(low, 0.0);
            }
        }
        let words = &mut words[start / 2 * rows..];
        interleave(&piece, WORDS, rows, count, words, path);
    }
}

/// Rounds as many values as make whole vectors to bf16, two in a word; the number of words.
fn rounded(x: &[f32], words: &mut [u32], path: Path) -> usize {
    #[cfg(target_arch = "x86_64")]
    if path.has_bf16() && path.is_available() {
        // SAFETY: the processor has the instructions.
        return unsafe { bf16_vectors(x, words) };
    }
    let _ = (x, words, path);
    0
}

/// [`rounded`] by the instruction that is there for it, to nearest, ties to even; values below the
/// normal range become 0.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16_vectors(x: &[f32], words: &mut [u32]) -> usize {
    use std::arch::x86_64::*;
    let pairs = x
        .as_chunks::<16>()
        .0
        .iter()
        .zip(words.as_chunks_mut::<8>().0);
    let count = pairs.len();
    for (x, words) in pairs {
        // SAFETY: 16 values, eight words; neither wants an alignment, and both types are 32 plain bytes.
        unsafe {
            let short = _mm512_cvtneps_pbh(_mm512_loadu_ps(x.as_ptr()));
            let short = std::mem::transmute::<__m256bh, __m256i>(short);
            _mm256_storeu_si256(words.as_mut_ptr().cast(), short);
        }
    }
    8 * count
}

fn bytes(
    x: &[f32],
    (rows, per_sum): (usize, usize),
    words: &mut [u32],
    scales: &mut [f32],
    sums: &mut [i32],
    path: Path,
) {
    const WORDS: usize = BLOCK / 4;
    let (k, padded) = (x.len() / rows, words.len() / rows * 4);
    let mut piece = [0u32; MAX_ROWS * WORDS];
    for (block, start) in (0..padded).step_by(BLOCK).enumerate() {
        let length = padded.min(start + BLOCK) - start;
        let four = piece.chunks_exact_mut(WORDS);
        for (row, (x, piece)) in x.chunks_exact(k).zip(four).enumerate() {
            let values = &x[start.min(k)..(start + BLOCK).min(k)];
            let quantised = bytemuck::cast_slice_mut::<u32, i8>(piece);
            quantised[values.len()..].fill(0);
            scales[block * rows + row] = to_int8(values, quantised);
            for (i, part) in quantised[..length].chunks(per_sum).enumerate() {
                let sum = part.iter().map(|&v| i32::from(v)).sum();
                sums[(start / per_sum + i) * rows + row] = sum;
            }
            // Bytes were written in the order of memory; kernels want the first in the lowest place.
            piece
                .iter_mut()
                .for_each(|word| *word = u32::from_le(*word));
        }
        interleave(
            &piece,
            WORDS,
            rows,
            length / 4,
            &mut words[start / 4 * rows..],
            path,
        );
    }
}

/// Rounds to −127 … 127; gives the scale, NaN where a value is not finite, so that the result is not
/// either.
fn to_int8(values: &[f32], quantised: &mut [i8]) -> f32 {
    // 1.5 · 2²³: adding it leaves the rounded integer in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // Bits compare as magnitudes do, and every NaN is larger than infinity.
    let largest = values
        .iter()
        .fold(0u32, |a, v| a.max(v.to_bits() & 0x7fff_ffff));
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        quantised.fill(0);
        return f32::NAN;
    }
    // The smallest scale whose inverse is finite: below it everything rounds to nothing.
    let scale = largest / 127.0;
    let inverse = 1.0 / scale;
    if !inverse.is_finite() {
        quantised.fill(0);
        return 0.0;
    }
    for (to, value) in quantised.iter_mut().zip(values) {
        *to = (value * inverse + ROUND).to_bits() as u8 as i8;
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    #[test]
    fn rows_in_tiles() {
        let sizes = |m| -> Vec<usize> { tiles(m, &[4, 2, 1]).iter().map(|t| t.rows).collect() };
        assert_eq!(sizes(11), [4, 4, 2, 1]);
        assert_eq!(sizes(0), [0usize; 0]);
    }

    #[test]
    fn words_alternate_between_rows() {
        let x: Vec<f32> = (0..6).map(|v| v as f32).collect();
        let kernel = Kernel::new(Path::Portable, Format::F32, false);
        let prepared = Prepared::new(&x, 2, kernel);
        let part = prepared.part(&prepared.tiles[0], 0, 3);
        let words: Vec<f32> = part.words.iter().map(|w| f32::from_bits(*w)).collect();
        assert_eq!(words, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }

    /// Whatever instruction rounds, it rounds to nearest, ties to even, and keeps what is no number.
    #[test]
    fn pairs_are_rounded_alike_on_every_path() {
        let mut x: Vec<f32> = (0..83).map(|i| (i as f32 - 41.0) * 1.003_906_3).collect();
        x[3] = f32::NAN;
        x[20] = f32::INFINITY;
        for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
            let mut words = vec![0; 42];
            pairs(&x, 1, &mut words, path);
            for (i, value) in x.iter().enumerate() {
                let bits = (words[i / 2] >> (16 * (i % 2))) as u16;
                let (ours, half) = (half::bf16::from_bits(bits), half::bf16::from_f32(*value));
                let alike = ours == half || (ours.is_nan() && half.is_nan());
                assert!(alike, "{path:?}: {value} became {ours}");
            }
        }
    }

    #[test]
    fn int8_by_hand() {
        let mut quantised = [0; 4];
        assert_eq!(to_int8(&[-254.0, 2.0, 3.1, 0.9], &mut quantised), 2.0);
        assert_eq!(quantised, [-127, 1, 2, 0]);
        assert!(to_int8(&[1.0, f32::NAN], &mut quantised).is_nan());
        assert!(to_int8(&[1.0, f32::NEG_INFINITY], &mut quantised).is_nan());
        assert_eq!(to_int8(&[1e-42], &mut quantised), 0.0);
    }

    #[test]
    fn sums_are_of_what_was_rounded() {
        let x: Vec<f32> = (0..300).map(|i| (i % 7) as f32 - 3.0).collect();
        for format in [Format::Int8, Format::Int4] {
            let prepared = Prepared::new(&x, 1, Kernel::new(Path::Portable, format, false));
            let kind = prepared.kind;
            let part = prepared.part(&prepared.tiles[0], 0, 320);
            let words = part.words.chunks(kind.per_sum() / 4);
            for (words, sum) in words.zip(part.sums) {
                let bytes = words.iter().flat_map(|w| w.to_le_bytes());
                assert_eq!(bytes.map(|b| i32::from(b as i8)).sum::<i32>(), *sum);
            }
            assert_eq!(part.scales.len(), 2);
        }
    }
}
