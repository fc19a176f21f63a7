//! The index over slots ([`crate::op::index`] has the rule) in a layout for the kernel.
//!
//! Keys lie in the lists that they belong to, so that a step reads whole lists. Pivots and keys of 16 lists or
//! slots are interleaved, as in [`score`](super::score). The slots that are searched are scored in the order of
//! operations of the plain path.

use super::float::Float;
use super::score::dot_block;
use super::select::{BLOCK, Best, select};
use crate::op::index::{Founding, Place, REACH};

/// A list that is full of keys makes room for this share of them: a compromise between copies and room that
/// stays empty.
const GROWTH: usize = 4;

/// The indices of some rows.
#[derive(Debug, Clone)]
pub struct Index<T> {
    /// A
    width: usize,
    /// Lists that a step searches.
    n_probe: usize,
    rows: Vec<Row<T>>,
    /// The estimates of the lists of one row, and the best of them.
    estimates: Vec<[T; BLOCK]>,
    best: Vec<T>,
    lists: Vec<u32>,
}

#[derive(Debug, Clone)]
struct Row<T> {
    founding: Founding,
    /// `[blocks, A, BLOCK]`; NaN for a list that is closed.
    pivots: Vec<T>,
    /// `[blocks, A, 2, BLOCK]`: the highest and the lowest value of (1 - REACH) pivot + REACH key. A query takes
    /// one of them by the sign of its element, so that an estimate costs one dot product.
    corners: Vec<T>,
    lists: Vec<List<T>>,
}

#[derive(Debug, Clone)]
struct List<T> {
    open: bool,
    slots: Vec<u32>,
    /// `[blocks, A, BLOCK]`
    keys: Vec<T>,
}

impl<T> Row<T> {
    fn new() -> Self {
        Self { founding: Founding::default(), pivots: vec![], corners: vec![], lists: vec![] }
    }
}

impl<T: Float> Index<T> {
    /// Creates the indices of `rows` rows without slots; `width` is A.
    pub fn new(rows: usize, width: usize, n_probe: usize) -> Self {
        Self { rows: vec![Row::new(); rows], ..Self::empty(width, n_probe) }
    }

    fn empty(width: usize, n_probe: usize) -> Self {
        Self { width, n_probe, rows: vec![], estimates: vec![], best: vec![], lists: vec![] }
    }

    /// The indices of given rows of others with the same A; `None` is a row without slots.
    pub fn of_rows<'a>(&self, rows: impl Iterator<Item = Option<(&'a Self, usize)>>) -> Self
    where
        T: 'a,
    {
        let row = |row: Option<(&Self, usize)>| match row {
            Some((index, row)) => index.rows[row].clone(),
            None => Row::new(),
        };
        Self { rows: rows.map(row).collect(), ..Self::empty(self.width, self.n_probe) }
    }

    /// The keys of a row's slots, `[slots, A]`.
    pub fn keys(&self, row: usize) -> Vec<T> {
        let (width, lists) = (self.width, &self.rows[row].lists);
        let slots = lists.iter().map(|list| list.slots.len()).sum::<usize>();
        let mut keys = vec![T::ZERO; slots * width];
        for list in lists {
            for (place, slot) in list.slots.iter().enumerate() {
                let key = lane(&list.keys, width, place);
                for (to, from) in keys[*slot as usize * width..][..width].iter_mut().zip(key) {
                    *to = *from;
                }
            }
        }
        keys
    }

    /// Stores the key of a slot. Slots must come in ascending order; slot 0 again replaces all slots of the row.
    #[inline(always)]
    pub fn set(&mut self, row: usize, slot: usize, key: &[T]) {
        let row = &mut self.rows[row];
        if slot == 0 {
            *row = Row::new();
        }
        let nearest = row.nearest(key);
        let place =
            row.founding.place(nearest.map(|(list, d)| (d.into(), row.lists[list].slots.len())));
        match (place, nearest) {
            (Place::Joins, Some((list, _))) => return row.join(list, slot, key),
            (Place::Replaces, Some((list, _))) => row.close(list, key.len()),
            _ => {}
        }
        row.found(slot, key);
    }

    /// Writes the best slots of a row among those of the lists that the query searches, and their scores. There
    /// must be at least as many slots.
    #[inline(always)]
    pub fn rank(&mut self, row: usize, query: &[T], best: &mut [T], slots: &mut [u32]) {
        let row = &self.rows[row];
        let all = row.lists.len();
        let mut best = Best::new(best, slots);
        if self.n_probe >= all {
            for list in &row.lists {
                list.search(query, &mut best);
            }
            return;
        }
        self.estimates.clear();
        // A loop, not a closure: that could be compiled for another instruction set.
        for corners in row.corners.chunks_exact(2 * BLOCK * query.len()) {
            self.estimates.push(estimate_block(query, corners));
        }
        let mut searched = self.n_probe;
        let mut found = 0;
        loop {
            self.best.resize(searched, T::NAN);
            self.lists.resize(searched, 0);
            select(&self.estimates, &mut self.best, &mut self.lists);
            let from = found;
            for at in &self.lists[from..] {
                if found >= self.n_probe && best.is_full() {
                    return;
                }
                row.lists[*at as usize].search(query, &mut best);
                found += 1;
            }
            if best.is_full() || searched == all {
                return;
            }
            searched = (2 * searched).min(all);
        }
    }
}

