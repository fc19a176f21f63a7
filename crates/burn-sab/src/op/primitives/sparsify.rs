//! The sparsifier: it selects the best slots of each row, computes their sparse weights, and
//! differentiates the weights.

use burn::backend::Backend;

use crate::op::options::{EPSILON, SabOptions};
use crate::op::prim::{Ints, Prim};
use crate::op::settings::Sparsifier;

/// Returns the values and indices, both `[b, n]`, of the best `n` of the scores `[b, m]`, in descending
/// order. Among equal scores the older slot comes first; NaN comes last.
///
/// The method repeats "first position of the maximum". Its order of ties is exact on every backend. It
/// transfers nothing to the host, unlike Burn's default sort.
pub(super) fn select<B: Backend>(scores: Prim<B>, n: usize) -> (Prim<B>, Ints<B>) {
    let [b, m] = scores.dims();
    // Positions of the slots that remain. A selected slot has position m, beyond all others.
    let mut position = scores.iota(m).reshape([1, m]).expand([b, m]);
    let outside = scores.integers(m, [b, m]);
    let mut left = scores.clone().fill(scores.clone().is_nan(), f64::NEG_INFINITY);
    let mut indices = Vec::with_capacity(n);
    for _ in 0..n {
        let best = left.clone().max(1).expand([b, m]);
        let first = outside.clone().replace(left.clone().equal(best), position.clone()).min(1);
        let taken = position.clone().equal(first.clone().expand([b, m]));
        left = left.fill(taken.clone(), f64::NEG_INFINITY);
        position = position.fill(taken, m);
        indices.push(first);
    }
    let indices = Ints::cat(indices, 1);
    (scores.gather(indices.clone()), indices)
}

/// Returns the source of the threshold of `n` ranked values, given `m` slots: a rank and a constant to
/// add to its value.
fn threshold(options: &SabOptions, n: usize, m: usize) -> Option<(usize, f64)> {
    let k_top = options.settings.k_top;
    match options.settings.sparsifier {
        Sparsifier::Threshold if m > k_top => Some((n - 1, 0.0)),
        Sparsifier::Threshold => Some((n - 1, -1.0)),
        Sparsifier::Released if m > k_top => Some((n - 1, EPSILON)),
        Sparsifier::Released | Sparsifier::Softmax => None,
    }
}

/// Returns `relu(a - delta)` and its sum plus epsilon, for ranked values `[b, n]`.
fn excess<B: Backend>(values: Prim<B>, rank: usize, shift: f64) -> (Prim<B>, Prim<B>) {
    let delta = values.narrow(1, rank, rank + 1).shift(shift);
    let excess = (values - delta).relu();
    let sum = excess.clone().sum(1).shift(EPSILON);
    (excess, sum)
}

/// Returns the weights, `[b, n]`, of ranked values, `[b, n]`, out of `m` slots (specification, step 4).
pub(super) fn weights<B: Backend>(options: &SabOptions, values: Prim<B>, m: usize) -> Prim<B> {
    let [_, n] = values.dims();
    match threshold(options, n, m) {
        Some((rank, shift)) => {
            let (excess, sum) = excess(values, rank, shift);
            excess * sum.recip()
        }
        None if options.settings.sparsifier == Sparsifier::Softmax => {
            let best = values.narrow(1, 0, 1);
            let exp = (values - best).exp();
            exp.clone() * exp.sum(1).recip()
        }
        None => values,
    }
}

/// Returns the gradient of the ranked values, `[l, b, n]`, from that of their weights, for a fixed
/// selection.
///
/// Softmax: `g_a = w (g_w - Σ w g_w)`. Threshold sparsifiers, with `r = relu(a - δ)`, `S = Σ r + ε`,
/// `w = r / S`: `g_r = (g_w - Σ w g_w) / S`. The values with `r > 0` receive `g_r`, and the rank that
/// supplies δ receives minus the sum of these.
pub(super) fn weights_backward<B: Backend>(
    options: &SabOptions,
    values: Prim<B>,
    m: usize,
    grad: Prim<B>,
) -> Prim<B> {
    let [l, b, n] = grad.dims();
    let w = weights(options, values.clone(), m).reshape([1, b, n]);
    match threshold(options, n, m) {
        Some((rank, shift)) => {
            let (excess, sum) = excess(values, rank, shift);
            let centred = grad.clone() - (grad * w).sum(2);
            let live = (excess.positive() * sum.recip()).reshape([1, b, n]);
            let grad = centred * live;
            let supplied = grad.clone().sum(2);
            let at_rank = grad.narrow(2, rank, rank + 1) - supplied;
            debug_assert_eq!(at_rank.dims::<3>(), [l, b, 1]);
            grad.assign(2, rank, rank + 1, at_rank)
        }
        None if options.settings.sparsifier == Sparsifier::Softmax => {
            let mean = (grad.clone() * w.clone()).sum(2);
            (grad - mean) * w
        }
        None => grad,
    }
}
