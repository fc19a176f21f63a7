//! What a kernel is.

use std::convert::Infallible;
use std::fmt::Debug;

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use super::coverage::NotCovered;
use super::options::SabOptions;
use super::stream::{BackendStep, SlotMemory};
use super::tensors::{BackendInputs, BackendOutputs, Gradients, Needs, Upstream};

/// An implementation of both passes on backend `B`.
pub(crate) trait Kernel<B: Backend>: Debug + Send + 'static {
    /// Its name in a log.
    const NAME: &'static str;

    /// What is decided before a call begins.
    type Plan;

    /// Saved activations: what the forward pass saves for the backward pass.
    type Saved: Clone + Debug + Send + 'static;

    /// Plans a call whose forward pass saves activations if `keep`.
    ///
    /// # Errors
    ///
    /// Why the kernel does not cover the call.
    fn plan(
        inputs: &BackendInputs<B>,
        options: &SabOptions,
        keep: bool,
    ) -> Result<Self::Plan, NotCovered>;

    /// Runs the sequence; saves activations if the call was planned so.
    fn forward(
        plan: Self::Plan,
        inputs: &BackendInputs<B>,
        options: &SabOptions,
        keep: bool,
    ) -> (BackendOutputs<B>, Option<Self::Saved>);

    /// The gradients of the inputs that need one from those of the outputs.
    fn backward(
        inputs: &BackendInputs<B>,
        saved: Self::Saved,
        upstream: Upstream<FloatTensor<B>>,
        options: &SabOptions,
        needs: &Needs,
    ) -> Gradients<B>;

    /// Runs one step of a stream, without gradient. A kernel that keeps slots in a form of its own returns
    /// them so; others run an ordinary call.
    fn step(
        plan: Self::Plan,
        inputs: BackendInputs<B>,
        memory: SlotMemory,
        options: &SabOptions,
    ) -> BackendStep<B> {
        let inputs = memory.into_inputs::<B>(inputs);
        Self::forward(plan, &inputs, options, false).0.into()
    }
}

/// A backend with the kernel that is its own.
pub(crate) trait KernelBackend: Backend {
    /// The kernel; [`NoKernel`] where there is none.
    type Own: Kernel<Self>;
}

/// The kernel of a backend that has none: it covers no call.
#[derive(Debug)]
#[allow(dead_code)] // in a build whose backends all have a kernel
pub(crate) struct NoKernel;

impl<B: Backend> Kernel<B> for NoKernel {
    const NAME: &'static str = "no kernel";
    type Plan = Infallible;
    type Saved = Infallible;

    fn plan(_: &BackendInputs<B>, _: &SabOptions, _: bool) -> Result<Infallible, NotCovered> {
        Err(NotCovered::NoKernel)
    }

    fn forward(
        plan: Infallible,
        _: &BackendInputs<B>,
        _: &SabOptions,
        _: bool,
    ) -> (BackendOutputs<B>, Option<Infallible>) {
        match plan {}
    }

    fn backward(
        _: &BackendInputs<B>,
        saved: Infallible,
        _: Upstream<FloatTensor<B>>,
        _: &SabOptions,
        _: &Needs,
    ) -> Gradients<B> {
        match saved {}
    }
}
