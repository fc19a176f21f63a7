//! What the backward pass of a tile reads and adds to.

use std::ops::Range;

use super::UpGrads;
use super::call::Call;
use super::float::Float;
use super::saved::Saved;
use super::score_backward::Transposed;
use crate::op::score::Score;

/// Which gradients a call needs, as far as the kernel tells them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Of the input sequence.
    pub x: bool,
    /// Columns of `[1 | x_t | h_{t-1}]` whose weights need a gradient: bias, w_ih, w_hh and what lies between.
    pub columns: Range<usize>,
    /// Of the initial states.
    pub h0: bool,
    pub c0: bool,
    /// Of the carried slots.
    pub slots: bool,
}

/// What all tiles read.
pub struct Shared<'a, T: Float> {
    pub call: &'a Call<'a, T>,
    pub saved: &'a Saved<T>,
    pub past: &'a [T],
    pub up: &'a UpGrads<'a, T>,
    pub wanted: Wanted,
    /// Most reminders on a path; None where no path can reach the limit.
    pub hops: Option<usize>,
    /// Gradients that are kept side by side, one for each number of reminders used so far.
    pub lanes: usize,
    /// Transposed, `[4 H, H]`.
    pub w_hh: Vec<T>,
    /// Transposed, `[4 H, I]`; empty if not needed.
    pub w_ih: Vec<T>,
    pub score: Transposed<T>,
    /// Which parameters of the score need a gradient.
    pub score_needs: Score<bool>,
}

/// Gradients of the parameters; empty where they need none.
pub struct Parameters<T> {
    /// Of the rows [`Wanted::columns`] of `[bias; W_ih; W_hh]`.
    pub stacked: Vec<T>,
    pub score: Score<Vec<T>>,
}

/// Rows of the batch, and their share of the gradients; those are empty where not wanted.
pub struct Tile<'a, T> {
    pub first: usize,
    pub rows: usize,
    pub x: &'a mut [T],
    pub h0: &'a mut [T],
    pub c0: &'a mut [T],
    pub slots: &'a mut [T],
}

