//! Named streams of randomness: one seed in, the same result out, whatever the number of threads.
//!
//! Every random choice draws from a stream of its own, seeded by the hash of (seed, name, index), so
//! that no choice moves when another one is added, and any of them can be made again alone. Numbers
//! are drawn by the rules written here, not by those of a library, which may change with its version.

use rand::RngCore;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// The stream of this name and index.
pub fn stream(seed: u64, name: &str, index: u64) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name);
    hash.update(index.to_le_bytes());
    ChaCha8Rng::from_seed(hash.finalize().into())
}

/// A number below `limit`: the upper half of `limit · u64`.
///
/// # Panics
/// If `limit` is 0.
pub fn below(random: &mut impl RngCore, limit: u64) -> u64 {
    assert!(limit > 0, "there is no number below 0");
    ((u128::from(random.next_u64()) * u128::from(limit)) >> 64) as u64
}

/// Fisher and Yates's shuffle.
pub fn shuffle<T>(random: &mut impl RngCore, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        let other = below(random, last as u64 + 1) as usize;
        items.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_told_apart_by_each_part_of_their_name() {
        let first = |seed, name, index| stream(seed, name, index).next_u64();
        let all = [
            first(1, "a", 0),
            first(2, "a", 0),
            first(1, "b", 0),
            first(1, "a", 1),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(!all[..i].contains(one));
        }
        assert_eq!(first(1, "a", 0), all[0]);
    }

    /// A change of these numbers would make runs that go on differ from what they were.
    #[test]
    fn the_numbers_stay() {
        let mut random = stream(42, "order", 0);
        let mut items: Vec<u32> = (0..8).collect();
        shuffle(&mut random, &mut items);
        assert_eq!(items, [6, 3, 0, 5, 2, 1, 4, 7]);
        assert!((0..1000).all(|_| below(&mut random, 7) < 7));
    }
}
