//! The fused CPU kernel of the sequence op, over plain slices; f32 and f64.
//!
//! Rows of the batch are independent, so the batch is cut into tiles of rows, and each tile runs
//! the whole sequence on one thread: all state of a tile stays in the processor's second-level
//! cache, and threads never meet. The cut depends on the batch alone and sums over tiles have a
//! fixed order: the number of threads changes no bit of any result.
//!
//! - Forward: per step one matrix product `[1 | x_t | h_{t-1}] [bias; W_ih; W_hh]` (the input
//!   projection rides along, so that no `[B, T, 4H]` array is ever written), gates, scores from
//!   keys that were computed once when their slot was stored, the best few, retrieval.
//! - Backward: a reverse sweep over live rows only; gradients of slots exist only where something
//!   was retrieved. Weight gradients are sums over pairs of rows, which are collected and
//!   multiplied in blocks. Gates are either kept by forward or recomputed, from a few states on, where
//!   gradient comes by ([`Recompute`](super::options::Recompute)).
//!
//! | file | purpose |
//! | --- | --- |
//! | `forward` | the forward pass of a tile |
//! | `backward`, `sweep` | the backward pass: the call, and the reverse sweep over one tile |
//! | `stream` | a memory that is carried from call to call |
//! | `schedule` | when slots are stored and windows begin |
//! | `cell` | the LSTM cell, forward and backward |
//! | `score`, `score_backward` | queries, keys and scores, forward and backward |
//! | `select`, `sparsify` | the best scores of many, and the weights that follow from them |
//! | `replay` | gates and cell states for the backward pass, read back or recomputed |
//! | `slot_gradients`, `pairs` | gradients of slots; weight gradients as large products |
//! | `pool` | memory that goes from call to call |
//! | `matrix`, `vector`, `float` | matrix products, loops over rows, the two element types |
//!
//! Where all hidden states are given ([`Readout::All`]), slots that are stored during the call are never
//! copied: slot j *is* a row of the output `h`. Else they are the output `stored`, and no other array
//! over all steps is wider than the retrievals.
//! All arrays are dense, row after row, in the shapes given; weights are `[in, out]`, gates in the
//! order input, forget, candidate, output.

mod backward;
mod cell;
mod float;
mod forward;
mod matrix;
mod pairs;
mod pool;
mod replay;
mod schedule;
mod score;
mod score_backward;
mod select;
mod slot_gradients;
mod sparsify;
mod stream;
mod sweep;
#[cfg(test)]
mod tests;
mod vector;

use std::ops::Range;

use pulp::Arch;

use super::options::{Readout, SabOptions};
pub use backward::backward;
pub use float::Float;
pub use forward::forward;
use matrix::{Matrix, MatrixMut, Target, multiply};
use pool::Pooled;
pub use pool::release;
pub use stream::Stream;

/// Sizes of a call; all at least 1, except `carried`, and `attention` with additive scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows of the batch, B.
    pub batch: usize,
    /// Steps, T.
    pub time: usize,
    /// Input features, I.
    pub input: usize,
    /// Hidden size, H.
    pub hidden: usize,
    /// Slots that exist before the first step, M0.
    pub carried: usize,
    /// Attention size, A; without meaning for additive scores.
    pub attention: usize,
}

/// The score function and its parameters.
#[derive(Debug, Clone, Copy)]
pub enum Score<'a, T> {
    /// `u . tanh(h) + v . tanh(m)`.
    Additive {
        /// `[H]`
        u: &'a [T],
        /// `[H]`
        v: &'a [T],
    },
    /// `v . tanh(h W_q + b + m W_m)`.
    Mlp {
        /// `[H, A]`
        query: &'a [T],
        /// `[A]`
        bias: &'a [T],
        /// `[H, A]`
        memory: &'a [T],
        /// `[A]`
        v: &'a [T],
    },
    /// `(h W_q) . (m W_k) / sqrt(A)`.
    Dot {
        /// `[H, A]`
        query: &'a [T],
        /// `[H, A]`
        key: &'a [T],
    },
}

/// The inputs of a call.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a, T> {
    /// All sizes.
    pub shape: Shape,
    /// `[B, T, I]`
    pub x: &'a [T],
    /// `[I, 4H]`
    pub w_ih: &'a [T],
    /// `[H, 4H]`
    pub w_hh: &'a [T],
    /// `[4H]`
    pub bias: &'a [T],
    /// `[B, H]`
    pub h0: &'a [T],
    /// `[B, H]`
    pub c0: &'a [T],
    /// `[B, capacity, H]`, of which the first M0 are slots.
    pub slots: &'a [T],
    /// Rows that `slots` has room for; M0 or more.
    pub capacity: usize,
    /// The score function.
    pub score: Score<'a, T>,
}

