//! The forward pass of the scores: queries, keys, and the ranking of slots by score.

use super::call::Call;
use super::coarse::{Coarse, fewest};
use super::float::{Float, tanh};
use super::index::Index;
use super::matrix::{Matrix, MatrixMut, Target, multiply};
use super::rounded::Instructions;
use super::select::{BLOCK, beats, insert, resort, select};
use super::vector::{dot, scratch};
use crate::op::score::Score;

impl<T: Float> Score<&[T]> {
    /// Computes the queries, each `[A]`, of provisional hidden states, `[n, H]`. Consecutive queries are
    /// `out_stride` elements apart. Dot queries include the factor 1/sqrt(A), mlp queries include the
    /// bias, and additive scores need no query.
    #[inline(always)]
    pub(super) fn queries(
        &self,
        out: &mut [T],
        out_stride: usize,
        provisional: &[T],
        n: usize,
        hidden: usize,
        attention: usize,
    ) {
        let provisional = Matrix::new(provisional, n, hidden);
        match *self {
            Self::Additive { .. } => {}
            Self::Mlp { query, query_bias, .. } => {
                for row in out.chunks_mut(out_stride) {
                    row[..attention].copy_from_slice(query_bias);
                }
                let out = MatrixMut::strided(out, n, attention, out_stride);
                multiply(
                    out,
                    provisional,
                    Matrix::new(query, hidden, attention),
                    T::ONE,
                    Target::Add,
                );
            }
            Self::Dot { query, .. } => {
                let out = MatrixMut::strided(out, n, attention, out_stride);
                multiply(
                    out,
                    provisional,
                    Matrix::new(query, hidden, attention),
                    dot_scale(attention),
                    Target::Replace,
                );
            }
        }
    }

    /// Computes the keys (`[n, A]`; additive: `[n]`) of `n` slots, whose rows in `slots` are `stride`
    /// elements apart.
    #[inline(always)]
    pub(super) fn keys(
        &self,
        out: &mut [T],
        slots: &[T],
        n: usize,
        stride: usize,
        hidden: usize,
        attention: usize,
    ) {
        match *self {
            Self::Additive { v, .. } => {
                for (key, slot) in out[..n].iter_mut().zip(slots.chunks(stride)) {
                    *key = dot_tanh(v, &slot[..hidden]);
                }
            }
            Self::Mlp { memory: weights, .. } | Self::Dot { key: weights, .. } => {
                let slots = Matrix::strided(slots, n, hidden, stride);
                let out = MatrixMut::new(out, n, attention);
                multiply(
                    out,
                    slots,
                    Matrix::new(weights, hidden, attention),
                    T::ONE,
                    Target::Replace,
                );
            }
        }
    }
}

/// 1/sqrt(A).
pub fn dot_scale<T: Float>(attention: usize) -> T {
    T::from_f64(1.0 / (attention as f64).sqrt())
}

/// `v . tanh(x)`.
#[inline(always)]
fn dot_tanh<T: Float>(v: &[T], x: &[T]) -> T {
    let mut sum = T::ZERO;
    for (v, x) in v.chunks(BLOCK).zip(x.chunks(BLOCK)) {
        let mut part = [T::ZERO; BLOCK];
        for (part, x) in part.iter_mut().zip(x) {
            *part = tanh(*x);
        }
        sum += dot(v, &part);
    }
    sum
}

/// Maximum length of the list of best keys: a longer list costs more to maintain than a new search. This
/// is a judgement, not a measurement: published settings rank at most eleven slots.
const MOST_LISTED: usize = 256;

/// The keys of one tile's slots, in a layout for ranking.
#[derive(Debug, Clone)]
pub struct Ranking<T> {
    /// Elements of a key.
    width: usize,
    /// One list per row, empty if there is an index. Dot, mlp: `[blocks, A, BLOCK]`. Keys are interleaved, so
    /// the scores of a block are computed side by side, without a horizontal sum for each. Additive:
    /// `[slots]`.
    keys: Vec<Vec<T>>,
    /// Additive scores: the best keys of each row so far and their slots, `[rows, best]`.
    best_keys: Vec<T>,
    best_slots: Vec<u32>,
    /// Capacity of the lists: one more than the possible number of ranks, to bound the other keys, but
    /// at most [`MOST_LISTED`].
    best: usize,
    /// Slots of each row.
    lens: Vec<usize>,
    /// Dot scores of many slots: bounds, for the same ranking with fewer operations.
    coarse: Option<Coarse<T>>,
    /// Dot scores of some slots only.
    index: Option<Index<T>>,
    /// The scores of one row.
    scores: Vec<[T; BLOCK]>,
    /// The `best` list of one row during its conversion into scores.
    list_scores: Vec<T>,
    list_slots: Vec<u32>,
}

