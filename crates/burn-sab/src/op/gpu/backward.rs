//! The backward pass over time: one launch, whatever the length and however many lanes.
//!
//! A cube owns the rows that it owned in forward and goes through their steps in reverse. Gradient
//! moves from a step to the slots that it retrieved, and from a slot to the step that stored it; the
//! gradients of a row's slots belong to its cube, so nothing is added atomically. What is left are the
//! gradients of pre-activations, queries and keys, from which products of matrices make those of the weights.
//!
//! With a limit on hops the sweep runs once per lane: what lane d adds to a slot is what lane d + 1 takes out.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::cell::{batch_row, is_row, slot_value};
use super::forward::Notes;
use super::plan::{ScoreKind, Sizes, Variant, falls_on, ranks};
use super::recall::{Recall, Step, to_keys, to_scores, to_slots};
use crate::op::options::Sparsifier;

/// Where things lie in what backward writes.
#[derive(CubeType, CubeLaunch, Clone, Copy, Debug)]
pub(super) struct Workspace {
    /// Gradients of `h W_q` (and b), `[B, T, A]`.
    pub queries: usize,
    /// h before each step, `[B, T, H]`.
    pub before: usize,
    /// The provisional hidden states, `[B, T, H]`.
    pub provisional: usize,
    /// All slots, `[B, M, H]`.
    pub memory: usize,
    /// Gradients of the keys, `[B, M, A]`.
    pub keys: usize,
    /// Gradients of the slots on their way, `[B, M, H]`; twice with lanes.
    pub slots: usize,
    /// Gradients of the keys on their way, `[B, M, A]` twice, with lanes.
    pub lane_keys: usize,
    /// Of h and c before the first step, `[B, H]` each.
    pub h0: usize,
    pub c0: usize,
    /// Of the carried slots, `[B, M0, H]`.
    pub carried: usize,
    /// Of the score's vectors, `[B, vectors]`.
    pub vectors: usize,
    /// Of the pre-activations, `[B, T, 4H]`, with lanes; without, they replace the gates.
    pub gates: usize,
}

impl Workspace {
    pub fn to_launch(self) -> WorkspaceLaunch {
        WorkspaceLaunch::new(
            self.queries,
            self.before,
            self.provisional,
            self.memory,
            self.keys,
            self.slots,
            self.lane_keys,
            self.h0,
            self.c0,
            self.carried,
            self.vectors,
            self.gates,
        )
    }
}

/// Where things lie in the packed parameters: the matrices turned, so that neighbouring units, one per
/// hidden unit, read neighbouring numbers.
pub(super) struct Turned {
    /// `[4H, H]`
    pub w_hh: usize,
    /// W_q of dot and mlp, `[A, H]`; u of additive scores.
    pub query: usize,
    /// W_k, W_m, `[A, H]`; v of additive scores.
    pub key: usize,
    /// v of mlp scores.
    pub v: usize,
    /// Upstream gradient of the last c, `[B, H]`; the carried slots, `[B, M0, H]`, follow.
    pub cell: usize,
}

impl Turned {
    pub fn of(v: &Variant) -> Self {
        let (h, a) = (v.hidden, v.attention);
        let query = 4 * h * h;
        let key = query + h * a;
        let vector = key + h * a;
        let cell = vector + if v.score == ScoreKind::Mlp { a } else { 0 };
        Self { w_hh: 0, query, key, v: vector, cell }
    }
}

/// What of the upstream gradients there is, and how gradients travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Paths {
    pub hidden: bool,
    pub summary: bool,
    pub cell: bool,
    /// Whether the number of hops is limited; then what a lane adds to slots goes to the next lane.
    pub limited: bool,
    /// Whether there is more than one lane.
    pub lanes: bool,
}

