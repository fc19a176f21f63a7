//! Why a backend's kernel does not cover a call.

use std::mem::{Discriminant, discriminant};
use std::sync::Mutex;

use burn::tensor::DType;
use thiserror::Error;

/// Whether a backend's own kernel runs a call.
pub type Coverage = Result<(), NotCovered>;

/// The reason why a backend's kernel does not cover a call. [`Strategy::Auto`](crate::Strategy::Auto) then uses backend
/// primitives, which compute the same function more slowly. [`Strategy::Fused`](crate::Strategy::Fused) panics.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum NotCovered {
    /// The backend has no kernel.
    #[error("this backend has no kernel for the SAB sequence")]
    NoKernel,
    /// An option of the cell that only the reference covers.
    #[error("only the reference covers {option}")]
    Option {
        /// The option.
        option: &'static str,
    },
    /// A data type that the kernel does not compute in.
    #[error("the kernel computes in {supported}, not in {dtype:?}")]
    DataType {
        /// The data type.
        dtype: DType,
        /// Those that the kernel computes in.
        supported: &'static str,
    },
    /// A data type that the device does not compute in.
    #[error("the device does not compute in {dtype:?}")]
    DeviceDataType {
        /// The data type.
        dtype: DType,
    },
    /// Too few storage buffers.
    #[error("the device binds {available} storage buffers at a time and the kernels need {needed}")]
    Bindings {
        /// Buffers that the device binds.
        available: usize,
        /// Buffers that the kernels need.
        needed: usize,
    },
    /// Too many ranked slots per step.
    #[error("{ranks} slots decide a step; the kernels rank {most}")]
    Ranks {
        /// Slots that decide the weights of a step.
        ranks: usize,
        /// Most slots that the kernels rank.
        most: usize,
    },
    /// Too little shared memory.
    #[error(
        "H {hidden} and A {attention} take {needed} bytes of shared memory; the device has {available}"
    )]
    SharedMemory {
        /// H
        hidden: usize,
        /// A
        attention: usize,
        /// Bytes that the kernels need.
        needed: usize,
        /// Bytes that the device has.
        available: usize,
    },
    /// Too little shared memory for a limit on hops.
    #[error("max_hops at H {hidden}: shared memory is too small")]
    HopsSharedMemory {
        /// H
        hidden: usize,
    },
    /// Too large a batch.
    #[error("a batch of {batch} takes {cubes} cubes; the device starts {most} at a time")]
    Batch {
        /// B
        batch: usize,
        /// Cubes (workgroups) that it takes.
        cubes: usize,
        /// Most cubes of a launch.
        most: usize,
    },
    /// More loop iterations than Mesa's software Vulkan runs.
    #[error(
        "{iterations} iterations of loops; Mesa's software Vulkan ends a shader's loops after {most}"
    )]
    Iterations {
        /// Iterations of all loops of a kernel.
        iterations: usize,
        /// Most iterations.
        most: usize,
    },
    /// A buffer larger than the device allows.
    #[error(
        "a buffer of {bytes} bytes; the device allows {most}: take a shorter sequence or a smaller batch"
    )]
    Buffer {
        /// Bytes of the buffer.
        bytes: usize,
        /// Most bytes.
        most: u64,
    },
    /// A buffer of more elements than the kernels can count.
    #[error(
        "a buffer of {elements} elements; the kernels count to {most}: take a shorter sequence or a smaller batch"
    )]
    Elements {
        /// Elements of the buffer.
        elements: usize,
        /// Most elements.
        most: usize,
    },
    /// The server of a remote device does not have the operations of this crate, or is gone.
    #[error(
        "{device} ended the session when it was asked for its release of burn-sab ({reason}): either the server has \
         to register the operations, with burn_sab::op::register_ops, or the layer needs Strategy::Primitives; then \
         connect again"
    )]
    ServerSilent {
        /// The device.
        device: String,
        /// What Burn says.
        reason: String,
    },
    /// The server of a remote device has the operations of another release.
    #[error("the server runs burn-sab {server}, and this is {client}: build both with one release")]
    ServerRelease {
        /// The release of the server.
        server: String,
        /// The release of this program.
        client: String,
    },
    /// A call that the kernel of a server's backend does not cover.
    #[error("the kernel of the remote server does not cover the call; the server's log says why")]
    OnServer,
}

impl NotCovered {
    /// Logs the fall-back to backend primitives at level `warn`, once per process and kind of reason.
    pub(crate) fn warn_once(&self) {
        static SEEN: Mutex<Vec<Discriminant<NotCovered>>> = Mutex::new(Vec::new());
        let mut seen = SEEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !seen.contains(&discriminant(self)) {
            seen.push(discriminant(self));
            tracing::warn!("SAB sequences run on backend primitives, which are slower: {self}");
        }
    }
}
