//! Which backend runs what.

// NdArray and LibTorch are deprecated in Burn 0.22; users are still on them.
#![allow(deprecated)]

use burn::backend::{Backend, backend_extension};

#[cfg(feature = "cube")]
use super::Dims;
#[cfg(feature = "cube")]
use super::gpu::{self, SavedGpu};
#[cfg(any(feature = "flex", feature = "ndarray"))]
use super::host::{self, SavedHost};
use super::primitives::{self, SavedSteps};
use super::stream::{SlotMemory, StepOutputs};
use super::{SabGrads, SabInputs, SabOptions, SabOutputs, Strategy, UpstreamGrads};

/// Tells a log which implementation runs, once per process and implementation.
macro_rules! announce {
    ($what:literal) => {{
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| tracing::debug!(concat!("SAB sequences run on ", $what)));
    }};
}

/// What a forward pass keeps for its backward pass.
#[derive(Clone, Debug)]
pub enum Saved<B: Backend> {
    /// Of the pass in backend primitives.
    Primitives(SavedSteps<B>),
    /// Of the CPU kernel.
    #[cfg(any(feature = "flex", feature = "ndarray"))]
    Host(SavedHost<B>),
    /// Of the GPU kernels.
    #[cfg(feature = "cube")]
    Gpu(SavedGpu<B>),
}

/// The two passes on a plain backend, and a step of a stream. A backend with a kernel of its own overrides
/// what begins with `own`; the rest runs that where it covers a call, and backend primitives elsewhere.
pub trait SabKernel: Backend {
    /// The backend's own forward pass, or why it does not cover the call. Keeps what
    /// [`own_backward`](Self::own_backward) needs if `keep`.
    #[allow(unused_variables)] // a backend without a kernel reads nothing
    fn own_forward(
        inputs: &SabInputs<Self>,
        options: &SabOptions,
        keep: bool,
    ) -> Result<(SabOutputs<Self>, Option<Saved<Self>>), String> {
        Err("this backend has no kernel for the SAB sequence".to_owned())
    }

    /// The backward pass of [`own_forward`](Self::own_forward).
    #[allow(unused_variables)] // a backend without a kernel reads nothing
    fn own_backward(
        inputs: &SabInputs<Self>,
        saved: Saved<Self>,
        upstream: UpstreamGrads<Self>,
        options: &SabOptions,
        needs_x: bool,
    ) -> SabGrads<Self> {
        unreachable!("a backend that keeps something of its own has this pass")
    }

    /// One step with a memory in the backend's own form; gives the memory back if it has none.
    #[allow(unused_variables)] // a backend without a kernel reads nothing
    fn own_step(
        inputs: &SabInputs<Self>,
        memory: SlotMemory,
        options: &SabOptions,
    ) -> Result<StepOutputs<Self>, SlotMemory> {
        Err(memory)
    }

    /// Runs the sequence. Keeps what [`sab_backward`](Self::sab_backward) needs if `keep`.
    fn sab_forward(
        inputs: &SabInputs<Self>,
        options: &SabOptions,
        keep: bool,
    ) -> (SabOutputs<Self>, Option<Saved<Self>>) {
        if options.strategy != Strategy::Primitives {
            match Self::own_forward(inputs, options, keep) {
                Ok(run) => return run,
                Err(why) => assert!(
                    options.strategy != Strategy::Fused,
                    "Strategy::Fused: {why}; Strategy::Auto runs on backend primitives instead"
                ),
            }
        }
        announce!("backend primitives");
        let (outputs, saved) = primitives::forward(inputs, options, keep);
        (outputs, saved.map(Saved::Primitives))
    }

    /// Gradients of the inputs from those of the outputs; that of `x` only if `needs_x`.
    fn sab_backward(
        inputs: &SabInputs<Self>,
        saved: Saved<Self>,
        upstream: UpstreamGrads<Self>,
        options: &SabOptions,
        needs_x: bool,
    ) -> SabGrads<Self> {
        match saved {
            Saved::Primitives(saved) => {
                primitives::backward(inputs, saved, upstream, options, needs_x)
            }
            #[allow(unreachable_patterns)] // in a build without any kernel
            own => Self::own_backward(inputs, own, upstream, options, needs_x),
        }
    }

    /// Runs one step; a backend that has its own form of slots returns it.
    fn sab_stream(
        inputs: SabInputs<Self>,
        memory: SlotMemory,
        options: &SabOptions,
    ) -> StepOutputs<Self> {
        let memory = match options.strategy {
            Strategy::Primitives => memory,
            _ => match Self::own_step(&inputs, memory, options) {
                Ok(outputs) => return outputs,
                Err(memory) => memory,
            },
        };
        Self::sab_forward(&inputs.with_slots_of(&memory), options, false).0.into()
    }
}

