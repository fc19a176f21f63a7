//! The fused CPU kernel of the sequence op, over plain slices; f32 and f64.
//!
//! Rows of the batch are independent, so the batch is cut into tiles of rows, and each tile runs
//! the whole sequence on one thread: all state of a tile stays in the processor's second-level
//! cache, and threads never meet. The cut depends on the batch alone and sums over tiles have a
//! fixed order: the number of threads changes no bit of any result.
//!
//! - Forward: per step one matrix product `[1 | x_t | h_{t-1}] [bias; W_ih; W_hh]` (the input
//!   projection rides along, so that no `[B, T, 4H]` array is ever written), gates, scores from
//!   keys that were computed once when their slot was stored, the best few, retrieval.
//! - Backward: a reverse sweep over live rows only; gradients of slots exist only where something
//!   was retrieved. Weight gradients are sums over pairs of rows, which are collected and
//!   multiplied in blocks. Gates are either saved by the forward pass or recomputed, from a few states on, where
//!   gradient comes by ([`Recompute`](super::settings::Recompute)).
//!
//! | file | purpose |
//! | --- | --- |
//! | `forward` | the forward pass of a tile |
//! | `backward`, `tile`, `sweep` | the backward pass: the call, its tiles, and the reverse sweep over one |
//! | `call`, `saved` | what every tile of a call shares; the saved activations |
//! | `stream` | a memory that is carried from call to call |
//! | `schedule` | when slots are stored and windows begin |
//! | `cell` | the LSTM cell, forward and backward |
//! | `score`, `score_backward` | queries, keys and scores, forward and backward |
//! | `select`, `sparsify` | the best scores of many, and the weights that follow from them |
//! | `replay` | gates and cell states for the backward pass, read back or recomputed |
//! | `slot_gradients`, `pairs` | gradients of slots; weight gradients as large products |
//! | `pool` | memory that goes from call to call |
//! | `matrix`, `vector`, `float` | matrix products, loops over rows, the two element types |
//!
//! Where all hidden states are given ([`Readout::All`](super::options::Readout::All)), slots that are stored during the call are never
//! copied: slot j *is* a row of the output `h`. Else they are the output `stored`, and no other array
//! over all steps is wider than the retrievals.
//! All arrays are dense, row after row, in the shapes given; weights are `[in, out]`, gates in the
//! order input, forget, candidate, output.

mod backward;
mod call;
mod cell;
mod float;
mod forward;
mod matrix;
mod pairs;
mod pool;
mod replay;
mod saved;
mod schedule;
mod score;
mod score_backward;
mod select;
mod slot_gradients;
mod sparsify;
mod stream;
mod sweep;
#[cfg(test)]
mod tests;
mod tile;
mod vector;

pub use backward::backward;
pub use call::Inputs;
pub use float::Float;
pub use forward::forward;
pub use pool::release;
pub use saved::Saved;
pub use stream::Stream;

/// The outputs of a call. `stored` is absent where all hidden states are given, which then hold the slots.
pub type Outputs<T> = super::tensors::SabOutputs<Vec<T>, Vec<T>, Vec<i32>>;

/// The gradients of the loss with respect to a call's outputs.
pub type UpGrads<'a, T> = super::tensors::Upstream<&'a [T]>;

/// The gradients of the loss with respect to the inputs that need one.
pub type Grads<T> = super::tensors::SabInputs<Option<Vec<T>>, Option<Vec<T>>, Option<Vec<T>>>;
