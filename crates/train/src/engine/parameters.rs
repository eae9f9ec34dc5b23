//! The parameters of a module by name: what trains, copies for workers, values for checkpoints.
//!
//! Names are module paths joined by dots. They are the same in every process, unlike Burn's
//! parameter identities, so whatever is stored is stored under names.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::TensorData;
use opabinia_nn::packed;
use sha2::{Digest, Sha256};

/// A parameter and whether it trains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Module path.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether it requires gradients.
    pub trains: bool,
}

impl Parameter {
    /// How many numbers it holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }
}

/// A parameter's values.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    /// Module path.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Vec<f32>,
}

/// Lists the parameters of a module in its order.
#[must_use]
pub fn list<M: Module>(module: &M) -> Vec<Parameter> {
    struct List {
        path: Vec<String>,
        found: Vec<Parameter>,
    }
    impl ModuleVisitor for List {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.push(Parameter {
                name: self.path.join("."),
                shape: param.lazy_shape().to_vec(),
                trains: param.is_require_grad(),
            });
        }
    }
    let mut list = List {
        path: Vec::new(),
        found: Vec::new(),
    };
    module.visit(&mut list);
    list.found
}

/// Makes exactly the parameters that `trains` names require gradients.
#[must_use]
pub fn choose<M: Module>(module: M, trains: impl Fn(&str) -> bool) -> M {
    struct Choose<F> {
        path: Vec<String>,
        trains: F,
    }
    impl<F: Fn(&str) -> bool> ModuleMapper for Choose<F> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.set_require_grad((self.trains)(&self.path.join(".")))
        }
    }
    module.map(&mut Choose {
        path: Vec::new(),
        trains,
    })
}

/// A copy that shares the values and has a graph of its own, so that two threads can train on the
/// same parameters without waiting for each other. Identities stay, so gradients of copies add up.
#[must_use]
pub fn fork<M: Module>(module: &M) -> M {
    struct Fork;
    impl ModuleMapper for Fork {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let trains = param.is_require_grad();
            param.map(|tensor| leaf(tensor.inner(), trains))
        }
    }
    module.clone().map(&mut Fork)
}

fn leaf<const D: usize>(inner: Tensor<D>, trains: bool) -> Tensor<D> {
    Tensor::from_inner(inner).set_require_grad(trains)
}

/// The values of the parameters that `wanted` names.
///
/// # Panics
/// If a value is no float, which parameters are by definition.
#[must_use]
pub fn values<M: Module>(module: &M, wanted: impl Fn(&Parameter) -> bool) -> Vec<Values> {
    struct Read<F> {
        path: Vec<String>,
        wanted: F,
        found: Vec<Values>,
    }
    impl<F: Fn(&Parameter) -> bool> ModuleVisitor for Read<F> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let parameter = Parameter {
                name: self.path.join("."),
                shape: param.lazy_shape().to_vec(),
                trains: param.is_require_grad(),
            };
            if (self.wanted)(&parameter) {
                let data = param.val().into_data().convert::<f32>();
                self.found.push(Values {
                    name: parameter.name,
                    shape: parameter.shape,
                    values: data.try_to_vec().expect("converted to f32"),
                });
            }
        }
    }
    let mut read = Read {
        path: Vec::new(),
        wanted,
        found: Vec::new(),
    };
    module.visit(&mut read);
    read.found
}

/// SHA-256 of all names and values.
#[must_use]
pub fn hash<M: Module>(module: &M) -> String {
    struct Hash {
        path: Vec<String>,
        hash: Sha256,
    }
    impl ModuleVisitor for Hash {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.hash.update(self.path.join("."));
            packed::with_bytes(param, |bytes| self.hash.update(bytes));
        }
    }
    let mut hash = Hash {
        path: Vec::new(),
        hash: Sha256::new(),
    };
    module.visit(&mut hash);
    let digest = hash.hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What did not fit when values were put back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misfits {
    /// Names that the module does not have.
    pub unknown: Vec<String>,
    /// Names whose shapes differ.
    pub shapes: Vec<String>,
}

