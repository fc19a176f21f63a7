//! Elementary loops over rows of elements: dot products, scaled sums, prefetching.
//!
//! All functions here and in `cell.rs` are `inline(always)`. They become part of a tile's code, which is
//! compiled once per instruction set ([`pulp::Arch`] selects one at run time). The compiler vectorises
//! them there.

use super::float::Float;

/// Partial sums of a reduction. The number is fixed, so that results depend on the instruction set as
/// little as possible. It fills two AVX-512 registers of f32, enough to hide the latency of an addition.
const SUMS: usize = 32;

/// Returns `sum(a * b)`.
#[inline(always)]
pub fn dot<T: Float>(a: &[T], b: &[T]) -> T {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    let mut sums = [T::ZERO; SUMS];
    let (a_chunks, b_chunks) = (a.chunks_exact(SUMS), b.chunks_exact(SUMS));
    for (k, (a, b)) in a_chunks.remainder().iter().zip(b_chunks.remainder()).enumerate() {
        sums[k] = *a * *b;
    }
    for (a, b) in a_chunks.zip(b_chunks) {
        for k in 0..SUMS {
            sums[k] += a[k] * b[k];
        }
    }
    total(sums)
}

/// Adds partial sums by halves; `N` is a power of two.
#[inline(always)]
pub fn total<T: Float, const N: usize>(mut sums: [T; N]) -> T {
    let mut half = N / 2;
    while half > 0 {
        for k in 0..half {
            sums[k] += sums[k + half];
        }
        half /= 2;
    }
    sums[0]
}

/// Computes `out += scale * row`.
#[inline(always)]
pub fn add_scaled<T: Float>(out: &mut [T], scale: T, row: &[T]) {
    for (out, x) in out.iter_mut().zip(row) {
        *out += scale * *x;
    }
}

/// Computes `out += scale * row`, elementwise.
#[inline(always)]
pub fn add_product<T: Float>(out: &mut [T], scale: &[T], row: &[T]) {
    for ((out, scale), x) in out.iter_mut().zip(scale).zip(row) {
        *out += *scale * *x;
    }
}

/// Elements that a sum of rows holds in registers: four AVX-512 registers of f32.
const SPAN: usize = 64;

/// Computes `out = sum(scale * row)`, and writes each element of `out` once. `rows` is called once for
/// each part of `out`.
#[inline(always)]
pub fn weighted_sum<'a, T: Float, R>(out: &mut [T], rows: impl Fn() -> R)
where
    R: Iterator<Item = (T, &'a [T])>,
{
    let width = out.len();
    let (spans, rest) = out.as_chunks_mut::<SPAN>();
    for (index, out) in spans.iter_mut().enumerate() {
        let mut sums = [T::ZERO; SPAN];
        for (scale, row) in rows() {
            let row = &row.as_chunks::<SPAN>().0[index];
            for k in 0..SPAN {
                sums[k] += scale * row[k];
            }
        }
        *out = sums;
    }
    rest.fill(T::ZERO);
    if !rest.is_empty() {
        for (scale, row) in rows() {
            add_scaled(rest, scale, &row[width - rest.len()..]);
        }
    }
}

/// Computes `out += row`.
#[inline(always)]
pub fn add<T: Float>(out: &mut [T], row: &[T]) {
    for (out, x) in out.iter_mut().zip(row) {
        *out += *x;
    }
}

/// Whether every element is zero. NaN is not zero.
#[inline(always)]
pub fn is_zero<T: Float>(row: &[T]) -> bool {
    row.chunks(SUMS).all(|chunk| !chunk.iter().fold(false, |any, x| any | (*x != T::ZERO)))
}

/// Prefetches a row into the second-level cache, if the processor has such an instruction.
#[inline(always)]
pub fn prefetch<T: Float>(row: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in row.chunks(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch neither faults nor changes any value, whatever its address. This address is
        // that of a slice. Every x86-64 processor has the instruction.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

/// Allocates scratch memory with unspecified content. Debug builds and the unit tests of this crate
/// (also in release builds) fill it with NaN.
pub fn scratch<T: Float>(len: usize) -> Vec<T> {
    vec![if cfg!(any(test, debug_assertions)) { T::NAN } else { T::ZERO }; len]
}

/// Splits the first `len` elements off `rest`.
pub fn take<'a, T>(rest: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (head, tail) = std::mem::take(rest).split_at_mut(len);
    *rest = tail;
    head
}
