//! Dot scores bounded by means of rounded keys.
//!
//! Each key is stored two more times, rounded to 8 bits and to 13 bits, each time with a scale of its own. One pass
//! over the 8-bit keys bounds every score from both sides. The n-th highest lower bound excludes most slots. The
//! 13-bit keys of the others give narrower bounds, which exclude most of these. The remaining slots, the candidates,
//! are scored exactly, in the order of operations of the plain path. The selected slots and their scores are
//! therefore those of the plain path, bit for bit.
//!
//! With the scale s of a key k, its rounded elements are r = k / s, at most R in size. Those of a query q with
//! the scale z are p = q / z. Then
//!
//! ```text
//! |q·k - s z p·r| <= s (|q|₁ / 2 + |q - z p|₁ R)
//! ```
//!
//! The bracket, plus an allowance for the rounding errors of both computations, depends on the query alone. The
//! sum p·r is exact in 32 bits.

use super::float::Float;
use super::select::{BLOCK, Tops, select};

/// Largest element of a key rounded to 8 bits.
const BYTE: i8 = i8::MAX;

/// Largest element of a key rounded to 13 bits.
const WORD: i16 = 4095;

/// Elements of a 13-bit key that one instruction multiplies; keys are filled up with zeros.
const WORDS: usize = 16;

/// Units of a rounded query's largest element, at least: fewer would exclude few slots.
const FEWEST_UNITS: i32 = 512;

/// Slots from which the bounds are cheaper than all exact scores.
pub const FEWEST: usize = 768;

/// Slots that either pass leaves, at most, as a share of all slots. Where more remain, for example among many
/// nearly equal keys, scoring all slots is cheaper.
const MOST_LEFT: [usize; 2] = [4, 8];

/// Rankings of a row that do without bounds after these excluded too few slots.
const PAUSE: u32 = 31;

/// Keys and queries with a larger element have no bounds: products of smaller ones never overflow, also in f32.
const HUGE: f64 = 1e15;

/// Smallest value that counts as the largest element of a key or query. Bounds never underflow.
const TINY: f64 = 1e-12;

/// Candidates whose scores are computed side by side, to hide the latency of additions.
const ABREAST: usize = 4;

/// The rounded keys of the slots of some rows.
#[derive(Debug, Clone)]
pub struct Coarse<T> {
    /// A
    width: usize,
    rows: Vec<Row<T>>,
    /// The upper bounds of one row.
    upper: Vec<[T; BLOCK]>,
    /// A rounded query, filled up with zeros as a 13-bit key is.
    query: Vec<[i16; 2]>,
    /// The slots that the first pass does not exclude.
    left: Vec<u32>,
    /// Their upper bounds in the second pass.
    narrower: Vec<[T; BLOCK]>,
    candidates: Vec<u32>,
    scores: Vec<[T; BLOCK]>,
}

