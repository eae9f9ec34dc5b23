//! The model that is judged.

use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use opabinia_model::Model;
use sha2::{Digest, Sha256};

use crate::digest;

/// A model, what to call it, and what it is known by.
///
/// It is known by the digest of its parameters as they are in memory and of its configuration, not by
/// the path it came from: training writes other weights to the same path, and answers of an earlier
/// model must not be taken for those of a later one.
pub struct Candidate<'a> {
    /// The model.
    pub model: &'a Model,
    /// What tables call it.
    pub name: String,
    /// Digest of parameters and configuration.
    pub sha256: String,
}

impl<'a> Candidate<'a> {
    /// Takes a model, and reads all of its parameters.
    #[must_use]
    pub fn new(model: &'a Model, name: impl Into<String>) -> Self {
        Self {
            model,
            name: name.into(),
            sha256: fingerprint(model),
        }
    }
}

/// Digest of a model's configuration and parameters.
fn fingerprint(model: &Model) -> String {
    struct Hash(Sha256);
    impl ModuleVisitor for Hash {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.update(name);
            self.0.update("/");
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let data = param.val().into_data();
            self.0
                .update(format!("{:?}{:?}", data.shape(), data.dtype()));
            self.0.update(data.as_bytes());
        }
    }
    let mut hash = Hash(Sha256::new());
    hash.0
        .update(format!("{:?}{:?}", model.config, model.template));
    model.network.visit(&mut hash);
    digest::hex(hash.0.finalize())
}
