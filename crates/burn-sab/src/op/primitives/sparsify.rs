//! The sparsifier: it selects the best slots of each row, computes their sparse weights, and
//! differentiates the weights.

use burn::backend::Backend;

use crate::op::index;
use crate::op::options::{EPSILON, SabOptions};
use crate::op::prim::{Ints, Prim};
use crate::op::settings::Sparsifier;

/// Returns the best `n` of the scores `[b, m]` in falling order, of equal ones the older first, NaN last: their
/// values and their indices, both `[b, n]`.
///
/// It repeats "first position of the maximum". That is exact about ties on every backend, and reads nothing
/// back to the host, as Burn's default sort would.
pub(super) fn select<B: Backend>(scores: Prim<B>, n: usize) -> (Prim<B>, Ints<B>) {
    let [b, m] = scores.dims();
    // Positions of the slots not yet taken. A NaN ranks as minus infinity, behind the positions of all scores
    // that are one.
    let mut position = scores.iota(m).reshape([1, m]).expand([b, m]);
    let nan = scores.clone().nan_mask();
    position = position.clone().replace(nan.clone(), position + scores.integers(m, [b, m]));
    let mut left = scores.clone().fill(nan, f64::NEG_INFINITY);
    let taken_position = 2 * m;
    let outside = scores.integers(taken_position, [b, m]);
    let mut indices = Vec::with_capacity(n);
    for _ in 0..n {
        let best = left.clone().max(1).expand([b, m]);
        let first = outside.clone().replace(left.clone().equal(best), position.clone()).min(1);
        let taken = position.clone().equal(first.clone().expand([b, m]));
        left = left.fill(taken.clone(), f64::NEG_INFINITY);
        position = position.fill(taken, taken_position);
        indices.push(first);
    }
    let indices = Ints::cat(indices, 1).remainder(m);
    (scores.gather(indices.clone()), indices)
}

/// As [`select`], among the slots that an index finds for the queries `[b, a]` by the keys `[b, m, a]`. It computes
/// on the host: it is there for agreement, not for speed.
pub(super) fn search<B: Backend>(
    scores: Prim<B>,
    keys: &Prim<B>,
    query: &Prim<B>,
    (n_probe, n): (usize, usize),
) -> (Prim<B>, Ints<B>) {
    let [b, _] = scores.dims();
    let host = (keys.to_host(), query.to_host(), scores.to_host());
    let best = index::select(&host.0, &host.1, &host.2, b, (n_probe, n));
    let indices = scores.ints(best, [b, n]);
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
    let at_rank = values.narrow(1, rank, rank + 1);
    // Not `values - (at_rank + shift)`: added to a large score, the shift would be lost to rounding.
    let excess = (values - at_rank).shift(-shift).relu();
    let sum = excess.clone().sum(1).shift(EPSILON);
    (excess, sum)
}

/// Returns the weights, `[b, n]`, of ranked values, `[b, n]`, out of `m` slots (the algorithm, step 4).
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
