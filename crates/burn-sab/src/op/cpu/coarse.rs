//! Dot scores bounded by means of rounded keys.
//!
//! Each key is stored two more times, rounded to 8 bits and to 13 bits, each time with a scale of its own. One pass
//! over the 8-bit keys bounds every score from both sides. The n-th highest lower bound excludes most slots. The
//! 13-bit keys of the others give narrower bounds, which exclude most of these. The remaining slots, the candidates,
//! are scored exactly, in the order of operations of the plain path. The selected slots and their scores are
//! therefore those of the plain path, bit for bit.
//!
//! With the scale s of a key k, its rounded elements are r = k / s, at most R in size. Those of a query q with
//! the scale z are p = q / z. Then, as |q·x| is at most |q|₂ |x|₂,
//!
//! ```text
//! |q·k - s z p·r| <= |q|₂ |k - s r|₂ + s R |q - z p|₁
//! ```
//!
//! The first term is at most s |q|₁ / 2, which is smaller for a query with few large elements; it then takes its
//! place. An allowance for the rounding errors of both computations is added. The sum p·r is exact in 32 bits.

use super::float::Float;
use super::rounded::{self, Instructions, Query, WORDS, byte_parts, word_parts};
use super::select::{BLOCK, Tops, select};
use super::vector::{dot, total};

/// Largest element of a key rounded to 8 bits.
const BYTE: i8 = i8::MAX;

/// Largest element of a key rounded to 13 bits.
const WORD: i16 = 4095;

/// Units of a rounded query's largest element, at least: fewer would exclude few slots.
const FEWEST_UNITS: i32 = 512;

/// Slots from which the bounds are cheaper than all exact scores (measured).
pub fn fewest(instructions: Instructions) -> usize {
    if instructions.have_vnni() { 256 } else { 768 }
}

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
    /// Detected once, not at every ranking.
    instructions: Instructions,
    rows: Vec<Row<T>>,
    query: Query,
    /// The sums of products of one row, and the upper bounds.
    sums: Vec<[i32; BLOCK]>,
    upper: Vec<[T; BLOCK]>,
    /// The slots that the first pass does not exclude.
    left: Vec<u32>,
    /// Their upper bounds in the second pass.
    narrower: Vec<[T; BLOCK]>,
    candidates: Vec<u32>,
    scores: Vec<[T; BLOCK]>,
}

#[derive(Debug, Clone)]
struct Row<T> {
    /// `[blocks, ceil(A / 4)]`
    bytes: Vec<rounded::Block>,
    /// `[slots, A]`, filled up with zeros to a multiple of [`WORDS`].
    words: Vec<[i16; WORDS]>,
    /// The largest element of each key, `[slots]`; NaN for a key without bounds.
    largest: Vec<[T; BLOCK]>,
    /// |k - s r|₂ of each key rounded to 8 bits and to 13 bits, `[slots]`.
    lost: [Vec<[T; BLOCK]>; 2],
    /// `[slots, A]`: the keys themselves.
    keys: Vec<T>,
    /// Rankings that do without bounds.
    pause: u32,
}

/// The largest element by absolute value, and the sum of all. NaN stays NaN in the sum.
#[inline(always)]
fn largest_and_sum<T: Float>(values: &[T]) -> (T, T) {
    let mut largest = [T::from_f64(TINY); BLOCK];
    let mut sums = [T::ZERO; BLOCK];
    for values in values.chunks(BLOCK) {
        let mut padded = [T::ZERO; BLOCK];
        padded[..values.len()].copy_from_slice(values);
        for (k, value) in padded.into_iter().enumerate() {
            let size = value.abs();
            largest[k] = if size > largest[k] { size } else { largest[k] };
            sums[k] += size;
        }
    }
    let largest = largest.into_iter().fold(T::ZERO, |a, b| if b > a { b } else { a });
    (largest, total(sums))
}

