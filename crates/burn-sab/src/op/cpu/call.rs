//! What every tile of a call shares, and where things lie.

use std::ops::Range;

use pulp::Arch;

use super::float::Float;
use super::matrix::{Matrix, MatrixMut, Target, multiply};
use super::schedule::Schedule;
use crate::op::options::{Readout, SabOptions};
use crate::op::score::Score;
use crate::op::tensors::{Dims, SabInputs};

/// The inputs of a call: dense arrays, row after row, in the shapes of [`SabInputs`].
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a, T> {
    /// All sizes; at least 1, but for the slots.
    pub dims: Dims,
    /// The arrays; `slots` is `[B, capacity, H]`, of which the first M0 of each row are slots.
    pub arrays: SabInputs<&'a [T], &'a [T], &'a [T]>,
    /// Slots that `slots` has room for; M0 or more.
    pub capacity: usize,
    /// Whether a row that has fewer slots than others has them in front; else they are the last of the M0.
    pub slots_in_front: bool,
}

/// What every tile of a call shares.
pub struct Call<'a, T> {
    pub dims: Dims,
    pub inputs: SabInputs<&'a [T], &'a [T], &'a [T]>,
    /// Slots that `inputs.slots` has room for.
    capacity: usize,
    slots_in_front: bool,
    pub options: &'a SabOptions,
    /// Factors on the summary, `[H]`: those that are learned, or the constant.
    pub summary_gain: Vec<T>,
    /// `[H]`: the state where a row starts anew.
    pub zeros: Vec<T>,
    /// The instruction set that the loops over a tile run in; the matrix products choose their own.
    pub arch: Arch,
    pub schedule: Schedule,
    /// `[bias; W_ih; W_hh]`, `[1 + I + H, 4 H]`; empty for a call of one step.
    stacked: Vec<T>,
    /// Ranks per step that have room in the saved arrays.
    pub width: usize,
}

/// Rows of a tile. Each tile runs on one thread, so that smaller tiles use more cores; each reads the weights once
/// per step, so that larger ones cost less. Four rows cost no more than sixteen; two cost a fifth more where
/// every core has work. Measured, milliseconds per training step (B 64, T 120, H 128, A 64, f32, AVX-512) on one
/// and on two threads: 16 rows 70.3 and 40.4, 8 rows 70.1 and 37.9, 4 rows 70.3 and 37.5, 2 rows 83.3 and 44.0,
/// 1 row 106 and 57.3. A batch of 8 takes 6.9 on two threads with 4 rows and 7.2 with 2.
pub fn tile_rows(batch: usize) -> usize {
    let rows = if batch < SMALL_BATCH { 2 } else { 4 };
    batch.div_ceil(2).min(rows)
}

/// Rows of a batch below which tiles have two rows: its tiles of four would be three at most.
const SMALL_BATCH: usize = 16;

/// Elements of one row of `[1 | x_t | h_{t-1}]`.
pub fn augmented(dims: &Dims) -> usize {
    1 + dims.input + dims.hidden
}

impl<'a, T: Float> Call<'a, T> {
    /// # Panics
    ///
    /// If a size is 0 that must not be, or a slice does not have the number of elements that `inputs.dims` says.
    pub fn new(inputs: &Inputs<'a, T>, options: &'a SabOptions, arch: Arch) -> Self {
        let Inputs { dims, arrays, capacity, slots_in_front } = *inputs;
        let Dims { batch, time, input, hidden, attention, carried, .. } = dims;
        assert!(
            batch * time * input * hidden * attention > 0 && carried <= capacity,
            "sizes of a call are at least 1, except the slots: {dims:?}, room for {capacity} slots"
        );
        let matrix = hidden * attention;
        let elements = SabInputs {
            x: batch * time * input,
            w_ih: input * 4 * hidden,
            w_hh: hidden * 4 * hidden,
            bias: 4 * hidden,
            h0: batch * hidden,
            c0: batch * hidden,
            slots: arrays.slots.map(|_| batch * capacity * hidden),
            summary_gain: arrays.summary_gain.map(|_| hidden),
            score: match arrays.score {
                Score::Additive { .. } => Score::Additive { u: hidden, v: hidden },
                Score::Mlp { .. } => Score::Mlp {
                    query: matrix,
                    query_bias: attention,
                    memory: matrix,
                    v: attention,
                },
                Score::Dot { .. } => Score::Dot { query: matrix, key: matrix },
            },
        };
        for ((name, array), (_, expected)) in arrays.named().into_iter().zip(elements.named()) {
            assert_eq!(array.len(), expected, "elements of {name}");
        }
        let schedule = Schedule::new(options, time, carried);
        Self {
            dims: Dims { stored: schedule.stored_slots(), ..dims },
            inputs: arrays,
            capacity,
            slots_in_front,
            options,
            summary_gain: match arrays.summary_gain {
                Some(gain) => gain.to_vec(),
                None => vec![T::from_f64(options.settings.summary_scale); hidden],
            },
            zeros: vec![T::ZERO; hidden],
            arch,
            // No step attends to a slot that the last step stores, hence one rank fewer at most;
            // the bound stays simple.
            width: options.ranks(schedule.total_slots()),
            schedule,
            // One step is over before a copy of the weights would pay.
            stacked: match time {
                1 => Vec::new(),
                _ => [arrays.bias, arrays.w_ih, arrays.w_hh].concat(),
            },
        }
    }

