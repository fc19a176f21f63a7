//! The forward pass: one launch for the whole sequence.
//!
//! A cube owns a few rows of the batch. Their h and c stay in shared memory; per step every unit computes
//! columns of the gates, then units of the cell, then scores of slots; barriers are all that holds them
//! together, and no cube ever waits for another.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::attend::{Finds, attend};
use super::cell::{batch_row, is_row, sigmoid, slot_value};
use super::plan::{ScoreKind, Sizes, Variant, falls_on, ranks};
use super::select::sum_of_row;
use crate::op::options::{EPSILON, Sparsifier};

/// Where things lie in what forward keeps. Keys, `[B, A, M]` (units that score neighbouring slots read
/// neighbouring numbers), come first.
#[derive(CubeType, CubeLaunch, Clone, Copy, Debug)]
pub(super) struct Notes {
    /// Scores of the present step, a scratch area of each unit: `[rows of all cubes, M]`.
    pub scores: usize,
    /// h before the first step, `[B, H]`.
    pub start: usize,
    /// c before and after every step, `[B, T + 1, H]`.
    pub cells: usize,
    /// Queries, `[B, T, A]`.
    pub queries: usize,
    /// Ranked slots, best first, as numbers, `[B, T, ranks]`.
    pub ranked: usize,
    /// Their weights, `[B, T, ranks]`.
    pub weights: usize,
    /// What the weights were divided by, `[B, T]`.
    pub sums: usize,
}

impl Notes {
    pub fn to_launch(self) -> NotesLaunch {
        NotesLaunch::new(
            self.scores,
            self.start,
            self.cells,
            self.queries,
            self.ranked,
            self.weights,
            self.sums,
        )
    }
}

/// Where things lie in the outputs, after the summaries `[B, T, H]`.
#[derive(CubeType, CubeLaunch, Clone, Copy, Debug)]
pub(super) struct Outputs {
    /// `[B, T, K]`
    pub weights: usize,
    /// c after the last step, `[B, H]`.
    pub cell: usize,
}

/// Where things lie in the packed parameters.
pub(super) struct Packed {
    pub w_hh: usize,
    pub bias: usize,
    /// W_q of dot and mlp, u of additive scores.
    pub query: usize,
    /// W_k, W_m, or v of additive scores.
    pub key: usize,
    /// b and v of mlp scores.
    pub query_bias: usize,
    pub v: usize,
    pub h0: usize,
}

impl Packed {
    pub fn of(v: &Variant) -> Self {
        let (h, a) = (v.hidden, v.attention);
        let vectors = if v.score == ScoreKind::Mlp { a } else { 0 };
        let bias = 4 * h * h;
        let query = bias + 4 * h;
        let key = query + h * a;
        let query_bias = key + h * a;
        let v = query_bias + vectors;
        Self { w_hh: 0, bias, query, key, query_bias, v, h0: v + vectors }
    }
}

