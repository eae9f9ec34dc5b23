//! AdamW, and Muon for matrices, over the named parameters of a module.
//!
//! AdamW: decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101) with bias correction, in the
//! form and order of operations of PyTorch's `AdamW`, so that runs can be compared step by step:
//!
//! ```text
//! p ← p (1 − lr λ)
//! m ← m + (1 − β₁)(g − m)
//! v ← β₂ v + (1 − β₂) g²
//! p ← p − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
//! ```
//!
//! Burn has an AdamW too. This one has a rate and a decay per parameter without a group list,
//! moments that are `f32` whatever the parameter is, one pass over memory on a CPU, and state under
//! names instead of identities, so that it can be read by anything that reads safetensors and goes
//! on in another process. `t` counts the updates of each parameter, as in PyTorch: a step without a
//! gradient (no picture in the batch) leaves the connector's moments and count alone.
//!
//! A parameter's [`Rate`] says by which [`Rule`] it moves; Muon's formula is in `muon.rs`.

mod muon;
pub(crate) mod plain;
mod state;

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::DType;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use state::OptimizerError;

use plain::{CHUNK, Writable};

/// Constants of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the mean of gradients, β₁.
    pub beta1: f64,
    /// Decay of the mean of squared gradients, β₂.
    pub beta2: f64,
    /// Added to the root of the second moment, ε.
    pub eps: f64,
}

impl Default for AdamWConfig {
    /// PyTorch's, which the reference implementation trains with.
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
        }
    }
}

/// How fast one parameter changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Learning rate.
    pub lr: f64,
    /// Decoupled weight decay λ.
    pub weight_decay: f64,
    /// By which formula.
    pub rule: Rule,
}

/// The formula that a parameter moves by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// AdamW, as the reference implementation.
    #[default]
    Adamw,
    /// Muon; of parameters with two dimensions only, all others move by AdamW.
    Muon,
}

impl Rate {
    /// The same at a point of the [schedule](crate::schedule).
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self {
            lr: self.lr * factor,
            ..self
        }
    }
}

/// The rules and what they remember.
#[derive(Clone, Debug)]
pub struct Optimizer {
    config: AdamWConfig,
    moments: BTreeMap<String, Moments>,
}

/// What is remembered of one parameter, on its inner device.
#[derive(Clone, Debug)]
struct Moments {
    /// Updates so far.
    updates: u64,
    /// Shape of the parameter.
    shape: Vec<usize>,
    /// Mean of gradients, flat.
    first: Tensor<1>,
    /// Mean of squared gradients, flat; Muon has none.
    second: Option<Tensor<1>>,
}

/// The constants of one update of one parameter.
#[derive(Clone, Copy, Debug)]
struct Update {
    beta1_rest: f64,
    beta2: f64,
    eps: f64,
    keep: f64,
    step: f64,
    root_correction: f64,
}

impl Optimizer {
    /// An optimizer that has seen nothing.
    #[must_use]
    pub fn new(config: AdamWConfig) -> Self {
        Self {
            config,
            moments: BTreeMap::new(),
        }
    }

    /// Its constants.
    #[must_use]
    pub fn config(&self) -> AdamWConfig {
        self.config
    }

