//! Weight gradients as large matrix products: pairs of rows are collected and then multiplied together.

use std::ops::Range;

use super::float::Float;
use super::matrix::{Matrix, MatrixMut, Target, multiply};
use super::vector::scratch;

/// Minimum number of pairs for a product. The rate hardly changes from 64 pairs on: 107 GFLOP/s for 64,
/// 109 for 128, 108 for 256 (measured with H 128, f32). More pairs would evict the weights from the
/// second-level cache.
const ENOUGH: usize = 128;

/// Pairs of rows: an input of a layer, and the gradient of the corresponding output. The sum of their
/// outer products is a weight gradient. Many pairs are multiplied at a time.
pub struct RowPairs<T> {
    left: Vec<T>,
    right: Vec<T>,
    left_width: usize,
    right_width: usize,
    len: usize,
}

impl<T: Float> RowPairs<T> {
    /// Creates a collection for rows of these widths. At most `batch` pairs may be added between two
    /// evaluations of [`Self::is_full`].
    pub fn new(left_width: usize, right_width: usize, batch: usize) -> Self {
        let capacity = ENOUGH + batch;
        Self {
            left: scratch(capacity * left_width),
            right: scratch(capacity * right_width),
            left_width,
            right_width,
            len: 0,
        }
    }

    /// Adds a pair with undefined content and returns its two rows.
    #[inline(always)]
    pub fn push(&mut self) -> (&mut [T], &mut [T]) {
        let at = self.len;
        self.len += 1;
        (
            &mut self.left[at * self.left_width..(at + 1) * self.left_width],
            &mut self.right[at * self.right_width..(at + 1) * self.right_width],
        )
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The left rows of the pairs from `first` on.
    pub fn left_from(&self, first: usize) -> &[T] {
        &self.left[first * self.left_width..self.len * self.left_width]
    }

    /// The right rows of the pairs from `first` on.
    pub fn right_from(&self, first: usize) -> &[T] {
        &self.right[first * self.right_width..self.len * self.right_width]
    }

    /// Whether there are enough pairs for a product.
    pub fn is_full(&self) -> bool {
        self.len >= ENOUGH
    }

    /// Removes all pairs.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// `out += scale * leftᵀ right`; `out` is `[left width, right width]`.
    pub fn add_to(&self, out: &mut [T], scale: T) {
        self.add_columns_to(0..self.left_width, out, scale);
    }

    /// The same for a range of columns of the left rows; `out` is `[columns, right width]`.
    pub fn add_columns_to(&self, columns: Range<usize>, out: &mut [T], scale: T) {
        let left = &self.left[columns.start..];
        let left = Matrix::strided(left, self.len, columns.len(), self.left_width).transposed();
        let right = Matrix::new(&self.right, self.len, self.right_width);
        multiply(
            MatrixMut::new(out, columns.len(), self.right_width),
            left,
            right,
            scale,
            Target::Add,
        );
    }
}
