//! The bytes of a record: a header of 64, then the values, filled up to a multiple of 64.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | a mark, which also tells the order of bytes |
//! | 8..40 | the key |
//! | 40..44, 44..48 | rows, width |
//! | 48..52 | bytes of a value |
//! | 52..56 | checksum of all other bytes of the header |
//! | 56..64 | checksum of the values |
//!
//! Numbers are written in the machine's own order of bytes. A machine of the other order does not
//! know the mark, and takes the file for an empty one.

/// Length of a header, and what records are filled up to.
pub(super) const HEADER_BYTES: usize = 64;

const MARK: u64 = u64::from_le_bytes(*b"opafeat1");

/// More than any encoder gives: 512 × 512 features of 4096 halves.
const MAX_PAYLOAD_BYTES: u64 = 2 << 30;

/// How values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Two bytes a value; enough for features that are read in half precision or normalised.
    F16,
    /// Four bytes a value: what was computed, to the bit.
    F32,
}

impl Precision {
    fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// What a record says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub key: [u8; 32],
    pub rows: u32,
    pub width: u32,
    pub precision: Precision,
    payload_sum: u64,
}

impl Header {
    /// # Panics
    /// If the payload is larger than a record can be.
    pub fn new(
        key: [u8; 32],
        rows: usize,
        width: usize,
        precision: Precision,
        payload: &[u8],
    ) -> Self {
        let side = |side| u32::try_from(side).ok();
        let sides = side(rows).zip(side(width));
        let (rows, width) = sides.expect("more features than an encoder can give");
        assert!(
            payload.len() as u64 <= MAX_PAYLOAD_BYTES,
            "{} bytes of features are more than a record holds",
            payload.len()
        );
        Self {
            key,
            rows,
            width,
            precision,
            payload_sum: checksum(payload),
        }
    }

    /// Header and payload as they are written.
    pub fn record(&self, payload: &[u8]) -> Vec<u8> {
        let length = HEADER_BYTES + payload.len().next_multiple_of(HEADER_BYTES);
        let mut record = Vec::with_capacity(length);
        record.extend_from_slice(&self.to_bytes());
        record.extend_from_slice(payload);
        record.resize(length, 0);
        record
    }

    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MARK.to_ne_bytes());
        bytes[8..40].copy_from_slice(&self.key);
        bytes[40..44].copy_from_slice(&self.rows.to_ne_bytes());
        bytes[44..48].copy_from_slice(&self.width.to_ne_bytes());
        bytes[48..52].copy_from_slice(&(self.precision.bytes() as u32).to_ne_bytes());
        bytes[56..64].copy_from_slice(&self.payload_sum.to_ne_bytes());
        let sum = header_sum(&bytes);
        bytes[52..56].copy_from_slice(&sum.to_ne_bytes());
        bytes
    }

    /// A header, if that is what the bytes are.
    pub fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        if word(bytes, 0) != MARK || half_word(bytes, 52) != header_sum(bytes) {
            return None;
        }
        let precision = match half_word(bytes, 48) {
            2 => Precision::F16,
            4 => Precision::F32,
            _ => return None,
        };
        let mut key = [0; 32];
        key.copy_from_slice(&bytes[8..40]);
        let header = Self {
            key,
            rows: half_word(bytes, 40),
            width: half_word(bytes, 44),
            precision,
            payload_sum: word(bytes, 56),
        };
        let values = u64::from(header.rows) * u64::from(header.width);
        let payload = values.checked_mul(precision.bytes() as u64)?;
        (payload <= MAX_PAYLOAD_BYTES).then_some(header)
    }

    /// Number of values.
    pub fn values(&self) -> usize {
        self.rows as usize * self.width as usize
    }

    pub fn payload_bytes(&self) -> usize {
        self.values() * self.precision.bytes()
    }

    pub fn record_bytes(&self) -> u64 {
        (HEADER_BYTES + self.payload_bytes().next_multiple_of(HEADER_BYTES)) as u64
    }

    /// Whether these are the values that the header was written for.
    pub fn describes(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_bytes() && checksum(payload) == self.payload_sum
    }
}

fn word(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(word)
}

fn half_word(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(word)
}

/// Checksum of a header without the place where it is written.
fn header_sum(bytes: &[u8; HEADER_BYTES]) -> u32 {
    let mut bytes = *bytes;
    bytes[52..56].fill(0);
    let sum = checksum(&bytes);
    (sum ^ (sum >> 32)) as u32
}

/// Finds accidents, not attacks, at the speed of memory: each word changes the sum by steps that can
/// be undone, so a change within a single word always shows, and others do with all but certainty.
fn checksum(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15; // 2^64 over the golden ratio, odd
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(bytes.len() as u64, |sum, word| {
        mix(sum, u64::from_ne_bytes(*word))
    });
    rest.iter()
        .fold(sum, |sum, &byte| mix(sum, u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_a_record_counts() {
        let payload: Vec<u8> = (0..24).collect();
        let header = Header::new([3; 32], 2, 3, Precision::F32, &payload);
        let record = header.record(&payload);
        assert_eq!(record.len(), 128);
        let read = |record: &[u8]| {
            let (head, rest) = record.split_first_chunk::<HEADER_BYTES>().unwrap();
            Header::from_bytes(head).is_some_and(|header| header.describes(&rest[..24]))
        };
        assert!(read(&record));
        for bit in 0..(64 + 24) * 8 {
            let mut changed = record.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!read(&changed), "{bit}");
        }
    }

    #[test]
    fn a_header_that_claims_too_much_is_none() {
        let header = Header {
            key: [0; 32],
            rows: u32::MAX,
            width: u32::MAX,
            precision: Precision::F32,
            payload_sum: 0,
        };
        assert_eq!(Header::from_bytes(&header.to_bytes()), None);
    }
}
