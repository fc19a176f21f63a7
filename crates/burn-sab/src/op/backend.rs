//! The op as a backend extension: which backend has which kernel.

// NdArray and LibTorch are deprecated in Burn 0.22; users are still on them.
#![allow(deprecated)]

use burn::backend::{Backend, backend_extension};

use super::coverage::Coverage;
use super::kernel::KernelBackend;
use super::options::SabOptions;
use super::route;
use super::stream::{SlotMemory, StepOf};
use super::tensors::{InputsOf, OutputsOf};

/// The op, dispatched at run time to the backend that holds the tensors.
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Remote: cfg(feature = "remote"),
    Autodiff: cfg(feature = "autodiff"),
)]
pub(crate) trait SabBackend: Backend {
    /// Runs the sequence; see [`sab_sequence`](super::sab_sequence).
    #[allow(unused_variables)] // in a build without any backend
    fn sab_sequence(
        #[extension_type] inputs: InputsOf<Self>,
        options: SabOptions,
    ) -> OutputsOf<Self>;

    /// Runs one step; see [`sab_step`](super::sab_step).
    #[allow(unused_variables)] // in a build without any backend
    fn sab_step(
        #[extension_type] inputs: InputsOf<Self>,
        memory: SlotMemory,
        options: SabOptions,
    ) -> StepOf<Self>;

    /// Whether the backend's own kernel covers a call.
    #[allow(unused_variables)] // in a build without any backend
    fn sab_coverage(#[extension_type] inputs: InputsOf<Self>, options: SabOptions) -> Coverage;
}

/// Implements the op for a backend with this kernel.
macro_rules! backend {
    ($backend:ident, $kernel:ty) => {
        impl KernelBackend for burn::backend::$backend {
            type Own = $kernel;
        }

        impl SabBackend for burn::backend::$backend {
            fn sab_sequence(inputs: InputsOf<Self>, options: SabOptions) -> OutputsOf<Self> {
                OutputsOf(route::forward::<Self>(&inputs.0, &options))
            }

            fn sab_step(
                inputs: InputsOf<Self>,
                memory: SlotMemory,
                options: SabOptions,
            ) -> StepOf<Self> {
                StepOf(route::step::<Self>(inputs.0, memory, &options))
            }

            fn sab_coverage(inputs: InputsOf<Self>, options: SabOptions) -> Coverage {
                route::coverage::<Self>(&inputs.0, &options, false)
            }
        }
    };
}

#[cfg(feature = "flex")]
backend!(Flex, super::host::CpuKernel);
#[cfg(feature = "ndarray")]
backend!(NdArray, super::host::CpuKernel);
// `Cube` is every CubeCL runtime, under Burn's fusion or not: the alias says which.
#[cfg(feature = "cube")]
backend!(Cube, super::gpu::GpuKernels);
#[cfg(feature = "tch")]
backend!(LibTorch, super::kernel::NoKernel);
#[cfg(feature = "remote")]
backend!(Remote, super::remote::RemoteKernel);
