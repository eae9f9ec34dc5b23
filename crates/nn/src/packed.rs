//! Weights that were packed for the CPU, beside the parameters that they stand for.
//!
//! A packed weight is no tensor: it is bytes in the order in which kernels read them
//! ([`opabinia_kernels`]). The layer that has one never looks at its own parameter, which stays lazy
//! and costs no memory. Whoever loads a checkpoint sees parameters only, not layers; so every
//! [`Linear`](crate::Linear) leaves a slot under the identity of its parameter, and the loader fills
//! it ([`fill`]) or, when it loads a tensor there, empties it ([`clear`]). Copies of a layer share the
//! slot as they share the parameter's identity, and it is gone with the last of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use burn::module::{Param, ParamId};
use burn::prelude::*;

pub use opabinia_kernels::{Format, PackError, Packed, Rows};

type Slot = RwLock<Option<Packed>>;
type Slots = HashMap<ParamId, Weak<Slot>>;

/// Where a layer finds its packed weight, once somebody has put it there.
#[derive(Clone, Debug, Default)]
pub struct PackedSlot(Option<Arc<Slot>>);

static SLOTS: Mutex<Option<Slots>> = Mutex::new(None);

impl PackedSlot {
    /// A slot for the parameter of that identity.
    pub(crate) fn of(id: ParamId) -> Self {
        let slot = Arc::new(Slot::default());
        with_slots(|slots| {
            // Layers that are gone leave their entries; they are swept when they may be many.
            if slots.len() == slots.capacity() {
                slots.retain(|_, slot| slot.strong_count() > 0);
            }
            slots.insert(id, Arc::downgrade(&slot));
        });
        Self(Some(slot))
    }

    /// The packed weight, if there is one.
    #[must_use]
    pub fn get(&self) -> Option<Packed> {
        read(self.0.as_ref()?)
    }
}

fn with_slots<R>(f: impl FnOnce(&mut Slots) -> R) -> R {
    // The map is whole whatever a thread that panicked was doing.
    let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
    f(slots.get_or_insert_with(HashMap::new))
}

fn slot(id: ParamId) -> Option<Arc<Slot>> {
    with_slots(|slots| slots.get(&id).and_then(Weak::upgrade))
}

fn read(slot: &Slot) -> Option<Packed> {
    slot.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn write(id: ParamId, packed: Option<Packed>) -> bool {
    let Some(slot) = slot(id) else { return false };
    *slot.write().unwrap_or_else(PoisonError::into_inner) = packed;
    true
}

/// Whether a parameter is the weight of a layer that can have it packed.
#[must_use]
pub fn can_be_packed(id: ParamId) -> bool {
    slot(id).is_some()
}

/// Gives a layer its weight; false if there is no such layer.
#[must_use]
pub fn fill(id: ParamId, packed: Packed) -> bool {
    write(id, Some(packed))
}

/// Takes a layer's packed weight away, if it has one: from now on its parameter counts.
pub fn clear(id: ParamId) {
    write(id, None);
}

/// Calls `f` with the bytes of a parameter as it is in memory: of its packed weight where a layer has
/// one, else of its tensor. The parameter that a packed weight stands for is not made.
pub fn with_bytes<const D: usize, R>(param: &Param<Tensor<D>>, f: impl FnOnce(&[u8]) -> R) -> R {
    match packed(param.id) {
        Some(packed) => f(packed.as_bytes()),
        None => f(param.val().into_data().as_bytes()),
    }
}

/// The packed weight that stands for a parameter.
#[must_use]
pub fn packed(id: ParamId) -> Option<Packed> {
    read(slot(id)?.as_ref())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::{Activation, Linear};

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().try_to_vec().unwrap()
    }

    /// The packed layer is the layer of the rounded weight, on every device, and its parameter is
    /// never made.
    #[test]
    fn a_packed_layer_needs_no_parameter() {
        let device = Device::flex();
        let rows: Vec<f32> = (0..40 * 70).map(|i| ((i * 37) % 19) as f32 - 9.0).collect();
        for format in Format::ALL {
            let layer = Linear::new(70, 40, true, &device);
            let packed = Packed::pack(Rows::F32(&rows), [40, 70], format).unwrap();
            assert!(can_be_packed(layer.weight.id));
            assert!(fill(layer.weight.id, packed.clone()));
            let rounded = TensorData::new(packed.to_rows(), [40, 70]);
            let mut plain = Linear::new(70, 40, true, &device);
            plain.weight = Param::from_data(rounded, &device);
            plain.bias = layer.bias.clone();

            for m in [1, 30] {
                let x: Vec<f32> = (0..m * 70).map(|i| ((i * 11) % 7) as f32 / 3.0).collect();
                let x = Tensor::<2>::from_data(TensorData::new(x, [m, 70]), &device);
                let expected = values(plain.forward(x.clone()));
                let size = expected.iter().fold(0f32, |a, v| a.max(v.abs()));
                let close = |y: &[f32], tolerance: f32| {
                    let mut pairs = y.iter().zip(&expected);
                    pairs.all(|(a, b)| (a - b).abs() <= tolerance * size)
                };
                let whole = values(layer.clone().forward(x.clone()));
                assert!(close(&whole, 1e-2), "{format:?}");
                let relu = layer.forward_then(x.clone(), Activation::Relu);
                let cut: Vec<f32> = whole.iter().map(|v| v.max(0.0)).collect();
                assert_eq!(values(relu), cut);
                let recorded = layer.forward(Tensor::from_inner(x)).inner();
                assert!(close(&values(recorded), 1e-5), "{format:?}");
            }
            let found = with_bytes(&layer.weight, |bytes| bytes == packed.as_bytes());
            assert!(found && !layer.weight.is_initialized());
            assert!(with_bytes(&plain.weight, |bytes| bytes.len() == 40 * 70 * 4));
        }
    }

    #[test]
    fn an_emptied_slot_leaves_the_parameter() {
        let device = Device::flex();
        let mut layer = Linear::new(2, 1, false, &device);
        let x = Tensor::<2>::from_floats([[1.0, 10.0]], &device);
        let packed = Packed::pack(Rows::F32(&[1.0, 2.0]), [1, 2], Format::F32).unwrap();
        assert!(fill(layer.weight.id, packed));
        assert_eq!(values(layer.forward(x.clone())), [21.0]);
        let id = layer.weight.id;
        layer.weight = layer.weight.map(|w| w.zeros_like());
        clear(id);
        assert_eq!(values(layer.forward(x)), [0.0]);
    }

    #[test]
    fn a_slot_is_gone_with_its_layer() {
        let layer = Linear::new(2, 2, false, &Device::flex());
        let id = layer.weight.id;
        let copy = layer.clone();
        drop(layer);
        assert!(can_be_packed(id));
        drop(copy);
        assert!(!can_be_packed(id));
        assert!(packed(id).is_none());
    }
}
