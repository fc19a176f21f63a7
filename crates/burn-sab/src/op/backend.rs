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

/// The two passes on a plain backend, and a step of a stream. The default bodies run on any; a backend
/// with a kernel of its own overrides them.
pub trait SabKernel: Backend {
    /// Runs the sequence. Keeps what [`sab_backward`](Self::sab_backward) needs if `keep`.
    fn sab_forward(
        inputs: &SabInputs<Self>,
        options: &SabOptions,
        keep: bool,
    ) -> (SabOutputs<Self>, Option<Saved<Self>>) {
        assert!(
            options.strategy != Strategy::Fused,
            "Strategy::Fused: this backend has no kernel for the SAB sequence; use Strategy::Auto"
        );
        on_primitives(inputs, options, keep)
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
            #[cfg(any(feature = "flex", feature = "ndarray"))]
            Saved::Host(_) => unreachable!("made by the host backends, which override this"),
            #[cfg(feature = "cube")]
            Saved::Gpu(_) => unreachable!("made by the CubeCL backend, which overrides this"),
        }
    }

    /// Runs one step; a backend that has its own form of slots returns it.
    fn sab_stream(
        inputs: SabInputs<Self>,
        memory: SlotMemory,
        options: &SabOptions,
    ) -> StepOutputs<Self> {
        Self::sab_forward(&inputs.with_slots_of(&memory), options, false).0.into()
    }
}

/// The forward pass that runs on any backend.
fn on_primitives<B: Backend>(
    inputs: &SabInputs<B>,
    options: &SabOptions,
    keep: bool,
) -> (SabOutputs<B>, Option<Saved<B>>) {
    announce!("backend primitives");
    let (outputs, saved) = primitives::forward(inputs, options, keep);
    (outputs, saved.map(Saved::Primitives))
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
    fn sab_forward(
        inputs: &SabInputs<Self>,
        options: &SabOptions,
        keep: bool,
    ) -> (SabOutputs<Self>, Option<Saved<Self>>) {
        if options.strategy == Strategy::Primitives {
            return on_primitives(inputs, options, keep);
        }
        match gpu::plan(inputs, options, keep) {
            Ok(plan) => {
                announce!("the GPU kernels");
                let (outputs, saved) = gpu::forward(inputs, plan);
                (outputs.read_out(options), saved.map(Saved::Gpu))
            }
            Err(why) => {
                assert!(
                    options.strategy != Strategy::Fused,
                    "Strategy::Fused: {why}; Strategy::Auto runs on backend primitives instead"
                );
                on_primitives(inputs, options, keep)
            }
        }
    }

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
            Saved::Gpu(saved) => {
                let Dims { batch, time, hidden, .. } = Dims::of(inputs, options);
                let upstream = upstream.into_dense(options, [batch, time, hidden], &inputs.x);
                gpu::backward(inputs, saved, upstream, needs_x)
            }
            #[cfg(any(feature = "flex", feature = "ndarray"))]
            Saved::Host(_) => unreachable!("made by the host backends"),
        }
    }
});

macro_rules! host_backends {
    ($($feature:literal $backend:ident),*) => {
        backends!($($feature $backend {
            fn sab_forward(
                inputs: &SabInputs<Self>,
                options: &SabOptions,
                keep: bool,
            ) -> (SabOutputs<Self>, Option<Saved<Self>>) {
                let dtype = burn::backend::TensorMetadata::dtype(&inputs.x);
                let covered = host::covers(dtype);
                assert!(
                    covered || options.strategy != Strategy::Fused,
                    "Strategy::Fused: the CPU kernel computes in f32 and f64, not in {dtype:?}"
                );
                if covered && options.strategy != Strategy::Primitives {
                    announce!("the CPU kernel");
                    let (outputs, saved) = host::forward(inputs, options, keep);
                    (outputs, saved.map(Saved::Host))
                } else {
                    on_primitives(inputs, options, keep)
                }
            }

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
                    Saved::Host(saved) => host::backward(inputs, &saved, &upstream, options, needs_x),
                    #[cfg(feature = "cube")]
                    Saved::Gpu(_) => unreachable!("made by the CubeCL backend"),
                }
            }

            fn sab_stream(
                inputs: SabInputs<Self>,
                memory: SlotMemory,
                options: &SabOptions,
            ) -> StepOutputs<Self> {
                let dtype = burn::backend::TensorMetadata::dtype(&inputs.x);
                if host::covers(dtype) && options.strategy != Strategy::Primitives {
                    host::step(&inputs, memory, options)
                } else {
                    Self::sab_forward(&inputs.with_slots_of(&memory), options, false).0.into()
                }
            }
        }),*);
    };
}

host_backends!("flex" Flex, "ndarray" NdArray);
