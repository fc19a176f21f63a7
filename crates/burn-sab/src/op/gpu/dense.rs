//! Conversion between outputs of all steps, which the kernels compute, and outputs of the given steps
//! ([`Readout::At`]).

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_device_settings};
use burn::tensor::{IndexingUpdateOp, Shape, TensorData};

use crate::op::options::{Readout, SabOptions};
use crate::op::rows::{Row, RowTable};
use crate::op::tensors::{BackendOutputs, Dims, Reminders, SabOutputs, Upstream};

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

/// Converts the gradients of the given steps into gradients of every step, `[B, T, H]`, with the device and
/// data type of `like`.
pub(super) fn into_dense<B: Backend>(
    upstream: Upstream<FloatTensor<B>>,
    options: &SabOptions,
    dims: &Dims,
    like: &FloatTensor<B>,
) -> DenseUpstream<FloatTensor<B>> {
    let Dims { batch, time, hidden, .. } = *dims;
    let zeros = || {
        let shape = Shape::from([batch, time, hidden]);
        B::float_zeros(shape, &like.device(), like.dtype().into())
    };
    let add = |to: Option<FloatTensor<B>>, steps: &[usize], grad: Option<FloatTensor<B>>| {
        let Some(grad) = grad else {
            return to;
        };
        let whole = steps.len() == time;
        Some(match to {
            None if whole => grad,
            Some(to) if whole => B::float_add(to, grad),
            to => {
                let to = to.unwrap_or_else(zeros);
                let steps = indices::<B>(steps, like);
                B::float_select_assign(to, 1, steps, grad, IndexingUpdateOp::Add)
            }
        })
    };
    let given: Vec<usize> = match &options.readout {
        Readout::All => (0..time).collect(),
        Readout::At(steps) => steps.to_vec(),
    };
    let to_hidden = add(None, &given, upstream.hidden);
    let hidden = match (&options.rows, upstream.stored) {
        (Some(rows), Some(stored)) => {
            let to = to_hidden.unwrap_or_else(zeros);
            Some(add_slots_of_rows::<B>(to, stored, rows, options, dims))
        }
        (Some(_), None) => to_hidden,
        (None, stored) => {
            let storing: Vec<usize> = (0..time).filter(|t| options.stores_slot(*t)).collect();
            add(to_hidden, &storing, stored)
        }
    };
    DenseUpstream {
        hidden,
        last: upstream.last,
        cell: upstream.cell,
        summary: add(None, &given, upstream.summary),
    }
}

/// Adds the gradients of the slots that rows of different extent stored to those of the hidden states that the
/// slots hold, `[B, T, H]`.
fn add_slots_of_rows<B: Backend>(
    to: FloatTensor<B>,
    stored: FloatTensor<B>,
    rows: &[Row],
    options: &SabOptions,
    dims: &Dims,
) -> FloatTensor<B> {
    let Dims { batch, time, hidden, carried, stored: count, .. } = *dims;
    // The steps that store, counted over `[B, T]`, and their slots, counted over those that the call stores.
    let (mut steps, mut slots) = (Vec::new(), Vec::new());
    for (b, row) in rows.iter().enumerate() {
        let table = RowTable::new(row, options, carried);
        for (t, slot) in (0..time).filter_map(|t| Some((t, table.stores(t)?))) {
            steps.push(b * time + t);
            slots.push(b * count + slot - carried);
        }
    }
    if steps.is_empty() {
        return to;
    }
    let flat = |tensor, rows| B::float_reshape(tensor, Shape::from([rows, hidden]));
    let slots = indices::<B>(&slots, &stored);
    let steps = indices::<B>(&steps, &stored);
    let of_slots = B::float_select(flat(stored, batch * count), 0, slots);
    let to = flat(to, batch * time);
    let to = B::float_select_assign(to, 0, steps, of_slots, IndexingUpdateOp::Add);
    B::float_reshape(to, Shape::from([batch, time, hidden]))
}

/// Steps or slots as a tensor on the device of `like`.
fn indices<B: Backend>(steps: &[usize], like: &FloatTensor<B>) -> IntTensor<B> {
    let device = like.device();
    let dtype = get_device_settings::<B>(&device).int_dtype;
    let steps: Vec<i64> = steps.iter().map(|step| *step as i64).collect();
    let count = steps.len();
    B::int_from_data(TensorData::new(steps, [count]).convert_dtype(dtype.into()), &device)
}
