//! Products of row-major matrices. One thread each: what runs side by side is decided where the batch is cut, so that
//! the order of every sum, and with it the model, does not depend on the number of threads.

use ndarray::{ArrayView2, ArrayViewMut2, linalg::general_mat_mul};

/// `out = a b`, or `out += a b`.
pub(super) fn multiply(a: &ArrayView2<'_, f32>, b: &ArrayView2<'_, f32>, out: &mut [f32], keep: Keep) {
    let shape = (a.nrows(), b.ncols());
    let mut out = ArrayViewMut2::from_shape(shape, out).expect("room for the product");
    let beta = match keep {
        Keep::Nothing => 0.0,
        Keep::Sum => 1.0,
    };
    general_mat_mul(1.0, a, b, beta, &mut out);
}

/// What stays of the numbers that a product is written over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keep {
    /// The product replaces them.
    Nothing,
    /// It is added to them.
    Sum,
}

/// The rows of `columns` numbers each that lie in `values`.
pub(super) fn rows_of(values: &[f32], columns: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((values.len() / columns, columns), values).expect("whole rows")
}
