//! The forward pass of the CPU kernel: it splits the batch into tiles and runs the sequence of each
//! tile.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::Outputs;
use super::call::{Call, Inputs, augmented, tile_rows};
use super::cell;
use super::float::Float;
use super::pool::Pooled;
use super::saved::{Saved, Trace};
use super::score::Ranking;
use super::sparsify::{self, Rule};
use super::vector::{add_product, scratch, take, weighted_sum};
use crate::op::options::{Readout, SabOptions};
use crate::op::settings::{InitialSlot, Recompute};
use crate::op::tensors::{Dims, Reminders, SabOutputs};

/// Carried slots whose keys one product computes. This is more than the 16 rows at which the product
/// reaches full speed, and still a small block.
const KEY_ROWS: usize = 64;

/// Maximum bytes of gates that [`Recompute::Auto`] saves: a budget for one call, not a measured optimum.
/// Saved gates grow with the sequence and are several times as large as the hidden states. The layer is
/// meant to save memory on long sequences. Without saved gates the backward pass takes 44 ms instead of
/// 30, and the forward pass 20.5 instead of 23. Both were measured with B 64, T 120, I 10, H 128, A 64,
/// f32, one thread. At those sizes the budget suffices for 2,978 steps.
pub(super) const AUTO_GATES: usize = 512 << 20;

/// Runs the layer over a sequence. If `keep`, it also returns the saved activations for
/// [`super::backward()`].
///
/// # Panics
///
/// Panics if the length of a slice does not match `inputs.dims`.
pub fn forward<T: Float>(
    inputs: &Inputs<'_, T>,
    options: &SabOptions,
    keep: bool,
) -> (Outputs<T>, Option<Saved<T>>) {
    forward_on(Arch::new(), inputs, options, keep, &mut [])
}

/// Like [`forward()`], with a given instruction set, on which no result depends. `rankings` holds one
/// ranking of the carried slots per tile, if any exist yet.
pub(super) fn forward_on<T: Float>(
    arch: Arch,
    inputs: &Inputs<'_, T>,
    options: &SabOptions,
    keep: bool,
    rankings: &mut [Ranking<T>],
) -> (Outputs<T>, Option<Saved<T>>) {
    let call = Call::new(inputs, options, arch);
    let Dims { batch, time, hidden, .. } = call.dims;
    let places = call.dims.places(options);
    let given = options.readout.len(time);
    let reminded = if options.reminders { given } else { 0 };
    let stored = if call.is_dense() { 0 } else { call.past_len() };
    // Nothing is written where a row has padding, or fewer slots than others.
    let sequence =
        |len: usize| if call.schedule.is_ragged() { vec![T::ZERO; len] } else { scratch(len) };
    let mut outputs: Outputs<T> = SabOutputs {
        hidden: sequence(batch * given * hidden),
        last: scratch(batch * hidden),
        cell: scratch(batch * hidden),
        stored: (!call.is_dense()).then(|| sequence(batch * stored * hidden)),
        reminders: options.reminders.then(|| Reminders {
            summary: sequence(batch * given * hidden),
            slots: vec![0; batch * given * places],
            weights: vec![T::ZERO; batch * given * places],
        }),
    };
    let segments = call.schedule.segments();
    let mut saved = keep.then(|| Saved {
        ranks: vec![0; batch * time * call.width],
        weights: vec![T::ZERO; batch * time * call.width],
        sums: vec![T::ONE; batch * time],
        keys: if call.attends() {
            scratch(batch * call.schedule.total_slots() * call.key_width())
        } else {
            vec![]
        },
        trace: if saves_gates(&call) {
            // Each tile allocates its own.
            let tiles = batch.div_ceil(tile_rows(batch));
            Trace::Gates((0..tiles).map(|_| Pooled::new()).collect())
        } else {
            Trace::States(scratch(batch * segments.len() * call.state()))
        },
    });

    let SabOutputs { hidden: h, last, cell: c, stored: past, reminders } = &mut outputs;
    let (mut h, mut last, mut c) = (&mut h[..], &mut last[..], &mut c[..]);
    let mut past = past.as_deref_mut().unwrap_or_default();
    let (mut s, mut slots, mut weights) = match reminders {
        Some(Reminders { summary, slots, weights }) => {
            (&mut summary[..], &mut slots[..], &mut weights[..])
        }
        None => Default::default(),
    };
    let mut rest = saved.as_mut().map(|saved| SavedShare {
        ranks: &mut saved.ranks,
        weights: &mut saved.weights,
        sums: &mut saved.sums,
        keys: &mut saved.keys,
        trace: match &mut saved.trace {
            Trace::Gates(gates) => TraceShare::Gates(gates),
            Trace::States(states) => TraceShare::States(states),
        },
    });
    let mut tiles = Vec::new();
    let mut rankings = rankings.iter_mut();
    let per_tile = tile_rows(batch);
    for first in (0..batch).step_by(per_tile) {
        let rows = per_tile.min(batch - first);
        tiles.push(Tile {
            call: &call,
            segments: &segments,
            first,
            rows,
            h: take(&mut h, rows * given * hidden),
            last: take(&mut last, rows * hidden),
            c: take(&mut c, rows * hidden),
            stored: take(&mut past, rows * stored * hidden),
            s: take(&mut s, rows * reminded * hidden),
            slots: take(&mut slots, rows * reminded * places),
            weights: take(&mut weights, rows * reminded * places),
            saved: rest.as_mut().map(|rest| rest.take(&call, rows, segments.len())),
            ranking: rankings.next(),
        });
    }
    if tiles.len() == 1 {
        // A single tile runs here: waking another thread would cost time.
        tiles.into_iter().for_each(dispatch);
    } else {
        tiles.into_par_iter().for_each(dispatch);
    }
    (outputs, saved)
}

