//! Which samples make a step: batches of one modality, shuffled anew in every epoch.
//!
//! [`plan`] is the reference implementation's `group_by_modality_length` (Cambrian-1, arXiv
//! 2406.16860, uses it in stage 2) without its distribution over devices: each modality is shuffled
//! and cut into batches, each batch is sorted by length, full batches are shuffled together, and what
//! is left of both modalities ends the epoch. It draws from named streams instead of torch's
//! generator, so the orders differ while their properties are the same. [`shuffled`] is stage 1's plain
//! order. Both depend on (seed, epoch) alone: whoever knows the epoch and the step goes on.
//!
//! Two accidents of the reference are not copied: a sample counts as one with a picture by having
//! one, not by having the key, and a sample without a word is not an assertion failure.

use std::cmp::Reverse;

use crate::stream::{shuffle, stream};

/// Whether a sample has a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Modality {
    /// Words only.
    Text,
    /// Words and a picture.
    Image,
}

/// What the order needs to know of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleLength {
    /// Its length, in whatever unit all samples are measured.
    pub tokens: u32,
    /// Whether it has a picture.
    pub modality: Modality,
}

/// The batches of an epoch, grouped by modality and length.
///
/// Every sample is in exactly one batch. All batches but those made of the two incomplete rests have
/// `batch` samples of one modality, longest first, so that neighbours need little padding. The rests
/// come last, sorted by number.
///
/// # Panics
/// If `batch` is 0, or if there are more samples than `u32` counts.
pub fn plan(lengths: &[SampleLength], batch: usize, seed: u64, epoch: usize) -> Vec<Vec<u32>> {
    let mut full = Vec::new();
    let mut rest = Vec::new();
    for (modality, name) in [
        (Modality::Image, "order.image"),
        (Modality::Text, "order.text"),
    ] {
        let mut samples: Vec<u32> = numbers(lengths.len())
            .filter(|&i| lengths[i as usize].modality == modality)
            .collect();
        shuffle(&mut stream(seed, name, epoch as u64), &mut samples);
        let batches = samples.chunks_exact(batch);
        rest.extend_from_slice(batches.remainder());
        full.extend(batches.map(|samples| longest_first(samples, lengths)));
    }
    shuffle(&mut stream(seed, "order.batches", epoch as u64), &mut full);
    rest.sort_unstable();
    full.extend(rest.chunks(batch).map(<[u32]>::to_vec));
    full
}

fn longest_first(samples: &[u32], lengths: &[SampleLength]) -> Vec<u32> {
    let mut samples = samples.to_vec();
    samples.sort_by_key(|&i| Reverse(lengths[i as usize].tokens));
    samples
}

/// The batches of an epoch in plain random order; the last may be smaller.
///
/// # Panics
/// If `batch` is 0, or if there are more samples than `u32` counts.
pub fn shuffled(samples: usize, batch: usize, seed: u64, epoch: usize) -> Vec<Vec<u32>> {
    let mut order: Vec<u32> = numbers(samples).collect();
    shuffle(&mut stream(seed, "order.plain", epoch as u64), &mut order);
    order.chunks(batch).map(<[u32]>::to_vec).collect()
}

fn numbers(samples: usize) -> std::ops::Range<u32> {
    0..u32::try_from(samples).expect("sets of samples are refused beyond this")
}

/// Divides a batch, longest sample first, among `parts` devices of about equal work: each sample
/// goes to the part with the least so far that has room. If the samples do not divide evenly they
/// are dealt in turn. The rule is the reference's, ties included.
///
/// # Panics
/// If `parts` is 0.
pub fn split_evenly(samples: &[u32], lengths: &[SampleLength], parts: usize) -> Vec<Vec<u32>> {
    assert!(parts > 0, "a batch is divided among at least one part");
    if !samples.len().is_multiple_of(parts) {
        let dealt = |part| samples.iter().skip(part).step_by(parts).copied().collect();
        return (0..parts).map(dealt).collect();
    }
    let room = samples.len() / parts;
    let mut divided = vec![(0_u64, Vec::with_capacity(room)); parts];
    for &sample in samples {
        let shortest = divided
            .iter_mut()
            .filter(|(_, part)| part.len() < room)
            .min_by_key(|(length, _)| *length);
        if let Some((length, part)) = shortest {
            *length += u64::from(lengths[sample as usize].tokens);
            part.push(sample);
        }
    }
    divided.into_iter().map(|(_, part)| part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(pictures: usize, texts: usize) -> Vec<SampleLength> {
        let length = |i: usize| SampleLength {
            tokens: (i * 7 % 31) as u32,
            modality: if i < pictures {
                Modality::Image
            } else {
                Modality::Text
            },
        };
        (0..pictures + texts).map(length).collect()
    }

    #[test]
    fn each_epoch_has_an_order_of_its_own() {
        let lengths = lengths(20, 20);
        let first = plan(&lengths, 4, 1, 0);
        assert_eq!(first, plan(&lengths, 4, 1, 0));
        assert_ne!(first, plan(&lengths, 4, 1, 1));
        assert_ne!(first, plan(&lengths, 4, 2, 0));
        assert_ne!(shuffled(40, 4, 1, 0), shuffled(40, 4, 1, 1));
    }

    #[test]
    fn plain_order_has_every_sample_once() {
        let batches = shuffled(10, 4, 3, 0);
        let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
        assert_eq!(sizes, [4, 4, 2]);
        let mut all = batches.concat();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
    }

    /// 5 + 6 samples in batches of 4: one full batch of each, and a rest of 1 + 2.
    #[test]
    fn what_is_left_comes_last() {
        let batches = plan(&lengths(5, 6), 4, 0, 0);
        let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
        assert_eq!(sizes, [4, 4, 3]);
        assert!(batches[2].is_sorted());
    }

    #[test]
    fn nothing_makes_no_batches() {
        assert!(plan(&[], 4, 0, 0).is_empty());
        assert!(shuffled(0, 4, 0, 0).is_empty());
    }
}
