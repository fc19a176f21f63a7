//! The three scores and their gradients. All have one form: a query vector of the state, a key vector of
//! the slot, and a function `combine` of the two. Keys depend on the slot alone, so each key is computed
//! once, when its slot is stored.
//!
//! | score | query(h) | key(m) | combine(q, k) | size a |
//! | --- | --- | --- | --- | --- |
//! | additive | u·tanh(h) | v·tanh(m) | q + k | 1 |
//! | mlp | h W_q + b | m W_m | tanh(q + k)·v | A |
//! | dot | h W_q / sqrt(A) | m W_k | q·k | A |

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use crate::op::prim::Prim;
use crate::op::score::Score;

/// 1/sqrt(A), from W_q `[H, A]`.
fn dot_scale<B: Backend>(query: &Prim<B>) -> f64 {
    let [_, a] = query.dims();
    (a as f64).sqrt().recip()
}

impl<B: Backend> Score<Prim<B>> {
    /// The size a of a query or key vector.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Additive { .. } => 1,
            Self::Mlp { query, .. } | Self::Dot { query, .. } => query.dims::<2>()[1],
        }
    }

    /// Queries of states: `[n, h] -> [n, a]`.
    pub(super) fn query(&self, state: Prim<B>) -> Prim<B> {
        match self {
            Self::Additive { u, .. } => state.tanh().matmul(column(u)),
            Self::Mlp { query, query_bias, .. } => {
                let [a] = query_bias.dims();
                state.matmul(query.clone()) + query_bias.clone().reshape([1, a])
            }
            Self::Dot { query, .. } => state.matmul(query.clone()).scale(dot_scale(query)),
        }
    }

    /// Keys of slots: `[n, h] -> [n, a]`.
    pub(super) fn key(&self, slot: Prim<B>) -> Prim<B> {
        match self {
            Self::Additive { v, .. } => slot.tanh().matmul(column(v)),
            Self::Mlp { memory, .. } => slot.matmul(memory.clone()),
            Self::Dot { key, .. } => slot.matmul(key.clone()),
        }
    }

    /// Scores of `[b, m, a]` keys for `[b, a]` queries: `[b, m]`.
    pub(super) fn combine(&self, query: Prim<B>, keys: Prim<B>) -> Prim<B> {
        let [b, m, a] = keys.dims();
        match self {
            Self::Additive { .. } => query + keys.reshape([b, m]),
            Self::Mlp { v, .. } => {
                let hidden = (query.reshape([b, 1, a]) + keys).tanh().reshape([b * m, a]);
                hidden.matmul(column(v)).reshape([b, m])
            }
            Self::Dot { .. } => keys.matmul(query.reshape([b, a, 1])).reshape([b, m]),
        }
    }

    /// Backward pass of [`Self::combine`] for the ranked keys `[b, n, a]`, from the gradient `[l, b, n]`
    /// of their scores. Returns the gradients of the query, `[l, b, a]`, of the keys, `[l, b, n, a]`,
    /// and of mlp's `v`.
    pub(super) fn combine_backward(
        &self,
        query: Prim<B>,
        keys: Prim<B>,
        grad: Prim<B>,
    ) -> (Prim<B>, Prim<B>, Option<Prim<B>>) {
        let [l, b, n] = grad.dims();
        let [_, _, a] = keys.dims();
        let grad = grad.reshape([l, b, n, 1]);
        match self {
            Self::Additive { .. } => (grad.clone().sum(2).reshape([l, b, a]), grad, None),
            Self::Mlp { v, .. } => {
                let hidden = (query.reshape([b, 1, a]) + keys).tanh();
                let slope = hidden.clone().tanh_slope() * v.clone().reshape([1, 1, a]);
                let grad_keys = grad.clone() * slope.reshape([1, b, n, a]);
                let grad_v = (grad.sum(0).reshape([b * n, 1]) * hidden.reshape([b * n, a])).sum(0);
                (grad_keys.clone().sum(2).reshape([l, b, a]), grad_keys, Some(grad_v.reshape([a])))
            }
            Self::Dot { .. } => {
                let grad_query = (grad.clone() * keys.reshape([1, b, n, a])).sum(2);
                (grad_query.reshape([l, b, a]), grad * query.reshape([1, b, 1, a]), None)
            }
        }
    }

    /// Computes the gradient of `state` (`[b, h]`), `[l, b, h]`, from that of its query, `[l, b, a]`.
    pub(super) fn query_backward(&self, state: Prim<B>, grad: Prim<B>) -> Prim<B> {
        match self {
            Self::Additive { u, .. } => through_tanh(state, grad, u),
            Self::Mlp { query, .. } => through_matrix(grad, query),
            Self::Dot { query, .. } => through_matrix(grad, query).scale(dot_scale(query)),
        }
    }

    /// Computes the gradient of `slot` (`[b, h]`), `[l, b, h]`, from that of its key, `[l, b, a]`.
    pub(super) fn key_backward(&self, slot: Prim<B>, grad: Prim<B>) -> Prim<B> {
        match self {
            Self::Additive { v, .. } => through_tanh(slot, grad, v),
            Self::Mlp { memory, .. } => through_matrix(grad, memory),
            Self::Dot { key, .. } => through_matrix(grad, key),
        }
    }

    /// Computes the gradients of the parameters that need one. The arguments are all states, `[n, h]`,
    /// with the gradients of their queries, `[n, a]`, and all slots, `[m, h]`, with those of their keys.
    pub(super) fn parameter_grads(
        &self,
        needs: &Score<bool>,
        (states, grad_queries): (Prim<B>, Prim<B>),
        (slots, grad_keys): (Prim<B>, Prim<B>),
        grad_v: Option<Prim<B>>,
    ) -> Score<Option<FloatTensor<B>>> {
        let query = || outer(states.clone(), grad_queries.clone());
        let key = || outer(slots.clone(), grad_keys.clone());
        let mut needs = needs.iter().copied();
        let mut wanted =
            |gradient: &dyn Fn() -> Prim<B>| (needs.next() == Some(true)).then(|| gradient().0);
        match self {
            Self::Additive { u, .. } => {
                let [h] = u.dims();
                let vector = |inputs: &Prim<B>, grad: &Prim<B>| {
                    outer(inputs.clone().tanh(), grad.clone()).reshape([h])
                };
                Score::Additive {
                    u: wanted(&|| vector(&states, &grad_queries)),
                    v: wanted(&|| vector(&slots, &grad_keys)),
                }
            }
            Self::Mlp { query_bias, v, .. } => {
                let [a] = query_bias.dims();
                Score::Mlp {
                    query: wanted(&query),
                    query_bias: wanted(&|| grad_queries.clone().sum(0).reshape([a])),
                    memory: wanted(&key),
                    v: wanted(&|| grad_v.clone().unwrap_or_else(|| v.zeros([a]))),
                }
            }
            Self::Dot { query: weight, .. } => Score::Dot {
                query: wanted(&|| query().scale(dot_scale(weight))),
                key: wanted(&key),
            },
        }
    }
}

