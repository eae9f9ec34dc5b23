//! Values of plain CPU tensors as slices.
//!
//! An update touches every parameter once and computes little, so on a CPU it is one pass over
//! slices on all cores instead of a dozen tensor operations on one.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::prelude::*;
use burn::tensor::{DType, TensorData};

/// Values that a task works on at a time: large enough to hide the cost of a task, and fixed, so
/// that sums do not depend on the number of threads.
pub(crate) const CHUNK: usize = 1 << 14;

/// Whether the values lie in this process's memory as `f32`.
pub(crate) fn is_plain<const D: usize>(x: &Tensor<D>) -> bool {
    let device = x.device();
    x.dtype() == DType::F32 && device == Device::flex() && !device.is_autodiff()
}

/// The backend's own tensor.
///
/// # Panics
/// If it is another backend's: callers ask [`is_plain`] first.
fn primitive<const D: usize>(x: Tensor<D>) -> FlexTensor {
    match x.try_into_primitive::<Flex>() {
        Ok(tensor) => tensor,
        Err(error) => panic!("expected a CPU tensor: {error:?}"),
    }
}

/// Runs `f` over the values in row-major order.
pub(crate) fn read<const D: usize, R>(x: Tensor<D>, f: impl FnOnce(&[f32]) -> R) -> R {
    let tensor = primitive(x);
    match tensor.as_slice::<f32>() {
        Some(values) => f(values),
        None => f(tensor.to_contiguous().storage::<f32>()),
    }
}

/// Values that can be overwritten: the tensor's own where nobody else holds them, else a copy.
pub(crate) struct Writable(FlexTensor);

impl Writable {
    /// Takes a tensor over.
    pub(crate) fn new(x: Tensor<1>) -> Self {
        let [count] = x.dims();
        let tensor = primitive(x);
        let whole = tensor.layout().contiguous_offsets() == Some((0, count))
            && tensor.bytes().len() == count * size_of::<f32>();
        if whole {
            return Self(tensor);
        }
        let values = match tensor.as_slice::<f32>() {
            Some(values) => values.to_vec(),
            None => tensor.to_contiguous().storage::<f32>()[..count].to_vec(),
        };
        Self(FlexTensor::from_data(TensorData::new(values, [count])))
    }

    /// The values; the first call copies them if somebody else holds them too.
    pub(crate) fn values(&mut self) -> &mut [f32] {
        self.0.storage_mut::<f32>()
    }

    /// The tensor again.
    pub(crate) fn into_tensor(self) -> Tensor<1> {
        Tensor::from_primitive::<Flex>(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(x: Tensor<1>) -> Vec<f32> {
        x.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn values_that_others_hold_stay() {
        let x = Tensor::<1>::from_floats([1.0, 2.0, 3.0], &Device::flex());
        let mut own = Writable::new(x.clone());
        own.values()[0] = 9.0;
        assert_eq!(values(own.into_tensor()), [9.0, 2.0, 3.0]);
        assert_eq!(values(x), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn a_part_of_a_buffer_is_written_alone() {
        let x = Tensor::<1>::from_floats([1.0, 2.0, 3.0], &Device::flex());
        let mut part = Writable::new(x.clone().narrow(0, 1, 2));
        assert_eq!(part.values(), [2.0, 3.0]);
        part.values()[1] = 0.0;
        assert_eq!(values(x), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn transposed_values_are_read_in_order() {
        let x = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0]], &Device::flex());
        read(x.transpose(), |values| {
            assert_eq!(values, [1.0, 3.0, 2.0, 4.0]);
        });
    }
}
