//! The sequence op in plain backend primitives: a forward pass and its hand-written backward pass
//! that run on every backend.

mod backward;
mod forward;
mod score;
mod sparsify;
mod tensor;

pub(crate) use backward::backward;
pub use forward::SavedSteps;
pub(crate) use forward::forward;
#[cfg(feature = "cube")]
pub(crate) use tensor::Prim;
