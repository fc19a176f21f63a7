//! The backward pass of the scores: gradients of queries, keys, slots, and score parameters.

use super::call::Call;
use super::float::{Float, tanh, tanh_and_slope};
use super::matrix::{Matrix, MatrixMut, Target, multiply, transpose};
use super::pairs::RowPairs;
use super::score::dot_scale;
use super::vector::{add, add_scaled};
use crate::op::score::Score;
use crate::op::tensors::Dims;

/// The transposed projections of the score, `[A, H]`, which all tiles share; empty for additive scores.
pub struct Transposed<T> {
    query: Vec<T>,
    key: Vec<T>,
}

impl<T: Float> Transposed<T> {
    /// Transposes the projections of the call's score parameters.
    pub fn new(call: &Call<'_, T>) -> Self {
        let Dims { hidden, attention, .. } = call.dims;
        match call.inputs.score {
            Score::Additive { .. } => Self { query: Vec::new(), key: Vec::new() },
            Score::Mlp { query, memory: key, .. } | Score::Dot { query, key } => Self {
                query: transpose(query, hidden, attention),
                key: transpose(key, hidden, attention),
            },
        }
    }
}

/// The backward pass of the scores of one tile.
pub struct ScoreSweep<'a, T> {
    call: &'a Call<'a, T>,
    transposed: &'a Transposed<T>,
    /// Pairs (provisional hidden state, gradient of the query).
    queries: RowPairs<T>,
    /// Pairs (slot, gradient of its key).
    keys: RowPairs<T>,
}

impl<'a, T: Float> ScoreSweep<'a, T> {
    /// Creates the sweep. At most `batch` queries and keys may be added between two calls of
    /// [`Self::settle`].
    pub fn new(call: &'a Call<'a, T>, transposed: &'a Transposed<T>, batch: usize) -> Self {
        let hidden = call.dims.hidden;
        let (batch, key_width) = if call.attends() { (batch, call.key_width()) } else { (0, 1) };
        Self {
            call,
            transposed,
            queries: RowPairs::new(hidden, call.query_width(), batch),
            keys: RowPairs::new(hidden, key_width, batch),
        }
    }

    /// Adds a query and returns its gradient, which is zero at first.
    #[inline(always)]
    pub fn query(&mut self, provisional: &[T]) -> &mut [T] {
        let (left, right) = self.queries.push();
        left.copy_from_slice(provisional);
        right.fill(T::ZERO);
        right
    }

    /// Adds the contributions of the last `n` query gradients to the gradients of their provisional
    /// hidden states, `[n, H]`.
    pub fn queries_to_provisional(&self, n: usize, grad_provisional: &mut [T]) {
        let Dims { hidden, attention, .. } = self.call.dims;
        let scale = match self.call.inputs.score {
            Score::Additive { .. } => return,
            Score::Mlp { .. } => T::ONE,
            Score::Dot { .. } => dot_scale(attention),
        };
        multiply(
            MatrixMut::new(grad_provisional, n, hidden),
            Matrix::new(self.queries.right_from(self.queries.len() - n), n, attention),
            Matrix::new(&self.transposed.query, attention, hidden),
            scale,
            Target::Add,
        );
    }

    /// Adds a slot and the complete gradient of its key.
    #[inline(always)]
    pub fn key(&mut self, slot: &[T], grad_key: &[T]) {
        let (left, right) = self.keys.push();
        left.copy_from_slice(slot);
        right.copy_from_slice(grad_key);
    }

    /// Computes the contributions of the last `n` key gradients to the gradients of their slots, `[n, H]`.
    #[inline(always)]
    pub fn keys_to_slots(&self, n: usize, grad_slots: &mut [T]) {
        let Dims { hidden, attention, .. } = self.call.dims;
        let first = self.keys.len() - n;
        let grad_keys = self.keys.right_from(first);
        if let Score::Additive { v, .. } = self.call.inputs.score {
            let slots = self.keys.left_from(first).chunks(hidden);
            for ((grad_slot, slot), grad_key) in
                grad_slots.chunks_mut(hidden).zip(slots).zip(grad_keys)
            {
                for ((out, m), v) in grad_slot.iter_mut().zip(slot).zip(v) {
                    *out = *grad_key * *v * tanh_and_slope(*m).1;
                }
            }
        } else {
            multiply(
                MatrixMut::new(grad_slots, n, hidden),
                Matrix::new(grad_keys, n, attention),
                Matrix::new(&self.transposed.key, attention, hidden),
                T::ONE,
                Target::Replace,
            );
        }
    }

