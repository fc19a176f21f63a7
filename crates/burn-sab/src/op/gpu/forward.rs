//! The forward kernel: one launch runs the whole sequence.
//!
//! A cube owns a few rows of the batch and holds their h and c in shared memory. At each step its units
//! compute columns of the gates, then hidden units of the cell, then scores of slots. Barriers within
//! the cube separate these stages. No cube ever waits for another.

use burn_cubecl::cubecl;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::attend::{Retrieval, attend};
use super::call::{Call, batch_row, is_row, sigmoid, summary_gain, zero};
use super::layout::{Packed, Wanted};
use super::schedule::{Step, length_of, of_row, step_at, steps_of_cube};
use super::slots::{add_key, carry};
use crate::op::options::EPSILON;
use crate::op::score::ScoreKind;
use crate::op::settings::Sparsifier;

/// The states of a cube's rows, `[rows, H]` each, in shared memory.
#[derive(CubeType)]
struct State {
    h: Shared<[f32]>,
    c: Shared<[f32]>,
    /// The gates, `[rows, 4H]`, unless they pass through global memory.
    gates: Shared<[f32]>,
}

/// `x`: `[B, T, I]`. `states` and `operands`: see [`Layout`](super::layout::Layout).
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
pub(super) fn forward_kernel<F: Float>(
    mut call: Call<F>,
    x: &[F],
    states: &mut [F],
    operands: &mut [F],
    #[comptime] wanted: Wanted,
    #[define(F)] _float: ElemType,
) {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let rows = comptime!(v.rows);
    let units = comptime!(v.units);
    let capacity = comptime!(v.ranks);
    let states_at = comptime!(Packed::of(&v).states);
    let epsilon = comptime!(EPSILON as f32);

    let unit = UNIT_POS as usize;
    let mut state = State {
        h: Shared::<[f32]>::new_slice(rows * h_size),
        c: Shared::<[f32]>::new_slice(rows * h_size),
        gates: Shared::<[f32]>::new_slice(comptime!(if v.gates_in_global {
            1
        } else {
            4 * v.rows * v.hidden
        })),
    };
    let mut retrieval = Retrieval {
        query: Shared::<[f32]>::new_slice(comptime!(v.rows * v.attention)),
        found: Shared::<[f32]>::new_slice(comptime!(v.candidates())),
        found_slot: Shared::<[u32]>::new_slice(comptime!(v.candidates())),
        weight: Shared::<[f32]>::new_slice(rows * capacity),
        ranked: Shared::<[u32]>::new_slice(rows * capacity),
    };

    let mut p = unit;
    while p < rows * h_size {
        let row = batch_row(p / h_size, &call.sizes, v);
        let j = p % h_size;
        state.h[p] = f32::cast_from(call.packed[states_at + row * h_size + j]);
        state.c[p] = f32::cast_from(call.packed[states_at + (call.sizes.batch + row) * h_size + j]);
        if comptime!(wanted.keep) {
            if is_row(p / h_size, &call.sizes, v) {
                let at = call.at.saved.cells + row * (call.sizes.time + 1) * h_size + j;
                call.saved[at] = F::cast_from(state.c[p]);
            }
        }
        p += units;
    }
    if comptime!(wanted.keep) {
        complete_operands(&call, x, operands);
    }
    if comptime!(v.ragged) {
        leave_unused(&mut call, states, operands, wanted);
        sync_storage();
    }
    let mut m = call.sizes.carried;
    let first = step_at(&call, 0usize.runtime(), m, 0usize.runtime());
    carry(&mut call, &first);
    sync_storage();

    for t in 0..steps_of_cube(&call) {
        // What the rows do together is the same in all units, so all units take the same branch at every barrier.
        let step = step_at(&call, t, m, 0usize.runtime());
        if comptime!(v.ragged) {
            if step.rows.resets {
                start_anew(&call, &mut state, &step);
                sync_cube();
            }
        }
        gates(&mut call, &mut state, t);
        cell(&mut call, &mut state, operands, &step, wanted.keep);
        sync_cube();
        if step.rows.n > 0 {
            attend(&mut call, &state.h, &mut retrieval, &step, wanted.keep);
        }

        // The retrieval: one unit per hidden unit and row.
        let mut p = unit;
        while p < rows * h_size {
            let r = p / h_size;
            let j = p % h_size;
            let row = batch_row(r, &call.sizes, v);
            let here = of_row(&call, &step, r);
            let mut summary = 0.0f32;
            if here.n > 0 {
                let mut sum = 0.0f32;
                for k in 0..here.n {
                    let w = retrieval.weight[r * capacity + k];
                    sum += w;
                    if w != 0.0f32 {
                        let slot =
                            row * call.sizes.slots + retrieval.ranked[r * capacity + k] as usize;
                        summary += w * f32::cast_from(call.saved[slot * h_size + j]);
                    }
                }
                if comptime!(v.sparsifier != Sparsifier::Softmax) {
                    sum += epsilon;
                }
                if here.raw {
                    sum = 1.0f32;
                }
                summary /= sum;
            }
            let mut h = state.h[p];
            if here.counts {
                h += summary_gain(&call, j) * summary;
                state.h[p] = h;
            }
            if here.counts && is_row(r, &call.sizes, v) {
                let at = (row * call.sizes.time + t) * h_size + j;
                states[at] = F::cast_from(h);
                if comptime!(wanted.reminders) {
                    states[call.at.states.summary + at] = F::cast_from(summary);
                }
                if here.stores {
                    call.saved[(row * call.sizes.slots + here.end) * h_size + j] = F::cast_from(h);
                    if comptime!(wanted.stored) {
                        let stored = call.sizes.slots - call.sizes.carried;
                        let slot = row * stored + here.end - call.sizes.carried;
                        states[call.at.states.stored + slot * h_size + j] = F::cast_from(h);
                    }
                }
            }
            p += units;
        }

        if comptime!(wanted.keep || wanted.reminders) {
            write_retrieval(&mut call, &retrieval, states, &step, wanted);
        }
        sync_cube();

        if step.rows.stores {
            add_key(&mut call, &state.h, &mut retrieval, &step);
            m += 1;
            sync_storage();
        }
    }

    let mut p = unit;
    while p < rows * h_size {
        if is_row(p / h_size, &call.sizes, v) {
            let at = batch_row(p / h_size, &call.sizes, v) * h_size + p % h_size;
            states[call.at.states.last + at] = F::cast_from(state.h[p]);
            states[call.at.states.cell + at] = F::cast_from(state.c[p]);
        }
        p += units;
    }
}