/// At least the root of the sum of `n` squares, whatever was rounded on the way.
#[inline(always)]
fn norm<T: Float>(squares: T, n: usize) -> T {
    let squares: f64 = squares.into();
    T::from_f64(squares.sqrt()) * (T::ONE + T::EPSILON * T::from_f64(4.0 * (n as f64 + 16.0)))
}

impl<T> Row<T> {
    fn new() -> Self {
        let lost = [vec![], vec![]];
        Self { bytes: vec![], words: vec![], largest: vec![], lost, keys: vec![], pause: 0 }
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
            instructions: Instructions::detect(),
            rows: vec![],
            query: Query::new(width),
            sums: vec![],
            upper: vec![],
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
        let (blocks, quads) = (slots.div_ceil(BLOCK), byte_parts(self.width));
        for row in &mut self.rows {
            row.bytes.resize(blocks * quads, rounded::Block::default());
            row.words.resize(blocks * BLOCK * word_parts(self.width), [0; WORDS]);
            row.largest.resize(blocks, [T::NAN; BLOCK]);
            for lost in &mut row.lost {
                lost.resize(blocks, [T::NAN; BLOCK]);
            }
            row.keys.resize(blocks * BLOCK * self.width, T::ZERO);
        }
        self.sums.resize(blocks, [0; BLOCK]);
        self.upper.resize(blocks, [T::NAN; BLOCK]);
    }

