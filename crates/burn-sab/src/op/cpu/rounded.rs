//! Products of a rounded query with rounded keys: the inner loops of the bounds on dot scores, exact in 32 bits.
//!
//! Elements of 8-bit keys are stored with 128 added, as unsigned numbers. The sums of products begin at -128 times
//! the sum of the query's elements, which removes the addend again.

use super::select::BLOCK;

/// Elements of a 13-bit key that one instruction multiplies; keys are filled up with zeros.
pub const WORDS: usize = 16;

/// Elements of an 8-bit key side by side: as many as one instruction multiplies and adds.
pub const BYTES: usize = 4;

/// Parts of [`BYTES`] elements that hold a key of `width`.
pub fn byte_parts(width: usize) -> usize {
    width.div_ceil(BYTES)
}

/// Parts of [`WORDS`] elements that hold a key of `width`.
pub fn word_parts(width: usize) -> usize {
    width.div_ceil(WORDS)
}

/// Largest element of a rounded query: its high byte, below, is a signed one.
pub const LARGEST: i16 = 32_639;

/// A part of the 8-bit keys of sixteen slots.
pub type Block = [[u8; BYTES]; BLOCK];

/// An element of an 8-bit key, from -127 to 127, as it is stored.
#[inline(always)]
pub fn byte(element: i16) -> u8 {
    element.wrapping_add(128) as u8
}

/// A rounded query.
#[derive(Debug, Clone)]
pub struct Query {
    /// Filled up with zeros to a multiple of [`WORDS`].
    elements: Vec<i16>,
    /// Each element is 256 times its high byte plus its low byte, both signed.
    high: Vec<[u8; BYTES]>,
    low: Vec<[u8; BYTES]>,
    /// The value at which sums of products with 8-bit keys begin.
    start: i32,
}

impl Query {
    /// A query of `width` zeros.
    pub fn new(width: usize) -> Self {
        let quads = byte_parts(width);
        Self {
            elements: vec![0; word_parts(width) * WORDS],
            high: vec![[0; BYTES]; quads],
            low: vec![[0; BYTES]; quads],
            start: 0,
        }
    }

    /// Sets each element to `round(value, index)`, which is at most [`LARGEST`] in size.
    #[inline(always)]
    pub fn set<T: Copy>(&mut self, values: &[T], mut round: impl FnMut(T, usize) -> i16) {
        for (k, (to, value)) in self.elements.iter_mut().zip(values).enumerate() {
            *to = round(*value, k);
        }
        self.start = -128 * self.elements.iter().map(|element| i32::from(*element)).sum::<i32>();
        let (high, low) = (self.high.as_flattened_mut(), self.low.as_flattened_mut());
        for ((high, low), element) in high.iter_mut().zip(low).zip(&self.elements) {
            *low = *element as u8;
            *high = ((*element - i16::from(*low as i8)) >> 8) as u8;
        }
    }
}

/// The instructions that the methods use; no result depends on them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Instructions {
    #[cfg(target_arch = "x86_64")]
    avx2: Option<pulp::x86::V3>,
    #[cfg(target_arch = "x86_64")]
    vnni: bool,
}

impl Instructions {
    /// Returns the instructions of this processor. The default has those that every processor has.
    #[inline(always)]
    pub fn detect() -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            avx2: pulp::x86::V3::try_new(),
            #[cfg(target_arch = "x86_64")]
            vnni: is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"),
        }
    }

    /// Whether [`Self::bytes`] uses AVX-512 VNNI.
    pub fn have_vnni(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.vnni;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Writes the numbers whose bit in `kept` is set to the beginning of `list`. Returns how many these are.
    #[inline(always)]
    pub fn keep(self, numbers: &[u32; BLOCK], kept: u16, list: &mut [u32; BLOCK]) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.vnni {
            // SAFETY: this processor has the instruction.
            unsafe { keep_avx512(numbers, kept, list) };
            return kept.count_ones() as usize;
        }
        let mut found = 0;
        for (k, number) in numbers.iter().enumerate() {
            list[found % BLOCK] = *number;
            found += usize::from(kept >> k & 1);
        }
        found
    }

    /// Writes the sums of products of a query with the 8-bit keys of some blocks, `[blocks, ceil(A / 4)]`.
    #[inline(always)]
    pub fn bytes(self, query: &Query, keys: &[Block], sums: &mut [[i32; BLOCK]]) {
        #[cfg(target_arch = "x86_64")]
        {
            if self.vnni {
                // SAFETY: this processor has the instructions.
                unsafe { bytes_vnni(query, keys, sums) };
                return;
            }
            if let Some(avx2) = self.avx2 {
                for (sums, keys) in sums.iter_mut().zip(keys.chunks_exact(query.low.len())) {
                    *sums = bytes_avx2(avx2, query, keys);
                }
                return;
            }
        }
        for (sums, keys) in sums.iter_mut().zip(keys.chunks_exact(query.low.len())) {
            *sums = [query.start; BLOCK];
            for (q, keys) in query.elements.as_chunks::<BYTES>().0.iter().zip(keys) {
                for (sum, key) in sums.iter_mut().zip(keys) {
                    for (q, k) in q.iter().zip(key) {
                        *sum += i32::from(*q) * i32::from(*k);
                    }
                }
            }
        }
    }

    /// The sum of products of a query with a 13-bit key.
    #[inline(always)]
    pub fn words(self, query: &Query, key: &[[i16; WORDS]]) -> i32 {
        let query = query.elements.as_chunks::<WORDS>().0;
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = self.avx2 {
            use pulp::bytemuck::cast;
            let mut sums = simd.avx._mm256_setzero_si256();
            for (query, key) in query.iter().zip(key) {
                let products = simd.avx2._mm256_madd_epi16(cast(*query), cast(*key));
                sums = simd.avx2._mm256_add_epi32(sums, products);
            }
            return cast::<_, [i32; WORDS / 2]>(sums).iter().sum();
        }
        let pairs = query.as_flattened().iter().zip(key.as_flattened());
        pairs.map(|(q, k)| i32::from(*q) * i32::from(*k)).sum()
    }
}