impl Misfits {
    /// Whether everything fitted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unknown.is_empty() && self.shapes.is_empty()
    }
}

/// Puts values back; parameters that are not named stay as they are, and so does what trains.
pub fn restore<M: Module>(module: M, values: Vec<Values>) -> (M, Misfits) {
    struct Restore {
        path: Vec<String>,
        values: HashMap<String, Values>,
        misfits: Misfits,
    }
    impl ModuleMapper for Restore {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(new) = self.values.remove(&self.path.join(".")) else {
                return param;
            };
            if new.shape != param.lazy_shape().to_vec() {
                self.misfits.shapes.push(new.name);
                return param;
            }
            let trains = param.is_require_grad();
            param.map(|tensor| {
                let device = tensor.device();
                let data = TensorData::new(new.values, new.shape);
                Tensor::from_data(data, (&device, tensor.dtype())).set_require_grad(trains)
            })
        }
    }
    let mut restore = Restore {
        path: Vec::new(),
        values: values.into_iter().map(|v| (v.name.clone(), v)).collect(),
        misfits: Misfits::default(),
    };
    let module = module.map(&mut restore);
    let mut misfits = restore.misfits;
    misfits.unknown = restore.values.into_keys().collect();
    misfits.unknown.sort();
    (module, misfits)
}

/// Names of the parameters whose gradient is not finite.
#[must_use]
pub fn non_finite<M: Module>(module: &M, gradients: &GradientsParams) -> Vec<String> {
    struct Look<'a> {
        path: Vec<String>,
        gradients: &'a GradientsParams,
        found: Vec<String>,
    }
    impl Look<'_> {
        fn gradient<const D: usize>(&self, id: ParamId) -> Option<Tensor<D>> {
            self.gradients.get::<D>(id)
        }
    }
    impl ModuleVisitor for Look<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let Some(gradient) = self.gradient::<D>(param.id) else {
                return;
            };
            // A sum of magnitudes is finite only if every value is (and does not overflow).
            let sum: f32 = gradient.abs().sum().into_scalar();
            if !sum.is_finite() {
                self.found.push(self.path.join("."));
            }
        }
    }
    let mut look = Look {
        path: Vec::new(),
        gradients,
        found: Vec::new(),
    };
    module.visit(&mut look);
    look.found
}

#[cfg(test)]
mod tests {
    use opabinia_nn::{Activation, Mlp};

    use super::*;

    fn module() -> Mlp {
        Mlp::new(3, 4, 2, Activation::Gelu, &Device::flex().autodiff())
    }

    #[test]
    fn chosen_parameters_train_and_the_choice_survives_a_copy() {
        let module = choose(module(), |name| name.starts_with("fc2."));
        for module in [fork(&module), module] {
            let trains: Vec<_> = list(&module)
                .into_iter()
                .map(|p| (p.name, p.trains))
                .collect();
            let expected = [
                ("fc1.weight", false),
                ("fc1.bias", false),
                ("fc2.weight", true),
                ("fc2.bias", true),
            ];
            assert_eq!(trains, expected.map(|(name, t)| (name.to_owned(), t)));
        }
    }

    #[test]
    fn values_go_out_and_in_again() {
        let first = module();
        let stored = values(&first, |_| true);
        let (second, misfits) = restore(module(), stored.clone());
        assert!(misfits.is_empty(), "{misfits:?}");
        assert_eq!(values(&second, |_| true), stored);
        assert_eq!(hash(&second), hash(&first));
        assert_ne!(hash(&module()), hash(&first), "weights are random");
        assert!(list(&second).iter().all(|p| p.trains));
    }

    #[test]
    fn misfits_are_named() {
        let value = |name: &str, n: usize| Values {
            name: name.into(),
            shape: vec![n],
            values: vec![0.0; n],
        };
        let (_, misfits) = restore(module(), vec![value("fc1.bias", 3), value("fc9.bias", 4)]);
        assert_eq!(misfits.shapes, ["fc1.bias"]);
        assert_eq!(misfits.unknown, ["fc9.bias"]);
    }
}
