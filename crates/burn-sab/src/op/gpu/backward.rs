//! The backward kernel: the reverse sweep over time, in one launch for any sequence length and number of
//! lanes.
//!
//! A cube owns the same rows as in the forward kernel and visits their steps in reverse order. Gradient
//! passes from a step to its retrieved slots, and from a slot to the step that stored it. The gradients
//! of a row's slots belong to one cube, so no addition is atomic. The results are the gradients of
//! pre-activations, queries and keys. Matrix products after the launch compute the weight gradients from
//! these.
//!
//! With a limit on hops, the sweep runs once per lane: lane d + 1 reads the gradients that lane d added
//! to a slot.

use burn_cubecl::cubecl;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::call::{Call, batch_row, is_row, summary_gain};
use super::flow::{Flow, Lane, Paths};
use super::layout::{Packed, falls_on};
use super::recall::{Recall, through_key, to_gain, to_keys, to_scores, to_slots};
use super::replay::{leave_empty, leave_padding, through_cell, to_state_before};
use super::schedule::{Step, of_row, step_at, steps_of_cube};
use super::sums::{clear, settle};
use crate::op::score::ScoreKind;

/// `up_h`, `up_s`: gradients of hidden states and summaries, `[B, T, H]`, or any buffer if there are
/// none. `work`: see [`WorkAt`](super::layout::WorkAt).
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
pub(super) fn backward_kernel<F: Float>(
    mut call: Call<F>,
    up_h: &[F],
    up_s: &[F],
    work: &mut [f32],
    #[comptime] paths: Paths,
    #[define(F)] _float: ElemType,
) {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let a_size = comptime!(v.attention);
    let rows = comptime!(v.rows);
    let units = comptime!(v.units);
    let capacity = comptime!(v.ranks);
    let upstream_at = comptime!(Packed::of(&v).states);

    let unit = UNIT_POS as usize;
    let mut flow = Flow {
        h: Shared::<[f32]>::new_slice(rows * h_size),
        c: Shared::<[f32]>::new_slice(rows * h_size),
        s: Shared::<[f32]>::new_slice(rows * h_size),
        gates: Shared::<[f32]>::new_slice(comptime!(if v.gates_in_global {
            1
        } else {
            4 * v.rows * v.hidden
        })),
        alive: Shared::<[Atomic<u32>]>::new_slice(2usize),
    };
    let mut recall = Recall {
        ranked: Shared::<[u32]>::new_slice(rows * capacity),
        weight: Shared::<[f32]>::new_slice(rows * capacity),
        grad_weight: Shared::<[f32]>::new_slice(rows * capacity),
        partial: Shared::<[f32]>::new_slice(comptime!(v.rows * v.ranks * v.parts())),
        grad_score: Shared::<[f32]>::new_slice(rows * capacity),
        grad_query: Shared::<[f32]>::new_slice(comptime!(v.rows * v.attention)),
    };

    clear(&call, work, paths);
    // With lanes, the sums are already zero.
    if comptime!(v.ragged && !paths.lanes) {
        leave_padding(&mut call);
    }
    sync_storage();
    let end = steps_of_cube(&call);

    for lane in 0..call.sizes.lanes {
        let way = lane_of(&call, lane, paths);
        let mut p = unit;
        while p < rows * h_size {
            let row = batch_row(p / h_size, &call.sizes, v);
            let at = upstream_at + row * h_size + p % h_size;
            let mut h = 0.0f32;
            let mut c = 0.0f32;
            if lane == 0 {
                if comptime!(paths.last) {
                    h = f32::cast_from(call.packed[at]);
                }
                if comptime!(paths.cell) {
                    c = f32::cast_from(call.packed[at + call.sizes.batch * h_size]);
                }
            }
            flow.h[p] = h;
            flow.c[p] = c;
            flow.s[p] = 0.0f32;
            p += units;
        }
        if unit == 0 {
            flow.alive[0].store(0u32);
        }
        sync_cube();

        let mut m = call.sizes.slots;
        for back in 0..end {
            let t = end - 1 - back;
            if comptime!(!v.ragged) {
                if falls_on(t, call.sizes.first_store, call.sizes.k_att) {
                    m -= 1;
                }
            }
            let step = step_at(&call, t, m, lane);
            arrive(&call, &mut flow, &mut recall, up_h, up_s, work, &step, &way, back, paths);
            sync_storage();

            if step.rows.stores && way.takes && comptime!(paths.lanes) {
                // Every unit has read the gradients of this slot's key: they are complete.
                let mut p = unit;
                while p < rows * a_size {
                    let r = p / a_size;
                    let here = of_row(&call, &step, r);
                    if here.stores && is_row(r, &call.sizes, v) {
                        let row = batch_row(r, &call.sizes, v);
                        let at = (row * call.sizes.slots + here.end) * a_size + p % a_size;
                        work[call.at.work.keys + at] += work[way.keys_in + at];
                        work[way.keys_in + at] = 0.0f32;
                    }
                    p += units;
                }
            }

            // A step without gradient passes nothing on. A path through time ends where a window begins,
            // and continues where a slot was retrieved.
            if workgroup_uniform_load_atomic(&flow.alive[back % 2]) == 0 {
                // With lanes, the sums are already zero.
                if comptime!(!paths.lanes) {
                    leave_empty(&mut call, t);
                }
                sync_cube();
            } else {
                if step.rows.n > 0 {
                    to_scores(&call, &flow.s, &mut recall, &step);
                    to_slots(&call, &flow.s, &recall, work, &step, &way);
                    if comptime!(v.learned_gain) {
                        to_gain(&call, &flow.h, &recall, work, &step);
                    }
                }
                to_keys(&mut call, &mut recall, work, &step, &way, paths);
                sync_cube();
                through_cell(&mut call, &mut flow, &recall, work, &step, paths);
                sync_storage();
                to_state_before(&call, &mut flow, &step);
                sync_cube();
            }
        }

        // The remaining gradient is that of the state before the first step.
        let mut p = unit;
        while p < rows * h_size {
            if is_row(p / h_size, &call.sizes, v) {
                let at = batch_row(p / h_size, &call.sizes, v) * h_size + p % h_size;
                let mut grad = flow.h[p];
                if comptime!(v.halves() == 2) {
                    grad += flow.s[p];
                }
                work[call.at.work.h0 + at] += grad;
                work[call.at.work.c0 + at] += flow.c[p];
            }
            p += units;
        }
        sync_storage();
    }

    finish_slots(&call, work);
    sync_storage();
    settle(&mut call, &*work, paths);
}