/// The public op, dispatched at run time to the backend that holds the tensors.
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Remote: cfg(feature = "remote"),
    Autodiff: cfg(feature = "autodiff"),
)]
pub trait SabBackend: Backend {
    /// Runs the sequence; see [`sab_sequence`](super::sab_sequence).
    #[allow(unused_variables)] // in a build without any backend
    fn sab_sequence(
        #[extension_type] inputs: SabInputs<Self>,
        options: SabOptions,
    ) -> SabOutputs<Self>;

    /// Runs one step; see [`sab_step`](super::sab_step).
    #[allow(unused_variables)] // in a build without any backend
    fn sab_step(
        #[extension_type] inputs: SabInputs<Self>,
        memory: SlotMemory,
        options: SabOptions,
    ) -> StepOutputs<Self>;
}

macro_rules! backends {
    ($($feature:literal $backend:ident $kernel:tt),* $(,)?) => {$(
        #[cfg(feature = $feature)]
        impl SabKernel for burn::backend::$backend $kernel

        #[cfg(feature = $feature)]
        impl SabBackend for burn::backend::$backend {
            fn sab_sequence(inputs: SabInputs<Self>, options: SabOptions) -> SabOutputs<Self> {
                Self::sab_forward(&inputs, &options, false).0
            }

            fn sab_step(
                inputs: SabInputs<Self>,
                memory: SlotMemory,
                options: SabOptions,
            ) -> StepOutputs<Self> {
                Self::sab_stream(inputs, memory, &options)
            }
        }
    )*};
}

backends!("tch" LibTorch {}, "remote" Remote {});

// `Cube` is every CubeCL runtime, under Burn's fusion or not: the alias says which.
backends!("cube" Cube {
    fn own_forward(
        inputs: &SabInputs<Self>,
        options: &SabOptions,
        keep: bool,
    ) -> Result<(SabOutputs<Self>, Option<Saved<Self>>), String> {
        let plan = gpu::plan(inputs, options, keep)?;
        announce!("the GPU kernels");
        let (outputs, saved) = gpu::forward(inputs, plan);
        Ok((outputs.read_out(options), saved.map(Saved::Gpu)))
    }

    fn own_backward(
        inputs: &SabInputs<Self>,
        saved: Saved<Self>,
        upstream: UpstreamGrads<Self>,
        options: &SabOptions,
        needs_x: bool,
    ) -> SabGrads<Self> {
        let Saved::Gpu(saved) = saved else { unreachable!("kept by the GPU kernels") };
        let Dims { batch, time, hidden, .. } = Dims::of(inputs, options);
        let upstream = upstream.into_dense(options, [batch, time, hidden], &inputs.x);
        gpu::backward(inputs, saved, upstream, needs_x)
    }
});

/// Whether the CPU kernel computes in the data type of the inputs.
#[cfg(any(feature = "flex", feature = "ndarray"))]
fn host_covers<B: Backend>(inputs: &SabInputs<B>) -> Result<(), String> {
    let dtype = burn::backend::TensorMetadata::dtype(&inputs.x);
    match host::covers(dtype) {
        true => Ok(()),
        false => Err(format!("the CPU kernel computes in F32 and F64, not in {dtype:?}")),
    }
}

macro_rules! host_backends {
    ($($feature:literal $backend:ident),*) => {
        backends!($($feature $backend {
            fn own_forward(
                inputs: &SabInputs<Self>,
                options: &SabOptions,
                keep: bool,
            ) -> Result<(SabOutputs<Self>, Option<Saved<Self>>), String> {
                host_covers::<Self>(inputs)?;
                announce!("the CPU kernel");
                let (outputs, saved) = host::forward(inputs, options, keep);
                Ok((outputs, saved.map(Saved::Host)))
            }

            fn own_backward(
                inputs: &SabInputs<Self>,
                saved: Saved<Self>,
                upstream: UpstreamGrads<Self>,
                options: &SabOptions,
                needs_x: bool,
            ) -> SabGrads<Self> {
                let Saved::Host(saved) = saved else { unreachable!("kept by the CPU kernel") };
                host::backward(inputs, &saved, &upstream, options, needs_x)
            }

            fn own_step(
                inputs: &SabInputs<Self>,
                memory: SlotMemory,
                options: &SabOptions,
            ) -> Result<StepOutputs<Self>, SlotMemory> {
                match host_covers::<Self>(inputs) {
                    Ok(()) => Ok(host::step(inputs, memory, options)),
                    Err(_) => Err(memory),
                }
            }
        }),*);
    };
}

host_backends!("flex" Flex, "ndarray" NdArray);
