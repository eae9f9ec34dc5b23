//! The k nearest neighbours by cosine, with weights `exp(cosine / temperature)`.
//!
//! As for DINO (arXiv 2104.14294, section 4.1): nothing is trained, so what it finds is in the features
//! as they are. The score of a class or label is the neighbours' weight that has it, of all weight.

use rayon::prelude::*;

use super::data::Targets;
use super::matrix::Matrix;

/// Pictures to compare with.
#[derive(Debug)]
pub struct Neighbours {
    /// Of length 1, or 0.
    rows: Matrix,
}

/// The nearest pictures to one, nearest first: cosine and row.
pub type Nearest = Vec<(f64, usize)>;

impl Neighbours {
    /// These pictures.
    #[must_use]
    pub fn of(features: &Matrix) -> Self {
        Self {
            rows: unit(features),
        }
    }

    /// For each picture the `k` nearest; of equally near ones the first.
    #[must_use]
    pub fn nearest(&self, features: &Matrix, k: usize) -> Vec<Nearest> {
        let features = unit(features);
        (0..features.rows())
            .into_par_iter()
            .map(|row| {
                let mine = features.row(row);
                let mut all: Nearest = (0..self.rows.rows())
                    .map(|other| (cosine(mine, self.rows.row(other)), other))
                    .collect();
                let order =
                    |a: &(f64, usize), b: &(f64, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
                if k < all.len() {
                    all.select_nth_unstable_by(k, order);
                    all.truncate(k);
                }
                all.sort_unstable_by(order);
                all
            })
            .collect()
    }
}

/// The share of weight that each class or label has among the first `k` of the nearest.
#[must_use]
pub fn vote(nearest: &Nearest, k: usize, temperature: f64, targets: &Targets) -> Vec<f64> {
    let mut votes = vec![0.0; targets.outputs()];
    let best = nearest.first().map_or(0.0, |(cosine, _)| *cosine);
    let mut total = 0.0;
    for (cosine, row) in nearest.iter().take(k) {
        // Measured from the best, which overflows for no temperature.
        let weight = ((cosine - best) / temperature).exp();
        total += weight;
        for label in targets.of(*row) {
            if let Some(vote) = votes.get_mut(*label) {
                *vote += weight;
            }
        }
    }
    if total > 0.0 {
        votes.iter_mut().for_each(|vote| *vote /= total);
    }
    votes
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (mut left, mut right) = (a.chunks_exact(8), b.chunks_exact(8));
    let mut sums = [0.0f64; 8];
    for (a, b) in left.by_ref().zip(right.by_ref()) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += f64::from(*a) * f64::from(*b);
        }
    }
    let rest = left.remainder().iter().zip(right.remainder());
    let rest: f64 = rest.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    sums.iter().sum::<f64>() + rest
}

/// Rows of length 1; a row of zeros stays.
fn unit(features: &Matrix) -> Matrix {
    let mut units = Matrix::new(features.width());
    for row in 0..features.rows() {
        let row = features.row(row);
        let length = cosine(row, row).sqrt();
        let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
        let scaled: Vec<f32> = row.iter().map(|x| (f64::from(*x) * scale) as f32).collect();
        units.push(&scaled);
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[[f32; 2]]) -> Matrix {
        let mut matrix = Matrix::new(2);
        values.iter().for_each(|row| matrix.push(row));
        matrix
    }

    /// Length does not count: (5, 0) lies in the direction of (1, 0); (1, 1) is at 1/√2.
    #[test]
    fn the_nearest_are_found_by_direction() {
        let known = Neighbours::of(&rows(&[[0.0, 2.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]));
        let found = &known.nearest(&rows(&[[5.0, 0.0]]), 3)[0];
        let places: Vec<usize> = found.iter().map(|(_, row)| *row).collect();
        assert_eq!(places, [2, 1, 0], "equal ones keep their order");
        assert!((found[1].0 - 0.5f64.sqrt()).abs() < 1e-7);
        assert_eq!(known.nearest(&rows(&[[5.0, 0.0]]), 99)[0].len(), 4);
    }

    /// Weights 1 and e⁻¹: cosines 1 and 0.5 at temperature 0.5.
    #[test]
    fn nearer_ones_weigh_more() {
        let nearest = vec![(1.0, 0), (0.5, 1), (0.0, 2)];
        let targets = Targets::Classes {
            of: vec![1, 0, 0],
            count: 2,
        };
        let votes = vote(&nearest, 2, 0.5, &targets);
        let share = 1.0 / (1.0 + (-1f64).exp());
        assert!((votes[1] - share).abs() < 1e-12 && (votes[0] + votes[1] - 1.0).abs() < 1e-12);
        assert_eq!(vote(&nearest, 1, 1e-300, &targets), [0.0, 1.0]);
    }
}
