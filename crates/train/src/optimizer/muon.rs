//! Muon: momentum whose direction is made orthogonal, for matrices of hidden layers.
//!
//! Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), with the
//! step of Liu et al., "Muon is Scalable for LLM Training" (arXiv 2502.16982), which is as long as
//! AdamW's usually is, so that both rules go by one learning rate:
//!
//! ```text
//! p ← p (1 − lr λ)
//! b ← b + (1 − μ)(g − b)
//! u ← orthogonal(g + μ (b − g))
//! p ← p − lr · 0.2 √max(rows, columns) · u
//! ```
//!
//! `orthogonal` replaces every singular value by about 1, with five Newton–Schulz steps. A small
//! model that has to learn to look things up learns it from far fewer samples this way.

use burn::prelude::*;

/// Decay of the mean of gradients, μ.
const MOMENTUM: f64 = 0.95;

/// Newton–Schulz steps.
const STEPS: usize = 5;

/// Coefficients of the quintic `a x + b x³ + c x⁵`, chosen by its authors for the steepest slope at 0.
const QUINTIC: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);

/// Smallest norm that is divided by.
const EPSILON: f64 = 1e-7;

/// The length of a step beside AdamW's: the root mean square of AdamW's is about 0.2.
fn length(rows: usize, columns: usize) -> f64 {
    0.2 * (rows.max(columns) as f64).sqrt()
}

/// New value and momentum of a matrix; all `[rows, columns]`, `f32`, on one device.
pub(super) fn update(
    value: Tensor<2>,
    gradient: Tensor<2>,
    momentum: Tensor<2>,
    lr: f64,
    weight_decay: f64,
) -> (Tensor<2>, Tensor<2>) {
    let [rows, columns] = value.dims();
    let momentum = momentum.clone() + (gradient.clone() - momentum) * (1.0 - MOMENTUM);
    let ahead = gradient.clone() + (momentum.clone() - gradient) * MOMENTUM;
    let direction = orthogonal(ahead);
    let value = value * (1.0 - lr * weight_decay) - direction * (lr * length(rows, columns));
    (value, momentum)
}

/// The matrix with every singular value that is not nearly 0 made about 1 (0.7 to 1.2).
fn orthogonal(x: Tensor<2>) -> Tensor<2> {
    let [rows, columns] = x.dims();
    let tall = rows > columns;
    let x = if tall { x.transpose() } else { x };
    let norm = x.clone().square().sum().sqrt().clamp_min(EPSILON);
    let mut x = x / norm.reshape([1, 1]);
    let (a, b, c) = QUINTIC;
    for _ in 0..STEPS {
        let square = x.clone().matmul(x.clone().transpose());
        let terms = square.clone() * b + square.clone().matmul(square) * c;
        x = x.clone() * a + terms.matmul(x);
    }
    if tall { x.transpose() } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix<const R: usize, const C: usize>(values: [[f32; C]; R]) -> Tensor<2> {
        Tensor::from_floats(values, &Device::flex())
    }

    fn values(x: Tensor<2>) -> Vec<f32> {
        x.into_data().try_to_vec().unwrap()
    }

    /// Singular values 3 and 0.5 both become about 1; the singular vectors stay.
    #[test]
    fn singular_values_become_one() {
        let got = values(orthogonal(matrix([[0.0, 3.0], [0.5, 0.0]])));
        assert!(got[0].abs() < 1e-6 && got[3].abs() < 1e-6, "{got:?}");
        assert!((0.6..1.3).contains(&got[1]) && (0.6..1.3).contains(&got[2]));
    }

    /// A tall matrix is worked on as its transpose.
    #[test]
    fn tall_and_wide_are_the_same() {
        let wide = matrix([[1.0, 2.0, -1.0], [0.5, 0.0, 4.0]]);
        let a = values(orthogonal(wide.clone()));
        let b = values(orthogonal(wide.transpose()).transpose());
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    /// Without a gradient nothing moves but what decays.
    #[test]
    fn nothing_comes_of_nothing() {
        let zeros = || matrix([[0.0, 0.0], [0.0, 0.0]]);
        let (value, momentum) =
            update(matrix([[1.0, 2.0], [3.0, 4.0]]), zeros(), zeros(), 0.1, 0.5);
        let want = [0.95, 1.9, 2.85, 3.8];
        let got = values(value);
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6));
        assert!(values(momentum).iter().all(|&x| x == 0.0));
    }

    /// The mean takes in 5 % of a gradient, and a step goes against it, `0.2 √2 lr` long.
    #[test]
    fn a_step_goes_against_the_gradient() {
        let gradient = matrix([[2.0, 0.0], [0.0, 2.0]]);
        let zeros = matrix([[0.0, 0.0], [0.0, 0.0]]);
        let (value, momentum) = update(zeros.clone(), gradient, zeros, 0.1, 0.0);
        let (value, momentum) = (values(value), values(momentum));
        assert!((momentum[0] - 0.1).abs() < 1e-6 && momentum[1].abs() < 1e-6);
        let step = 0.1 * 0.2 * 2.0_f32.sqrt();
        assert!(value[0] < -0.6 * step && value[0] > -1.3 * step && value[1].abs() < 1e-6);
        assert!((value[0] - value[3]).abs() < 1e-6);
    }
}