impl<T: Float> Row<T> {
    /// The open list whose pivot is nearest to `key`, and its squared distance. NaN is farther than any number.
    #[inline(always)]
    fn nearest(&self, key: &[T]) -> Option<(usize, T)> {
        let infinite = T::from_f64(f64::INFINITY);
        let (mut least, mut blocks) = ([infinite; BLOCK], [0u32; BLOCK]);
        for (block, pivots) in (0..).zip(self.pivots.chunks_exact(key.len() * BLOCK)) {
            let distances = distance_block(key, pivots);
            for k in 0..BLOCK {
                let nearer = distances[k] < least[k];
                least[k] = if nearer { distances[k] } else { least[k] };
                blocks[k] = if nearer { block } else { blocks[k] };
            }
        }
        let mut nearest: Option<(usize, T)> = None;
        for (k, (&distance, block)) in least.iter().zip(blocks).enumerate() {
            let list = block as usize * BLOCK + k;
            let older = |&(other, least): &(usize, T)| {
                distance < least || (distance == least && list < other)
            };
            if distance < infinite && nearest.as_ref().is_none_or(older) {
                nearest = Some((list, distance));
            }
        }
        let oldest = || Some((self.lists.iter().position(|list| list.open)?, infinite));
        nearest.or_else(oldest)
    }

    /// Adds a list with this pivot.
    #[inline(always)]
    fn found(&mut self, slot: usize, key: &[T]) {
        let (list, block) = (self.lists.len(), key.len() * BLOCK);
        if list.is_multiple_of(BLOCK) {
            self.pivots.resize(self.pivots.len() + block, T::NAN);
            self.corners.resize(self.corners.len() + 2 * block, T::NAN);
        }
        for (pivot, value) in lane_mut(&mut self.pivots, key.len(), list).zip(key) {
            *pivot = *value;
        }
        let corners = lane_mut(&mut self.corners, 2 * key.len(), list);
        for (k, corner) in corners.enumerate() {
            *corner = reached(key[k / 2], key[k / 2]);
        }
        let mut new = List { open: true, slots: vec![], keys: vec![] };
        new.push(slot, key);
        self.lists.push(new);
    }

    /// Adds a slot to a list.
    #[inline(always)]
    fn join(&mut self, list: usize, slot: usize, key: &[T]) {
        self.lists[list].push(slot, key);
        let pivot = lane(&self.pivots, key.len(), list);
        let first = list / BLOCK * 2 * key.len() * BLOCK;
        let corners = self.corners[first..].as_chunks_mut::<BLOCK>().0.as_chunks_mut::<2>().0;
        for (([high, low], pivot), value) in corners.iter_mut().zip(pivot).zip(key) {
            let (high, low) = (&mut high[list % BLOCK], &mut low[list % BLOCK]);
            let reached = reached(*pivot, *value);
            *high = if reached > *high { reached } else { *high };
            *low = if reached < *low { reached } else { *low };
        }
    }

    /// Lets no later slot join a list.
    fn close(&mut self, list: usize, width: usize) {
        self.lists[list].open = false;
        lane_mut(&mut self.pivots, width, list).for_each(|pivot| *pivot = T::NAN);
    }
}

