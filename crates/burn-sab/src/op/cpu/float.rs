//! The two element types of the kernel, f32 and f64, with fast sigmoid, tanh and exponential functions.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub, SubAssign};
use std::sync::Mutex;

/// An element type: `f32` or `f64`.
///
/// No method uses a fused multiply-add: on processors without one, Rust's `mul_add` is a slow library
/// call. The matrix products, which dominate the run time, choose their own instructions.
pub trait Float:
    Copy
    + Debug
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + Into<f64>
{
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// Not a number; fills scratch memory in tests.
    const NAN: Self;

    /// Freed memory that the next call reuses ([`Pooled`](super::pool::Pooled)).
    fn pool() -> &'static Mutex<Vec<Vec<Self>>>;
    /// The distance from one to the next larger value.
    const EPSILON: Self;
    /// Rounds to the nearest representable value.
    fn from_f64(x: f64) -> Self;
    /// Rounds to the nearest representable value.
    fn from_i32(x: i32) -> Self;
    /// Rounds to the nearest integer, if it fits. Other values give any number.
    fn to_i16(self) -> i16;
    /// The absolute value.
    fn abs(self) -> Self;
    /// Zero in the place of a subnormal number, which some processors compute with many times more slowly. NaN stays.
    fn flush(self) -> Self;
    /// The absolute value of `self` with the sign of `sign`.
    fn copysign(self, sign: Self) -> Self;
    /// The largest argument of [`Self::exp_parts`].
    const LARGEST_EXPONENT: Self;
    /// Returns `(scale, part)` such that `exp(x) = scale * (1 + part)`. `scale` is a power of two, and
    /// `part` is between -0.3 and 0.42. `part` is accurate to the last bit or two, even if it is tiny.
    /// Arguments whose result is below the normal range are clamped; NaN gives a NaN `part`.
    fn exp_parts(self) -> (Self, Self);
}

macro_rules! float {
    ($float:ident, $bits:ident, mantissa: $mantissa:literal, bias: $bias:literal, round: $round:expr,
     range: $low:literal ..= $high:literal, ln2: $ln2_high:literal + $ln2_low:literal,
     even: [$even:literal $(, $evens:literal)*], odd: [$odd:literal $(, $odds:literal)*]) => {
        impl Float for $float {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NAN: Self = Self::NAN;
            const EPSILON: Self = $float::EPSILON;
            const LARGEST_EXPONENT: Self = $high;

            fn pool() -> &'static Mutex<Vec<Vec<Self>>> {
                static POOL: Mutex<Vec<Vec<$float>>> = Mutex::new(Vec::new());
                &POOL
            }

            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as Self
            }

            #[inline(always)]
            fn from_i32(x: i32) -> Self {
                x as Self
            }

            #[inline(always)]
            fn to_i16(self) -> i16 {
                // Leaves the integer in the lowest bits. Not a cast, whose clamping keeps a loop from instructions that
                // convert many values at once.
                (self + $round).to_bits() as i16
            }

            #[inline(always)]
            fn abs(self) -> Self {
                self.abs()
            }

            #[inline(always)]
            fn flush(self) -> Self {
                if self.abs() < Self::MIN_POSITIVE { 0.0 } else { self }
            }

            #[inline(always)]
            fn copysign(self, sign: Self) -> Self {
                self.copysign(sign)
            }

            #[inline(always)]
            fn exp_parts(self) -> (Self, Self) {
                // A comparison instead of `max`: it propagates NaN and compiles to one instruction.
                let x = if self < $low { $low } else { self };
                // Adding 1.5 * 2^mantissa leaves the nearest integer in the lowest bits. The constant
                // also adds the bias of the exponent, so these bits encode the integer's power of two.
                const ROUND: $float = $round + $bias;
                let rounded = x * std::$float::consts::LOG2_E + ROUND;
                let n = rounded - ROUND;
                // ln 2 is split into two terms, so that n times the first is exact.
                let r = x - n * $ln2_high - n * $ln2_low;
                // Even and odd powers are summed separately: two short dependency chains instead of a
                // long one.
                let square = r * r;
                let (mut even, mut odd): (Self, Self) = ($even, $odd);
                $(even = even * square + $evens;)*
                $(odd = odd * square + $odds;)*
                let scale = $float::from_bits(rounded.to_bits() << $mantissa);
                (scale, r + square * (even + r * odd))
            }
        }
    };
}

// Coefficients of (exp(r) - 1 - r) / r^2, highest power first. They minimise the error relative to
// exp(r) - 1 over |r| <= ln(2) / 2 (Lawson's algorithm, 45 digits). The error is 1.3e-8 (f32) and
// 2.7e-18 (f64), far below half a unit in the last place.
float!(f32, u32, mantissa: 23, bias: 127.0, round: 12_582_912.0, range: -87.0 ..= 88.0,
    ln2: 0.693_359_4 + -2.121_944_4e-4,
    even: [1.388_257_4e-3, 4.166_719_4e-2, 4.999_999_8e-1],
    odd: [8.366_333e-3, 1.666_654_5e-1]);