/// [`Instructions::keep`] with the instruction that does it.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn keep_avx512(numbers: &[u32; BLOCK], kept: u16, list: &mut [u32; BLOCK]) {
    use std::arch::x86_64::{_mm512_loadu_si512, _mm512_maskz_compress_epi32, _mm512_storeu_si512};
    // SAFETY: either array has the 64 bytes that are read or written.
    unsafe {
        let numbers = _mm512_loadu_si512(numbers.as_ptr().cast());
        // Not the store that compresses, which is slow on some processors.
        let numbers = _mm512_maskz_compress_epi32(kept, numbers);
        _mm512_storeu_si512(list.as_mut_ptr().cast(), numbers);
    }
}

/// [`Instructions::bytes`] of one block, with the instruction that multiplies pairs and adds, which the compiler does
/// not find.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn bytes_avx2(simd: pulp::x86::V3, query: &Query, keys: &[Block]) -> [i32; BLOCK] {
    use pulp::bytemuck::cast;
    const QUARTER: usize = BLOCK / 4;
    let (avx, avx2) = (simd.avx, simd.avx2);
    // Two sums of pairs for each slot, four slots a register.
    let mut sums = [avx._mm256_setzero_si256(); 4];
    for (q, keys) in query.elements.as_chunks::<BYTES>().0.iter().zip(keys) {
        let q = avx._mm256_set1_epi64x(cast(*q));
        let quarters: [[[u8; BYTES]; QUARTER]; 4] = cast(*keys);
        for (sum, keys) in sums.iter_mut().zip(quarters) {
            let keys = avx2._mm256_cvtepu8_epi16(cast(keys));
            *sum = avx2._mm256_add_epi32(*sum, avx2._mm256_madd_epi16(q, keys));
        }
    }
    let start = avx._mm256_set1_epi32(query.start);
    cast([0, 2].map(|k| {
        // The sums of slots 0 1 4 5 2 3 6 7.
        let mixed = avx2._mm256_hadd_epi32(sums[k], sums[k + 1]);
        avx2._mm256_add_epi32(start, avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(mixed))
    }))
}

/// [`Instructions::bytes`] with the instruction that multiplies four unsigned bytes by four signed ones and adds, for
/// the two bytes of each element of the query.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn bytes_vnni(query: &Query, keys: &[Block], sums: &mut [[i32; BLOCK]]) {
    const ABREAST: usize = 4;
    let quads = query.low.len();
    let (most, rest) = sums.as_chunks_mut::<ABREAST>();
    for (sums, keys) in most.iter_mut().zip(keys.chunks_exact(ABREAST * quads)) {
        blocks_vnni(query, keys, sums);
    }
    for (sums, keys) in rest.iter_mut().zip(keys.chunks_exact(quads).skip(ABREAST * most.len())) {
        blocks_vnni(query, keys, std::array::from_mut(sums));
    }
}

