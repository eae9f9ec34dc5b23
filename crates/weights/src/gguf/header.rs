//! The header of a GGUF file: metadata, and where its tensors are.
//!
//! Layout (the specification lies with the `ggml` library): the magic, a version, two counts, pairs of
//! key and value, the descriptions of the tensors, and their data from the next multiple of an
//! alignment on. Nothing is trusted: every length is compared with the bytes that are left before
//! anything is made of it, so a damaged file costs no memory and ends in an error.

use std::collections::BTreeMap;

use super::GgufError;

/// The first bytes of a file.
const MAGIC: &[u8; 4] = b"GGUF";
/// Version 1 had shorter counts and was never published widely.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;
/// Where the metadata say nothing else.
const DEFAULT_ALIGNMENT: usize = 32;
/// Key of the alignment.
const ALIGNMENT_KEY: &str = "general.alignment";
/// `ggml` has no more.
const MAX_DIMENSIONS: u32 = 4;

/// What a header says.
#[derive(Debug)]
pub(super) struct Header {
    /// Numbers and texts, written out; of arrays only that they are there.
    pub metadata: BTreeMap<String, String>,
    pub tensors: Vec<Description>,
    /// Where offsets are counted from.
    pub data_start: usize,
}

/// A tensor as the header describes it.
#[derive(Debug)]
pub(super) struct Description {
    pub name: String,
    /// Outermost first.
    pub shape: Vec<usize>,
    /// Number of the element type.
    pub kind: u32,
    pub offset: usize,
}

impl Header {
    pub fn read(bytes: &[u8]) -> Result<Self, GgufError> {
        let mut cursor = Cursor { bytes, at: 0 };
        if cursor.array::<4>().ok().as_ref() != Some(MAGIC) {
            return Err(GgufError::Magic);
        }
        let version = cursor.u32()?;
        if !VERSIONS.contains(&version) {
            return Err(GgufError::Version(version));
        }
        let (tensor_count, pair_count) = (cursor.u64()?, cursor.u64()?);
        let mut metadata = BTreeMap::new();
        for _ in 0..pair_count {
            let key = cursor.text()?;
            let value = cursor.value()?;
            metadata.insert(key, value);
        }
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            tensors.push(cursor.description()?);
        }
        let alignment = alignment(&metadata)?;
        Ok(Self {
            data_start: cursor.at.next_multiple_of(alignment),
            metadata,
            tensors,
        })
    }
}

/// What data begin at a multiple of; small enough that no sum with it overflows.
fn alignment(metadata: &BTreeMap<String, String>) -> Result<usize, GgufError> {
    let Some(text) = metadata.get(ALIGNMENT_KEY) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    let number = text.parse::<u16>().ok().filter(|n| n.is_power_of_two());
    number.map(usize::from).ok_or_else(|| GgufError::Value {
        key: ALIGNMENT_KEY.into(),
        found: text.clone(),
        expected: "it must be a power of two up to 32768",
    })
}

/// Where reading has come to.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], GgufError> {
        let end = self.at.checked_add(count);
        let part = end.and_then(|end| self.bytes.get(self.at..end));
        let part = part.ok_or(GgufError::Truncated { at: self.at })?;
        self.at += count;
        Ok(part)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let at = self.at;
        let part = self.take(N)?;
        part.try_into().map_err(|_| GgufError::Truncated { at })
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count or a length in this process's own size.
    fn size(&mut self) -> Result<usize, GgufError> {
        let at = self.at;
        usize::try_from(self.u64()?).map_err(|_| GgufError::Truncated { at })
    }

    fn text(&mut self) -> Result<String, GgufError> {
        let at = self.at;
        let length = self.size()?;
        let bytes = self.take(length)?.to_vec();
        String::from_utf8(bytes).map_err(|_| GgufError::Text { at })
    }

    /// A value of the metadata, written out.
    fn value(&mut self) -> Result<String, GgufError> {
        let at = self.at;
        Ok(match self.u32()? {
            0 => self.array().map(u8::from_le_bytes)?.to_string(),
            1 => self.array().map(i8::from_le_bytes)?.to_string(),
            2 => self.array().map(u16::from_le_bytes)?.to_string(),
            3 => self.array().map(i16::from_le_bytes)?.to_string(),
            4 => self.u32()?.to_string(),
            5 => self.array().map(i32::from_le_bytes)?.to_string(),
            6 => self.array().map(f32::from_le_bytes)?.to_string(),
            7 => (self.array::<1>()? != [0]).to_string(),
            8 => self.text()?,
            9 => self.skip_array()?,
            10 => self.u64()?.to_string(),
            11 => self.array().map(i64::from_le_bytes)?.to_string(),
            12 => self.array().map(f64::from_le_bytes)?.to_string(),
            kind => return Err(GgufError::ValueKind { kind, at }),
        })
    }

    /// Passes over an array: vocabularies, which are read from files of their own.
    fn skip_array(&mut self) -> Result<String, GgufError> {
        let at = self.at;
        let kind = self.u32()?;
        let count = self.size()?;
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => {
                for _ in 0..count {
                    let length = self.size()?;
                    self.take(length)?;
                }
                0
            }
            kind => return Err(GgufError::ValueKind { kind, at }),
        };
        let bytes = count.checked_mul(size);
        self.take(bytes.ok_or(GgufError::Truncated { at })?)?;
        Ok(format!("an array of {count}"))
    }

    fn description(&mut self) -> Result<Description, GgufError> {
        let name = self.text()?;
        let dimensions = self.u32()?;
        if dimensions > MAX_DIMENSIONS {
            return Err(GgufError::Tensor {
                name,
                problem: format!("has {dimensions} dimensions"),
            });
        }
        // The file has the innermost first.
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.insert(0, self.size()?);
        }
        Ok(Description {
            name,
            shape,
            kind: self.u32()?,
            offset: self.size()?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const FILE: &[u8] = include_bytes!("../../tests/fixtures/kinds.gguf");

    #[test]
    fn a_header_that_ends_early_is_an_error() {
        let whole = Header::read(FILE).unwrap();
        assert_eq!(whole.tensors.len(), 13);
        assert_eq!(whole.metadata["llama.attention.head_count"], "2");
        assert!(whole.data_start.is_multiple_of(32));
        for end in 0..whole.data_start - 32 {
            assert!(Header::read(&FILE[..end]).is_err(), "{end}");
        }
        assert!(Header::read(&FILE[..whole.data_start]).is_ok());
    }

    /// A count or a length beyond all files costs nothing.
    #[test]
    fn absurd_counts_end_at_the_end_of_the_file() {
        for at in [8, 16, 24] {
            let mut bytes = FILE.to_vec();
            bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
            assert!(Header::read(&bytes).is_err(), "{at}");
        }
    }
}
