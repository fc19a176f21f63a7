//! The storage of slots and their keys in the forward kernel.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::attend::Retrieval;
use super::call::{Call, batch_row, is_row};
use super::layout::Packed;
use super::schedule::{Step, of_row};
use super::select::sum_of_row;
use crate::op::score::ScoreKind;

/// Stores the carried slots and their keys. `step` is the first step: where rows differ, slots that a row does not
/// see there are not the row's.
#[cube]
pub(super) fn carry<F: Float>(call: &mut Call<F>, step: &Step) {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let a_size = comptime!(v.attention);
    let rows = comptime!(v.rows);
    let key_at = comptime!(Packed::of(&v).key);
    let carried_at = comptime!(Packed::of(&v).states) + 2 * call.sizes.batch * h_size;
    let carried = call.sizes.carried;
    let slots = call.sizes.slots;

    let mut p = UNIT_POS as usize;
    while p < rows * carried * h_size {
        let r = p / (carried * h_size);
        let at = p % (carried * h_size);
        if is_row(r, &call.sizes, v) && carries(&*call, step, r, at / h_size) {
            let row = batch_row(r, &call.sizes, v);
            call.saved[row * slots * h_size + at] =
                call.packed[carried_at + row * carried * h_size + at];
        }
        p += comptime!(v.units);
    }
    let mut p = UNIT_POS as usize;
    while p < rows * carried * a_size {
        let r = p / (carried * a_size);
        let slot = (p / a_size) % carried;
        let a = p % a_size;
        let row = batch_row(r, &call.sizes, v);
        let mut key = 0.0f32;
        for j in 0..h_size {
            let value = carried_at + (row * carried + slot) * h_size + j;
            let value = f32::cast_from(call.packed[value]);
            let weight = f32::cast_from(call.packed[key_at + j * a_size + a]);
            if comptime!(v.score == ScoreKind::Additive) {
                key += weight * value.tanh();
            } else {
                key += weight * value;
            }
        }
        if is_row(r, &call.sizes, v) && carries(&*call, step, r, slot) {
            call.saved[call.at.saved.keys + (row * a_size + a) * slots + slot] = F::cast_from(key);
        }
        p += comptime!(v.units);
    }
}

/// Whether row `r` of this cube carries a slot into its first step.
#[cube]
fn carries<F: Float>(call: &Call<F>, step: &Step, r: usize, slot: usize) -> bool {
    if comptime!(call.v.ragged) {
        let row = of_row(call, step, r);
        slot >= row.first && slot < row.end
    } else {
        true.runtime()
    }
}

/// Stores the key of the slot that the step stores, which is the state `h`.
#[cube]
pub(super) fn add_key<F: Float>(
    call: &mut Call<F>,
    h: &Shared<[f32]>,
    retrieval: &mut Retrieval,
    step: &Step,
) {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let a_size = comptime!(v.attention);
    let key_at = comptime!(Packed::of(&v).key);
    if comptime!(v.score == ScoreKind::Additive) {
        let searchers = comptime!(v.searchers());
        let r = UNIT_POS as usize / searchers;
        let searcher = UNIT_POS as usize % searchers;
        let mut part = 0.0f32;
        let mut j = searcher;
        while j < h_size {
            part += f32::cast_from(call.packed[key_at + j]) * h[r * h_size + j].tanh();
            j += searchers;
        }
        let sum = sum_of_row(part, r, searcher, &mut retrieval.found, v);
        let here = of_row(&*call, step, r);
        if searcher == 0 && is_row(r, &call.sizes, v) && here.stores {
            let slot = batch_row(r, &call.sizes, v) * call.sizes.slots + here.end;
            let at = call.at.saved.keys + slot;
            call.saved[at] = F::cast_from(sum);
        }
    } else {
        let mut p = UNIT_POS as usize;
        while p < comptime!(v.rows * v.attention) {
            let r = p / a_size;
            let a = p % a_size;
            let mut key = 0.0f32;
            for j in 0..h_size {
                let weight = f32::cast_from(call.packed[key_at + j * a_size + a]);
                key += h[r * h_size + j] * weight;
            }
            let here = of_row(&*call, step, r);
            if is_row(r, &call.sizes, v) && here.stores {
                let row = batch_row(r, &call.sizes, v) * a_size + a;
                let at = call.at.saved.keys + row * call.sizes.slots + here.end;
                call.saved[at] = F::cast_from(key);
            }
            p += comptime!(v.units);
        }
    }
}
