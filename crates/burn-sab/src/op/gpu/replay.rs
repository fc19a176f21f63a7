//! The backward pass of the LSTM cell at one step, and of its product with the previous hidden state.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::call::{Call, batch_row, is_row, zero};
use super::flow::{Flow, Paths};
use super::layout::Packed;
use super::recall::Recall;
use super::schedule::{Step, length_of, of_row};
use crate::op::score::ScoreKind;

/// Computes the gradients of the pre-activations and of the previous c from those of h and c, one unit
/// per hidden unit and row.
#[cube]
pub(super) fn through_cell<F: Float>(
    call: &mut Call<F>,
    flow: &mut Flow,
    recall: &Recall,
    work: &mut [f32],
    step: &Step,
    #[comptime] paths: Paths,
) {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let a_size = comptime!(v.attention);
    let columns = comptime!(4 * v.hidden);
    let query_at = comptime!(Packed::of(&v).transposed_query);
    let mut p = UNIT_POS as usize;
    while p < comptime!(v.rows * v.hidden) {
        let r = p / h_size;
        let j = p % h_size;
        let row = batch_row(r, &call.sizes, v);
        let here = of_row(&*call, step, r);
        let writes = here.counts && is_row(r, &call.sizes, v);
        let at = (row * call.sizes.time + step.t) * columns + j;
        let gate_i = f32::cast_from(call.record[at]);
        let gate_f = f32::cast_from(call.record[at + h_size]);
        let gate_g = f32::cast_from(call.record[at + 2 * h_size]);
        let gate_o = f32::cast_from(call.record[at + 3 * h_size]);
        let cell = call.at.saved.cells + (row * (call.sizes.time + 1) + step.t) * h_size + j;
        let mut c_before = f32::cast_from(call.saved[cell]);
        if here.resets {
            c_before = 0.0f32;
        }
        let tanh_c = f32::cast_from(call.saved[cell + h_size]).tanh();

        let mut grad = flow.h[p];
        if here.n > 0 {
            if comptime!(v.score == ScoreKind::Additive) {
                if here.raw {
                    let tanh = (gate_o * tanh_c).tanh();
                    let u = f32::cast_from(call.packed[query_at + j]);
                    if comptime!(!v.detach_scores) {
                        grad += recall.grad_query[r] * u * (1.0f32 - tanh * tanh);
                    }
                    if writes {
                        let vectors = call.at.work.vectors + row * comptime!(v.vectors());
                        work[vectors + j] += recall.grad_query[r] * tanh;
                    }
                }
            } else if comptime!(!v.detach_scores) {
                for a in 0..a_size {
                    let weight = f32::cast_from(call.packed[query_at + a * h_size + j]);
                    grad += recall.grad_query[r * a_size + a] * weight;
                }
            }
        }
        let into_c = flow.c[p] + grad * gate_o * (1.0f32 - tanh_c * tanh_c);
        let mut to = Array::<f32>::new(4usize);
        to[0] = into_c * gate_g * gate_i * (1.0f32 - gate_i);
        to[1] = into_c * c_before * gate_f * (1.0f32 - gate_f);
        to[2] = into_c * gate_i * (1.0f32 - gate_g * gate_g);
        to[3] = grad * tanh_c * gate_o * (1.0f32 - gate_o);
        #[unroll]
        for gate in 0..4usize {
            if comptime!(!v.gates_in_global) {
                flow.gates[r * columns + gate * h_size + j] = to[gate];
            }
            if writes {
                if comptime!(paths.lanes) {
                    work[call.at.work.gates + at + gate * h_size] += to[gate];
                } else {
                    call.record[at + gate * h_size] = F::cast_from(to[gate]);
                }
            }
        }
        if here.cuts {
            flow.c[p] = 0.0f32;
        } else if here.counts {
            flow.c[p] = into_c * gate_f;
        }
        p += comptime!(v.units);
    }
}

