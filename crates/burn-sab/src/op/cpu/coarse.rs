//! Dot scores bounded by means of 16-bit keys.
//!
//! Each key is stored a second time, rounded to 13 bits with a scale of its own. One pass over these small
//! keys bounds every score from both sides. The n-th highest lower bound excludes most slots, and the
//! remaining ones, the candidates, are scored exactly, in the order of operations of the plain path. The
//! selected slots and their scores are therefore those of the plain path, bit for bit.
//!
//! With the scale s of a key k, its rounded elements are r = k / s, at most [`KEY`]. Those of a query q with
//! the scale z are p = q / z. Then
//!
//! ```text
//! |q·k - s z p·r| <= s (|q|₁ / 2 + |q - z p|₁ KEY)
//! ```
//!
//! The bracket, plus an allowance for the rounding errors of both computations, depends on the query alone. The
//! sum p·r is exact in 32 bits.

use super::float::Float;
use super::select::{BLOCK, Tops, select};

/// Largest element of a rounded key.
const KEY: i16 = 4095;

/// Units of a rounded query's largest element, at least: fewer would exclude few slots.
const FEWEST_UNITS: i32 = 512;

/// Slots from which the bounds are cheaper than all exact scores.
pub const FEWEST: usize = 768;

/// Candidates that are scored exactly, at most, as a share of all slots. Where more remain, for example among
/// many nearly equal keys, scoring all slots is cheaper.
const MOST_CANDIDATES: usize = 8;

/// Rankings of a row that do without bounds after these excluded too few slots.
const PAUSE: u32 = 31;

/// Keys and queries with a larger element have no bounds: products of smaller ones never overflow, also in f32.
const HUGE: f64 = 1e15;

/// Smallest value that counts as the largest element of a key or query. Bounds never underflow.
const TINY: f64 = 1e-12;

/// Candidates whose scores are computed side by side, to hide the latency of additions.
const ABREAST: usize = 4;

/// The 16-bit keys of the slots of some rows.
#[derive(Debug, Clone)]
pub struct Coarse<T> {
    /// A
    width: usize,
    rows: Vec<Row<T>>,
    /// The upper bounds of one row.
    upper: Vec<[T; BLOCK]>,
    query: Vec<[i16; 2]>,
    candidates: Vec<u32>,
    scores: Vec<[T; BLOCK]>,
}

#[derive(Debug, Clone)]
struct Row<T> {
    /// `[blocks, ceil(A / 2), BLOCK, 2]`: a pair of elements of each slot of a block side by side, for
    /// instructions that multiply pairs and add.
    rounded: Vec<[[i16; 2]; BLOCK]>,
    /// `[slots]`; NaN for a key without bounds.
    scales: Vec<[T; BLOCK]>,
    /// `[slots, A]`: the keys themselves.
    keys: Vec<T>,
    /// Rankings that do without bounds.
    pause: u32,
}

/// The largest element, and the sum of all, by absolute value. NaN stays NaN in the sum.
#[inline(always)]
fn largest_and_sum<T: Float>(values: &[T]) -> (T, T) {
    let (mut largest, mut sum) = (T::from_f64(TINY), T::ZERO);
    for value in values {
        let size = value.abs();
        largest = if size > largest { size } else { largest };
        sum += size;
    }
    (largest, sum)
}

impl<T> Row<T> {
    fn new() -> Self {
        Self { rounded: vec![], scales: vec![], keys: vec![], pause: 0 }
    }
}

impl<T: Float> Coarse<T> {
    /// Creates the keys of `rows` rows without slots; `width` is A. Returns `None` for keys so long that sums in
    /// 32 bits would leave queries too few units.
    pub fn new(rows: usize, width: usize) -> Option<Self> {
        (largest_query(width) >= FEWEST_UNITS)
            .then(|| Self { rows: vec![Row::new(); rows], ..Self::empty(width) })
    }

    fn empty(width: usize) -> Self {
        Self {
            width,
            rows: vec![],
            upper: vec![],
            query: vec![[0; 2]; width.div_ceil(2)],
            candidates: vec![],
            scores: vec![],
        }
    }