/// [`bytes_vnni`] of `N` blocks side by side, so that they share the query's elements and no addition waits for the
/// previous one. Without closures and iterators over them, which would be calls: they lack the instructions.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn blocks_vnni<const N: usize>(query: &Query, keys: &[Block], sums: &mut [[i32; BLOCK]; N]) {
    use std::arch::x86_64::{
        _mm512_add_epi32, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32,
        _mm512_setzero_si512, _mm512_slli_epi32, _mm512_storeu_si512,
    };
    let quads = query.low.len();
    assert!(query.high.len() == quads && keys.len() == N * quads);
    let mut high = [_mm512_setzero_si512(); N];
    let mut low = [_mm512_set1_epi32(query.start); N];
    for quad in 0..quads {
        let q_high = _mm512_set1_epi32(i32::from_ne_bytes(query.high[quad]));
        let q_low = _mm512_set1_epi32(i32::from_ne_bytes(query.low[quad]));
        for block in 0..N {
            // SAFETY: a block has the 64 bytes that are read.
            let keys = unsafe { _mm512_loadu_si512(keys[block * quads + quad].as_ptr().cast()) };
            high[block] = _mm512_dpbusd_epi32(high[block], keys, q_high);
            low[block] = _mm512_dpbusd_epi32(low[block], keys, q_low);
        }
    }
    for block in 0..N {
        // The parts may leave the range of 32 bits, and their sum is in it again.
        let sum = _mm512_add_epi32(_mm512_slli_epi32::<8>(high[block]), low[block]);
        // SAFETY: the sums of a block have the 64 bytes that are written.
        unsafe { _mm512_storeu_si512(sums[block].as_mut_ptr().cast(), sum) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::numbers::numbers;
    use super::*;

    /// Every set of instructions gives the sums that plain multiplication in 64 bits gives.
    fn agree(elements: &[i16], keys: &[Vec<i8>]) {
        let width = elements.len();
        let mut query = Query::new(width);
        query.set(elements, |element, _| element);
        let sum = |key: &[i16]| -> i64 {
            elements.iter().zip(key).map(|(q, k)| i64::from(*q) * i64::from(*k)).sum()
        };
        let quads = byte_parts(width);
        let blocks = keys.len().div_ceil(BLOCK);
        let mut bytes = vec![[[0; BYTES]; BLOCK]; blocks * quads];
        for (slot, key) in keys.iter().enumerate() {
            for (a, value) in key.iter().enumerate() {
                bytes[slot / BLOCK * quads + a / BYTES][slot % BLOCK][a % BYTES] =
                    byte((*value).into());
            }
        }
        let avx2_alone = Instructions {
            #[cfg(target_arch = "x86_64")]
            vnni: false,
            ..Instructions::detect()
        };
        for instructions in [Instructions::detect(), avx2_alone, Instructions::default()] {
            let mut sums = vec![[0; BLOCK]; blocks];
            instructions.bytes(&query, &bytes, &mut sums);
            for (key, got) in keys.iter().zip(sums.as_flattened()) {
                let key: Vec<i16> = key.iter().copied().map(i16::from).collect();
                assert_eq!(i64::from(*got), sum(&key), "{instructions:?}, A {width}");
            }
            for key in keys {
                let mut key: Vec<i16> = key.iter().map(|value| i16::from(*value) * 32).collect();
                let want = sum(&key);
                key.resize(word_parts(width) * WORDS, 0);
                let got = instructions.words(&query, key.as_chunks::<WORDS>().0);
                assert_eq!(i64::from(got), want, "{instructions:?}, A {width}");
            }
        }
    }

    #[test]
    fn numbers_are_kept() {
        let numbers = std::array::from_fn(|k| 100 + k as u32);
        for kept in [0, 1, 0x8000, 0xffff, 0x5a3c, 0x8001] {
            let of_bits: Vec<u32> =
                (0..16).filter(|k| kept >> k & 1 == 1).map(|k| 100 + k).collect();
            for instructions in [Instructions::detect(), Instructions::default()] {
                let mut list = [0; BLOCK];
                let found = instructions.keep(&numbers, kept, &mut list);
                assert_eq!(list[..found], of_bits, "{instructions:?}, {kept:b}");
            }
        }
    }

    #[test]
    fn sums_are_exact() {
        let mut next = numbers();
        for width in [1, 3, 4, 17, 64, 129] {
            let most = super::super::coarse::largest_query(width) as f64;
            for slots in [1, 16, 17, 63, 64, 130] {
                let query: Vec<i16> = (0..width).map(|_| (next() * most) as i16).collect();
                let keys: Vec<Vec<i8>> = (0..slots)
                    .map(|_| (0..width).map(|_| (next() * 127.0) as i8).collect())
                    .collect();
                agree(&query, &keys);
            }
        }
    }

    #[test]
    fn sums_are_exact_at_the_limit() {
        for width in [1, 2, 5, 64, 128, 1024] {
            let most = super::super::coarse::largest_query(width) as i16;
            for (q, k) in [(most, 127), (most, -127), (-most, 127), (-most, -127)] {
                agree(&vec![q; width], &vec![vec![k; width]; 20]);
            }
        }
    }
}
