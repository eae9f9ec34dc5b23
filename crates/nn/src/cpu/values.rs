//! The values inside a plain tensor: reading them where they lie, changing them in place.

use burn::backend::Flex;
use burn::prelude::*;
use rayon::prelude::*;

/// The backend's own tensor, whatever its rank.
pub(crate) type Plain = burn::backend::flex::FlexTensor;

/// Elements one task takes.
pub(crate) const CHUNK: usize = 1 << 14;

/// Takes a tensor apart.
///
/// # Panics
/// If it is another backend's: callers ask [`is_plain_f32`](super::is_plain_f32) first.
pub(crate) fn plain<const D: usize>(x: Tensor<D>) -> Plain {
    match x.try_into_primitive::<Flex>() {
        Ok(tensor) => tensor,
        Err(error) => panic!("a CPU kernel was given another backend's tensor: {error:?}"),
    }
}

/// Puts a tensor together again.
pub(crate) fn tensor<const D: usize>(x: Plain) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(x)
}

/// The tensor if its values lie in row-major order without gaps, else a copy that does.
pub(crate) fn contiguous(x: Plain) -> Plain {
    if x.layout().contiguous_offsets().is_some() {
        x
    } else {
        x.to_contiguous()
    }
}

/// The values of a [contiguous] tensor.
///
/// # Panics
/// If it is not contiguous or holds another type: a wiring mistake.
pub(crate) fn slice_of<E: burn::tensor::Element + bytemuck::Pod>(tensor: &Plain) -> &[E] {
    tensor
        .as_slice::<E>()
        .expect("made contiguous, dtype checked")
}

/// The f32 values of a [contiguous] tensor.
///
/// # Panics
/// As [`slice_of`].
pub(crate) fn values(tensor: &Plain) -> &[f32] {
    slice_of(tensor)
}

/// A tensor that takes the vector over, without a copy.
pub(crate) fn from_values(values: Vec<f32>, shape: impl Into<Shape>) -> Plain {
    Plain::from_data(TensorData::new(values, shape))
}

/// Runs `f` over the values in row-major order.
pub(crate) fn read<const D: usize, R>(x: Tensor<D>, f: impl FnOnce(&[f32]) -> R) -> R {
    f(values(&contiguous(plain(x))))
}

/// Calls `f(task, chunk)` for every chunk of the values: in place where the tensor owns them alone,
/// on a copy where it does not.
///
/// # Panics
/// If `chunk` is 0.
pub(crate) fn edit(x: Plain, chunk: usize, f: impl Fn(usize, &mut [f32]) + Sync) -> Plain {
    let count = x.layout().num_elements();
    let mut x = contiguous(x);
    let whole = x.layout().contiguous_offsets() == Some((0, count))
        && x.bytes().len() == count * size_of::<f32>();
    if whole && let Some(values) = x.try_storage_mut::<f32>() {
        values
            .par_chunks_mut(chunk)
            .enumerate()
            .for_each(|(task, chunk)| f(task, chunk));
        return x;
    }
    let shape = x.layout().shape().clone();
    from_values(copy_edited(values(&x), chunk, f), shape)
}

/// The tensor itself if it owns its values alone and has no others, else a copy: its storage is
/// what it shows, in row-major order.
pub(crate) fn owned(x: Plain) -> Plain {
    edit(x, usize::MAX, |_, _| {})
}

/// A copy of `x`; `f(task, chunk)` changes each chunk while it is still in cache.
///
/// # Panics
/// If `chunk` is 0.
pub(crate) fn copy_edited(
    x: &[f32],
    chunk: usize,
    f: impl Fn(usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    out.spare_capacity_mut()[..x.len()]
        .par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk))
        .enumerate()
        .for_each(|(task, (out, x))| f(task, out.write_copy_of_slice(x)));
    // SAFETY: the chunks cover the first `x.len()` values, and each was written.
    unsafe { out.set_len(x.len()) };
    out
}

/// A pointer into an output that tasks share; each writes its own part.
pub(super) struct Shared(pub(super) *mut f32);
// SAFETY: users write disjoint parts of one allocation that outlives the tasks.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubled(x: Plain) -> Vec<f32> {
        let y = edit(x, 3, |_, chunk| chunk.iter_mut().for_each(|v| *v *= 2.0));
        values(&y).to_vec()
    }

    /// Alone, shared, sliced at the start, sliced elsewhere, and transposed.
    #[test]
    fn only_owned_values_are_changed_in_place() {
        let device = Device::flex();
        let x = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], &device);
        assert_eq!(doubled(plain(x.clone())), [2., 4., 6., 8., 10., 12.]);
        assert_eq!(
            doubled(plain(x.clone().slice([0..2, 0..2]))),
            [2., 4., 6., 8.]
        );
        assert_eq!(doubled(plain(x.clone().slice([1..3, 1..2]))), [8., 12.]);
        assert_eq!(
            doubled(plain(x.clone().transpose())),
            [2., 6., 10., 4., 8., 12.]
        );
        assert_eq!(
            x.clone().into_data().try_to_vec::<f32>().unwrap(),
            [1., 2., 3., 4., 5., 6.]
        );
        assert_eq!(doubled(plain(x)), [2., 4., 6., 8., 10., 12.]);
    }
}
