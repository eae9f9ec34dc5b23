//! Intermediate values, kept on request.
//!
//! Parity with another implementation is proved step by step, on the same forward path that
//! answers questions. A network records its steps here under names; unless somebody asked, that
//! costs nothing.

use std::collections::BTreeMap;
use std::fmt;

use burn::prelude::*;
use burn::tensor::TensorData;

/// Named intermediate tensors of one forward pass, or nothing at all.
///
/// Names are those under which the original libraries publish the same tensors (`hidden_3`,
/// `block_0`, `stage_1`); a network that two libraries name differently records both.
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

    /// Records a tensor; it and its name are made only if they are kept.
    pub fn record<const D: usize>(
        &mut self,
        name: fmt::Arguments<'_>,
        tensor: impl FnOnce() -> Tensor<D>,
    ) {
        if let Some(kept) = &mut self.kept {
            kept.insert(name.to_string(), tensor().into_data());
        }
    }

    /// What was kept.
    #[must_use]
    pub fn into_tensors(self) -> BTreeMap<String, TensorData> {
        self.kept.unwrap_or_default()
    }
}
