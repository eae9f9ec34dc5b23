//! Elementwise functions and rotations in one parallel pass, forwards and backwards.

use burn::prelude::*;
use rayon::prelude::*;

use super::math::{exp, fma, normal_cdf, sigmoid};
use super::values::{CHUNK, Plain, contiguous, edit, owned, plain, tensor, values};
use super::{Level, level, per_level};
use crate::Activation;

#[inline(always)]
fn apply<const FMA: bool>(act: Activation, x: f32) -> f32 {
    match act {
        Activation::Gelu => x * normal_cdf::<FMA>(x),
        // ½(1 + tanh u) = σ(2u).
        Activation::GeluTanh => {
            let u = 0.797_884_6 * fma::<FMA>(0.044_715 * x * x, x, x);
            x * sigmoid::<FMA>(2.0 * u)
        }
        Activation::QuickGelu => x * sigmoid::<FMA>(1.702 * x),
        Activation::Silu => x * sigmoid::<FMA>(x),
        Activation::Relu => x.max(0.0),
    }
}

/// The function and its derivative; they share their exponential.
#[inline(always)]
fn apply_both<const FMA: bool>(act: Activation, x: f32) -> (f32, f32) {
    match act {
        // (x Φ)' = Φ + x φ.
        Activation::Gelu => {
            let cdf = normal_cdf::<FMA>(x);
            let density = 0.398_942_3 * exp::<FMA>(-0.5 * x * x);
            (x * cdf, fma::<FMA>(x, density, cdf))
        }
        // With s = σ(2u): (x s)' = s + 2 u' x s (1 − s).
        Activation::GeluTanh => {
            let square = 0.044_715 * x * x;
            let u = 0.797_884_6 * fma::<FMA>(square, x, x);
            let slope = 0.797_884_6 * fma::<FMA>(3.0, square, 1.0);
            scaled_by_sigmoid::<FMA>(x, 2.0 * u, 2.0 * slope)
        }
        Activation::QuickGelu => scaled_by_sigmoid::<FMA>(x, 1.702 * x, 1.702),
        Activation::Silu => scaled_by_sigmoid::<FMA>(x, x, 1.0),
        Activation::Relu => (x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 }),
    }
}

/// `x σ(u)` and its derivative `s + u' x s (1 − s)`.
#[inline(always)]
fn scaled_by_sigmoid<const FMA: bool>(x: f32, u: f32, slope: f32) -> (f32, f32) {
    let s = sigmoid::<FMA>(u);
    let y = x * s;
    (y, fma::<FMA>(slope * y, 1.0 - s, s))
}

/// One loop per function, so that each is vectorised without a branch inside.
macro_rules! for_each_activation {
    ($act:expr, $variant:ident => $loop:expr) => {
        for_each_activation!(@ $act, $variant => $loop, Gelu, GeluTanh, QuickGelu, Silu, Relu)
    };
    (@ $act:expr, $variant:ident => $loop:expr, $($name:ident),*) => {
        match $act {
            $(Activation::$name => {
                const $variant: Activation = Activation::$name;
                $loop
            })*
        }
    };
}

/// Beyond this the functions are 0 on the left and the identity on the right. Keeps a tail that
/// should vanish from being a huge value times the clamped exponential.
const TAIL: f32 = 80.0;

/// `y` inside the tails; NaN fails both comparisons and stays what it is.
#[inline(always)]
fn with_tails(x: f32, y: f32) -> f32 {
    if x < -TAIL {
        0.0
    } else if x <= TAIL {
        y
    } else {
        x
    }
}

/// The derivative inside the tails, 0 on the left, 1 on the right, NaN for NaN.
#[inline(always)]
fn slope_with_tails(x: f32, slope: f32) -> f32 {
    let right = if x > TAIL { 1.0 } else { x };
    if x < -TAIL {
        0.0
    } else if x <= TAIL {
        slope
    } else {
        right
    }
}

#[inline(always)]
fn activate_body<const FMA: bool>(x: &mut [f32], act: Activation) {
    for_each_activation!(act, ACT => {
        for v in x {
            *v = with_tails(*v, apply::<FMA>(ACT, v.max(-TAIL)));
        }
    });
}

