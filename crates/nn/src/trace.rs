//! Intermediate values, kept on request.
//!
//! Parity with another implementation is proved step by step, on the same forward path that
//! answers questions. A network records its steps here under names; unless somebody asked, that
//! costs nothing.

use std::collections::BTreeMap;

use burn::prelude::*;
use burn::tensor::TensorData;

/// Named intermediate tensors of one forward pass, or nothing at all.
#[derive(Debug, Default)]
pub struct Trace {
    kept: Option<BTreeMap<String, TensorData>>,
}

impl Trace {
    /// Keeps nothing.
    #[must_use]
    pub fn off() -> Self {
        Self { kept: None }
    }

    /// Keeps every value that is recorded.
    #[must_use]
    pub fn on() -> Self {
        Self {
            kept: Some(BTreeMap::new()),
        }
    }

    /// Whether values are kept.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.kept.is_some()
    }

    /// Records a float tensor; the name is only made if it is kept.
    pub fn record<const D: usize>(&mut self, name: impl FnOnce() -> String, x: &Tensor<D>) {
        if let Some(kept) = &mut self.kept {
            kept.insert(name(), x.to_data());
        }
    }

    /// Records data that is no float tensor (ids, masks).
    pub fn record_data(
        &mut self,
        name: impl FnOnce() -> String,
        data: impl FnOnce() -> TensorData,
    ) {
        if let Some(kept) = &mut self.kept {
            kept.insert(name(), data());
        }
    }

    /// What was kept.
    #[must_use]
    pub fn into_tensors(self) -> BTreeMap<String, TensorData> {
        self.kept.unwrap_or_default()
    }
}
