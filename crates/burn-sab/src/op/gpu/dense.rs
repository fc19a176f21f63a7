//! Conversion between outputs of all steps, which the kernels compute, and outputs of the given steps
//! ([`Readout::At`]).

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_device_settings};
use burn::tensor::{IndexingUpdateOp, Shape, TensorData};

use crate::op::options::{Readout, SabOptions};
use crate::op::tensors::{BackendOutputs, Reminders, SabOutputs, Upstream};

/// Gradients of the outputs of every step. Those of the stored slots are included in those of the hidden
/// states. `None` if no gradient arrived.
pub(super) struct DenseUpstream<P> {
    pub hidden: Option<P>,
    pub last: Option<P>,
    pub cell: Option<P>,
    pub summary: Option<P>,
}

/// Selects the outputs of the given steps from those of every step.
pub(super) fn select_given<B: Backend>(
    outputs: BackendOutputs<B>,
    options: &SabOptions,
) -> BackendOutputs<B> {
    let Readout::At(steps) = &options.readout else { return outputs };
    let steps = indices::<B>(steps, &outputs.hidden);
    let given = |tensor: FloatTensor<B>| B::float_select(tensor, 1, steps.clone());
    SabOutputs {
        hidden: given(outputs.hidden),
        reminders: outputs.reminders.map(|Reminders { summary, slots, weights }| Reminders {
            summary: given(summary),
            slots: B::int_select(slots, 1, steps.clone()),
            weights: given(weights),
        }),
        ..outputs
    }
}

/// Converts the gradients of the given steps into gradients of every step, `[batch, time, hidden]`, with
/// the device and data type of `like`.
pub(super) fn into_dense<B: Backend>(
    upstream: Upstream<FloatTensor<B>>,
    options: &SabOptions,
    dims: [usize; 3],
    like: &FloatTensor<B>,
) -> DenseUpstream<FloatTensor<B>> {
    let [_, time, _] = dims;
    let add = |to: Option<FloatTensor<B>>, steps: &[usize], grad: Option<FloatTensor<B>>| {
        let Some(grad) = grad else {
            return to;
        };
        let whole = steps.len() == time;
        Some(match to {
            None if whole => grad,
            Some(to) if whole => B::float_add(to, grad),
            to => {
                let to = to.unwrap_or_else(|| {
                    B::float_zeros(Shape::from(dims), &like.device(), like.dtype().into())
                });
                let steps = indices::<B>(steps, like);
                B::float_select_assign(to, 1, steps, grad, IndexingUpdateOp::Add)
            }
        })
    };
    let given: Vec<usize> = match &options.readout {
        Readout::All => (0..time).collect(),
        Readout::At(steps) => steps.to_vec(),
    };
    let storing: Vec<usize> = (0..time).filter(|t| options.stores_slot(*t)).collect();
    let to_hidden = add(None, &given, upstream.hidden);
    DenseUpstream {
        hidden: add(to_hidden, &storing, upstream.stored),
        last: upstream.last,
        cell: upstream.cell,
        summary: add(None, &given, upstream.summary),
    }
}

/// The steps as a tensor on the device of `like`.
fn indices<B: Backend>(steps: &[usize], like: &FloatTensor<B>) -> IntTensor<B> {
    let device = like.device();
    let dtype = get_device_settings::<B>(&device).int_dtype;
    let steps: Vec<i64> = steps.iter().map(|step| *step as i64).collect();
    let count = steps.len();
    B::int_from_data(TensorData::new(steps, [count]).convert_dtype(dtype.into()), &device)
}