/// Computes the gradient of the previous h from those of the pre-activations. It is zero for rows in which a window
/// starts at this step. Each loaded weight serves all rows.
#[cube]
pub(super) fn to_state_before<F: Float>(call: &Call<F>, flow: &mut Flow, step: &Step) {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let rows = comptime!(v.rows);
    let columns = comptime!(4 * v.hidden);
    let w_hh_at = comptime!(Packed::of(&v).transposed_w_hh);
    let mut p = UNIT_POS as usize;
    while p < comptime!(v.hidden * v.halves()) {
        let half = p / h_size;
        let j = p % h_size;
        let mut sums = Array::<f32>::new(rows);
        #[unroll]
        for r in 0..rows {
            sums[r] = 0.0f32;
        }
        if !step.rows.cuts {
            let each = comptime!(4 * v.hidden / v.halves());
            for i in 0..each {
                let column = half * each + i;
                let w = f32::cast_from(call.packed[w_hh_at + column * h_size + j]);
                #[unroll]
                for r in 0..rows {
                    if comptime!(v.gates_in_global) {
                        // The cube has one row, which is a row of the batch.
                        let row = batch_row(r, &call.sizes, v);
                        let at = (row * call.sizes.time + step.t) * columns + column;
                        sums[r] += f32::cast_from(call.record[at]) * w;
                    } else {
                        sums[r] += flow.gates[r * columns + column] * w;
                    }
                }
            }
        }
        #[unroll]
        for r in 0..rows {
            let here = of_row(call, step, r);
            let mut sum = sums[r];
            if comptime!(v.ragged) {
                if here.cuts {
                    sum = 0.0f32;
                }
            }
            if here.counts {
                if half == 0 {
                    flow.h[r * h_size + j] = sum;
                } else {
                    flow.s[r * h_size + j] = sum;
                }
            }
        }
        p += comptime!(v.units);
    }
}

/// Writes zero gradients for a step that no gradient reaches.
#[cube]
pub(super) fn leave_empty<F: Float>(call: &mut Call<F>, t: usize) {
    let v = comptime!(call.v);
    let columns = comptime!(4 * v.hidden);
    let a_size = comptime!(v.attention);
    let zero = F::new(0.0);
    let mut p = UNIT_POS as usize;
    while p < comptime!(4 * v.rows * v.hidden) {
        let r = p / columns;
        if is_row(r, &call.sizes, v) {
            let step = batch_row(r, &call.sizes, v) * call.sizes.time + t;
            call.record[step * columns + p % columns] = zero;
        }
        p += comptime!(v.units);
    }
    if comptime!(v.score != ScoreKind::Additive) {
        let mut p = UNIT_POS as usize;
        while p < comptime!(v.rows * v.attention) {
            let r = p / a_size;
            if is_row(r, &call.sizes, v) {
                let step = batch_row(r, &call.sizes, v) * call.sizes.time + t;
                call.saved[call.at.saved.queries + step * a_size + p % a_size] = zero;
            }
            p += comptime!(v.units);
        }
    }
}

/// Writes zero gradients for the padding of this cube's rows.
#[cube]
pub(super) fn leave_padding<F: Float>(call: &mut Call<F>) {
    let v = comptime!(call.v);
    let time = call.sizes.time;
    let columns = comptime!(4 * v.hidden).runtime();
    for r in 0..comptime!(v.rows) {
        if is_row(r, &call.sizes, v) {
            let row = batch_row(r, &call.sizes, v);
            let padding = row * time + length_of(&*call, row);
            let end = row * time + time;
            zero(&mut call.record, padding * columns, end * columns, v);
            if comptime!(v.score != ScoreKind::Additive) {
                let a_size = comptime!(v.attention).runtime();
                let at = call.at.saved.queries;
                zero(&mut call.saved, at + padding * a_size, at + end * a_size, v);
            }
        }
    }
}
