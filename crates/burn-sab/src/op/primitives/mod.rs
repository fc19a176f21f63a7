//! The sequence op in plain backend primitives: a forward pass and a hand-written backward pass for
//! every backend.

mod backward;
mod forward;
mod score;
mod sparsify;

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use super::coverage::NotCovered;
use super::kernel::Kernel;
use super::options::SabOptions;
use super::prim::Prim;
use super::tensors::{BackendInputs, BackendOutputs, Gradients, Needs, Upstream};
use forward::SavedSteps;

/// Returns the summary, `[.., h]`, times its factors: those that are learned, or the constant.
fn gained<B: Backend, const D: usize>(
    summary: Prim<B>,
    inputs: &BackendInputs<B>,
    options: &SabOptions,
) -> Prim<B> {
    match &inputs.summary_gain {
        None => summary.scaled(options.settings.summary_scale),
        Some(gain) => {
            let mut dims = [1; D];
            dims[D - 1] = summary.dims::<D>()[D - 1];
            summary * Prim(gain.clone()).reshape(dims)
        }
    }
}

/// The op in backend primitives, as a kernel that covers every call.
#[derive(Debug)]
pub(crate) struct Primitives;

impl<B: Backend> Kernel<B> for Primitives {
    const NAME: &'static str = "backend primitives";
    type Plan = ();
    type Saved = SavedSteps<B>;

    fn plan(_: &BackendInputs<B>, _: &SabOptions, _: bool) -> Result<(), NotCovered> {
        Ok(())
    }

    fn forward(
        (): (),
        inputs: &BackendInputs<B>,
        options: &SabOptions,
        keep: bool,
    ) -> (BackendOutputs<B>, Option<SavedSteps<B>>) {
        forward::forward(inputs, options, keep)
    }

    fn backward(
        inputs: &BackendInputs<B>,
        saved: SavedSteps<B>,
        upstream: Upstream<FloatTensor<B>>,
        options: &SabOptions,
        needs: &Needs,
    ) -> Gradients<B> {
        backward::backward(inputs, saved, upstream, options, needs)
    }
}
