//! Packing weights, and reading packed ones where they lie.

use std::fmt;
use std::sync::Arc;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::Path;
use crate::bytes::AlignedBytes;
use crate::format::{BLOCK, Format, GROUP, PANEL, ROW, ZERO4, ZERO8};
use crate::{quantise, transpose};

/// Bytes below which packing is not worth more than one thread.
const SMALL: usize = 1 << 17;

/// A matrix that lies row after row.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// 32 bits.
    F32(&'a [f32]),
    /// 16 bits with the range of f32.
    Bf16(&'a [bf16]),
    /// 16 bits.
    F16(&'a [f16]),
}

impl Rows<'_> {
    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::F16(values) => values.len(),
        }
    }

    /// Whether there are no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The format that holds the values exactly.
    pub(crate) fn exact(&self) -> Format {
        match self {
            Self::F32(_) | Self::F16(_) => Format::F32,
            Self::Bf16(_) => Format::Bf16,
        }
    }

    /// Widens the values from `start` on.
    fn widen(&self, start: usize, into: &mut [f32]) {
        let range = start..start + into.len();
        match self {
            Self::F32(values) => into.copy_from_slice(&values[range]),
            Self::Bf16(values) => values[range].convert_to_f32_slice(into),
            Self::F16(values) => values[range].convert_to_f32_slice(into),
        }
    }
}

/// Why weights cannot be packed, or packed bytes not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PackError {
    /// Integers have no such values.
    #[error("row {row} of the weight holds a value that is not finite, which {} cannot hold", format.name())]
    NotFinite {
        /// First such row.
        row: usize,
        /// The format asked for.
        format: Format,
    },
    /// The bytes do not hold the matrix.
    #[error(
        "{found} bytes do not hold a {} matrix of {n} × {k}, which has {}",
        format.name(),
        wanted.map_or("more than can be counted".to_owned(), |bytes| bytes.to_string())
    )]
    Size {
        /// Rows.
        n: usize,
        /// Columns.
        k: usize,
        /// The format.
        format: Format,
        /// Bytes that are there.
        found: usize,
        /// Bytes that should be.
        wanted: Option<usize>,
    },
}

/// Bytes that somebody owns: memory, or a part of a mapped file.
type Shared = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A packed matrix `[n, k]`; clones share the bytes.
#[derive(Clone)]
pub struct Packed {
    format: Format,
    n: usize,
    k: usize,
    bytes: Shared,
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packed {} [{}, {}]", self.format.name(), self.n, self.k)
    }
}

impl Packed {
    /// Packs a matrix `[n, k]` on all threads.
    ///
    /// # Errors
    /// If integers are asked for and a value is not finite, or if `rows` are not `n · k` values.
    pub fn pack(rows: Rows<'_>, [n, k]: [usize; 2], format: Format) -> Result<Self, PackError> {
        let size = |found| PackError::Size {
            n,
            k,
            format,
            found,
            wanted: format.bytes([n, k]),
        };
        if n.checked_mul(k) != Some(rows.len()) {
            return Err(size(rows.len()));
        }
        let bytes = format.bytes([n, k]).ok_or_else(|| size(rows.len()))?;
        let mut packed = AlignedBytes::zeros(bytes);
        pack_panels(rows, [n, k], format, 0, packed.as_mut(), Path::best())?;
        Ok(Self {
            format,
            n,
            k,
            bytes: Arc::new(packed),
        })
    }

    /// Takes over what [`as_bytes`](Self::as_bytes) gave, wherever it lies now.
    ///
    /// Any bytes of the right number are a matrix; there is nothing in them that could be wrong.
    ///
    /// # Errors
    /// If the number of bytes is wrong.
    pub fn from_bytes(
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
        [n, k]: [usize; 2],
        format: Format,
    ) -> Result<Self, PackError> {
        let (found, wanted) = (bytes.as_ref().len(), format.bytes([n, k]));
        if wanted != Some(found) {
            return Err(PackError::Size {
                n,
                k,
                format,
                found,
                wanted,
            });
        }
        Ok(Self {
            format,
            n,
            k,
            bytes: Arc::new(bytes),
        })
    }

    /// How the values are stored.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// `[n, k]`: outputs and inputs.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        [self.n, self.k]
    }

    /// All bytes, for a file.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    /// The values as rows again, `[n, k]`, on all threads.
    #[must_use]
    pub fn to_rows(&self) -> Vec<f32> {
        let mut rows = vec![0f32; self.n * self.k];
        if rows.is_empty() {
            return rows;
        }
        let panel_bytes = self.format.panel_bytes(self.k);
        rows.par_chunks_mut(PANEL * self.k)
            .zip(self.as_bytes().par_chunks_exact(panel_bytes))
            .for_each(|(rows, panel)| {
                for (column, row) in rows.chunks_exact_mut(self.k).enumerate() {
                    for (at, value) in row.iter_mut().enumerate() {
                        *value = unpacked(self.format, panel, column, at, self.k);
                    }
                }
            });
        rows
    }
}