    /// Names of the parameters that it has state for.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.moments.keys().map(String::as_str)
    }

    /// Updates of a parameter so far; 0 if there were none.
    #[must_use]
    pub fn updates(&self, name: &str) -> u64 {
        self.moments.get(name).map_or(0, |state| state.updates)
    }

    /// Changes every parameter that has both a gradient and a rate, and uses these gradients up.
    /// `rates` is asked with the module path of each parameter; `None` leaves it alone.
    #[must_use]
    pub fn step<M: Module>(
        &mut self,
        module: M,
        gradients: &mut GradientsParams,
        rates: impl Fn(&str) -> Option<Rate>,
    ) -> M {
        module.map(&mut Stepper {
            path: Vec::new(),
            optimizer: self,
            gradients,
            rates,
        })
    }

    /// The moments of a parameter, zero at first, with this update counted.
    fn advance(&mut self, name: &str, shape: &[usize], rule: Rule, device: &Device) -> Moments {
        let squares = rule == Rule::Adamw;
        let mut state = match self.moments.remove(name) {
            Some(state) if state.shape == shape && state.second.is_some() == squares => state,
            _ => {
                let count: usize = shape.iter().product();
                let zeros = || Tensor::zeros([count], (device, DType::F32));
                Moments {
                    updates: 0,
                    shape: shape.to_vec(),
                    first: zeros(),
                    second: squares.then(zeros),
                }
            }
        };
        state.updates += 1;
        state
    }

    fn update(&self, rate: Rate, updates: u64) -> Update {
        let AdamWConfig { beta1, beta2, eps } = self.config;
        let correction = |beta: f64| 1.0 - beta.powf(updates as f64);
        Update {
            beta1_rest: 1.0 - beta1,
            beta2,
            eps,
            keep: 1.0 - rate.lr * rate.weight_decay,
            step: rate.lr / correction(beta1),
            root_correction: correction(beta2).sqrt(),
        }
    }
}

/// Walks a module and changes its parameters.
struct Stepper<'a, F> {
    path: Vec<String>,
    optimizer: &'a mut Optimizer,
    gradients: &'a mut GradientsParams,
    rates: F,
}

impl<F: Fn(&str) -> Option<Rate>> ModuleMapper for Stepper<'_, F> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        let Some(rate) = (self.rates)(&name) else {
            return param;
        };
        let Some(gradient) = self.gradients.remove::<D>(param.id) else {
            return param;
        };
        let (id, value, mapper) = param.consume();
        let lifted = Lifted::of(&value);
        let inner = if lifted.is_some() {
            value.inner()
        } else {
            value
        };

        let (shape, dtype) = (inner.dims(), inner.dtype());
        let count = shape.iter().product::<usize>();
        let rule = if D == 2 { rate.rule } else { Rule::Adamw };
        let mut state = self.optimizer.advance(&name, &shape, rule, &inner.device());
        let flat = inner.reshape([count]).cast(DType::F32);
        let gradient = gradient.reshape([count]).cast(DType::F32);
        let flat = match state.second.take() {
            Some(second) => {
                let update = self.optimizer.update(rate, state.updates);
                let (flat, first, second) = update.apply(flat, gradient, state.first, second);
                state.first = first;
                state.second = Some(second);
                flat
            }
            None => {
                let matrix = |x: Tensor<1>| x.reshape([shape[0], shape[1]]);
                let (value, momentum) = muon::update(
                    matrix(flat),
                    matrix(gradient),
                    matrix(state.first),
                    rate.lr,
                    rate.weight_decay,
                );
                state.first = momentum.reshape([count]);
                value.reshape([count])
            }
        };
        self.optimizer.moments.insert(name, state);

        let inner = flat.reshape(shape).cast(dtype);
        let value = match lifted {
            Some(lifted) => lifted.lift(inner),
            None => inner,
        };
        Param::from_mapped_value(id, value, mapper)
    }
}

/// What an autodiff tensor carries beside its value.
struct Lifted {
    require_grad: bool,
    checkpointing: Option<burn::tensor::GradientCheckpointingStrategy>,
}

impl Lifted {
    fn of<const D: usize>(x: &Tensor<D>) -> Option<Self> {
        x.device().is_autodiff().then(|| Self {
            require_grad: x.is_require_grad(),
            checkpointing: x.gradient_checkpointing_strategy(),
        })
    }

    fn lift<const D: usize>(self, inner: Tensor<D>) -> Tensor<D> {
        let x = Tensor::from_inner(inner);
        match self.checkpointing {
            Some(strategy) => x.with_gradient_checkpointing_strategy(strategy),
            None => x,
        }
        .set_require_grad(self.require_grad)
    }
}

