//! The data that the backward pass of a tile reads, and the gradients that it adds to.

use std::ops::Range;

use super::UpGrads;
use super::call::Call;
use super::float::Float;
use super::saved::Saved;
use super::score_backward::Transposed;
use crate::op::score::Score;

/// The gradients that a call needs, at the granularity of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The input sequence.
    pub x: bool,
    /// Columns of `[1 | x_t | h_{t-1}]` whose weights need a gradient: the smallest range that contains
    /// those of bias, w_ih and w_hh.
    pub columns: Range<usize>,
    /// The initial states.
    pub h0: bool,
    pub c0: bool,
    /// The carried slots.
    pub slots: bool,
    /// The factors on the summary.
    pub summary_gain: bool,
}

/// The data that all tiles read.
pub struct Shared<'a, T: Float> {
    pub call: &'a Call<'a, T>,
    pub saved: &'a Saved<T>,
    pub past: &'a [T],
    pub up: &'a UpGrads<'a, T>,
    pub wanted: Wanted,
    /// Maximum number of reminders on a path; `None` if no path can exceed the limit.
    pub hops: Option<usize>,
    /// Number of parallel gradients, one for each number of reminders used so far.
    pub lanes: usize,
    /// The transposed weights, `[4 H, H]`.
    pub w_hh: Vec<T>,
    /// The transposed weights, `[4 H, I]`; empty if not needed.
    pub w_ih: Vec<T>,
    pub score: Transposed<T>,
    /// The parameters of the score that need a gradient.
    pub score_needs: Score<bool>,
}

/// The gradients of the parameters; a gradient is empty if its parameter needs none.
pub struct Parameters<T> {
    /// The rows [`Wanted::columns`] of the gradient of `[bias; W_ih; W_hh]`.
    pub stacked: Vec<T>,
    /// `[H]`
    pub summary_gain: Vec<T>,
    pub score: Score<Vec<T>>,
}

/// Rows of the batch and their share of the gradients. A gradient is empty if it is not needed.
pub struct Tile<'a, T> {
    pub first: usize,
    pub rows: usize,
    pub x: &'a mut [T],
    pub h0: &'a mut [T],
    pub c0: &'a mut [T],
    pub slots: &'a mut [T],
}
