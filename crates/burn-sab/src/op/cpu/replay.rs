//! Gates and cell states for the backward pass: read back, or recomputed.

use super::float::Float;
use super::matrix::{Matrix, MatrixMut, Target, multiply};
use super::vector::{prefetch, scratch};
use super::{Call, Shape, Trace, augmented, cell};

/// Writes `[1 | x_t | h_{t-1}]` of a batch row; `h`: all its hidden states of this call.
#[inline(always)]
pub fn augment<T: Float>(call: &Call<'_, T>, batch_row: usize, t: usize, h: &[T], out: &mut [T]) {
    let Shape { time, input, hidden, .. } = call.inputs.shape;
    out[0] = T::ONE;
    out[1..1 + input].copy_from_slice(&call.inputs.x[(batch_row * time + t) * input..][..input]);
    let previous = match t {
        0 => &call.inputs.h0[batch_row * hidden..][..hidden],
        _ => &h[(t - 1) * hidden..][..hidden],
    };
    out[1 + input..].copy_from_slice(previous);
}

/// The records of one tile, for a sweep from the last step to the first.
pub struct Replay<'a, T> {
    call: &'a Call<'a, T>,
    first: usize,
    rows: usize,
    /// The tile's share of the trace: all records, or the cell states.
    trace: &'a [T],
    /// None: `trace` holds all records.
    recompute: Option<Recompute<T>>,
}

struct Recompute<T> {
    /// First steps of the segments up to the current one, the last.
    segments: Vec<usize>,
    /// Segments of the whole call.
    total: usize,
    /// The current segment's records, `[rows, longest segment, record]`.
    records: Vec<T>,
    longest: usize,
    /// Rows whose records of the current segment are there.
    done: Vec<bool>,
    /// Scratch for a row: `[longest, 1 + I + H]`, `[H]`, `[longest, H]`.
    augmented: Vec<T>,
    cell: Vec<T>,
    provisional: Vec<T>,
}

impl<'a, T: Float> Replay<'a, T> {
    /// For the `rows` rows from `first`.
    pub fn new(call: &'a Call<'a, T>, trace: &'a Trace<T>, first: usize, rows: usize) -> Self {
        let Shape { time, hidden, .. } = call.inputs.shape;
        match trace {
            Trace::Gates(records) => {
                let per_row = time * call.record();
                Self {
                    call,
                    first,
                    rows,
                    trace: &records[first * per_row..][..rows * per_row],
                    recompute: None,
                }
            }
            Trace::Cells(cells) => {
                let segments = call.schedule.segments();
                let ends = segments[1..].iter().chain([&time]);
                let longest =
                    segments.iter().zip(ends).map(|(start, end)| end - start).max().unwrap_or(0);
                let per_row = segments.len() * hidden;
                Self {
                    call,
                    first,
                    rows,
                    trace: &cells[first * per_row..][..rows * per_row],
                    recompute: Some(Recompute {
                        total: segments.len(),
                        segments,
                        records: scratch(rows * longest * call.record()),
                        longest,
                        done: vec![false; rows],
                        augmented: scratch(longest * augmented(&call.inputs.shape)),
                        cell: scratch(hidden),
                        provisional: scratch(longest * hidden),
                    }),
                }
            }
        }
    }

    /// Makes the record of step `t` available for `row`. Steps must not rise from call to call. `h`: all
    /// hidden states of the row.
    #[inline(always)]
    pub fn prepare(&mut self, t: usize, row: usize, h: &[T]) {
        let Some(recompute) = &mut self.recompute else {
            return;
        };
        let call = self.call;
        let Shape { hidden, attention, .. } = call.inputs.shape;
        let (record, wide) = (call.record(), augmented(&call.inputs.shape));
        while recompute.segments.last().is_some_and(|&start| start > t) {
            recompute.segments.pop();
            recompute.done.fill(false);
        }
        if std::mem::replace(&mut recompute.done[row], true) {
            return;
        }
        let segment = recompute.segments.len() - 1;
        let start = recompute.segments[segment];
        let steps = t + 1 - start;
        for (k, out) in recompute.augmented.chunks_mut(wide).take(steps).enumerate() {
            augment(call, self.first + row, start + k, h, out);
        }
        let records = &mut recompute.records[row * recompute.longest * record..][..steps * record];
        multiply(
            MatrixMut::strided(records, steps, 4 * hidden, record),
            Matrix::new(&recompute.augmented[..steps * wide], steps, wide),
            Matrix::new(&call.stacked, wide, 4 * hidden),
            T::ONE,
            Target::Replace,
        );
        recompute
            .cell
            .copy_from_slice(&self.trace[(row * recompute.total + segment) * hidden..][..hidden]);
        for (record, provisional) in
            records.chunks_mut(record).zip(recompute.provisional.chunks_mut(hidden))
        {
            cell::forward(record, &mut recompute.cell, provisional);
        }
        if record > 5 * hidden {
            let provisional = &recompute.provisional[..steps * hidden];
            call.inputs.score.queries(
                &mut records[5 * hidden..],
                record,
                provisional,
                steps,
                hidden,
                attention,
            );
        }
    }

    /// Announces that the record of the step before `t` is needed soon. Kept records come from main
    /// memory, in an order that the processor does not foresee.
    #[inline(always)]
    pub fn announce_previous(&self, t: usize, row: usize) {
        if t > 0 && self.recompute.is_none() {
            prefetch(self.record(t - 1, row));
        }
    }

    /// The record of step `t`, which was prepared.
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

    /// c_{t-1}, if step `t` was prepared.
    #[inline(always)]
    pub fn previous_cell(&self, t: usize, row: usize) -> &[T] {
        let hidden = self.call.inputs.shape.hidden;
        if t == 0 {
            return &self.call.inputs.c0[(self.first + row) * hidden..][..hidden];
        }
        match &self.recompute {
            Some(recompute) if recompute.segments.last() == Some(&t) => {
                &self.trace[(row * recompute.total + recompute.segments.len() - 1) * hidden..]
                    [..hidden]
            }
            _ => &self.record(t - 1, row)[4 * hidden..5 * hidden],
        }
    }
}
