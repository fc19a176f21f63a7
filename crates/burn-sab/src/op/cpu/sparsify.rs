//! The sparsifier: weights from the ranked scores of one step, and gradients of these scores.

use super::float::{Float, exp};
use super::vector::dot;
use crate::op::options::EPSILON;
use crate::op::settings::Sparsifier;

/// The function from the ranked scores of one step to its weights.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Softmax over all ranks.
    Softmax,
    /// relu(score - threshold), normalised. The last rank supplies the threshold.
    Threshold,
    /// The weights are the scores themselves.
    Raw,
}

impl Rule {
    /// Returns the rule for a memory of `slots` slots.
    pub fn new(sparsifier: Sparsifier, k_top: usize, slots: usize) -> Self {
        match sparsifier {
            Sparsifier::Softmax => Self::Softmax,
            Sparsifier::Threshold => Self::Threshold,
            Sparsifier::Released if slots <= k_top => Self::Raw,
            Sparsifier::Released => Self::Threshold,
        }
    }

    /// Whether adding one constant to all scores changes the weights.
    pub fn depends_on_shift(self) -> bool {
        self == Self::Raw
    }
}

/// Returns the difference between the threshold and the score of the last rank (the algorithm, step 4).
pub fn threshold_offset<T: Float>(sparsifier: Sparsifier, k_top: usize, slots: usize) -> T {
    match sparsifier {
        Sparsifier::Released => T::from_f64(EPSILON),
        _ if slots <= k_top => -T::ONE,
        _ => T::ZERO,
    }
}

/// Computes the weights of `scores`, which must be in descending order. Returns the sum that normalised
/// them.
#[inline(always)]
pub fn forward<T: Float>(rule: Rule, offset: T, scores: &[T], weights: &mut [T]) -> T {
    let n = scores.len();
    let weights = &mut weights[..n];
    let mut sum = T::ZERO;
    match rule {
        Rule::Raw => {
            weights.copy_from_slice(scores);
            return T::ONE;
        }
        Rule::Softmax => {
            for k in 0..n {
                weights[k] = exp(scores[k] - scores[0]);
                sum += weights[k];
            }
        }
        Rule::Threshold => {
            for k in 0..n {
                // Not `score - (last + offset)`: added to a large score, the offset would be lost to
                // rounding.
                let above = (scores[k] - scores[n - 1]) - offset;
                // Not `above > 0`: NaN must propagate, as in relu.
                weights[k] = if above <= T::ZERO { T::ZERO } else { above };
                sum += weights[k];
            }
            sum += T::from_f64(EPSILON);
        }
    }
    for weight in weights {
        *weight = *weight / sum;
    }
    sum
}

/// Computes the gradients of the ranked scores from those of their weights.
#[inline(always)]
pub fn backward<T: Float>(rule: Rule, weights: &[T], sum: T, grad_weights: &[T], out: &mut [T]) {
    let n = weights.len();
    let (grad_weights, out) = (&grad_weights[..n], &mut out[..n]);
    if rule == Rule::Raw {
        out.copy_from_slice(grad_weights);
        return;
    }
    let mean = dot(weights, grad_weights);
    match rule {
        Rule::Softmax => {
            for k in 0..n {
                out[k] = weights[k] * (grad_weights[k] - mean);
            }
        }
        _ => {
            let mut total = T::ZERO;
            for k in 0..n {
                out[k] =
                    if weights[k] == T::ZERO { T::ZERO } else { (grad_weights[k] - mean) / sum };
                total += out[k];
            }
            out[n - 1] -= total;
        }
    }
}
