//! The state of the backward sweep: the gradients that it carries from step to step, and the paths they
//! take.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

/// The upstream gradients that exist, and the paths of gradient through slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Paths {
    pub hidden: bool,
    pub summary: bool,
    /// Gradients of h and c after the last step.
    pub last: bool,
    pub cell: bool,
    /// Whether the number of hops is limited. The gradients that a lane adds to slots then belong to the
    /// next lane.
    pub limited: bool,
    /// Whether there is more than one lane.
    pub lanes: bool,
}

/// The gradients that a step receives, `[rows, H]` each, in shared memory.
#[derive(CubeType)]
pub(super) struct Flow {
    pub h: Shared<[f32]>,
    pub c: Shared<[f32]>,
    /// Gradient of the summary; between the steps, the second partial sum of `h`.
    pub s: Shared<[f32]>,
    /// Gradients of the pre-activations, `[rows, 4H]`, unless they pass through global memory.
    pub gates: Shared<[f32]>,
    /// Whether any gradient reaches the current step. The flags alternate: one is in use, and the other
    /// is cleared for the next step.
    pub alive: Shared<[Atomic<u32>]>,
}

/// The offsets of the slot and key gradients that a lane reads, and of those that it adds to.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Lane {
    pub slots_in: usize,
    pub keys_in: usize,
    pub slots_out: usize,
    pub keys_out: usize,
    /// Whether it reads any.
    pub takes: bool,
    /// Whether it adds nothing to the slots of this call.
    pub last: bool,
}
