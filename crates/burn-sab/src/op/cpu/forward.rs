//! The forward pass.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::super::options::SabOptions;
use super::float::Float;
use super::matrix::{Matrix, MatrixMut, Target, multiply};
use super::score::Ranking;
use super::sparsify::{self, Rule};
use super::vector::{scratch, sum, take, weighted_sum};
use super::{Call, Inputs, Keep, Outputs, Saved, Shape, Trace, augmented, cell, tile_rows};

/// Keys of carried slots that are computed together: more than the 16 rows from which on the product
/// runs at full speed (see `tile_rows`), and a small block.
const KEY_ROWS: usize = 64;

/// Most bytes of gates that [`Keep::Auto`] keeps: a budget for one call, not a measured optimum. Kept
/// gates grow with the sequence and are several times the hidden states, and memory for a long past is
/// what the layer is there to save; without them the backward pass takes 47 ms instead of 33, the
/// forward pass 23 instead of 25 (measured with B 64, T 120, I 10, H 128, A 64, f32, one thread). At
/// those sizes the budget lasts for 1,489 steps.
const AUTO_GATES: usize = 256 << 20;

/// Runs the layer over a sequence; with the outputs comes what [`super::backward()`] needs, unless
/// `keep` is [`Keep::Nothing`].
///
/// # Panics
///
/// Panics where a slice has not the number of elements that `inputs.shape` says.
pub fn forward<T: Float>(
    inputs: &Inputs<'_, T>,
    options: &SabOptions,
    keep: Keep,
) -> (Outputs<T>, Option<Saved<T>>) {
    forward_on(Arch::new(), inputs, options, keep)
}

/// [`forward()`] with a given instruction set; no result depends on it.
pub(super) fn forward_on<T: Float>(
    arch: Arch,
    inputs: &Inputs<'_, T>,
    options: &SabOptions,
    keep: Keep,
) -> (Outputs<T>, Option<Saved<T>>) {
    let call = Call::new(inputs, options, arch);
    let Shape { batch, time, hidden, .. } = inputs.shape;
    let mut outputs = Outputs {
        h: scratch(batch * time * hidden),
        s: scratch(batch * time * hidden),
        c: scratch(batch * hidden),
        slots: vec![0; batch * time * options.k_top],
        weights: scratch(batch * time * options.k_top),
    };
    let segments = call.schedule.segments();
    let gates = batch * time * call.record();
    let keep = match keep {
        Keep::Auto if gates * size_of::<T>() <= AUTO_GATES => Keep::Gates,
        Keep::Auto => Keep::Cells,
        keep => keep,
    };
    let mut saved = (keep != Keep::Nothing).then(|| Saved {
        ranks: vec![0; batch * time * call.width],
        weights: vec![T::ZERO; batch * time * call.width],
        sums: vec![T::ONE; batch * time],
        keys: if call.attends() {
            scratch(batch * call.schedule.total_slots() * call.key_width())
        } else {
            vec![]
        },
        trace: match keep {
            Keep::Gates => Trace::Gates(scratch(gates)),
            _ => Trace::Cells(scratch(batch * segments.len() * hidden)),
        },
    });

    let (mut h, mut s, mut c) = (&mut outputs.h[..], &mut outputs.s[..], &mut outputs.c[..]);
    let (mut slots, mut weights) = (&mut outputs.slots[..], &mut outputs.weights[..]);
    let mut rest = saved.as_mut().map(|saved| Kept {
        ranks: &mut saved.ranks,
        weights: &mut saved.weights,
        sums: &mut saved.sums,
        keys: &mut saved.keys,
        trace: match &mut saved.trace {
            Trace::Gates(gates) => KeptTrace::Gates(gates),
            Trace::Cells(cells) => KeptTrace::Cells(cells),
        },
    });
    let mut tiles = Vec::new();
    let per_tile = tile_rows(batch);
    for first in (0..batch).step_by(per_tile) {
        let rows = per_tile.min(batch - first);
        tiles.push(Tile {
            call: &call,
            segments: &segments,
            first,
            rows,
            h: take(&mut h, rows * time * hidden),
            s: take(&mut s, rows * time * hidden),
            c: take(&mut c, rows * hidden),
            slots: take(&mut slots, rows * time * options.k_top),
            weights: take(&mut weights, rows * time * options.k_top),
            kept: rest.as_mut().map(|rest| rest.take(&call, rows, segments.len())),
        });
    }
    tiles.into_par_iter().for_each(|tile| call.arch.dispatch(tile));
    (outputs, saved)
}

/// A tile's share of [`Saved`], or what is left of all.
struct Kept<'a, T> {
    ranks: &'a mut [u32],
    weights: &'a mut [T],
    sums: &'a mut [T],
    keys: &'a mut [T],
    trace: KeptTrace<'a, T>,
}

