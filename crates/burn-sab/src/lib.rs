//! Sparse Attentive Backtracking (SAB; Ke et al., NeurIPS 2018) for the Burn framework: a recurrent layer
//! that stores its own past states as slots, retrieves a few of them at every step, and sends gradient back
//! only along those few retrievals and through short truncation windows.
//!
//! # A tour
//!
//! | you want | start at |
//! | --- | --- |
//! | the layer: equations, shapes, settings, an example | [`SabLstm`] |
//! | to configure it | [`SabLstmConfig`], [`SabSettings`], [`ScoreConfig`] |
//! | several layers | [`SabLstmStack`], made by [`SabLstmStackConfig`] |
//! | both directions | [`SabBiLstm`], made by [`SabLstmConfig::init_bidirectional`] |
//! | padding and resets | [`SabLstm::forward_padded`], [`Segments`] |
//! | a loss on few steps of a long sequence | [`SabLstm::forward_at`] |
//! | a stream, step by step | [`SabLstm::step`] |
//! | to carry, regroup or save a session | [`SabLstmState`] |
//! | to see what was retrieved | [`SabLstmOutput`] |
//! | to know which implementation runs a call | [`SabLstm::coverage`], [`NotCovered`], [`Strategy`] |
//! | weights of PyTorch | `TorchWeights`, with the feature `safetensors` |
//! | the operation underneath | [`op`] |
//!
//! A trained `burn::nn::Lstm` becomes a layer by `SabLstm::from(lstm)`, and a layer an `Lstm` by `Lstm::from(sab)`.
//!
//! # Features
//!
//! `autodiff` is the default. `flex` and `ndarray` are CPU backends with a kernel; `wgpu`, `cuda` and `rocm` are GPU
//! backends with kernels, and `fusion` is Burn's fusion on them. `safetensors` and `pytorch` read weights.
//!
//! # Training
//!
//! ```
//! # #[cfg(all(feature = "flex", feature = "autodiff"))] {
//! use burn::tensor::{Device, Distribution, Tensor};
//! use burn_sab::SabLstmConfig;
//!
//! let device = Device::flex().autodiff();
//! let layer = SabLstmConfig::new(10, 16, true).init(&device);
//! let x = Tensor::<3>::random([4, 40, 10], Distribution::Default, &device).require_grad();
//! let (hidden, _) = layer.forward(x.clone(), None);
//! let gradients = hidden.slice([0..4, 39..40]).sum().backward();
//! // Windows have ten steps; reminders bring gradient to the first step all the same.
//! let first = x.grad(&gradients).unwrap().slice([0..4, 0..1]);
//! assert!(first.abs().max().into_scalar::<f32>() > 0.0);
//! # }
//! ```

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

/// Compiles the README's examples.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
