//! The parameters of the score functions: additive, mlp and dot.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};

use super::config::ScoreConfig;
use crate::op::Score;

/// The trainable parameters of the score. Weights are `[in, out]`, as in Burn.
#[derive(Module, Debug)]
pub enum Scorer {
    /// See [`ScoreConfig::Additive`].
    Additive(AdditiveScorer),
    /// See [`ScoreConfig::Mlp`].
    Mlp(MlpScorer),
    /// See [`ScoreConfig::Dot`].
    Dot(DotScorer),
}

/// Additive score: `u·tanh(h) + v·tanh(m)`.
#[derive(Module, Debug)]
pub struct AdditiveScorer {
    /// `[H]`
    pub u: Param<Tensor<1>>,
    /// `[H]`
    pub v: Param<Tensor<1>>,
}

/// Mlp score: `v·tanh(h W_q + b + m W_m)`.
#[derive(Module, Debug)]
pub struct MlpScorer {
    /// W_q, `[H, A]`
    pub query: Param<Tensor<2>>,
    /// b, `[A]`
    pub query_bias: Param<Tensor<1>>,
    /// W_m, `[H, A]`
    pub memory: Param<Tensor<2>>,
    /// `[A]`
    pub v: Param<Tensor<1>>,
}

/// Dot score: `(h W_q)·(m W_k) / sqrt(A)`.
#[derive(Module, Debug)]
pub struct DotScorer {
    /// W_q, `[H, A]`
    pub query: Param<Tensor<2>>,
    /// W_k, `[H, A]`
    pub key: Param<Tensor<2>>,
}

impl Scorer {
    /// Draws the parameters from `gain · U(±1/sqrt(fan_in))`. A gain of 1 is the initialisation of
    /// `torch.nn.Linear`.
    pub(super) fn new(score: ScoreConfig, gain: f64, hidden: usize, device: &Device) -> Self {
        // Burn's Kaiming bound is gain * sqrt(3 / fan_in).
        let uniform = Initializer::KaimingUniform { gain: gain / 3f64.sqrt(), fan_out_only: false };
        let vector =
            |size: usize, fan_in: usize| uniform.init_with([size], Some(fan_in), None, device);
        let matrix = |size: usize| uniform.init_with([hidden, size], Some(hidden), None, device);
        match score {
            ScoreConfig::Additive => Self::Additive(AdditiveScorer {
                u: vector(hidden, hidden),
                v: vector(hidden, hidden),
            }),
            ScoreConfig::Mlp { d_attention: size } => Self::Mlp(MlpScorer {
                query: matrix(size),
                query_bias: vector(size, hidden),
                memory: matrix(size),
                v: vector(size, size),
            }),
            ScoreConfig::Dot { d_attention: size } => {
                Self::Dot(DotScorer { query: matrix(size), key: matrix(size) })
            }
        }
    }

    /// The configuration of this score.
    pub fn config(&self) -> ScoreConfig {
        match self {
            Self::Additive(_) => ScoreConfig::Additive,
            Self::Mlp(scorer) => ScoreConfig::Mlp { d_attention: scorer.query.shape()[1] },
            Self::Dot(scorer) => ScoreConfig::Dot { d_attention: scorer.query.shape()[1] },
        }
    }

    /// The parameters in the form that the op accepts for every score.
    pub fn parameters(&self) -> Score<&Param<Tensor<1>>, &Param<Tensor<2>>> {
        match self {
            Self::Additive(AdditiveScorer { u, v }) => Score::Additive { u, v },
            Self::Mlp(MlpScorer { query, query_bias, memory, v }) => {
                Score::Mlp { query, query_bias, memory, v }
            }
            Self::Dot(DotScorer { query, key }) => Score::Dot { query, key },
        }
    }
}
