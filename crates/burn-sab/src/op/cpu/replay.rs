//! Gates and states for the backward pass: read from the saved activations, or recomputed.

use super::call::{Call, augmented, tile_rows};
use super::cell;
use super::float::Float;
use super::saved::{Saved, Trace};
use super::vector::{add_product, prefetch, scratch, weighted_sum};
use crate::op::tensors::Dims;

/// The records of one tile, for a reverse sweep over its steps.
pub struct Replay<'a, T: Float> {
    call: &'a Call<'a, T>,
    saved: &'a Saved<T>,
    first: usize,
    rows: usize,
    /// The hidden states that serve as slots, `[rows, past, H]`.
    past: &'a [T],
    /// The tile's share of the trace: all records, or the states at the starts of segments.
    trace: &'a [T],
    /// `None` if `trace` holds all records.
    recompute: Option<Recompute<T>>,
}

struct Recompute<T> {
    /// First steps of the segments up to and including the current one, which is the last element.
    segments: Vec<usize>,
    /// Number of segments of the call.
    total: usize,
    /// The current segment's records, `[rows, longest segment, record]`.
    records: Vec<T>,
    longest: usize,
    /// Whether each row has its records of the current segment.
    done: Vec<bool>,
    /// The rows to recompute together, and the scratch memory of one of their steps: `[rows, 1 + I + H]`,
    /// `[rows, record]`, `[rows, H]`, `[rows, H]`, `[H]`.
    todo: Vec<usize>,
    augmented: Vec<T>,
    step: Vec<T>,
    cell: Vec<T>,
    provisional: Vec<T>,
    summary: Vec<T>,
}

impl<'a, T: Float> Replay<'a, T> {
    /// Creates the replay of `rows` rows from row `first` on. `past` holds the slots' hidden states of
    /// all rows.
    pub fn new(
        call: &'a Call<'a, T>,
        saved: &'a Saved<T>,
        past: &'a [T],
        first: usize,
        rows: usize,
    ) -> Self {
        let Dims { batch, time, hidden, .. } = call.dims;
        let past_len = call.past_len() * hidden;
        let past = &past[first * past_len..][..rows * past_len];
        let (trace, recompute) = match &saved.trace {
            Trace::Gates(tiles) => (&tiles[first / tile_rows(batch)][..], None),
            Trace::States(states) => {
                let segments = call.schedule.segments();
                let ends = segments[1..].iter().chain([&time]);
                let longest =
                    segments.iter().zip(ends).map(|(start, end)| end - start).max().unwrap_or(0);
                let per_row = segments.len() * call.state();
                let recompute = Recompute {
                    total: segments.len(),
                    segments,
                    records: scratch(rows * longest * call.record()),
                    longest,
                    done: vec![false; rows],
                    todo: Vec::with_capacity(rows),
                    augmented: scratch(rows * augmented(&call.dims)),
                    step: scratch(rows * call.record()),
                    cell: scratch(rows * hidden),
                    provisional: scratch(rows * hidden),
                    summary: scratch(hidden),
                };
                (&states[first * per_row..][..rows * per_row], Some(recompute))
            }
        };
        Self { call, saved, first, rows, past, trace, recompute }
    }

