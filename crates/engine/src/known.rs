//! What is there already: samples of other pools, read once per run.

use std::collections::{BTreeSet, HashMap, HashSet};

use opabinia_data::{PictureFolder, SampleFile};
use opabinia_image::{ImageSource, dhash, load};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::EngineError;
use crate::filter::words;
use crate::picture::limits;
use crate::plan::{Plan, hex};
use crate::run::Progress;

/// Samples and pictures between two signs of progress.
const STEP: usize = 1024;

/// Identifies a question with its answer, whatever its marks and capitals.
pub(crate) fn text_key(question: &str, answer: &str) -> u128 {
    let question = question.replace("<image>", " ");
    let text = format!(
        "{}\n{}",
        words(&question).join(" "),
        words(answer).join(" ")
    );
    let digest = Sha256::digest(text);
    digest
        .iter()
        .take(16)
        .fold(0, |key, byte| key << 8 | u128::from(*byte))
}

/// A file of samples that was compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPool {
    /// Its path, as the plan has it.
    pub path: String,
    /// Hash of its bytes.
    pub sha256: String,
    /// Its samples.
    pub samples: u64,
}

/// What is in other pools.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub texts: HashSet<u128>,
    pub looks: Looks,
    pub pools: Vec<KnownPool>,
    /// Samples or pictures that could not be read.
    pub unread: u64,
}

impl Known {
    /// Reads `filters.pools` and their pictures.
    pub(crate) fn read(
        plan: &Plan,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Self, EngineError> {
        let mut known = Self {
            looks: Looks::new(plan.pictures.near_bits),
            ..Self::default()
        };
        let folder = plan.filters.pool_pictures.as_ref();
        let folder = folder
            .map(|root| PictureFolder::open(root, limits(&plan.pictures)))
            .transpose()?;
        // By path, so that a picture of many samples is read once.
        let mut paths = BTreeSet::new();
        for path in &plan.filters.pools {
            let file = SampleFile::open(path)?;
            for i in 0..file.len() {
                if (i + 1) % STEP == 0 || i + 1 == file.len() {
                    progress(Progress {
                        stage: "other pools",
                        done: i + 1,
                        total: file.len(),
                    });
                }
                let Ok(sample) = file.sample(i) else {
                    known.unread += 1;
                    continue;
                };
                for pair in sample.turns.chunks_exact(2) {
                    known.texts.insert(text_key(&pair[0].text, &pair[1].text));
                }
                match folder.as_ref().map(|folder| folder.find(&sample)) {
                    Some(Ok(path)) => paths.extend(path),
                    Some(Err(_)) => known.unread += 1,
                    None => {}
                }
            }
            known.pools.push(KnownPool {
                path: path.display().to_string(),
                sha256: hex(file.sha256()),
                samples: file.len() as u64,
            });
        }
        let paths: Vec<_> = paths.into_iter().collect();
        for (i, some) in paths.chunks(STEP).enumerate() {
            let look = |path: &std::path::PathBuf| {
                let picture = load(&ImageSource::File(path.clone()), &limits(&plan.pictures));
                picture.ok().map(|picture| dhash(&picture))
            };
            let hashes: Vec<Option<u64>> = some.par_iter().map(look).collect();
            known.unread += hashes.iter().filter(|hash| hash.is_none()).count() as u64;
            for hash in hashes.into_iter().flatten() {
                known.looks.add(hash);
            }
            progress(Progress {
                stage: "their pictures",
                done: (i * STEP + some.len()).min(paths.len()),
                total: paths.len(),
            });
        }
        Ok(known)
    }
}

/// Difference hashes, found again if a few bits differ.
///
/// Of `bits + 1` pieces of a hash, at least one is the same where at most `bits` bits differ; so only hashes
/// that share a piece are compared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Looks {
    bits: u32,
    /// For each piece, hashes by its value.
    pieces: Vec<HashMap<u64, Vec<u64>>>,
}

impl Looks {
    pub(crate) fn new(bits: u32) -> Self {
        let bits = bits.min(63);
        Self {
            bits,
            pieces: vec![HashMap::new(); bits as usize + 1],
        }
    }

    pub(crate) fn add(&mut self, hash: u64) {
        let count = self.pieces.len();
        for (i, piece) in self.pieces.iter_mut().enumerate() {
            piece.entry(cut(hash, i, count)).or_default().push(hash);
        }
    }

    /// Whether there is a hash that differs in so few bits.
    pub(crate) fn has_near(&self, hash: u64) -> bool {
        let count = self.pieces.len();
        let pieces = self.pieces.iter().enumerate();
        let mut fitting = pieces.filter_map(|(i, piece)| piece.get(&cut(hash, i, count)));
        fitting.any(|some| {
            some.iter()
                .any(|known| (known ^ hash).count_ones() <= self.bits)
        })
    }
}

/// Piece `i` of `count` of a hash.
fn cut(hash: u64, i: usize, count: usize) -> u64 {
    let (from, to) = (64 * i / count, 64 * (i + 1) / count);
    (hash >> from) & (u64::MAX >> (64 - (to - from)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn questions_are_the_same_whatever_their_marks() {
        assert_eq!(
            text_key("<image>\nWhat is IT?", "a cell."),
            text_key("what is it", "A cell")
        );
        assert_ne!(text_key("what is it", "a"), text_key("what is", "it a"));
    }

    #[test]
    fn hashes_that_differ_in_few_bits_are_near() {
        let mut looks = Looks::new(2);
        assert!(!looks.has_near(0));
        looks.add(0b1000);
        assert!(looks.has_near(0b1011) && !looks.has_near(0b0111));
    }

    proptest! {
        #[test]
        fn pieces_find_what_a_search_of_all_finds(known in any::<u64>(), flips in proptest::collection::vec(0u32..64, 0..9), bits in 0u32..9) {
            let mut looks = Looks::new(bits);
            looks.add(known);
            let other = flips.iter().fold(known, |hash, bit| hash ^ (1 << bit));
            prop_assert_eq!(looks.has_near(other), (known ^ other).count_ones() <= bits);
        }
    }
}
