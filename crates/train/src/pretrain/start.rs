//! First values of parameters.
//!
//! A rule looks at a parameter's path and shape and says what it starts as; the values are drawn
//! from a stream named by that path. So a network starts the same whatever else is initialised,
//! in whatever order, on whatever device.

use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use opabinia_data::stream::stream;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// How a parameter starts.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// The same number everywhere.
    Constant(f64),
    /// Normal with mean 0 and this standard deviation, cut at two of them.
    Normal(f64),
    /// Uniform in `±√(6 / (in + out))` of a weight `[out, in, ..]` (Glorot and Bengio 2010).
    Xavier,
    /// Given values, row-major.
    Values(Vec<f32>),
}

/// Gives every parameter of a module the first value that `rule(path, shape)` asks for.
///
/// # Panics
/// If a rule gives [`Start::Values`] of another length than its parameter.
#[must_use]
pub fn start<M: Module>(module: M, seed: u64, rule: impl Fn(&str, &[usize]) -> Start) -> M {
    module.map(&mut Starter {
        path: Vec::new(),
        seed,
        rule,
    })
}

struct Starter<F> {
    path: Vec<String>,
    seed: u64,
    rule: F,
}

impl<F: Fn(&str, &[usize]) -> Start> ModuleMapper for Starter<F> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let shape = param.lazy_shape().as_slice().to_vec();
        let start = (self.rule)(&path, &shape);
        let values = first_values(start, &shape, &mut stream(self.seed, &path, 0));
        assert_eq!(
            values.len(),
            shape.iter().product::<usize>(),
            "the first values of `{path}` must fill {shape:?}"
        );
        let tensor = Tensor::from_data(TensorData::new(values, shape), &param.lazy_device());
        let id = param.id;
        param.transform_for_load(tensor, id)
    }
}

fn first_values(start: Start, shape: &[usize], random: &mut ChaCha8Rng) -> Vec<f32> {
    let count = shape.iter().product();
    match start {
        Start::Constant(value) => vec![value as f32; count],
        Start::Normal(deviation) => (0..count)
            .map(|_| (cut_normal(random) * deviation) as f32)
            .collect(),
        Start::Xavier => {
            let rest = shape.iter().skip(1).product::<usize>();
            let out = shape.first().copied().unwrap_or(1);
            let bound = (6.0 / (rest + out).max(1) as f64).sqrt();
            let draw = |_| random.random_range(-bound..=bound) as f32;
            (0..count).map(draw).collect()
        }
        Start::Values(values) => values,
    }
}

/// Standard normal (Box and Muller), drawn again beyond two deviations.
pub(super) fn cut_normal(random: &mut ChaCha8Rng) -> f64 {
    loop {
        // In 0 < u ≤ 1, where the logarithm is finite.
        let u = 1.0 - random.random::<f64>();
        let angle = std::f64::consts::TAU * random.random::<f64>();
        let value = (-2.0 * u.ln()).sqrt() * angle.cos();
        if value.abs() <= 2.0 {
            return value;
        }
    }
}

/// The usual start of a network of linear layers and norms: weights as `weight`, norms 1, biases 0.
#[must_use]
pub fn plain(path: &str, shape: &[usize], weight: Start) -> Start {
    match (path.rsplit('.').next(), shape.len()) {
        (Some("bias"), _) => Start::Constant(0.0),
        (_, 1) => Start::Constant(1.0),
        _ => weight,
    }
}

/// Sines and cosines of the row and the column of each cell, a quarter of the width each: fixed
/// positions of masked autoencoding, and a good start for learnt ones (arXiv 2205.01580).
///
/// # Shapes
/// - output: `rows · cols` rows of `width` numbers; a width that is no multiple of 4 ends in zeros
#[must_use]
pub fn grid_waves(rows: usize, cols: usize, width: usize) -> Vec<f32> {
    let quarter = width / 4;
    let mut table = vec![0.0; rows * cols * width];
    for (cell, values) in table.chunks_exact_mut(width.max(1)).enumerate() {
        let place = [(cell / cols) as f64, (cell % cols) as f64];
        for (axis, at) in place.into_iter().enumerate() {
            for i in 0..quarter {
                let angle = at / 10_000f64.powf(i as f64 / quarter as f64);
                let first = axis * 2 * quarter + i;
                values[first] = angle.sin() as f32;
                values[first + quarter] = angle.cos() as f32;
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use opabinia_nn::{LayerNorm, Linear};

    use super::*;

    fn values<const D: usize>(param: &Param<Tensor<D>>) -> Vec<f32> {
        param.val().into_data().try_to_vec().unwrap()
    }

    #[test]
    fn values_depend_on_seed_and_path_alone() {
        let device = Device::flex().autodiff();
        let layer = |seed| {
            let layer = Linear::new(30, 20, true, &device);
            start(layer, seed, |path, shape| {
                plain(path, shape, Start::Normal(0.02))
            })
        };
        let first = layer(1);
        assert_eq!(values(&first.weight), values(&layer(1).weight));
        assert_ne!(values(&first.weight), values(&layer(2).weight));
        assert!(
            values(first.bias.as_ref().unwrap())
                .iter()
                .all(|b| *b == 0.0)
        );
        assert!(first.weight.is_require_grad());
        let weights = values(&first.weight);
        assert!(weights.iter().all(|w| w.abs() <= 0.04));
        let variance = weights.iter().map(|w| w * w).sum::<f32>() / 600.0;
        // Cut at two deviations, a normal has 0.774 of its variance.
        assert!((variance / 4e-4 - 0.774).abs() < 0.15, "{variance}");
    }

    #[test]
    fn norms_start_as_the_identity() {
        let norm = LayerNorm::new(3, 1e-6, &Device::flex());
        let norm = start(norm, 0, |path, shape| plain(path, shape, Start::Xavier));
        assert_eq!(values(&norm.weight), [1.0; 3]);
        assert_eq!(values(&norm.bias), [0.0; 3]);
    }

    #[test]
    fn waves_tell_rows_from_columns() {
        let table = grid_waves(2, 2, 8);
        // Cell (0, 0): sines 0, cosines 1.
        assert_eq!(table[..8], [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
        // Cell (0, 1) differs in the second half only, cell (1, 0) in the first.
        assert_eq!(table[8..12], table[..4]);
        assert_eq!(table[20..24], table[4..8]);
        assert!((table[12] - 1f32.sin()).abs() < 1e-6);
    }
}
