//! The two element types of the kernel.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub, SubAssign};

/// An element type: `f32` or `f64`.
///
/// No method uses a fused multiply-add: where the processor has none, Rust's `mul_add` is a slow
/// library call, and the matrix products, which do most of the work, choose their own.
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
{
    /// Nought.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// Not a number; fills scratch memory in tests.
    const NAN: Self;

    /// Rounds to the nearest representable number.
    fn from_f64(x: f64) -> Self;
    /// The magnitude.
    fn abs(self) -> Self;
    /// The magnitude of `self` with the sign of `sign`.
    fn copysign(self, sign: Self) -> Self;
    /// `(scale, part)` such that `exp(x) = scale * (1 + part)`: `scale` is a power of two and
    /// `part`, between -0.3 and 0.42, is accurate to the last bit or two even where it is tiny.
    /// Arguments beyond the range of normal numbers are clamped to it; NaN gives a NaN `part`.
    fn exp_parts(self) -> (Self, Self);
}

macro_rules! float {
    ($float:ident, $bits:ident, mantissa: $mantissa:literal, bias: $bias:literal, round: $round:expr,
     range: $low:literal ..= $high:literal, ln2: $ln2_high:literal + $ln2_low:literal,
     taylor: [$($coefficient:expr),*]) => {
        impl Float for $float {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NAN: Self = Self::NAN;

            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as Self
            }

            #[inline(always)]
            fn abs(self) -> Self {
                self.abs()
            }

            #[inline(always)]
            fn copysign(self, sign: Self) -> Self {
                self.copysign(sign)
            }

            #[inline(always)]
            fn exp_parts(self) -> (Self, Self) {
                // Comparisons instead of `clamp` or `min`: NaN passes through, and each is one instruction.
                let x = if self < $low { $low } else { self };
                let x = if x > $high { $high } else { x };
                // Adding 1.5 * 2^mantissa leaves the nearest integer in the lowest bits.
                let rounded = x * std::$float::consts::LOG2_E + $round;
                let n = rounded - $round;
                // ln 2 in two pieces, so that n times the first is exact.
                let r = x - n * $ln2_high - n * $ln2_low;
                let mut sum = 0.0;
                $(sum = sum * r + $coefficient;)*
                let scale = $float::from_bits(rounded.to_bits().wrapping_add($bias) << $mantissa);
                (scale, r + r * (r * sum))
            }
        }
    };
}

// Taylor coefficients 1/n! of (exp(r) - 1 - r) / r^2, highest first. With |r| <= ln(2) / 2 the first
// term left out is below half a unit in the last place of exp(r) - 1: relative to r, r^7/8! = 1.5e-8
// (f32) and r^13/14! = 1.2e-17 (f64).
float!(f32, u32, mantissa: 23, bias: 127, round: 12_582_912.0, range: -87.0 ..= 88.0,
    ln2: 0.693_359_4 + -2.121_944_4e-4,
    taylor: [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5]);
float!(f64, u64, mantissa: 52, bias: 1023, round: 6_755_399_441_055_744.0, range: -708.0 ..= 709.0,
    ln2: 6.931_471_803_691_238e-1 + 1.908_214_929_270_587_7e-10,
    taylor: [1.0 / 6_227_020_800.0, 1.0 / 479_001_600.0, 1.0 / 39_916_800.0, 1.0 / 3_628_800.0,
        1.0 / 362_880.0, 1.0 / 40_320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0,
        1.0 / 6.0, 0.5]);

/// The exponential function; see [`Float::exp_parts`] for the range.
#[inline(always)]
pub fn exp<T: Float>(x: T) -> T {
    let (scale, part) = x.exp_parts();
    scale + scale * part
}

/// The logistic function, to about three units in the last place.
#[inline(always)]
pub fn sigmoid<T: Float>(x: T) -> T {
    T::ONE / (T::ONE + exp(-x))
}

/// The hyperbolic tangent, to about three units in the last place (near zero, too).
#[inline(always)]
pub fn tanh<T: Float>(x: T) -> T {
    tanh_and_slope(x).0
}

/// The hyperbolic tangent and its derivative, which has full relative accuracy where the tangent is
/// near one: `1 - tanh(x)^2` would not.
#[inline(always)]
pub fn tanh_and_slope<T: Float>(x: T) -> (T, T) {
    let (scale, part) = (-(x.abs() + x.abs())).exp_parts();
    let e = scale + scale * part;
    // exp(-2|x|) - 1 without cancellation: scale - 1 is exact, and zero where |x| is small.
    let below_one = scale * part + (scale - T::ONE);
    let (twice, sum) = (e + e, T::ONE + e);
    // (1 - e) / (1 + e); near one as 1 - 2e / (1 + e), whose rounding is that of one subtraction.
    let near_one = twice < T::ONE;
    let quotient = (if near_one { twice } else { -below_one }) / sum;
    let magnitude = if near_one { T::ONE - quotient } else { quotient };
    (magnitude.copysign(x), (twice + twice) / (sum * sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest error of sigmoid and tanh, relative to the exact value, over a grid of both signs.
    fn worst<T: Float + Into<f64>>() -> f64 {
        let mut worst = 0.0f64;
        for i in -200_000..=200_000i32 {
            // Dense near zero, reaching +-80.
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
            // The argument of the f32 one is rounded, which moves the result by up to 2 |x| half units.
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
