//! The linear layer: three products, none of which transposes anything in memory.

use burn::prelude::*;

use super::{Input, Pullback, input, record};
use crate::cpu::elementwise::add_to_rows;
use crate::cpu::matrix::{Matrix, product};
use crate::cpu::norm::column_sums;
use crate::cpu::values::{Plain, contiguous, from_values, values};

/// `x · weightᵀ + bias` over the last dimension.
///
/// # Shapes
/// - `x`: `[.., d_in]`, `weight`: `[d_out, d_in]`, `bias`: `[d_out]`
/// - output: `[.., d_out]`
pub(crate) fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let operands: [Input; 2] = [input(x), input(weight)];
    let [x, weight] = operands;
    match bias {
        Some(bias) => record(
            [x, weight, input(bias)],
            |[x, weight, bias], [wants_x, wants_weight, _]| {
                forward(x, weight, Some(bias), wants_x, wants_weight)
            },
        ),
        None => record([x, weight], |[x, weight], [wants_x, wants_weight]| {
            forward(x, weight, None, wants_x, wants_weight)
        }),
    }
}

/// What is kept: each factor for the gradient of the other.
#[derive(Clone, Debug)]
struct Linear {
    x: Option<Plain>,
    weight: Option<Plain>,
    x_shape: Shape,
    /// `[d_out, d_in]`.
    sizes: [usize; 2],
}

fn forward(
    x: Plain,
    weight: Plain,
    bias: Option<Plain>,
    wants_x: bool,
    wants_weight: bool,
) -> (Plain, Linear) {
    let (x, weight) = (contiguous(x), contiguous(weight));
    let (x_shape, weight_shape) = (x.layout().shape().clone(), weight.layout().shape().clone());
    let sizes @ [d_out, d_in] = [weight_shape[0], weight_shape[1]];
    let rank = x_shape.num_dims();
    assert_eq!(
        x_shape[rank - 1],
        d_in,
        "a linear layer of width {d_in} was given another width"
    );
    let rows = x_shape.num_elements() / d_in.max(1);
    let y = product(
        &Matrix::dense(values(&x), rows, d_in),
        &Matrix::dense(values(&weight), d_out, d_in).transposed(),
    );
    let mut y_shape = x_shape.clone();
    y_shape[rank - 1] = d_out;
    let mut y = from_values(y, y_shape);
    if let Some(bias) = bias {
        y = add_to_rows(y, values(&contiguous(bias)));
    }
    let kept = Linear {
        x: wants_weight.then_some(x),
        weight: wants_x.then_some(weight),
        x_shape,
        sizes,
    };
    (y, kept)
}

impl Linear {
    /// The gradients of input and weight; `gradient` is contiguous.
    fn factors(&self, gradient: &Plain) -> [Option<Plain>; 2] {
        let [d_out, d_in] = self.sizes;
        let gradient = values(gradient);
        let gradient = Matrix::dense(gradient, gradient.len() / d_out.max(1), d_out);
        let of_x = self.weight.as_ref().map(|weight| {
            let weight = Matrix::dense(values(weight), d_out, d_in);
            from_values(product(&gradient, &weight), self.x_shape.clone())
        });
        let of_weight = self.x.as_ref().map(|x| {
            let x = Matrix::dense(values(x), gradient.rows, d_in);
            from_values(product(&gradient.transposed(), &x), self.sizes)
        });
        [of_x, of_weight]
    }
}

impl Pullback<2> for Linear {
    fn pull(self, gradient: Plain, _: [bool; 2]) -> [Option<Plain>; 2] {
        self.factors(&contiguous(gradient))
    }
}

impl Pullback<3> for Linear {
    fn pull(self, gradient: Plain, [_, _, wants_bias]: [bool; 3]) -> [Option<Plain>; 3] {
        let gradient = contiguous(gradient);
        let [of_x, of_weight] = self.factors(&gradient);
        let of_bias = wants_bias.then(|| column_sums(gradient, self.sizes[0]));
        [of_x, of_weight, of_bias]
    }
}