    /// Adds the collected pairs to the gradients of the parameters, if there are enough pairs or if
    /// `all` is set. A gradient in `out` is empty if its parameter needs none.
    #[inline(always)]
    pub fn settle(&mut self, all: bool, out: &mut Score<Vec<T>>) {
        let Dims { hidden, attention, .. } = self.call.dims;
        if self.queries.len() > 0 && (all || self.queries.is_full()) {
            match out {
                Score::Additive { .. } => {}
                Score::Mlp { query, query_bias, .. } => {
                    add_pairs(&self.queries, query, T::ONE);
                    if !query_bias.is_empty() {
                        for row in self.queries.right_from(0).chunks(attention) {
                            add(query_bias, row);
                        }
                    }
                }
                Score::Dot { query, .. } => {
                    add_pairs(&self.queries, query, dot_scale(attention));
                }
            }
            self.queries.clear();
        }
        if self.keys.len() > 0 && (all || self.keys.is_full()) {
            match out {
                Score::Additive { v, .. } => {
                    let slots = self.keys.left_from(0).chunks(hidden);
                    for (slot, grad_key) in slots.zip(self.keys.right_from(0)) {
                        add_scaled_tanh(v, *grad_key, slot);
                    }
                }
                Score::Mlp { memory: weight, .. } | Score::Dot { key: weight, .. } => {
                    add_pairs(&self.keys, weight, T::ONE);
                }
            }
            self.keys.clear();
        }
    }
}

/// Adds the pairs to the gradient of a matrix, unless that gradient is empty.
#[inline(always)]
fn add_pairs<T: Float>(pairs: &RowPairs<T>, out: &mut [T], scale: T) {
    if !out.is_empty() {
        pairs.add_to(out, scale);
    }
}

/// `out += scale * tanh(x)`.
#[inline(always)]
fn add_scaled_tanh<T: Float>(out: &mut [T], scale: T, x: &[T]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out += scale * tanh(*x);
    }
}

/// Adds the contribution of one score's gradient to the gradients of its query and key. `out` holds the
/// gradients of the score parameters; a gradient is empty if its parameter needs none. Additive scores
/// have no queries: the caller sums `grad_score`.
#[inline(always)]
pub fn score<T: Float>(
    score: &Score<&[T]>,
    grad_score: T,
    (query, grad_query): (&[T], &mut [T]),
    (key, grad_key): (&[T], &mut [T]),
    out: &mut Score<Vec<T>>,
) {
    match *score {
        Score::Additive { .. } => grad_key[0] += grad_score,
        Score::Dot { .. } => {
            add_scaled(grad_query, grad_score, key);
            add_scaled(grad_key, grad_score, query);
        }
        Score::Mlp { v, .. } => {
            mlp(grad_score, v, query, key, grad_query, grad_key);
            if let Score::Mlp { v: out, .. } = out {
                for ((out, q), k) in out.iter_mut().zip(query).zip(key) {
                    *out += grad_score * tanh(*q + *k);
                }
            }
        }
    }
}

#[inline(always)]
fn mlp<T: Float>(
    grad_score: T,
    v: &[T],
    query: &[T],
    key: &[T],
    grad_query: &mut [T],
    grad_key: &mut [T],
) {
    let n = v.len();
    let (query, key, grad_query, grad_key) =
        (&query[..n], &key[..n], &mut grad_query[..n], &mut grad_key[..n]);
    for a in 0..n {
        let grad = grad_score * v[a] * tanh_and_slope(query[a] + key[a]).1;
        grad_query[a] += grad;
        grad_key[a] += grad;
    }
}

/// Backward pass of the additive query term, for the rule whose weights depend on it. Adds to the
/// gradients of the provisional hidden state and of u, unless these are empty.
#[inline(always)]
pub fn additive_query<T: Float>(
    score: &Score<&[T]>,
    grad_score: T,
    provisional: &[T],
    grad_provisional: &mut [T],
    out: &mut Score<Vec<T>>,
) {
    if let Score::Additive { u, .. } = *score {
        for ((out, u), h) in grad_provisional.iter_mut().zip(u).zip(provisional) {
            *out += grad_score * *u * tanh_and_slope(*h).1;
        }
        if let Score::Additive { u: out, .. } = out {
            add_scaled_tanh(out, grad_score, provisional);
        }
    }
}
