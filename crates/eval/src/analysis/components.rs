//! Principal components, by the singular value decomposition of the centred points.
//!
//! Cambrian-1 (section 3.1) draws each benchmark as a point in the space of its first two
//! components. It documents no standardisation; here each benchmark is standardised over models
//! first ([`standardised`]), so that wide scales do not win.
//!
//! The decomposition is the one-sided one of Jacobi: columns are rotated against each other until
//! all are orthogonal. It is slow for thousands of columns, exact for tens, and has no corner cases.

use serde::Serialize;

use super::correlation::does_not_vary;
use super::statistics::mean;

/// Points in their own axes, the widest first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Components {
    /// Variance along each axis (n − 1).
    pub variances: Vec<f64>,
    /// Its share of all variance.
    pub shares: Vec<f64>,
    /// `[axis][dimension]`: unit vectors. An axis has no direction of its own; here the entry
    /// furthest from 0 is positive.
    pub axes: Vec<Vec<f64>>,
    /// `[point][axis]`.
    pub coordinates: Vec<Vec<f64>>,
}

impl Components {
    /// The components of points, which must all have as many dimensions; `None` of fewer than two
    /// points or if they are all the same.
    #[must_use]
    pub fn of(points: &[Vec<f64>]) -> Option<Self> {
        let dimensions = points.first()?.len();
        if points.len() < 2 || points.iter().any(|point| point.len() != dimensions) {
            return None;
        }
        let columns = centred_columns(points, dimensions);
        let parts = decompose(columns, points.len());
        let total: f64 = parts.iter().map(|part| part.length * part.length).sum();
        if total <= 0.0 {
            return None;
        }
        let freedom = (points.len() - 1) as f64;
        let of_each = |value: fn(&Part) -> f64| parts.iter().map(value).collect::<Vec<f64>>();
        let squares = of_each(|part| part.length * part.length);
        Some(Self {
            variances: squares.iter().map(|s| s / freedom).collect(),
            shares: squares.iter().map(|s| s / total).collect(),
            coordinates: (0..points.len())
                .map(|point| parts.iter().map(|part| part.along[point]).collect())
                .collect(),
            axes: parts.into_iter().map(|part| part.axis).collect(),
        })
    }
}

/// Columns with mean 0 and standard deviation 1 (dividing by n); `None` for one that does not vary.
#[must_use]
pub fn standardised(column: &[f64]) -> Option<Vec<f64>> {
    let centre = mean(column);
    let squares: f64 = column.iter().map(|v| (v - centre) * (v - centre)).sum();
    if column.is_empty() || does_not_vary(squares, centre, column.len()) {
        return None;
    }
    let deviation = (squares / column.len() as f64).sqrt();
    Some(column.iter().map(|v| (v - centre) / deviation).collect())
}

/// One axis: how long the cloud is along it, where the points lie on it, and where it points.
struct Part {
    length: f64,
    along: Vec<f64>,
    axis: Vec<f64>,
}

fn centred_columns(points: &[Vec<f64>], dimensions: usize) -> Vec<Vec<f64>> {
    (0..dimensions)
        .map(|dimension| {
            let column: Vec<f64> = points.iter().map(|point| point[dimension]).collect();
            let centre = mean(&column);
            column.into_iter().map(|value| value - centre).collect()
        })
        .collect()
}

/// The parts of a matrix given by columns of `rows` values, the longest first, as many as its
/// smaller side.
fn decompose(columns: Vec<Vec<f64>>, rows: usize) -> Vec<Part> {
    let kept = columns.len().min(rows);
    let mut parts: Vec<Part> = if columns.len() <= rows {
        let (columns, axes) = orthogonal(columns);
        let parts = columns.into_iter().zip(axes);
        parts
            .map(|(along, axis)| Part {
                length: length(&along),
                along,
                axis,
            })
            .collect()
    } else {
        // Of the transposed matrix: columns become axes once their length is taken out.
        let (columns, axes) = orthogonal(transposed(&columns));
        let parts = columns.into_iter().zip(axes);
        parts
            .map(|(column, axis)| {
                let length = length(&column);
                Part {
                    length,
                    along: axis.iter().map(|value| value * length).collect(),
                    axis: scaled(column, if length > 0.0 { 1.0 / length } else { 0.0 }),
                }
            })
            .collect()
    };
    parts.sort_by(|a, b| b.length.total_cmp(&a.length));
    parts.truncate(kept);
    parts.into_iter().map(Part::turned).collect()
}

