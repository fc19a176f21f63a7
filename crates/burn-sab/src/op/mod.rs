//! The sequence op: a whole SAB-LSTM pass over time as one operation with one autodiff node.
//!
//! | file | purpose |
//! | --- | --- |
//! | `options` | what is computed, apart from the tensors |
//! | `reference` | the readable twin: ordinary tensor operations under Burn's own autodiff |
//! | `primitives` | forward and hand-written backward in backend primitives, for every backend |
//! | `cpu`, `host` | the fused CPU kernel over slices, and flex and ndarray on it |
//! | `gpu` | the kernels of every CubeCL runtime: wgpu, CUDA, ROCm |
//! | `autodiff` | the one node that ties the two into Burn's graph |
//! | `backend` | which backend runs what |
//!
//! Shapes: B batch, T steps, I inputs, H units, A attention size, M slots. Gate order i, f, g, o.
//! Time and memory of a call: O(T (H (I + H) + M A)) and O(T H + M (H + A)) numbers per row.

#[cfg(feature = "autodiff")]
mod autodiff;
mod backend;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod cpu;
#[cfg(feature = "cube")]
mod gpu;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;
mod options;
mod primitives;
mod reference;

pub use backend::{SabBackend, SabKernel, Saved};
pub use options::{EPSILON, SabOptions, Sparsifier, Strategy};
pub use reference::{Activations, Cell};

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, ExtensionType, TensorMetadata};
use burn::tensor::{Int, Tensor};

/// The tensors that go into the op.
#[derive(Clone, Debug, ExtensionType)]
pub struct SabInputs<B: Backend> {
    /// Inputs, `[B, T, I]`.
    pub x: FloatTensor<B>,
    /// Input weights, `[I, 4H]`.
    pub w_ih: FloatTensor<B>,
    /// Recurrent weights, `[H, 4H]`.
    pub w_hh: FloatTensor<B>,
    /// Bias of the gates, `[4H]`.
    pub bias: FloatTensor<B>,
    /// Hidden state before the first step, `[B, H]`.
    pub h0: FloatTensor<B>,
    /// Cell state before the first step, `[B, H]`.
    pub c0: FloatTensor<B>,
    /// Slots stored before this call, `[B, M0, H]`; any tensor if `carried` is 0.
    pub slots: FloatTensor<B>,
    /// M0, the number of slots stored before this call.
    pub carried: usize,
    /// Parameters of the score.
    #[extension_type]
    pub score: ScoreInputs<B>,
}

/// Parameters of the score (specification, step 3), weights as `[in, out]`.
#[derive(Clone, Debug, ExtensionType)]
pub enum ScoreInputs<B: Backend> {
    /// `u·tanh(h) + v·tanh(m)`.
    Additive {
        /// `[H]`
        u: FloatTensor<B>,
        /// `[H]`
        v: FloatTensor<B>,
    },
    /// `v·tanh(h W_q + b + m W_m)`.
    Mlp {
        /// W_q, `[H, A]`
        query: FloatTensor<B>,
        /// b, `[A]`
        query_bias: FloatTensor<B>,
        /// W_m, `[H, A]`
        memory: FloatTensor<B>,
        /// `[A]`
        v: FloatTensor<B>,
    },
    /// `(h W_q)·(m W_k) / sqrt(A)`.
    Dot {
        /// W_q, `[H, A]`
        query: FloatTensor<B>,
        /// W_k, `[H, A]`
        key: FloatTensor<B>,
    },
}

/// What comes out of the op.
#[derive(Clone, Debug, ExtensionType)]
pub struct SabOutputs<B: Backend> {
    /// Hidden states h_t, `[B, T, H]`.
    pub hidden: FloatTensor<B>,
    /// Summaries s_t, `[B, T, H]`.
    pub summary: FloatTensor<B>,
    /// Cell state after the last step, `[B, H]`.
    pub cell: FloatTensor<B>,
    /// Retrieved slots, best first, `[B, T, K]` with K = min(k_top, M); unused places hold slot 0.
    pub slots: IntTensor<B>,
    /// Their weights, `[B, T, K]`; unused places hold 0. Carries no gradient.
    pub weights: FloatTensor<B>,
}

/// Gradients of the tracked outputs; `None` where none arrived.
#[derive(Clone, Debug)]
pub struct UpstreamGrads<B: Backend> {
    /// Of the hidden states, `[B, T, H]`.
    pub hidden: Option<FloatTensor<B>>,
    /// Of the summaries, `[B, T, H]`.
    pub summary: Option<FloatTensor<B>>,
    /// Of the last cell state, `[B, H]`.
    pub cell: Option<FloatTensor<B>>,
}

/// Gradients of the inputs, shaped like them.
#[derive(Clone, Debug)]
pub struct SabGrads<B: Backend> {
    /// Of `x`, if it was asked for.
    pub x: Option<FloatTensor<B>>,
    /// Of `w_ih`.
    pub w_ih: FloatTensor<B>,
    /// Of `w_hh`.
    pub w_hh: FloatTensor<B>,
    /// Of `bias`.
    pub bias: FloatTensor<B>,
    /// Of `h0`.
    pub h0: FloatTensor<B>,
    /// Of `c0`.
    pub c0: FloatTensor<B>,
    /// Of the carried slots, if there are any.
    pub slots: Option<FloatTensor<B>>,
    /// Of the score's parameters, in the order of [`ScoreInputs`].
    pub score: Vec<FloatTensor<B>>,
}

/// The sizes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// B
    pub batch: usize,
    /// T
    pub time: usize,
    /// I
    pub input: usize,
    /// H
    pub hidden: usize,
    /// Slots at the end of the call, carried ones included.
    pub total_slots: usize,
}

