//! How GGUF files write numbers: plain, or in blocks that share a scale.
//!
//! Formulas are those of `ggml`, to the bit. A block is 32 values (`Q4_0` to `Q8_0`) or 256 in groups
//! with scales of their own (`Q4_K` to `Q6_K`); scales of blocks are f16.

use half::f16;

use crate::dtype::{Dtype, widening};

/// An element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

impl Kind {
    /// All that are read, with the numbers that stand for them in files.
    const ALL: [(u32, Self); 11] = [
        (0, Self::F32),
        (1, Self::F16),
        (30, Self::Bf16),
        (2, Self::Q4_0),
        (3, Self::Q4_1),
        (6, Self::Q5_0),
        (7, Self::Q5_1),
        (8, Self::Q8_0),
        (12, Self::Q4K),
        (13, Self::Q5K),
        (14, Self::Q6K),
    ];

    pub fn by_number(number: u32) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|(known, _)| *known == number);
        found.map(|(_, kind)| kind)
    }

    /// The names of all that are read.
    pub fn names() -> String {
        Self::ALL.map(|(_, kind)| kind.name()).join(", ")
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Values of a block, and its bytes.
    fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
        }
    }

    /// Whether values share scales.
    pub fn is_quantised(self) -> bool {
        self.block().0 > 1
    }

    /// The type that values are taken as. What was quantised fits into f16 with a rounding far below
    /// that which it has already.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::Bf16,
            _ => Dtype::F16,
        }
    }

    /// Bytes of a row of so many values; `None` if they are not whole blocks, or too many.
    pub fn row_bytes(self, values: usize) -> Option<usize> {
        let (per_block, bytes) = self.block();
        values
            .is_multiple_of(per_block)
            .then(|| (values / per_block).checked_mul(bytes))?
    }

    /// Writes the values of whole blocks; both slices have as many of them.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => {
                if let Some(widen) = widening(self.dtype()) {
                    widen(bytes, out);
                }
            }
            Self::Q4_0 => each(bytes, out, q4_0),
            Self::Q4_1 => each(bytes, out, q4_1),
            Self::Q5_0 => each(bytes, out, q5_0),
            Self::Q5_1 => each(bytes, out, q5_1),
            Self::Q8_0 => each(bytes, out, q8_0),
            Self::Q4K => each(bytes, out, q4_k),
            Self::Q5K => each(bytes, out, q5_k),
            Self::Q6K => each(bytes, out, q6_k),
        }
    }
}

/// Decodes one block after the other.
fn each<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; VALUES]),
) {
    let blocks = bytes.as_chunks::<BYTES>().0;
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<VALUES>().0) {
        decode(block, out);
    }
}

/// The f16 at byte `at`.
fn scale(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Low nibbles are the first half of the values, high nibbles the second.
fn nibbles(bytes: &[u8], i: usize) -> u8 {
    match i.checked_sub(bytes.len()) {
        None => bytes[i] & 15,
        Some(i) => bytes[i] >> 4,
    }
}

fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = scale(block, 0);
    for (i, out) in out.iter_mut().enumerate() {
        *out = (f32::from(nibbles(&block[2..], i)) - 8.0) * d;
    }
}

fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, least) = (scale(block, 0), scale(block, 2));
    for (i, out) in out.iter_mut().enumerate() {
        *out = f32::from(nibbles(&block[4..], i)) * d + least;
    }
}

/// Four bits of a nibble and a fifth from a mask.
fn five_bits(mask: [u8; 4], low: &[u8], i: usize) -> f32 {
    let high = (u32::from_le_bytes(mask) >> i) & 1;
    f32::from(nibbles(low, i)) + 16.0 * high as f32
}

fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let (d, mask) = (scale(block, 0), [block[2], block[3], block[4], block[5]]);
    for (i, out) in out.iter_mut().enumerate() {
        *out = (five_bits(mask, &block[6..], i) - 16.0) * d;
    }
}

fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, least) = (scale(block, 0), scale(block, 2));
    let mask = [block[4], block[5], block[6], block[7]];
    for (i, out) in out.iter_mut().enumerate() {
        *out = five_bits(mask, &block[8..], i) * d + least;
    }
}

fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = scale(block, 0);
    for (out, value) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(*value as i8) * d;
    }
}

/// Scale and least value of a group of 32, six bits each, out of 12 bytes for eight groups.
fn six_bits(packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, least) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        (
            (packed[group + 4] & 15) | ((packed[group - 4] >> 6) << 4),
            (packed[group + 4] >> 4) | ((packed[group] >> 6) << 4),
        )
    };
    (f32::from(scale), f32::from(least))
}

fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, d_least) = (scale(block, 0), scale(block, 2));
    let (scales, values) = (&block[4..16], &block[16..]);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, least) = six_bits(scales, group);
        // Two groups share 32 bytes.
        let values = &values[group / 2 * 32..][..32];
        for (i, out) in out.iter_mut().enumerate() {
            let value = nibbles(values, group % 2 * 32 + i);
            *out = d * scale * f32::from(value) - d_least * least;
        }
    }
}

fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, d_least) = (scale(block, 0), scale(block, 2));
    let (scales, high, values) = (&block[4..16], &block[16..48], &block[48..]);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, least) = six_bits(scales, group);
        let values = &values[group / 2 * 32..][..32];
        for (i, out) in out.iter_mut().enumerate() {
            let value = nibbles(values, group % 2 * 32 + i) | (((high[i] >> group) & 1) << 4);
            *out = d * scale * f32::from(value) - d_least * least;
        }
    }
}

fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = scale(block, 208);
    for (i, out) in out.iter_mut().enumerate() {
        // Each half of 128 values has 64 bytes of low bits and 32 of high bits, for four quarters.
        let (half, quarter, at) = (i / 128, i / 32 % 4, i % 32);
        let low = low[half * 64 + quarter % 2 * 32 + at] >> (quarter / 2 * 4);
        let high = high[half * 32 + at] >> (quarter * 2);
        let value = (low & 15) | ((high & 3) << 4);
        let scale = f32::from(scales[i / 16] as i8);
        *out = d * scale * (f32::from(value) - 32.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scale 2: −8 · 2 where all is zero; the sixteenth byte's high nibble is the last value.
    #[test]
    fn nibbles_by_hand() {
        let mut block = [0u8; 18];
        block[..2].copy_from_slice(&f16::from_f32(2.0).to_le_bytes());
        block[2] = 0x0f;
        block[17] = 0xf0;
        let mut out = [0.0; 32];
        Kind::Q4_0.decode(&block, &mut out);
        assert_eq!(
            (out[0], out[1], out[16], out[31]),
            (14.0, -16.0, -16.0, 14.0)
        );
    }

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(Kind::Q4_0.row_bytes(64), Some(36));
        assert_eq!(Kind::Q4_0.row_bytes(63), None);
        assert_eq!(Kind::Q6K.row_bytes(256), Some(210));
        assert_eq!(Kind::F32.row_bytes(usize::MAX), None);
        assert_eq!(Kind::by_number(30), Some(Kind::Bf16));
        assert_eq!(Kind::by_number(10), None);
    }
}
