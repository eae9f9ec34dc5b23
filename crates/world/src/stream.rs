//! Named streams of randomness: every random choice of the world draws from one of these.
//!
//! A stream depends on a seed, a name and an index and on nothing else, so the order in which
//! threads do their work cannot change a picture, and a new choice with a name of its own leaves
//! all older choices as they were.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// The stream called `name`, number `index`, of `seed`.
///
/// ChaCha8 seeded with SHA-256 of the seed and the index (64-bit little-endian) and the name.
pub fn stream(seed: u64, name: &str, index: u64) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(digest(seed, name, index))
}

/// A seed for something that has streams of its own, for instance one picture of a world.
///
/// The first eight bytes of the digest that [`stream`] starts from.
pub fn child_seed(seed: u64, name: &str, index: u64) -> u64 {
    let digest = digest(seed, name, index);
    digest
        .iter()
        .take(8)
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn digest(seed: u64, name: &str, index: u64) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(seed.to_le_bytes());
    hasher.update(index.to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngCore;

    #[test]
    fn a_stream_depends_on_seed_name_and_index_alone() {
        let first = |seed, name, index| stream(seed, name, index).next_u64();
        assert_eq!(first(1, "scene", 0), first(1, "scene", 0));
        assert_ne!(first(1, "scene", 0), first(2, "scene", 0));
        assert_ne!(first(1, "scene", 0), first(1, "word", 0));
        assert_ne!(first(1, "scene", 0), first(1, "scene", 1));
    }

    #[test]
    fn a_child_seed_is_the_digest_read_little_endian() {
        let bytes = digest(7, "train", 3);
        let expected = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert_eq!(child_seed(7, "train", 3), expected);
    }
}
