//! The storage of slots and their keys in the forward kernel.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::attend::Retrieval;
use super::call::{Call, batch_row, is_row};
use super::layout::Packed;
use super::select::sum_of_row;
use crate::op::score::ScoreKind;

/// Stores the carried slots and their keys.
#[cube]
pub(super) fn carry<F: Float>(call: &mut Call<F>) {
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
        if is_row(r, &call.sizes, v) {
            let row = batch_row(r, &call.sizes, v);
            let of_row = p % (carried * h_size);
            call.saved[row * slots * h_size + of_row] =
                call.packed[carried_at + row * carried * h_size + of_row];
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
        if is_row(r, &call.sizes, v) {
            call.saved[call.at.saved.keys + (row * a_size + a) * slots + slot] = F::cast_from(key);
        }
        p += comptime!(v.units);
    }
}

/// Stores the key of slot `m`, which is the state `h`.
#[cube]
pub(super) fn add_key<F: Float>(
    call: &mut Call<F>,
    h: &Shared<[f32]>,
    retrieval: &mut Retrieval,
    m: usize,
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
        if searcher == 0 && is_row(r, &call.sizes, v) {
            let at = call.at.saved.keys + batch_row(r, &call.sizes, v) * call.sizes.slots + m;
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
            if is_row(r, &call.sizes, v) {
                let row = batch_row(r, &call.sizes, v);
                let at = call.at.saved.keys + (row * a_size + a) * call.sizes.slots + m;
                call.saved[at] = F::cast_from(key);
            }
            p += comptime!(v.units);
        }
    }
}
