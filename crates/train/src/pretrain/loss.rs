//! The sigmoid loss, as a plain tensor formula.

use burn::prelude::*;
use burn::tensor::activation::log_sigmoid;

/// The sigmoid loss of SigLIP (arXiv 2303.15343, equation 1), summed over the pictures:
/// `−Σᵢ Σⱼ log σ(zᵢⱼ · lᵢⱼ)` with `z = 1` on the diagonal and `−1` elsewhere.
///
/// Pairs that `counted` has as 0 are left out: another picture with the very same caption is not
/// a negative.
///
/// # Shapes
/// - `logits`: `[n, n]`, `t · x·y + b` for picture `i` and text `j`
/// - `counted`: `[n, n]` of 0 and 1
/// - output: `[1]`
pub fn sigmoid_pairs(logits: Tensor<2>, counted: Tensor<2>) -> Tensor<1> {
    let [n, _] = logits.dims();
    let signs = Tensor::<2>::eye(n, &logits.device()) * 2.0 - 1.0;
    (log_sigmoid(logits * signs) * counted).sum().neg()
}

/// Rows scaled to length 1; a row of zeros stays.
///
/// # Shapes
/// - input and output: `[n, d]`
pub fn unit_rows(x: Tensor<2>) -> Tensor<2> {
    let length = (x.clone().square().sum_dim(1) + 1e-12).sqrt();
    x / length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(x: Tensor<1>) -> f64 {
        f64::from(x.into_scalar::<f32>())
    }

    #[test]
    fn sigmoid_loss_by_hand() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_floats([[2.0, -1.0], [0.5, 3.0]], &device);
        let softplus = |x: f64| (1.0 + x.exp()).ln();
        // Matching pairs want large logits, others small ones.
        let expected = softplus(-2.0) + softplus(-1.0) + softplus(0.5) + softplus(-3.0);
        let all = Tensor::<2>::ones([2, 2], &device);
        assert!((scalar(sigmoid_pairs(logits.clone(), all)) - expected).abs() < 1e-6);
        let counted = Tensor::<2>::from_floats([[1.0, 0.0], [0.0, 1.0]], &device);
        let expected = softplus(-2.0) + softplus(-3.0);
        assert!((scalar(sigmoid_pairs(logits, counted)) - expected).abs() < 1e-6);
    }

    /// With SigLIP's start, `t = 10`, `b = −10`, unrelated pairs cost next to nothing.
    #[test]
    fn large_logits_do_not_overflow() {
        let device = Device::flex().autodiff();
        let logits = Tensor::<2>::from_floats([[-200.0, 200.0], [-10.0, 90.0]], &device);
        let logits = logits.require_grad();
        let loss = sigmoid_pairs(logits.clone(), Tensor::ones([2, 2], &device));
        assert!((scalar(loss.clone().inner()) - 400.0).abs() < 1e-3);
        let gradient = logits.grad(&loss.backward()).unwrap();
        let gradient = gradient.into_data().try_to_vec::<f32>().unwrap();
        assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
        assert!((gradient[0] + 1.0).abs() < 1e-6 && (gradient[1] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn rows_get_unit_length() {
        let x = Tensor::<2>::from_floats([[3.0, 4.0], [0.0, 0.0]], &Device::flex());
        let unit = unit_rows(x).into_data().try_to_vec::<f32>().unwrap();
        assert!((unit[0] - 0.6).abs() < 1e-6 && (unit[1] - 0.8).abs() < 1e-6);
        assert_eq!(unit[2..], [0.0, 0.0]);
    }
}
