//! Keys and values of the tokens a decoder has seen.
//!
//! Rows of a batch may hold sequences of unequal length: every row has the same number of *slots*,
//! and a slot is either a token at a position or padding that nobody may look at. The cache knows
//! both, so masks are made in one place.

use burn::prelude::*;
use opabinia_nn::attention::AttentionMask;

/// One slot of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Position in the sequence, which rotary embedding and sliding windows count.
    pub position: usize,
    /// Whether a token is there; padding is hidden from everybody.
    pub filled: bool,
}

/// What a decoder remembers of a batch.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    layers: Vec<KeyValue>,
    rows: Vec<Vec<Slot>>,
}

#[derive(Clone, Debug)]
struct KeyValue {
    key: Tensor<4>,
    value: Tensor<4>,
}

impl KvCache {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of slots, padding included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.first().map_or(0, Vec::len)
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything after the first `slots`.
    pub fn truncate(&mut self, slots: usize) {
        if slots >= self.len() {
            return;
        }
        for row in &mut self.rows {
            row.truncate(slots);
        }
        for layer in &mut self.layers {
            for tensor in [&mut layer.key, &mut layer.value] {
                let [b, heads, _, d] = tensor.dims();
                *tensor = tensor.clone().slice([0..b, 0..heads, 0..slots, 0..d]);
            }
        }
    }

    /// Adds the slots of one step and says what its queries may look at.
    ///
    /// # Panics
    /// If the step has another number of rows than the cache: the caller owns both.
    pub(crate) fn extend(
        &mut self,
        step: &[Vec<Slot>],
        window: Option<usize>,
        device: &Device,
    ) -> AttentionMask {
        if self.rows.is_empty() {
            self.rows = vec![Vec::new(); step.len()];
        }
        assert_eq!(
            self.rows.len(),
            step.len(),
            "a step must have the rows of its cache"
        );
        let before = self.len();
        for (row, new) in self.rows.iter_mut().zip(step) {
            row.extend_from_slice(new);
        }
        let all_filled = self.rows.iter().flatten().all(|slot| slot.filled);
        let window_reaches = window.is_some_and(|window| {
            let last = self.rows.iter().flatten().map(|slot| slot.position).max();
            last.is_some_and(|last| last >= window)
        });
        if all_filled && !window_reaches {
            return AttentionMask::Causal;
        }
        self.explicit_mask(before, window, device)
    }

    fn explicit_mask(
        &self,
        before: usize,
        window: Option<usize>,
        device: &Device,
    ) -> AttentionMask {
        let slots = self.len();
        let mut hidden = Vec::with_capacity(self.rows.len() * (slots - before) * slots);
        for row in &self.rows {
            for (i, query) in row.iter().enumerate().skip(before) {
                hidden.extend(row.iter().enumerate().map(|(j, key)| {
                    let too_old = window.is_some_and(|w| query.position >= key.position + w);
                    j > i || !key.filled || too_old
                }));
            }
        }
        let shape = [self.rows.len(), 1, slots - before, slots];
        AttentionMask::Hidden(Tensor::from_data(TensorData::new(hidden, shape), device))
    }

    /// Appends a layer's new keys and values (`[b, kv, t, d]`) and returns all of them.
    pub(crate) fn append(
        &mut self,
        layer: usize,
        key: Tensor<4>,
        value: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        match self.layers.get_mut(layer) {
            Some(stored) => {
                stored.key = Tensor::cat(vec![stored.key.clone(), key], 2);
                stored.value = Tensor::cat(vec![stored.value.clone(), value], 2);
                (stored.key.clone(), stored.value.clone())
            }
            None => {
                self.layers.push(KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                });
                (key, value)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(filled: &[bool]) -> Vec<Slot> {
        filled
            .iter()
            .enumerate()
            .map(|(position, &filled)| Slot { position, filled })
            .collect()
    }

    fn hidden(mask: &AttentionMask) -> Vec<bool> {
        match mask {
            AttentionMask::Hidden(mask) => mask.to_data().try_to_vec().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn padding_is_hidden_from_later_tokens() {
        let device = Device::flex();
        let mut cache = KvCache::new();
        let _ = cache.extend(
            &[slots(&[true, true]), slots(&[true, false])],
            None,
            &device,
        );
        let next = [
            vec![Slot {
                position: 2,
                filled: true,
            }],
            vec![Slot {
                position: 1,
                filled: true,
            }],
        ];
        let mask = cache.extend(&next, None, &device);
        assert_eq!(hidden(&mask), [false, false, false, false, true, false]);
    }

    #[test]
    fn a_window_hides_what_is_too_far_back() {
        let mut cache = KvCache::new();
        let mask = cache.extend(&[slots(&[true; 3])], Some(2), &Device::flex());
        let expected = [
            [false, true, true],
            [false, false, true],
            [true, false, false],
        ]
        .concat();
        assert_eq!(hidden(&mask), expected);
    }

    #[test]
    fn a_full_batch_inside_the_window_is_plainly_causal() {
        let mut cache = KvCache::new();
        let mask = cache.extend(&[slots(&[true; 3])], Some(3), &Device::flex());
        assert!(matches!(mask, AttentionMask::Causal));
    }
}
