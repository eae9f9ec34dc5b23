//! How weights are packed.
//!
//! A panel is 16 columns (outputs) over all of `k`, padded with zeros. In it lie, one after the other:
//!
//! | format | 64 bytes hold, per column | per 256 `k` |
//! |---|---|---|
//! | f32 | one value | 16 KiB |
//! | bf16 | two values | 8 KiB |
//! | int8 | four bytes, `value / scale + 128` | 4 KiB and 16 scales (f32) |
//! | int4 | two rows of four nibbles, `value / scale + 8`: low nibbles the first, high the second | 2 KiB and 8 · 16 scales (f16), one per 32 `k` |
//!
//! Integers are stored unsigned with an offset, because the instructions that multiply bytes
//! (`vpdpbusd`, `tdpbsud`, `pmaddubsw`) want one unsigned factor; the sum of the signed activations
//! times the offset is taken off afterwards.

/// Columns of a panel.
pub(crate) const PANEL: usize = 16;
/// Values of `k` that share the scale of an activation, and of an int8 weight.
pub(crate) const BLOCK: usize = 256;
/// Values of `k` that share the scale of an int4 weight.
pub(crate) const GROUP: usize = 32;
/// Bytes of a row of a panel.
pub(crate) const ROW: usize = 64;
/// Offset of int8.
pub(crate) const ZERO8: i32 = 128;
/// Offset of int4.
pub(crate) const ZERO4: i32 = 8;

/// A format of packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// 32 bits.
    F32,
    /// 16 bits with the range of f32.
    Bf16,
    /// 8 bits, a scale per 256 values: 8.1 bits.
    Int8,
    /// 4 bits, a scale per 32 values: 4.5 bits.
    Int4,
}

impl Format {
    /// All formats, the most exact first.
    pub const ALL: [Self; 4] = [Self::F32, Self::Bf16, Self::Int8, Self::Int4];

    /// The name in files and flags.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    /// The format with a [`name`](Self::name).
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// `k` with its padding.
    pub(crate) fn padded(self, k: usize) -> usize {
        k.next_multiple_of(match self {
            Self::F32 => 1,
            Self::Bf16 => 32,
            Self::Int8 | Self::Int4 => 64,
        })
    }

    /// Where `k` (a multiple of [`BLOCK`], or the padded end) begins in a panel.
    pub(crate) fn offset(self, k: usize) -> usize {
        match self {
            Self::F32 => k * ROW,
            Self::Bf16 => k / 2 * ROW,
            Self::Int8 => k / 4 * ROW + k.div_ceil(BLOCK) * ROW,
            Self::Int4 => k / 8 * ROW + k / GROUP * (PANEL * 2),
        }
    }

    /// Bytes of a panel, a multiple of 64.
    pub(crate) fn panel_bytes(self, k: usize) -> usize {
        self.offset(self.padded(k))
    }

    /// Bytes of a packed matrix of `n` rows and `k` columns; `None` if they cannot be counted.
    #[must_use]
    pub fn bytes(self, [n, k]: [usize; 2]) -> Option<usize> {
        // A panel has at most 64 bytes per value of k, and some padding.
        k.checked_add(BLOCK)?.checked_mul(2 * ROW)?;
        n.div_ceil(PANEL).checked_mul(self.panel_bytes(k))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_by_hand() {
        assert_eq!(Format::F32.bytes([17, 3]), Some(2 * 3 * 64));
        assert_eq!(Format::Bf16.bytes([16, 33]), Some(32 * 64));
        assert_eq!(Format::Int8.bytes([16, 256]), Some(4096 + 64));
        assert_eq!(Format::Int8.bytes([16, 257]), Some(4096 + 64 + 1024 + 64));
        assert_eq!(Format::Int4.bytes([16, 256]), Some(2048 + 256));
        assert_eq!(Format::Int4.bytes([0, 256]), Some(0));
        assert_eq!(Format::Int4.bytes([16, usize::MAX / 2]), None);
    }
}
