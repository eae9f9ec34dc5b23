//! Features in rows, and how they are scaled.

/// Numbers in rows, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    width: usize,
    values: Vec<f32>,
}

impl Matrix {
    /// No rows of this width yet.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self {
            width,
            values: Vec::new(),
        }
    }

    /// Appends a row.
    ///
    /// # Panics
    /// If it has another width.
    pub fn push(&mut self, row: &[f32]) {
        assert_eq!(row.len(), self.width, "a row of another width");
        self.values.extend_from_slice(row);
    }

    /// Width of a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// A row; empty if there is no such row.
    #[must_use]
    pub fn row(&self, index: usize) -> &[f32] {
        let start = index * self.width;
        self.values.get(start..start + self.width).unwrap_or(&[])
    }

    /// Some rows, in this order.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let mut chosen = Self::new(self.width);
        for row in rows {
            chosen.values.extend_from_slice(self.row(*row));
        }
        chosen
    }
}

/// Puts every feature on one scale: minus its mean, divided by its standard deviation (of n, not
/// n − 1) over the pictures that a classifier is trained on. A feature that never changes becomes 0.
#[derive(Clone, Debug)]
pub struct Scaling {
    mean: Vec<f64>,
    inverse: Vec<f64>,
}

impl Scaling {
    /// Measured on these rows.
    #[must_use]
    pub fn of(rows: &Matrix) -> Self {
        let n = rows.rows().max(1) as f64;
        let mut mean = vec![0.0; rows.width];
        for row in 0..rows.rows() {
            for (sum, value) in mean.iter_mut().zip(rows.row(row)) {
                *sum += f64::from(*value);
            }
        }
        mean.iter_mut().for_each(|sum| *sum /= n);
        let mut inverse = vec![0.0; rows.width];
        for row in 0..rows.rows() {
            for ((sum, value), mean) in inverse.iter_mut().zip(rows.row(row)).zip(&mean) {
                *sum += (f64::from(*value) - mean).powi(2);
            }
        }
        for (sum, mean) in inverse.iter_mut().zip(&mean) {
            let deviation = (*sum / n).sqrt();
            // What is left of a constant feature is rounding.
            let constant = deviation <= 1e-7 * mean.abs();
            *sum = if constant { 0.0 } else { 1.0 / deviation };
        }
        Self { mean, inverse }
    }

    /// These rows on that scale.
    #[must_use]
    pub fn apply(&self, rows: &Matrix) -> Matrix {
        let scale = self.mean.iter().zip(&self.inverse);
        let values = rows.values.iter().zip(scale.cycle());
        let scaled =
            values.map(|(value, (mean, inverse))| ((f64::from(*value) - mean) * inverse) as f32);
        Matrix {
            width: rows.width,
            values: scaled.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1, 3: mean 2, deviation 1. A constant stays out of it.
    #[test]
    fn features_get_one_scale() {
        let mut rows = Matrix::new(2);
        rows.push(&[1.0, 5.0]);
        rows.push(&[3.0, 5.0]);
        let scaled = Scaling::of(&rows).apply(&rows);
        assert_eq!(
            (scaled.row(0), scaled.row(1)),
            (&[-1.0, 0.0][..], &[1.0, 0.0][..])
        );
        assert_eq!((rows.rows(), rows.width(), rows.row(2)), (2, 2, &[][..]));
        assert_eq!(rows.select(&[1, 1]).row(1), [3.0, 5.0]);
    }
}