/// What a forward pass gives; N steps are read out ([`SabOptions::readout`]).
#[derive(Debug, Clone)]
pub struct Outputs<T> {
    /// Hidden states after retrieval, `[B, N, H]`.
    pub h: Vec<T>,
    /// The last hidden state, `[B, H]`.
    pub last: Vec<T>,
    /// The last cell state, `[B, H]`.
    pub c: Vec<T>,
    /// Slots that were stored, `[B, M - M0, H]`; empty with [`Readout::All`], where `h` has them.
    pub stored: Vec<T>,
    /// Summaries, `[B, N, H]`; like the rest, empty without [`SabOptions::reminders`].
    pub s: Vec<T>,
    /// Slots that have weight, best first, `[B, N, k_top]`; 0 where `weights` is 0.
    pub slots: Vec<i32>,
    /// Their weights, `[B, N, k_top]`, padded with 0.
    pub weights: Vec<T>,
}

/// What the forward pass kept. Opaque: made by [`forward()`], read by [`backward()`].
#[derive(Debug)]
pub struct Saved<T: Float> {
    /// Ranked slots, best first, `[B, T, width]` with the width of [`Call`].
    ranks: Vec<u32>,
    /// Their weights (0 for a rank that only supplies the threshold), `[B, T, width]`.
    weights: Vec<T>,
    /// What the weights were divided by, `[B, T]`.
    sums: Vec<T>,
    /// Keys of all slots, `[B, M, key width]`; empty if no step finds a slot.
    keys: Vec<T>,
    trace: Trace<T>,
}

/// Where backward finds gates and states.
#[derive(Debug)]
enum Trace<T: Float> {
    /// A record ([`Call::record`]) per step; for each tile `[T, rows, record]`.
    Gates(Vec<Pooled<T>>),
    /// The state ([`Call::state`]) just before each segment's first step
    /// ([`schedule::Schedule::segments`]), `[B, segments, state]`.
    States(Vec<T>),
}

/// Gradients of the loss with respect to a call's outputs. None: no gradient comes that way.
#[derive(Debug, Clone, Copy)]
pub struct UpGrads<'a, T> {
    /// `[B, N, H]`
    pub h: Option<&'a [T]>,
    /// `[B, H]`
    pub last: Option<&'a [T]>,
    /// `[B, H]`
    pub c: Option<&'a [T]>,
    /// `[B, M - M0, H]`
    pub stored: Option<&'a [T]>,
    /// `[B, N, H]`
    pub s: Option<&'a [T]>,
}

/// Which gradients are wanted; the others come back empty, and their work is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// The input sequence.
    pub x: bool,
    /// w_ih, w_hh and bias, which come out of one product.
    pub weights: bool,
    /// Initial hidden and cell state.
    pub state: bool,
    /// Carried slots.
    pub slots: bool,
    /// Parameters of the score function.
    pub score: bool,
}

impl Needs {
    /// All of them.
    pub const ALL: Self = Self { x: true, weights: true, state: true, slots: true, score: true };
}

/// Gradients of the loss with respect to a call's inputs, in the inputs' shapes; empty where not
/// wanted.
#[derive(Debug, Clone)]
pub struct Grads<T> {
    /// `[B, T, I]`
    pub x: Vec<T>,
    /// `[I, 4H]`
    pub w_ih: Vec<T>,
    /// `[H, 4H]`
    pub w_hh: Vec<T>,
    /// `[4H]`
    pub bias: Vec<T>,
    /// `[B, H]`
    pub h0: Vec<T>,
    /// `[B, H]`
    pub c0: Vec<T>,
    /// `[B, M0, H]`
    pub slots: Vec<T>,
    /// In the order of the fields of the [`Score`] variant.
    pub score: Vec<Vec<T>>,
}

/// What every tile of a call shares.
struct Call<'a, T> {
    inputs: &'a Inputs<'a, T>,
    options: &'a SabOptions,
    /// The instruction set that the loops over a tile run in; the matrix products choose their own.
    arch: Arch,
    schedule: schedule::Schedule,
    /// `[bias; W_ih; W_hh]`, `[1 + I + H, 4 H]`; empty for a call of one step.
    stacked: Vec<T>,
    /// Ranks per step that have room in the saved arrays.
    width: usize,
}

/// Rows of a tile. 16 rows make the recurrent product run at full speed (measured with H 128, f32,
/// AVX-512: 114 GFLOP/s for 16 rows, 111 for 4, 37 for 1) while a tile's working set fits the
/// second-level cache; small batches are cut finer so that two threads have something to do.
fn tile_rows(batch: usize) -> usize {
    batch.div_ceil(2).min(16)
}

/// Numbers in one row of `[1 | x_t | h_{t-1}]`.
fn augmented(shape: &Shape) -> usize {
    1 + shape.input + shape.hidden
}