impl Update {
    /// New value and moments; all `[n]`, `f32`, on one device.
    fn apply(
        &self,
        value: Tensor<1>,
        gradient: Tensor<1>,
        first: Tensor<1>,
        second: Tensor<1>,
    ) -> (Tensor<1>, Tensor<1>, Tensor<1>) {
        if plain::is_plain(&value) && plain::is_plain(&gradient) {
            return self.apply_in_place(value, gradient, first, second);
        }
        let first = first.clone() + (gradient.clone() - first) * self.beta1_rest;
        let second = second * self.beta2 + gradient.square() * (1.0 - self.beta2);
        let root = second.clone().sqrt() / self.root_correction + self.eps;
        let value = value * self.keep - first.clone() / root * self.step;
        (value, first, second)
    }

    /// The same in one pass over memory.
    fn apply_in_place(
        &self,
        value: Tensor<1>,
        gradient: Tensor<1>,
        first: Tensor<1>,
        second: Tensor<1>,
    ) -> (Tensor<1>, Tensor<1>, Tensor<1>) {
        let mut value = Writable::new(value);
        let mut first = Writable::new(first);
        let mut second = Writable::new(second);
        plain::read(gradient, |gradient| {
            let chunks = (
                value.values().par_chunks_mut(CHUNK),
                first.values().par_chunks_mut(CHUNK),
                second.values().par_chunks_mut(CHUNK),
                gradient.par_chunks(CHUNK),
            );
            chunks
                .into_par_iter()
                .for_each(|(value, first, second, gradient)| {
                    self.apply_to_chunk(value, first, second, gradient);
                });
        });
        (
            value.into_tensor(),
            first.into_tensor(),
            second.into_tensor(),
        )
    }

    fn apply_to_chunk(
        &self,
        value: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
        gradient: &[f32],
    ) {
        let (beta1_rest, beta2) = (self.beta1_rest as f32, self.beta2 as f32);
        let (beta2_rest, eps) = ((1.0 - self.beta2) as f32, self.eps as f32);
        let (keep, step) = (self.keep as f32, self.step as f32);
        let root_correction = self.root_correction as f32;
        let moments = first.iter_mut().zip(second);
        for ((p, (m, v)), &g) in value.iter_mut().zip(moments).zip(gradient) {
            *m += (g - *m) * beta1_rest;
            *v = *v * beta2 + g * g * beta2_rest;
            *p = *p * keep - *m / (v.sqrt() / root_correction + eps) * step;
        }
    }
}

#[cfg(test)]
mod tests {
    use opabinia_nn::Linear;

    use super::*;

    fn module(weight: [[f32; 2]; 1]) -> Linear {
        let device = Device::flex().autodiff();
        let mut layer = Linear::new(2, 1, false, &device);
        let weight = Tensor::<2>::from_floats(weight, &device).require_grad();
        layer.weight = Param::from_tensor(weight);
        layer
    }

    fn gradient(module: &Linear, values: [[f32; 2]; 1]) -> GradientsParams {
        let mut gradients = GradientsParams::new();
        gradients.register(
            module.weight.id,
            Tensor::<2>::from_floats(values, &Device::flex()),
        );
        gradients
    }

    fn weight(module: &Linear) -> Vec<f32> {
        module.weight.val().into_data().try_to_vec().unwrap()
    }

    fn rate(lr: f64, weight_decay: f64) -> impl Fn(&str) -> Option<Rate> {
        move |_| {
            Some(Rate {
                lr,
                weight_decay,
                rule: Rule::Adamw,
            })
        }
    }

    /// After one update both corrected moments are the gradient's own, so the step is `lr · sign`.
    #[test]
    fn the_first_step_is_the_rate_against_the_sign() {
        let layer = module([[1.0, 2.0]]);
        let mut gradients = gradient(&layer, [[0.5, -4.0]]);
        let layer =
            Optimizer::new(AdamWConfig::default()).step(layer, &mut gradients, rate(0.1, 0.0));
        let got = weight(&layer);
        assert!((got[0] - 0.9).abs() < 1e-6 && (got[1] - 2.1).abs() < 1e-6);
        assert!(gradients.is_empty());
        assert!(layer.weight.val().is_require_grad());
    }

