//! Matrix products over slices. Multi-row products use the `gemm` crate; every view is checked against
//! its slice.

use super::float::Float;
use super::vector::add_scaled;

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
    /// A `[rows, cols]` view in row-major order.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A `[rows, cols]` view whose row `r` begins at `r * row_stride`.
    pub fn strided(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        check(data.len(), rows, cols, row_stride);
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transposed view of the same memory.
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
    /// A `[rows, cols]` view in row-major order.
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A `[rows, cols]` view whose row `r` begins at `r * row_stride`.
    pub fn strided(data: &'a mut [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        check(data.len(), rows, cols, row_stride);
        Self { data, rows, cols, row_stride }
    }
}

fn check(len: usize, rows: usize, cols: usize, row_stride: usize) {
    // Checked: `multiply_blocks` relies on this, and a sum that wraps would pass.
    let last_row = rows.saturating_sub(1).checked_mul(row_stride);
    let end = last_row.and_then(|start| start.checked_add(cols));
    assert!(
        rows == 0 || cols == 0 || (cols <= row_stride && end.is_some_and(|end| end <= len)),
        "a [{rows}, {cols}] matrix with rows {row_stride} apart does not fit in {len} elements"
    );
}

/// How a product treats the previous values of its target.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The product overwrites them, unread.
    Replace,
    /// The product is added to them.
    Add,
}

/// Rows of the matrix that a one-row product processes at a time. Processors can prefetch this many
/// streams, and the sums need a quarter of the loads and stores.
const STREAMS: usize = 4;

/// Computes `out = scale * a b` or `out += scale * a b` on the calling thread.
///
/// A product of one row and a row-major matrix reads that matrix once, at the speed of the cache that
/// holds it. Such a product is therefore inlined into the tile's code. A million steps then take 8.6 s,
/// against 10.0 s with `gemm` (measured with B 1, H 128, I 8, A 64).
#[inline(always)]
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
    if out.rows == 1 && a.col_stride == 1 && b.col_stride == 1 {
        let (out, a) = (&mut out.data[..out.cols], &a.data[..a.cols]);
        multiply_row(out, a, b.data, b.row_stride, scale, target);
    } else {
        multiply_blocks(out, a, b, scale, target);
    }
}

/// [`multiply`] for one row. The rows of `b` are `stride` elements apart.
#[inline(always)]
fn multiply_row<T: Float>(
    out: &mut [T],
    a: &[T],
    b: &[T],
    stride: usize,
    scale: T,
    target: Target,
) {
    if target == Target::Replace {
        out.fill(T::ZERO);
    }
    let n = out.len();
    let (most, rest) = a.as_chunks::<STREAMS>();
    for (a, rows) in most.iter().zip(b.chunks(STREAMS * stride)) {
        let a = a.map(|a| scale * a);
        let [b0, b1, b2, b3] = std::array::from_fn(|k| &rows[k * stride..][..n]);
        for ((((out, b0), b1), b2), b3) in out.iter_mut().zip(b0).zip(b1).zip(b2).zip(b3) {
            *out += (a[0] * *b0 + a[1] * *b1) + (a[2] * *b2 + a[3] * *b3);
        }
    }
    for (a, row) in rest.iter().zip(b.chunks(stride).skip(most.len() * STREAMS)) {
        add_scaled(out, scale * *a, &row[..n]);
    }
}

/// [`multiply`] with the `gemm` crate.
fn multiply_blocks<T: Float>(
    out: MatrixMut<'_, T>,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    scale: T,
    target: Target,
) {
    let stride = |stride: usize| isize::try_from(stride).expect("strides of slices fit in isize");
    // SAFETY: `check` verified the three views against their slices when they were constructed, and a
    // transposed view spans the same elements. A view of no rows or no columns is never read or written.
    // `multiply` asserts that their shapes agree. `out` borrows its slice mutably, so it overlaps neither
    // `a` nor `b`, and its rows do not overlap, because they are at least `cols` apart. `Float` is f32 or
    // f64, which `gemm` supports.
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

/// Returns the transpose of the row-major `[rows, cols]` matrix `data`.
///
/// The product is several times faster if its right factor is row-major. One copy serves every step, so
/// its cost is negligible.
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
        // a is [2, 3] with rows 4 elements apart; b is [3, 2], given transposed.
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
    fn one_row_is_what_blocks_give() {
        for (inner, cols, stride) in [(1, 1, 1), (3, 64, 64), (5, 63, 70), (4, 193, 200)] {
            let elements = |n: usize| (0..n).map(|i| (i % 7) as f64 - 2.5).collect::<Vec<_>>();
            let (a, b) = (elements(inner), elements((inner - 1) * stride + cols));
            let (a, b) = (Matrix::new(&a, 1, inner), Matrix::strided(&b, inner, cols, stride));
            for target in [Target::Replace, Target::Add] {
                let (mut row, mut blocks) = (elements(cols), elements(cols));
                multiply(MatrixMut::new(&mut row, 1, cols), a, b, 0.5, target);
                multiply_blocks(MatrixMut::new(&mut blocks, 1, cols), a, b, 0.5, target);
                assert_eq!(row, blocks);
            }
        }
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_view_past_the_slice_panics() {
        Matrix::new(&[0.0f32; 5], 2, 3);
    }
}
