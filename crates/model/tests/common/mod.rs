//! What several tests look at.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;

/// Shape and bits of every parameter, by path.
pub fn values<M: Module>(module: &M) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    #[derive(Default)]
    struct Values {
        path: Vec<String>,
        found: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
    }
    impl ModuleVisitor for Values {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let data = param.val().into_data();
            let found = (data.shape().to_vec(), data.as_bytes().to_vec());
            self.found.insert(self.path.join("."), found);
        }
    }
    let mut values = Values::default();
    module.visit(&mut values);
    values.found
}
