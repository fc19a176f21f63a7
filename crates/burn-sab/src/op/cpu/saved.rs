//! Saved activations: what the forward pass saves for the backward pass.

use super::float::Float;
use super::pool::Pooled;

/// The saved activations of a call.
#[derive(Debug)]
pub struct Saved<T: Float> {
    /// Ranked slots, best first, `[B, T, width]` with the width of [`Call`](super::call::Call).
    pub ranks: Vec<u32>,
    /// Their weights (0 for a rank that only supplies the threshold), `[B, T, width]`.
    pub weights: Vec<T>,
    /// What the weights were divided by, `[B, T]`.
    pub sums: Vec<T>,
    /// Keys of all slots, `[B, M, key width]`; empty if no step finds a slot.
    pub keys: Vec<T>,
    pub trace: Trace<T>,
}

/// Where backward finds gates and states.
#[derive(Debug)]
pub enum Trace<T: Float> {
    /// A record ([`Call::record`](super::call::Call::record)) per step; for each tile `[T, rows, record]`.
    Gates(Vec<Pooled<T>>),
    /// The state ([`Call::state`](super::call::Call::state)) just before each segment's first step
    /// ([`Schedule::segments`](super::schedule::Schedule::segments)), `[B, segments, state]`.
    States(Vec<T>),
}