fn column<B: Backend>(vector: &Prim<B>) -> Prim<B> {
    let [h] = vector.dims();
    vector.clone().reshape([h, 1])
}

/// Gradient of `x` through `w·tanh(x)`. Shapes: `x` `[b, h]`, `grad` `[l, b, 1]`, `w` `[h]`, result
/// `[l, b, h]`.
fn through_tanh<B: Backend>(x: Prim<B>, grad: Prim<B>, w: &Prim<B>) -> Prim<B> {
    let [b, h] = x.dims();
    let slope = x.tanh().tanh_slope() * w.clone().reshape([1, h]);
    grad * slope.reshape([1, b, h])
}

/// Gradient of `x` through `x W`. Shapes: `grad` `[l, b, a]`, `weight` `[h, a]`, result `[l, b, h]`.
pub(super) fn through_matrix<B: Backend>(grad: Prim<B>, weight: &Prim<B>) -> Prim<B> {
    let [l, b, a] = grad.dims();
    let [h, _] = weight.dims();
    grad.reshape([l * b, a]).matmul(weight.clone().swap(0, 1)).reshape([l, b, h])
}

/// Returns `xᵀ grad`. Shapes: `x` `[n, i]`, `grad` `[n, o]`, result `[i, o]`.
pub(super) fn outer<B: Backend>(x: Prim<B>, grad: Prim<B>) -> Prim<B> {
    x.swap(0, 1).matmul(grad)
}