impl Dims {
    /// Reads the sizes off the inputs.
    pub fn of<B: Backend>(inputs: &SabInputs<B>, options: &SabOptions) -> Self {
        let [batch, time, input] = inputs.x.shape().dims();
        let [_, hidden] = inputs.h0.shape().dims();
        Self {
            batch,
            time,
            input,
            hidden,
            total_slots: inputs.carried + options.slots_stored(time),
        }
    }

    /// K, the places per step in [`SabOutputs::slots`]; at least 1, as tensors have no empty sides.
    pub fn width(&self, options: &SabOptions) -> usize {
        options.k_top.min(self.total_slots).max(1)
    }
}

/// [`SabInputs`] as user-level tensors.
#[derive(Clone, Debug)]
pub struct SequenceInputs {
    /// Inputs, `[B, T, I]`.
    pub x: Tensor<3>,
    /// Input weights, `[I, 4H]`.
    pub w_ih: Tensor<2>,
    /// Recurrent weights, `[H, 4H]`.
    pub w_hh: Tensor<2>,
    /// Bias of the gates, `[4H]`.
    pub bias: Tensor<1>,
    /// Hidden state before the first step, `[B, H]`.
    pub h0: Tensor<2>,
    /// Cell state before the first step, `[B, H]`.
    pub c0: Tensor<2>,
    /// Slots stored before this call, `[B, M0, H]`.
    pub slots: Option<Tensor<3>>,
    /// Parameters of the score.
    pub score: ScoreTensors,
}

/// [`ScoreInputs`] as user-level tensors.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one value a call: nothing is gained by boxing
pub enum ScoreTensors {
    /// `u·tanh(h) + v·tanh(m)`.
    Additive {
        /// `[H]`
        u: Tensor<1>,
        /// `[H]`
        v: Tensor<1>,
    },
    /// `v·tanh(h W_q + b + m W_m)`.
    Mlp {
        /// W_q, `[H, A]`
        query: Tensor<2>,
        /// b, `[A]`
        query_bias: Tensor<1>,
        /// W_m, `[H, A]`
        memory: Tensor<2>,
        /// `[A]`
        v: Tensor<1>,
    },
    /// `(h W_q)·(m W_k) / sqrt(A)`.
    Dot {
        /// W_q, `[H, A]`
        query: Tensor<2>,
        /// W_k, `[H, A]`
        key: Tensor<2>,
    },
}

/// [`SabOutputs`] as user-level tensors.
#[derive(Clone, Debug)]
pub struct SequenceOutputs {
    /// Hidden states h_t, `[B, T, H]`.
    pub hidden: Tensor<3>,
    /// Summaries s_t, `[B, T, H]`.
    pub summary: Tensor<3>,
    /// Cell state after the last step, `[B, H]`.
    pub cell: Tensor<2>,
    /// Retrieved slots, best first, `[B, T, K]`; unused places hold slot 0.
    pub slots: Tensor<3, Int>,
    /// Their weights, `[B, T, K]`; unused places hold 0. Carries no gradient.
    pub weights: Tensor<3>,
}

/// Runs the readable twin, whose cell may be any.
pub fn sab_sequence_with_cell(
    inputs: SequenceInputs,
    options: &SabOptions,
    cell: &Cell,
) -> SequenceOutputs {
    reference::sab_sequence(inputs, options, cell)
}

/// Runs a standard cell over the sequence with one autodiff node, whatever T is; for
/// [`Strategy::Reference`] runs the readable twin.
///
/// # Panics
///
/// If the tensors live on a backend that this crate was not built for (its cargo feature is off), or
/// if [`Strategy::Fused`] is asked of a backend without a kernel.
pub fn sab_sequence(inputs: SequenceInputs, options: &SabOptions) -> SequenceOutputs {
    if options.strategy == Strategy::Reference {
        return sab_sequence_with_cell(inputs, options, &Cell::standard());
    }
    let [_, time, _] = inputs.x.dims();
    // A limit that no path can meet costs no lanes.
    let options = SabOptions { max_hops: options.binding_hops(time), ..*options };
    let carried = inputs.slots.as_ref().map_or(0, |slots| slots.dims()[1]);
    let inputs = SabInputs::<Dispatch> {
        slots: match inputs.slots {
            Some(slots) if carried > 0 => slots.into_dispatch(),
            _ => Tensor::<3>::zeros([1, 1, 1], (&inputs.x.device(), inputs.x.dtype()))
                .into_dispatch(),
        },
        carried,
        x: inputs.x.into_dispatch(),
        w_ih: inputs.w_ih.into_dispatch(),
        w_hh: inputs.w_hh.into_dispatch(),
        bias: inputs.bias.into_dispatch(),
        h0: inputs.h0.into_dispatch(),
        c0: inputs.c0.into_dispatch(),
        score: match inputs.score {
            ScoreTensors::Additive { u, v } => {
                ScoreInputs::Additive { u: u.into_dispatch(), v: v.into_dispatch() }
            }
            ScoreTensors::Mlp { query, query_bias, memory, v } => ScoreInputs::Mlp {
                query: query.into_dispatch(),
                query_bias: query_bias.into_dispatch(),
                memory: memory.into_dispatch(),
                v: v.into_dispatch(),
            },
            ScoreTensors::Dot { query, key } => {
                ScoreInputs::Dot { query: query.into_dispatch(), key: key.into_dispatch() }
            }
        },
    };
    let outputs = Dispatch::sab_sequence(inputs, options);
    SequenceOutputs {
        hidden: Tensor::from_dispatch(outputs.hidden),
        summary: Tensor::from_dispatch(outputs.summary),
        cell: Tensor::from_dispatch(outputs.cell),
        slots: Tensor::from_dispatch(outputs.slots),
        weights: Tensor::from_dispatch(outputs.weights),
    }
}
