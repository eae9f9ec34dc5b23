//! Depthwise convolution of channels-last features.

use burn::prelude::*;

use super::{Pullback, input, record};
use crate::cpu::depthwise::{Depthwise, taps_gradient, taps_of};
use crate::cpu::norm::column_sums;
use crate::cpu::values::{Plain, contiguous, from_values, values};

/// `[b, r, c, d]`, `[d, 1, k, k]`, `[d]` → `[b, r, c, d]`; see [`crate::Conv2d::depthwise`].
pub(crate) fn depthwise(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let (shape, [_, _, kernel, _]) = (x.dims(), weight.dims());
    let inputs = [input(x), input(weight), input(bias)];
    record(inputs, |[x, weight, bias], wanted| {
        let (x, weight) = (contiguous(x), contiguous(weight));
        let y = Depthwise {
            input: values(&x),
            taps: &taps_of(values(&weight), shape[3], false),
            bias: values(&contiguous(bias)),
            kernel,
            shape,
        }
        .forward();
        let kept = Kept {
            x: wanted[1].then_some(x),
            weight: wanted[0].then_some(weight),
            kernel,
            shape,
        };
        (from_values(y, shape), kept)
    })
}

#[derive(Clone, Debug)]
struct Kept {
    x: Option<Plain>,
    weight: Option<Plain>,
    kernel: usize,
    shape: [usize; 4],
}

impl Pullback<3> for Kept {
    fn pull(self, gradient: Plain, [_, _, wants_bias]: [bool; 3]) -> [Option<Plain>; 3] {
        let gradient = contiguous(gradient);
        let (kernel, d) = (self.kernel, self.shape[3]);
        let of_x = self.weight.map(|weight| {
            let turned = Depthwise {
                input: values(&gradient),
                taps: &taps_of(values(&weight), d, true),
                bias: &vec![0.0; d],
                kernel,
                shape: self.shape,
            };
            from_values(turned.forward(), self.shape)
        });
        let of_weight = self.x.map(|x| {
            let taps = taps_gradient(values(&x), values(&gradient), kernel, self.shape);
            // Back from `[k·k, d]`: the same transposition with the sizes exchanged.
            from_values(
                taps_of(&taps, kernel * kernel, false),
                [d, 1, kernel, kernel],
            )
        });
        let of_bias = wants_bias.then(|| column_sums(gradient, d));
        [of_x, of_weight, of_bias]
    }
}