impl<'a, T: Float> Call<'a, T> {
    /// # Panics
    ///
    /// Panics where a size is 0 that must not be, or a slice has not the number of elements that
    /// `inputs.shape` says.
    fn new(inputs: &'a Inputs<'a, T>, options: &'a SabOptions, arch: Arch) -> Self {
        let Shape { batch, time, input, hidden, carried, attention } = inputs.shape;
        assert!(
            batch * time * input * hidden > 0,
            "sizes of a call are at least 1, except the carried slots"
        );
        let lens = [
            (inputs.x.len(), batch * time * input, "x"),
            (inputs.w_ih.len(), input * 4 * hidden, "w_ih"),
            (inputs.w_hh.len(), hidden * 4 * hidden, "w_hh"),
            (inputs.bias.len(), 4 * hidden, "bias"),
            (inputs.h0.len(), batch * hidden, "h0"),
            (inputs.c0.len(), batch * hidden, "c0"),
            (inputs.slots.len(), batch * inputs.capacity * hidden, "slots"),
        ];
        for (len, want, name) in lens {
            assert_eq!(len, want, "elements of {name}");
        }
        assert!(carried <= inputs.capacity, "more slots than room for them");
        inputs.score.check(hidden, attention);
        let schedule = schedule::Schedule::new(options, time, carried);
        assert!(i32::try_from(schedule.total_slots()).is_ok(), "at most 2^31 - 1 slots");
        Self {
            inputs,
            options,
            arch,
            // No step attends to a slot that the last step stores, hence one rank fewer at most;
            // the bound stays simple.
            width: options.ranks(schedule.total_slots()),
            schedule,
            // One step is over before a copy of the weights would pay.
            stacked: match time {
                1 => Vec::new(),
                _ => [inputs.bias, inputs.w_ih, inputs.w_hh].concat(),
            },
        }
    }

    /// Pre-activations of the gates from `n` rows `[1 | x_t | h_{t-1}]`, to the beginning of each of `n`
    /// records.
    #[inline(always)]
    fn gates(&self, records: &mut [T], rows: &[T], n: usize) {
        let (input, wide) = (self.inputs.shape.input, augmented(&self.inputs.shape));
        if self.stacked.is_empty() {
            let Inputs { bias, w_ih, w_hh, .. } = *self.inputs;
            self.add_gates(records, rows, n, 0..1, bias, Target::Replace);
            self.add_gates(records, rows, n, 1..1 + input, w_ih, Target::Add);
            self.add_gates(records, rows, n, 1 + input..wide, w_hh, Target::Add);
        } else {
            self.add_gates(records, rows, n, 0..wide, &self.stacked, Target::Replace);
        }
    }

    /// What some columns of the rows give to the gates.
    #[inline(always)]
    fn add_gates(
        &self,
        records: &mut [T],
        rows: &[T],
        n: usize,
        columns: Range<usize>,
        weights: &[T],
        target: Target,
    ) {
        let (width, wide) = (4 * self.inputs.shape.hidden, augmented(&self.inputs.shape));
        multiply(
            MatrixMut::strided(records, n, width, self.record()),
            Matrix::strided(&rows[columns.start..], n, columns.len(), wide),
            Matrix::new(weights, columns.len(), width),
            T::ONE,
            target,
        );
    }

    /// Whether all hidden states are an output, which then serves as memory.
    fn is_dense(&self) -> bool {
        matches!(self.options.readout, Readout::All)
    }

    /// Hidden states of a row that the passes can look up: every one, or the stored ones.
    fn past_len(&self) -> usize {
        if self.is_dense() { self.inputs.shape.time } else { self.schedule.stored_slots() }
    }

    /// The value of a slot: a carried one's own, or the hidden state that was stored (`past`: this batch
    /// row's hidden states that can be looked up).
    #[inline(always)]
    fn slot<'s>(&'s self, batch_row: usize, past: &'s [T], slot: usize) -> &'s [T] {
        let Shape { hidden, carried, .. } = self.inputs.shape;
        match slot.checked_sub(carried) {
            None => self.carried(batch_row, slot, 1),
            Some(stored) if self.is_dense() => {
                &past[self.schedule.step_of(stored) * hidden..][..hidden]
            }
            Some(stored) => &past[stored * hidden..][..hidden],
        }
    }

    /// `count` carried slots of a row.
    #[inline(always)]
    fn carried(&self, batch_row: usize, slot: usize, count: usize) -> &[T] {
        let (capacity, hidden) = (self.inputs.capacity, self.inputs.shape.hidden);
        &self.inputs.slots[(batch_row * capacity + slot) * hidden..][..count * hidden]
    }

    /// Numbers in a state: c, and h where that can be looked up nowhere else.
    fn state(&self) -> usize {
        self.inputs.shape.hidden * if self.is_dense() { 1 } else { 2 }
    }

    /// Where a record's query begins, behind four gates and the state after the step.
    fn query_at(&self) -> usize {
        4 * self.inputs.shape.hidden + self.state()
    }

    /// Numbers in the record of a step and row.
    fn record(&self) -> usize {
        self.query_at() + self.query_width()
    }

    /// Numbers in a query; 0 for additive scores, which need none.
    fn query_width(&self) -> usize {
        match self.inputs.score {
            Score::Mlp { .. } | Score::Dot { .. } if self.attends() => self.inputs.shape.attention,
            _ => 0,
        }
    }

    /// Numbers in a slot's key.
    fn key_width(&self) -> usize {
        self.query_width().max(1)
    }

    /// Whether any step finds a slot to attend to.
    fn attends(&self) -> bool {
        self.schedule.slots_before(self.inputs.shape.time - 1) > 0
    }
}
