//! The model that is judged: one that was loaded here, or one that somebody serves.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use opabinia_endpoint::Endpoint;
use opabinia_model::Model;
use opabinia_nn::packed;
use sha2::{Digest, Sha256};

use crate::digest;

/// A model, what to call it, and what it is known by.
///
/// It is known by the digest of its parameters as they are in memory, its configuration and its template,
/// not by the path it came from: training writes other weights to the same path, and answers of an earlier
/// model must not be taken for those of a later one. Of a served model only address and name are
/// known; whoever serves another model under the same name wants another folder.
pub struct Candidate<'a> {
    /// The model.
    pub who: Who<'a>,
    /// What tables call it.
    pub name: String,
    /// Digest of parameters, configuration and template, or of address and name.
    pub sha256: String,
    /// What it consists of, by name: weights, template, preprocessing.
    pub stamps: BTreeMap<String, String>,
}

/// Who is asked.
#[derive(Clone, Copy)]
pub enum Who<'a> {
    /// A model that was loaded here.
    Local(&'a Model),
    /// A model that somebody serves.
    Served(&'a Endpoint),
}

impl<'a> Candidate<'a> {
    /// Takes a model, and reads all of its parameters.
    #[must_use]
    pub fn new(model: &'a Model, name: impl Into<String>) -> Self {
        let template = digest::of(format!("{:?}", model.template));
        let short = template.get(..12).unwrap_or(&template);
        let encoders = model.network.encoders.iter();
        let preprocessing: Vec<String> = encoders
            .map(|encoder| format!("{:?}", encoder.preprocessor()))
            .collect();
        let weights = fingerprint(model);
        let sha256 = digest::of(format!("{weights} {template}"));
        let stamps = [
            ("weights", weights),
            ("template", format!("{} ({short})", model.template.name)),
            ("preprocessing", digest::of(preprocessing.join("\n"))),
        ];
        Self {
            who: Who::Local(model),
            name: name.into(),
            sha256,
            stamps: stamps.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }

    /// Takes a served model; nothing is sent.
    #[must_use]
    pub fn served(endpoint: &'a Endpoint, name: impl Into<String>) -> Self {
        let who = format!("{} at {}", endpoint.model(), endpoint.url());
        let unknown = || format!("of {who}");
        let stamps = [
            ("weights", unknown()),
            ("template", unknown()),
            ("preprocessing", unknown()),
        ];
        Self {
            who: Who::Served(endpoint),
            name: name.into(),
            sha256: digest::of(format!("served: {who}")),
            stamps: stamps.map(|(name, value)| (name.to_owned(), value)).into(),
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
            let shape = param.lazy_shape();
            match packed::packed(param.id) {
                Some(weight) => {
                    self.0
                        .update(format!("{shape:?}{}", weight.format().name()));
                    self.0.update(weight.as_bytes());
                }
                None => {
                    let data = param.val().into_data();
                    self.0
                        .update(format!("{:?}{:?}", data.shape(), data.dtype()));
                    self.0.update(data.as_bytes());
                }
            }
        }
    }
    let mut hash = Hash(Sha256::new());
    hash.0.update(format!("{:?}", model.config));
    model.network.visit(&mut hash);
    digest::hex(hash.0.finalize())
}
