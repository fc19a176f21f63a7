//! What a kernel is, and which one runs a call.

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Mutex;

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use super::coverage::{Coverage, NotCovered};
use super::options::SabOptions;
use super::primitives::Primitives;
use super::settings::Strategy;
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

/// Names in a log the implementation that runs, once per process and implementation.
fn announce(name: &'static str) {
    static SEEN: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut seen = SEEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !seen.contains(&name) {
        seen.push(name);
        tracing::debug!("SAB sequences run on {name}");
    }
}

/// The plan of the backend's own kernel, or `None` where backend primitives are to run the call.
///
/// # Panics
///
/// If [`Strategy::Fused`] is asked for and the kernel does not cover the call.
pub(crate) fn own_plan<B: KernelBackend>(
    inputs: &BackendInputs<B>,
    options: &SabOptions,
    keep: bool,
) -> Option<<B::Own as Kernel<B>>::Plan> {
    if options.settings.strategy == Strategy::Primitives {
        return None;
    }
    match B::Own::plan(inputs, options, keep) {
        Ok(plan) => {
            announce(B::Own::NAME);
            Some(plan)
        }
        Err(why) => {
            assert!(
                options.settings.strategy != Strategy::Fused,
                "Strategy::Fused: {why}; Strategy::Auto runs on backend primitives instead"
            );
            why.warn_once();
            None
        }
    }
}

/// Whether the backend's own kernel covers a call.
pub(crate) fn coverage<B: KernelBackend>(
    inputs: &BackendInputs<B>,
    options: &SabOptions,
    keep: bool,
) -> Coverage {
    B::Own::plan(inputs, options, keep).map(drop)
}

/// Runs the sequence without gradient.
pub(crate) fn forward<B: KernelBackend>(
    inputs: &BackendInputs<B>,
    options: &SabOptions,
) -> BackendOutputs<B> {
    match own_plan::<B>(inputs, options, false) {
        Some(plan) => B::Own::forward(plan, inputs, options, false).0,
        None => <Primitives as Kernel<B>>::forward((), inputs, options, false).0,
    }
}

/// Runs one step of a stream without gradient.
pub(crate) fn step<B: KernelBackend>(
    inputs: BackendInputs<B>,
    memory: SlotMemory,
    options: &SabOptions,
) -> BackendStep<B> {
    match own_plan::<B>(&inputs, options, false) {
        Some(plan) => B::Own::step(plan, inputs, memory, options),
        None => <Primitives as Kernel<B>>::step((), inputs, memory, options),
    }
}