/// Writes zeros for the padding of this cube's rows, and for all slots and keys that a row may leave unused. At a
/// reset, the state that begins is a slot of zeros, whose key is zero, too.
#[cube]
fn leave_unused<F: Float>(
    call: &mut Call<F>,
    states: &mut [F],
    operands: &mut [F],
    #[comptime] wanted: Wanted,
) {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let time = call.sizes.time;
    let places = call.sizes.places;
    let slots = call.sizes.slots;
    let keys = slots * comptime!(v.attention);
    for r in 0..comptime!(v.rows) {
        if is_row(r, &call.sizes, v) {
            let row = batch_row(r, &call.sizes, v);
            let end = row * time + time;
            let padding = row * time + length_of(&*call, row);
            zero(states, padding * h_size, end * h_size, v);
            if comptime!(wanted.reminders) {
                let summary = call.at.states.summary;
                zero(states, summary + padding * h_size, summary + end * h_size, v);
                let weights = call.at.states.weights;
                zero(states, weights + padding * places, weights + end * places, v);
                let at = call.at.notes.places;
                zero(&mut call.notes, at + padding * places, at + end * places, v);
            }
            if comptime!(wanted.keep) {
                let mut p = padding * h_size + UNIT_POS as usize;
                while p < end * h_size {
                    operands[p / h_size * call.sizes.width + p % h_size] = F::new(0.0);
                    if comptime!(v.score != ScoreKind::Additive) {
                        let step =
                            call.at.provisional + p / h_size * comptime!(v.provisional_width());
                        operands[step + p % h_size] = F::new(0.0);
                    }
                    p += comptime!(v.units);
                }
            }
            zero(&mut call.saved, row * slots * h_size, (row + 1) * slots * h_size, v);
            let at = call.at.saved.keys;
            zero(&mut call.saved, at + row * keys, at + (row + 1) * keys, v);
            if comptime!(wanted.stored) {
                let stored = (slots - call.sizes.carried) * h_size;
                let at = call.at.states.stored + row * stored;
                zero(states, at, at + stored, v);
            }
        }
    }
}

