//! From the provisional hidden states of a step to the slots that are retrieved: queries, scores of all
//! slots, the best few of them, and their weights.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::call::{Call, batch_row, is_row};
use super::layout::Packed;
use super::select::{LOWEST, NO_SLOT, best_of_row, sum_of_row};
use crate::op::options::EPSILON;
use crate::op::score::ScoreKind;
use crate::op::settings::Sparsifier;

/// What a cube knows of the retrieval at the present step; all in shared memory.
#[derive(CubeType)]
pub(super) struct Finds {
    /// `[rows, A]`
    pub query: Shared<[f32]>,
    /// The best score that each unit has found, and what the reductions over units need.
    pub found: Shared<[f32]>,
    /// Its slot.
    pub found_slot: Shared<[u32]>,
    /// Weights before their division by the sum, best first, `[rows, ranks]`.
    pub weight: Shared<[f32]>,
    /// Their slots.
    pub ranked: Shared<[u32]>,
}

/// Fills `weight` and `ranked` with the `n` best of the `m` slots for the states `h`, `[rows, H]`. Every
/// unit of the cube calls it; a barrier comes last.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn attend<F: Float>(
    call: &mut Call<F>,
    h: &Shared<[f32]>,
    finds: &mut Finds,
    t: usize,
    m: usize,
    n: usize,
    raw: bool,
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

    if additive {
        // The query's term is the same for every slot: it only counts where scores are weights.
        if raw {
            let mut part = 0.0f32;
            let mut j = searcher;
            while j < h_size {
                part +=
                    f32::cast_from(call.packed[query_at + j]) * h[search_row * h_size + j].tanh();
                j += searchers;
            }
            let sum = sum_of_row(part, search_row, searcher, &mut finds.found, v);
            if searcher == 0 {
                finds.query[search_row] = sum;
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
            finds.query[p] = sum;
            if keep && is_row(r, &call.sizes, v) {
                let row = batch_row(r, &call.sizes, v);
                call.kept[call.at.kept.queries + (row * call.sizes.time + t) * a_size + a] =
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
    let mut slot = searcher;
    while slot < m {
        let mut score = 0.0f32;
        if additive {
            score = f32::cast_from(call.kept[call.at.kept.keys + row * call.sizes.slots + slot]);
            if raw {
                score += finds.query[search_row];
            }
        } else {
            for a in 0..a_size {
                let key = call.at.kept.keys + (row * a_size + a) * call.sizes.slots + slot;
                let key = f32::cast_from(call.kept[key]);
                let q = finds.query[search_row * a_size + a];
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
    for k in 0..n {
        finds.found[unit] = best;
        finds.found_slot[unit] = best_slot;
        sync_cube();
        let winner = best_of_row(search_row, searcher, &mut finds.found, &mut finds.found_slot, v);
        let slot = finds.found_slot[winner];
        if searcher == 0 {
            finds.weight[search_row * capacity + k] = finds.found[winner];
            // Scores that are no numbers win nothing; any slot will do.
            finds.ranked[search_row * capacity + k] = min(slot, m as u32 - 1);
        }
        if slot == best_slot && slot != NO_SLOT {
            // Only this unit has seen the slot; it looks for its next best.
            call.notes[scores_at + slot as usize] = u32::reinterpret(LOWEST);
            best = LOWEST.runtime();
            best_slot = NO_SLOT.runtime();
            let mut other = searcher;
            while other < m {
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

    // From scores to weights, before their division by the sum. One unit a rank: it reads the
    // first and last score before anyone overwrites them.
    if comptime!(v.sparsifier == Sparsifier::Softmax) || !raw {
        let mut offset = 0.0f32;
        if comptime!(v.sparsifier == Sparsifier::Released) {
            offset = comptime!(EPSILON as f32);
        } else if comptime!(v.sparsifier == Sparsifier::Threshold) {
            if m <= call.sizes.k_top {
                offset = -1.0f32;
            }
        }
        let first = finds.weight[search_row * capacity];
        let last = finds.weight[search_row * capacity + n - 1];
        sync_cube();
        let mut k = searcher;
        while k < n {
            let score = finds.weight[search_row * capacity + k];
            // Not `score - (last + offset)`: beside a large score the offset is lost.
            let mut w = (score - last) - offset;
            if comptime!(v.sparsifier == Sparsifier::Softmax) {
                w = (score - first).exp();
            } else if w <= 0.0f32 {
                // Not where it is no number: that comes through, as in relu.
                w = 0.0f32;
            }
            finds.weight[search_row * capacity + k] = w;
            k += searchers;
        }
        sync_cube();
    }
}
