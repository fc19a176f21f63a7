//! Sparse Attentive Backtracking (SAB; Ke et al., NeurIPS 2018) for the Burn framework: a recurrent layer that
//! learns dependencies over hundreds of steps with truncated backpropagation.
//!
//! The layer stores its hidden state every few steps as a *slot*. Each step retrieves a few slots and adds them to
//! its own state. Gradient flows back through short truncation windows. Along a retrieved slot it also reaches the
//! window in which the slot was stored.
//!
//! # A tour
//!
//! | you want | start at |
//! | --- | --- |
//! | the layer: equations, shapes, settings, an example | [`SabLstm`] |
//! | to configure the layer | [`SabLstmConfig`], [`SabSettings`], [`ScoreConfig`] |
//! | several layers | [`SabLstmStack`], made by [`SabLstmStackConfig`] |
//! | both directions | [`SabBiLstm`], made by [`SabLstmConfig::init_bidirectional`] |
//! | rows of different lengths, resets | [`SabLstm::forward_padded`], [`Segments`] |
//! | a loss on few steps of a long sequence | [`SabLstm::forward_at`] |
//! | a stream, step by step | [`SabLstm::step`] |
//! | to carry, regroup or save a state | [`SabLstmState`] |
//! | to see which slots were retrieved | [`SabLstmOutput`] |
//! | to find out which implementation runs a call | [`SabLstm::coverage`], [`NotCovered`], [`Strategy`] |
//! | weights of PyTorch | `TorchWeights`, with the feature `safetensors` |
//! | the operation underneath | [`op`] |
//!
//! `SabLstm::from(lstm)` converts a trained `burn::nn::Lstm` into a layer, and `Lstm::from(sab)` converts it back.
//!
//! # Features
//!
//! | feature | |
//! | --- | --- |
//! | `autodiff` (default) | training |
//! | `flex`, `ndarray` | CPU backends, with a kernel of this crate |
//! | `wgpu`, `vulkan`, `metal`, `webgpu`, `cuda`, `rocm` | GPU backends, with kernels of this crate; never run on a GPU |
//! | `fusion` | Burn's operation fusion on the GPU backends |
//! | `cpu` | CubeCL on a CPU, with the same kernels; never run |
//! | `tch` | LibTorch, by backend primitives; never run |
//! | `remote`, `remote-websocket` | devices of another machine: a pass is one message, which the server's kernel runs |
//! | `remote-server` | `op::register_ops`, for such a server |
//! | `safetensors`, `pytorch` | weights of PyTorch from files; `pytorch` also reads those of `torch.save` |
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
//! // Windows have twenty steps; reminders bring gradient to the first step all the same.
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
