//! A memory that persists across calls, for input that arrives step by step.

use pulp::Arch;

use super::Outputs;
use super::call::{Call, Inputs, tile_rows};
use super::float::Float;
use super::forward::forward_on;
use super::score::Ranking;
use crate::op::options::SabOptions;
use crate::op::tensors::{Dims, SabInputs};

/// Slots in a growing buffer, and their keys, each computed once. An ordinary call with carried slots
/// would copy the slots and compute their keys again.
#[derive(Debug, Clone)]
pub struct Stream<T> {
    batch: usize,
    hidden: usize,
    len: usize,
    capacity: usize,
    /// `[B, capacity, H]`
    slots: Vec<T>,
    /// One ranking per tile; empty if there are no keys.
    rankings: Vec<Ranking<T>>,
}

impl<T: Float> Stream<T> {
    /// Creates a stream with the slots `[B, M, H]`.
    pub fn new(slots: &[T], batch: usize, hidden: usize) -> Self {
        let len = slots.len() / (batch * hidden);
        Self { batch, hidden, len, capacity: len, slots: slots.to_vec(), rankings: Vec::new() }
    }

    /// M, the number of slots.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The slots, `[B, M, H]`.
    pub fn slots(&self) -> Vec<T> {
        let rows = self.slots.chunks(self.capacity.max(1) * self.hidden);
        rows.flat_map(|row| &row[..self.len * self.hidden]).copied().collect()
    }

    /// Discards the keys, after a change of the score parameters.
    pub fn forget_keys(&mut self) {
        self.rankings.clear();
    }

    /// Runs one step (`inputs.dims.time` must be 1) that attends to this stream's slots, not to those of
    /// `inputs`. The step stores its own slot. `k_top` and the score must not change unless the keys are
    /// discarded.
    pub fn step(&mut self, inputs: &Inputs<'_, T>, options: &SabOptions) -> Outputs<T> {
        let inputs = Inputs {
            dims: Dims { carried: self.len, ..inputs.dims },
            arrays: SabInputs { slots: Some(&self.slots[..]), ..inputs.arrays },
            capacity: self.capacity,
        };
        if self.rankings.is_empty() && self.len > 0 {
            let call = Call::new(&inputs, options, Arch::new());
            let rows = tile_rows(self.batch);
            let firsts = (0..self.batch).step_by(rows);
            let ranking = |first| Ranking::of_stream(&call, rows.min(self.batch - first));
            self.rankings = firsts.map(ranking).collect();
        }
        for ranking in &mut self.rankings {
            ranking.reserve(self.len + 1);
        }
        let outputs = forward_on(Arch::new(), &inputs, options, false, &mut self.rankings).0;
        if options.stores_slot(0) {
            self.push(&outputs.last);
        }
        outputs
    }

    /// Stores a slot, `[B, H]`.
    fn push(&mut self, slot: &[T]) {
        let (hidden, old) = (self.hidden, self.capacity);
        if self.len == old {
            // The capacity doubles, so that each slot is copied about once.
            self.capacity = (2 * old).max(16);
            let mut slots = vec![T::ZERO; self.batch * self.capacity * hidden];
            if old > 0 {
                let rows = slots.chunks_mut(self.capacity * hidden);
                for (new, old) in rows.zip(self.slots.chunks(old * hidden)) {
                    new[..old.len()].copy_from_slice(old);
                }
            }
            self.slots = slots;
        }
        let rows = self.slots.chunks_mut(self.capacity * hidden);
        for (row, slot) in rows.zip(slot.chunks(hidden)) {
            row[self.len * hidden..][..hidden].copy_from_slice(slot);
        }
        self.len += 1;
    }
}