/// One value of a panel.
fn unpacked(format: Format, panel: &[u8], column: usize, at: usize, k: usize) -> f32 {
    let block = at / BLOCK;
    let word = |offset: usize| -> [u8; 4] { std::array::from_fn(|i| panel[offset + i]) };
    let begin = format.offset(block * BLOCK);
    let within = at % BLOCK;
    let end = format.padded(k).min((block + 1) * BLOCK) - block * BLOCK;
    match format {
        Format::F32 => f32::from_le_bytes(word(at * ROW + column * 4)),
        Format::Bf16 => {
            let offset = at / 2 * ROW + column * 4 + at % 2 * 2;
            bf16::from_le_bytes([panel[offset], panel[offset + 1]]).to_f32()
        }
        Format::Int8 => {
            let byte = panel[begin + within / 4 * ROW + column * 4 + within % 4];
            let scale = f32::from_le_bytes(word(begin + end / 4 * ROW + column * 4));
            (i32::from(byte) - ZERO8) as f32 * scale
        }
        Format::Int4 => {
            let byte = panel[begin + within / 8 * ROW + column * 4 + within % 4];
            let nibble = if within % 8 < 4 { byte & 15 } else { byte >> 4 };
            let at = begin + end / 8 * ROW + within / GROUP * PANEL * 2 + column * 2;
            let scale = f16::from_le_bytes([panel[at], panel[at + 1]]).to_f32();
            (i32::from(nibble) - ZERO4) as f32 * scale
        }
    }
}

/// Packs the panels that fit into `packed`, beginning with column `first`; `n` is that of the matrix.
///
/// # Panics
/// If `packed` is no whole number of panels, or the rows are not there.
pub(crate) fn pack_panels(
    rows: Rows<'_>,
    [n, k]: [usize; 2],
    format: Format,
    first: usize,
    packed: &mut [u8],
    path: Path,
) -> Result<(), PackError> {
    let panel_bytes = format.panel_bytes(k);
    if panel_bytes == 0 {
        return Ok(());
    }
    let pack = |(panel, bytes): (usize, &mut [u8])| {
        let first = first + panel * PANEL;
        let columns = n.saturating_sub(first).min(PANEL);
        if format == rows.exact()
            && columns == PANEL
            && transpose::panel(rows, k, first, bytes, path)
        {
            return Ok(());
        }
        pack_panel(rows, k, format, first, columns, bytes)
    };
    if packed.len() < SMALL {
        packed
            .chunks_exact_mut(panel_bytes)
            .enumerate()
            .try_for_each(pack)
    } else {
        packed
            .par_chunks_exact_mut(panel_bytes)
            .enumerate()
            .try_for_each(pack)
    }
}

fn pack_panel(
    rows: Rows<'_>,
    k: usize,
    format: Format,
    first: usize,
    columns: usize,
    panel: &mut [u8],
) -> Result<(), PackError> {
    let mut wide = [0f32; BLOCK * PANEL];
    for start in (0..k).step_by(BLOCK) {
        let values = (k - start).min(BLOCK);
        let padded = format.padded(k).min(start + BLOCK) - start;
        for column in 0..PANEL {
            let row = &mut wide[column * BLOCK..][..BLOCK];
            row.fill(0.0);
            if column < columns {
                rows.widen((first + column) * k + start, &mut row[..values]);
                let integers = matches!(format, Format::Int8 | Format::Int4);
                if integers && row.iter().any(|v| !v.is_finite()) {
                    return Err(PackError::NotFinite {
                        row: first + column,
                        format,
                    });
                }
            }
        }
        let bytes = &mut panel[format.offset(start)..format.offset(start + padded)];
        match format {
            Format::F32 => block_f32(&wide, bytes),
            Format::Bf16 => block_bf16(&wide, bytes),
            Format::Int8 => block_int8(&wide, padded, bytes),
            Format::Int4 => block_int4(&wide, padded, bytes),
        }
    }
    Ok(())
}

fn block_f32(wide: &[f32; BLOCK * PANEL], bytes: &mut [u8]) {
    for (at, row) in bytes.as_chunks_mut::<ROW>().0.iter_mut().enumerate() {
        for (column, to) in row.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *to = wide[column * BLOCK + at].to_le_bytes();
        }
    }
}

fn block_bf16(wide: &[f32; BLOCK * PANEL], bytes: &mut [u8]) {
    for (at, row) in bytes.as_chunks_mut::<ROW>().0.iter_mut().enumerate() {
        for (column, to) in row.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let [low, high] = [0, 1].map(|i| wide[column * BLOCK + at * 2 + i]);
            *to = bf16_pair(low, high).to_le_bytes();
        }
    }
}

