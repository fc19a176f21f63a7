//! The GPU kernels of the sequence op, for every CubeCL runtime (wgpu, CUDA, ROCm, ...), with or without
//! Burn's fusion.
//!
//! Rows of the batch are independent, so one launch runs the whole sequence. A cube (workgroup) owns a
//! few rows, holds their state in shared memory and iterates over time. Its barriers synchronise its own
//! units (threads) only. Ordinary matrix products compute the input projection before the launch, and
//! the gradients of matrices after it. The number of launches does not depend on the sequence length.
//! The chapter "How the GPU kernels work" of the book has a picture.
//!
//! | file | purpose |
//! | --- | --- |
//! | `plan`, `variant` | whether the kernels cover a call, and the kernel variant that runs it |
//! | `layout` | the sizes that the kernels read, and the offsets in their buffers |
//! | `launch` | launch of a kernel, with and without fusion |
//! | `dense` | conversion between outputs of all steps and those of the given steps |
//! | `pass` | the forward and backward pass: a few products and launches |
//! | `pack` | copies of parameters and states in one buffer |
//! | `call` | the arguments that the two kernels over time share |
//! | `forward`, `attend`, `slots` | the forward kernel: the cell, the retrieval, the storage of slots |
//! | `backward`, `flow`, `recall`, `replay` | the backward kernel: its sweep, its state, the gradients of the retrieval and of the cell |
//! | `sums` | the f32 accumulators of the backward kernel |
//! | `schedule` | what the rows of a cube do at a step |
//! | `select` | sums and maxima over the units of a row |

// A condition on a `comptime!` value selects code at compile time. Combined with another condition, it
// would be evaluated by every unit at run time.
#![allow(clippy::collapsible_if)]
// CubeCL supports the arithmetic operators, but not the methods that clippy suggests.
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
mod schedule;
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
        let table = schedule::table(options, &plan.dims);
        let (outputs, saved) = pass::forward::<B>(inputs, plan, table);
        (dense::select_given::<B>(outputs, options), saved)
    }

    fn backward(
        inputs: &BackendInputs<B>,
        saved: SavedGpu<B>,
        upstream: Upstream<FloatTensor<B>>,
        options: &SabOptions,
        needs: &Needs,
    ) -> Gradients<B> {
        let dims = Dims::of::<B>(inputs, options);
        let upstream = dense::into_dense::<B>(upstream, options, &dims, &inputs.x);
        pass::backward::<B>(inputs, saved, upstream, needs)
    }
}