    /// The keys of given rows of others with the same A; `None` is a row without slots.
    pub fn of_rows<'a>(&self, rows: impl Iterator<Item = Option<(&'a Self, usize)>>) -> Self
    where
        T: 'a,
    {
        let row = |row: Option<(&Self, usize)>| match row {
            Some((coarse, row)) => coarse.rows[row].clone(),
            None => Row::new(),
        };
        let rows: Vec<_> = rows.map(row).collect();
        let blocks = rows.iter().map(|row| row.scales.len()).max().unwrap_or(0);
        let mut all = Self { rows, ..Self::empty(self.width) };
        all.reserve(blocks * BLOCK);
        all
    }

    /// Makes room for at least this number of slots.
    pub fn reserve(&mut self, slots: usize) {
        let (blocks, pairs) = (slots.div_ceil(BLOCK), self.width.div_ceil(2));
        for row in &mut self.rows {
            row.rounded.resize(blocks * pairs, [[0; 2]; BLOCK]);
            row.scales.resize(blocks, [T::NAN; BLOCK]);
            row.keys.resize(blocks * BLOCK * self.width, T::ZERO);
        }
        self.upper.resize(blocks, [T::NAN; BLOCK]);
    }

    /// Stores the key of a slot.
    #[inline(always)]
    pub fn set(&mut self, row: usize, slot: usize, key: &[T]) {
        let (width, pairs) = (self.width, self.width.div_ceil(2));
        let row = &mut self.rows[row];
        row.keys[slot * width..][..width].copy_from_slice(key);
        let (largest, sum) = largest_and_sum(key);
        let per_unit = T::from_f64(f64::from(KEY)) / largest;
        let rounded = &mut row.rounded[slot / BLOCK * pairs..][..pairs];
        for (rounded, pair) in rounded.iter_mut().zip(key.chunks(2)) {
            for (rounded, value) in rounded[slot % BLOCK].iter_mut().zip(pair) {
                *rounded = (*value * per_unit).to_i16();
            }
        }
        let bounded = sum < T::from_f64(HUGE);
        row.scales[slot / BLOCK][slot % BLOCK] =
            if bounded { largest / T::from_f64(f64::from(KEY)) } else { T::NAN };
    }

    /// Writes the best of the `len` slots of `row` and their scores, as the plain path does. Returns false
    /// where that is the better way.
    #[inline(always)]
    pub fn rank(
        &mut self,
        (row, len): (usize, usize),
        query: &[T],
        best: &mut [T],
        slots: &mut [u32],
    ) -> bool {
        let row = &mut self.rows[row];
        if len < FEWEST || best.is_empty() || best.len() > BLOCK {
            return false;
        }
        if row.pause > 0 {
            row.pause -= 1;
            return false;
        }
        let Some((scale, error)) = round_query(query, &mut self.query) else {
            return false;
        };
        let blocks = len.div_ceil(BLOCK);
        let upper = &mut self.upper[..blocks];
        let (mut tops, instructions) = (Tops::new(), instructions());
        let rounded = row.rounded.chunks_exact(self.query.len());
        for (index, (rounded, scales)) in rounded.zip(&row.scales).take(blocks).enumerate() {
            let sums = products(instructions, &self.query, rounded);
            let mut lower = [T::NAN; BLOCK];
            for k in 0..BLOCK {
                let score = scale * T::from_i32(sums[k]);
                upper[index][k] = scales[k] * (score + error);
                lower[k] = scales[k] * (score - error);
            }
            if (index + 1) * BLOCK > len {
                lower[len % BLOCK..].fill(T::NAN);
            }
            tops.include(&lower);
        }
        let most = len / MOST_CANDIDATES;
        self.candidates.resize(most + BLOCK, 0);
        let found = candidates(upper, len, tops.floor(best.len()), &mut self.candidates);
        if found > most || found < best.len() {
            row.pause = PAUSE;
            return false;
        }
        let candidates = &self.candidates[..found];
        self.scores.clear();
        self.scores.resize(found.div_ceil(BLOCK), [T::NAN; BLOCK]);
        let scores = self.scores.as_flattened_mut().chunks_mut(ABREAST);
        for (scores, slots) in scores.zip(candidates.chunks(ABREAST)) {
            // A last incomplete group scores its first slot several times.
            let keys: [&[T]; ABREAST] = std::array::from_fn(|k| {
                let slot = slots.get(k).unwrap_or(&slots[0]);
                &row.keys[*slot as usize * self.width..][..self.width]
            });
            scores[..slots.len()].copy_from_slice(&exact(query, keys)[..slots.len()]);
        }
        // Candidates are in the order of their slots, so that of equal scores the older slot wins.
        select(&self.scores, best, slots);
        for slot in slots {
            *slot = candidates[*slot as usize];
        }
        true
    }
}