/// `record`: the gates, which become the gradients of the pre-activations, `[B, T, 4H]`. `up_h`, `up_s`:
/// gradients of hidden states and summaries, `[B, T, H]`, or any buffer where there is none.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
pub(super) fn backward_kernel(
    record: &mut [f32],
    packed: &[f32],
    hidden: &[f32],
    notes: &[f32],
    up_h: &[f32],
    up_s: &[f32],
    work: &mut [f32],
    sizes: Sizes,
    notes_at: Notes,
    work_at: Workspace,
    #[comptime] v: Variant,
    #[comptime] paths: Paths,
) {
    let h_size = comptime!(v.hidden);
    let a_size = comptime!(v.attention);
    let rows = comptime!(v.rows);
    let units = comptime!(v.units);
    let columns = comptime!(4 * v.hidden);
    let capacity = comptime!(v.ranks);
    let parts = comptime!(v.parts());
    let additive = comptime!(v.score == ScoreKind::Additive);
    let vectors = comptime!(v.vectors());
    let w_hh_at = comptime!(Turned::of(&v).w_hh);
    let query_at = comptime!(Turned::of(&v).query);
    let key_at = comptime!(Turned::of(&v).key);
    let cell_at = comptime!(Turned::of(&v).cell);
    let carried_at = cell_at + sizes.batch * h_size;
    // Two units share a column of the product with W_hh where there are enough of them.
    let halves = comptime!(if 2 * v.hidden <= v.units { 2usize } else { 1usize });

    let unit = UNIT_POS as usize;
    let mut grad_h = Shared::<[f32]>::new_slice(rows * h_size);
    let mut grad_c = Shared::<[f32]>::new_slice(rows * h_size);
    // The gradient of the summary; between the steps, the second half of `grad_h`.
    let mut grad_s = Shared::<[f32]>::new_slice(rows * h_size);
    let mut grad_gates =
        Shared::<[f32]>::new_slice(comptime!(if v.gates_in_global { 1 } else { rows * columns }));
    let mut recall = Recall {
        ranked: Shared::<[u32]>::new_slice(rows * capacity),
        weight: Shared::<[f32]>::new_slice(rows * capacity),
        grad_weight: Shared::<[f32]>::new_slice(rows * capacity),
        partial: Shared::<[f32]>::new_slice(rows * capacity * parts),
        grad_score: Shared::<[f32]>::new_slice(rows * capacity),
        grad_query: Shared::<[f32]>::new_slice(rows * a_size),
    };
    // Whether any gradient reaches the present step; the other of the two is cleared for the next.
    let mut alive = Shared::<[u32]>::new_slice(2usize);

    let all_slots = sizes.batch * sizes.slots * h_size;
    let all_keys = sizes.batch * sizes.slots * a_size;
    clear(work, work_at.keys, sizes.slots * a_size, &sizes, v);
    clear(work, work_at.slots, sizes.slots * h_size, &sizes, v);
    clear(work, work_at.h0, h_size, &sizes, v);
    clear(work, work_at.c0, h_size, &sizes, v);
    clear(work, work_at.carried, sizes.carried * h_size, &sizes, v);
    clear(work, work_at.vectors, vectors, &sizes, v);
    if comptime!(paths.lanes) {
        clear(work, work_at.slots + all_slots, sizes.slots * h_size, &sizes, v);
        clear(work, work_at.lane_keys, sizes.slots * a_size, &sizes, v);
        clear(work, work_at.lane_keys + all_keys, sizes.slots * a_size, &sizes, v);
    }
    sync_storage();

    for lane in 0..sizes.lanes {
        let last = comptime!(paths.limited) && lane + 1 == sizes.lanes;
        // Where this lane takes slot gradients from, and where it adds them.
        let mut slots_in = work_at.slots;
        let mut keys_in = work_at.keys;
        let mut slots_out = work_at.slots;
        let mut keys_out = work_at.keys;
        if comptime!(paths.lanes) {
            slots_in += ((lane + 1) % 2) * all_slots;
            keys_in = work_at.lane_keys + ((lane + 1) % 2) * all_keys;
            slots_out += (lane % 2) * all_slots;
            if !last {
                keys_out = work_at.lane_keys + (lane % 2) * all_keys;
            }
        }

        let mut p = unit;
        while p < rows * h_size {
            let row = batch_row(p / h_size, &sizes, rows);
            let mut c = 0.0f32;
            if comptime!(paths.cell) {
                if lane == 0 {
                    c = packed[cell_at + row * h_size + p % h_size];
                }
            }
            grad_c[p] = c;
            grad_h[p] = 0.0f32;
            grad_s[p] = 0.0f32;
            p += units;
        }
        if unit == 0 {
            alive[0] = 0;
        }
        sync_cube();

        let mut m = sizes.slots;
        for back in 0..sizes.time {
            let t = sizes.time - 1 - back;
            let stores = falls_on(t, sizes.first_store, sizes.k_att);
            let starts_window = falls_on(t, sizes.first_window, sizes.k_trunc);
            if stores {
                m -= 1;
            }
            // The slot that this step stored is number m; slots before it, those it could retrieve.
            let takes = stores && (comptime!(!paths.limited) || lane > 0);
            let n = ranks(m, sizes.k_top, v.sparsifier);
            let raw = comptime!(v.sparsifier == Sparsifier::Released) && m <= sizes.k_top;

            // What arrives at h and at the summary.
            if unit == 0 {
                alive[(back + 1) % 2] = 0;
            }
            let mut p = unit;
            while p < rows * h_size {
                let r = p / h_size;
                let j = p % h_size;
                let row = batch_row(r, &sizes, rows);
                let at = (row * sizes.time + t) * h_size + j;
                if !additive && stores && lane == 0 && is_row(r, &sizes, rows) {
                    work[work_at.memory + (row * sizes.slots + m) * h_size + j] = hidden[at];
                }
                let mut grad = grad_h[p];
                if comptime!(halves == 2) {
                    grad += grad_s[p];
                }
                if comptime!(paths.hidden) {
                    if lane == 0 {
                        grad += up_h[at];
                    }
                }
                if takes {
                    let slot = row * sizes.slots + m;
                    grad += work[slots_in + slot * h_size + j];
                    let value = hidden[at];
                    grad +=
                        through_key(&*work, keys_in + slot * a_size, packed, key_at, value, j, v);
                    if comptime!(paths.lanes) {
                        if is_row(r, &sizes, rows) {
                            work[slots_in + slot * h_size + j] = 0.0f32;
                        }
                    }
                }
                grad_h[p] = grad;
                if comptime!(paths.summary) {
                    if lane == 0 {
                        grad += up_s[at];
                    }
                }
                grad_s[p] = grad;
                if grad != 0.0f32 || grad_h[p] != 0.0f32 || grad_c[p] != 0.0f32 {
                    alive[back % 2] = 1;
                }
                p += units;
            }
            let mut p = unit;
            while p < rows * n {
                let r = p / n;
                let k = p % n;
                let row = batch_row(r, &sizes, rows);
                let at = (row * sizes.time + t) * capacity + k;
                recall.weight[r * capacity + k] = notes[notes_at.weights + at];
                recall.ranked[r * capacity + k] = u32::cast_from(notes[notes_at.ranked + at]);
                p += units;
            }
            sync_storage();

            if takes && comptime!(paths.lanes) {
                // Every unit has read the keys' gradients of this slot: they are complete.
                let mut p = unit;
                while p < rows * a_size {
                    let r = p / a_size;
                    if is_row(r, &sizes, rows) {
                        let row = batch_row(r, &sizes, rows);
                        let at = (row * sizes.slots + m) * a_size + p % a_size;
                        work[work_at.keys + at] += work[keys_in + at];
                        work[keys_in + at] = 0.0f32;
                    }
                    p += units;
                }
            }

            // A step that no gradient reaches has nothing to pass on: a path through time ends where a
            // window begins, and starts anew where a slot was retrieved.
            if workgroup_uniform_load(&alive[back % 2]) == 0 {
                if lane == 0 {
                    let mut p = unit;
                    while p < rows * h_size {
                        let r = p / h_size;
                        if is_row(r, &sizes, rows) {
                            let at = batch_row(r, &sizes, rows) * sizes.time + t;
                            leave_empty(record, work, at, p % h_size, &work_at, v, paths);
                        }
                        p += units;
                    }
                }
                sync_cube();
            } else {
                let step = Step { t, m, n, raw, lane };
                if m > 0 {
                    to_scores(
                        &grad_s,
                        &mut recall,
                        packed,
                        hidden,
                        notes,
                        &sizes,
                        &notes_at,
                        &step,
                        v,
                    );
                    to_slots(&grad_s, &recall, work, &sizes, &work_at, slots_out, last, n, v);
                }
                to_keys(
                    &mut recall,
                    packed,
                    notes,
                    work,
                    &sizes,
                    &notes_at,
                    &work_at,
                    keys_out,
                    &step,
                    v,
                );
                sync_cube();

                // The cell.
                let mut p = unit;
                while p < rows * h_size {
                    let r = p / h_size;
                    let j = p % h_size;
                    let row = batch_row(r, &sizes, rows);
                    let writes = is_row(r, &sizes, rows);
                    let step = row * sizes.time + t;
                    let at = step * columns + j;
                    let gate_i = record[at];
                    let gate_f = record[at + h_size];
                    let gate_g = record[at + 2 * h_size];
                    let gate_o = record[at + 3 * h_size];
                    let cell = notes_at.cells + (row * (sizes.time + 1) + t) * h_size + j;
                    let c_before = notes[cell];
                    let tanh_c = notes[cell + h_size].tanh();
                    let provisional = gate_o * tanh_c;

                    let mut grad = grad_h[p];
                    if m > 0 {
                        if additive {
                            if raw {
                                let tanh = provisional.tanh();
                                grad += recall.grad_query[r]
                                    * packed[query_at + j]
                                    * (1.0f32 - tanh * tanh);
                                if writes {
                                    work[work_at.vectors + row * vectors + j] +=
                                        recall.grad_query[r] * tanh;
                                }
                            }
                        } else {
                            for a in 0..a_size {
                                grad += recall.grad_query[r * a_size + a]
                                    * packed[query_at + a * h_size + j];
                            }
                        }
                    }
                    let into_c = grad_c[p] + grad * gate_o * (1.0f32 - tanh_c * tanh_c);
                    let to_i = into_c * gate_g * gate_i * (1.0f32 - gate_i);
                    let to_f = into_c * c_before * gate_f * (1.0f32 - gate_f);
                    let to_g = into_c * gate_i * (1.0f32 - gate_g * gate_g);
                    let to_o = grad * tanh_c * gate_o * (1.0f32 - gate_o);
                    if comptime!(!v.gates_in_global) {
                        grad_gates[r * columns + j] = to_i;
                        grad_gates[r * columns + h_size + j] = to_f;
                        grad_gates[r * columns + 2 * h_size + j] = to_g;
                        grad_gates[r * columns + 3 * h_size + j] = to_o;
                    }
                    if writes {
                        if comptime!(paths.lanes) {
                            let to = work_at.gates + at;
                            if lane == 0 {
                                work[to] = to_i;
                                work[to + h_size] = to_f;
                                work[to + 2 * h_size] = to_g;
                                work[to + 3 * h_size] = to_o;
                            } else {
                                work[to] += to_i;
                                work[to + h_size] += to_f;
                                work[to + 2 * h_size] += to_g;
                                work[to + 3 * h_size] += to_o;
                            }
                        } else {
                            record[at] = to_i;
                            record[at + h_size] = to_f;
                            record[at + 2 * h_size] = to_g;
                            record[at + 3 * h_size] = to_o;
                        }
                        let to = step * h_size + j;
                        work[work_at.before + to] = if t == 0 {
                            notes[notes_at.start + row * h_size + j]
                        } else {
                            hidden[to - h_size]
                        };
                        if !additive {
                            work[work_at.provisional + to] = provisional;
                        }
                    }
                    if starts_window {
                        grad_c[p] = 0.0f32;
                    } else {
                        grad_c[p] = into_c * gate_f;
                    }
                    p += units;
                }
                sync_storage();

                // To the state before, unless a window starts here: each weight serves all rows.
                let mut p = unit;
                while p < h_size * halves {
                    let half = p / h_size;
                    let j = p % h_size;
                    let mut sums = Array::<f32>::new(rows);
                    #[unroll]
                    for r in 0..rows {
                        sums[r] = 0.0f32;
                    }
                    if !starts_window {
                        let each = comptime!(columns / halves);
                        for i in 0..each {
                            let column = half * each + i;
                            let w = packed[w_hh_at + column * h_size + j];
                            #[unroll]
                            for r in 0..rows {
                                if comptime!(v.gates_in_global) {
                                    // One row a cube, and it is one of the batch.
                                    let row = batch_row(r, &sizes, rows);
                                    sums[r] +=
                                        record[(row * sizes.time + t) * columns + column] * w;
                                } else {
                                    sums[r] += grad_gates[r * columns + column] * w;
                                }
                            }
                        }
                    }
                    #[unroll]
                    for r in 0..rows {
                        if half == 0 {
                            grad_h[r * h_size + j] = sums[r];
                        } else {
                            grad_s[r * h_size + j] = sums[r];
                        }
                    }
                    p += units;
                }
                sync_cube();
            }
        }

        // What is left reaches the state before the first step.
        let mut p = unit;
        while p < rows * h_size {
            if is_row(p / h_size, &sizes, rows) {
                let row = batch_row(p / h_size, &sizes, rows);
                let mut grad = grad_h[p];
                if comptime!(halves == 2) {
                    grad += grad_s[p];
                }
                work[work_at.h0 + row * h_size + p % h_size] += grad;
                work[work_at.c0 + row * h_size + p % h_size] += grad_c[p];
            }
            p += units;
        }
        sync_storage();
    }

    // The carried slots, and the additive v, which needs every slot.
    let mut p = unit;
    while p < rows * h_size {
        let r = p / h_size;
        let j = p % h_size;
        if is_row(r, &sizes, rows) {
            let row = batch_row(r, &sizes, rows);
            for slot in 0..sizes.carried {
                let at = (row * sizes.carried + slot) * h_size + j;
                let value = packed[carried_at + at];
                let key = work_at.keys + (row * sizes.slots + slot) * a_size;
                work[work_at.carried + at] += through_key(&*work, key, packed, key_at, value, j, v);
                if !additive {
                    work[work_at.memory + (row * sizes.slots + slot) * h_size + j] = value;
                }
            }
            if additive {
                let mut sum = 0.0f32;
                for slot in 0..sizes.slots {
                    let value =
                        slot_value(row, slot, j, packed, carried_at, hidden, &sizes, h_size);
                    sum += work[work_at.keys + row * sizes.slots + slot] * value.tanh();
                }
                work[work_at.vectors + row * vectors + h_size + j] = sum;
            }
        }
        p += units;
    }
}

