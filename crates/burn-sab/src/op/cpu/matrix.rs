//! Matrix products over slices: a checked front to the `gemm` crate.

use super::float::Float;

/// A view of a matrix inside a slice.
#[derive(Clone, Copy)]
pub struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// `[rows, cols]`, row after row.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// `[rows, cols]`; row `r` begins at `r * row_stride`.
    pub fn strided(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        check(data.len(), rows, cols, row_stride);
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transposed matrix, over the same memory.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// A writable view of a matrix inside a slice.
pub struct MatrixMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a, T> MatrixMut<'a, T> {
    /// `[rows, cols]`, row after row.
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// `[rows, cols]`; row `r` begins at `r * row_stride`.
    pub fn strided(data: &'a mut [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        check(data.len(), rows, cols, row_stride);
        Self { data, rows, cols, row_stride }
    }
}

fn check(len: usize, rows: usize, cols: usize, row_stride: usize) {
    assert!(
        rows == 0 || cols == 0 || (cols <= row_stride && (rows - 1) * row_stride + cols <= len),
        "a [{rows}, {cols}] matrix with rows {row_stride} apart does not fit in {len} elements"
    );
}

/// What happens to the old values of the product's target.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// They are overwritten, unread.
    Replace,
    /// The product is added to them.
    Add,
}

/// `out = scale * a b`, or `out += scale * a b`, on the calling thread.
pub fn multiply<T: Float>(
    out: MatrixMut<'_, T>,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    scale: T,
    target: Target,
) {
    assert_eq!(
        (a.rows, a.cols, b.cols),
        (out.rows, b.rows, out.cols),
        "shapes of a matrix product"
    );
    let stride = |stride: usize| isize::try_from(stride).expect("strides of slices fit in isize");
    // SAFETY: the three views were checked against their slices when they were made (`check`; a
    // transposed view spans the same elements), their shapes agree (asserted above), and `out`
    // borrows its slice mutably, so that it overlaps neither `a` nor `b`. `Float` is f32 or f64,
    // which the crate supports.
    unsafe {
        gemm::gemm(
            out.rows,
            out.cols,
            a.cols,
            out.data.as_mut_ptr(),
            1,
            stride(out.row_stride),
            target == Target::Add,
            a.data.as_ptr(),
            stride(a.col_stride),
            stride(a.row_stride),
            b.data.as_ptr(),
            stride(b.col_stride),
            stride(b.row_stride),
            T::ONE,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// A copy of the `[rows, cols]` matrix `data` with rows and columns exchanged.
///
/// The product is several times faster when its right factor lies row after row, and a copy that
/// serves every step costs next to nothing.
pub fn transpose<T: Float>(data: &[T], rows: usize, cols: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(rows * cols);
    for c in 0..cols {
        out.extend((0..rows).map(|r| data[r * cols + c]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_with_strides_and_targets() {
        // a [2, 3] with rows 4 apart, b [3, 2] given transposed.
        let a = [1.0, 2.0, 3.0, 99.0, 4.0, 5.0, 6.0];
        let b = [1.0, 0.0, 2.0, 0.0, 1.0, 3.0];
        let (a, b) = (Matrix::strided(&a, 2, 3, 4), Matrix::new(&b, 2, 3).transposed());
        let mut out = [f64::NAN, f64::NAN, 7.0, f64::NAN, f64::NAN];
        multiply(MatrixMut::strided(&mut out, 2, 2, 3), a, b, 0.5, Target::Replace);
        assert_eq!(out, [3.5, 5.5, 7.0, 8.0, 11.5]);
        multiply(MatrixMut::strided(&mut out, 2, 2, 3), a, b, 1.0, Target::Add);
        assert_eq!(out, [10.5, 16.5, 7.0, 24.0, 34.5]);
        assert_eq!(
            transpose(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3),
            [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]
        );
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_view_past_the_slice_panics() {
        Matrix::new(&[0.0f32; 5], 2, 3);
    }
}