/// Largest element of a rounded query, so that the sum of `width` products fits in 32 bits.
fn largest_query(width: usize) -> i32 {
    let most = i32::MAX / i32::from(KEY) / i32::try_from(width).unwrap_or(i32::MAX);
    most.min(i16::MAX.into())
}

/// Rounds a query. Returns its scale, and the bracket of the bound for keys of scale 1. Returns `None` if it
/// has no bounds.
#[inline(always)]
fn round_query<T: Float>(query: &[T], rounded: &mut [[i16; 2]]) -> Option<(T, T)> {
    let (largest, sum) = largest_and_sum(query);
    if !(sum > T::from_f64(TINY) && sum < T::from_f64(HUGE)) {
        return None;
    }
    let units = T::from_f64(f64::from(largest_query(query.len())));
    let (scale, per_unit) = (largest / units, units / largest);
    let mut lost = T::ZERO;
    for (rounded, pair) in rounded.iter_mut().zip(query.chunks(2)) {
        for (rounded, value) in rounded.iter_mut().zip(pair) {
            *rounded = (*value * per_unit).to_i16();
            lost += (*value - scale * T::from_i32(i32::from(*rounded))).abs();
        }
    }
    let key = f64::from(KEY) + 1.0;
    // Half a unit of a rounded key, with a margin for the rounding of the quotient. The allowance is several
    // times the worst case of n + 2 roundings in either computation (Higham 2002, section 3.1).
    let allowance = 4.0 * (query.len() as f64 + 16.0) * key;
    let of_keys = T::from_f64(0.51) + T::EPSILON * T::from_f64(allowance);
    Some((scale, sum * of_keys + lost * T::from_f64(key)))
}

/// The instructions that [`products`] can use; no result depends on them.
#[cfg(target_arch = "x86_64")]
type Instructions = Option<pulp::x86::V3>;
#[cfg(not(target_arch = "x86_64"))]
type Instructions = ();

/// Finds the instructions of this processor.
#[inline(always)]
fn instructions() -> Instructions {
    #[cfg(target_arch = "x86_64")]
    pulp::x86::V3::try_new()
}

/// The sums of products of a rounded query with the rounded keys of a block.
#[inline(always)]
fn products(
    instructions: Instructions,
    query: &[[i16; 2]],
    keys: &[[[i16; 2]; BLOCK]],
) -> [i32; BLOCK] {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = instructions {
        return products_avx2(avx2, query, keys);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let () = instructions;
    let mut sums = [0; BLOCK];
    for (q, keys) in query.iter().zip(keys) {
        for k in 0..BLOCK {
            sums[k] +=
                i32::from(q[0]) * i32::from(keys[k][0]) + i32::from(q[1]) * i32::from(keys[k][1]);
        }
    }
    sums
}

/// [`products`] with the instruction that multiplies pairs and adds, which the compiler does not find.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn products_avx2(
    simd: pulp::x86::V3,
    query: &[[i16; 2]],
    keys: &[[[i16; 2]; BLOCK]],
) -> [i32; BLOCK] {
    use pulp::bytemuck::cast;
    const LANES: usize = BLOCK / 2;
    let (avx, avx2) = (simd.avx, simd.avx2);
    let add_products = |sums: [_; 2], pair: &[i16; 2], keys: &[[i16; 2]; BLOCK]| {
        let pair = avx._mm256_set1_epi32(cast(*pair));
        let [low, high] = cast::<_, [[[i16; 2]; LANES]; 2]>(*keys);
        [
            avx2._mm256_add_epi32(sums[0], avx2._mm256_madd_epi16(pair, cast(low))),
            avx2._mm256_add_epi32(sums[1], avx2._mm256_madd_epi16(pair, cast(high))),
        ]
    };
    // Even and odd pairs apart, so that no addition waits for the previous one.
    let mut even = [avx._mm256_setzero_si256(); 2];
    let mut odd = even;
    let (twos, last) = query.as_chunks::<2>();
    for (pairs, keys) in twos.iter().zip(keys.as_chunks::<2>().0) {
        even = add_products(even, &pairs[0], &keys[0]);
        odd = add_products(odd, &pairs[1], &keys[1]);
    }
    if let ([pair], Some(keys)) = (last, keys.last()) {
        even = add_products(even, pair, keys);
    }
    cast([0, 1].map(|k| avx2._mm256_add_epi32(even[k], odd[k])))
}

