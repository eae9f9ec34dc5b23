//! Activations, gates and rotations.

use burn::prelude::*;

use super::{Pullback, input, record};
use crate::Activation;
use crate::cpu::elementwise::{
    activate_back, activated, gated as gated_forward, gated_back, rotated,
};
use crate::cpu::values::{Plain, contiguous, plain};

/// `act(x)`.
pub(crate) fn activate<const D: usize>(x: Tensor<D>, act: Activation) -> Tensor<D> {
    record([input(x)], |[x], _| {
        let x = contiguous(x);
        (activated(x.clone(), act), Activate { x, act })
    })
}

#[derive(Clone, Debug)]
struct Activate {
    x: Plain,
    act: Activation,
}

impl Pullback<1> for Activate {
    fn pull(self, gradient: Plain, _: [bool; 1]) -> [Option<Plain>; 1] {
        [Some(activate_back(gradient, &self.x, self.act))]
    }
}

/// `act(gate) · up`.
///
/// # Panics
/// If the shapes differ.
pub(crate) fn gated<const D: usize>(gate: Tensor<D>, up: Tensor<D>, act: Activation) -> Tensor<D> {
    assert_eq!(gate.dims(), up.dims(), "gate and up differ in shape");
    record([input(gate), input(up)], |[gate, up], _| {
        let (gate, up) = (contiguous(gate), contiguous(up));
        let y = gated_forward(gate.clone(), &up, act);
        (y, Gated { gate, up, act })
    })
}

#[derive(Clone, Debug)]
struct Gated {
    gate: Plain,
    up: Plain,
    act: Activation,
}

impl Pullback<2> for Gated {
    fn pull(self, gradient: Plain, _: [bool; 2]) -> [Option<Plain>; 2] {
        let (gate, up) = gated_back(gradient, self.gate, &self.up, self.act);
        [Some(gate), Some(up)]
    }
}

/// Rotary embedding with constant tables; see [`crate::cpu::rotate`].
pub(crate) fn rotate(x: Tensor<4>, cos: Tensor<3>, sin: Tensor<3>) -> Tensor<4> {
    let table = |x: Tensor<3>| contiguous(plain(x.without_autodiff()));
    let (cos, sin) = (table(cos), table(sin));
    record([input(x)], |[x], _| {
        (rotated(x, &cos, &sin, 1.0), Rotate { cos, sin })
    })
}

#[derive(Clone, Debug)]
struct Rotate {
    cos: Plain,
    sin: Plain,
}

impl Pullback<1> for Rotate {
    fn pull(self, gradient: Plain, _: [bool; 1]) -> [Option<Plain>; 1] {
        [Some(rotated(gradient, &self.cos, &self.sin, -1.0))]
    }
}