/// Two values rounded to bf16, the first in the lower half.
#[inline(always)]
pub(crate) fn bf16_pair(low: f32, high: f32) -> u32 {
    let [low, high] = [low, high].map(|value| u32::from(bf16::from_f32(value).to_bits()));
    low | high << 16
}

fn block_int8(wide: &[f32; BLOCK * PANEL], padded: usize, bytes: &mut [u8]) {
    let (values, scales) = bytes.split_at_mut(padded / 4 * ROW);
    let mut quantised = [0u8; BLOCK];
    for column in 0..PANEL {
        let wide = &wide[column * BLOCK..][..padded];
        let scale = quantise::to_int8(wide, &mut quantised[..padded]);
        scales[column * 4..][..4].copy_from_slice(&scale.to_le_bytes());
        let words = quantised[..padded].as_chunks::<4>().0;
        for (row, word) in values.as_chunks_mut::<ROW>().0.iter_mut().zip(words) {
            row[column * 4..][..4].copy_from_slice(word);
        }
    }
}

fn block_int4(wide: &[f32; BLOCK * PANEL], padded: usize, bytes: &mut [u8]) {
    let (values, scales) = bytes.split_at_mut(padded / 8 * ROW);
    for column in 0..PANEL {
        let wide = wide[column * BLOCK..][..padded].as_chunks::<GROUP>().0;
        for (group, wide) in wide.iter().enumerate() {
            let mut nibbles = [0u8; GROUP];
            let scale = quantise::to_int4(wide, &mut nibbles);
            let at = (group * PANEL + column) * 2;
            scales[at..at + 2].copy_from_slice(&scale.to_le_bytes());
            let rows = values[group * GROUP / 8 * ROW..].as_chunks_mut::<ROW>().0;
            for (row, eight) in rows.iter_mut().zip(nibbles.as_chunks::<8>().0) {
                for i in 0..4 {
                    row[column * 4 + i] = eight[i] | eight[i + 4] << 4;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 2_654_435_761) % 1999) as f32 / 1000.0 - 1.0)
            .collect()
    }

    /// What comes back is what went in, but for the rounding of the format.
    #[test]
    fn unpacking_gives_the_rounded_values() {
        for [n, k] in [[1, 1], [17, 64], [5, 257], [33, 300], [16, 32]] {
            let rows = values(n * k);
            for (format, tolerance) in [
                (Format::F32, 0.0),
                (Format::Bf16, 1.0 / 256.0),
                (Format::Int8, 0.5 / 127.0 * 1.01),
                (Format::Int4, 0.13),
            ] {
                let packed = Packed::pack(Rows::F32(&rows), [n, k], format).unwrap();
                assert_eq!(packed.as_bytes().len(), format.bytes([n, k]).unwrap());
                for (a, b) in rows.iter().zip(packed.to_rows()) {
                    assert!((a - b).abs() <= tolerance, "{format:?} [{n}, {k}]: {a} {b}");
                }
                let again = Packed::from_bytes(packed.as_bytes().to_vec(), [n, k], format).unwrap();
                assert_eq!(again.to_rows(), packed.to_rows());
            }
        }
    }

    #[test]
    fn halves_are_held_exactly() {
        let wide = values(40);
        let short: Vec<bf16> = wide.iter().map(|v| bf16::from_f32(*v)).collect();
        let packed = Packed::pack(Rows::Bf16(&short), [4, 10], Format::Bf16).unwrap();
        let exact: Vec<f32> = short.iter().map(|v| v.to_f32()).collect();
        assert_eq!(packed.to_rows(), exact);
        let from_f32 = Packed::pack(Rows::F32(&wide), [4, 10], Format::Bf16).unwrap();
        assert_eq!(from_f32.to_rows(), exact);
        let short: Vec<f16> = wide.iter().map(|v| f16::from_f32(*v)).collect();
        let packed = Packed::pack(Rows::F16(&short), [4, 10], Format::F32).unwrap();
        let exact: Vec<f32> = short.iter().map(|v| v.to_f32()).collect();
        assert_eq!(packed.to_rows(), exact);
    }

    #[test]
    fn what_cannot_be_packed_is_refused() {
        let rows = [1.0, f32::NAN];
        assert_eq!(
            Packed::pack(Rows::F32(&rows), [2, 1], Format::Int4).unwrap_err(),
            PackError::NotFinite {
                row: 1,
                format: Format::Int4
            }
        );
        assert!(Packed::pack(Rows::F32(&rows), [2, 1], Format::Bf16).is_ok());
        assert!(Packed::pack(Rows::F32(&rows), [2, 2], Format::F32).is_err());
        assert!(Packed::from_bytes(vec![0; 63], [1, 1], Format::F32).is_err());
        assert!(Packed::from_bytes(vec![0; 64], [1, 1], Format::F32).is_ok());
        assert!(Packed::from_bytes(vec![0; 64], [usize::MAX, usize::MAX], Format::F32).is_err());
    }
}
