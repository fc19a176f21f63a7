//! The score of a slot (the algorithm, step 3): its three forms, with parameters of any kind.

use std::cell::RefCell;

use serde::{Deserialize, Serialize};

/// The parameters of a score: vectors `V` and matrices `M`, weights as `[in, out]`. They can be tensors,
/// backend primitives, slices, gradients, or needs of gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Score<V, M = V> {
    /// `u·tanh(h) + v·tanh(m)`, the authors' release.
    Additive {
        /// `[H]`
        u: V,
        /// `[H]`
        v: V,
    },
    /// `v·tanh(h W_q + b + m W_m)`, one hidden layer.
    Mlp {
        /// W_q, `[H, A]`
        query: M,
        /// b, `[A]`
        query_bias: V,
        /// W_m, `[H, A]`
        memory: M,
        /// `[A]`
        v: V,
    },
    /// `(h W_q)·(m W_k) / sqrt(A)`.
    Dot {
        /// W_q, `[H, A]`
        query: M,
        /// W_k, `[H, A]`
        key: M,
    },
}

/// The form of a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ScoreKind {
    /// `u·tanh(h) + v·tanh(m)`
    Additive,
    /// `v·tanh(W_q h + W_m m + b)`
    Mlp,
    /// `(W_q h)·(W_k m) / sqrt(A)`
    Dot,
}

impl ScoreKind {
    /// Every form, with its name in words and its formula.
    pub const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Additive, "additive", "u·tanh(h) + v·tanh(m)"),
        (Self::Mlp, "mlp", "v·tanh(W_q h + W_m m + b)"),
        (Self::Dot, "dot", "(W_q h)·(W_k m) / sqrt(A)"),
    ];

    /// The name in words.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

impl<V, M> Score<V, M> {
    /// The form.
    pub fn kind(&self) -> ScoreKind {
        match self {
            Self::Additive { .. } => ScoreKind::Additive,
            Self::Mlp { .. } => ScoreKind::Mlp,
            Self::Dot { .. } => ScoreKind::Dot,
        }
    }

    /// References to the parameters.
    pub fn as_ref(&self) -> Score<&V, &M> {
        match self {
            Self::Additive { u, v } => Score::Additive { u, v },
            Self::Mlp { query, query_bias, memory, v } => {
                Score::Mlp { query, query_bias, memory, v }
            }
            Self::Dot { query, key } => Score::Dot { query, key },
        }
    }

    /// The same form with other parameters: vectors through one function, matrices through another.
    pub fn map_ranks<W, N>(
        self,
        mut vector: impl FnMut(V) -> W,
        mut matrix: impl FnMut(M) -> N,
    ) -> Score<W, N> {
        match self {
            Self::Additive { u, v } => Score::Additive { u: vector(u), v: vector(v) },
            Self::Mlp { query, query_bias, memory, v } => Score::Mlp {
                query: matrix(query),
                query_bias: vector(query_bias),
                memory: matrix(memory),
                v: vector(v),
            },
            Self::Dot { query, key } => Score::Dot { query: matrix(query), key: matrix(key) },
        }
    }
}

impl<P> Score<P> {
    /// The parameters, in the order of the fields.
    pub fn iter(&self) -> impl Iterator<Item = &P> {
        let parameters = match self {
            Self::Additive { u, v } => [Some(u), Some(v), None, None],
            Self::Mlp { query, query_bias, memory, v } => {
                [Some(query), Some(query_bias), Some(memory), Some(v)]
            }
            Self::Dot { query, key } => [Some(query), Some(key), None, None],
        };
        parameters.into_iter().flatten()
    }

    /// The parameters, to change, in the order of the fields.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut P> {
        let parameters = match self {
            Self::Additive { u, v } => [Some(u), Some(v), None, None],
            Self::Mlp { query, query_bias, memory, v } => {
                [Some(query), Some(query_bias), Some(memory), Some(v)]
            }
            Self::Dot { query, key } => [Some(query), Some(key), None, None],
        };
        parameters.into_iter().flatten()
    }

    /// The same form with other parameters, in the order of the fields.
    pub fn map<Q>(self, f: impl FnMut(P) -> Q) -> Score<Q> {
        let f = RefCell::new(f);
        let f = |parameter| f.borrow_mut()(parameter);
        self.map_ranks(f, f)
    }

    /// The names and parameters, in the order of the fields.
    pub fn named(self) -> Vec<(&'static str, P)> {
        match self {
            Self::Additive { u, v } => vec![("u", u), ("v", v)],
            Self::Mlp { query, query_bias, memory, v } => {
                vec![("query", query), ("query_bias", query_bias), ("memory", memory), ("v", v)]
            }
            Self::Dot { query, key } => vec![("query", query), ("key", key)],
        }
    }
}
