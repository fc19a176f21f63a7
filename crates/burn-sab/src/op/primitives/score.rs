//! The three scores in one form: a query vector of the state, a key vector of the slot, and a small
//! function of the two. Keys depend on the slot alone, so they are computed once, when it is stored.
//!
//! | score | query(h) | key(m) | combine(q, k) | size a |
//! | --- | --- | --- | --- | --- |
//! | additive | u·tanh(h) | v·tanh(m) | q + k | 1 |
//! | mlp | h W_q + b | m W_m | tanh(q + k)·v | A |
//! | dot | h W_q / sqrt(A) | m W_k | q·k | A |

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use super::tensor::Prim;
use crate::op::ScoreInputs;

pub(super) enum Scorer<B: Backend> {
    Additive { u: Prim<B>, v: Prim<B> },
    Mlp { query: Prim<B>, query_bias: Prim<B>, memory: Prim<B>, v: Prim<B> },
    Dot { query: Prim<B>, key: Prim<B>, scale: f64 },
}

impl<B: Backend> Scorer<B> {
    pub fn new(score: &ScoreInputs<B>) -> Self {
        match score.clone() {
            ScoreInputs::Additive { u, v } => Self::Additive { u: Prim(u), v: Prim(v) },
            ScoreInputs::Mlp { query, query_bias, memory, v } => Self::Mlp {
                query: Prim(query),
                query_bias: Prim(query_bias),
                memory: Prim(memory),
                v: Prim(v),
            },
            ScoreInputs::Dot { query, key } => {
                let query = Prim(query);
                let [_, a] = query.dims();
                Self::Dot { query, key: Prim(key), scale: (a as f64).sqrt().recip() }
            }
        }
    }

    /// Size a of a query or key vector.
    pub fn size(&self) -> usize {
        match self {
            Self::Additive { .. } => 1,
            Self::Mlp { query, .. } | Self::Dot { query, .. } => query.dims::<2>()[1],
        }
    }

    /// `[n, h] -> [n, a]`
    pub fn query(&self, state: Prim<B>) -> Prim<B> {
        match self {
            Self::Additive { u, .. } => state.tanh().matmul(column(u)),
            Self::Mlp { query, query_bias, .. } => {
                let [a] = query_bias.dims();
                state.matmul(query.clone()) + query_bias.clone().reshape([1, a])
            }
            Self::Dot { query, scale, .. } => state.matmul(query.clone()).scale(*scale),
        }
    }

    /// `[n, h] -> [n, a]`
    pub fn key(&self, slot: Prim<B>) -> Prim<B> {
        match self {
            Self::Additive { v, .. } => slot.tanh().matmul(column(v)),
            Self::Mlp { memory, .. } => slot.matmul(memory.clone()),
            Self::Dot { key, .. } => slot.matmul(key.clone()),
        }
    }

    /// Scores of `[b, m, a]` keys for `[b, a]` queries: `[b, m]`.
    pub fn combine(&self, query: Prim<B>, keys: Prim<B>) -> Prim<B> {
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

    /// From the gradient `[l, b, n]` of the scores of the ranked keys `[b, n, a]`: the gradients
    /// `[l, b, a]` of the query and `[l, b, n, a]` of the keys, and that of mlp's `v`.
    pub fn combine_backward(
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

    /// From the gradient `[l, b, a]` of the query of `state` `[b, h]`: that of the state, `[l, b, h]`.
    pub fn query_backward(&self, state: Prim<B>, grad: Prim<B>) -> Prim<B> {
        match self {
            Self::Additive { u, .. } => through_tanh(state, grad, u),
            Self::Mlp { query, .. } => through_matrix(grad, query),
            Self::Dot { query, scale, .. } => through_matrix(grad, query).scale(*scale),
        }
    }

    /// From the gradient `[l, b, a]` of the key of `slot` `[b, h]`: that of the slot, `[l, b, h]`.
    pub fn key_backward(&self, slot: Prim<B>, grad: Prim<B>) -> Prim<B> {
        match self {
            Self::Additive { v, .. } => through_tanh(slot, grad, v),
            Self::Mlp { memory, .. } => through_matrix(grad, memory),
            Self::Dot { key, .. } => through_matrix(grad, key),
        }
    }

    /// Gradients of the score's parameters, in the order of [`ScoreInputs`], from all states `[n, h]`
    /// with the gradients of their queries `[n, a]`, and all slots `[m, h]` with those of their keys.
    pub fn parameter_grads(
        &self,
        (states, grad_queries): (Prim<B>, Prim<B>),
        (slots, grad_keys): (Prim<B>, Prim<B>),
        grad_v: Option<Prim<B>>,
    ) -> Vec<FloatTensor<B>> {
        match self {
            Self::Additive { u, .. } => {
                let [h] = u.dims();
                let vector = |inputs: Prim<B>, grad| outer(inputs.tanh(), grad).reshape([h]).0;
                vec![vector(states, grad_queries), vector(slots, grad_keys)]
            }
            Self::Mlp { query_bias, v, .. } => {
                let [a] = query_bias.dims();
                vec![
                    outer(states, grad_queries.clone()).0,
                    grad_queries.sum(0).reshape([a]).0,
                    outer(slots, grad_keys).0,
                    grad_v.unwrap_or_else(|| v.zeros([a])).0,
                ]
            }
            Self::Dot { scale, .. } => {
                vec![outer(states, grad_queries).scale(*scale).0, outer(slots, grad_keys).0]
            }
        }
    }
}

fn column<B: Backend>(vector: &Prim<B>) -> Prim<B> {
    let [h] = vector.dims();
    vector.clone().reshape([h, 1])
}

/// Gradient of `x` through `w·tanh(x)`: `[b, h]`, `[l, b, 1]`, `[h]` to `[l, b, h]`.
fn through_tanh<B: Backend>(x: Prim<B>, grad: Prim<B>, w: &Prim<B>) -> Prim<B> {
    let [b, h] = x.dims();
    let slope = x.tanh().tanh_slope() * w.clone().reshape([1, h]);
    grad * slope.reshape([1, b, h])
}

/// Gradient of `x` through `x W`: `[l, b, a]`, `[h, a]` to `[l, b, h]`.
pub(super) fn through_matrix<B: Backend>(grad: Prim<B>, weight: &Prim<B>) -> Prim<B> {
    let [l, b, a] = grad.dims();
    let [h, _] = weight.dims();
    grad.reshape([l * b, a]).matmul(weight.clone().swap(0, 1)).reshape([l, b, h])
}

/// `xᵀ g`: `[n, i]`, `[n, o]` to `[i, o]`.
pub(super) fn outer<B: Backend>(x: Prim<B>, grad: Prim<B>) -> Prim<B> {
    x.swap(0, 1).matmul(grad)
}
