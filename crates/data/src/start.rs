//! What a file of samples is: its first bytes say so, not its name.

/// What some editors put in front of UTF-8.
pub const MARK: &[u8] = b"\xEF\xBB\xBF";

/// Where the name of the tar format stands in a header.
const TAR_MAGIC: usize = 257;

/// What the first bytes say, of a file or of what is inside of a compressed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Parquet.
    Parquet,
    /// Something inside of gzip.
    Gzip,
    /// Something inside of Zstandard.
    Zstd,
    /// A tar file.
    Tar,
    /// Arrow, as a file or a stream.
    Arrow,
    /// Text that begins with an array of JSON.
    Array,
    /// Other text, or nothing.
    Lines,
}

impl Start {
    /// By the first bytes: all there are, or enough that more than white space is among them, and 262 for a
    /// tar file.
    #[must_use]
    pub fn of(head: &[u8]) -> Self {
        match head {
            [b'P', b'A', b'R', b'1', ..] => Self::Parquet,
            [0x1F, 0x8B, ..] => Self::Gzip,
            [0x28, 0xB5, 0x2F, 0xFD, ..] => Self::Zstd,
            // A file, or a stream, whose first message comes after this mark.
            [b'A', b'R', b'R', b'O', b'W', b'1', ..] | [0xFF, 0xFF, 0xFF, 0xFF, ..] => Self::Arrow,
            _ if head.get(TAR_MAGIC..TAR_MAGIC + 5) == Some(b"ustar") => Self::Tar,
            _ if text(head).trim_ascii_start().first() == Some(&b'[') => Self::Array,
            _ => Self::Lines,
        }
    }

    /// What it is in words, if it is no text.
    #[must_use]
    pub fn packed(self) -> Option<&'static str> {
        match self {
            Self::Parquet => Some("Parquet"),
            Self::Gzip => Some("compressed with gzip"),
            Self::Zstd => Some("compressed with Zstandard"),
            Self::Tar => Some("a tar file"),
            Self::Arrow => Some("Arrow"),
            Self::Array | Self::Lines => None,
        }
    }
}

/// Without what editors put in front.
fn text(head: &[u8]) -> &[u8] {
    head.strip_prefix(MARK).unwrap_or(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell() {
        let mut tar = vec![0; 512];
        tar[TAR_MAGIC..TAR_MAGIC + 5].copy_from_slice(b"ustar");
        for (bytes, start) in [
            (&b"PAR1"[..], Start::Parquet),
            (b"\x1F\x8B\x08", Start::Gzip),
            (b"\x28\xB5\x2F\xFD", Start::Zstd),
            (b"ARROW1\0", Start::Arrow),
            (b"\xFF\xFF\xFF\xFF\x10", Start::Arrow),
            (&tar, Start::Tar),
            (b"\xEF\xBB\xBF \n[{}]", Start::Array),
            (b"{}", Start::Lines),
            (b"PAR", Start::Lines),
            (b"", Start::Lines),
        ] {
            assert_eq!(Start::of(bytes), start, "{bytes:?}");
            let is_text = matches!(start, Start::Array | Start::Lines);
            assert_eq!(start.packed().is_none(), is_text);
        }
    }
}
