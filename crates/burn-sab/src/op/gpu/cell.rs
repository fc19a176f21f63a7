//! Small functions that both kernels compute.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::plan::Sizes;

/// By way of tanh, which does not overflow.
#[cube]
pub(super) fn sigmoid(x: f32) -> f32 {
    0.5f32 * (0.5f32 * x).tanh() + 0.5f32
}

/// The row of the batch that row `r` of this cube stands for. A cube that the batch does not fill repeats
/// the last row, and writes nothing for it.
#[cube]
pub(super) fn batch_row(r: usize, sizes: &Sizes, #[comptime] rows: usize) -> usize {
    min(CUBE_POS * rows + r, sizes.batch - 1)
}

/// Whether row `r` of this cube is one of the batch.
#[cube]
pub(super) fn is_row(r: usize, sizes: &Sizes, #[comptime] rows: usize) -> bool {
    CUBE_POS * rows + r < sizes.batch
}

/// Number `j` of slot `slot` of a row: a carried one, or the hidden state of the step that stored it.
#[cube]
pub(super) fn slot_value(
    row: usize,
    slot: usize,
    j: usize,
    carried: &[f32],
    carried_at: usize,
    hidden: &[f32],
    sizes: &Sizes,
    #[comptime] h: usize,
) -> f32 {
    if slot < sizes.carried {
        carried[carried_at + (row * sizes.carried + slot) * h + j]
    } else {
        let t = sizes.first_store + (slot - sizes.carried) * sizes.k_att;
        hidden[(row * sizes.time + t) * h + j]
    }
}
