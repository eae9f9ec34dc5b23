//! L-BFGS: the minimum of a smooth convex function of many variables.
//!
//! Liu and Nocedal, "On the limited memory BFGS method for large scale optimization" (1989), with the
//! two-loop recursion and a line search by bisection for the weak Wolfe conditions (Lewis and Overton,
//! 2013). All in f64 and on one thread; the function itself may use others.

/// Steps that are remembered.
const MEMORY: usize = 10;
/// Sufficient decrease and curvature of the Wolfe conditions, the customary values.
const DECREASE: f64 = 1e-4;
const CURVATURE: f64 = 0.9;
/// Points that one line search looks at.
const MOST_TRIALS: usize = 40;

/// When the search ends.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest entry of the gradient that counts as none.
    pub tolerance: f64,
    /// Steps at most.
    pub iterations: usize,
}

/// Where the search ended.
#[derive(Clone, Debug)]
pub struct Minimum {
    /// The point.
    pub point: Vec<f64>,
    /// The function there.
    pub value: f64,
    /// Steps that were taken.
    pub iterations: usize,
    /// Whether the gradient is within the tolerance there.
    pub converged: bool,
}

/// A step and the change of the gradient over it.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    /// 1 / ⟨step, change⟩.
    rho: f64,
}

/// Goes down from `start`; `function` gives its value and writes its gradient.
pub fn minimise(
    start: Vec<f64>,
    limits: Limits,
    function: &mut dyn FnMut(&[f64], &mut [f64]) -> f64,
) -> Minimum {
    let mut point = start;
    let mut gradient = vec![0.0; point.len()];
    let mut value = function(&point, &mut gradient);
    let mut pairs: Vec<Pair> = Vec::new();
    let mut iterations = 0;
    while largest(&gradient) > limits.tolerance && iterations < limits.iterations {
        let mut direction = descent(&pairs, &gradient);
        let mut slope = dot(&direction, &gradient);
        if slope >= 0.0 {
            // Rounding spoilt the memory; begin again with the steepest descent.
            pairs.clear();
            direction = descent(&pairs, &gradient);
            slope = dot(&direction, &gradient);
        }
        let at = Line {
            point: &point,
            direction: &direction,
            value,
            slope,
        };
        let Some(found) = at.search(function) else {
            if pairs.is_empty() {
                break;
            }
            // The memory may be at fault; the steepest descent has the last word.
            pairs.clear();
            continue;
        };
        let pair = Pair::of(&point, &gradient, &found);
        (point, gradient, value) = (found.point, found.gradient, found.value);
        if let Some(pair) = pair {
            if pairs.len() == MEMORY {
                pairs.remove(0);
            }
            pairs.push(pair);
        }
        iterations += 1;
    }
    Minimum {
        converged: largest(&gradient) <= limits.tolerance,
        point,
        value,
        iterations,
    }
}

impl Pair {
    /// `None` where the function is not seen to curve upwards.
    fn of(point: &[f64], gradient: &[f64], next: &Found) -> Option<Self> {
        let step = difference(&next.point, point);
        let change = difference(&next.gradient, gradient);
        let curved = dot(&step, &change);
        let enough = curved > f64::EPSILON * dot(&change, &change);
        enough.then(|| Self {
            rho: 1.0 / curved,
            step,
            change,
        })
    }
}

/// The two-loop recursion: minus the gradient, times what is known of the inverse of the curvature.
fn descent(pairs: &[Pair], gradient: &[f64]) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let Some(last) = pairs.last() else {
        // The first step has length 1, or that of a small gradient.
        let length = dot(gradient, gradient).sqrt().max(1.0);
        direction.iter_mut().for_each(|d| *d /= length);
        return direction;
    };
    let mut weights = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let weight = pair.rho * dot(&pair.step, &direction);
        add(&mut direction, -weight, &pair.change);
        weights.push(weight);
    }
    let scale = 1.0 / (last.rho * dot(&last.change, &last.change));
    direction.iter_mut().for_each(|d| *d *= scale);
    for (pair, weight) in pairs.iter().zip(weights.iter().rev()) {
        let other = pair.rho * dot(&pair.change, &direction);
        add(&mut direction, weight - other, &pair.step);
    }
    direction
}

/// A point on a line and what is known there.
struct Found {
    point: Vec<f64>,
    gradient: Vec<f64>,
    value: f64,
}

/// A line to search along.
struct Line<'a> {
    point: &'a [f64],
    direction: &'a [f64],
    value: f64,
    slope: f64,
}

impl Line<'_> {
    /// A point that is low enough and flat enough; `None` if rounding hides every descent.
    fn search(&self, function: &mut dyn FnMut(&[f64], &mut [f64]) -> f64) -> Option<Found> {
        let (mut low, mut high) = (0.0, f64::INFINITY);
        let mut step = 1.0;
        let mut best: Option<Found> = None;
        for _ in 0..MOST_TRIALS {
            let mut point = self.point.to_vec();
            add(&mut point, step, self.direction);
            let mut gradient = vec![0.0; point.len()];
            let value = function(&point, &mut gradient);
            let falls = value.is_finite() && value <= self.value + DECREASE * step * self.slope;
            if !falls {
                high = step;
            } else {
                let flat = dot(&gradient, self.direction) >= CURVATURE * self.slope;
                low = step;
                best = Some(Found {
                    point,
                    gradient,
                    value,
                });
                if flat {
                    break;
                }
            }
            step = match high.is_finite() {
                true => 0.5 * (low + high),
                false => 2.0 * low,
            };
        }
        best
    }
}

/// Σ aᵢ·bᵢ.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `a += factor · b`.
pub fn add(a: &mut [f64], factor: f64, b: &[f64]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += factor * b;
    }
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn largest(values: &[f64]) -> f64 {
    // Not a number is as far from nothing as can be.
    values
        .iter()
        .fold(0.0, |most: f64, value| match value.is_nan() {
            true => f64::INFINITY,
            false => most.max(value.abs()),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        tolerance: 1e-9,
        iterations: 200,
    };

    /// (x − 3)² + 100·(y + 1)², a long valley.
    #[test]
    fn a_valley_ends_at_its_lowest_point() {
        let found = minimise(vec![0.0, 0.0], LIMITS, &mut |p, g| {
            g[0] = 2.0 * (p[0] - 3.0);
            g[1] = 200.0 * (p[1] + 1.0);
            (p[0] - 3.0).powi(2) + 100.0 * (p[1] + 1.0).powi(2)
        });
        assert!(found.converged, "{found:?}");
        assert!((found.point[0] - 3.0).abs() < 1e-8 && (found.point[1] + 1.0).abs() < 1e-8);
    }

    #[test]
    fn steps_are_counted_and_bounded() {
        let limits = Limits {
            iterations: 1,
            ..LIMITS
        };
        let mut function = |p: &[f64], g: &mut [f64]| {
            g[0] = 4.0 * p[0].powi(3);
            p[0].powi(4)
        };
        let found = minimise(vec![2.0], limits, &mut function);
        assert!(!found.converged && found.iterations == 1);
        let found = minimise(vec![0.0], limits, &mut function);
        assert!(found.converged && found.iterations == 0);
    }
}