per_level! { pub(super) fn activate_slice = activate_body(x: &mut [f32], act: Activation) }

/// `gradient *= act'(x)`.
#[inline(always)]
fn activate_back_body<const FMA: bool>(gradient: &mut [f32], x: &[f32], act: Activation) {
    for_each_activation!(act, ACT => {
        for (gradient, x) in gradient.iter_mut().zip(x) {
            let (_, slope) = apply_both::<FMA>(ACT, x.clamp(-TAIL, TAIL));
            *gradient *= slope_with_tails(*x, slope);
        }
    });
}

per_level! {
    fn activate_back_slice = activate_back_body(gradient: &mut [f32], x: &[f32], act: Activation)
}

/// `gate *= act(gate)' …`: on return `gradient` is that of the gate and `gate` that of `up`.
#[inline(always)]
fn gated_back_body<const FMA: bool>(
    gradient: &mut [f32],
    gate: &mut [f32],
    up: &[f32],
    act: Activation,
) {
    for_each_activation!(act, ACT => {
        for ((gradient, gate), up) in gradient.iter_mut().zip(gate).zip(up) {
            let x = *gate;
            let (y, slope) = apply_both::<FMA>(ACT, x.clamp(-TAIL, TAIL));
            *gate = *gradient * with_tails(x, y);
            *gradient *= up * slope_with_tails(x, slope);
        }
    });
}

per_level! {
    fn gated_back_slice = gated_back_body(
        gradient: &mut [f32], gate: &mut [f32], up: &[f32], act: Activation
    )
}

#[inline(always)]
fn multiply_body<const FMA: bool>(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x *= *y;
    }
}

per_level! { fn multiply_slice = multiply_body(x: &mut [f32], y: &[f32]) }

#[inline(always)]
fn add_body<const FMA: bool>(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += *y;
    }
}

per_level! { pub(crate) fn add_slice = add_body(x: &mut [f32], y: &[f32]) }

#[inline(always)]
fn rotate_body<const FMA: bool>(head: &mut [f32], cos: &[f32], sin: &[f32], direction: f32) {
    let (left, right) = head.split_at_mut(cos.len());
    let (right, sin) = (&mut right[..cos.len()], &sin[..cos.len()]);
    for i in 0..cos.len() {
        let (a, b, sin) = (left[i], right[i], direction * sin[i]);
        left[i] = a * cos[i] - b * sin;
        right[i] = b * cos[i] + a * sin;
    }
}

per_level! {
    fn rotate_head = rotate_body(head: &mut [f32], cos: &[f32], sin: &[f32], direction: f32)
}

/// Applies `act` to every element.
///
/// # Panics
/// If the tensor is not [plain](super::is_plain_f32).
pub fn activate<const D: usize>(x: Tensor<D>, act: Activation) -> Tensor<D> {
    tensor(activated(plain(x), act))
}

/// [`activate`] of a tensor of any rank.
pub(crate) fn activated(x: Plain, act: Activation) -> Plain {
    edit(x, CHUNK, |_, chunk| activate_slice(chunk, act))
}

/// The gradient of [`activate`]'s input from that of its output.
pub(crate) fn activate_back(gradient: Plain, x: &Plain, act: Activation) -> Plain {
    let x = values(x);
    edit(gradient, CHUNK, |task, chunk| {
        activate_back_slice(chunk, &x[task * CHUNK..][..chunk.len()], act);
    })
}

/// `act(gate) · up`.
///
/// # Panics
/// If a tensor is not [plain](super::is_plain_f32), or the shapes differ.
pub fn activate_gated<const D: usize>(
    gate: Tensor<D>,
    up: Tensor<D>,
    act: Activation,
) -> Tensor<D> {
    assert_eq!(gate.dims(), up.dims(), "gate and up differ in shape");
    let up = contiguous(plain(up));
    tensor(gated(plain(gate), &up, act))
}

