//! The GPU kernels, for every runtime of CubeCL (wgpu, CUDA, ROCm, ...), under Burn's fusion or not.
//!
//! Rows of the batch are independent, so one launch runs the whole sequence: a cube (workgroup) owns a few
//! rows, keeps their state in shared memory and loops over time, with barriers among its own units only.
//! The projection of the inputs before, and the gradients of matrices after, are ordinary products. The
//! number of launches does not depend on the length. The book, chapter "How the GPU kernels work", has a picture.
//!
//! | file | purpose |
//! | --- | --- |
//! | `plan` | which variant of the kernels a call gets, and the sizes they read |
//! | `launch` | how a kernel gets to the device, with and without fusion |
//! | `pack` | parameters and states in one buffer |
//! | `forward`, `backward` | the two kernels over time |
//! | `attend`, `recall` | the retrieval of a step, and its gradients |
//! | `select` | sums and maxima over the units of a row |
//! | `cell` | what both kernels compute |

// A condition on a `comptime!` value chooses code while a kernel is compiled. Joined with another one it
// would be asked by every unit.
#![allow(clippy::collapsible_if)]
// CubeCL knows arithmetic and not the methods that stand for it.
#![allow(clippy::manual_is_multiple_of)]

mod attend;
mod backward;
mod cell;
mod forward;
mod launch;
mod pack;
mod pass;
mod plan;
mod recall;
mod select;

pub(crate) use launch::CubeLaunch;
pub use pass::SavedGpu;
pub(crate) use pass::{backward, forward, plan};
