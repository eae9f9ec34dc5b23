//! Logistic regression on features: one linear layer, nothing else.
//!
//! Classes: multinomial, the mean over pictures of `ln Σ exp z − z_right`. Labels: one yes-or-no
//! question for each, the mean over pictures of `ln(1 + exp z) − y·z`, summed over labels. To both comes
//! `λ/2 · Σ w²`; the intercept is not penalized. Then scikit-learn's `C` is `1 / (λ · pictures)`.
//!
//! The optimum is unique, so no learning rate and no number of epochs are to be chosen, and the result
//! is the same on every machine up to the tolerance. Sums run over a fixed number of parts in a fixed
//! order, so the number of threads does not change them.

use rayon::prelude::*;

use super::data::Targets;
use super::matrix::Matrix;
use super::minimise::{Limits, dot, minimise};

/// Parts that sums are taken over.
const PARTS: usize = 16;

/// A linear layer that was fitted.
#[derive(Clone, Debug)]
pub struct Logistic {
    /// For each output its weights and, last, its intercept.
    rows: Vec<f64>,
    width: usize,
    /// The loss, penalty included.
    pub loss: f64,
    /// Steps that were taken.
    pub iterations: usize,
    /// Whether the optimum was reached.
    pub converged: bool,
}

impl Logistic {
    /// The optimum for some pictures and the strength `l2` of the penalty, looked for from `start`.
    #[must_use]
    pub fn fit(
        features: &Matrix,
        targets: &Targets,
        l2: f64,
        start: Option<&Self>,
        limits: Limits,
    ) -> Self {
        let width = features.width();
        let size = targets.outputs() * (width + 1);
        let start = start.map(|start| start.rows.clone());
        let start = start.filter(|rows| rows.len() == size);
        let found = minimise(
            start.unwrap_or_else(|| vec![0.0; size]),
            limits,
            &mut |point, gradient| loss(features, targets, l2, point, gradient),
        );
        Self {
            rows: found.point,
            width,
            loss: found.value,
            iterations: found.iterations,
            converged: found.converged,
        }
    }

    /// The weights of an output and its intercept.
    #[must_use]
    pub fn weights(&self, output: usize) -> Option<(&[f64], f64)> {
        let row = self.rows.chunks(self.width + 1).nth(output)?;
        let (intercept, weights) = row.split_last()?;
        Some((weights, *intercept))
    }

    /// The outputs for each row of features.
    #[must_use]
    pub fn scores(&self, features: &Matrix) -> Vec<Vec<f64>> {
        (0..features.rows())
            .into_par_iter()
            .map(|row| outputs(&self.rows, &widened(features.row(row))))
            .collect()
    }
}

/// The loss at a point, and its gradient.
fn loss(features: &Matrix, targets: &Targets, l2: f64, point: &[f64], gradient: &mut [f64]) -> f64 {
    let rows = features.rows();
    let parts: Vec<(f64, Vec<f64>)> = (0..PARTS)
        .into_par_iter()
        .map(|part| {
            let mut gradient = vec![0.0; point.len()];
            let mut sum = 0.0;
            for row in part * rows / PARTS..(part + 1) * rows / PARTS {
                let input = widened(features.row(row));
                let mut errors = outputs(point, &input);
                sum += targets.loss(row, &mut errors);
                for (slope, error) in gradient.chunks_mut(input.len()).zip(errors) {
                    if error != 0.0 {
                        super::minimise::add(slope, error, &input);
                    }
                }
            }
            (sum, gradient)
        })
        .collect();
    let n = rows.max(1) as f64;
    let mut value = 0.0;
    gradient.fill(0.0);
    for (sum, part) in &parts {
        value += sum / n;
        super::minimise::add(gradient, 1.0 / n, part);
    }
    let width = features.width() + 1;
    for (weights, slopes) in point.chunks(width).zip(gradient.chunks_mut(width)) {
        for (weight, slope) in weights.iter().zip(slopes).take(width - 1) {
            value += 0.5 * l2 * weight * weight;
            *slope += l2 * weight;
        }
    }
    value
}

/// A row in double precision, and a 1 for the intercept.
fn widened(row: &[f32]) -> Vec<f64> {
    row.iter().map(|x| f64::from(*x)).chain([1.0]).collect()
}

/// The outputs for one input.
fn outputs(point: &[f64], input: &[f64]) -> Vec<f64> {
    let layer = point.chunks(input.len());
    layer.map(|weights| dot_fast(weights, input)).collect()
}

/// Eight sums side by side, which the compiler turns into vector instructions.
fn dot_fast(a: &[f64], b: &[f64]) -> f64 {
    let (mut left, mut right) = (a.chunks_exact(8), b.chunks_exact(8));
    let mut sums = [0.0; 8];
    for (a, b) in left.by_ref().zip(right.by_ref()) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f64>() + dot(left.remainder(), right.remainder())
}

