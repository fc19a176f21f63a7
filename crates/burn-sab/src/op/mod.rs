//! The sequence op: a whole SAB-LSTM pass over time as one operation with one autodiff node.
//!
//! | file | purpose |
//! | --- | --- |
//! | `options` | what is computed, apart from the tensors |
//! | `reference` | the readable twin: ordinary tensor operations under Burn's own autodiff |
//! | `primitives` | forward and hand-written backward in backend primitives, for every backend |
//! | `cpu`, `host` | the fused CPU kernel over slices, and flex and ndarray on it |
//! | `dense` | between kernels that give every step and calls that ask for some |
//! | `gpu` | the kernels of every CubeCL runtime: wgpu, CUDA, ROCm |
//! | `autodiff` | the one node that ties the two into Burn's graph |
//! | `stream` | one step after another, with a memory in the backend's own form |
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
mod dense;
#[cfg(feature = "cube")]
mod gpu;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;
mod options;
mod primitives;
mod reference;
mod stream;

pub use backend::{SabBackend, SabKernel, Saved};
pub use options::{EPSILON, Readout, Recompute, SabOptions, Sparsifier, Strategy};
pub use reference::{Activations, Cell};
pub use stream::{SequenceStep, SlotMemory, StepOutputs};

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

impl<B: Backend> ScoreInputs<B> {
    /// The parameters, in the order of the fields.
    pub fn tensors(&self) -> Vec<&FloatTensor<B>> {
        match self {
            Self::Additive { u, v } => vec![u, v],
            Self::Mlp { query, query_bias, memory, v } => vec![query, query_bias, memory, v],
            Self::Dot { query, key } => vec![query, key],
        }
    }
}

/// What comes out of the op.
#[derive(Clone, Debug, ExtensionType)]
pub struct SabOutputs<B: Backend> {
    /// Hidden states h_t of the N steps of [`SabOptions::readout`], `[B, N, H]`.
    pub hidden: FloatTensor<B>,
    /// Hidden state after the last step, `[B, H]`.
    pub last: FloatTensor<B>,
    /// Cell state after the last step, `[B, H]`.
    pub cell: FloatTensor<B>,
    /// Slots that this call stored.
    #[extension_type]
    pub stored: StoredSlots<B>,
    /// What was retrieved, if [`SabOptions::reminders`] asks for it.
    #[extension_type]
    pub reminders: RetrievedSlots<B>,
}

/// Slots that a call stored.
#[derive(Clone, Debug, ExtensionType)]
pub enum StoredSlots<B: Backend> {
    /// None.
    None,
    /// `[B, M, H]`, oldest first.
    Some(FloatTensor<B>),
}

/// What was retrieved at the N steps of [`SabOptions::readout`].
#[derive(Clone, Debug, ExtensionType)]
pub enum RetrievedSlots<B: Backend> {
    /// Not asked for.
    None,
    /// With K = min(k_top, M).
    Some {
        /// Summaries s_t, `[B, N, H]`.
        summary: FloatTensor<B>,
        /// Retrieved slots, best first, `[B, N, K]`; unused places hold slot 0.
        slots: IntTensor<B>,
        /// Their weights, `[B, N, K]`; unused places hold 0. Carries no gradient.
        weights: FloatTensor<B>,
    },
}

/// Gradients of the tracked outputs; `None` where none arrived.
#[derive(Clone, Debug)]
pub struct UpstreamGrads<B: Backend> {
    /// Of [`SabOutputs::hidden`], `[B, N, H]`.
    pub hidden: Option<FloatTensor<B>>,
    /// Of the last hidden state, `[B, H]`.
    pub last: Option<FloatTensor<B>>,
    /// Of the last cell state, `[B, H]`.
    pub cell: Option<FloatTensor<B>>,
    /// Of the stored slots, `[B, M, H]`.
    pub stored: Option<FloatTensor<B>>,
    /// Of the summaries, `[B, N, H]`.
    pub summary: Option<FloatTensor<B>>,
}

impl<B: Backend> UpstreamGrads<B> {
    /// No gradient at all.
    pub fn none() -> Self {
        Self { hidden: None, last: None, cell: None, stored: None, summary: None }
    }

