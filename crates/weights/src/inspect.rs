//! The parameters of a module as a list, without initialising any of them.

use burn::module::{Module, ModuleVisitor, Param, Parameter};
use burn::tensor::{Bool, DType, Device, Int, Tensor};

/// One parameter of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Field names and list indices from the root, joined by dots.
    pub path: String,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Element type; for a parameter that is not initialised yet, the device's default.
    pub dtype: DType,
}

/// The parameters of `module` in the order of its fields. Lazy parameters stay lazy.
pub fn parameters<M: Module>(module: &M) -> Vec<ParameterInfo> {
    let mut lister = Lister::default();
    module.visit(&mut lister);
    lister.found
}

/// The names of the modules that a visitor or mapper is in.
#[derive(Debug, Default)]
pub(crate) struct PathStack(Vec<String>);

impl PathStack {
    pub(crate) fn enter(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    pub(crate) fn exit(&mut self) {
        self.0.pop();
    }

    /// The path, joined by dots.
    pub(crate) fn path(&self) -> String {
        self.0.join(".")
    }
}

#[derive(Default)]
struct Lister {
    stack: PathStack,
    found: Vec<ParameterInfo>,
}

impl Lister {
    fn push<T: Parameter>(
        &mut self,
        param: &Param<T>,
        dtype: impl Fn(&T) -> DType,
        default: impl Fn(&Device) -> DType,
    ) {
        let dtype = if param.is_initialized() {
            dtype(param)
        } else {
            default(&param.lazy_device())
        };
        self.found.push(ParameterInfo {
            path: self.stack.path(),
            shape: param.lazy_shape().as_slice().to_vec(),
            dtype,
        });
    }
}

impl ModuleVisitor for Lister {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.stack.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.stack.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.push(param, Tensor::dtype, |d| d.settings().float_dtype.into());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.push(param, Tensor::dtype, |d| d.settings().int_dtype.into());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.push(param, Tensor::dtype, |d| d.settings().bool_dtype.into());
    }
}
