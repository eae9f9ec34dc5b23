//! Listening to intermediate tensors, for comparison with the reference implementation.

use std::fmt;

use burn::prelude::*;
use burn::tensor::TensorData;

/// Receives named intermediate tensors of a forward pass, or nothing.
///
/// The names are those under which the original libraries publish the same tensors: `hidden_3`,
/// `block_0`, `stage_1`. An encoder that two libraries name differently reports both names.
#[derive(Default)]
pub struct Trace<'a> {
    sink: Option<&'a mut dyn FnMut(String, TensorData)>,
}

impl<'a> Trace<'a> {
    /// Listens to nothing: recording costs one comparison.
    #[must_use]
    pub fn off() -> Self {
        Self { sink: None }
    }

    /// Calls `sink` with the name and the values of each intermediate tensor.
    pub fn to(sink: &'a mut dyn FnMut(String, TensorData)) -> Self {
        Self { sink: Some(sink) }
    }

    /// Reports a tensor; it and its name are made only if somebody listens.
    pub(crate) fn record<const D: usize>(
        &mut self,
        name: fmt::Arguments<'_>,
        tensor: impl FnOnce() -> Tensor<D>,
    ) {
        if let Some(sink) = &mut self.sink {
            sink(name.to_string(), tensor().into_data());
        }
    }
}

impl fmt::Debug for Trace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("on", &self.sink.is_some())
            .finish()
    }
}