/// [`activate_gated`] of tensors of any rank; `up` is contiguous.
pub(crate) fn gated(gate: Plain, up: &Plain, act: Activation) -> Plain {
    let up = values(up);
    edit(gate, CHUNK, |task, chunk| {
        activate_slice(chunk, act);
        multiply_slice(chunk, &up[task * CHUNK..][..chunk.len()]);
    })
}

/// The gradients of gate and up from that of [`activate_gated`]'s output.
pub(crate) fn gated_back(
    gradient: Plain,
    gate: Plain,
    up: &Plain,
    act: Activation,
) -> (Plain, Plain) {
    let (mut gradient, mut gate) = (owned(gradient), owned(gate));
    gradient
        .storage_mut::<f32>()
        .par_chunks_mut(CHUNK)
        .zip(gate.storage_mut::<f32>().par_chunks_mut(CHUNK))
        .zip(values(up).par_chunks(CHUNK))
        .for_each(|((gradient, gate), up)| gated_back_slice(gradient, gate, up, act));
    (gradient, gate)
}

/// Adds `addend` to every row of its width.
pub(crate) fn add_to_rows(y: Plain, addend: &[f32]) -> Plain {
    if addend.is_empty() {
        return y;
    }
    edit(y, rows_per_task(addend.len()) * addend.len(), |_, chunk| {
        for row in chunk.chunks_exact_mut(addend.len()) {
            add_slice(row, addend);
        }
    })
}

/// Rows that one task takes.
pub(crate) fn rows_per_task(width: usize) -> usize {
    CHUNK.div_ceil(width.max(1))
}

/// Rotary embedding: `x` is `[b, t, h, d]`, `cos` and `sin` are `[b or 1, t, d/2]`.
///
/// # Panics
/// If a tensor is not [plain](super::is_plain_f32).
pub fn rotate(x: Tensor<4>, cos: Tensor<3>, sin: Tensor<3>) -> Tensor<4> {
    let (cos, sin) = (contiguous(plain(cos)), contiguous(plain(sin)));
    tensor(rotated(plain(x), &cos, &sin, 1.0))
}

/// [`rotate`] with contiguous tables; `direction` −1 turns back, which is also the gradient.
pub(crate) fn rotated(x: Plain, cos: &Plain, sin: &Plain, direction: f32) -> Plain {
    let (shape, table) = (x.layout().shape().clone(), cos.layout().shape().clone());
    let (heads, d) = (shape[2], shape[3]);
    let (positions, half) = (table[0] * table[1], table[2]);
    if positions * half * heads == 0 {
        return x;
    }
    let (cos, sin) = (values(cos), values(sin));
    let rows = rows_per_task(heads * d);
    edit(x, rows * heads * d, |task, chunk| {
        for (i, row) in chunk.chunks_exact_mut(heads * d).enumerate() {
            let at = (task * rows + i) % positions * half;
            for head in row.chunks_exact_mut(d) {
                rotate_head(head, &cos[at..at + half], &sin[at..at + half], direction);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sliced (not contiguous) input is read in its logical order, and a shared one not changed.
    #[test]
    fn views_and_shared_tensors_are_respected() {
        let device = Device::flex();
        let x = Tensor::<2>::from_floats([[-1.0, 2.0], [3.0, -4.0]], &device);
        let column = x.clone().slice([0..2, 1..2]);
        let y = activate(column, Activation::Relu)
            .into_data()
            .try_to_vec::<f32>()
            .unwrap();
        assert_eq!(y, [2.0, 0.0]);
        let _ = activate(x.clone(), Activation::Relu);
        assert_eq!(
            x.into_data().try_to_vec::<f32>().unwrap(),
            [-1.0, 2.0, 3.0, -4.0]
        );
    }

    #[test]
    fn slopes_at_the_tails_and_of_nan() {
        for act in [Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
            let x = [-1e30, -100.0, 100.0, 1e30, f32::NAN];
            let mut gradient = [2.0; 5];
            activate_back_slice(&mut gradient, &x, act);
            assert_eq!(gradient[..4], [0.0, 0.0, 2.0, 2.0], "{act:?}");
            assert!(gradient[4].is_nan(), "{act:?}");
        }
    }
}
