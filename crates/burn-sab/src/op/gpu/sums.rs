//! The accumulators of the backward kernel, in f32: set to zero before the sweep, and converted to the
//! data type of the tensors after it.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::call::{Call, zero};
use super::flow::Paths;
use super::layout::Sizes;
use super::variant::Variant;
use crate::op::score::ScoreKind;

/// Sets the accumulators of this cube's rows to zero.
#[cube]
pub(super) fn clear<F: Float>(call: &Call<F>, work: &mut [f32], #[comptime] paths: Paths) {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let sizes = &call.sizes;
    let at = &call.at.work;
    let slots = sizes.slots * h_size;
    let keys = sizes.slots * comptime!(v.attention);
    clear_each(call, work, 0usize.runtime(), slots);
    clear_each(call, work, at.keys, keys);
    clear_each(call, work, at.h0, h_size.runtime());
    clear_each(call, work, at.c0, h_size.runtime());
    clear_each(call, work, at.carried, sizes.carried * h_size);
    clear_each(call, work, at.vectors, comptime!(v.vectors()).runtime());
    if comptime!(paths.lanes) {
        clear_each(call, work, sizes.batch * slots, slots);
        clear_each(call, work, at.lane_keys, keys);
        clear_each(call, work, at.lane_keys + sizes.batch * keys, keys);
        clear_each(call, work, at.gates, sizes.time * comptime!(4 * v.hidden));
        if comptime!(v.score != ScoreKind::Additive) {
            clear_each(call, work, at.queries, sizes.time * comptime!(v.attention));
        }
    }
}

/// Sets one region's accumulators of this cube's rows to zero: `each` elements per row.
#[cube]
fn clear_each<F: Float>(call: &Call<F>, work: &mut [f32], at: usize, each: usize) {
    let first = CUBE_POS * comptime!(call.v.rows);
    let end = min(first + comptime!(call.v.rows), call.sizes.batch);
    zero(work, at + first * each, at + end * each, call.v);
}

/// Converts the accumulators of this cube's rows to the data type of the tensors.
#[cube]
pub(super) fn settle<F: Float>(call: &mut Call<F>, work: &[f32], #[comptime] paths: Paths) {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let a_size = comptime!(v.attention);
    let slots = call.sizes.slots;
    let carried = call.sizes.carried;
    let time = call.sizes.time;
    let at = &call.at.work;
    let to = &call.at.saved;
    let saved = &mut call.saved;
    let sizes = &call.sizes;
    if comptime!(v.score != ScoreKind::Additive) {
        round(work, at.keys, saved, to.grad_keys, slots * a_size, sizes, v);
    }
    round(work, at.h0, saved, to.grad_h0, h_size.runtime(), sizes, v);
    round(work, at.c0, saved, to.grad_c0, h_size.runtime(), sizes, v);
    round(work, at.carried, saved, to.grad_carried, carried * h_size, sizes, v);
    round(work, at.vectors, saved, to.grad_vectors, comptime!(v.vectors()).runtime(), sizes, v);
    if comptime!(paths.lanes) {
        if comptime!(v.score != ScoreKind::Additive) {
            round(work, at.queries, saved, to.queries, time * a_size, sizes, v);
        }
        let columns = comptime!(4 * v.hidden);
        round(work, at.gates, &mut call.record, 0usize.runtime(), time * columns, sizes, v);
    }
}

/// Rounds `each` elements per row, for this cube's rows.
#[cube]
fn round<F: Float>(
    work: &[f32],
    from: usize,
    out: &mut [F],
    to: usize,
    each: usize,
    sizes: &Sizes,
    #[comptime] v: Variant,
) {
    let first = CUBE_POS * comptime!(v.rows);
    let end = min(first + comptime!(v.rows), sizes.batch) * each;
    let mut i = first * each + UNIT_POS as usize;
    while i < end {
        out[to + i] = F::cast_from(work[from + i]);
        i += comptime!(v.units);
    }
}
