//! From the best scores to weights, and back.

use super::float::{Float, exp};
use super::vector::dot;
use crate::op::options::EPSILON;
use crate::op::settings::Sparsifier;

/// How the weights of one step follow from its ranked scores.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Softmax over all ranks.
    Softmax,
    /// relu(score - threshold), normalised; the last rank supplies the threshold.
    Threshold,
    /// The weights are the scores.
    Raw,
}

impl Rule {
    /// The rule while `slots` slots are stored.
    pub fn new(sparsifier: Sparsifier, k_top: usize, slots: usize) -> Self {
        match sparsifier {
            Sparsifier::Softmax => Self::Softmax,
            Sparsifier::Threshold => Self::Threshold,
            Sparsifier::Released if slots <= k_top => Self::Raw,
            Sparsifier::Released => Self::Threshold,
        }
    }

    /// Whether adding the same number to every score changes the weights.
    pub fn depends_on_shift(self) -> bool {
        self == Self::Raw
    }
}

/// What the last rank's score is raised by to become the threshold (specification, step 4).
pub fn threshold_offset<T: Float>(sparsifier: Sparsifier, k_top: usize, slots: usize) -> T {
    match sparsifier {
        Sparsifier::Released => T::from_f64(EPSILON),
        _ if slots <= k_top => -T::ONE,
        _ => T::ZERO,
    }
}

/// Weights of the ranked (falling) `scores`; returns the sum that they were divided by.
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
                // Not `score - (last + offset)`: beside a large score the offset would be lost.
                let above = (scores[k] - scores[n - 1]) - offset;
                // Not `above > 0`: NaN must come through, as it does in relu.
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

/// Gradients of the ranked scores from those of their weights.
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