    /// Pre-activations of the gates from `n` rows `[1 | x_t | h_{t-1}]`, to the beginning of each of `n`
    /// records.
    #[inline(always)]
    pub fn gates(&self, records: &mut [T], rows: &[T], n: usize) {
        let (input, wide) = (self.dims.input, augmented(&self.dims));
        if self.stacked.is_empty() {
            let SabInputs { bias, w_ih, w_hh, .. } = self.inputs;
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
        let (width, wide) = (4 * self.dims.hidden, augmented(&self.dims));
        multiply(
            MatrixMut::strided(records, n, width, self.record()),
            Matrix::strided(&rows[columns.start..], n, columns.len(), wide),
            Matrix::new(weights, columns.len(), width),
            T::ONE,
            target,
        );
    }

    /// Whether all hidden states are an output, which then serves as memory: slot j of every row is the state
    /// of the same step.
    pub fn is_dense(&self) -> bool {
        matches!(self.options.readout, Readout::All) && !self.schedule.is_ragged()
    }

    /// Hidden states of a row that the passes can look up: every one, or the stored ones.
    pub fn past_len(&self) -> usize {
        if self.is_dense() { self.dims.time } else { self.schedule.stored_slots() }
    }

    /// The value of a slot: a carried one's own, or the hidden state that was stored (`past`: this batch
    /// row's hidden states that can be looked up).
    #[inline(always)]
    pub fn slot<'s>(&'s self, batch_row: usize, past: &'s [T], slot: usize) -> &'s [T] {
        let Dims { hidden, carried, .. } = self.dims;
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
    pub fn carried(&self, batch_row: usize, slot: usize, count: usize) -> &[T] {
        let (capacity, hidden) = (self.capacity, self.dims.hidden);
        let skipped = if self.slots_in_front { self.schedule.carried(batch_row).start } else { 0 };
        &self.inputs.slots.unwrap_or(&[])[(batch_row * capacity + slot - skipped) * hidden..]
            [..count * hidden]
    }

    /// Numbers in a state: c, and h where that can be looked up nowhere else.
    pub fn state(&self) -> usize {
        self.dims.hidden * if self.is_dense() { 1 } else { 2 }
    }

    /// Where a record's query begins, behind four gates and the state after the step.
    pub fn query_at(&self) -> usize {
        4 * self.dims.hidden + self.state()
    }

    /// Numbers in the record of a step and row.
    pub fn record(&self) -> usize {
        self.query_at() + self.query_width()
    }

    /// Numbers in a query; 0 for additive scores, which need none.
    pub fn query_width(&self) -> usize {
        match self.inputs.score {
            Score::Mlp { .. } | Score::Dot { .. } if self.attends() => self.dims.attention,
            _ => 0,
        }
    }

    /// Elements of a slot's key.
    pub fn key_width(&self) -> usize {
        self.query_width().max(1)
    }

    /// Whether any step finds a slot to attend to.
    pub fn attends(&self) -> bool {
        match self.schedule.is_ragged() {
            true => self.schedule.total_slots() > 0,
            false => self.schedule.slots_before(self.dims.time - 1) > 0,
        }
    }
}