impl<T: Float> List<T> {
    #[inline(always)]
    fn push(&mut self, slot: usize, key: &[T]) {
        let place = self.slots.len();
        let block = key.len() * BLOCK;
        if place.is_multiple_of(BLOCK) {
            if self.keys.len() == self.keys.capacity() {
                let blocks = (self.keys.len() / block / GROWTH).max(1);
                self.keys.reserve_exact(blocks * block);
                self.slots.reserve_exact(blocks * BLOCK);
            }
            // Zeros: unused entries of a block take part in the computation, and their results are ignored.
            self.keys.resize(self.keys.len() + block, T::ZERO);
        }
        self.slots.push(slot as u32);
        for (to, value) in lane_mut(&mut self.keys, key.len(), place).zip(key) {
            *to = *value;
        }
    }

    /// Scores all slots.
    #[inline(always)]
    fn search(&self, query: &[T], best: &mut Best<'_, T>) {
        let blocks = self.keys.chunks_exact(query.len() * BLOCK);
        for (keys, slots) in blocks.zip(self.slots.chunks(BLOCK)) {
            best.include(&dot_block(query, keys), slots);
        }
    }
}

/// The point between a pivot and a key at which an estimate takes an element.
#[inline(always)]
fn reached<T: Float>(pivot: T, key: T) -> T {
    T::from_f64(1.0 - REACH) * pivot + T::from_f64(REACH) * key
}

/// The elements at one place of `[blocks, width, BLOCK]`.
#[inline(always)]
fn lane<T>(blocks: &[T], width: usize, place: usize) -> impl Iterator<Item = &T> {
    blocks[place / BLOCK * width * BLOCK..][..width * BLOCK]
        .iter()
        .skip(place % BLOCK)
        .step_by(BLOCK)
}

/// The elements at one place of `[blocks, width, BLOCK]`.
#[inline(always)]
fn lane_mut<T>(blocks: &mut [T], width: usize, place: usize) -> impl Iterator<Item = &mut T> {
    blocks[place / BLOCK * width * BLOCK..][..width * BLOCK]
        .iter_mut()
        .skip(place % BLOCK)
        .step_by(BLOCK)
}

/// The squared distances of a key from a block of pivots, `[A, BLOCK]`.
#[inline(always)]
fn distance_block<T: Float>(key: &[T], pivots: &[T]) -> [T; BLOCK] {
    let add = |sums: &mut [T; BLOCK], value: T, pivots: &[T; BLOCK]| {
        for k in 0..BLOCK {
            let difference = value - pivots[k];
            sums[k] += difference * difference;
        }
    };
    sum_block(key, pivots.as_chunks().0, add)
}

/// The estimates of a block of lists from their corners, `[A, 2, BLOCK]`.
#[inline(always)]
fn estimate_block<T: Float>(query: &[T], corners: &[T]) -> [T; BLOCK] {
    let add = |sums: &mut [T; BLOCK], value: T, [high, low]: &[[T; BLOCK]; 2]| {
        let corner = if value >= T::ZERO { high } else { low };
        for k in 0..BLOCK {
            sums[k] += value * corner[k];
        }
    };
    sum_block(query, corners.as_chunks().0.as_chunks().0, add)
}

/// Sums over the elements of a key or query and those of a block of lists.
#[inline(always)]
fn sum_block<T: Float, E>(
    values: &[T],
    elements: &[E],
    add: impl Fn(&mut [T; BLOCK], T, &E),
) -> [T; BLOCK] {
    // Even and odd elements apart, so that no addition waits for the previous one.
    let (mut even, mut odd) = ([T::ZERO; BLOCK], [T::ZERO; BLOCK]);
    let ((values, last), (elements, last_element)) = (values.as_chunks(), elements.as_chunks());
    for ([v0, v1], [e0, e1]) in values.iter().zip(elements) {
        add(&mut even, *v0, e0);
        add(&mut odd, *v1, e1);
    }
    if let ([value], [element]) = (last, last_element) {
        add(&mut even, *value, element);
    }
    for k in 0..BLOCK {
        even[k] += odd[k];
    }
    even
}

#[cfg(test)]
mod tests {
    use super::super::tests::numbers::numbers;
    use super::*;
    use crate::op::index;

    /// Kinds of keys, by the slot and a number from -1 to 1. Those of whole numbers are exact in either twin, so
    /// that ties are ties in both.
    const WHOLE: [fn(usize, f64) -> f64; 4] = [
        |_, x| (3.0 * x).round(),
        |_, x| x.signum(),
        |_, _| 1.0,
        |slot, x| if slot % 9 == 0 { f64::NAN } else { (2.0 * x).round() },
    ];
    const REAL: [fn(usize, f64) -> f64; 4] = [
        |_, x| x,
        |slot, x| (slot % 7) as f64 + 0.1 * x,
        // Ever farther, then near again.
        |slot, x| x * 1.1f64.powi((slot % 300) as i32),
        |slot, x| match slot % 50 {
            7 => f64::NAN,
            21 => f64::INFINITY,
            22 => f64::NEG_INFINITY,
            _ => x,
        },
    ];

