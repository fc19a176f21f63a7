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
/// would copy the slots and compute their keys again. Rows can have different numbers of slots.
#[derive(Debug, Clone)]
pub struct Stream<T> {
    hidden: usize,
    /// Slots of each row.
    lens: Vec<usize>,
    capacity: usize,
    /// `[B, capacity, H]`, in front those that a row has.
    slots: Vec<T>,
    /// One ranking per tile; empty if there are no keys.
    rankings: Vec<Ranking<T>>,
    /// Keys that the first step takes over, `[B, M, A]`, in front those that a row has.
    known_keys: Option<Vec<T>>,
}

impl<T: Float> Stream<T> {
    /// Creates a stream with the slots `[B, M, H]` and, if they are known, their keys, `[B, M, A]`. The last of
    /// the M are a row's, so many as `lens` says; M is the most.
    pub fn new(slots: &[T], keys: Option<Vec<T>>, lens: Vec<usize>, hidden: usize) -> Self {
        let capacity = slots.len() / (lens.len() * hidden);
        let (slots, known_keys) = (in_front(slots, &lens), keys.map(|keys| in_front(&keys, &lens)));
        Self { hidden, lens, capacity, slots, rankings: Vec::new(), known_keys }
    }

    /// Creates a stream of given rows of streams.
    ///
    /// # Panics
    ///
    /// If there is no row.
    fn of_rows(rows: &[(&Self, usize)]) -> Self {
        let (first, _) = rows[0];
        let (hidden, batch) = (first.hidden, rows.len());
        let lens: Vec<usize> = rows.iter().map(|(stream, row)| stream.lens[*row]).collect();
        let room = |((stream, _), len): (&(&Self, usize), &usize)| {
            // The longest row keeps its room to grow.
            if *len == stream.len() { stream.capacity } else { *len }
        };
        let capacity = rows.iter().zip(&lens).map(room).max().unwrap_or(0);
        let mut slots = vec![T::ZERO; batch * capacity * hidden];
        for (new, ((stream, row), len)) in
            slots.chunks_mut((capacity * hidden).max(1)).zip(rows.iter().zip(&lens))
        {
            let old = &stream.slots[row * stream.capacity * hidden..];
            new[..len * hidden].copy_from_slice(&old[..len * hidden]);
        }
        // Without the keys of every row the next step computes them all.
        let ranked: Option<Vec<_>> = rows.iter().map(|(stream, row)| stream.ranked(*row)).collect();
        let ranked = ranked.unwrap_or_default();
        let rankings = match ranked.iter().flatten().next() {
            None => Vec::new(),
            Some((like, _)) => {
                ranked.chunks(tile_rows(batch)).map(|rows| like.of_rows(rows)).collect()
            }
        };
        Self { hidden, lens, capacity, slots, rankings, known_keys: None }
    }

    /// These rows, at least one, in this order.
    pub fn select(&self, rows: &[usize]) -> Self {
        let rows: Vec<_> = rows.iter().map(|row| (self, *row)).collect();
        Self::of_rows(&rows)
    }

    /// All rows of streams, at least one.
    pub fn cat(streams: &[&Self]) -> Self {
        let rows = streams.iter().flat_map(|stream| (0..stream.batch()).map(|row| (*stream, row)));
        Self::of_rows(&rows.collect::<Vec<_>>())
    }

    fn batch(&self) -> usize {
        self.lens.len()
    }

    /// The ranking that has row `row`, and the row's place in it; `Some(None)` for a row without slots, `None` if
    /// not all slots have keys.
    fn ranked(&self, row: usize) -> Option<Option<(&Ranking<T>, usize)>> {
        let (rows, len) = (tile_rows(self.batch()), self.lens[row]);
        if len == 0 {
            return Some(None);
        }
        let ranking = self.rankings.get(row / rows)?;
        (ranking.len_of(row % rows) == len).then_some(Some((ranking, row % rows)))
    }

