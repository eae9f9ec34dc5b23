//! SHA-256 as lower-case hexadecimal digits: how prompts, questions, pictures and weights are told
//! apart.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// Digest of some bytes.
pub fn of(bytes: impl AsRef<[u8]>) -> String {
    hex(Sha256::digest(bytes))
}

/// The digits of a digest.
pub fn hex(digest: impl AsRef<[u8]>) -> String {
    let digest = digest.as_ref();
    digest
        .iter()
        .fold(String::with_capacity(2 * digest.len()), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

#[cfg(test)]
mod tests {
    /// The well-known digest of nothing.
    #[test]
    fn nothing_has_a_digest() {
        assert_eq!(
            super::of(""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
