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
    /// The branch it belongs to. Branches go on from the same beginning, the trunk, and do not see each
    /// other: several questions about one picture are read in one row as if each were alone.
    pub branch: usize,
}

impl Slot {
    /// The branch that every other one sees.
    pub const TRUNK: usize = 0;

    /// A token of the trunk.
    #[must_use]
    pub fn at(position: usize) -> Self {
        Self {
            position,
            filled: true,
            branch: Self::TRUNK,
        }
    }

    /// Whether a token that comes later may look at this one, as far as branches go.
    fn is_before(&self, later: &Self) -> bool {
        self.branch == Self::TRUNK || self.branch == later.branch
    }
}

/// What a decoder remembers of a batch.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    layers: Vec<KeyValue>,
    rows: Vec<Vec<Slot>>,
}

/// Keys and values of one layer, in buffers that have room for more.
#[derive(Clone, Debug)]
struct KeyValue {
    /// `[b, kv, capacity, d]`.
    key: Tensor<4>,
    /// `[b, kv, capacity, d]`.
    value: Tensor<4>,
}

/// Slots that a buffer gains when it is full.
const ROOM: usize = 256;

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
        let mut slots = self.rows.iter().flatten();
        let plain = slots.all(|slot| slot.filled && slot.branch == Slot::TRUNK);
        let window_reaches = window.is_some_and(|window| {
            let last = self.rows.iter().flatten().map(|slot| slot.position).max();
            last.is_some_and(|last| last >= window)
        });
        if plain && !window_reaches {
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
                    j > i || !key.filled || too_old || !key.is_before(query)
                }));
            }
        }
        let shape = [self.rows.len(), 1, slots - before, slots];
        AttentionMask::Hidden(Tensor::from_data(TensorData::new(hidden, shape), device))
    }

    /// Appends a layer's new keys and values (`[b, kv, t, d]`), whose slots [`KvCache::extend`] has
    /// added, and returns all of them.
    pub(crate) fn append(
        &mut self,
        layer: usize,
        key: Tensor<4>,
        value: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        let filled = self.len();
        let before = filled - key.dims()[2];
        if before == 0 {
            // A prompt that is read at once needs no room, and training never comes back.
            self.layers.truncate(layer);
            self.layers.push(KeyValue {
                key: key.clone(),
                value: value.clone(),
            });
            return (key, value);
        }
        let stored = &mut self.layers[layer];
        let placeholder = key.clone();
        let grow = |buffer: &mut Tensor<4>, new: Tensor<4>| {
            // Taken out, so that it is the only owner and is changed in place.
            let taken = std::mem::replace(buffer, placeholder.clone());
            *buffer = write(taken, new, before);
            first_slots(buffer, filled)
        };
        (grow(&mut stored.key, key), grow(&mut stored.value, value))
    }
}

/// Writes `new` behind the first `before` slots, in a larger buffer if there is no room.
fn write(buffer: Tensor<4>, new: Tensor<4>, before: usize) -> Tensor<4> {
    let [b, heads, t, d] = new.dims();
    let buffer = if before + t <= buffer.dims()[2] {
        buffer
    } else {
        let larger = Tensor::zeros([b, heads, before + t + ROOM, d], &buffer.device());
        larger.slice_assign(
            [0..b, 0..heads, 0..before, 0..d],
            first_slots(&buffer, before),
        )
    };
    buffer.slice_assign([0..b, 0..heads, before..before + t, 0..d], new)
}

fn first_slots(buffer: &Tensor<4>, slots: usize) -> Tensor<4> {
    let [b, heads, _, d] = buffer.dims();
    buffer.clone().slice([0..b, 0..heads, 0..slots, 0..d])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(filled: &[bool]) -> Vec<Slot> {
        filled
            .iter()
            .enumerate()
            .map(|(position, &filled)| Slot {
                filled,
                ..Slot::at(position)
            })
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
        let next = [vec![Slot::at(2)], vec![Slot::at(1)]];
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
    fn branches_see_the_trunk_and_themselves() {
        let slot = |position, branch| Slot {
            branch,
            ..Slot::at(position)
        };
        let row = [0, 1, 1, 2].map(|branch| slot(usize::from(branch > 0), branch));
        let mask = KvCache::new().extend(&[row.to_vec()], None, &Device::flex());
        let expected = [
            [false, true, true, true],
            [false, false, true, true],
            [false, false, false, true],
            [false, true, true, false],
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