/// Sets the states of the rows that start anew at this step to zero.
#[cube]
fn start_anew<F: Float>(call: &Call<F>, state: &mut State, step: &Step) {
    let v = comptime!(call.v);
    let mut p = UNIT_POS as usize;
    while p < comptime!(v.rows * v.hidden) {
        let here = of_row(call, step, p / comptime!(v.hidden));
        if here.resets {
            state.h[p] = 0.0f32;
            state.c[p] = 0.0f32;
        }
        p += comptime!(v.units);
    }
}

/// Writes the columns of the backward products' left operands that do not depend on the recurrence.
#[cube]
fn complete_operands<F: Float>(call: &Call<F>, x: &[F], operands: &mut [F]) {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let first = CUBE_POS * comptime!(v.rows) * call.sizes.time;
    let end = min(first + comptime!(v.rows) * call.sizes.time, call.sizes.batch * call.sizes.time);
    let rest = call.sizes.width - h_size;
    let mut p = UNIT_POS as usize;
    while p < (end - first) * rest {
        let step = first + p / rest;
        let i = p % rest;
        let mut value = F::new(0.0);
        if i < call.sizes.input {
            if comptime!(v.ragged) {
                // Whatever is there: padding has no effect.
                let row = step / call.sizes.time;
                if step % call.sizes.time < length_of(call, row) {
                    value = x[step * call.sizes.input + i];
                }
            } else {
                value = x[step * call.sizes.input + i];
            }
        } else if i == call.sizes.input {
            value = F::new(1.0);
        }
        operands[step * call.sizes.width + h_size + i] = value;
        p += comptime!(v.units);
    }
    if comptime!(v.score == ScoreKind::Mlp) {
        let rest = comptime!(v.provisional_width() - v.hidden);
        let mut p = UNIT_POS as usize;
        while p < (end - first) * rest {
            let mut value = F::new(0.0);
            if p % rest == 0 {
                value = F::new(1.0);
            }
            let step = first + p / rest;
            let at = call.at.provisional + step * comptime!(v.provisional_width());
            operands[at + h_size + p % rest] = value;
            p += comptime!(v.units);
        }
    }
}

/// Computes the pre-activations of the gates, one unit per column. Each loaded weight serves all rows.
/// It ends with a barrier.
#[cube]
fn gates<F: Float>(call: &mut Call<F>, state: &mut State, t: usize) {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let rows = comptime!(v.rows);
    let columns = comptime!(4 * v.hidden);
    let w_hh_at = comptime!(Packed::of(&v).w_hh);
    let bias_at = comptime!(Packed::of(&v).bias);
    let mut column = UNIT_POS as usize;
    while column < columns {
        let bias = f32::cast_from(call.packed[bias_at + column]);
        let mut sums = Array::<f32>::new(rows);
        #[unroll]
        for r in 0..rows {
            let row = batch_row(r, &call.sizes, v);
            let at = (row * call.sizes.time + t) * columns + column;
            sums[r] = f32::cast_from(call.record[at]) + bias;
        }
        for k in 0..h_size {
            let w = f32::cast_from(call.packed[w_hh_at + k * columns + column]);
            #[unroll]
            for r in 0..rows {
                sums[r] += state.h[r * h_size + k] * w;
            }
        }
        #[unroll]
        for r in 0..rows {
            if comptime!(v.gates_in_global) {
                // The cube has one row, which is a row of the batch.
                let row = batch_row(r, &call.sizes, v);
                let at = (row * call.sizes.time + t) * columns + column;
                call.record[at] = F::cast_from(sums[r]);
            } else {
                state.gates[r * columns + column] = sums[r];
            }
        }
        column += comptime!(v.units);
    }
    if comptime!(v.gates_in_global) {
        sync_storage();
    } else {
        sync_cube();
    }
}

