//! The arguments of the forward and backward kernel, and the small functions that both use.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::layout::{Layout, Packed, Sizes};
use super::variant::Variant;

/// The arguments that the two kernels share. Elements are stored as `F`. All arithmetic and all sums are
/// in f32.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Call<F: Float> {
    /// `[B, T, 4H]`: the projected inputs. The forward kernel replaces them by the gates after their
    /// activations, and the backward kernel by the gradients of the pre-activations.
    pub record: Box<[F]>,
    /// Parameters, initial states and carried slots, with the offsets of
    /// [`Packed`](super::layout::Packed).
    pub packed: Box<[F]>,
    /// Saved activations; see [`SavedAt`](super::layout::SavedAt).
    pub saved: Box<[F]>,
    /// The word buffer; see [`NotesAt`](super::layout::NotesAt).
    pub notes: Box<[u32]>,
    /// One [table](super::schedule::table) of what rows do, or none if they are alike.
    pub schedule: Sequence<Box<[u32]>>,
    pub sizes: Sizes,
    /// Factor of the summary in the sum that gives the hidden state, unless factors are learned.
    pub summary_scale: f32,
    pub at: Layout,
    #[cube(comptime)]
    pub v: Variant,
}

/// The logistic function, computed from tanh, which does not overflow.
#[cube]
pub(super) fn sigmoid(x: f32) -> f32 {
    0.5f32 * (0.5f32 * x).tanh() + 0.5f32
}

/// The factor on element `j` of the summary.
#[cube]
pub(super) fn summary_gain<F: Float>(call: &Call<F>, j: usize) -> f32 {
    let v = comptime!(call.v);
    let gain_at = comptime!(Packed::of(&v).summary_gain);
    let mut gain = call.summary_scale;
    if comptime!(v.learned_gain) {
        gain = f32::cast_from(call.packed[gain_at + j]);
    }
    gain
}

/// The batch row of row `r` of this cube. A cube that has more rows than remain in the batch repeats the
/// last row, and writes nothing for it.
#[cube]
pub(super) fn batch_row(r: usize, sizes: &Sizes, #[comptime] v: Variant) -> usize {
    min(CUBE_POS * comptime!(v.rows) + r, sizes.batch - 1)
}

/// Whether row `r` of this cube is a row of the batch.
#[cube]
pub(super) fn is_row(r: usize, sizes: &Sizes, #[comptime] v: Variant) -> bool {
    CUBE_POS * comptime!(v.rows) + r < sizes.batch
}

/// Sets `out[from..to]` to zero.
#[cube]
pub(super) fn zero<N: Numeric>(out: &mut [N], from: usize, to: usize, #[comptime] v: Variant) {
    let mut i = from + UNIT_POS as usize;
    while i < to {
        out[i] = N::from_int(0);
        i += comptime!(v.units);
    }
}