impl<T: Float> Ranking<T> {
    /// Creates a ranking with room for all slots of a call in `rows` rows.
    pub fn new(call: &Call<'_, T>, rows: usize) -> Self {
        Self::with_ranks(call, rows, call.width, call.schedule.total_slots())
    }

    /// Like [`Self::new`], for a stream, whose later calls add more slots.
    pub fn of_stream(call: &Call<'_, T>, rows: usize) -> Self {
        Self::with_ranks(call, rows, call.options.ranks(usize::MAX), usize::MAX)
    }

    /// `slots` is the largest possible number of slots.
    fn with_ranks(call: &Call<'_, T>, rows: usize, ranks: usize, slots: usize) -> Self {
        let dot = matches!(call.inputs.score, Score::Dot { .. });
        let n_probe = call.options.settings.n_probe.filter(|_| dot);
        let bounded = dot && n_probe.is_none() && slots >= fewest(Instructions::detect());
        let additive = matches!(call.inputs.score, Score::Additive { .. });
        let best = if additive { ranks.saturating_add(1).min(MOST_LISTED) } else { 0 };
        let mut ranking = Self {
            width: call.key_width(),
            keys: vec![vec![]; rows],
            best_keys: scratch(rows * best),
            best_slots: vec![0; rows * best],
            best,
            lens: vec![0; rows],
            coarse: if bounded { Coarse::new(rows, call.key_width()) } else { None },
            index: n_probe.map(|n_probe| Index::new(rows, call.key_width(), n_probe)),
            scores: vec![],
            list_scores: scratch(best),
            list_slots: vec![0; best],
        };
        // No step ranks the slot that the last step stores, but it has a key.
        ranking.reserve(call.schedule.total_slots());
        ranking
    }

    /// Creates a ranking of given rows of others, which are of one layer; `None` is a row without slots.
    pub fn of_rows(&self, rows: &[Option<(&Self, usize)>]) -> Self {
        let Self { width, best, .. } = *self;
        let lens: Vec<usize> =
            rows.iter().map(|row| row.map_or(0, |(ranking, row)| ranking.lens[row])).collect();
        let room = |(row, len): (&Option<(&Self, usize)>, &usize)| match row {
            // The longest row keeps its room to grow.
            Some((ranking, _)) if *len == ranking.len() => ranking.scores.len(),
            _ => len.div_ceil(BLOCK),
        };
        let blocks = rows.iter().zip(&lens).map(room).max().unwrap_or(0);
        let blocks = if self.index.is_some() { 0 } else { blocks };
        let keys = rows.iter().zip(&lens).map(|(row, len)| {
            let mut keys = vec![T::ZERO; blocks * BLOCK * width];
            if let Some((ranking, row)) = row {
                let used = len.div_ceil(BLOCK).min(blocks) * BLOCK * width;
                keys[..used].copy_from_slice(&ranking.keys[*row][..used]);
            }
            keys
        });
        let list = |row: &Option<(&Self, usize)>| match row {
            None => (vec![T::ZERO; best], vec![0; best]),
            Some((ranking, row)) => {
                let range = row * best..(row + 1) * best;
                (ranking.best_keys[range.clone()].to_vec(), ranking.best_slots[range].to_vec())
            }
        };
        let (best_keys, best_slots): (Vec<_>, Vec<_>) = rows.iter().map(list).unzip();
        Self {
            width,
            keys: keys.collect(),
            best_keys: best_keys.concat(),
            best_slots: best_slots.concat(),
            best,
            lens,
            coarse: self.coarse.as_ref().map(|coarse| {
                coarse.of_rows(rows.iter().map(|row| {
                    let (ranking, row) = (*row)?;
                    Some((ranking.coarse.as_ref()?, row))
                }))
            }),
            index: self.index.as_ref().map(|index| {
                index.of_rows(rows.iter().map(|row| {
                    let (ranking, row) = (*row)?;
                    Some((ranking.index.as_ref()?, row))
                }))
            }),
            scores: vec![[T::NAN; BLOCK]; blocks],
            list_scores: scratch(best),
            list_slots: vec![0; best],
        }
    }