#[cube]
fn lane_of<F: Float>(call: &Call<F>, lane: usize, #[comptime] paths: Paths) -> Lane {
    let last = comptime!(paths.limited) && lane + 1 == call.sizes.lanes;
    let all_slots = call.sizes.batch * call.sizes.slots * comptime!(call.v.hidden);
    let all_keys = call.sizes.batch * call.sizes.slots * comptime!(call.v.attention);
    let mut slots_in = 0usize.runtime();
    let mut slots_out = 0usize.runtime();
    let mut keys_in = call.at.work.keys;
    let mut keys_out = call.at.work.keys;
    if comptime!(paths.lanes) {
        slots_in = ((lane + 1) % 2) * all_slots;
        slots_out = (lane % 2) * all_slots;
        keys_in = call.at.work.lane_keys + ((lane + 1) % 2) * all_keys;
        if !last {
            keys_out = call.at.work.lane_keys + (lane % 2) * all_keys;
        }
    }
    let takes = comptime!(!paths.limited) || lane > 0;
    Lane { slots_in, keys_in, slots_out, keys_out, takes, last }
}

/// Adds up the gradients of h and of the summary at a step, and loads the retrieved slots and their
/// weights.
#[cube]
#[allow(clippy::too_many_arguments)]
fn arrive<F: Float>(
    call: &Call<F>,
    flow: &mut Flow,
    recall: &mut Recall,
    up_h: &[F],
    up_s: &[F],
    work: &mut [f32],
    step: &Step,
    way: &Lane,
    back: usize,
    #[comptime] paths: Paths,
) {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let a_size = comptime!(v.attention);
    let rows = comptime!(v.rows);
    let units = comptime!(v.units);
    let capacity = comptime!(v.ranks);
    let unit = UNIT_POS as usize;
    if unit == 0 {
        flow.alive[(back + 1) % 2].store(0u32);
    }
    let mut p = unit;
    while p < rows * h_size {
        let r = p / h_size;
        let j = p % h_size;
        let row = batch_row(r, &call.sizes, v);
        let here = of_row(call, step, r);
        let at = (row * call.sizes.time + step.t) * h_size + j;
        let mut grad = flow.h[p];
        if comptime!(v.halves() == 2) {
            grad += flow.s[p];
        }
        // At padding a gradient waits for the last step of its row.
        let mut grad_s = 0.0f32;
        if here.counts {
            if comptime!(paths.hidden) {
                if step.lane == 0 {
                    grad += f32::cast_from(up_h[at]);
                }
            }
            if here.stores && way.takes {
                let slot = row * call.sizes.slots + here.end;
                grad += work[way.slots_in + slot * h_size + j];
                if comptime!(!v.detach_scores) {
                    grad += through_key(call, &*work, way.keys_in + slot * a_size, slot, j);
                }
                if comptime!(paths.lanes) {
                    if is_row(r, &call.sizes, v) {
                        work[way.slots_in + slot * h_size + j] = 0.0f32;
                    }
                }
            }
            grad_s = summary_gain(call, j) * grad;
            if comptime!(paths.summary) {
                if step.lane == 0 {
                    grad_s += f32::cast_from(up_s[at]);
                }
            }
            if grad != 0.0f32 || grad_s != 0.0f32 || flow.c[p] != 0.0f32 {
                flow.alive[back % 2].store(1u32);
            }
        }
        flow.h[p] = grad;
        flow.s[p] = grad_s;
        p += units;
    }
    let n = step.rows.n;
    let mut p = unit;
    while p < rows * n {
        let r = p / n;
        let k = p % n;
        let row = batch_row(r, &call.sizes, v);
        let here = of_row(call, step, r);
        let at = (row * call.sizes.time + step.t) * capacity + k;
        if comptime!(v.ragged) {
            recall.weight[r * capacity + k] = 0.0f32;
        }
        if k < here.n {
            let weight = call.notes[call.at.notes.weights + at];
            recall.weight[r * capacity + k] = f32::reinterpret(weight);
            recall.ranked[r * capacity + k] = call.notes[call.at.notes.ranked + at];
        }
        p += units;
    }
}

