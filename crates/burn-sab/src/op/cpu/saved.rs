//! The saved activations: the values that the forward pass saves for the backward pass.

use super::float::Float;
use super::pool::Pooled;

/// The saved activations of a call.
#[derive(Debug)]
pub struct Saved<T: Float> {
    /// Ranked slots, best first, `[B, T, width]`, with the width of [`Call`](super::call::Call).
    pub ranks: Vec<u32>,
    /// Their weights, `[B, T, width]`; 0 for a rank that only supplies the threshold.
    pub weights: Vec<T>,
    /// The divisors that normalised the weights, `[B, T]`.
    pub sums: Vec<T>,
    /// Keys of all slots, `[B, M, key width]`; empty if no step attends to a slot.
    pub keys: Vec<T>,
    pub trace: Trace<T>,
}

/// The source of gates and states in the backward pass.
#[derive(Debug)]
pub enum Trace<T: Float> {
    /// One record ([`Call::record`](super::call::Call::record)) per step; `[T, rows, record]` for each
    /// tile.
    Gates(Vec<Pooled<T>>),
    /// The state ([`Call::state`](super::call::Call::state)) before the first step of each segment
    /// ([`Schedule::segments`](super::schedule::Schedule::segments)), `[B, segments, state]`.
    States(Vec<T>),
}