    /// A row's hidden states that serve as slots.
    #[inline(always)]
    pub fn past(&self, row: usize) -> &'a [T] {
        let len = self.call.past_len() * self.call.dims.hidden;
        &self.past[row * len..(row + 1) * len]
    }

    /// Makes the record of step `t` available for these rows. `t` must not increase from call to call.
    #[inline(always)]
    pub fn prepare(&mut self, t: usize, rows: impl Iterator<Item = usize>) {
        let Some(mut recompute) = self.recompute.take() else {
            return;
        };
        while recompute.segments.last().is_some_and(|&start| start > t) {
            recompute.segments.pop();
            recompute.done.fill(false);
        }
        recompute.todo.clear();
        for row in rows {
            if !std::mem::replace(&mut recompute.done[row], true) {
                recompute.todo.push(row);
            }
        }
        if !recompute.todo.is_empty() {
            self.run(t, &mut recompute);
        }
        self.recompute = Some(recompute);
    }

    /// Computes the records of the rows `todo` from the start of the current segment to step `t`.
    #[inline(always)]
    fn run(&self, t: usize, recompute: &mut Recompute<T>) {
        let call = self.call;
        let Dims { input, hidden, attention, .. } = call.dims;
        let (record, wide, state) = (call.record(), augmented(&call.dims), call.state());
        let Recompute { segments, total, records, longest, todo, augmented, step, .. } = recompute;
        let (cells, provisional) = (&mut recompute.cell, &mut recompute.provisional);
        let summary = &mut recompute.summary;
        let (segment, n) = (segments.len() - 1, todo.len());
        let start = segments[segment];
        for (k, &row) in todo.iter().enumerate() {
            let state = &self.trace[(row * *total + segment) * state..][..state];
            cells[k * hidden..(k + 1) * hidden].copy_from_slice(&state[..hidden]);
            let h = match start {
                0 => &call.inputs.h0[(self.first + row) * hidden..][..hidden],
                _ if call.is_dense() => &self.past(row)[(start - 1) * hidden..][..hidden],
                _ => &state[hidden..],
            };
            augmented[k * wide + 1 + input..(k + 1) * wide].copy_from_slice(h);
        }
        for now in start..=t {
            for (k, (row, out)) in todo.iter().zip(augmented.chunks_mut(wide)).enumerate() {
                self.with_input(now, *row, out);
                if call.schedule.resets(self.first + row, now) {
                    out[1 + input..].fill(T::ZERO);
                    cells[k * hidden..(k + 1) * hidden].fill(T::ZERO);
                }
            }
            call.gates(step, augmented, n);
            for (k, record) in step.chunks_mut(record).take(n).enumerate() {
                let here = k * hidden..(k + 1) * hidden;
                cell::forward(record, &mut cells[here.clone()], &mut provisional[here]);
            }
            if record > call.query_at() {
                let (queries, score) = (&mut step[call.query_at()..], &call.inputs.score);
                score.queries(queries, record, provisional, n, hidden, attention);
            }
            for (k, &row) in todo.iter().enumerate() {
                let step = &mut step[k * record..(k + 1) * record];
                let h = &mut augmented[k * wide + 1 + input..(k + 1) * wide];
                if call.is_dense() {
                    h.copy_from_slice(&self.past(row)[now * hidden..][..hidden]);
                } else {
                    h.copy_from_slice(&provisional[k * hidden..(k + 1) * hidden]);
                    self.summary(now, row, summary);
                    add_product(h, &call.summary_gain, summary);
                    step[5 * hidden..6 * hidden].copy_from_slice(h);
                }
                records[(row * *longest + now - start) * record..][..record].copy_from_slice(step);
            }
        }
    }

    /// Computes the summary of step `t`.
    #[inline(always)]
    pub fn summary(&self, t: usize, row: usize, out: &mut [T]) {
        let call = self.call;
        let (batch_row, past) = (self.first + row, self.past(row));
        let ranks = call.options.ranks(call.schedule.visible(batch_row, t).len());
        let at = (batch_row * call.dims.time + t) * call.width;
        let (slots, weights) =
            (&self.saved.ranks[at..][..ranks], &self.saved.weights[at..][..ranks]);
        weighted_sum(out, || {
            let retrieved = slots.iter().zip(weights).filter(|(_, weight)| **weight != T::ZERO);
            retrieved.map(|(&slot, &weight)| (weight, call.slot(batch_row, past, slot as usize)))
        });
    }

    /// Writes the 1 and x_t of `[1 | x_t | h_{t-1}]`.
    #[inline(always)]
    fn with_input(&self, t: usize, row: usize, out: &mut [T]) {
        let Dims { time, input, .. } = self.call.dims;
        out[0] = T::ONE;
        out[1..1 + input].copy_from_slice(
            &self.call.inputs.x[((self.first + row) * time + t) * input..][..input],
        );
    }

    /// Writes `[1 | x_t | h_{t-1}]`. Step `t` must have been prepared.
    #[inline(always)]
    pub fn augment(&self, t: usize, row: usize, out: &mut [T]) {
        let Dims { input, hidden, .. } = self.call.dims;
        self.with_input(t, row, out);
        let h = if self.call.schedule.resets(self.first + row, t) {
            &self.call.zeros
        } else if t == 0 {
            &self.call.inputs.h0[(self.first + row) * hidden..][..hidden]
        } else if self.call.is_dense() {
            &self.past(row)[(t - 1) * hidden..][..hidden]
        } else {
            &self.state_before(t, row)[hidden..]
        };
        out[1 + input..].copy_from_slice(h);
    }

    /// Prefetches the record of step `t - 1`. Saved records come from main memory, in an order that the
    /// processor cannot predict.
    #[inline(always)]
    pub fn announce_previous(&self, t: usize, row: usize) {
        if t > 0 && self.recompute.is_none() {
            prefetch(self.record(t - 1, row));
        }
    }

    /// The record of step `t`, which must have been prepared.
    #[inline(always)]
    pub fn record(&self, t: usize, row: usize) -> &[T] {
        let record = self.call.record();
        match &self.recompute {
            None => &self.trace[(t * self.rows + row) * record..][..record],
            Some(recompute) => {
                let start = recompute.segments[recompute.segments.len() - 1];
                &recompute.records[(row * recompute.longest + t - start) * record..][..record]
            }
        }
    }

    /// c_{t-1}. Step `t` must have been prepared.
    #[inline(always)]
    pub fn previous_cell(&self, t: usize, row: usize) -> &[T] {
        let hidden = self.call.dims.hidden;
        match t {
            _ if self.call.schedule.resets(self.first + row, t) => &self.call.zeros,
            0 => &self.call.inputs.c0[(self.first + row) * hidden..][..hidden],
            _ => &self.state_before(t, row)[..hidden],
        }
    }

    /// The state ([`Call::state`]) after step `t - 1`, for `t >= 1`. Step `t` must have been prepared.
    #[inline(always)]
    fn state_before(&self, t: usize, row: usize) -> &[T] {
        let (hidden, state) = (self.call.dims.hidden, self.call.state());
        match &self.recompute {
            Some(recompute) if recompute.segments.last() == Some(&t) => {
                &self.trace[(row * recompute.total + recompute.segments.len() - 1) * state..]
                    [..state]
            }
            _ => &self.record(t - 1, row)[4 * hidden..][..state],
        }
    }
}