/// Fills what belongs to this cube's rows with zeros: `each` numbers a row.
#[cube]
fn clear(work: &mut [f32], at: usize, each: usize, sizes: &Sizes, #[comptime] v: Variant) {
    let rows = comptime!(v.rows);
    let first = CUBE_POS * rows;
    let end = min(first + rows, sizes.batch) * each;
    let mut i = first * each + UNIT_POS as usize;
    while i < end {
        work[at + i] = 0.0f32;
        i += comptime!(v.units);
    }
}

/// Writes what a step leaves that no gradient reached, for hidden unit `j` of the step (and row) `at`.
#[cube]
fn leave_empty(
    record: &mut [f32],
    work: &mut [f32],
    at: usize,
    j: usize,
    work_at: &Workspace,
    #[comptime] v: Variant,
    #[comptime] paths: Paths,
) {
    let h_size = comptime!(v.hidden);
    for gate in 0..4usize {
        let to = at * comptime!(4 * v.hidden) + gate * h_size + j;
        if comptime!(paths.lanes) {
            work[work_at.gates + to] = 0.0f32;
        } else {
            record[to] = 0.0f32;
        }
    }
    work[work_at.before + at * h_size + j] = 0.0f32;
    if comptime!(v.score != ScoreKind::Additive) {
        work[work_at.provisional + at * h_size + j] = 0.0f32;
        let mut a = j;
        while a < comptime!(v.attention) {
            work[work_at.queries + at * comptime!(v.attention) + a] = 0.0f32;
            a += h_size;
        }
    }
}

/// What the gradient of a slot's key, at `key` in `work`, gives to number `j` of the slot.
#[cube]
fn through_key(
    work: &[f32],
    key: usize,
    packed: &[f32],
    key_at: usize,
    value: f32,
    j: usize,
    #[comptime] v: Variant,
) -> f32 {
    let mut sum = 0.0f32;
    if comptime!(v.score == ScoreKind::Additive) {
        let tanh = value.tanh();
        sum = work[key] * packed[key_at + j] * (1.0f32 - tanh * tanh);
    } else {
        for a in 0..comptime!(v.attention) {
            sum += work[key + a] * packed[key_at + a * comptime!(v.hidden) + j];
        }
    }
    sum
}
