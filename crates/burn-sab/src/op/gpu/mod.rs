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
//! | `dense` | between kernels that give every step and calls that ask for some |
//! | `pass` | the two passes as a few products and launches |
//! | `pack` | parameters and states in one buffer |
//! | `call` | what both kernels over time are given |
//! | `forward`, `attend`, `slots` | the kernel over time: the cell, the retrieval, what is stored |
//! | `backward`, `flow`, `recall`, `replay` | its gradient: the sweep, what it carries, through a retrieval, through the cell |
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
mod dense;
mod flow;
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

use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeDevice;

use super::coverage::NotCovered;
use super::kernel::Kernel;
use super::options::SabOptions;
use super::tensors::{BackendInputs, BackendOutputs, Dims, Gradients, Needs, Upstream};
use launch::CubeLaunch;
use pass::SavedGpu;
use plan::Plan;

/// The GPU kernels.
#[derive(Debug)]
pub(crate) struct GpuKernels;

impl<B: CubeLaunch<Device = CubeDevice>> Kernel<B> for GpuKernels {
    const NAME: &'static str = "the GPU kernels";
    type Plan = Plan;
    type Saved = SavedGpu<B>;

    fn plan(
        inputs: &BackendInputs<B>,
        options: &SabOptions,
        keep: bool,
    ) -> Result<Plan, NotCovered> {
        plan::plan::<B>(inputs, options, keep)
    }

    fn forward(
        plan: Plan,
        inputs: &BackendInputs<B>,
        options: &SabOptions,
        _: bool,
    ) -> (BackendOutputs<B>, Option<SavedGpu<B>>) {
        let (outputs, saved) = pass::forward::<B>(inputs, plan);
        (dense::read_out::<B>(outputs, options), saved)
    }

    fn backward(
        inputs: &BackendInputs<B>,
        saved: SavedGpu<B>,
        upstream: Upstream<FloatTensor<B>>,
        options: &SabOptions,
        needs: &Needs,
    ) -> Gradients<B> {
        let Dims { batch, time, hidden, .. } = Dims::of::<B>(inputs, options);
        let upstream =
            dense::into_dense::<B>(upstream, options, [batch, time, hidden], &inputs.x);
        pass::backward::<B>(inputs, saved, upstream, needs)
    }
}