#[derive(Debug, Clone)]
struct Row<T> {
    /// `[blocks, ceil(A / 2), BLOCK, 2]`: a pair of elements of each slot of a block side by side, for
    /// instructions that multiply pairs and add.
    bytes: Vec<[[i8; 2]; BLOCK]>,
    /// `[slots, A]`, filled up with zeros to a multiple of [`WORDS`].
    words: Vec<[i16; WORDS]>,
    /// The largest element of each key, `[slots]`; NaN for a key without bounds.
    largest: Vec<[T; BLOCK]>,
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
        Self { bytes: vec![], words: vec![], largest: vec![], keys: vec![], pause: 0 }
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
            query: vec![[0; 2]; width.next_multiple_of(WORDS) / 2],
            left: vec![],
            narrower: vec![],
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
        let blocks = rows.iter().map(|row| row.largest.len()).max().unwrap_or(0);
        let mut all = Self { rows, ..Self::empty(self.width) };
        all.reserve(blocks * BLOCK);
        all
    }

    /// Makes room for at least this number of slots.
    pub fn reserve(&mut self, slots: usize) {
        let (blocks, pairs) = (slots.div_ceil(BLOCK), self.width.div_ceil(2));
        for row in &mut self.rows {
            row.bytes.resize(blocks * pairs, [[0; 2]; BLOCK]);
            row.words.resize(blocks * BLOCK * self.width.div_ceil(WORDS), [0; WORDS]);
            row.largest.resize(blocks, [T::NAN; BLOCK]);
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
        let [bytes_per_unit, words_per_unit] =
            [f64::from(BYTE), f64::from(WORD)].map(|most| T::from_f64(most) / largest);
        let bytes = &mut row.bytes[slot / BLOCK * pairs..][..pairs];
        for (bytes, pair) in bytes.iter_mut().zip(key.chunks(2)) {
            for (byte, value) in bytes[slot % BLOCK].iter_mut().zip(pair) {
                *byte = (*value * bytes_per_unit).to_i16() as i8;
            }
        }
        let words = width.div_ceil(WORDS);
        let words = row.words[slot * words..][..words].as_flattened_mut();
        for (word, value) in words.iter_mut().zip(key) {
            *word = (*value * words_per_unit).to_i16();
        }
        let bounded = sum < T::from_f64(HUGE);
        row.largest[slot / BLOCK][slot % BLOCK] = if bounded { largest } else { T::NAN };
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
        let Some(rounded) = round_query(query, &mut self.query) else {
            return false;
        };
        let (blocks, pairs) = (len.div_ceil(BLOCK), self.width.div_ceil(2));
        let upper = &mut self.upper[..blocks];
        let (mut tops, instructions) = (Tops::new(), instructions());
        let bounds = rounded.bounds(BYTE.into());
        // Unused entries of the last block have no bounds. Not a mask on the bounds, which would leave registers.
        let mut last = row.largest[blocks - 1];
        if !len.is_multiple_of(BLOCK) {
            last[len % BLOCK..].fill(T::NAN);
        }
        let largest = row.largest[..blocks - 1].iter().chain([&last]);
        for ((upper, bytes), largest) in
            upper.iter_mut().zip(row.bytes.chunks_exact(pairs)).zip(largest)
        {
            let sums = products(instructions, &self.query[..pairs], bytes);
            tops.include(&bounds.of(&sums, largest, upper));
        }
        let floor = tops.floor(best.len());
        let [most_left, most] = MOST_LEFT.map(|share| len / share);
        self.left.resize(most_left + BLOCK, 0);
        let left = candidates(upper, 0..len as u32, floor, &mut self.left);
        if left > most_left || left < best.len() {
            row.pause = PAUSE;
            return false;
        }

        let left = &self.left[..left];
        let mut tops = Tops::new();
        let bounds = rounded.bounds(WORD);
        let words = self.width.div_ceil(WORDS);
        self.narrower.resize(left.len().div_ceil(BLOCK), [T::NAN; BLOCK]);
        for (slots, upper) in left.chunks(BLOCK).zip(&mut self.narrower) {
            let (mut sums, mut largest) = ([0; BLOCK], [T::NAN; BLOCK]);
            for (k, slot) in slots.iter().enumerate() {
                let slot = *slot as usize;
                sums[k] = product(instructions, &self.query, &row.words[slot * words..][..words]);
                largest[k] = row.largest[slot / BLOCK][slot % BLOCK];
            }
            tops.include(&bounds.of(&sums, &largest, upper));
        }
        let narrower = tops.floor(best.len());
        let floor = if narrower > floor { narrower } else { floor };
        self.candidates.resize(most + BLOCK, 0);
        let found = candidates(&self.narrower, left.iter().copied(), floor, &mut self.candidates);
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
    let most = i32::MAX / i32::from(WORD) / i32::try_from(width).unwrap_or(i32::MAX);
    most.min(i16::MAX.into())
}

/// A query q as the bounds need it.
struct Rounded<T> {
    /// z
    scale: T,
    /// |q|₁
    sum: T,
    /// |q - z p|₁
    lost: T,
    width: usize,
}

/// Rounds a query. Returns `None` if it has no bounds.
#[inline(always)]
fn round_query<T: Float>(query: &[T], rounded: &mut [[i16; 2]]) -> Option<Rounded<T>> {
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
    Some(Rounded { scale, sum, lost, width: query.len() })
}

impl<T: Float> Rounded<T> {
    /// The bounds from keys whose rounded elements are at most `most`.
    #[inline(always)]
    fn bounds(&self, most: i16) -> Bounds<T> {
        let most = f64::from(most);
        let key = most + 1.0;
        // Half a unit of a rounded key, with a margin for the rounding of the quotient. The allowance is several
        // times the worst case of n + 2 roundings in either computation (Higham 2002, section 3.1).
        let allowance = 4.0 * (self.width as f64 + 16.0) * key;
        let of_keys = T::from_f64(0.51) + T::EPSILON * T::from_f64(allowance);
        let error = self.sum * of_keys + self.lost * T::from_f64(key);
        let unit = T::ONE / T::from_f64(most);
        Bounds { scale: self.scale * unit, error: error * unit }
    }
}

/// Factors of bounds, both for keys of largest element 1.
struct Bounds<T> {
    scale: T,
    error: T,
}

impl<T: Float> Bounds<T> {
    /// Writes the upper bounds of some scores, and returns the lower ones.
    #[inline(always)]
    fn of(&self, sums: &[i32; BLOCK], largest: &[T; BLOCK], upper: &mut [T; BLOCK]) -> [T; BLOCK] {
        let mut lower = [T::NAN; BLOCK];
        for k in 0..BLOCK {
            let score = self.scale * T::from_i32(sums[k]);
            upper[k] = largest[k] * (score + self.error);
            lower[k] = largest[k] * (score - self.error);
        }
        lower
    }
}

/// The instructions that [`products`] and [`product`] can use; no result depends on them.
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

/// The sums of products of a rounded query with the 8-bit keys of a block.
#[inline(always)]
fn products(
    instructions: Instructions,
    query: &[[i16; 2]],
    keys: &[[[i8; 2]; BLOCK]],
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
    keys: &[[[i8; 2]; BLOCK]],
) -> [i32; BLOCK] {
    use pulp::bytemuck::cast;
    const LANES: usize = BLOCK / 2;
    let (avx, avx2) = (simd.avx, simd.avx2);
    let add_products = |sums: [_; 2], pair: &[i16; 2], keys: &[[i8; 2]; BLOCK]| {
        let pair = avx._mm256_set1_epi32(cast(*pair));
        let [low, high] = cast::<_, [[[i8; 2]; LANES]; 2]>(*keys);
        let [low, high] = [low, high].map(|keys| avx2._mm256_cvtepi8_epi16(cast(keys)));
        [
            avx2._mm256_add_epi32(sums[0], avx2._mm256_madd_epi16(pair, low)),
            avx2._mm256_add_epi32(sums[1], avx2._mm256_madd_epi16(pair, high)),
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

/// The sum of products of a rounded query with a 13-bit key.
#[inline(always)]
fn product(instructions: Instructions, query: &[[i16; 2]], key: &[[i16; WORDS]]) -> i32 {
    let query = query.as_flattened().as_chunks::<WORDS>().0;
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = instructions {
        use pulp::bytemuck::cast;
        let mut sums = simd.avx._mm256_setzero_si256();
        for (query, key) in query.iter().zip(key) {
            let products = simd.avx2._mm256_madd_epi16(cast(*query), cast(*key));
            sums = simd.avx2._mm256_add_epi32(sums, products);
        }
        return cast::<_, [i32; WORDS / 2]>(sums).iter().sum();
    }
    #[cfg(not(target_arch = "x86_64"))]
    let () = instructions;
    let pairs = query.as_flattened().iter().zip(key.as_flattened());
    pairs.map(|(q, k)| i32::from(*q) * i32::from(*k)).sum()
}

/// Whether a bound excludes a slot. NaN never does.
#[inline(always)]
fn is_below<T: Float>(bound: T, floor: T) -> bool {
    bound < floor
}

/// Lists those of some slots whose upper bound is not below `floor`. Stops when less than a block of room is
/// left. Returns their number.
#[inline(always)]
fn candidates<T: Float>(
    upper: &[[T; BLOCK]],
    mut slots: impl Iterator<Item = u32>,
    floor: T,
    list: &mut [u32],
) -> usize {
    let mut found = 0;
    for block in upper {
        if block.iter().fold(false, |any, &bound| any | !is_below(bound, floor)) {
            if found + BLOCK > list.len() {
                break;
            }
            for (slot, &bound) in slots.by_ref().take(BLOCK).zip(block) {
                list[found] = slot;
                found += usize::from(!is_below(bound, floor));
            }
        } else {
            slots.nth(BLOCK - 1);
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
            for key in [BYTE, -BYTE] {
                let keys = vec![[[key; 2]; BLOCK]; width];
                let sum = 2 * width as i64 * i64::from(most) * i64::from(key);
                for instructions in [instructions(), Instructions::default()] {
                    let sums = products(instructions, &query, &keys);
                    assert_eq!(sums.map(i64::from), [sum; BLOCK]);
                }
            }
            for key in [WORD, -WORD] {
                let words = (2 * width).div_ceil(WORDS);
                let mut query = query.clone();
                query.resize(words * WORDS / 2, [0; 2]);
                let keys = vec![[key; WORDS]; words];
                let sum = 2 * width as i64 * i64::from(most) * i64::from(key);
                for instructions in [instructions(), Instructions::default()] {
                    assert_eq!(i64::from(product(instructions, &query, &keys)), sum);
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
