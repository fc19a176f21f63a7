//! Which kernel runs a call: the backend's own where it covers the call, else backend primitives.

use std::sync::Mutex;

use super::coverage::Coverage;
use super::kernel::{Kernel, KernelBackend};
use super::options::SabOptions;
use super::primitives::Primitives;
use super::settings::Strategy;
use super::stream::{BackendStep, SlotMemory};
use super::tensors::{BackendInputs, BackendOutputs};

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