/// Runs a tile. Tiles are dispatched here alone: each call of [`Arch::dispatch`] would have its own copy of their code for
/// every instruction set.
#[inline(never)]
fn dispatch<T: Float>(tile: Tile<'_, T>) {
    tile.call.arch.dispatch(tile);
}

/// Whether the forward pass saves the gates of every step ([`SabOptions::recompute`]).
fn saves_gates<T: Float>(call: &Call<'_, T>) -> bool {
    let Dims { batch, time, .. } = call.dims;
    match call.options.settings.recompute {
        Recompute::Never => true,
        Recompute::Always => false,
        Recompute::Auto => {
            // If only a few steps are outputs, gradient reaches few truncation windows.
            let reaches_most_steps = matches!(call.options.readout, Readout::All)
                || call.options.settings.k_trunc >= time;
            reaches_most_steps && batch * time * call.record() * size_of::<T>() <= AUTO_GATES
        }
    }
}

/// A tile's share of [`Saved`], or the part that no tile has taken yet.
struct SavedShare<'a, T: Float> {
    ranks: &'a mut [u32],
    weights: &'a mut [T],
    sums: &'a mut [T],
    keys: &'a mut [T],
    trace: TraceShare<'a, T>,
}

enum TraceShare<'a, T: Float> {
    Gates(&'a mut [Pooled<T>]),
    States(&'a mut [T]),
}

impl<'a, T: Float> SavedShare<'a, T> {
    fn take(&mut self, call: &Call<'_, T>, rows: usize, segments: usize) -> Self {
        let time = call.dims.time;
        let keys = if call.attends() { call.schedule.total_slots() * call.key_width() } else { 0 };
        Self {
            ranks: take(&mut self.ranks, rows * time * call.width),
            weights: take(&mut self.weights, rows * time * call.width),
            sums: take(&mut self.sums, rows * time),
            keys: take(&mut self.keys, rows * keys),
            trace: match &mut self.trace {
                TraceShare::Gates(tiles) => TraceShare::Gates(take(tiles, 1)),
                TraceShare::States(states) => {
                    TraceShare::States(take(states, rows * segments * call.state()))
                }
            },
        }
    }
}

/// Rows of the batch, from `first` on, and their share of every array of the call.
struct Tile<'a, T: Float> {
    call: &'a Call<'a, T>,
    segments: &'a [usize],
    first: usize,
    rows: usize,
    h: &'a mut [T],
    last: &'a mut [T],
    c: &'a mut [T],
    stored: &'a mut [T],
    s: &'a mut [T],
    slots: &'a mut [i32],
    weights: &'a mut [T],
    saved: Option<SavedShare<'a, T>>,
    /// The ranking of the stream that the call belongs to.
    ranking: Option<&'a mut Ranking<T>>,
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
        let Dims { time, input, hidden, attention, .. } = call.dims;
        let (wide, record, query_at) = (augmented(&call.dims), call.record(), call.query_at());
        let settings = &call.options.settings;
        let (k_top, given, dense) =
            (settings.k_top, call.options.readout.len(time), call.is_dense());
        let width = call.dims.places(call.options);
        let state = self.first * hidden..(self.first + rows) * hidden;
        let x = &call.inputs.x[self.first * time * input..];

        // [1 | x_t | h_{t-1}], one row per row of the tile.
        let mut augmented: Vec<T> = scratch(rows * wide);
        for (row, h0) in
            augmented.chunks_mut(wide).zip(call.inputs.h0[state.clone()].chunks(hidden))
        {
            row[0] = T::ONE;
            row[1 + input..].copy_from_slice(h0);
        }
        self.c.copy_from_slice(&call.inputs.c0[state]);
        let mut provisional: Vec<T> = scratch(rows * hidden);
        let mut summary: Vec<T> = scratch(hidden);
        let mut records: Vec<T> = scratch(rows * record);
        let (mut best, mut best_slots) = (scratch(call.width), vec![0; call.width]);
        let (mut weights, mut keys) = (scratch(call.width), scratch(rows * call.key_width()));
        let mut fresh = None;
        let ranking = match self.ranking.take() {
            Some(ranking) => ranking,
            None => fresh.insert(Ranking::new(call, if call.attends() { rows } else { 0 })),
        };
        if call.attends() && ranking.len() == 0 {
            self.rank_carried(ranking);
        }

        let mut retrieved: Vec<(T, u32)> = Vec::with_capacity(call.width);
        let mut segment = 0;
        let end = (0..rows).map(|r| call.schedule.length(self.first + r)).max().unwrap_or(0);
        for t in 0..end {
            for (r, row) in augmented.chunks_mut(wide).enumerate() {
                row[1..1 + input].copy_from_slice(&x[(r * time + t) * input..][..input]);
                if call.schedule.resets(self.first + r, t) {
                    row[1 + input..].fill(T::ZERO);
                    self.c[r * hidden..(r + 1) * hidden].fill(T::ZERO);
                    if settings.initial_slot == InitialSlot::Hidden {
                        // The key of a zero state is zero.
                        let slot = call.schedule.visible(self.first + r, t).start;
                        keys[..call.key_width()].fill(T::ZERO);
                        self.set_key(ranking, r, (0, slot), &keys[..call.key_width()]);
                    }
                }
            }
            let mut selection = None;
            if let Some(SavedShare { ranks, weights, sums, trace, .. }) = &mut self.saved {
                selection = Some((ranks, weights, sums));
                if let TraceShare::States(states) = trace
                    && self.segments.get(segment) == Some(&t)
                {
                    for (r, (c, row)) in
                        self.c.chunks(hidden).zip(augmented.chunks(wide)).enumerate()
                    {
                        let at = (r * self.segments.len() + segment) * call.state();
                        let (saved_c, saved_h) = states[at..][..call.state()].split_at_mut(hidden);
                        saved_c.copy_from_slice(c);
                        if !dense {
                            saved_h.copy_from_slice(&row[1 + input..]);
                        }
                    }
                    segment += 1;
                }
            }
            call.gates(&mut records, &augmented, rows);
            for r in (0..rows).filter(|r| t < call.schedule.length(self.first + r)) {
                let row = r * hidden..(r + 1) * hidden;
                cell::forward(
                    &mut records[r * record..][..record],
                    &mut self.c[row.clone()],
                    &mut provisional[row],
                );
            }

            let attends = (0..rows).any(|r| !call.schedule.visible(self.first + r, t).is_empty());
            if attends && record > query_at {
                call.inputs.score.queries(
                    &mut records[query_at..],
                    record,
                    &provisional,
                    rows,
                    hidden,
                    attention,
                );
            }
            let place = call.options.readout.place(t);
            for r in (0..rows).filter(|r| t < call.schedule.length(self.first + r)) {
                let at = r * time + t;
                let visible = call.schedule.visible(self.first + r, t);
                let (slots, ranks) = (visible.len(), call.options.ranks(visible.len()));
                let rule = Rule::new(settings.sparsifier, k_top, slots);
                let offset = sparsify::threshold_offset(settings.sparsifier, k_top, slots);
                let provisional = &provisional[r * hidden..(r + 1) * hidden];
                let (best, best_slots, weights) =
                    (&mut best[..ranks], &mut best_slots[..ranks], &mut weights[..ranks]);
                if ranks == 0 {
                    summary.fill(T::ZERO);
                } else {
                    let past = if dense { &self.h[..] } else { &self.stored[..] };
                    let past = &past[r * call.past_len() * hidden..][..call.past_len() * hidden];
                    let query = &records[r * record + query_at..(r + 1) * record];
                    let score = &call.inputs.score;
                    ranking.rank(
                        score,
                        (r, slots),
                        query,
                        provisional,
                        !rule.depends_on_shift(),
                        (&mut *best, &mut *best_slots),
                    );
                    for slot in best_slots.iter_mut() {
                        *slot += visible.start as u32;
                    }
                    let sum = sparsify::forward(rule, offset, best, weights);
                    retrieved.clear();
                    for (&slot, &weight) in best_slots.iter().zip(weights.iter()) {
                        if weight != T::ZERO {
                            retrieved.push((weight, slot));
                        }
                    }
                    weighted_sum(&mut summary, || {
                        retrieved.iter().map(|&(weight, slot)| {
                            (weight, call.slot(self.first + r, past, slot as usize))
                        })
                    });
                    if let Some((saved_ranks, saved_weights, saved_sums)) = &mut selection {
                        saved_ranks[at * call.width..][..ranks].copy_from_slice(best_slots);
                        saved_weights[at * call.width..][..ranks].copy_from_slice(weights);
                        saved_sums[at] = sum;
                    }
                }
                let h = &mut augmented[r * wide + 1 + input..(r + 1) * wide];
                h.copy_from_slice(provisional);
                add_product(h, &call.summary_gain, &summary);
                if !dense {
                    records[r * record + 5 * hidden..][..hidden].copy_from_slice(h);
                }
                let Some(place) = place.map(|place| r * given + place) else {
                    continue;
                };
                self.h[place * hidden..][..hidden].copy_from_slice(h);
                if call.options.reminders {
                    self.s[place * hidden..][..hidden].copy_from_slice(&summary);
                    let places = place * width..(place + 1) * width;
                    let (slots, out) = (&mut self.slots[places.clone()], &mut self.weights[places]);
                    for (k, (&slot, &weight)) in
                        best_slots.iter().zip(weights.iter()).take(width).enumerate()
                    {
                        if weight != T::ZERO {
                            slots[k] = slot as i32 - visible.start as i32;
                            out[k] = weight;
                        }
                    }
                }
            }

            if let Some(SavedShare { trace: TraceShare::Gates(tile), .. }) = &mut self.saved {
                tile[0].reserve(time * rows * record);
                tile[0].extend(&records);
            }
            if (0..rows).any(|r| call.schedule.stores(self.first + r, t).is_some()) {
                if call.attends() {
                    let score = &call.inputs.score;
                    score.keys(&mut keys, &augmented[1 + input..], rows, wide, hidden, attention);
                }
                for (r, row) in augmented.chunks(wide).enumerate() {
                    let Some(slot) = call.schedule.stores(self.first + r, t) else {
                        continue;
                    };
                    if !dense {
                        self.stored[(r * call.past_len() + slot) * hidden..][..hidden]
                            .copy_from_slice(&row[1 + input..]);
                    }
                    if call.attends() {
                        let visible = call.schedule.visible(self.first + r, t);
                        let key = &keys[r * call.key_width()..(r + 1) * call.key_width()];
                        self.set_key(ranking, r, (visible.len(), visible.end), key);
                        ranking.grow_to(r, visible.len() + 1);
                    }
                }
            }
        }
        for (last, row) in self.last.chunks_mut(hidden).zip(augmented.chunks(wide)) {
            last.copy_from_slice(&row[1 + input..]);
        }
    }

    /// Computes the keys of the carried slots, for the first step to rank.
    #[inline(always)]
    fn rank_carried(&mut self, ranking: &mut Ranking<T>) {
        let call = self.call;
        let Dims { hidden, attention, .. } = call.dims;
        let mut keys: Vec<T> = scratch(KEY_ROWS * call.key_width());
        for r in 0..self.rows {
            let of_row = call.schedule.carried(self.first + r);
            for from in of_row.clone().step_by(KEY_ROWS) {
                let n = KEY_ROWS.min(of_row.end - from);
                let slots = call.carried(self.first + r, from, n);
                call.inputs.score.keys(&mut keys, slots, n, hidden, hidden, attention);
                for (k, key) in keys.chunks(call.key_width()).take(n).enumerate() {
                    self.set_key(ranking, r, (from + k - of_row.start, from + k), key);
                }
            }
            ranking.grow_to(r, of_row.len());
        }
    }

    /// Adds a slot's key to the ranking and to the saved activations. `place` counts over the visible slots.
    #[inline(always)]
    fn set_key(
        &mut self,
        ranking: &mut Ranking<T>,
        row: usize,
        (place, slot): (usize, usize),
        key: &[T],
    ) {
        ranking.set(row, place, key);
        if let Some(saved) = &mut self.saved {
            saved.keys[(row * self.call.schedule.total_slots() + slot) * key.len()..][..key.len()]
                .copy_from_slice(key);
        }
    }
}
