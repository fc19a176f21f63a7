//! Selection of the highest scores of a row, and of their slots.
//!
//! Order: descending score. Among equal scores the older slot, with the lower index, comes first. NaN
//! ranks below every number.

use std::cmp::Ordering;

use super::float::Float;

/// Scores in a block: one AVX-512 register of f32. Up to this number of best scores are found by block,
/// more by partitioning. The best 16 of 496 random f32 scores take 1.4 us by block and 3.1 us by
/// partitioning (measured).
pub const BLOCK: usize = 16;

/// Capacity for candidates: a list of the best, and one block.
const ROOM: usize = 2 * BLOCK;

#[inline(always)]
fn is_nan<T: Float>(x: T) -> bool {
    x.partial_cmp(&x).is_none()
}

/// Whether score `a` is higher than score `b`.
#[inline(always)]
pub fn beats<T: Float>(a: T, b: T) -> bool {
    a > b || (is_nan(b) && !is_nan(a))
}

/// The order of two (score, slot) pairs.
fn order<T: Float>(a: (T, u32), b: (T, u32)) -> Ordering {
    if beats(a.0, b.0) {
        Ordering::Less
    } else if beats(b.0, a.0) {
        Ordering::Greater
    } else {
        a.1.cmp(&b.1)
    }
}

/// Inserts `(score, slot)` into the sorted list of length `len`. A full list drops its last entry. Returns
/// the new length.
#[inline(always)]
pub fn insert<T: Float>(
    scores: &mut [T],
    slots: &mut [u32],
    len: usize,
    score: T,
    slot: u32,
) -> usize {
    let (end, new_len) =
        if len < scores.len() { (len, len + 1) } else { (len.saturating_sub(1), len) };
    let precedes = |scores: &[T], slots: &[u32], at: usize| {
        order((score, slot), (scores[at], slots[at])) == Ordering::Less
    };
    if len == scores.len() && (len == 0 || !precedes(scores, slots, end)) {
        return len;
    }
    let mut at = end;
    while at > 0 && precedes(scores, slots, at - 1) {
        scores[at] = scores[at - 1];
        slots[at] = slots[at - 1];
        at -= 1;
    }
    scores[at] = score;
    slots[at] = slot;
    new_len
}

/// Writes the best `best.len()` of all scores, and their slots. There must be at least as many scores;
/// unused entries of the last block must be NaN.
#[inline(always)]
pub fn select<T: Float>(scores: &[[T; BLOCK]], best: &mut [T], slots: &mut [u32]) {
    if best.len() > BLOCK || !by_blocks(scores, best, slots) {
        partition(scores.as_flattened(), best, slots);
    }
}

/// [`select`] for at most [`BLOCK`] scores. Returns false if fewer of the scores are numbers. The code
/// has few branches, because they would be unpredictable.
#[inline(always)]
fn by_blocks<T: Float>(scores: &[[T; BLOCK]], best: &mut [T], slots: &mut [u32]) -> bool {
    let n = best.len();
    if n == 0 {
        return true;
    }
    let mut floor = floor(scores, n);
    let mut candidates = Candidates { scores: [T::NAN; ROOM], slots: [0; ROOM], len: 0 };
    for (index, block) in scores.iter().enumerate() {
        if block.iter().fold(false, |any, &score| any | (score >= floor)) {
            if candidates.len > ROOM - BLOCK {
                candidates.keep_best(n);
                floor = candidates.scores[n - 1];
            }
            candidates.add(block, floor, (index * BLOCK) as u32);
        }
    }
    if candidates.len < n {
        return false;
    }
    candidates.keep_best(n);
    best.copy_from_slice(&candidates.scores[..n]);
    slots.copy_from_slice(&candidates.slots[..n]);
    true
}

/// Returns a lower bound on the best `n` scores.
#[inline(always)]
fn floor<T: Float>(scores: &[[T; BLOCK]], n: usize) -> T {
    let mut tops = Tops::new();
    for block in scores {
        tops.include(block);
    }
    tops.floor(n)
}

