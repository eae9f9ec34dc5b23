//! Texts as rows of tokens of one length.
//!
//! Every text becomes a document: beginning of text, its tokens, end of text (markers that the text
//! already has are not doubled). Documents are packed into rows so that as few as possible are cut:
//! the longest first, each into the row where it leaves the least room (arXiv 2404.10830); inside a
//! row they stand in random order. A document longer than a row is cut into pieces that fill rows.
//!
//! What a row means for training:
//! - every token of a document is predicted from those before it, except its first, which nothing
//!   foretells; padding at the end of a row is not trained;
//! - attention may cross to earlier documents of the row, and positions run on: with rotary
//!   embedding only distances count, and the beginning-of-text token tells the model to look no
//!   further.

use std::collections::BTreeMap;

use opabinia_data::stream::{shuffle, stream};
use opabinia_llm::{SpecialTokens, Tokenizer};
use rayon::prelude::*;

use crate::TrainError;

/// A row of tokens and which of them are predicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Tokens, without padding.
    pub tokens: Vec<u32>,
    /// For each token whether it is the target of the one before.
    pub trained: Vec<bool>,
}

impl Row {
    /// Targets in the row.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.trained.iter().filter(|trained| **trained).count()
    }
}

/// The tokens of a text as a document; empty for an empty text.
///
/// # Errors
/// If the tokenizer cannot write the text.
pub fn document(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, TrainError> {
    let mut tokens = tokenizer.encode(text, SpecialTokens::Omit)?;
    if tokens.is_empty() {
        return Ok(tokens);
    }
    if let Some(bos) = tokenizer.bos_id().filter(|bos| tokens.first() != Some(bos)) {
        tokens.insert(0, bos);
    }
    if let Some(eos) = tokenizer.eos_id().filter(|eos| tokens.last() != Some(eos)) {
        tokens.push(eos);
    }
    Ok(tokens)
}

/// All documents of `texts`, in their order, empty ones left out.
///
/// # Errors
/// As [`document`].
pub fn documents<S: AsRef<str> + Sync>(
    tokenizer: &Tokenizer,
    texts: &[S],
) -> Result<Vec<Vec<u32>>, TrainError> {
    let mut found: Vec<Vec<u32>> = texts
        .par_iter()
        .map(|text| document(tokenizer, text.as_ref()))
        .collect::<Result<_, _>>()?;
    found.retain(|tokens| !tokens.is_empty());
    Ok(found)
}

/// Packs documents into rows of at most `length` tokens.
#[must_use]
pub fn pack(documents: Vec<Vec<u32>>, length: usize, seed: u64) -> Vec<Row> {
    let length = length.max(2);
    let mut pieces: Vec<Row> = documents
        .iter()
        .flat_map(|tokens| cut(tokens, length))
        .collect();
    // Stable, so that equal lengths keep their order.
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.tokens.len()));
    let bins = best_fit(pieces, length);
    bins.into_iter()
        .enumerate()
        .map(|(index, mut pieces)| {
            shuffle(&mut stream(seed, "pack", index as u64), &mut pieces);
            join(pieces)
        })
        .collect()
}

/// A document in pieces of a row each. The first token of a piece has nothing before it.
fn cut(tokens: &[u32], length: usize) -> impl Iterator<Item = Row> {
    tokens.chunks(length).map(|piece| Row {
        tokens: piece.to_vec(),
        trained: (0..piece.len()).map(|i| i > 0).collect(),
    })
}

/// Each piece into the fullest bin that has room for it.
fn best_fit(pieces: Vec<Row>, length: usize) -> Vec<Vec<Row>> {
    let mut bins: Vec<Vec<Row>> = Vec::new();
    // From free room to the bins that have it, the oldest last.
    let mut by_room: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for piece in pieces {
        let size = piece.tokens.len();
        let fitting = by_room
            .range_mut(size..)
            .find_map(|(&room, bins)| bins.pop().map(|bin| (room, bin)));
        let (room, bin) = fitting.unwrap_or_else(|| {
            bins.push(Vec::new());
            (length, bins.len() - 1)
        });
        if by_room.get(&room).is_some_and(Vec::is_empty) {
            by_room.remove(&room);
        }
        bins[bin].push(piece);
        if room > size {
            by_room.entry(room - size).or_default().push(bin);
        }
    }
    bins
}

fn join(pieces: Vec<Row>) -> Row {
    let mut row = Row {
        tokens: Vec::new(),
        trained: Vec::new(),
    };
    for piece in pieces {
        row.tokens.extend(piece.tokens);
        row.trained.extend(piece.trained);
    }
    row
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn documents_share_a_row_and_first_tokens_are_not_trained() {
        let rows = pack(vec![vec![1, 2, 3], vec![4, 5], vec![6, 7, 8]], 5, 0);
        assert_eq!(rows.len(), 2);
        let full = rows.iter().find(|row| row.tokens.len() == 5).unwrap();
        assert_eq!(full.targets(), 3);
        for (token, trained) in full.tokens.iter().zip(&full.trained) {
            assert_eq!(*trained, ![1, 4, 6].contains(token));
        }
    }

    #[test]
    fn a_long_document_fills_rows() {
        let rows = pack(vec![(0..10).collect()], 4, 0);
        let mut lengths: Vec<usize> = rows.iter().map(|row| row.tokens.len()).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [2, 4, 4]);
    }

    proptest! {
        /// Nothing is lost, no row is too long, and rows are at least half full on the average.
        #[test]
        fn packing_keeps_every_token(
            sizes in prop::collection::vec(1usize..40, 1..60),
            length in 2usize..50,
            seed in any::<u64>(),
        ) {
            let mut next = 0;
            let documents: Vec<Vec<u32>> = sizes
                .iter()
                .map(|&size| (0..size).map(|_| { next += 1; next }).collect())
                .collect();
            let rows = pack(documents.clone(), length, seed);
            let mut all: Vec<u32> = rows.iter().flat_map(|row| row.tokens.clone()).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (1..=next).collect::<Vec<u32>>());
            prop_assert!(rows.iter().all(|row| row.tokens.len() <= length));
            prop_assert!(rows.iter().all(|row| row.trained.len() == row.tokens.len()));
            let least = next as usize / length;
            prop_assert!(rows.len() <= 2 * least + 1);
            prop_assert_eq!(rows, pack(documents, length, seed));
        }
    }
}
