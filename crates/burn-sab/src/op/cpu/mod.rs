//! The fused CPU kernel of the sequence op: its forward and backward pass over plain slices, in f32 or
//! f64.
//!
//! Rows of the batch are independent. The kernel splits the batch into tiles of rows, and one thread
//! runs the whole sequence of a tile. The state of a tile stays in the processor's second-level cache,
//! and threads never synchronise. The split depends on the batch size alone, and sums over tiles have a
//! fixed order. The number of threads therefore changes no bit of any result.
//!
//! - Forward: each step computes one matrix product `[1 | x_t | h_{t-1}] [bias; W_ih; W_hh]`, the gates,
//!   the scores, the best slots, and the retrieval. The product includes the input projection, so no
//!   `[B, T, 4H]` array is written. The key of a slot is computed once, when the slot is stored.
//! - Backward: a reverse sweep visits live rows only, and only retrieved slots have gradients. Weight
//!   gradients are sums over pairs of rows, which are collected and multiplied in blocks. The gates are
//!   either saved by the forward pass or recomputed, where a gradient arrives, from a few saved states
//!   ([`Recompute`](super::settings::Recompute)).
//!
//! | file | purpose |
//! | --- | --- |
//! | `forward` | the forward pass of a tile |
//! | `backward`, `tile`, `sweep` | the backward pass: the call, its tiles, and the reverse sweep over one tile |
//! | `call`, `saved` | the data that all tiles of a call share; the saved activations |
//! | `stream` | a memory that persists across calls |
//! | `schedule` | the steps at which slots are stored and truncation windows begin |
//! | `cell` | the LSTM cell, forward and backward |
//! | `score`, `score_backward` | queries, keys and scores, forward and backward |
//! | `coarse`, `rounded` | bounds on dot scores, which exclude most slots; products of rounded numbers |
//! | `index` | lists of slots, of which a step searches a few |
//! | `select`, `sparsify` | the highest scores, and the sparse weights computed from them |
//! | `replay` | gates and cell states for the backward pass, saved or recomputed |
//! | `slot_gradients`, `pairs` | gradients of slots; weight gradients as large products |
//! | `pool` | memory that later calls reuse |
//! | `matrix`, `vector`, `float` | matrix products, loops over rows, the two element types |
//!
//! If all hidden states are outputs ([`Readout::All`](super::options::Readout::All)), the kernel copies
//! no slot of this call. Slot j then *is* a row of the output `h`. Otherwise the slots are the output
//! `stored`, and no other array over all steps is wider than the retrievals.
//!
//! All arrays are dense and row-major, in the documented shapes. Weights are `[in, out]`, and gates are
//! in the order input, forget, candidate, output.

mod backward;
mod call;
mod cell;
mod coarse;
mod float;
mod forward;
mod index;
mod matrix;
mod pairs;
mod pool;
mod replay;
mod rounded;
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

/// The outputs of a call. `stored` is absent if all hidden states are outputs, because these then hold
/// the slots.
pub type Outputs<T> = super::tensors::SabOutputs<Vec<T>, Vec<T>, Vec<i32>>;

/// The gradients of the loss with respect to a call's outputs.
pub type UpGrads<'a, T> = super::tensors::Upstream<&'a [T]>;

/// The gradients of the loss with respect to the inputs that need one.
pub type Grads<T> = super::tensors::SabInputs<Option<Vec<T>>, Option<Vec<T>>, Option<Vec<T>>>;