/// `record`: projected inputs `[B, T, 4H]`; becomes the gates after their activations if `keep`.
/// `carried`: `[B, M0, H]`. `places`: retrieved slots, `[B, T, K]`.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
pub(super) fn forward_kernel(
    record: &mut [f32],
    packed: &[f32],
    carried: &[f32],
    hidden: &mut [f32],
    outputs: &mut [f32],
    notes: &mut [f32],
    places: &mut [i32],
    sizes: Sizes,
    outputs_at: Outputs,
    notes_at: Notes,
    #[comptime] v: Variant,
    #[comptime] keep: bool,
) {
    let h_size = comptime!(v.hidden);
    let a_size = comptime!(v.attention);
    let rows = comptime!(v.rows);
    let units = comptime!(v.units);
    let columns = comptime!(4 * v.hidden);
    let capacity = comptime!(v.ranks);
    let searchers = comptime!(v.searchers());
    let additive = comptime!(v.score == ScoreKind::Additive);
    let w_hh_at = comptime!(Packed::of(&v).w_hh);
    let bias_at = comptime!(Packed::of(&v).bias);
    let key_at = comptime!(Packed::of(&v).key);
    let h0_at = comptime!(Packed::of(&v).h0);
    let epsilon = comptime!(EPSILON as f32);

    let unit = UNIT_POS as usize;
    let mut h = Shared::<[f32]>::new_slice(rows * h_size);
    let mut c = Shared::<[f32]>::new_slice(rows * h_size);
    let mut gates =
        Shared::<[f32]>::new_slice(comptime!(if v.gates_in_global { 1 } else { rows * columns }));
    let mut finds = Finds {
        query: Shared::<[f32]>::new_slice(rows * a_size),
        found: Shared::<[f32]>::new_slice(2 * units),
        found_slot: Shared::<[u32]>::new_slice(2 * units),
        weight: Shared::<[f32]>::new_slice(rows * capacity),
        ranked: Shared::<[u32]>::new_slice(rows * capacity),
    };

    // The row whose slots this unit searches, with the other searchers.
    let search_row = unit / searchers;
    let searcher = unit % searchers;

    let mut p = unit;
    while p < rows * h_size {
        let row = batch_row(p / h_size, &sizes, rows);
        let j = p % h_size;
        h[p] = packed[h0_at + row * h_size + j];
        c[p] = packed[h0_at + (sizes.batch + row) * h_size + j];
        if keep && is_row(p / h_size, &sizes, rows) {
            notes[notes_at.start + row * h_size + j] = h[p];
            notes[notes_at.cells + row * (sizes.time + 1) * h_size + j] = c[p];
        }
        p += units;
    }

    // Keys of the carried slots.
    let mut p = unit;
    while p < rows * sizes.carried * a_size {
        let r = p / (sizes.carried * a_size);
        let slot = (p / a_size) % sizes.carried;
        let a = p % a_size;
        let row = batch_row(r, &sizes, rows);
        let mut key = 0.0f32;
        for j in 0..h_size {
            let value = carried[(row * sizes.carried + slot) * h_size + j];
            if additive {
                key += packed[key_at + j] * value.tanh();
            } else {
                key += packed[key_at + j * a_size + a] * value;
            }
        }
        if is_row(r, &sizes, rows) {
            notes[(row * a_size + a) * sizes.slots + slot] = key;
        }
        p += units;
    }
    sync_storage();

    let mut m = sizes.carried;
    for t in 0..sizes.time {
        // Gates: a unit per column; each weight serves all rows.
        let mut column = unit;
        while column < columns {
            let mut sums = Array::<f32>::new(rows);
            #[unroll]
            for r in 0..rows {
                let row = batch_row(r, &sizes, rows);
                sums[r] =
                    record[(row * sizes.time + t) * columns + column] + packed[bias_at + column];
            }
            for k in 0..h_size {
                let w = packed[w_hh_at + k * columns + column];
                #[unroll]
                for r in 0..rows {
                    sums[r] += h[r * h_size + k] * w;
                }
            }
            #[unroll]
            for r in 0..rows {
                if comptime!(v.gates_in_global) {
                    // One row a cube, and it is one of the batch.
                    let row = batch_row(r, &sizes, rows);
                    record[(row * sizes.time + t) * columns + column] = sums[r];
                } else {
                    gates[r * columns + column] = sums[r];
                }
            }
            column += units;
        }
        if comptime!(v.gates_in_global) {
            sync_storage();
        } else {
            sync_cube();
        }

        // The cell: a unit per hidden unit and row; h holds the provisional state for a while.
        let mut p = unit;
        while p < rows * h_size {
            let r = p / h_size;
            let j = p % h_size;
            let row = batch_row(r, &sizes, rows);
            let at = (row * sizes.time + t) * columns + j;
            let of_row = r * columns + j;
            let in_global = comptime!(v.gates_in_global);
            let gate_i = if in_global { record[at] } else { gates[of_row] };
            let gate_f = if in_global { record[at + h_size] } else { gates[of_row + h_size] };
            let gate_g =
                if in_global { record[at + 2 * h_size] } else { gates[of_row + 2 * h_size] };
            let gate_o =
                if in_global { record[at + 3 * h_size] } else { gates[of_row + 3 * h_size] };
            let gate_i = sigmoid(gate_i);
            let gate_f = sigmoid(gate_f);
            let gate_g = gate_g.tanh();
            let gate_o = sigmoid(gate_o);
            c[p] = gate_f * c[p] + gate_i * gate_g;
            h[p] = gate_o * c[p].tanh();
            if keep && is_row(r, &sizes, rows) {
                record[at] = gate_i;
                record[at + h_size] = gate_f;
                record[at + 2 * h_size] = gate_g;
                record[at + 3 * h_size] = gate_o;
                notes[notes_at.cells + (row * (sizes.time + 1) + t + 1) * h_size + j] = c[p];
            }
            p += units;
        }
        sync_cube();

        // What all units agree on decides every branch that holds a barrier.
        let n = ranks(m, sizes.k_top, v.sparsifier);
        let raw = comptime!(v.sparsifier == Sparsifier::Released) && m <= sizes.k_top;
        if m > 0 {
            attend(&h, &mut finds, packed, notes, &sizes, &notes_at, t, m, n, raw, v, keep);
        }

        // Retrieval: a unit per hidden unit and row.
        let mut p = unit;
        while p < rows * h_size {
            let r = p / h_size;
            let j = p % h_size;
            let row = batch_row(r, &sizes, rows);
            let mut summary = 0.0f32;
            if m > 0 {
                let mut sum = 0.0f32;
                for k in 0..n {
                    let w = finds.weight[r * capacity + k];
                    sum += w;
                    if w != 0.0f32 {
                        let slot = finds.ranked[r * capacity + k] as usize;
                        summary +=
                            w * slot_value(row, slot, j, carried, 0, &*hidden, &sizes, h_size);
                    }
                }
                if comptime!(v.sparsifier != Sparsifier::Softmax) {
                    sum += epsilon;
                }
                if raw {
                    sum = 1.0f32;
                }
                summary /= sum;
            }
            h[p] += summary;
            if is_row(r, &sizes, rows) {
                hidden[(row * sizes.time + t) * h_size + j] = h[p];
                outputs[(row * sizes.time + t) * h_size + j] = summary;
            }
            p += units;
        }

        // What is told about the retrieval.
        if is_row(search_row, &sizes, rows) {
            let row = batch_row(search_row, &sizes, rows);
            let step = row * sizes.time + t;
            let mut sum = 0.0f32;
            for k in 0..n {
                sum += finds.weight[search_row * capacity + k];
            }
            if comptime!(v.sparsifier != Sparsifier::Softmax) {
                sum += epsilon;
            }
            if raw {
                sum = 1.0f32;
            }
            if keep && searcher == 0 {
                notes[notes_at.sums + step] = sum;
            }
            let mut k = searcher;
            while k < max(n, sizes.places) {
                let mut w = 0.0f32;
                let mut slot = 0u32;
                if k < n {
                    w = finds.weight[search_row * capacity + k] / sum;
                    slot = finds.ranked[search_row * capacity + k];
                    if keep {
                        notes[notes_at.ranked + step * capacity + k] = f32::cast_from(slot);
                        notes[notes_at.weights + step * capacity + k] = w;
                    }
                }
                if k < sizes.places {
                    if w == 0.0f32 {
                        slot = 0u32;
                    }
                    outputs[outputs_at.weights + step * sizes.places + k] = w;
                    places[step * sizes.places + k] = i32::cast_from(slot);
                }
                k += searchers;
            }
        }
        sync_cube();

        // The new slot's key.
        if falls_on(t, sizes.first_store, sizes.k_att) {
            if additive {
                let mut part = 0.0f32;
                let mut j = searcher;
                while j < h_size {
                    part += packed[key_at + j] * h[search_row * h_size + j].tanh();
                    j += searchers;
                }
                let sum = sum_of_row(part, search_row, searcher, &mut finds.found, v);
                if searcher == 0 && is_row(search_row, &sizes, rows) {
                    notes[batch_row(search_row, &sizes, rows) * sizes.slots + m] = sum;
                }
            } else {
                let mut p = unit;
                while p < rows * a_size {
                    let r = p / a_size;
                    let a = p % a_size;
                    let mut key = 0.0f32;
                    for j in 0..h_size {
                        key += h[r * h_size + j] * packed[key_at + j * a_size + a];
                    }
                    if is_row(r, &sizes, rows) {
                        let row = batch_row(r, &sizes, rows);
                        notes[(row * a_size + a) * sizes.slots + m] = key;
                    }
                    p += units;
                }
            }
            m += 1;
            sync_storage();
        }
    }

    let mut p = unit;
    while p < rows * h_size {
        if is_row(p / h_size, &sizes, rows) {
            let row = batch_row(p / h_size, &sizes, rows);
            outputs[outputs_at.cell + row * h_size + p % h_size] = c[p];
        }
        p += units;
    }
}
