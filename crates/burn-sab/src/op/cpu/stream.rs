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
    /// Keys that the first step takes over, `[B, M, A]`.
    known_keys: Option<Vec<T>>,
}

impl<T: Float> Stream<T> {
    /// Creates a stream with the slots `[B, M, H]` and, if they are known, their keys, `[B, M, A]`.
    pub fn new(slots: &[T], keys: Option<Vec<T>>, batch: usize, hidden: usize) -> Self {
        let len = slots.len() / (batch * hidden);
        Self {
            batch,
            hidden,
            len,
            capacity: len,
            slots: slots.to_vec(),
            rankings: Vec::new(),
            known_keys: keys,
        }
    }

    /// Creates a stream of given rows of streams, which all have the same number of slots.
    ///
    /// # Panics
    ///
    /// If there is no row.
    fn of_rows(rows: &[(&Self, usize)]) -> Self {
        let (first, _) = rows[0];
        let (hidden, len, batch) = (first.hidden, first.len, rows.len());
        let capacity = rows.iter().map(|(stream, _)| stream.capacity).max().unwrap_or(0);
        let mut slots = vec![T::ZERO; batch * capacity * hidden];
        if len > 0 {
            for (new, (stream, row)) in slots.chunks_mut(capacity * hidden).zip(rows) {
                let old = &stream.slots[row * stream.capacity * hidden..];
                new[..len * hidden].copy_from_slice(&old[..len * hidden]);
            }
        }
        let ranked: Vec<_> = rows.iter().filter_map(|(stream, row)| stream.ranked(*row)).collect();
        // Without the keys of every row the next step computes them all.
        let rankings = if ranked.len() == batch {
            ranked.chunks(tile_rows(batch)).map(Ranking::of_rows).collect()
        } else {
            Vec::new()
        };
        Self { batch, hidden, len, capacity, slots, rankings, known_keys: None }
    }

    /// These rows, at least one, in this order.
    pub fn select(&self, rows: &[usize]) -> Self {
        let rows: Vec<_> = rows.iter().map(|row| (self, *row)).collect();
        Self::of_rows(&rows)
    }

    /// All rows of streams, at least one, that have the same number of slots.
    pub fn cat(streams: &[&Self]) -> Self {
        let rows = streams.iter().flat_map(|stream| (0..stream.batch).map(|row| (*stream, row)));
        Self::of_rows(&rows.collect::<Vec<_>>())
    }

    /// The ranking that has row `row`, and the row's place in it; `None` if not all slots have keys.
    fn ranked(&self, row: usize) -> Option<(&Ranking<T>, usize)> {
        let rows = tile_rows(self.batch);
        let ranking = self.rankings.get(row / rows)?;
        (ranking.len() == self.len).then_some((ranking, row % rows))
    }

    /// The keys, `[B, M, A]`; `None` if not all slots have one.
    pub fn keys(&self) -> Option<Vec<T>> {
        let rows: Option<Vec<_>> = (0..self.batch).map(|row| self.ranked(row)).collect();
        let rows = rows.filter(|_| self.len > 0)?;
        Some(rows.into_iter().flat_map(|(ranking, row)| ranking.keys(row)).collect())
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
            let size = self.batch * self.len * call.key_width();
            if let Some(keys) = self.known_keys.take().filter(|keys| keys.len() == size) {
                let tiles = keys.chunks(rows * self.len * call.key_width());
                for (ranking, keys) in self.rankings.iter_mut().zip(tiles) {
                    ranking.fill(keys, self.len);
                }
            }
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