/// Completes the gradients of the carried slots by those of their keys, and the gradient of the additive
/// v, to which every slot contributes.
#[cube]
fn finish_slots<F: Float>(call: &Call<F>, work: &mut [f32]) {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let a_size = comptime!(v.attention);
    let mut p = UNIT_POS as usize;
    while p < comptime!(v.rows * v.hidden) {
        let r = p / h_size;
        let j = p % h_size;
        if is_row(r, &call.sizes, v) {
            let row = batch_row(r, &call.sizes, v);
            let first = row * call.sizes.slots;
            if comptime!(!v.detach_scores) {
                for slot in 0..call.sizes.carried {
                    let at = call.at.work.carried + (row * call.sizes.carried + slot) * h_size + j;
                    let key = call.at.work.keys + (first + slot) * a_size;
                    work[at] += through_key(call, &*work, key, first + slot, j);
                }
            }
            if comptime!(v.score == ScoreKind::Additive) {
                let mut sum = 0.0f32;
                for slot in 0..call.sizes.slots {
                    let value = f32::cast_from(call.saved[(first + slot) * h_size + j]);
                    sum += work[call.at.work.keys + first + slot] * value.tanh();
                }
                let vectors = call.at.work.vectors + row * comptime!(v.vectors());
                work[vectors + h_size + j] = sum;
            }
        }
        p += comptime!(v.units);
    }
}