    /// Includes the first slots of each row, so many as `lens` says, with their keys, `[rows, M, A]`.
    pub fn fill(&mut self, keys: &[T], lens: &[usize]) {
        let (width, most) = (self.width, keys.len() / (lens.len() * self.width));
        self.reserve(most);
        for (row, (keys, len)) in keys.chunks(most * width).zip(lens).enumerate() {
            for (slot, key) in keys.chunks(width).take(*len).enumerate() {
                self.set(row, slot, key);
            }
            self.grow_to(row, *len);
        }
    }

    /// The keys of a row's slots, `[slots, A]`.
    pub fn keys(&self, row: usize) -> Vec<T> {
        if let Some(index) = &self.index {
            return index.keys(row);
        }
        let (keys, width) = (&self.keys[row], self.width);
        let key = move |slot: usize| {
            let block = &keys[slot / BLOCK * width * BLOCK..];
            (0..width).map(move |a| block[a * BLOCK + slot % BLOCK])
        };
        (0..self.lens[row]).flat_map(key).collect()
    }

    /// Makes room for this number of slots; an index does so by itself. Each growth at least doubles the capacity.
    pub fn reserve(&mut self, slots: usize) {
        let blocks = slots.div_ceil(BLOCK);
        if self.index.is_none() && blocks > self.scores.len() {
            let blocks = blocks.max(2 * self.scores.len());
            for keys in &mut self.keys {
                // Zeros: unused entries of a block take part in the computation, and their results are
                // ignored.
                keys.resize(blocks * BLOCK * self.width, T::ZERO);
            }
            self.scores.resize(blocks, [T::NAN; BLOCK]);
            if let Some(coarse) = &mut self.coarse {
                coarse.reserve(blocks * BLOCK);
            }
        }
    }

    /// Elements of a key.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The most slots that a row has.
    pub fn len(&self) -> usize {
        self.lens.iter().copied().max().unwrap_or(0)
    }

    /// Number of slots of a row.
    pub fn len_of(&self, row: usize) -> usize {
        self.lens[row]
    }

    /// Stores `key` as the key of slot `slot` in row `row`. Slots must come in ascending order; slot 0 again
    /// replaces all slots of the row.
    #[inline(always)]
    pub fn set(&mut self, row: usize, slot: usize, key: &[T]) {
        if let Some(index) = &mut self.index {
            return index.set(row, slot, key);
        }
        let (width, keys) = (self.width, &mut self.keys[row]);
        if let Some(coarse) = &mut self.coarse {
            coarse.set(row, slot, key);
        }
        if self.best == 0 {
            let block = &mut keys[slot / BLOCK * width * BLOCK..][..width * BLOCK];
            // Indexed, because the bounds checks keep the compiler from a scatter instruction, which is
            // slower than single stores.
            for (a, &value) in key.iter().enumerate() {
                block[a * BLOCK + slot % BLOCK] = value;
            }
        } else {
            keys[slot] = key[0];
            let range = row * self.best..(row + 1) * self.best;
            insert(
                &mut self.best_keys[range.clone()],
                &mut self.best_slots[range],
                slot.min(self.best),
                key[0],
                slot as u32,
            );
        }
    }

    /// Notes that a row has `len` slots.
    pub fn grow_to(&mut self, row: usize, len: usize) {
        self.lens[row] = len;
    }

