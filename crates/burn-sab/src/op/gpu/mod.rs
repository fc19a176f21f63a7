//! The GPU kernels, for every runtime of CubeCL (wgpu, CUDA, ROCm, ...), under Burn's fusion or not.
//!
//! Rows of the batch are independent, so one launch runs the whole sequence: a cube (workgroup) owns a few
//! rows, keeps their state in shared memory and loops over time, with barriers among its own units only.
//! The projection of the inputs before, and the gradients of matrices after, are ordinary products. The
//! number of launches does not depend on the length. The book, chapter "How the GPU kernels work", has a picture.
//!
//! | file | purpose |
//! | --- | --- |
//! | `plan`, `variant` | whether the kernels cover a call, and which variant of them it gets |
//! | `layout` | the sizes that the kernels read, and where everything lies |
//! | `launch` | how a kernel gets to the device, with and without fusion |
//! | `pass` | the two passes as a few products and launches |
//! | `pack` | parameters and states in one buffer |
//! | `call` | what both kernels over time are given |
//! | `forward`, `attend`, `slots` | the kernel over time: the cell, the retrieval, what is stored |
//! | `backward`, `recall`, `replay` | its gradient: the sweep, through a retrieval, through the cell |
//! | `sums` | what backward adds up |
//! | `select` | sums and maxima over the units of a row |

// A condition on a `comptime!` value chooses code while a kernel is compiled. Joined with another one it
// would be asked by every unit.
#![allow(clippy::collapsible_if)]
// CubeCL knows arithmetic and not the methods that stand for it.
#![allow(clippy::manual_is_multiple_of)]

mod attend;
mod backward;
mod call;
mod forward;
mod launch;
mod layout;
mod pack;
mod pass;
mod plan;
mod recall;
mod replay;
mod select;
mod slots;
mod sums;
#[cfg(test)]
mod tests;
mod variant;

pub(crate) use launch::CubeLaunch;
pub use pass::SavedGpu;
pub(crate) use pass::{backward, forward};
pub(crate) use plan::plan;