    /// Stores the key of a slot.
    #[inline(always)]
    pub fn set(&mut self, row: usize, slot: usize, key: &[T]) {
        let (width, quads) = (self.width, byte_parts(self.width));
        let row = &mut self.rows[row];
        row.keys[slot * width..][..width].copy_from_slice(key);
        let (largest, sum) = largest_and_sum(key);
        let most = [f64::from(BYTE), f64::from(WORD)].map(T::from_f64);
        let (per_unit, unit) = (most.map(|most| most / largest), most.map(|most| largest / most));
        let words = word_parts(width);
        let words = &mut row.words[slot * words..][..words];
        let bytes = &mut row.bytes[slot / BLOCK * quads..][..quads];
        let mut squares = [[T::ZERO; BLOCK]; 2];
        for ((words, bytes), values) in
            words.iter_mut().zip(bytes.chunks_mut(WORDS / rounded::BYTES)).zip(key.chunks(WORDS))
        {
            let mut padded = [T::ZERO; WORDS];
            padded[..values.len()].copy_from_slice(values);
            let mut elements = [0; WORDS];
            for k in 0..WORDS {
                let byte = (padded[k] * per_unit[0]).to_i16();
                words[k] = (padded[k] * per_unit[1]).to_i16();
                elements[k] = rounded::byte(byte);
                for (squares, lost) in squares.iter_mut().zip([
                    padded[k] - unit[0] * T::from_i32(byte.into()),
                    padded[k] - unit[1] * T::from_i32(words[k].into()),
                ]) {
                    squares[k] += lost * lost;
                }
            }
            for (bytes, elements) in bytes.iter_mut().zip(elements.as_chunks().0) {
                bytes[slot % BLOCK] = *elements;
            }
        }
        for (lost, squares) in row.lost.iter_mut().zip(squares) {
            let rounding = T::EPSILON * T::from_f64(width as f64 + 16.0) * largest;
            lost[slot / BLOCK][slot % BLOCK] = norm(total(squares), width) + rounding;
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
        if len < fewest(self.instructions) || best.is_empty() || best.len() > BLOCK {
            return false;
        }
        let pause = &mut self.rows[row].pause;
        if *pause > 0 {
            *pause -= 1;
            return false;
        }
        let Some(rounded) = round_query(query, &mut self.query) else {
            return false;
        };
        let Some(found) = self.exclude((row, len), &rounded, best.len()) else {
            self.rows[row].pause = PAUSE;
            return false;
        };
        let (row, candidates) = (&self.rows[row], &self.candidates[..found]);
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

    /// Lists the candidates for the `n` best of the `len` slots of `row`, by the rounded query. Returns their number,
    /// or `None` if too many slots remain.
    #[inline(always)]
    fn exclude(
        &mut self,
        (row, len): (usize, usize),
        rounded: &Rounded<T>,
        n: usize,
    ) -> Option<usize> {
        let row = &self.rows[row];
        let blocks = len.div_ceil(BLOCK);
        let (sums, upper) = (&mut self.sums[..blocks], &mut self.upper[..blocks]);
        let (mut tops, instructions) = (Tops::new(), self.instructions);
        instructions.bytes(&self.query, &row.bytes, sums);
        let bounds = rounded.bounds(BYTE.into());
        // Unused entries of the last block have no bounds. Not a mask on the bounds, which would leave registers.
        let mut last = row.largest[blocks - 1];
        if !len.is_multiple_of(BLOCK) {
            last[len % BLOCK..].fill(T::NAN);
        }
        let largest = row.largest[..blocks - 1].iter().chain([&last]);
        for (((upper, sums), largest), lost) in
            upper.iter_mut().zip(sums).zip(largest).zip(&row.lost[0])
        {
            tops.include(&bounds.of(sums, largest, lost, upper));
        }
        let floor = tops.floor(n);
        let [most_left, most] = MOST_LEFT.map(|share| len / share);
        self.left.resize(most_left + BLOCK, 0);
        let all = |first| std::array::from_fn(|k| (first + k) as u32);
        let left = candidates(instructions, upper, (len, all), floor, &mut self.left);
        if left > most_left || left < n {
            return None;
        }

        let left = &self.left[..left];
        let mut tops = Tops::new();
        let bounds = rounded.bounds(WORD);
        let words = word_parts(self.width);
        self.narrower.resize(left.len().div_ceil(BLOCK), [T::NAN; BLOCK]);
        for (slots, upper) in left.chunks(BLOCK).zip(&mut self.narrower) {
            let (mut sums, mut largest, mut lost) = ([0; BLOCK], [T::NAN; BLOCK], [T::NAN; BLOCK]);
            for (k, slot) in slots.iter().enumerate() {
                let slot = *slot as usize;
                sums[k] = instructions.words(&self.query, &row.words[slot * words..][..words]);
                largest[k] = row.largest[slot / BLOCK][slot % BLOCK];
                lost[k] = row.lost[1][slot / BLOCK][slot % BLOCK];
            }
            tops.include(&bounds.of(&sums, &largest, &lost, upper));
        }
        let narrower = tops.floor(n);
        let floor = if narrower > floor { narrower } else { floor };
        self.candidates.resize(most + BLOCK, 0);
        let of_left = |first| self.left[first..][..BLOCK].try_into().expect("a block of room");
        let of_left = (left.len(), of_left);
        let found = candidates(instructions, &self.narrower, of_left, floor, &mut self.candidates);
        (n..=most).contains(&found).then_some(found)
    }
}

/// Largest element of a rounded query, so that the sum of `width` products fits in 32 bits.
pub fn largest_query(width: usize) -> i32 {
    let most = i32::MAX / i32::from(WORD) / i32::try_from(width).unwrap_or(i32::MAX);
    most.min(rounded::LARGEST.into())
}

/// A query q as the bounds need it.
struct Rounded<T> {
    /// z
    scale: T,
    /// |q|₁
    sum: T,
    /// |q|₂
    norm: T,
    /// |q - z p|₁
    lost: T,
    width: usize,
}

/// Rounds a query. Returns `None` if it has no bounds.
#[inline(always)]
fn round_query<T: Float>(query: &[T], rounded: &mut Query) -> Option<Rounded<T>> {
    let width = query.len();
    let (largest, sum) = largest_and_sum(query);
    if !(sum > T::from_f64(TINY) && sum < T::from_f64(HUGE)) {
        return None;
    }
    let units = T::from_f64(f64::from(largest_query(width)));
    let (scale, per_unit) = (largest / units, units / largest);
    let mut lost = [T::ZERO; BLOCK];
    rounded.set(query, |value, k| {
        let rounded = (value * per_unit).to_i16();
        lost[k % BLOCK] += (value - scale * T::from_i32(rounded.into())).abs();
        rounded
    });
    let norm = norm(dot(query, query), width);
    Some(Rounded { scale, sum, norm, lost: total(lost), width })
}

impl<T: Float> Rounded<T> {
    /// The bounds from keys whose rounded elements are at most `most`.
    #[inline(always)]
    fn bounds(&self, most: i16) -> Bounds<T> {
        let (width, most) = (self.width as f64, f64::from(most));
        let unit = T::ONE / T::from_f64(most);
        // The allowance is several times the worst case of n + 2 roundings in either computation (Higham 2002,
        // section 3.1).
        let allowance = T::EPSILON * T::from_f64(4.0 * (width + 16.0) * (most + 1.0));
        let error = self.sum * allowance + self.lost * T::from_f64(most + 1.0);
        // Half a unit of a rounded key for each element, with a margin for the rounding of the quotient; and the
        // norm of errors that are spread evenly.
        let halves = self.sum * T::from_f64(0.51);
        let (norm, error) = if self.norm * T::from_f64((width / 12.0).sqrt()) < halves {
            (self.norm, error)
        } else {
            (T::ZERO, error + halves)
        };
        Bounds { scale: self.scale * unit, norm, error: error * unit }
    }
}

/// Factors of bounds.
struct Bounds<T> {
    /// On the sum of products, for a key of largest element 1.
    scale: T,
    /// On what a key lost.
    norm: T,
    /// The rest of the error, for a key of largest element 1.
    error: T,
}

impl<T: Float> Bounds<T> {
    /// Writes the upper bounds of some scores, and returns the lower ones.
    #[inline(always)]
    fn of(
        &self,
        sums: &[i32; BLOCK],
        largest: &[T; BLOCK],
        lost: &[T; BLOCK],
        upper: &mut [T; BLOCK],
    ) -> [T; BLOCK] {
        let mut lower = [T::NAN; BLOCK];
        for k in 0..BLOCK {
            let score = largest[k] * (self.scale * T::from_i32(sums[k]));
            let error = largest[k] * self.error + self.norm * lost[k];
            upper[k] = score + error;
            lower[k] = score - error;
        }
        lower
    }
}

/// Whether a bound excludes a slot. NaN never does.
#[inline(always)]
fn is_below<T: Float>(bound: T, floor: T) -> bool {
    bound < floor
}

/// Lists those of `len` slots whose upper bound is not below `floor`; `slots` gives sixteen of them, from one on.
/// Stops when less than a block of room is left. Returns the number of listed slots.
#[inline(always)]
fn candidates<T: Float>(
    instructions: Instructions,
    upper: &[[T; BLOCK]],
    (len, slots): (usize, impl Fn(usize) -> [u32; BLOCK]),
    floor: T,
    list: &mut [u32],
) -> usize {
    let mut found = 0;
    for (block, first) in upper.iter().zip((0..len).step_by(BLOCK)) {
        // Most blocks have none, which one comparison of all sixteen finds.
        if block.iter().fold(true, |all, &bound| all & is_below(bound, floor)) {
            continue;
        }
        let mut kept = 0;
        for (k, bound) in block.iter().enumerate() {
            kept |= u32::from(!is_below(*bound, floor)) << k;
        }
        // Unused entries of the last block are not kept.
        kept &= u32::MAX >> (u32::BITS as usize - BLOCK.min(len - first));
        let Some(list) = list.get_mut(found..).and_then(<[u32]>::first_chunk_mut) else {
            break;
        };
        found += instructions.keep(&slots(first), kept as u16, list);
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
                    for len in [fewest(Instructions::detect()), 783, 1000] {
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
    fn wide_keys_have_no_bounds() {
        assert!(Coarse::<f32>::new(1, 1024).is_some());
        assert!(Coarse::<f32>::new(1, 1025).is_none());
    }
}
