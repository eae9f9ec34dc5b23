//! The type in which linear layers multiply: mixed precision.
//!
//! Parameters, activations and gradients stay f32. Within [`with`], every linear layer rounds the two
//! factors of its product to a shorter type and widens what comes out, forwards and, because the
//! rounding is recorded too, backwards. Matrix units of GPUs are several times faster that way.
//! Everything else (norms, softmax, losses) is left in f32, where short types lose too much.

use std::cell::Cell;

use burn::prelude::*;
use burn::tensor::DType;

/// A type for the products of linear layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ComputeType {
    /// As the parameters are.
    #[default]
    F32,
    /// The exponents of f32 with 8 bits of precision: needs no scaling of the loss.
    Bf16,
    /// 11 bits of precision, but nothing below 6e-8: small gradients vanish unless the loss is
    /// scaled.
    F16,
}

impl ComputeType {
    /// The reduced type; none for f32.
    #[must_use]
    pub fn reduced(self) -> Option<DType> {
        match self {
            Self::F32 => None,
            Self::Bf16 => Some(DType::BF16),
            Self::F16 => Some(DType::F16),
        }
    }
}

thread_local! {
    static CURRENT: Cell<ComputeType> = const { Cell::new(ComputeType::F32) };
}

/// Runs `f` with the products of linear layers on this thread in the given type.
pub fn with<R>(kind: ComputeType, f: impl FnOnce() -> R) -> R {
    struct Restore(ComputeType);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _restore = Restore(CURRENT.replace(kind));
    f()
}

/// The type to round to, if there is one and both factors are f32.
pub(crate) fn reduced<const D: usize>(x: &Tensor<D>, weight: &Tensor<2>) -> Option<DType> {
    let full = x.dtype() == DType::F32 && weight.dtype() == DType::F32;
    CURRENT.get().reduced().filter(|_| full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_holds_inside_only() {
        let inside = with(ComputeType::Bf16, || {
            with(ComputeType::F16, || CURRENT.get());
            CURRENT.get()
        });
        assert_eq!(
            (inside, CURRENT.get()),
            (ComputeType::Bf16, ComputeType::F32)
        );
    }
}