/// The maximum at each position over some blocks of scores.
pub struct Tops<T>([T; BLOCK]);

impl<T: Float> Tops<T> {
    /// Of no blocks.
    #[inline(always)]
    pub fn new() -> Self {
        Self([T::from_f64(f64::NEG_INFINITY); BLOCK])
    }

    /// Includes a block. NaN has no effect.
    #[inline(always)]
    pub fn include(&mut self, block: &[T; BLOCK]) {
        for (top, score) in self.0.iter_mut().zip(block) {
            *top = if *score > *top { *score } else { *top };
        }
    }

    /// Returns a lower bound on the best `n` scores, at most [`BLOCK`]: the `n`-th largest of the maxima.
    #[inline(always)]
    pub fn floor(&self, n: usize) -> T {
        let tops = &self.0;
        let mut larger = [0u32; BLOCK];
        // A length that the compiler does not know: it would unroll a loop of known length instead of
        // vectorising it.
        for other in tops.iter().take(std::hint::black_box(BLOCK)) {
            for (larger, top) in larger.iter_mut().zip(tops) {
                *larger += u32::from(*other > *top);
            }
        }
        let mut floor = T::from_f64(f64::INFINITY);
        for (larger, top) in larger.iter().zip(tops) {
            floor = if *larger < n as u32 && *top < floor { *top } else { floor };
        }
        floor
    }
}

/// Scores that may be among the best. Among equal scores the older slot comes first.
struct Candidates<T> {
    scores: [T; ROOM],
    slots: [u32; ROOM],
    len: usize,
}

impl<T: Float> Candidates<T> {
    /// Adds the scores of a block that are not below `floor`. `first` is the first slot of the block.
    #[inline(always)]
    fn add(&mut self, block: &[T; BLOCK], floor: T, first: u32) {
        for (k, score) in (first..).zip(block) {
            let at = self.len % ROOM;
            self.scores[at] = *score;
            self.slots[at] = k;
            self.len += usize::from(*score >= floor);
        }
    }

    /// Reduces the list to the best `n`, in order.
    #[inline(always)]
    fn keep_best(&mut self, n: usize) {
        let (scores, slots) = (self.scores, self.slots);
        // The rank of each candidate: the number of candidates before it.
        let mut places = [0u32; ROOM];
        for (i, score) in scores.iter().enumerate().take(self.len) {
            for k in 0..ROOM {
                let before =
                    (*score > scores[k]) | ((*score == scores[k]) & ((i as u32) < k as u32));
                places[k] += u32::from(before);
            }
        }
        for k in 0..self.len.min(ROOM) {
            let place = places[k] as usize % ROOM;
            self.scores[place] = scores[k];
            self.slots[place] = slots[k];
        }
        self.len = n;
    }
}

fn partition<T: Float>(scores: &[T], best: &mut [T], slots: &mut [u32]) {
    let n = best.len();
    // Reduces the list to the best n; the last of them is the worst.
    let cut = |all: &mut Vec<(T, u32)>| {
        if n < all.len() {
            all.select_nth_unstable_by(n - 1, |a, b| order(*a, *b));
            all.truncate(n);
        }
    };
    let mut all: Vec<(T, u32)> = Vec::with_capacity(4 * n);
    let mut worst = None;
    for (slot, &score) in scores.iter().enumerate() {
        // Among equal scores the younger slot, this one, loses.
        if worst.is_some_and(|worst| !beats(score, worst)) {
            continue;
        }
        if all.len() == 4 * n {
            cut(&mut all);
            worst = Some(all[n - 1].0);
        }
        all.push((score, slot as u32));
    }
    cut(&mut all);
    all.sort_unstable_by(|a, b| order(*a, *b));
    for (k, (score, slot)) in all.into_iter().enumerate() {
        best[k] = score;
        slots[k] = slot;
    }
}

