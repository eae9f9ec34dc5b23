//! Gradients in f32 against central differences of the same function of Burn's operators in f64.

use burn::module::{Param, ParamId};
use burn::prelude::*;
use burn::tensor::DType;

use crate::conv::ConvShape;
use crate::{
    Activation, AttentionMask, Conv2d, LayerNorm, RmsNorm, attention, cross_entropy, linear,
};

/// Values between −1 and 1 that look random.
fn noise(count: usize, seed: usize) -> Vec<f64> {
    let value = |i: usize| ((i + 1000 * seed + 1) as f64 * 12.9898).sin() * 43758.5453;
    (0..count)
        .map(|i| 2.0 * value(i).rem_euclid(1.0) - 1.0)
        .collect()
}

/// Compares the gradients of `f`, a function of vectors of the given lengths.
fn check(lengths: &[usize], f: impl Fn(&[Tensor<1>]) -> Tensor<1>) {
    const STEP: f64 = 1e-5;
    let inputs: Vec<Vec<f64>> = lengths
        .iter()
        .enumerate()
        .map(|(i, length)| noise(*length, i))
        .collect();
    let leaves: Vec<Tensor<1>> = inputs
        .iter()
        .map(|values| {
            let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
            Tensor::<1>::from_floats(values.as_slice(), &Device::flex().autodiff()).require_grad()
        })
        .collect();
    let gradients = f(&leaves).backward();
    let value = |inputs: &[Vec<f64>]| {
        let tensors: Vec<Tensor<1>> = inputs
            .iter()
            .map(|values| {
                let data = TensorData::new(values.clone(), [values.len()]);
                Tensor::from_data(data, (&Device::flex(), DType::F64))
            })
            .collect();
        f(&tensors).into_scalar::<f64>()
    };
    for (which, leaf) in leaves.iter().enumerate() {
        let gradient = leaf.grad(&gradients).expect("a gradient");
        let gradient = gradient.into_data().try_to_vec::<f32>().unwrap();
        for (i, ours) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let mut inputs = inputs.clone();
                inputs[which][i] += by;
                value(&inputs)
            };
            let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            assert!(
                (f64::from(*ours) - slope).abs() < 2e-5 * (1.0 + slope.abs()),
                "input {which}, value {i}: {ours}, not {slope}"
            );
        }
    }
}

/// A scalar that weighs every value differently, in the type of its argument.
fn weighed<const D: usize>(y: Tensor<D>) -> Tensor<1> {
    let count = y.dims().iter().product::<usize>();
    let weights = TensorData::new(noise(count, 77), y.dims());
    let weights = Tensor::<D>::from_data(weights, (&y.device().inner(), y.dtype()));
    let weights = if y.device().is_autodiff() {
        Tensor::from_inner(weights)
    } else {
        weights
    };
    (y * weights).sum()
}

fn param<const D: usize>(x: Tensor<D>) -> Param<Tensor<D>> {
    Param::initialized(ParamId::new(), x)
}

#[test]
fn linear_layers() {
    check(&[6, 15, 5], |x| {
        let [x, w, b] = [0, 1, 2].map(|i| x[i].clone());
        weighed(linear::apply(x.reshape([2, 3]), w.reshape([5, 3]), Some(b)))
    });
}

#[test]
fn activations_and_gates() {
    for act in [
        Activation::GeluTanh,
        Activation::QuickGelu,
        Activation::Silu,
        Activation::Gelu,
    ] {
        check(&[7, 7], |x| {
            weighed(act.gated(x[0].clone() * 3.0, x[1].clone()))
                + weighed(act.forward(x[0].clone() * 2.0))
        });
    }
}

#[test]
fn norms() {
    check(&[10, 5, 5], |x| {
        let rows = x[0].clone().reshape([2, 5]);
        let device = x[0].device();
        let mut layer = LayerNorm::new(5, 1e-3, &device);
        layer.weight = param(x[1].clone());
        layer.bias = param(x[2].clone());
        let mut rms = RmsNorm::with_unit_offset(5, 1e-3, &device);
        rms.weight = param(x[1].clone());
        weighed(layer.forward(rows.clone())) + weighed(rms.forward(rows))
    });
}

/// Two query heads on one key head, causal with an earlier key.
#[test]
fn causal_attention() {
    check(&[2 * 3 * 4, 4 * 4, 4 * 4], |x| {
        let q = x[0].clone().reshape([1, 2, 3, 4]);
        let k = x[1].clone().reshape([1, 1, 4, 4]);
        let v = x[2].clone().reshape([1, 1, 4, 4]);
        weighed(attention(q, k, v, &AttentionMask::Causal))
    });
}

/// One query with a hidden key, as in a connector's window.
#[test]
fn attention_over_a_window() {
    check(&[4, 12, 12], |x| {
        let q = x[0].clone().reshape([1, 1, 1, 4]);
        let k = x[1].clone().reshape([1, 1, 3, 4]);
        let v = x[2].clone().reshape([1, 1, 3, 4]);
        let hidden = Tensor::<4, Bool>::from_data([[[[false, true, false]]]], &q.device());
        weighed(attention(q, k, v, &AttentionMask::Hidden(hidden)))
    });
}

#[test]
fn cross_entropy_of_rows() {
    check(&[12], |x| {
        weighed(cross_entropy(
            x[0].clone().reshape([3, 4]) * 2.0,
            &[1, 3, 0],
        ))
    });
}

#[test]
fn depthwise_convolution() {
    check(&[2 * 4 * 2, 2 * 9, 2], |x| {
        let shape = ConvShape {
            d_in: 2,
            d_out: 2,
            kernel: 3,
            stride: 1,
            padding: 1,
            groups: 2,
        };
        let mut layer = Conv2d::new(shape, true, &x[0].device());
        layer.weight = param(x[1].clone().reshape([2, 1, 3, 3]));
        layer.bias = Some(param(x[2].clone()));
        weighed(layer.depthwise(x[0].clone().reshape([1, 2, 4, 2])))
    });
}
