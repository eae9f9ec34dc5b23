//! Turning words around: rows of words become, for every place in a row, the words of all rows.
//!
//! Weights that lie row after row are packed so at every product, and activations always are; so it
//! has vectors of its own.

use crate::Path;
use crate::format::ROW;
use crate::pack::Rows;

/// Interleaves `rows` rows of `length` words, each `step` behind the one before: word `k` of row `r`
/// goes to `k · rows + r`.
///
/// # Panics
/// If the words are not there, or have no room.
pub(crate) fn interleave(
    from: &[u32],
    step: usize,
    rows: usize,
    length: usize,
    to: &mut [u32],
    path: Path,
) {
    if rows * length == 0 {
        return;
    }
    assert!(length <= step && from.len() >= (rows - 1) * step + length);
    let to = &mut to[..rows * length];
    let (mut done_rows, mut done) = (0, 0);
    #[cfg(target_arch = "x86_64")]
    if has_avx2(path) {
        (done_rows, done) = (rows / 4 * 4, length / 8 * 8);
        // SAFETY: the processor has AVX2; the sizes were checked.
        unsafe { avx2::interleave(from, step, rows, done, to) };
    }
    for row in 0..rows {
        let first = if row < done_rows { done } else { 0 };
        for at in first..length {
            to[at * rows + row] = from[row * step + at];
        }
    }
}

/// Packs a whole panel of f32 or bf16 rows, `first` and 15 more; false where this way is not open.
///
/// # Panics
/// If the rows are not there.
pub(crate) fn panel(rows: Rows<'_>, k: usize, first: usize, panel: &mut [u8], path: Path) -> bool {
    match rows {
        Rows::F32(values) => words(
            bytemuck::cast_slice(&values[first * k..][..16 * k]),
            panel,
            path,
        ),
        // An odd row ends in half a word; the next begins in it.
        Rows::Bf16(values) if k.is_multiple_of(2) => words(
            bytemuck::cast_slice(&values[first * k..][..16 * k]),
            panel,
            path,
        ),
        Rows::Bf16(_) | Rows::F16(_) => false,
    }
}

/// Whether the path may use AVX2, and the processor can: every path of x86 but the portable one has it.
#[cfg(target_arch = "x86_64")]
fn has_avx2(path: Path) -> bool {
    path != Path::Portable && path.is_available()
}

/// Turns 16 equally long rows of words; what the panel has beyond them becomes 0.
#[cfg(target_arch = "x86_64")]
fn words(rows: &[u8], panel: &mut [u8], path: Path) -> bool {
    if !has_avx2(path) {
        return false;
    }
    let length = rows.len() / 16;
    let whole = length / 32 * 32;
    assert!(panel.len() >= length / 4 * ROW);
    // SAFETY: the processor has AVX2; both slices were measured.
    unsafe { avx2::blocks(rows, length, whole, panel) };
    // Pages of zeros come out of an allocation, not of a panel used before: padding is cleared.
    panel[length / 4 * ROW..].fill(0);
    for at in whole / 4..length / 4 {
        for row in 0..16 {
            let word = &rows[row * length + at * 4..][..4];
            panel[at * ROW + row * 4..][..4].copy_from_slice(word);
        }
    }
    true
}

