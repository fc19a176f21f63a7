//! What both kernels over time are given, and the small functions that both compute.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::layout::{Layout, Sizes};
use super::variant::Variant;

/// The arguments that the two kernels share. Numbers are stored as `F`, and are f32 wherever they are computed
/// with or added up.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Call<F: Float> {
    /// `[B, T, 4H]`: the projected inputs, which forward turns into the gates after their activations, and
    /// backward into the gradients of the pre-activations.
    pub record: Box<[F]>,
    /// Parameters and the states at the ends, as [`Packed`](super::layout::Packed) has them.
    pub packed: Box<[F]>,
    /// See [`KeptAt`](super::layout::KeptAt).
    pub kept: Box<[F]>,
    /// See [`NotesAt`](super::layout::NotesAt).
    pub notes: Box<[u32]>,
    pub sizes: Sizes,
    /// Factor on the summary on its way into the hidden state.
    pub summary_scale: f32,
    pub at: Layout,
    #[cube(comptime)]
    pub v: Variant,
}

/// By way of tanh, which does not overflow.
#[cube]
pub(super) fn sigmoid(x: f32) -> f32 {
    0.5f32 * (0.5f32 * x).tanh() + 0.5f32
}

/// The row of the batch that row `r` of this cube stands for. A cube that the batch does not fill repeats
/// the last row, and writes nothing for it.
#[cube]
pub(super) fn batch_row(r: usize, sizes: &Sizes, #[comptime] v: Variant) -> usize {
    min(CUBE_POS * comptime!(v.rows) + r, sizes.batch - 1)
}

/// Whether row `r` of this cube is one of the batch.
#[cube]
pub(super) fn is_row(r: usize, sizes: &Sizes, #[comptime] v: Variant) -> bool {
    CUBE_POS * comptime!(v.rows) + r < sizes.batch
}
