//! Gradients on their way through the sweep, and the paths that they take.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

/// What of the upstream gradients there is, and how gradients travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Paths {
    pub hidden: bool,
    pub summary: bool,
    /// Of h and c after the last step.
    pub last: bool,
    pub cell: bool,
    /// Whether the number of hops is limited; then what a lane adds to slots goes to the next lane.
    pub limited: bool,
    /// Whether there is more than one lane.
    pub lanes: bool,
}

/// Gradients on their way through a step, `[rows, H]` each, in shared memory.
#[derive(CubeType)]
pub(super) struct Flow {
    pub h: Shared<[f32]>,
    pub c: Shared<[f32]>,
    /// Of the summary; between the steps, the second half of `h`.
    pub s: Shared<[f32]>,
    /// Of the pre-activations, `[rows, 4H]`, unless they pass through global memory.
    pub gates: Shared<[f32]>,
    /// Whether any gradient reaches the present step; the other of the two is cleared for the next.
    pub alive: Shared<[Atomic<u32>]>,
}

/// The present step.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Step {
    pub t: usize,
    /// Slots that it could retrieve; the slot that it stored, if it did, has this number.
    pub m: usize,
    /// Slots that decided the weights.
    pub n: usize,
    /// Whether the weights are the scores.
    pub raw: bool,
    pub stores: bool,
    pub starts_window: bool,
    pub lane: usize,
}

/// Where a lane takes the gradients of slots and keys from, and where it adds them.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Lane {
    pub slots_in: usize,
    pub keys_in: usize,
    pub slots_out: usize,
    pub keys_out: usize,
    /// Whether it takes any.
    pub takes: bool,
    /// Whether slots of this call get nothing from it.
    pub last: bool,
}