    /// Writes the best of the `len` slots of `row`, or of those that an index finds, and their scores, in
    /// descending order of score. The length of `best` determines their number; it is at most `len`. With
    /// `up_to_shift`, only differences of scores matter, and a common term may be missing from all of them.
    #[inline(always)]
    pub fn rank(
        &mut self,
        score: &Score<&[T]>,
        (row, len): (usize, usize),
        query: &[T],
        provisional: &[T],
        up_to_shift: bool,
        (best, slots): (&mut [T], &mut [u32]),
    ) {
        if let Some(index) = &mut self.index {
            return index.rank(row, query, best, slots);
        }
        if let Some(coarse) = &mut self.coarse
            && coarse.rank((row, len), query, &mut *best, &mut *slots)
        {
            return;
        }
        let keys = &self.keys[row];
        let scores = &mut self.scores[..len.div_ceil(BLOCK)];
        let blocks = keys.chunks_exact(self.width * BLOCK);
        match *score {
            Score::Dot { .. } => {
                for (scores, block) in scores.iter_mut().zip(blocks) {
                    *scores = dot_block(query, block);
                }
            }
            Score::Mlp { v, .. } => {
                for (scores, block) in scores.iter_mut().zip(blocks) {
                    *scores = mlp_block(query, v, block);
                }
            }
            Score::Additive { u, .. } => {
                let query = dot_tanh(u, provisional);
                if !self.rank_from_list((row, len), query, best, slots) {
                    let keys = &self.keys[row][..len];
                    let scores = &mut self.scores[..len.div_ceil(BLOCK)];
                    for (score, key) in scores.as_flattened_mut().iter_mut().zip(keys) {
                        *score = query + *key;
                    }
                    leave_unused(scores, len);
                    select(scores, best, slots);
                }
                if up_to_shift {
                    // The query's term affects nothing but ties, and would cost the differences
                    // precision.
                    for (best, slot) in best.iter_mut().zip(slots) {
                        *best = self.keys[row][*slot as usize];
                    }
                }
                return;
            }
        }
        leave_unused(scores, len);
        select(scores, best, slots);
    }

    /// Ranks additive scores by means of the list of best keys. All additive scores contain the same
    /// query term, so the best keys have the best scores, unless rounding makes scores of different keys
    /// equal. Returns false if such a tie is at the boundary, or if the list is too short.
    #[inline(always)]
    fn rank_from_list(
        &mut self,
        (row, len): (usize, usize),
        query: T,
        best: &mut [T],
        slots: &mut [u32],
    ) -> bool {
        let n = best.len();
        let listed = len.min(self.best);
        if n > listed || (n == listed && listed < len) {
            return false;
        }
        let range = row * self.best..row * self.best + listed;
        let (scores, list_slots) =
            (&mut self.list_scores[..listed], &mut self.list_slots[..listed]);
        list_slots.copy_from_slice(&self.best_slots[range.clone()]);
        for (score, key) in scores.iter_mut().zip(&self.best_keys[range]) {
            *score = query + *key;
        }
        if listed > n && !beats(scores[n - 1], scores[n]) {
            return false;
        }
        resort(&mut scores[..n], &mut list_slots[..n]);
        best.copy_from_slice(&scores[..n]);
        slots[..n].copy_from_slice(&list_slots[..n]);
        true
    }
}

/// Marks the entries of the last block that have no slot, out of `len`.
#[inline(always)]
fn leave_unused<T: Float>(scores: &mut [[T; BLOCK]], len: usize) {
    if !len.is_multiple_of(BLOCK)
        && let Some(last) = scores.last_mut()
    {
        for (k, score) in last.iter_mut().enumerate() {
            *score = if k < len % BLOCK { *score } else { T::NAN };
        }
    }
}

/// The dot scores of a block of keys, `[A, BLOCK]`.
#[inline(always)]
pub fn dot_block<T: Float>(query: &[T], block: &[T]) -> [T; BLOCK] {
    let keys = block.as_chunks::<BLOCK>().0;
    let half = query.len() / 2;
    let (first, second) = (&query[..half], &query[half..2 * half]);
    let (first_keys, second_keys) = (&keys[..half], &keys[half..2 * half]);
    // Two sums: with one, each addition would wait for the previous one.
    let (mut sums, mut more) = ([T::ZERO; BLOCK], [T::ZERO; BLOCK]);
    for a in 0..half {
        add_product(&mut sums, first[a], &first_keys[a]);
        add_product(&mut more, second[a], &second_keys[a]);
    }
    if query.len() % 2 == 1 {
        add_product(&mut sums, query[2 * half], &keys[2 * half]);
    }
    add_product(&mut sums, T::ONE, &more);
    sums
}

#[inline(always)]
fn add_product<T: Float>(sums: &mut [T; BLOCK], scale: T, values: &[T; BLOCK]) {
    for k in 0..BLOCK {
        sums[k] += scale * values[k];
    }
}

/// The mlp scores of a block of keys, `[A, BLOCK]`.
#[inline(always)]
fn mlp_block<T: Float>(query: &[T], v: &[T], block: &[T]) -> [T; BLOCK] {
    let mut sums = [T::ZERO; BLOCK];
    for ((q, v), keys) in query.iter().zip(v).zip(block.chunks_exact(BLOCK)) {
        for k in 0..BLOCK {
            sums[k] += *v * tanh(*q + keys[k]);
        }
    }
    sums
}
