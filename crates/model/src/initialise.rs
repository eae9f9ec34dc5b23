//! The values that a new connector starts from.
//!
//! Laws are the reference's: PyTorch's default for linear layers and convolutions (uniform in
//! `±1/√fan_in`, biases too), norms as the identity, query vectors normal with standard deviation
//! `1/√V`, the end-of-row token normal with `1/√H`, position embeddings of windows normal with 0.02.
//!
//! Every parameter draws from a stream of its own, named by its path, so that its values depend on
//! the seed alone and not on what else the module has or on how many threads there are.

use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use opabinia_connector::Connector;
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// Standard deviation of position embeddings inside windows.
const POSITION_STD: f64 = 0.02;

/// Gives every parameter of a connector its first value.
pub(crate) fn initialise(connector: Connector, seed: u64) -> Connector {
    connector.map(&mut Initialiser {
        seed,
        path: Vec::new(),
        fan_in: 1,
    })
}

/// Where the values of a parameter come from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Law {
    /// Between plus and minus this.
    Uniform(f64),
    /// With this standard deviation around 0.
    Normal(f64),
    /// As the module begins: ones and zeros of norms.
    Kept,
}

struct Initialiser {
    seed: u64,
    path: Vec<String>,
    /// Of the weight that came last: its bias stands behind it.
    fan_in: usize,
}

impl Initialiser {
    fn law(&mut self, shape: &[usize]) -> Law {
        let name = self.path.last().map_or("", String::as_str);
        let parent = self.path.iter().rev().nth(1).map_or("", String::as_str);
        match (name, parent) {
            (_, "norm") => Law::Kept,
            (_, "pos_embed") => Law::Normal(POSITION_STD),
            ("weight", _) => {
                self.fan_in = shape[1..].iter().product::<usize>().max(1);
                Law::Uniform(1.0 / (self.fan_in as f64).sqrt())
            }
            ("bias", _) => Law::Uniform(1.0 / (self.fan_in as f64).sqrt()),
            // `queries` and `newline`: vectors of the width of what they join.
            _ => Law::Normal(1.0 / (shape.last().copied().unwrap_or(1) as f64).sqrt()),
        }
    }

    fn random(&self) -> ChaCha8Rng {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_le_bytes());
        hash.update(self.path.join(".").as_bytes());
        ChaCha8Rng::from_seed(hash.finalize().into())
    }
}

impl ModuleMapper for Initialiser {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape: Vec<usize> = param.lazy_shape().as_slice().to_vec();
        let law = self.law(&shape);
        let count = shape.iter().product();
        let Some(values) = draw(law, count, &mut self.random()) else {
            return param;
        };
        let values = Tensor::from_data(TensorData::new(values, shape), &param.lazy_device());
        let id = param.id;
        param.transform_for_load(values, id)
    }
}

/// Values of a law, `None` for those that stay.
fn draw(law: Law, count: usize, random: &mut ChaCha8Rng) -> Option<Vec<f32>> {
    let uniform = |random: &mut ChaCha8Rng| random.random::<f64>();
    match law {
        Law::Kept => None,
        Law::Uniform(bound) => {
            let value = |_| ((2.0 * uniform(random) - 1.0) * bound) as f32;
            Some((0..count).map(value).collect())
        }
        Law::Normal(std) => {
            // Box and Muller's way; 1 − u keeps the logarithm finite.
            let value = |_| {
                let radius = (-2.0 * (1.0 - uniform(random)).ln()).sqrt();
                let angle = std::f64::consts::TAU * uniform(random);
                (std * radius * angle.cos()) as f32
            };
            Some((0..count).map(value).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use burn::module::ModuleVisitor;
    use opabinia_connector::{ConnectorConfig, InLlmConfig, LayerType, SvaConfig};
    use opabinia_nn::Grid;

    use super::*;

    fn connector(in_llm: bool, seed: u64) -> BTreeMap<String, Vec<f32>> {
        let config = ConnectorConfig::Sva(SvaConfig {
            encoder_widths: vec![24, 20],
            encoder_grids: vec![Grid::square(4), Grid::square(8)],
            width: 64,
            hidden: 256,
            query_grids: vec![Grid::square(4)],
            token_grid: Grid::square(4),
            depth: 1,
            layer_type: LayerType::Joint,
            in_llm: in_llm.then_some(InLlmConfig {
                count: 1,
                start: 0,
                stride: 1,
            }),
        });
        let connector = initialise(Connector::new(&config, &Device::flex()), seed);
        let mut values = Values::default();
        connector.visit(&mut values);
        values.found
    }

    #[derive(Default)]
    struct Values {
        path: Vec<String>,
        found: BTreeMap<String, Vec<f32>>,
    }

    impl ModuleVisitor for Values {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values = param.val().into_data().try_to_vec().unwrap();
            self.found.insert(self.path.join("."), values);
        }
    }

    fn std(values: &[f32]) -> f64 {
        let squares = values.iter().map(|x| f64::from(*x).powi(2));
        (squares.sum::<f64>() / values.len() as f64).sqrt()
    }

    #[test]
    fn every_parameter_follows_its_law() {
        for (path, values) in connector(true, 3) {
            let near = |expected: f64, slack: f64| {
                let found = std(&values);
                assert!((found / expected - 1.0).abs() < slack, "{path}: {found}");
            };
            let bounded = |fan_in: f64| {
                let bound = 1.0 / fan_in.sqrt();
                assert!(values.iter().all(|x| f64::from(x.abs()) <= bound), "{path}");
                near(bound / 3f64.sqrt(), 0.3);
            };
            match path.as_str() {
                "newline" => near(1.0 / 16.0, 0.2),
                path if path.ends_with(".queries") => near(1.0 / 8.0, 0.3),
                path if path.contains(".pos_embed.") => near(0.02, 0.2),
                path if path.contains(".norm.weight") => assert!(values.iter().all(|x| *x == 1.0)),
                path if path.contains(".norm.bias") => assert!(values.iter().all(|x| *x == 0.0)),
                path if path.ends_with("encoders.0.mlp.fc1.weight") => bounded(24.0),
                path if path.ends_with("encoders.0.mlp.fc1.bias") => bounded(24.0),
                path if path.ends_with("encoders.1.mlp.fc1.bias") => bounded(20.0),
                path if path.ends_with("projector.fc2.weight") => bounded(256.0),
                path if path.ends_with("groups.0.layers.0.proj_in.weight") => bounded(128.0),
                path if path.ends_with("in_llm.0.layers.0.proj_in.weight") => bounded(320.0),
                _ => {}
            }
        }
    }

    /// A seed is a start, and a parameter's values do not depend on its neighbours.
    #[test]
    fn values_depend_on_seed_and_name_alone() {
        let (with, without) = (connector(true, 3), connector(false, 3));
        assert!(without.iter().all(|(path, values)| with[path] == *values));
        let other = connector(true, 4);
        assert_ne!(with["newline"], other["newline"]);
        assert_eq!(connector(true, 3), with);
    }
}