    /// The keys, `[B, M, A]`, the last of which are a row's, with zeros before them; `None` if not all slots have
    /// one.
    pub fn keys(&self) -> Option<Vec<T>> {
        let rows: Option<Vec<_>> = (0..self.batch()).map(|row| self.ranked(row)).collect();
        let (rows, most) = (rows?, self.len());
        let width = rows.iter().flatten().next()?.0.width();
        let keys = rows.into_iter().zip(&self.lens).flat_map(|(ranked, len)| {
            let keys = ranked.into_iter().flat_map(|(ranking, row)| ranking.keys(row));
            std::iter::repeat_n(T::ZERO, (most - len) * width).chain(keys)
        });
        Some(keys.collect())
    }

    /// Slots of each row.
    pub fn counts(&self) -> &[usize] {
        &self.lens
    }

    /// M, the most slots that a row has.
    pub fn len(&self) -> usize {
        self.lens.iter().copied().max().unwrap_or(0)
    }

    /// The slots, `[B, M, H]`, the last of which are a row's, with zeros before them.
    pub fn slots(&self) -> Vec<T> {
        let rows = self.slots.chunks(self.capacity.max(1) * self.hidden).zip(&self.lens);
        let most = self.len();
        let slots = rows.flat_map(|(row, len)| {
            let before = std::iter::repeat_n(T::ZERO, (most - len) * self.hidden);
            before.chain(row[..len * self.hidden].iter().copied())
        });
        slots.collect()
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
            dims: Dims { carried: self.len(), ..inputs.dims },
            arrays: SabInputs { slots: Some(&self.slots[..]), ..inputs.arrays },
            capacity: self.capacity,
            slots_in_front: true,
        };
        if self.rankings.is_empty() && self.len() > 0 {
            let call = Call::new(&inputs, options, Arch::new());
            let rows = tile_rows(self.batch());
            let tiles = self.lens.chunks(rows);
            self.rankings = tiles.map(|tile| Ranking::of_stream(&call, tile.len())).collect();
            let each = self.len() * call.key_width();
            let size = self.batch() * each;
            if let Some(keys) = self.known_keys.take().filter(|keys| keys.len() == size) {
                let tiles = keys.chunks(rows * each).zip(self.lens.chunks(rows));
                for (ranking, (keys, lens)) in self.rankings.iter_mut().zip(tiles) {
                    ranking.fill(keys, lens);
                }
            }
        }
        let most = self.len();
        for ranking in &mut self.rankings {
            ranking.reserve(most + 1);
        }
        let outputs = forward_on(Arch::new(), &inputs, options, false, &mut self.rankings).0;
        let stores = |row: usize| match &options.rows {
            None => options.stores_slot(0),
            Some(rows) => options.stores_at(rows[row].first_step),
        };
        let stored: Vec<usize> = (0..self.batch()).filter(|row| stores(*row)).collect();
        self.push(&stored, &outputs.last);
        outputs
    }

    /// Stores a slot of these rows, each its own of `[B, H]`.
    fn push(&mut self, rows: &[usize], slots: &[T]) {
        let (hidden, old) = (self.hidden, self.capacity);
        if rows.iter().any(|row| self.lens[*row] == old) {
            // The capacity doubles, so that each slot is copied about once.
            self.capacity = (2 * old).max(16);
            let mut slots = vec![T::ZERO; self.batch() * self.capacity * hidden];
            if old > 0 {
                let rows = slots.chunks_mut(self.capacity * hidden);
                for (new, old) in rows.zip(self.slots.chunks(old * hidden)) {
                    new[..old.len()].copy_from_slice(old);
                }
            }
            self.slots = slots;
        }
        for &row in rows {
            let at = (row * self.capacity + self.lens[row]) * hidden;
            self.slots[at..][..hidden].copy_from_slice(&slots[row * hidden..][..hidden]);
            self.lens[row] += 1;
        }
    }
}

/// The elements of `[B, M, N]` with the last of each row, so many as `lens` says, in front.
fn in_front<T: Float>(values: &[T], lens: &[usize]) -> Vec<T> {
    let mut values = values.to_vec();
    let most = lens.iter().copied().max().filter(|most| *most > 0);
    let Some(most) = most else { return values };
    let each = values.len() / lens.len();
    let width = each / most;
    for (row, len) in values.chunks_mut(each).zip(lens) {
        row.copy_within((most - len) * width.., 0);
    }
    values
}
