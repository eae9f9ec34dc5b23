//! From a module to the parts of tensors that are written.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, TensorData};
use opabinia_nn::packed::Packed;

use super::Part;
use crate::dtype::Dtype;
use crate::error::WeightsError;
use crate::inspect::PathStack;
use crate::key_map::{FileKey, KeyMap};
use crate::packed;

/// Collects the parameters of a module with their keys.
pub(super) struct Collector<'a> {
    map: &'a KeyMap,
    stack: PathStack,
    found: Vec<(String, Part)>,
    refused: Option<WeightsError>,
}

impl<'a> Collector<'a> {
    /// Those of a module, in its order.
    ///
    /// # Errors
    /// If a parameter is not a float.
    pub(super) fn collect<M: Module>(
        module: &M,
        map: &'a KeyMap,
    ) -> Result<Vec<(String, Part)>, WeightsError> {
        let mut collector = Self {
            map,
            stack: PathStack::default(),
            found: Vec::new(),
            refused: None,
        };
        module.visit(&mut collector);
        match collector.refused {
            Some(error) => Err(error),
            None => Ok(collector.found),
        }
    }

    /// A weight that its layer has packed: the bytes, whatever type the others take.
    fn collect_packed(&mut self, packed: Packed) {
        let path = self.stack.path();
        let [n, k] = packed.shape();
        let part = Part {
            path: path.clone(),
            rows: None,
            shape: vec![packed.as_bytes().len()],
            stored: Dtype::U8,
            packed: Some((n * k) as u64),
            read: {
                let packed = packed.clone();
                Box::new(move || {
                    let bytes = packed.as_bytes().to_vec();
                    let shape = [bytes.len()];
                    Ok(TensorData::new(bytes, shape))
                })
            },
        };
        let at = self.map.file_key(&path);
        let key = packed::packed_key(&at, packed.format(), [n, k]);
        self.found.push((key, part));
    }

    fn refuse(&mut self, what: &str) {
        let path = self.stack.path();
        self.refused.get_or_insert_with(|| WeightsError::Layout {
            key: path,
            problem: format!("{what} parameters cannot be written"),
        });
    }
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.stack.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.stack.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(packed) = opabinia_nn::packed::packed(param.id) {
            return self.collect_packed(packed);
        }
        let tensor = param.transform_for_save().val();
        let stored = match tensor.dtype() {
            DType::F64 => Dtype::F64,
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::Bf16,
            other => return self.refuse(&format!("{other:?}")),
        };
        let path = self.stack.path();
        let FileKey { key, rows } = self.map.file_key(&path);
        let part = Part {
            path,
            rows,
            shape: tensor.dims().to_vec(),
            stored,
            packed: None,
            read: Box::new(move || tensor.clone().try_into_data().map_err(Into::into)),
        };
        self.found.push((key, part));
    }

    fn visit_int<const D: usize>(&mut self, _param: &Param<Tensor<D, burn::tensor::Int>>) {
        self.refuse("integer");
    }

    fn visit_bool<const D: usize>(&mut self, _param: &Param<Tensor<D, burn::tensor::Bool>>) {
        self.refuse("boolean");
    }
}
