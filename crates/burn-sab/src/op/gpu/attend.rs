//! The retrieval of one step, from the provisional hidden states: queries, scores of all slots, the best
//! slots, and their weights.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::call::{Call, batch_row, is_row};
use super::layout::Packed;
use super::schedule::{Step, of_row};
use super::select::{LOWEST, NO_SLOT, best_of_row, sum_of_row};
use crate::op::options::EPSILON;
use crate::op::score::ScoreKind;
use crate::op::settings::Sparsifier;

/// A cube's data on the retrieval of the current step, in shared memory.
#[derive(CubeType)]
pub(super) struct Retrieval {
    /// `[rows, A]`
    pub query: Shared<[f32]>,
    /// The best score that each unit has found, and scratch memory of the reductions over units.
    pub found: Shared<[f32]>,
    /// The slots of these scores.
    pub found_slot: Shared<[u32]>,
    /// Weights before normalisation, best first, `[rows, ranks]`.
    pub weight: Shared<[f32]>,
    /// The slots of these weights.
    pub ranked: Shared<[u32]>,
}

/// Fills `weight` and `ranked` with the best of each row's visible slots for the states `h`, `[rows, H]`. Every
/// unit of the cube must call it. It ends with a barrier.
#[cube]
pub(super) fn attend<F: Float>(
    call: &mut Call<F>,
    h: &Shared<[f32]>,
    retrieval: &mut Retrieval,
    step: &Step,
    #[comptime] keep: bool,
) {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let a_size = comptime!(v.attention);
    let rows = comptime!(v.rows);
    let units = comptime!(v.units);
    let capacity = comptime!(v.ranks);
    let searchers = comptime!(v.searchers());
    let additive = comptime!(v.score == ScoreKind::Additive);
    let mlp = comptime!(v.score == ScoreKind::Mlp);
    let query_at = comptime!(Packed::of(&v).query);
    let query_bias_at = comptime!(Packed::of(&v).query_bias);
    let v_at = comptime!(Packed::of(&v).v);
    let dot_scale = comptime!((v.attention as f32).sqrt().recip());
    let unit = UNIT_POS as usize;
    let search_row = unit / searchers;
    let searcher = unit % searchers;
    let here = of_row(&*call, step, search_row);

    if additive {
        // The query's term is the same for every slot. It matters only if the scores are the weights.
        if step.rows.raw {
            let mut part = 0.0f32;
            let mut j = searcher;
            while j < h_size {
                part +=
                    f32::cast_from(call.packed[query_at + j]) * h[search_row * h_size + j].tanh();
                j += searchers;
            }
            let sum = sum_of_row(part, search_row, searcher, &mut retrieval.found, v);
            if searcher == 0 {
                retrieval.query[search_row] = sum;
            }
            sync_cube();
        }
    } else {
        let mut p = unit;
        while p < rows * a_size {
            let r = p / a_size;
            let a = p % a_size;
            let mut sum = 0.0f32;
            for j in 0..h_size {
                sum += h[r * h_size + j] * f32::cast_from(call.packed[query_at + j * a_size + a]);
            }
            if mlp {
                sum += f32::cast_from(call.packed[query_bias_at + a]);
            } else {
                sum *= dot_scale;
            }
            retrieval.query[p] = sum;
            if keep && is_row(r, &call.sizes, v) {
                let row = batch_row(r, &call.sizes, v);
                call.saved[call.at.saved.queries + (row * call.sizes.time + step.t) * a_size + a] =
                    F::cast_from(sum);
            }
            p += units;
        }
        sync_cube();
    }

    let row = batch_row(search_row, &call.sizes, v);
    let scores_at = call.at.notes.scores + (CUBE_POS * rows + search_row) * call.sizes.slots;
    let mut best = LOWEST.runtime();
    let mut best_slot = NO_SLOT.runtime();
    let mut slot = here.first + searcher;
    while slot < here.end {
        let mut score = 0.0f32;
        if additive {
            score = f32::cast_from(call.saved[call.at.saved.keys + row * call.sizes.slots + slot]);
            if here.raw {
                score += retrieval.query[search_row];
            }
        } else {
            for a in 0..a_size {
                let key = call.at.saved.keys + (row * a_size + a) * call.sizes.slots + slot;
                let key = f32::cast_from(call.saved[key]);
                let q = retrieval.query[search_row * a_size + a];
                if mlp {
                    score += f32::cast_from(call.packed[v_at + a]) * (q + key).tanh();
                } else {
                    score += q * key;
                }
            }
        }
        call.notes[scores_at + slot] = u32::reinterpret(score);
        if score > best {
            best = score;
            best_slot = slot as u32;
        }
        slot += searchers;
    }
    for k in 0..step.rows.n {
        retrieval.found[unit] = best;
        retrieval.found_slot[unit] = best_slot;
        sync_cube();
        let winner =
            best_of_row(search_row, searcher, &mut retrieval.found, &mut retrieval.found_slot, v);
        let slot = retrieval.found_slot[winner];
        if searcher == 0 && k < here.n {
            retrieval.weight[search_row * capacity + k] = retrieval.found[winner];
            // A row of NaN scores has no winner; any slot is valid then.
            retrieval.ranked[search_row * capacity + k] = min(slot, here.end as u32 - 1);
        }
        if slot == best_slot && slot != NO_SLOT {
            // Only this unit has evaluated the slot. It searches for its next best one.
            call.notes[scores_at + slot as usize] = u32::reinterpret(LOWEST);
            best = LOWEST.runtime();
            best_slot = NO_SLOT.runtime();
            let mut other = here.first + searcher;
            while other < here.end {
                let score = f32::reinterpret(call.notes[scores_at + other]);
                if score > best {
                    best = score;
                    best_slot = other as u32;
                }
                other += searchers;
            }
        }
    }
    sync_cube();

    // Weights from scores, before normalisation, one unit per rank. Each unit reads the first and last
    // score before any unit overwrites them.
    let weighs = comptime!(v.sparsifier == Sparsifier::Softmax) || !here.raw;
    // Where rows differ, all of them pass the barriers.
    if comptime!(v.sparsifier == Sparsifier::Softmax || v.ragged) || weighs {
        let mut offset = 0.0f32;
        if comptime!(v.sparsifier == Sparsifier::Released) {
            offset = comptime!(EPSILON as f32);
        } else if comptime!(v.sparsifier == Sparsifier::Threshold) {
            if here.end - here.first <= call.sizes.k_top {
                offset = -1.0f32;
            }
        }
        let first = retrieval.weight[search_row * capacity];
        let last = retrieval.weight[search_row * capacity + max(here.n, 1) - 1];
        sync_cube();
        let mut k = searcher;
        while weighs && k < here.n {
            let score = retrieval.weight[search_row * capacity + k];
            // Not `score - (last + offset)`: added to a large score, the offset is lost to rounding.
            let mut w = (score - last) - offset;
            if comptime!(v.sparsifier == Sparsifier::Softmax) {
                w = (score - first).exp();
            } else if w <= 0.0f32 {
                // NaN is not below zero: it propagates, as in relu.
                w = 0.0f32;
            }
            retrieval.weight[search_row * capacity + k] = w;
            k += searchers;
        }
        sync_cube();
    }
}