enum KeptTrace<'a, T> {
    Gates(&'a mut [T]),
    Cells(&'a mut [T]),
}

impl<'a, T: Float> Kept<'a, T> {
    fn take(&mut self, call: &Call<'_, T>, rows: usize, segments: usize) -> Self {
        let Shape { time, hidden, .. } = call.inputs.shape;
        let keys = if call.attends() { call.schedule.total_slots() * call.key_width() } else { 0 };
        Self {
            ranks: take(&mut self.ranks, rows * time * call.width),
            weights: take(&mut self.weights, rows * time * call.width),
            sums: take(&mut self.sums, rows * time),
            keys: take(&mut self.keys, rows * keys),
            trace: match &mut self.trace {
                KeptTrace::Gates(gates) => {
                    KeptTrace::Gates(take(gates, rows * time * call.record()))
                }
                KeptTrace::Cells(cells) => KeptTrace::Cells(take(cells, rows * segments * hidden)),
            },
        }
    }
}

/// Some rows of the batch, from `first`, and their share of every array of the call.
struct Tile<'a, T> {
    call: &'a Call<'a, T>,
    segments: &'a [usize],
    first: usize,
    rows: usize,
    h: &'a mut [T],
    s: &'a mut [T],
    c: &'a mut [T],
    slots: &'a mut [i32],
    weights: &'a mut [T],
    kept: Option<Kept<'a, T>>,
}

impl<T: Float> WithSimd for Tile<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.run();
    }
}