impl Part {
    /// The axis turned so that its entry furthest from 0 is positive.
    fn turned(self) -> Self {
        let furthest = self.axis.iter().fold(0.0_f64, |far, &value| {
            // Entries that differ by rounding only do not change the choice.
            if value.abs() > far.abs() * (1.0 + 1e-9) {
                value
            } else {
                far
            }
        });
        if furthest >= 0.0 {
            return self;
        }
        Self {
            along: scaled(self.along, -1.0),
            axis: scaled(self.axis, -1.0),
            ..self
        }
    }
}

/// Rotates columns against each other until all are orthogonal; also gives, for each new column, the
/// unit vector of what it is made of.
fn orthogonal(mut columns: Vec<Vec<f64>>) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let n = columns.len();
    let unit = |i| (0..n).map(|j| f64::from(u8::from(i == j))).collect();
    let mut axes: Vec<Vec<f64>> = (0..n).map(unit).collect();
    // Jacobi's method doubles its digits with each sweep; ten are plenty, sixty are a promise.
    for _ in 0..60 {
        let mut turned = false;
        for j in 1..n {
            for i in 0..j {
                if let Some((cosine, sine)) = rotation(&columns[i], &columns[j]) {
                    rotate(&mut columns, i, j, cosine, sine);
                    rotate(&mut axes, i, j, cosine, sine);
                    turned = true;
                }
            }
        }
        if !turned {
            break;
        }
    }
    (columns, axes)
}

/// Cosine and sine of the angle that makes two columns orthogonal; `None` if they are.
fn rotation(a: &[f64], b: &[f64]) -> Option<(f64, f64)> {
    let (aa, bb, ab) = (dot(a, a), dot(b, b), dot(a, b));
    if ab.abs() <= 1e-15 * (aa * bb).sqrt() || ab == 0.0 {
        return None;
    }
    let zeta = (bb - aa) / (2.0 * ab);
    let tangent = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
    let cosine = 1.0 / (1.0 + tangent * tangent).sqrt();
    Some((cosine, cosine * tangent))
}

fn rotate(columns: &mut [Vec<f64>], i: usize, j: usize, cosine: f64, sine: f64) {
    for row in 0..columns[i].len() {
        let (a, b) = (columns[i][row], columns[j][row]);
        columns[i][row] = cosine * a - sine * b;
        columns[j][row] = sine * a + cosine * b;
    }
}

fn transposed(columns: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let rows = columns.first().map_or(0, Vec::len);
    (0..rows)
        .map(|row| columns.iter().map(|column| column[row]).collect())
        .collect()
}

fn scaled(values: Vec<f64>, factor: f64) -> Vec<f64> {
    values.into_iter().map(|value| value * factor).collect()
}

fn length(values: &[f64]) -> f64 {
    dot(values, values).sqrt()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points on the line y = 2x: one component, along (1, 2)/√5.
    #[test]
    fn points_on_a_line() {
        let points = [[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]].map(|p| p.to_vec());
        let found = Components::of(&points).unwrap();
        assert!((found.shares[0] - 1.0).abs() < 1e-15);
        assert!((found.variances[0] - 5.0).abs() < 1e-14);
        assert!((found.axes[0][0] - 1.0 / 5.0_f64.sqrt()).abs() < 1e-15);
        assert!((found.coordinates[2][0] - 5.0_f64.sqrt()).abs() < 1e-14);
    }

    /// More dimensions than points: the same distances between points remain.
    #[test]
    fn distances_stay() {
        let points = vec![
            vec![1.0, 0.0, 2.0, 5.0, 1.0],
            vec![0.0, 3.0, 1.0, 1.0, 1.0],
            vec![4.0, 1.0, 1.0, 0.0, 2.0],
        ];
        let found = Components::of(&points).unwrap();
        assert_eq!(found.variances.len(), 3);
        let apart = |points: &[Vec<f64>], i: usize, j: usize| {
            let both = points[i].iter().zip(&points[j]);
            both.map(|(a, b)| (a - b) * (a - b)).sum::<f64>()
        };
        for (i, j) in [(0, 1), (0, 2), (1, 2)] {
            let difference = apart(&points, i, j) - apart(&found.coordinates, i, j);
            assert!(difference.abs() < 1e-12, "{difference}");
        }
    }

    #[test]
    fn nothing_to_take_apart() {
        assert_eq!(Components::of(&[]), None);
        assert_eq!(Components::of(&[vec![1.0]]), None);
        assert_eq!(Components::of(&[vec![1.0], vec![1.0]]), None);
        assert_eq!(Components::of(&[vec![1.0], vec![1.0, 2.0]]), None);
        assert_eq!(standardised(&[0.1, 0.1, 0.1]), None);
        assert_eq!(standardised(&[1.0, 3.0]), Some(vec![-1.0, 1.0]));
    }
}
