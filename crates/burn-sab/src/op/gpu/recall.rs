//! Gradients of a retrieval: from the summary to the weights, the scores, the queries and the slots.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::backward::{Turned, Workspace};
use super::cell::{batch_row, is_row, slot_value};
use super::forward::Notes;
use super::plan::{ScoreKind, Sizes, Variant};
use crate::op::options::Sparsifier;

/// What a cube knows of the retrieval at the present step; all in shared memory.
#[derive(CubeType)]
pub(super) struct Recall {
    /// Ranked slots, best first, `[rows, ranks]`.
    pub ranked: Shared<[u32]>,
    /// Their weights.
    pub weight: Shared<[f32]>,
    /// Gradients of the weights, and parts of these, `[rows, ranks, parts]`.
    pub grad_weight: Shared<[f32]>,
    pub partial: Shared<[f32]>,
    /// Gradients of the scores.
    pub grad_score: Shared<[f32]>,
    /// Gradients of `h W_q`, `[rows, A]`; of the sum of scores for additive ones.
    pub grad_query: Shared<[f32]>,
}

/// The present step, as far as its retrieval goes.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Step {
    pub t: usize,
    /// Slots that it could retrieve.
    pub m: usize,
    /// Slots that decided the weights.
    pub n: usize,
    /// Whether the weights are the scores.
    pub raw: bool,
    pub lane: usize,
}

/// From the gradient of the summary, `[rows, H]`, to those of the ranked scores, the selection held fixed.
/// Every unit of the cube calls it; a barrier comes last.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn to_scores(
    grad_s: &Shared<[f32]>,
    recall: &mut Recall,
    packed: &[f32],
    hidden: &[f32],
    notes: &[f32],
    sizes: &Sizes,
    notes_at: &Notes,
    step: &Step,
    #[comptime] v: Variant,
) {
    let h_size = comptime!(v.hidden);
    let rows = comptime!(v.rows);
    let units = comptime!(v.units);
    let capacity = comptime!(v.ranks);
    let parts = comptime!(v.parts());
    let carried_at = comptime!(Turned::of(&v).cell) + sizes.batch * h_size;
    let unit = UNIT_POS as usize;
    let t = step.t;
    let n = step.n;
    let raw = step.raw;

    // Gradients of the weights: products over H, each shared by a few neighbouring units.
    let mut p = unit;
    while p < rows * n * parts {
        let r = p / (n * parts);
        let k = (p / parts) % n;
        let row = batch_row(r, sizes, rows);
        let mut sum = 0.0f32;
        if recall.weight[r * capacity + k] != 0.0f32 || raw {
            let slot = recall.ranked[r * capacity + k] as usize;
            let mut j = p % parts;
            while j < h_size {
                let value = slot_value(row, slot, j, packed, carried_at, hidden, sizes, h_size);
                sum += grad_s[r * h_size + j] * value;
                j += parts;
            }
        }
        recall.partial[p] = sum;
        p += units;
    }
    sync_cube();
    let mut p = unit;
    while p < rows * n {
        let mut sum = 0.0f32;
        for part in 0..parts {
            sum += recall.partial[p * parts + part];
        }
        recall.grad_weight[(p / n) * capacity + p % n] = sum;
        p += units;
    }
    sync_cube();

    // Gradients of the scores, the selection held fixed.
    let mut p = unit;
    while p < rows * n {
        let r = p / n;
        let k = p % n;
        let first = r * capacity;
        let mut grad = recall.grad_weight[first + k];
        if !raw {
            let mut mean = 0.0f32;
            for i in 0..n {
                mean += recall.weight[first + i] * recall.grad_weight[first + i];
            }
            if comptime!(v.sparsifier == Sparsifier::Softmax) {
                grad = recall.weight[first + k] * (grad - mean);
            } else {
                let row = batch_row(r, sizes, rows);
                let sum = notes[notes_at.sums + row * sizes.time + t];
                grad = excess_gradient(recall.weight[first + k], grad, mean, sum);
                if k == n - 1 {
                    // The last rank supplies the threshold.
                    for i in 0..n {
                        let other = recall.grad_weight[first + i];
                        grad -= excess_gradient(recall.weight[first + i], other, mean, sum);
                    }
                }
            }
        }
        recall.grad_score[first + k] = grad;
        p += units;
    }
    sync_cube();
}