/// Computes the cell, one unit per hidden unit and row. Replaces `h` by the provisional state.
#[cube]
fn cell<F: Float>(
    call: &mut Call<F>,
    state: &mut State,
    operands: &mut [F],
    step: &Step,
    #[comptime] keep: bool,
) {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let columns = comptime!(4 * v.hidden);
    let mut p = UNIT_POS as usize;
    while p < comptime!(v.rows * v.hidden) {
        let r = p / h_size;
        let j = p % h_size;
        let row = batch_row(r, &call.sizes, v);
        let here = of_row(&*call, step, r);
        let step = row * call.sizes.time + step.t;
        let at = step * columns + j;
        let in_cube = r * columns + j;
        let mut gates = Array::<f32>::new(4usize);
        #[unroll]
        for gate in 0..4usize {
            if comptime!(v.gates_in_global) {
                gates[gate] = f32::cast_from(call.record[at + gate * h_size]);
            } else {
                gates[gate] = state.gates[in_cube + gate * h_size];
            }
        }
        let gate_i = sigmoid(gates[0]);
        let gate_f = sigmoid(gates[1]);
        let gate_g = gates[2].tanh();
        let gate_o = sigmoid(gates[3]);
        let c = gate_f * state.c[p] + gate_i * gate_g;
        let provisional = gate_o * c.tanh();
        if keep && here.counts && is_row(r, &call.sizes, v) {
            operands[step * call.sizes.width + j] = F::cast_from(state.h[p]);
            call.record[at] = F::cast_from(gate_i);
            call.record[at + h_size] = F::cast_from(gate_f);
            call.record[at + 2 * h_size] = F::cast_from(gate_g);
            call.record[at + 3 * h_size] = F::cast_from(gate_o);
            let cells = call.at.saved.cells + (step + row + 1) * h_size;
            call.saved[cells + j] = F::cast_from(c);
            if comptime!(v.score != ScoreKind::Additive) {
                let to = call.at.provisional + step * comptime!(v.provisional_width());
                operands[to + j] = F::cast_from(provisional);
            }
        }
        if here.counts {
            state.c[p] = c;
            state.h[p] = provisional;
        }
        p += comptime!(v.units);
    }
}

/// Writes the retrieved slots and their weights, for the backward kernel and for the caller.
#[cube]
fn write_retrieval<F: Float>(
    call: &mut Call<F>,
    retrieval: &Retrieval,
    states: &mut [F],
    step: &Step,
    #[comptime] wanted: Wanted,
) {
    let v = comptime!(call.v);
    let capacity = comptime!(v.ranks);
    let searchers = comptime!(v.searchers());
    let r = UNIT_POS as usize / searchers;
    let searcher = UNIT_POS as usize % searchers;
    let here = of_row(&*call, step, r);
    if here.counts && is_row(r, &call.sizes, v) {
        let row = batch_row(r, &call.sizes, v);
        let step = row * call.sizes.time + step.t;
        let mut sum = 0.0f32;
        for k in 0..here.n {
            sum += retrieval.weight[r * capacity + k];
        }
        if comptime!(v.sparsifier != Sparsifier::Softmax) {
            sum += comptime!(EPSILON as f32);
        }
        if here.raw {
            sum = 1.0f32;
        }
        if comptime!(wanted.keep) {
            if searcher == 0 {
                call.notes[call.at.notes.sums + step] = u32::reinterpret(sum);
            }
        }
        let mut k = searcher;
        while k < max(here.n, call.sizes.places) {
            let mut w = 0.0f32;
            let mut slot = 0u32;
            if k < here.n {
                w = retrieval.weight[r * capacity + k] / sum;
                slot = retrieval.ranked[r * capacity + k];
                if comptime!(wanted.keep) {
                    call.notes[call.at.notes.ranked + step * capacity + k] = slot;
                    call.notes[call.at.notes.weights + step * capacity + k] = u32::reinterpret(w);
                }
            }
            if comptime!(wanted.reminders) {
                if k < call.sizes.places {
                    if w == 0.0f32 {
                        slot = 0u32;
                    } else {
                        slot -= here.first as u32;
                    }
                    let place = step * call.sizes.places + k;
                    states[call.at.states.weights + place] = F::cast_from(w);
                    call.notes[call.at.notes.places + place] = slot;
                }
            }
            k += searchers;
        }
    }
}
