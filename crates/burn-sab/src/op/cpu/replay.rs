//! Gates and states for the backward pass: read from the saved activations, or recomputed.

use std::cmp::Reverse;

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
    /// First steps of the segments.
    segments: Vec<usize>,
    /// The segment of each row whose records are there; the number of segments if there are none yet.
    current: Vec<usize>,
    /// These records, `[rows, longest segment, record]`.
    records: Vec<T>,
    longest: usize,
    /// The rows to recompute together, each to a step of its own, and the scratch memory of one step: `[rows, 1 + I + H]`,
    /// `[rows, record]`, `[rows, H]`, `[rows, H]`, `[H]`.
    todo: Vec<(usize, usize)>,
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
                    current: vec![segments.len(); rows],
                    segments,
                    records: scratch(rows * longest * call.record()),
                    longest,
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

    /// Makes records available: of a step of each of these rows, `(row, step)`. The step of a row must not increase
    /// from call to call.
    #[inline(always)]
    pub fn prepare(&mut self, steps: impl Iterator<Item = (usize, usize)>) {
        let Some(mut recompute) = self.recompute.take() else {
            return;
        };
        recompute.todo.clear();
        for (row, t) in steps {
            let before = recompute.current[row];
            while recompute.segments.get(recompute.current[row]).is_none_or(|&start| start > t) {
                recompute.current[row] -= 1;
            }
            if recompute.current[row] < before {
                recompute.todo.push((row, t));
            }
        }
        if !recompute.todo.is_empty() {
            self.run(&mut recompute);
        }
        self.recompute = Some(recompute);
    }

    /// Computes the records of the rows `todo`, from the start of the current segment of each to its step.
    #[inline(always)]
    fn run(&self, recompute: &mut Recompute<T>) {
        let call = self.call;
        let Dims { input, hidden, attention, .. } = call.dims;
        let (record, wide, state) = (call.record(), augmented(&call.dims), call.state());
        let Recompute { segments, current, records, longest, todo, augmented, step, .. } =
            recompute;
        let (cells, provisional) = (&mut recompute.cell, &mut recompute.provisional);
        let summary = &mut recompute.summary;
        // The rows with most steps first: those that have a step left are the first ones then.
        let steps = |&(row, t): &(usize, usize)| t + 1 - segments[current[row]];
        todo.sort_by_key(|todo| Reverse(steps(todo)));
        for (k, &(row, _)) in todo.iter().enumerate() {
            let (segment, start) = (current[row], segments[current[row]]);
            let state = &self.trace[(row * segments.len() + segment) * state..][..state];
            cells[k * hidden..(k + 1) * hidden].copy_from_slice(&state[..hidden]);
            let h = match start {
                0 => &call.inputs.h0[(self.first + row) * hidden..][..hidden],
                _ if call.is_dense() => &self.past(row)[(start - 1) * hidden..][..hidden],
                _ => &state[hidden..],
            };
            augmented[k * wide + 1 + input..(k + 1) * wide].copy_from_slice(h);
        }
        for step_of_segment in 0..steps(&todo[0]) {
            while steps(&todo[todo.len() - 1]) <= step_of_segment {
                todo.pop();
            }
            let n = todo.len();
            let now = |row: usize| segments[current[row]] + step_of_segment;
            for (k, (&(row, _), out)) in todo.iter().zip(augmented.chunks_mut(wide)).enumerate() {
                self.with_input(now(row), row, out);
                if call.schedule.resets(self.first + row, now(row)) {
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
            for (k, &(row, _)) in todo.iter().enumerate() {
                let step = &mut step[k * record..(k + 1) * record];
                let h = &mut augmented[k * wide + 1 + input..(k + 1) * wide];
                if call.is_dense() {
                    h.copy_from_slice(&self.past(row)[now(row) * hidden..][..hidden]);
                } else {
                    h.copy_from_slice(&provisional[k * hidden..(k + 1) * hidden]);
                    self.summary(now(row), row, summary);
                    add_product(h, &call.summary_gain, summary);
                    step[5 * hidden..6 * hidden].copy_from_slice(h);
                }
                records[(row * *longest + step_of_segment) * record..][..record]
                    .copy_from_slice(step);
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
                let start = recompute.segments[recompute.current[row]];
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
            Some(Recompute { segments, current, .. }) if segments[current[row]] == t => {
                &self.trace[(row * segments.len() + current[row]) * state..][..state]
            }
            _ => &self.record(t - 1, row)[4 * hidden..][..state],
        }
    }
}
