//! Sparse Attentive Backtracking (SAB; Ke et al., NeurIPS 2018) for the Burn framework: a recurrent
//! layer that stores its own past states as slots, retrieves a few of them at every step, and sends
//! gradient back only along those few retrievals and short truncation windows.
//!
//! [`SabLstm`] stands where a `burn::nn::Lstm` was. [`op`] is the operation underneath: one autodiff
//! node for a whole sequence, whatever its length.

mod error;
mod nn;
pub mod op;

pub use error::ConfigError;
pub use nn::{
    AdditiveScorer, DotScorer, MemoryLayers, MlpScorer, SabBiLstm, SabLstm, SabLstmConfig,
    SabLstmOutput, SabLstmStack, SabLstmStackConfig, SabLstmStackState, SabLstmStackStateRecord,
    SabLstmState, SabLstmStateRecord, ScoreConfig, Scorer, Segments, StackLayer, StateError,
};
#[cfg(feature = "safetensors")]
pub use nn::{TorchError, TorchWeights};
pub use op::{
    Activations, Coverage, InitialSlot, InputError, NotCovered, Recompute, SabSettings, ScoreKind,
    Setting, SettingValue, Sparsifier, Strategy, release_memory,
};

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