    /// Whether there is no gradient at all.
    pub fn is_none(&self) -> bool {
        let Self { hidden, last, cell, stored, summary } = self;
        [hidden, last, cell, stored, summary].into_iter().all(Option::is_none)
    }
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

    /// K, the places per step in [`RetrievedSlots`]; at least 1, as tensors have no empty sides.
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
    /// Hidden states h_t of the N steps of [`SabOptions::readout`], `[B, N, H]`.
    pub hidden: Tensor<3>,
    /// Hidden state after the last step, `[B, H]`.
    pub last: Tensor<2>,
    /// Cell state after the last step, `[B, H]`.
    pub cell: Tensor<2>,
    /// Slots that this call stored, oldest first, `[B, M, H]`.
    pub stored: Option<Tensor<3>>,
    /// What was retrieved, if [`SabOptions::reminders`] asks for it.
    pub reminders: Option<SequenceReminders>,
}

/// [`RetrievedSlots`] as user-level tensors.
#[derive(Clone, Debug)]
pub struct SequenceReminders {
    /// Summaries s_t, `[B, N, H]`.
    pub summary: Tensor<3>,
    /// Retrieved slots, best first, `[B, N, K]`; unused places hold slot 0.
    pub slots: Tensor<3, Int>,
    /// Their weights, `[B, N, K]`; unused places hold 0. Carries no gradient.
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
    let [_, time, _] = inputs.x.dims();
    options.readout.check(time);
    if options.strategy == Strategy::Reference {
        return sab_sequence_with_cell(inputs, options, &Cell::standard());
    }
    // A limit that no path can meet costs no lanes.
    let options = SabOptions { max_hops: options.binding_hops(time), ..options.clone() };
    let outputs = Dispatch::sab_sequence(inputs.into_dispatch(), options);
    SequenceOutputs {
        hidden: Tensor::from_dispatch(outputs.hidden),
        last: Tensor::from_dispatch(outputs.last),
        cell: Tensor::from_dispatch(outputs.cell),
        stored: outputs.stored.into_tensor(),
        reminders: match outputs.reminders {
            RetrievedSlots::None => None,
            RetrievedSlots::Some { summary, slots, weights } => Some(SequenceReminders {
                summary: Tensor::from_dispatch(summary),
                slots: Tensor::from_dispatch(slots),
                weights: Tensor::from_dispatch(weights),
            }),
        },
    }
}

/// Frees the memory that the CPU kernel holds for its next call, at most 64 MiB for each data type.
pub fn release_memory() {
    #[cfg(any(feature = "flex", feature = "ndarray"))]
    cpu::release();
}

/// Runs one step (`inputs.x` is `[B, 1, I]`) of a stream whose slots are in `memory`, or in `inputs` if
/// that is empty; without gradient, unless inputs require one.
pub fn sab_step(inputs: SequenceInputs, memory: SlotMemory, options: &SabOptions) -> SequenceStep {
    let options = SabOptions { max_hops: options.binding_hops(1), ..options.clone() };
    let outputs = Dispatch::sab_step(inputs.into_dispatch(), memory, options);
    SequenceStep {
        hidden: Tensor::from_dispatch(outputs.hidden),
        cell: Tensor::from_dispatch(outputs.cell),
        stored: outputs.stored.into_tensor(),
        memory: outputs.memory,
    }
}

impl StoredSlots<Dispatch> {
    fn into_tensor(self) -> Option<Tensor<3>> {
        match self {
            Self::None => None,
            Self::Some(slots) => Some(Tensor::from_dispatch(slots)),
        }
    }
}

impl SequenceInputs {
    fn into_dispatch(self) -> SabInputs<Dispatch> {
        let carried = self.slots.as_ref().map_or(0, |slots| slots.dims()[1]);
        SabInputs {
            slots: match self.slots {
                Some(slots) if carried > 0 => slots.into_dispatch(),
                // Any tensor will do.
                _ => self.bias.clone().into_dispatch(),
            },
            carried,
            x: self.x.into_dispatch(),
            w_ih: self.w_ih.into_dispatch(),
            w_hh: self.w_hh.into_dispatch(),
            bias: self.bias.into_dispatch(),
            h0: self.h0.into_dispatch(),
            c0: self.c0.into_dispatch(),
            score: match self.score {
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
        }
    }
}
