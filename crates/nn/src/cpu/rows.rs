//! Rows of a tensor, some at a time.

use burn::prelude::*;

use super::values::{from_values, read, tensor};

/// Applies `f`, `[m, d]` → `[m, d_out]`, to the rows of `x` in that many parts of nearly equal size;
/// with one part it is given all of them at once.
///
/// # Panics
/// If there are several parts and a tensor is not [plain](super::is_plain_f32): callers ask.
pub(crate) fn in_parts<const D: usize>(
    x: Tensor<D>,
    parts: usize,
    d_out: usize,
    f: impl Fn(Tensor<2>) -> Tensor<2>,
) -> Tensor<D> {
    let mut dims = x.dims();
    let (rows, d) = (dims[..D - 1].iter().product::<usize>(), dims[D - 1]);
    dims[D - 1] = d_out;
    let x = x.reshape([rows, d]);
    if parts <= 1 {
        return f(x).reshape(dims);
    }
    let mut y = Vec::with_capacity(rows * d_out);
    for part in 0..parts {
        let range = rows * part / parts..rows * (part + 1) / parts;
        let x = x.clone().slice([range, 0..d]);
        read(f(x), |values| y.extend_from_slice(values));
    }
    tensor(from_values(y, dims))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_once_and_in_order() {
        let values: Vec<f32> = (0..14).map(|v| v as f32).collect();
        let x = Tensor::<1>::from_floats(values.as_slice(), &Device::flex()).reshape([7, 1, 2]);
        for parts in 0..5 {
            let sizes = std::cell::RefCell::new(Vec::new());
            let y = in_parts(x.clone(), parts, 1, |x| {
                sizes.borrow_mut().push(x.dims()[0]);
                x.sum_dim(1)
            });
            assert_eq!(y.dims(), [7, 1, 1]);
            let y = y.into_data().try_to_vec::<f32>().expect("f32");
            assert_eq!(y, [1.0, 5.0, 9.0, 13.0, 17.0, 21.0, 25.0]);
            let sizes = sizes.into_inner();
            assert_eq!(sizes.len(), parts.max(1));
            assert!(sizes.iter().max().unwrap_or(&0) - sizes.iter().min().unwrap_or(&0) <= 1);
        }
    }
}
