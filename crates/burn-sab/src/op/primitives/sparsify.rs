//! The best slots of a row, their sparse weights, and the derivative of the weights.

use burn::backend::Backend;

use super::tensor::Prim;
use crate::op::options::{EPSILON, SabOptions, Sparsifier};

/// The best `n` of the scores `[b, m]` in falling order, among equals the older first: their values
/// and their indices as floats (exact below 2^24), both `[b, n]`.
///
/// Repeated "first position of the maximum": exact about ties on every backend, and nothing is read
/// back to the host, which Burn's default sort would do.
pub(super) fn select<B: Backend>(mut scores: Prim<B>, n: usize) -> (Prim<B>, Prim<B>) {
    let [b, m] = scores.dims();
    let position = scores.iota(m).reshape([1, m]).expand([b, m]);
    let outside = scores.zeros([b, m]).shift(m as f64);
    let (mut values, mut indices) = (Vec::with_capacity(n), Vec::with_capacity(n));
    for _ in 0..n {
        let best = scores.clone().max(1);
        let first = scores
            .clone()
            .select_equal(best.clone().expand([b, m]), position.clone(), outside.clone())
            .min(1)
            // A row of NaN equals nothing; its values stay NaN, its indices must stay in range.
            .clamp_max((m - 1) as f64);
        scores =
            scores.fill_equal(position.clone(), first.clone().expand([b, m]), f64::NEG_INFINITY);
        values.push(best);
        indices.push(first);
    }
    (Prim::cat(values, 1), Prim::cat(indices, 1))
}

/// Where the threshold of `n` ranked values comes from, given `m` slots: the rank and what is added.
fn threshold(options: &SabOptions, n: usize, m: usize) -> Option<(usize, f64)> {
    match options.sparsifier {
        Sparsifier::Threshold if m > options.k_top => Some((n - 1, 0.0)),
        Sparsifier::Threshold => Some((n - 1, -1.0)),
        Sparsifier::Released if m > options.k_top => Some((n - 1, EPSILON)),
        Sparsifier::Released | Sparsifier::Softmax => None,
    }
}

/// `relu(a - delta)` and its sum plus epsilon, from ranked values `[b, n]`.
fn excess<B: Backend>(values: Prim<B>, rank: usize, shift: f64) -> (Prim<B>, Prim<B>) {
    let delta = values.narrow(1, rank, rank + 1).shift(shift);
    let excess = (values - delta).relu();
    let sum = excess.clone().sum(1).shift(EPSILON);
    (excess, sum)
}

/// Weights `[b, n]` of ranked values `[b, n]` out of `m` slots (specification, step 4).
pub(super) fn weights<B: Backend>(options: &SabOptions, values: Prim<B>, m: usize) -> Prim<B> {
    let [_, n] = values.dims();
    match threshold(options, n, m) {
        Some((rank, shift)) => {
            let (excess, sum) = excess(values, rank, shift);
            excess * sum.recip()
        }
        None if options.sparsifier == Sparsifier::Softmax => {
            let best = values.narrow(1, 0, 1);
            let exp = (values - best).exp();
            exp.clone() * exp.sum(1).recip()
        }
        None => values,
    }
}

/// Gradient `[l, b, n]` of the ranked values from that of their weights, with the selection fixed.
///
/// Softmax: `g_a = w (g_w - Σ w g_w)`. Thresholds: with `r = relu(a - δ)`, `S = Σ r + ε`, `w = r / S`:
/// `g_r = (g_w - Σ w g_w) / S`, passed on where `r > 0`, and minus their sum to the rank that
/// supplies δ.
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
        None if options.sparsifier == Sparsifier::Softmax => {
            let mean = (grad.clone() * w.clone()).sum(2);
            (grad - mean) * w
        }
        None => grad,
    }
}