float!(f64, u64, mantissa: 52, bias: 1023.0, round: 6_755_399_441_055_744.0, range: -708.0 ..= 709.0,
    ln2: 6.931_471_803_691_238e-1 + 1.908_214_929_270_587_7e-10,
    even: [1.768_773_460_667_301_5e-9, 2.756_792_498_820_476e-7, 2.480_157_454_333_810_2e-5,
        1.388_888_889_559_300_8e-3, 4.166_666_666_665_23e-2, 5.000_000_000_000_001e-1],
    odd: [2.510_518_340_910_315e-8, 2.755_725_548_777_898e-6, 1.984_126_987_474_464_8e-4,
        8.333_333_333_326_16e-3, 1.666_666_666_666_667e-1]);

/// The exponential function, clamped to the range of [`Float::exp_parts`].
#[inline(always)]
pub fn exp<T: Float>(x: T) -> T {
    let x = if x > T::LARGEST_EXPONENT { T::LARGEST_EXPONENT } else { x };
    let (scale, part) = x.exp_parts();
    scale + scale * part
}

/// The logistic function, to about three units in the last place.
#[inline(always)]
pub fn sigmoid<T: Float>(x: T) -> T {
    T::ONE / (T::ONE + exp(-x))
}

/// The hyperbolic tangent, to about three units in the last place, also near zero.
#[inline(always)]
pub fn tanh<T: Float>(x: T) -> T {
    tanh_and_slope(x).0
}

/// The hyperbolic tangent and its derivative. The derivative has full relative accuracy where the
/// tangent is near one; `1 - tanh(x)^2` does not.
#[inline(always)]
pub fn tanh_and_slope<T: Float>(x: T) -> (T, T) {
    let magnitude = x.abs();
    let (scale, part) = (-(magnitude + magnitude)).exp_parts();
    let grown = scale * part;
    let e = scale + grown;
    // exp(-2|x|) - 1 without cancellation: scale - 1 is exact, and it is zero if |x| is small.
    let below_one = (scale - T::ONE) + grown;
    // One division, and one formula for all arguments: given two, the compiler would compute both.
    let inverse = T::ONE / (T::ONE + e);
    let half_slope = (e + e) * inverse;
    ((below_one * inverse).copysign(x), (half_slope + half_slope) * inverse)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the largest error of sigmoid and tanh, relative to the exact value, over a grid of both
    /// signs.
    fn worst<T: Float + Into<f64>>() -> f64 {
        let mut worst = 0.0f64;
        for i in -200_000..=200_000i32 {
            // The grid is dense near zero and extends to +-80.
            let x = T::from_f64((f64::from(i) / 200_000.0).powi(3) * 80.0);
            let exact: f64 = x.into();
            for (got, want) in [(sigmoid(x), 1.0 / (1.0 + (-exact).exp())), (tanh(x), exact.tanh())]
            {
                let error = (got.into() - want).abs();
                if error > 0.0 {
                    assert!(want != 0.0, "{exact}: {got:?} against zero");
                    worst = worst.max(error / want.abs());
                }
            }
        }
        worst
    }

    #[test]
    fn gates_are_accurate() {
        let (single, double) = (worst::<f32>(), worst::<f64>());
        assert!(single < 2.5e-7, "f32 {single:e}");
        assert!(double < 1e-15, "f64 {double:e}");
    }

    #[test]
    fn slopes_are_accurate_where_the_tangent_is_near_one() {
        for i in -4000..=4000i32 {
            let x = f64::from(i) / 100.0;
            let want = x.cosh().powi(-2);
            let (single, double) = (f64::from(tanh_and_slope(x as f32).1), tanh_and_slope(x).1);
            // The f32 argument is rounded, which changes the result by up to 2 |x| half units.
            let bound = 1e-6 + x.abs() * 1.2e-7;
            assert!((single / want - 1.0).abs() < bound, "{x}: {single:e} against {want:e}");
            assert!((double / want - 1.0).abs() < 2e-15, "{x}: {double:e} against {want:e}");
        }
    }

    #[test]
    fn gates_saturate_and_keep_nan() {
        for x in [1e3f32, 1e30, f32::INFINITY] {
            assert_eq!((tanh(x), tanh(-x), sigmoid(x)), (1.0, -1.0, 1.0));
            assert!(sigmoid(-x) < 1e-37);
        }
        for x in [1e3f64, 1e300, f64::INFINITY] {
            assert_eq!((tanh(x), tanh(-x), sigmoid(x)), (1.0, -1.0, 1.0));
            assert!(sigmoid(-x) < 1e-300);
        }
        assert!(tanh(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan() && tanh(f64::NAN).is_nan());
        assert!(tanh(-0.0f32).is_sign_negative());
    }
}