#[cfg(not(target_arch = "x86_64"))]
fn words(_rows: &[u8], _panel: &mut [u8], _path: Path) -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::ROW;

    /// Blocks of eight words of all 16 rows, up to byte `whole` of each row of `length` bytes.
    ///
    /// # Safety
    /// `rows` holds 16 rows, `panel` a row of 64 bytes for every four bytes of `whole`, which is a
    /// multiple of 32 and not more than `length`.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn blocks(rows: &[u8], length: usize, whole: usize, panel: &mut [u8]) {
        for at in (0..whole).step_by(32) {
            for half in 0..2 {
                let mut block = [_mm256_setzero_ps(); 8];
                for (i, row) in block.iter_mut().enumerate() {
                    // SAFETY: 32 bytes of a row; see above.
                    *row = unsafe {
                        _mm256_loadu_ps(rows.as_ptr().add((half * 8 + i) * length + at).cast())
                    };
                }
                for (i, row) in turned(block).into_iter().enumerate() {
                    // SAFETY: half a row of the panel; see above.
                    unsafe {
                        let to = panel.as_mut_ptr().add((at / 4 + i) * ROW + half * 32);
                        _mm256_storeu_ps(to.cast(), row);
                    }
                }
            }
        }
    }

    /// The first `length` words (a multiple of 8) of as many rows as make whole fours; see
    /// [`super::interleave`].
    ///
    /// # Safety
    /// `from` holds the rows, `to` has room for `length · rows` words.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn interleave(
        from: &[u32],
        step: usize,
        rows: usize,
        length: usize,
        to: &mut [u32],
    ) {
        for first in (0..rows / 4 * 4).step_by(8) {
            let eight = rows - first >= 8;
            for at in (0..length).step_by(8) {
                let mut block = [_mm256_setzero_ps(); 8];
                for (i, row) in block.iter_mut().take(if eight { 8 } else { 4 }).enumerate() {
                    // SAFETY: eight words of a row; see above.
                    *row = unsafe {
                        _mm256_loadu_ps(from.as_ptr().add((first + i) * step + at).cast())
                    };
                }
                for (i, words) in turned(block).into_iter().enumerate() {
                    // SAFETY: the words of eight or four rows at one place; see above.
                    unsafe {
                        let to = to.as_mut_ptr().add((at + i) * rows + first);
                        if eight {
                            _mm256_storeu_ps(to.cast(), words);
                        } else {
                            _mm_storeu_ps(to.cast(), _mm256_castps256_ps128(words));
                        }
                    }
                }
            }
        }
    }

    /// Eight rows of eight words, turned.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn turned(r: [__m256; 8]) -> [__m256; 8] {
        let mut pairs = [_mm256_setzero_ps(); 8];
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        let mut fours = [_mm256_setzero_ps(); 8];
        for i in 0..2 {
            let p = &pairs[4 * i..4 * i + 4];
            fours[4 * i] = _mm256_shuffle_ps::<0x44>(p[0], p[2]);
            fours[4 * i + 1] = _mm256_shuffle_ps::<0xee>(p[0], p[2]);
            fours[4 * i + 2] = _mm256_shuffle_ps::<0x44>(p[1], p[3]);
            fours[4 * i + 3] = _mm256_shuffle_ps::<0xee>(p[1], p[3]);
        }
        let mut out = [_mm256_setzero_ps(); 8];
        for i in 0..4 {
            out[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[4 + i]);
            out[4 + i] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[4 + i]);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_rows_alternate() {
        let paths = || [Path::Portable, Path::best()];
        for (rows, path) in (1..14).flat_map(|rows| paths().map(|path| (rows, path))) {
            for length in [0, 1, 8, 21] {
                let step = length + 3;
                let from: Vec<u32> = (0..rows * step).map(|v| v as u32).collect();
                let mut to = vec![0; rows * length];
                interleave(&from, step, rows, length, &mut to, path);
                for (at, word) in to.iter().enumerate() {
                    assert_eq!(*word as usize, at % rows * step + at / rows);
                }
            }
        }
    }

    /// A path that was forced is taken here, too.
    #[test]
    fn the_portable_path_has_no_vectors() {
        let rows = vec![1f32; 16 * 8];
        let mut panel_bytes = vec![0u8; 8 * ROW];
        let taken = panel(Rows::F32(&rows), 8, 0, &mut panel_bytes, Path::Portable);
        assert!(!taken && panel_bytes.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn words_are_turned_and_padding_is_cleared() {
        for k in [1, 8, 13, 40] {
            let rows: Vec<f32> = (0..32 * k).map(|v| v as f32).collect();
            let mut panel_bytes = vec![7u8; (k + 1) * ROW];
            if !panel(Rows::F32(&rows), k, 16, &mut panel_bytes, Path::best()) {
                continue;
            }
            for at in 0..k {
                for column in 0..16 {
                    let word = &panel_bytes[at * ROW + column * 4..][..4];
                    let value = f32::from_le_bytes(word.try_into().unwrap());
                    assert_eq!(value, rows[(16 + column) * k + at]);
                }
            }
            assert!(panel_bytes[k * ROW..].iter().all(|byte| *byte == 0));
        }
    }
}
