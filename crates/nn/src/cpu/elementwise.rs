//! Elementwise functions, norms and rotations in one parallel pass.

use burn::prelude::*;
use rayon::prelude::*;

use super::math::{dot_body, fma, normal_cdf, sigmoid};
use super::{Level, edit, level, per_level, read};
use crate::Activation;

/// Elements one task takes.
const CHUNK: usize = 1 << 14;

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

/// Keeps a tail that should vanish from being a huge value times the clamped exponential.
#[inline(always)]
fn activate_body<const FMA: bool>(x: &mut [f32], act: Activation) {
    // One loop per function, so that each is vectorised without a branch inside.
    macro_rules! each {
        ($($variant:ident),*) => {
            match act {
                $(Activation::$variant => {
                    for v in x {
                        let bounded = v.max(-80.0);
                        let y = apply::<FMA>(Activation::$variant, bounded);
                        // NaN fails both comparisons and stays what it is.
                        *v = if *v < -80.0 { 0.0 } else if *v <= 80.0 { y } else { *v };
                    }
                })*
            }
        };
    }
    each!(Gelu, GeluTanh, QuickGelu, Silu, Relu);
}

per_level! { fn activate_slice = activate_body(x: &mut [f32], act: Activation) }

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

per_level! { fn add_slice = add_body(x: &mut [f32], y: &[f32]) }

#[inline(always)]
fn rms_norm_body<const FMA: bool>(row: &mut [f32], weight: &[f32], eps: f32) {
    let mean = dot_body::<FMA>(row, row) / row.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    for (x, w) in row.iter_mut().zip(weight) {
        *x = *x * scale * *w;
    }
}

per_level! { fn rms_norm_row = rms_norm_body(row: &mut [f32], weight: &[f32], eps: f32) }

#[inline(always)]
fn rotate_body<const FMA: bool>(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (left, right) = head.split_at_mut(cos.len());
    for i in 0..cos.len() {
        let (a, b) = (left[i], right[i]);
        left[i] = a * cos[i] - b * sin[i];
        right[i] = b * cos[i] + a * sin[i];
    }
}

per_level! { fn rotate_head = rotate_body(head: &mut [f32], cos: &[f32], sin: &[f32]) }

/// Applies `act` to every element.
///
/// # Panics
/// If the tensor is not [plain](is_plain_f32).
pub fn activate<const D: usize>(x: Tensor<D>, act: Activation) -> Tensor<D> {
    edit(x, |values| {
        values
            .par_chunks_mut(CHUNK)
            .for_each(|chunk| activate_slice(chunk, act));
    })
}

/// `act(gate) · up`.
///
/// # Panics
/// If a tensor is not [plain](is_plain_f32), or the shapes differ.
pub fn activate_gated<const D: usize>(
    gate: Tensor<D>,
    up: Tensor<D>,
    act: Activation,
) -> Tensor<D> {
    assert_eq!(gate.dims(), up.dims(), "gate and up differ in shape");
    read(up, |up| {
        edit(gate, |gate| {
            gate.par_chunks_mut(CHUNK)
                .zip(up.par_chunks(CHUNK))
                .for_each(|(gate, up)| {
                    activate_slice(gate, act);
                    multiply_slice(gate, up);
                });
        })
    })
}

/// Adds `bias` (`[n]`) to every row of `y` (`[m, n]`).
///
/// # Panics
/// If a tensor is not [plain](super::is_plain_f32), or the widths differ.
#[must_use]
pub fn add_bias(y: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    let [_, n] = y.dims();
    assert_eq!(bias.dims(), [n], "a bias of another width");
    if n == 0 {
        return y;
    }
    read(bias, |bias| {
        edit(y, |values| {
            for_rows(values, n, |_, row| add_slice(row, bias));
        })
    })
}

/// Root-mean-square norm over the last dimension; `weight` is `[d]`.
///
/// # Panics
/// If a tensor is not [plain](is_plain_f32).
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f32) -> Tensor<D> {
    let d = x.dims()[D - 1];
    if d == 0 {
        return x;
    }
    read(weight, |weight| {
        edit(x, |values| {
            for_rows(values, d, |_, row| rms_norm_row(row, weight, eps));
        })
    })
}

/// Rotary embedding: `x` is `[b, t, h, d]`, `cos` and `sin` are `[b or 1, t, d/2]`.
///
/// # Panics
/// If a tensor is not [plain](is_plain_f32).
pub fn rotate(x: Tensor<4>, cos: Tensor<3>, sin: Tensor<3>) -> Tensor<4> {
    let [_, _, heads, d] = x.dims();
    let [rows, steps, half] = cos.dims();
    if rows * steps * half * heads == 0 {
        return x;
    }
    read(cos, |cos| {
        read(sin, |sin| {
            edit(x, |values| {
                for_rows(values, heads * d, |position, row| {
                    let at = position % (rows * steps) * half;
                    for head in row.chunks_exact_mut(d) {
                        rotate_head(head, &cos[at..at + half], &sin[at..at + half]);
                    }
                });
            })
        })
    })
}

/// Calls `f(index, row)` for every row, several rows a task.
fn for_rows(values: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = CHUNK.div_ceil(width);
    values
        .par_chunks_mut(rows * width)
        .enumerate()
        .for_each(|(task, chunk)| {
            for (i, row) in chunk.chunks_exact_mut(width).enumerate() {
                f(task * rows + i, row);
            }
        });
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
}
