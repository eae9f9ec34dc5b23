//! Named streams of randomness: every random choice draws from the stream of its seed and name, so
//! the order of work cannot change a choice, and a new choice leaves the older ones as they were.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// The stream called `name` of `seed`: ChaCha8, seeded with SHA-256 of both.
pub(crate) fn stream(seed: u64, name: &str) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(name.as_bytes());
    ChaCha8Rng::from_seed(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use rand::RngCore;

    #[test]
    fn a_stream_depends_on_seed_and_name_alone() {
        let first = |seed, name| super::stream(seed, name).next_u64();
        assert_eq!(first(1, "a"), first(1, "a"));
        assert_ne!(first(1, "a"), first(2, "a"));
        assert_ne!(first(1, "a"), first(1, "b"));
    }
}
