//! Near duplicates: texts that share most of their words' neighbourhoods.
//!
//! A text is the set of its shingles, runs of [`SHINGLE`] characters of its words. How alike two texts are
//! is the share of shingles that they have in common (Jaccard). Comparing all pairs is out of the
//! question, so each text gets a signature of 128 minima under as many hash functions (MinHash, Broder
//! 1997), cut into 16 bands of 8: two texts meet in a band with probability *s*⁸ if their likeness is
//! *s*, and in any of 16 with 1 − (1 − *s*⁸)¹⁶: 0.95 at 0.8, and 0.5 near 0.7. Those that meet are compared
//! by their shingles themselves, so the signature decides who is compared, never who is dropped.

use std::collections::HashSet;

use opabinia_data::Sample;

use crate::hash::{STEP, mix};

/// Characters of a shingle.
pub const SHINGLE: usize = 5;

/// Bands of a signature.
pub const BANDS: usize = 16;

/// Minima of a band.
const ROWS: usize = 8;

/// What is compared of a sample: the words of all turns, in lower case, one space between.
pub fn plain_text(sample: &Sample) -> String {
    let turns: Vec<String> = sample.turns.iter().map(|turn| words(&turn.text)).collect();
    turns.join(" ")
}

/// The words of a text without its placeholders, in lower case, one space between.
pub fn words(text: &str) -> String {
    let text = text.replace("<image>", " ").to_lowercase();
    let words = text.split(|c: char| !c.is_alphanumeric());
    words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Hashes of the shingles of a text. A text shorter than one is its own.
pub fn shingles(text: &str) -> HashSet<u64> {
    let characters: Vec<char> = text.chars().collect();
    let hash = |run: &[char]| {
        // FNV-1a, 64 bits.
        run.iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, &c| {
            (hash ^ u64::from(u32::from(c))).wrapping_mul(0x0000_0100_0000_01B3)
        })
    };
    match characters.len() {
        0 => HashSet::new(),
        n if n < SHINGLE => HashSet::from([hash(&characters)]),
        _ => characters.windows(SHINGLE).map(hash).collect(),
    }
}

/// How alike two sets of shingles are, from 0 to 1.
pub fn likeness(one: &HashSet<u64>, other: &HashSet<u64>) -> f64 {
    let common = one.intersection(other).count();
    let all = one.len() + other.len() - common;
    match all {
        0 => 0.0,
        _ => common as f64 / all as f64,
    }
}

/// Keys of the bands of a text about a picture: texts with a key in common are compared. Texts about
/// different pictures never are.
pub fn bands(shingles: &HashSet<u64>, picture: Option<&str>) -> Option<[u64; BANDS]> {
    if shingles.is_empty() {
        return None;
    }
    let mut minima = [u64::MAX; BANDS * ROWS];
    for &shingle in shingles {
        for (i, minimum) in minima.iter_mut().enumerate() {
            // One function for each place: the finaliser of splitmix64 over a shifted number.
            let hash = mix(shingle.wrapping_add((i as u64 + 1).wrapping_mul(STEP)));
            *minimum = (*minimum).min(hash);
        }
    }
    let about = picture.map_or(0, |picture| {
        picture
            .bytes()
            .fold(1, |hash: u64, byte| mix(hash ^ u64::from(byte)))
    });
    let mut keys = [0; BANDS];
    for (band, (key, rows)) in keys.iter_mut().zip(minima.chunks(ROWS)).enumerate() {
        *key = rows
            .iter()
            .fold(mix(about ^ band as u64), |key, row| mix(key ^ row));
    }
    Some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likeness_is_the_share_of_common_shingles() {
        let (one, other) = (shingles("abcdef"), shingles("abcdeg"));
        assert_eq!((one.len(), other.len()), (2, 2));
        // abcde of abcde, bcdef, bcdeg.
        assert_eq!(likeness(&one, &other), 1.0 / 3.0);
        assert_eq!(likeness(&one, &one), 1.0);
        assert_eq!(likeness(&shingles(""), &shingles("")), 0.0);
    }

    #[test]
    fn texts_that_are_alike_meet() {
        let words: Vec<String> = (0..100)
            .map(|i| format!("word{}", i * 7919 % 1000))
            .collect();
        let text = words.join(" ");
        let changed = text.replacen(&words[50], "another", 1);
        let other: Vec<String> = (0..100)
            .map(|i| format!("term{}", i * 104_729 % 1000))
            .collect();
        let keys = |text: &str, picture| bands(&shingles(text), picture).unwrap();
        let meet =
            |one: [u64; BANDS], other: [u64; BANDS]| one.iter().zip(other).any(|(a, b)| *a == b);
        assert!(meet(keys(&text, None), keys(&changed, None)));
        assert!(!meet(keys(&text, None), keys(&other.join(" "), None)));
        assert!(!meet(
            keys(&text, Some("a.png")),
            keys(&text, Some("b.png"))
        ));
        assert_eq!(bands(&HashSet::new(), None), None);
    }
}
