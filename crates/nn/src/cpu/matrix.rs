//! Matrix products of strided f32 views, the one place that calls `gemm` for them.

use gemm::Parallelism;

/// A matrix somewhere in a slice.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_step: usize,
    pub(crate) col_step: usize,
}

impl<'a> Matrix<'a> {
    /// `[rows, cols]`, row after row.
    pub(crate) fn dense(values: &'a [f32], rows: usize, cols: usize) -> Self {
        Self {
            values,
            rows,
            cols,
            row_step: cols,
            col_step: 1,
        }
    }

    /// `[rows, cols]`, rows `step` apart.
    pub(super) fn strided(values: &'a [f32], rows: usize, cols: usize, step: usize) -> Self {
        Self {
            values,
            rows,
            cols,
            row_step: step,
            col_step: 1,
        }
    }

    /// The transposed matrix, where it lies.
    pub(crate) fn transposed(self) -> Self {
        Self {
            values: self.values,
            rows: self.cols,
            cols: self.rows,
            row_step: self.col_step,
            col_step: self.row_step,
        }
    }

    fn is_empty(&self) -> bool {
        self.rows == 0 || self.cols == 0
    }

    /// # Panics
    /// If the last value lies outside the slice.
    fn check(&self) {
        if !self.is_empty() {
            let last = (self.rows - 1) * self.row_step + (self.cols - 1) * self.col_step;
            assert!(last < self.values.len(), "a matrix outside its tensor");
        }
    }
}

/// Where a product goes.
#[derive(Clone, Copy)]
pub(super) struct Target {
    /// The first value.
    pub(super) first: *mut f32,
    /// Distance of two rows.
    pub(super) step: usize,
    /// Whether the product is added to what is there.
    pub(super) add: bool,
}

/// `target = left · right`, or `target += left · right`.
///
/// # Panics
/// If a matrix lies outside its slice, or the matrices do not fit each other.
///
/// # Safety
/// `target` is valid for writes of `left.rows` rows of `right.cols` values, which nobody else uses
/// meanwhile; with `add` they hold values.
pub(super) unsafe fn multiply(
    left: &Matrix<'_>,
    right: &Matrix<'_>,
    target: Target,
    parallelism: Parallelism,
) {
    left.check();
    right.check();
    assert_eq!(left.cols, right.rows, "matrices that do not fit");
    // SAFETY: both inputs were checked to lie inside their slices, the caller vouches for `target`.
    unsafe {
        gemm::gemm(
            left.rows,
            right.cols,
            left.cols,
            target.first,
            1,
            target.step as isize,
            target.add,
            left.values.as_ptr(),
            left.col_step as isize,
            left.row_step as isize,
            right.values.as_ptr(),
            right.col_step as isize,
            right.row_step as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// The threads of the current pool; none besides this one where the pool has one.
pub(super) fn threads() -> Parallelism {
    if rayon::current_num_threads() == 1 {
        Parallelism::None
    } else {
        Parallelism::Rayon(0)
    }
}

/// `left · right` as `[left.rows, right.cols]`, on the threads of the current pool.
///
/// # Panics
/// If a matrix lies outside its slice, or the matrices do not fit each other.
pub(crate) fn product(left: &Matrix<'_>, right: &Matrix<'_>) -> Vec<f32> {
    let count = left.rows * right.cols;
    if count == 0 || left.cols == 0 {
        return vec![0.0; count];
    }
    let mut out = Vec::with_capacity(count);
    let target = Target {
        first: out.as_mut_ptr(),
        step: right.cols,
        add: false,
    };
    // SAFETY: `out` has room for `count` values, and every one of them is written.
    unsafe {
        multiply(left, right, target, threads());
        out.set_len(count);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposed_views_by_hand() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let a = Matrix::dense(&a, 2, 3);
        assert_eq!(product(&a, &a.transposed()), [14.0, 32.0, 32.0, 77.0]);
        let b = [1.0, 0.0, 0.0, 1.0];
        assert_eq!(
            product(&a.transposed(), &Matrix::dense(&b, 2, 2)),
            [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]
        );
    }

    #[test]
    fn no_common_width_gives_zeros() {
        assert_eq!(
            product(&Matrix::dense(&[], 2, 0), &Matrix::dense(&[], 0, 1)),
            [0.0, 0.0]
        );
    }
}