impl Targets {
    /// Of a picture's outputs the loss; the outputs become its slopes.
    fn loss(&self, row: usize, outputs: &mut [f64]) -> f64 {
        match self {
            Self::Classes { of, .. } => {
                let most = outputs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let right = of.get(row).copied().unwrap_or_default();
                let wanted = outputs.get(right).copied().unwrap_or_default();
                let total: f64 = outputs.iter().map(|z| (z - most).exp()).sum();
                for (class, z) in outputs.iter_mut().enumerate() {
                    let share = (*z - most).exp() / total;
                    *z = share - f64::from(u8::from(class == right));
                }
                most + total.ln() - wanted
            }
            Self::Labels { of, .. } => {
                let mut sum = 0.0;
                for (label, z) in outputs.iter_mut().enumerate() {
                    let y = f64::from(u8::from(has(of, row, label)));
                    // ln(1 + exp z) without overflow.
                    sum += z.max(0.0) + (-z.abs()).exp().ln_1p() - y * *z;
                    *z = 1.0 / (1.0 + (-*z).exp()) - y;
                }
                sum
            }
        }
    }
}

fn has(of: &[Vec<usize>], row: usize, label: usize) -> bool {
    of.get(row)
        .is_some_and(|labels| labels.binary_search(&label).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        tolerance: 1e-10,
        iterations: 500,
    };

    fn column(values: &[f32]) -> Matrix {
        let mut matrix = Matrix::new(1);
        values.iter().for_each(|value| matrix.push(&[*value]));
        matrix
    }

    /// Two pictures, x = ±1, one label. By symmetry the intercept is 0, and the weight solves
    /// σ(−w) = λ·w: for λ = σ(−1) = 1/(1 + e) it is 1.
    #[test]
    fn the_optimum_of_two_pictures_is_known() {
        let l2 = 1.0 / (1.0 + 1f64.exp());
        let targets = Targets::Labels {
            of: vec![vec![], vec![0]],
            count: 1,
        };
        let fitted = Logistic::fit(&column(&[-1.0, 1.0]), &targets, l2, None, LIMITS);
        let (weights, intercept) = fitted.weights(0).unwrap();
        assert!(fitted.converged);
        assert!((weights[0] - 1.0).abs() < 1e-8, "{weights:?}");
        assert!(intercept.abs() < 1e-8, "{intercept}");
        // ln(1 + e⁻¹) + λ/2
        let loss = (-1f64).exp().ln_1p() + l2 / 2.0;
        assert!((fitted.loss - loss).abs() < 1e-12);
    }

    /// With two classes z₁ − z₀ is what one label has, and each class takes half of it: the same
    /// problem with half of the penalty gives ±1/2.
    #[test]
    fn two_classes_share_the_weight() {
        let l2 = 2.0 / (1.0 + 1f64.exp());
        let targets = Targets::Classes {
            of: vec![0, 1],
            count: 2,
        };
        let fitted = Logistic::fit(&column(&[-1.0, 1.0]), &targets, l2, None, LIMITS);
        let weights = [0, 1].map(|class| fitted.weights(class).unwrap().0[0]);
        assert!(
            (weights[0] + 0.5).abs() < 1e-8 && (weights[1] - 0.5).abs() < 1e-8,
            "{weights:?}"
        );
    }

    /// Without a feature that says anything, intercepts are the logarithms of the shares.
    #[test]
    fn intercepts_are_not_penalized() {
        let targets = Targets::Labels {
            of: vec![vec![0], vec![], vec![], vec![]],
            count: 1,
        };
        let fitted = Logistic::fit(&column(&[0.0; 4]), &targets, 10.0, None, LIMITS);
        let (_, intercept) = fitted.weights(0).unwrap();
        assert!((intercept - (1f64 / 3.0).ln()).abs() < 1e-8, "{intercept}");
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let mut features = Matrix::new(2);
        for i in 0..40u8 {
            features.push(&[f32::from(i % 7) - 3.0, f32::from(i % 5) * 0.5]);
        }
        let of: Vec<usize> = (0..40).map(|i| i % 3).collect();
        let both = [
            Targets::Labels {
                of: of.iter().map(|class| vec![*class]).collect(),
                count: 3,
            },
            Targets::Classes { of, count: 3 },
        ];
        let point: Vec<f64> = (0..9).map(|i| f64::from(i) * 0.3 - 1.0).collect();
        for targets in both {
            let mut gradient = vec![0.0; 9];
            loss(&features, &targets, 0.1, &point, &mut gradient);
            for place in 0..9 {
                let at = |shift: f64| {
                    let mut moved = point.clone();
                    moved[place] += shift;
                    loss(&features, &targets, 0.1, &moved, &mut [0.0; 9])
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!((slope - gradient[place]).abs() < 1e-8, "{place}: {slope}");
            }
        }
    }
}