/// The best of scores whose slots come in any order.
pub struct Best<'a, T> {
    scores: &'a mut [T],
    slots: &'a mut [u32],
    len: usize,
}

impl<'a, T: Float> Best<'a, T> {
    /// Of no scores. The lengths determine how many are best.
    #[inline(always)]
    pub fn new(scores: &'a mut [T], slots: &'a mut [u32]) -> Self {
        Self { scores, slots, len: 0 }
    }

    /// Whether there were as many scores as can be best.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.len == self.scores.len()
    }

    /// Includes a block of scores, of which the first have slots.
    #[inline(always)]
    pub fn include(&mut self, scores: &[T; BLOCK], slots: &[u32]) {
        if let Some(&worst) = self.scores.last().filter(|_| self.is_full())
            && scores.iter().fold(true, |all, score| all & (*score < worst))
        {
            return;
        }
        for (&score, &slot) in scores.iter().zip(slots) {
            self.len = insert(self.scores, self.slots, self.len, score, slot);
        }
    }
}

/// Restores the order of a list after small changes of its scores.
pub fn resort<T: Float>(scores: &mut [T], slots: &mut [u32]) {
    for k in 1..scores.len() {
        let mut at = k;
        while at > 0
            && order((scores[at], slots[at]), (scores[at - 1], slots[at - 1])) == Ordering::Less
        {
            scores.swap(at, at - 1);
            slots.swap(at, at - 1);
            at -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scores: &[f64], n: usize) {
        let mut all: Vec<(f64, u32)> =
            scores.iter().enumerate().map(|(k, &s)| (s, k as u32)).collect();
        all.sort_by(|a, b| order(*a, *b));
        let (mut best, mut slots) = (vec![f64::NAN; n], vec![u32::MAX; n]);
        let mut blocks = vec![[f64::NAN; BLOCK]; scores.len().div_ceil(BLOCK)];
        blocks.as_flattened_mut()[..scores.len()].copy_from_slice(scores);
        select(&blocks, &mut best, &mut slots);
        assert_eq!(slots, all[..n].iter().map(|pair| pair.1).collect::<Vec<_>>(), "{scores:?}");
        let (mut best2, mut slots2) = (vec![f64::NAN; n], vec![u32::MAX; n]);
        partition(scores, &mut best2, &mut slots2);
        assert_eq!(slots, slots2);
        let (mut scores3, mut slots3) = (vec![f64::NAN; n], vec![u32::MAX; n]);
        let mut best3 = Best::new(&mut scores3, &mut slots3);
        // In an order that has nothing to do with the slots.
        let mut mixed: Vec<u32> = (0..scores.len() as u32).collect();
        mixed.sort_by_key(|slot| slot.wrapping_mul(0x9E37_79B9));
        for slots in mixed.chunks(BLOCK) {
            let mut block = [f64::INFINITY; BLOCK];
            for (score, slot) in block.iter_mut().zip(slots) {
                *score = scores[*slot as usize];
            }
            best3.include(&block, slots);
        }
        assert!(best3.is_full());
        assert_eq!(slots, slots3);
    }

    #[test]
    fn agrees_with_a_stable_sort() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 33
        };
        for len in [1, 2, 15, 16, 17, 33, 100, 300] {
            for iteration in 0..40 {
                // Few distinct values, so that ties are common; some are NaN or infinite.
                let scores: Vec<f64> = (0..len)
                    .map(|_| match next() % 12 {
                        0 if iteration % 2 == 0 => f64::NAN,
                        1 => f64::NEG_INFINITY,
                        k => (next() % (2 + k * k)) as f64,
                    })
                    .collect();
                for n in [1, 2, 5, 11, 15, 16, 17, 64, len] {
                    if n <= len {
                        check(&scores, n);
                    }
                }
            }
        }
    }

    #[test]
    fn insert_into_no_room() {
        assert_eq!(insert::<f32>(&mut [], &mut [], 0, 1.0, 0), 0);
    }
}