    /// Decay multiplies the value by `1 − lr λ` and does not enter the moments.
    #[test]
    fn decay_is_decoupled() {
        let layer = module([[1.0, 2.0]]);
        let mut gradients = gradient(&layer, [[0.0, 0.0]]);
        let layer =
            Optimizer::new(AdamWConfig::default()).step(layer, &mut gradients, rate(0.1, 0.5));
        let got = weight(&layer);
        assert!((got[0] - 0.95).abs() < 1e-6 && (got[1] - 1.9).abs() < 1e-6);
    }

    /// Muon keeps a mean of gradients for matrices; a bias beside them moves by AdamW.
    #[test]
    fn muon_is_for_matrices() {
        let device = Device::flex().autodiff();
        let layer = Linear::new(2, 1, true, &device);
        let mut gradients = gradient(&layer, [[3.0, 4.0]]);
        let bias = layer.bias.as_ref().unwrap();
        gradients.register(bias.id, Tensor::<1>::from_floats([1.0], &Device::flex()));
        let before = weight(&layer);
        let mut optimizer = Optimizer::new(AdamWConfig::default());
        let layer = optimizer.step(layer, &mut gradients, |_| {
            Some(Rate {
                lr: 0.1,
                weight_decay: 0.0,
                rule: Rule::Muon,
            })
        });
        let (after, length) = (weight(&layer), 0.1 * 0.2 * 2.0_f32.sqrt());
        for (i, share) in [0.6, 0.8].into_iter().enumerate() {
            let step = (before[i] - after[i]) / (length * share);
            assert!((0.6..1.3).contains(&step), "{step}");
        }
        assert!(optimizer.moments["weight"].second.is_none());
        assert!(optimizer.moments["bias"].second.is_some());
    }

    #[test]
    fn what_has_no_rate_stays_and_has_no_state() {
        let layer = module([[1.0, 2.0]]);
        let mut gradients = gradient(&layer, [[1.0, 1.0]]);
        let mut optimizer = Optimizer::new(AdamWConfig::default());
        let layer = optimizer.step(layer, &mut gradients, |_| None);
        assert_eq!(weight(&layer), [1.0, 2.0]);
        assert_eq!(optimizer.names().len(), 0);
    }

    #[test]
    fn an_update_does_not_reach_copies() {
        let layer = module([[1.0, 2.0]]);
        let copy = layer.clone();
        let mut gradients = gradient(&layer, [[1.0, 1.0]]);
        let layer =
            Optimizer::new(AdamWConfig::default()).step(layer, &mut gradients, rate(0.1, 0.0));
        assert_eq!(weight(&copy), [1.0, 2.0]);
        assert_ne!(weight(&layer), [1.0, 2.0]);
    }

    #[test]
    fn the_fused_pass_is_the_formula() {
        let config = AdamWConfig::default();
        let update = Optimizer::new(config).update(
            Rate {
                lr: 0.01,
                weight_decay: 0.1,
                rule: Rule::Adamw,
            },
            3,
        );
        let at = |values: [f32; 3]| Tensor::<1>::from_floats(values, &Device::flex());
        let inputs = || {
            (
                at([1.0, -2.0, 0.5]),
                at([0.3, 0.0, -7.0]),
                at([0.1, -0.2, 0.0]),
                at([0.2, 0.1, 0.0]),
            )
        };
        let (p, g, m, v) = inputs();
        let fused = update.apply(p, g, m, v);
        // On an autodiff device the generic operators run.
        let (p, g, m, v) = inputs();
        let lift = Tensor::<1>::from_inner;
        let generic = update.apply(lift(p), lift(g), lift(m), lift(v));
        for (a, b) in [
            (fused.0, generic.0),
            (fused.1, generic.1),
            (fused.2, generic.2),
        ] {
            let a: Vec<f32> = a.into_data().try_to_vec().unwrap();
            let b: Vec<f32> = b.into_data().try_to_vec().unwrap();
            assert!(
                a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6),
                "{a:?} {b:?}"
            );
        }
    }
}
