//! Gradients of the retrieval of one step: from the summary to the weights, the scores, the queries, the
//! keys and the slots.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::call::{Call, batch_row, is_row};
use super::flow::{Lane, Paths};
use super::layout::Packed;
use super::schedule::{Step, of_row};
use crate::op::score::ScoreKind;
use crate::op::settings::Sparsifier;

/// A cube's data on the retrieval of the current step, in shared memory.
#[derive(CubeType)]
pub(super) struct Recall {
    /// Ranked slots, best first, `[rows, ranks]`.
    pub ranked: Shared<[u32]>,
    /// Their weights, `[rows, ranks]`.
    pub weight: Shared<[f32]>,
    /// Gradients of the weights, `[rows, ranks]`, and their partial sums, `[rows, ranks, parts]`.
    pub grad_weight: Shared<[f32]>,
    pub partial: Shared<[f32]>,
    /// Gradients of the scores, `[rows, ranks]`.
    pub grad_score: Shared<[f32]>,
    /// Gradients of `h W_q`, `[rows, A]`; for additive scores, the sum of the gradients of the scores.
    pub grad_query: Shared<[f32]>,
}

/// Computes the gradients of the ranked scores from that of the summary, `[rows, H]`, for a fixed
/// selection. Every unit of the cube must call it. It ends with a barrier.
#[cube]
pub(super) fn to_scores<F: Float>(
    call: &Call<F>,
    grad_s: &Shared<[f32]>,
    recall: &mut Recall,
    step: &Step,
) {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let rows = comptime!(v.rows);
    let units = comptime!(v.units);
    let capacity = comptime!(v.ranks);
    let parts = comptime!(v.parts());
    let unit = UNIT_POS as usize;
    let n = step.rows.n;

    // Gradients of the weights: dot products over H, each computed by a few neighbouring units.
    let mut p = unit;
    while p < rows * n * parts {
        let r = p / (n * parts);
        let k = (p / parts) % n;
        let row = batch_row(r, &call.sizes, v);
        let here = of_row(call, step, r);
        let mut sum = 0.0f32;
        if recall.weight[r * capacity + k] != 0.0f32 || (here.raw && k < here.n) {
            let slot = recall.ranked[r * capacity + k] as usize;
            let mut j = p % parts;
            while j < h_size {
                let at = (row * call.sizes.slots + slot) * h_size + j;
                sum += grad_s[r * h_size + j] * f32::cast_from(call.saved[at]);
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

    // Gradients of the scores, for a fixed selection.
    let mut p = unit;
    while p < rows * n {
        let r = p / n;
        let k = p % n;
        let here = of_row(call, step, r);
        let first = r * capacity;
        let mut grad = recall.grad_weight[first + k];
        if !here.raw {
            let mut mean = 0.0f32;
            for i in 0..n {
                mean += recall.weight[first + i] * recall.grad_weight[first + i];
            }
            if comptime!(v.sparsifier == Sparsifier::Softmax) {
                grad = recall.weight[first + k] * (grad - mean);
            } else {
                let row = batch_row(r, &call.sizes, v);
                let at = call.at.notes.sums + row * call.sizes.time + step.t;
                let sum = f32::reinterpret(call.notes[at]);
                grad = excess_gradient(recall.weight[first + k], grad, mean, sum);
                if k + 1 == here.n {
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

/// Adds the gradients of the retrieved slots; a unit owns one column of all slots of its row. Gradients
/// of this call's slots are added at the lane's offset, except by the last lane.
#[cube]
pub(super) fn to_slots<F: Float>(
    call: &Call<F>,
    grad_s: &Shared<[f32]>,
    recall: &Recall,
    work: &mut [f32],
    step: &Step,
    way: &Lane,
) {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let rows = comptime!(v.rows);
    let units = comptime!(v.units);
    let capacity = comptime!(v.ranks);
    let unit = UNIT_POS as usize;
    if !way.last {
        let mut p = unit;
        while p < rows * h_size {
            let r = p / h_size;
            let j = p % h_size;
            if is_row(r, &call.sizes, v) {
                let row = batch_row(r, &call.sizes, v);
                let here = of_row(call, step, r);
                for k in 0..here.n {
                    let w = recall.weight[r * capacity + k];
                    let slot = recall.ranked[r * capacity + k] as usize;
                    if w != 0.0f32 && slot >= call.sizes.carried {
                        let at = way.slots_out + (row * call.sizes.slots + slot) * h_size + j;
                        work[at] += w * grad_s[p];
                    }
                }
            }
            p += units;
        }
    }
    // Carried slots are inputs of the call: they receive gradient from every lane.
    if call.sizes.carried > 0 {
        let mut p = unit;
        while p < rows * h_size {
            let r = p / h_size;
            let j = p % h_size;
            if is_row(r, &call.sizes, v) {
                let row = batch_row(r, &call.sizes, v);
                let here = of_row(call, step, r);
                for k in 0..here.n {
                    let slot = recall.ranked[r * capacity + k] as usize;
                    if slot < call.sizes.carried {
                        let at =
                            call.at.work.carried + (row * call.sizes.carried + slot) * h_size + j;
                        work[at] += recall.weight[r * capacity + k] * grad_s[p];
                    }
                }
            }
            p += units;
        }
    }
}

/// Adds the gradients of the factors on the summary: the gradient of h, `[rows, H]`, times the summary. A
/// unit owns one factor of its row.
#[cube]
pub(super) fn to_gain<F: Float>(
    call: &Call<F>,
    grad_h: &Shared<[f32]>,
    recall: &Recall,
    work: &mut [f32],
    step: &Step,
) {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let capacity = comptime!(v.ranks);
    let mut p = UNIT_POS as usize;
    while p < comptime!(v.rows * v.hidden) {
        let r = p / h_size;
        let j = p % h_size;
        if is_row(r, &call.sizes, v) {
            let row = batch_row(r, &call.sizes, v);
            let here = of_row(call, step, r);
            let mut summary = 0.0f32;
            for k in 0..here.n {
                let w = recall.weight[r * capacity + k];
                if w != 0.0f32 {
                    let slot = row * call.sizes.slots + recall.ranked[r * capacity + k] as usize;
                    summary += w * f32::cast_from(call.saved[slot * h_size + j]);
                }
            }
            let vectors = call.at.work.vectors + row * comptime!(v.vectors());
            work[vectors + comptime!(v.score_vectors()) + j] += grad_h[p] * summary;
        }
        p += comptime!(v.units);
    }
}

/// Computes the gradient of the query and adds those of the keys; a unit owns one column of all keys of
/// its row. Key gradients of this call's slots are added at the lane's offset. The gradient of the query
/// replaces the query.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn to_keys<F: Float>(
    call: &mut Call<F>,
    recall: &mut Recall,
    work: &mut [f32],
    step: &Step,
    way: &Lane,
    #[comptime] paths: Paths,
) {
    let v = comptime!(call.v);
    let a_size = comptime!(v.attention);
    let rows = comptime!(v.rows);
    let units = comptime!(v.units);
    let capacity = comptime!(v.ranks);
    let additive = comptime!(v.score == ScoreKind::Additive);
    let mlp = comptime!(v.score == ScoreKind::Mlp);
    let dot = comptime!(v.score == ScoreKind::Dot);
    let vectors = comptime!(v.vectors());
    let v_at = comptime!(Packed::of(&v).v);
    let dot_scale = comptime!((v.attention as f32).sqrt().recip());
    let unit = UNIT_POS as usize;

    let mut p = unit;
    while p < rows * a_size {
        let r = p / a_size;
        let a = p % a_size;
        let row = batch_row(r, &call.sizes, v);
        let here = of_row(&*call, step, r);
        let of_step = row * call.sizes.time + step.t;
        let writes = here.counts && is_row(r, &call.sizes, v);
        let mut to_query = 0.0f32;
        let mut to_v = 0.0f32;
        if here.n > 0 {
            let mut q = 0.0f32;
            if !additive {
                q = f32::cast_from(call.saved[call.at.saved.queries + of_step * a_size + a]);
            }
            for k in 0..here.n {
                let grad = recall.grad_score[r * capacity + k];
                if grad != 0.0f32 {
                    let slot = recall.ranked[r * capacity + k] as usize;
                    let mut to_key = grad;
                    if additive {
                        to_query += grad;
                    } else {
                        let key = (row * a_size + a) * call.sizes.slots + slot;
                        let key = f32::cast_from(call.saved[call.at.saved.keys + key]);
                        if mlp {
                            let tanh = (q + key).tanh();
                            to_key = grad
                                * f32::cast_from(call.packed[v_at + a])
                                * (1.0f32 - tanh * tanh);
                            to_query += to_key;
                            to_v += grad * tanh;
                        } else {
                            to_key = grad * q;
                            to_query += grad * key;
                        }
                    }
                    if writes {
                        let of = if slot < call.sizes.carried {
                            call.at.work.keys
                        } else {
                            way.keys_out
                        };
                        work[of + (row * call.sizes.slots + slot) * a_size + a] += to_key;
                    }
                }
            }
            // The additive query adds one term to all scores. If only differences of scores matter, its
            // gradient is zero.
            if additive && !here.raw {
                to_query = 0.0f32;
            }
        }
        if dot {
            to_query *= dot_scale;
        }
        recall.grad_query[p] = to_query;
        if writes && !additive {
            let at = of_step * a_size + a;
            if comptime!(paths.lanes) {
                work[call.at.work.queries + at] += to_query;
            } else {
                call.saved[call.at.saved.queries + at] = F::cast_from(to_query);
            }
            if mlp {
                work[call.at.work.vectors + row * vectors + a] += to_v;
            }
        }
        p += units;
    }
}

/// Gradient of `relu(a - threshold) / sum` with respect to `a` alone, from the weight and its gradient.
#[cube]
fn excess_gradient(weight: f32, grad: f32, mean: f32, sum: f32) -> f32 {
    let mut out = 0.0f32;
    if weight != 0.0f32 {
        out = (grad - mean) / sum;
    }
    out
}

/// Returns the contribution of a key's gradient, at `key` in `work`, to the gradient of element `j` of
/// its slot. `slot` counts over `[B M]`.
#[cube]
pub(super) fn through_key<F: Float>(
    call: &Call<F>,
    work: &[f32],
    key: usize,
    slot: usize,
    j: usize,
) -> f32 {
    let v = comptime!(call.v);
    let h_size = comptime!(v.hidden);
    let key_at = comptime!(Packed::of(&v).transposed_key);
    let mut sum = 0.0f32;
    if comptime!(v.score == ScoreKind::Additive) {
        let tanh = f32::cast_from(call.saved[slot * h_size + j]).tanh();
        sum = work[key] * f32::cast_from(call.packed[key_at + j]) * (1.0f32 - tanh * tanh);
    } else {
        for a in 0..comptime!(v.attention) {
            sum += work[key + a] * f32::cast_from(call.packed[key_at + a * h_size + j]);
        }
    }
    sum
}