impl<T: Float> Tile<'_, T> {
    #[inline(always)]
    fn run(mut self) {
        let (call, rows) = (self.call, self.rows);
        let Shape { time, input, hidden, attention, .. } = call.inputs.shape;
        let (wide, record, k_top) =
            (augmented(&call.inputs.shape), call.record(), call.options.k_top);
        let stacked = Matrix::new(&call.stacked, wide, 4 * hidden);
        let state = self.first * hidden..(self.first + rows) * hidden;
        let x = &call.inputs.x[self.first * time * input..];

        // [1 | x_t | h_{t-1}], one row for each of the tile's.
        let mut augmented: Vec<T> = scratch(rows * wide);
        for (row, h0) in
            augmented.chunks_mut(wide).zip(call.inputs.h0[state.clone()].chunks(hidden))
        {
            row[0] = T::ONE;
            row[1 + input..].copy_from_slice(h0);
        }
        self.c.copy_from_slice(&call.inputs.c0[state]);
        let mut provisional: Vec<T> = scratch(rows * hidden);
        let mut record_scratch: Vec<T> = scratch(rows * record);
        let (mut best, mut best_slots) = (scratch(call.width), vec![0; call.width]);
        let (mut weights, mut keys) = (scratch(call.width), scratch(rows * call.key_width()));
        let mut ranking = Ranking::new(call, if call.attends() { rows } else { 0 });
        if call.attends() {
            self.rank_carried(&mut ranking);
        }

        let mut retrieved: Vec<(T, u32)> = Vec::with_capacity(call.width);
        let mut segment = 0;
        for t in 0..time {
            for (r, row) in augmented.chunks_mut(wide).enumerate() {
                row[1..1 + input].copy_from_slice(&x[(r * time + t) * input..][..input]);
            }
            let (mut selection, trace) = match &mut self.kept {
                Some(Kept { ranks, weights, sums, trace, .. }) => {
                    (Some((ranks, weights, sums)), Some(trace))
                }
                None => (None, None),
            };
            let records = match trace {
                Some(KeptTrace::Gates(gates)) => &mut gates[t * rows * record..][..rows * record],
                Some(KeptTrace::Cells(cells)) => {
                    if self.segments.get(segment) == Some(&t) {
                        for (r, c) in self.c.chunks(hidden).enumerate() {
                            cells[(r * self.segments.len() + segment) * hidden..][..hidden]
                                .copy_from_slice(c);
                        }
                        segment += 1;
                    }
                    &mut record_scratch[..]
                }
                None => &mut record_scratch[..],
            };
            multiply(
                MatrixMut::strided(records, rows, 4 * hidden, record),
                Matrix::new(&augmented, rows, wide),
                stacked,
                T::ONE,
                Target::Replace,
            );
            for r in 0..rows {
                let row = r * hidden..(r + 1) * hidden;
                cell::forward(
                    &mut records[r * record..][..record],
                    &mut self.c[row.clone()],
                    &mut provisional[row],
                );
            }

            let slots = if call.attends() { ranking.len() } else { 0 };
            let ranks = call.options.ranks(slots);
            if slots > 0 && record > 5 * hidden {
                call.inputs.score.queries(
                    &mut records[5 * hidden..],
                    record,
                    &provisional,
                    rows,
                    hidden,
                    attention,
                );
            }
            let rule = Rule::new(call.options.sparsifier, k_top, slots);
            let offset = sparsify::threshold_offset(call.options.sparsifier, k_top, slots);
            for r in 0..rows {
                let at = r * time + t;
                let provisional = &provisional[r * hidden..(r + 1) * hidden];
                let (past, now) =
                    self.h[r * time * hidden..(r + 1) * time * hidden].split_at_mut(t * hidden);
                let s = &mut self.s[at * hidden..(at + 1) * hidden];
                let (out_slots, out_weights) = (
                    &mut self.slots[at * k_top..(at + 1) * k_top],
                    &mut self.weights[at * k_top..(at + 1) * k_top],
                );
                out_slots.fill(0);
                out_weights.fill(T::ZERO);
                if ranks == 0 {
                    s.fill(T::ZERO);
                } else {
                    let (best, best_slots, weights) =
                        (&mut best[..ranks], &mut best_slots[..ranks], &mut weights[..ranks]);
                    let query = &records[r * record + 5 * hidden..(r + 1) * record];
                    ranking.rank(r, query, provisional, !rule.depends_on_shift(), best, best_slots);
                    let sum = sparsify::forward(rule, offset, best, weights);
                    retrieved.clear();
                    for (&slot, &weight) in best_slots.iter().zip(weights.iter()) {
                        if weight != T::ZERO {
                            retrieved.push((weight, slot));
                        }
                    }
                    weighted_sum(s, || {
                        retrieved.iter().map(|&(weight, slot)| {
                            (weight, slot_value(call, self.first + r, past, slot as usize))
                        })
                    });
                    for (k, (&slot, &weight)) in
                        best_slots.iter().zip(weights.iter()).take(k_top).enumerate()
                    {
                        if weight != T::ZERO {
                            out_slots[k] = slot as i32;
                            out_weights[k] = weight;
                        }
                    }
                    if let Some((kept_ranks, kept_weights, kept_sums)) = &mut selection {
                        kept_ranks[at * call.width..][..ranks].copy_from_slice(best_slots);
                        kept_weights[at * call.width..][..ranks].copy_from_slice(weights);
                        kept_sums[at] = sum;
                    }
                }
                let next = &mut augmented[r * wide + 1 + input..(r + 1) * wide];
                sum(&mut now[..hidden], next, provisional, s);
            }

            if call.attends() && call.options.stores_slot(t) {
                call.inputs.score.keys(
                    &mut keys,
                    &augmented[1 + input..],
                    rows,
                    wide,
                    hidden,
                    attention,
                );
                for (r, key) in keys.chunks(call.key_width()).enumerate() {
                    self.set_key(&mut ranking, r, slots, key);
                }
                ranking.grow_to(slots + 1);
            }
        }
    }

    /// Keys of the carried slots, for the first step to rank.
    #[inline(always)]
    fn rank_carried(&mut self, ranking: &mut Ranking<'_, T>) {
        let call = self.call;
        let Shape { hidden, carried, attention, .. } = call.inputs.shape;
        let mut keys: Vec<T> = scratch(KEY_ROWS * call.key_width());
        for r in 0..self.rows {
            for from in (0..carried).step_by(KEY_ROWS) {
                let n = KEY_ROWS.min(carried - from);
                let slots = &call.inputs.slots[((self.first + r) * carried + from) * hidden..]
                    [..n * hidden];
                call.inputs.score.keys(&mut keys, slots, n, hidden, hidden, attention);
                for (k, key) in keys.chunks(call.key_width()).take(n).enumerate() {
                    self.set_key(ranking, r, from + k, key);
                }
            }
        }
        ranking.grow_to(carried);
    }

    /// A slot's key goes to the ranking and to what is kept.
    #[inline(always)]
    fn set_key(&mut self, ranking: &mut Ranking<'_, T>, row: usize, slot: usize, key: &[T]) {
        ranking.set(row, slot, key);
        if let Some(kept) = &mut self.kept {
            kept.keys[(row * self.call.schedule.total_slots() + slot) * key.len()..][..key.len()]
                .copy_from_slice(key);
        }
    }
}

/// The value of a slot: a carried one's own, or the hidden state that was stored (`past`: hidden
/// states of this batch row from the first step on).
#[inline(always)]
pub(super) fn slot_value<'a, T: Float>(
    call: &Call<'a, T>,
    batch_row: usize,
    past: &'a [T],
    slot: usize,
) -> &'a [T] {
    let Shape { hidden, carried, .. } = call.inputs.shape;
    match slot.checked_sub(carried) {
        None => &call.inputs.slots[(batch_row * carried + slot) * hidden..][..hidden],
        Some(stored) => &past[call.schedule.step_of(stored) * hidden..][..hidden],
    }
}