    /// The best slots of a row, in order.
    fn best<T: Float>(index: &mut Index<T>, query: &[T], n: usize) -> (Vec<T>, Vec<u32>) {
        let (mut best, mut slots) = (vec![T::NAN; n], vec![u32::MAX; n]);
        index.rank(1, query, &mut best, &mut slots);
        (best, slots)
    }

    fn agrees_with_the_readable_twin<T: Float>(kinds: &[fn(usize, f64) -> f64]) {
        let mut next = numbers();
        for width in [1, 2, 3, 16, 65] {
            for (kind, key) in kinds.iter().enumerate() {
                // Rounds to T, so that both twins see the same keys.
                let mut draw = |slot| T::from_f64(key(slot, next()));
                let keys: Vec<T> = (0..1100 * width).map(|at| draw(at / width)).collect();
                let queries: Vec<T> = (0..4 * width).map(|at| draw(at / width + 1)).collect();
                let wide =
                    |values: &[T]| -> Vec<f64> { values.iter().map(|x| (*x).into()).collect() };
                for n_probe in [1, 2, 8, 20, 1000] {
                    let mut fast = Index::new(2, width, n_probe);
                    // What was there before a row begins anew has no effect.
                    for slot in 0..100 {
                        fast.set(1, slot, &keys[(slot + 7) * width..][..width]);
                    }
                    for (slot, key) in keys.chunks(width).enumerate() {
                        fast.set(1, slot, key);
                        let len = slot + 1;
                        if ![1, 2, 17, 84, 300, 1100].contains(&len) {
                            continue;
                        }
                        let plain = index::Index::of(&wide(&keys[..len * width]), width);
                        let mut picked = fast.of_rows([None, Some((&fast, 1))].into_iter());
                        for query in queries.chunks(width).chain([&vec![T::ZERO; width][..]]) {
                            let score = |key: &[T]| dot_of(query, key);
                            let scores: Vec<f64> = keys[..len * width]
                                .chunks(width)
                                .map(|key| score(key).into())
                                .collect();
                            for n in [1, 5, 40] {
                                let n = n.min(len);
                                let among = plain.candidates(&wide(query), n_probe, n);
                                let want = index::ranked(&scores, among);
                                let what = format!("A {width}, keys {kind}, {n_probe}, {len}, {n}");
                                for index in [&mut fast, &mut picked] {
                                    let (best, slots) = best(index, query, n);
                                    let found: Vec<usize> =
                                        slots.iter().map(|slot| *slot as usize).collect();
                                    assert_eq!(found, want[..n], "{what}");
                                    for (score, slot) in best.into_iter().zip(found) {
                                        let (got, want): (f64, f64) = (score.into(), scores[slot]);
                                        assert!(
                                            got == want || got.is_nan() && want.is_nan(),
                                            "{what}"
                                        );
                                    }
                                }
                            }
                        }
                    }
                    assert_eq!(wide(&fast.keys(1)).len(), keys.len());
                    let same = |(a, b): (&T, &T)| {
                        a == b || (a.partial_cmp(a), b.partial_cmp(b)) == (None, None)
                    };
                    assert!(fast.keys(1).iter().zip(&keys).all(same));
                    assert!(fast.keys(0).is_empty());
                }
            }
        }
    }

    /// A score in the order of operations of the plain path.
    fn dot_of<T: Float>(query: &[T], key: &[T]) -> T {
        let mut block = vec![T::ZERO; BLOCK * key.len()];
        for (element, value) in lane_mut(&mut block, key.len(), 0).zip(key) {
            *element = *value;
        }
        dot_block(query, &block)[0]
    }

    #[test]
    fn searches_what_the_rule_says() {
        agrees_with_the_readable_twin::<f64>(&WHOLE);
        agrees_with_the_readable_twin::<f64>(&REAL);
    }

    /// Beyond whole numbers, distances that are equal but for rounding could make a difference in f32.
    #[test]
    fn searches_the_same_in_single_precision() {
        agrees_with_the_readable_twin::<f32>(&WHOLE);
    }
}