/// Whether a bound excludes a slot. NaN never does.
#[inline(always)]
fn is_below<T: Float>(bound: T, floor: T) -> bool {
    bound < floor
}

/// Lists the slots, of `len`, whose upper bound is not below `floor`. Stops when less than a block of room is
/// left. Returns their number.
#[inline(always)]
fn candidates<T: Float>(upper: &[[T; BLOCK]], len: usize, floor: T, list: &mut [u32]) -> usize {
    let mut found = 0;
    for (index, block) in upper.iter().enumerate() {
        if block.iter().fold(false, |any, &bound| any | !is_below(bound, floor)) {
            if found + BLOCK > list.len() {
                break;
            }
            for (slot, &bound) in (index * BLOCK..len).zip(block) {
                list[found] = slot as u32;
                found += usize::from(!is_below(bound, floor));
            }
        }
    }
    found
}

/// The scores of some keys, in the order of operations of `score::dot_block`.
#[inline(always)]
fn exact<T: Float>(query: &[T], keys: [&[T]; ABREAST]) -> [T; ABREAST] {
    let half = query.len() / 2;
    // Slices of one length, so that the loop needs no bounds checks.
    let (first, second) = (&query[..half], &query[half..2 * half]);
    let first_keys = keys.map(|key| &key[..half]);
    let second_keys = keys.map(|key| &key[half..2 * half]);
    let (mut sums, mut more) = ([T::ZERO; ABREAST], [T::ZERO; ABREAST]);
    for a in 0..half {
        for k in 0..ABREAST {
            sums[k] += first[a] * first_keys[k][a];
            more[k] += second[a] * second_keys[k][a];
        }
    }
    for k in 0..ABREAST {
        if query.len() % 2 == 1 {
            sums[k] += query[2 * half] * keys[k][2 * half];
        }
        sums[k] += more[k];
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::super::score::dot_block;
    use super::super::tests::numbers::numbers;
    use super::*;

    /// Scores all slots. `keys` is `[len, A]`.
    fn plain<T: Float>(query: &[T], keys: &[T], len: usize, n: usize) -> (Vec<T>, Vec<u32>) {
        let width = query.len();
        let mut scores = vec![[T::NAN; BLOCK]; len.div_ceil(BLOCK)];
        for (scores, keys) in scores.iter_mut().zip(keys[..len * width].chunks(BLOCK * width)) {
            let mut block = vec![T::ZERO; BLOCK * width];
            for (k, key) in keys.chunks(width).enumerate() {
                for (a, value) in key.iter().enumerate() {
                    block[a * BLOCK + k] = *value;
                }
            }
            let slots = keys.len() / width;
            scores[..slots].copy_from_slice(&dot_block(query, &block)[..slots]);
        }
        let (mut best, mut slots) = (vec![T::NAN; n], vec![0; n]);
        select(&scores, &mut best, &mut slots);
        (best, slots)
    }

    /// Kinds of keys, by the slot and a number from -1 to 1.
    const KEYS: [fn(usize, f64) -> f64; 8] = [
        |_, x| x,
        // Most of each key is common to all.
        |_, x| 3.0 + 0.1 * x,
        // Equal scores are common.
        |_, x| x.signum(),
        |slot, _| (slot % 7) as f64,
        |_, _| 0.25,
        // Every scale that f32 knows, and beyond.
        |slot, x| x * 10f64.powi(slot as i32 % 90 - 45),
        |slot, x| match slot % 50 {
            7 => f64::NAN,
            21 => f64::INFINITY,
            22 => f64::NEG_INFINITY,
            33 => 1e30,
            _ => x,
        },
        |slot, x| if slot % 97 < 90 { f64::NAN } else { x },
    ];

    /// Kinds of queries, likewise by the element.
    const QUERIES: [fn(usize, f64) -> f64; 9] = [
        |_, x| x,
        |a, x| if a == 0 { 100.0 } else { x },
        |_, x| x.signum(),
        |_, _| 0.0,
        |_, x| x * 1e-20,
        |_, x| x * 1e-40,
        |_, x| x * 1e20,
        |a, x| if a == 0 { f64::NAN } else { x },
        |a, x| if a == 0 { f64::INFINITY } else { x },
    ];

    fn agrees_with_plain<T: Float + Into<f64>>() {
        let bits = |scores: &[T]| -> Vec<u64> {
            let bits = |score: &T| (*score).into().to_bits();
            scores.iter().map(|x| if x.partial_cmp(x).is_some() { bits(x) } else { 0 }).collect()
        };
        let mut next = numbers();
        for width in [1, 3, 64, 129] {
            for (kind, key) in KEYS.into_iter().enumerate() {
                let mut coarse = Coarse::new(2, width).expect("a small width");
                coarse.reserve(1100);
                let mut keys = Vec::new();
                // The second time the row begins anew.
                for _ in 0..2 {
                    keys = (0..1100 * width)
                        .map(|at| T::from_f64(key(at / width, next())))
                        .collect::<Vec<_>>();
                    for (slot, key) in keys.chunks(width).enumerate() {
                        coarse.set(1, slot, key);
                    }
                }
                let picked = coarse.of_rows([None, Some((&coarse, 1))].into_iter());
                for (asked, query) in QUERIES.into_iter().enumerate() {
                    let query: Vec<T> = (0..width).map(|a| T::from_f64(query(a, next()))).collect();
                    for len in [FEWEST, 783, 1000] {
                        for n in [1, 10, 16] {
                            let what = format!("A {width}, keys {kind}, query {asked}, {len}, {n}");
                            let (best, slots) = plain(&query, &keys, len, n);
                            let (mut found, mut at) = (vec![T::NAN; n], vec![0; n]);
                            let bounded =
                                picked.clone().rank((1, len), &query, &mut found, &mut at);
                            // Unequal scores: the bounds exclude most slots, unless one is asked for at
                            // each position of a block.
                            let unequal = width >= 17 && kind == 0 && asked <= 2 && n < BLOCK;
                            assert!(bounded || !unequal, "{what}");
                            if bounded {
                                assert_eq!((bits(&found), &at), (bits(&best), &slots), "{what}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn selects_what_all_scores_select() {
        agrees_with_plain::<f32>();
        agrees_with_plain::<f64>();
    }

    #[test]
    fn products_are_exact_at_the_limit() {
        for width in [1, 2, 5, 64, 128] {
            let most = largest_query(2 * width);
            let query = vec![[most as i16; 2]; width];
            for key in [KEY, -KEY] {
                let keys = vec![[[key; 2]; BLOCK]; width];
                let sum = 2 * width as i64 * i64::from(most) * i64::from(key);
                for instructions in [instructions(), Instructions::default()] {
                    let sums = products(instructions, &query, &keys);
                    assert_eq!(sums.map(i64::from), [sum; BLOCK]);
                }
            }
        }
    }

    #[test]
    fn wide_keys_have_no_bounds() {
        assert!(Coarse::<f32>::new(1, 1024).is_some());
        assert!(Coarse::<f32>::new(1, 1025).is_none());
    }
}