/// To the retrieved slots: a unit owns a column of all slots of its row. What goes to slots of this call is
/// added at `slots_out`, unless this is the last lane.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn to_slots(
    grad_s: &Shared<[f32]>,
    recall: &Recall,
    work: &mut [f32],
    sizes: &Sizes,
    work_at: &Workspace,
    slots_out: usize,
    last: bool,
    n: usize,
    #[comptime] v: Variant,
) {
    let h_size = comptime!(v.hidden);
    let rows = comptime!(v.rows);
    let units = comptime!(v.units);
    let capacity = comptime!(v.ranks);
    let unit = UNIT_POS as usize;
    if !last {
        let mut p = unit;
        while p < rows * h_size {
            let r = p / h_size;
            let j = p % h_size;
            if is_row(r, sizes, rows) {
                let row = batch_row(r, sizes, rows);
                for k in 0..n {
                    let w = recall.weight[r * capacity + k];
                    let slot = recall.ranked[r * capacity + k] as usize;
                    if w != 0.0f32 && slot >= sizes.carried {
                        let at = slots_out + (row * sizes.slots + slot) * h_size + j;
                        work[at] += w * grad_s[p];
                    }
                }
            }
            p += units;
        }
    }
    // Carried slots are tensors from outside: they take gradient from every lane.
    if sizes.carried > 0 {
        let mut p = unit;
        while p < rows * h_size {
            let r = p / h_size;
            let j = p % h_size;
            if is_row(r, sizes, rows) {
                let row = batch_row(r, sizes, rows);
                for k in 0..n {
                    let slot = recall.ranked[r * capacity + k] as usize;
                    if slot < sizes.carried {
                        let at = work_at.carried + (row * sizes.carried + slot) * h_size + j;
                        work[at] += recall.weight[r * capacity + k] * grad_s[p];
                    }
                }
            }
            p += units;
        }
    }
}

/// To the query and the keys: a unit owns a column of all keys of its row. Those of slots of this call are
/// added at `keys_out`.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn to_keys(
    recall: &mut Recall,
    packed: &[f32],
    notes: &[f32],
    work: &mut [f32],
    sizes: &Sizes,
    notes_at: &Notes,
    work_at: &Workspace,
    keys_out: usize,
    step: &Step,
    #[comptime] v: Variant,
) {
    let a_size = comptime!(v.attention);
    let rows = comptime!(v.rows);
    let units = comptime!(v.units);
    let capacity = comptime!(v.ranks);
    let additive = comptime!(v.score == ScoreKind::Additive);
    let mlp = comptime!(v.score == ScoreKind::Mlp);
    let dot = comptime!(v.score == ScoreKind::Dot);
    let vectors = comptime!(v.vectors());
    let v_at = comptime!(Turned::of(&v).v);
    let dot_scale = comptime!((v.attention as f32).sqrt().recip());
    let unit = UNIT_POS as usize;
    let t = step.t;
    let m = step.m;
    let n = step.n;
    let raw = step.raw;
    let lane = step.lane;

    let mut p = unit;
    while p < rows * a_size {
        let r = p / a_size;
        let a = p % a_size;
        let row = batch_row(r, sizes, rows);
        let of_step = row * sizes.time + t;
        let writes = is_row(r, sizes, rows);
        let mut to_query = 0.0f32;
        let mut to_v = 0.0f32;
        if m > 0 {
            let mut q = 0.0f32;
            if !additive {
                q = notes[notes_at.queries + of_step * a_size + a];
            }
            for k in 0..n {
                let grad = recall.grad_score[r * capacity + k];
                if grad != 0.0f32 {
                    let slot = recall.ranked[r * capacity + k] as usize;
                    let mut to_key = grad;
                    if additive {
                        to_query += grad;
                    } else {
                        let key = notes[(row * a_size + a) * sizes.slots + slot];
                        if mlp {
                            let tanh = (q + key).tanh();
                            to_key = grad * packed[v_at + a] * (1.0f32 - tanh * tanh);
                            to_query += to_key;
                            to_v += grad * tanh;
                        } else {
                            to_key = grad * q;
                            to_query += grad * key;
                        }
                    }
                    if writes {
                        let of = if slot < sizes.carried { work_at.keys } else { keys_out };
                        work[of + (row * sizes.slots + slot) * a_size + a] += to_key;
                    }
                }
            }
            // The additive query moves all scores alike: where only their differences count, its
            // gradient is nought.
            if additive && !raw {
                to_query = 0.0f32;
            }
        }
        if dot {
            to_query *= dot_scale;
        }
        recall.grad_query[p] = to_query;
        if writes && !additive {
            let at = work_at.queries + of_step * a_size + a;
            if lane == 0 {
                work[at] = to_query;
            } else {
                work[at] += to_query;
            }
            if mlp {
                work[work_at.vectors + row * vectors + a] += to_query;
                work[work_at.vectors + row * vectors + a_size + a] += to_v;
            }
        }
        p += units;
    }
}

/// Gradient of `relu(a - threshold) / sum` for `a` alone, from the weight and its gradient.
#[cube]
fn excess_gradient(weight: f32, grad: f32, mean: f32, sum: f32) -> f32 {
    let mut out = 0.0f32;
    if weight != 0.0f32 {
        out = (grad - mean) / sum;
    }
    out
}
