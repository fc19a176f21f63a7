//! Between kernels that give every step and calls that ask for some.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_device_settings};
use burn::tensor::{IndexingUpdateOp, Shape, TensorData};

use super::primitives::Prim;
use super::{Readout, RetrievedSlots, SabOptions, SabOutputs, StoredSlots, UpstreamGrads};

/// Outputs of every step, in the shapes of [`SabOutputs`] with N = T.
pub(crate) struct DenseOutputs<B: Backend> {
    pub hidden: FloatTensor<B>,
    pub summary: FloatTensor<B>,
    pub cell: FloatTensor<B>,
    pub slots: IntTensor<B>,
    pub weights: FloatTensor<B>,
}

/// Gradients of [`DenseOutputs`]; `None` where none arrived.
pub(crate) struct DenseUpstream<B: Backend> {
    pub hidden: Option<FloatTensor<B>>,
    pub summary: Option<FloatTensor<B>>,
    pub cell: Option<FloatTensor<B>>,
}

impl<B: Backend> DenseOutputs<B> {
    /// What a call with these options asks for.
    pub fn read_out(self, options: &SabOptions) -> SabOutputs<B> {
        let [batch, time, hidden] = self.hidden.shape().dims();
        let at = |steps: &[usize]| {
            B::float_select(self.hidden.clone(), 1, indices::<B>(steps, &self.hidden))
        };
        let stored = storing_steps(options, time);
        let last =
            Prim::<B>(self.hidden.clone()).narrow(1, time - 1, time).reshape([batch, hidden]).0;
        let stored = match stored.as_slice() {
            [] => StoredSlots::None,
            steps if steps.len() == time => StoredSlots::Some(self.hidden.clone()),
            steps => StoredSlots::Some(at(steps)),
        };
        let given = |tensor: FloatTensor<B>| match &options.readout {
            Readout::All => tensor,
            Readout::At(steps) => {
                let steps = indices::<B>(steps, &tensor);
                B::float_select(tensor, 1, steps)
            }
        };
        let reminders = match options.reminders {
            false => RetrievedSlots::None,
            true => RetrievedSlots::Some {
                summary: given(self.summary),
                slots: match &options.readout {
                    Readout::All => self.slots,
                    Readout::At(steps) => {
                        B::int_select(self.slots, 1, indices::<B>(steps, &self.hidden))
                    }
                },
                weights: given(self.weights),
            },
        };
        SabOutputs { last, cell: self.cell, stored, reminders, hidden: given(self.hidden) }
    }
}

impl<B: Backend> UpstreamGrads<B> {
    /// The same gradients as those of every step, out of `[batch, time, hidden]`; `like` tells device and
    /// data type.
    pub(crate) fn into_dense(
        self,
        options: &SabOptions,
        dims: [usize; 3],
        like: &FloatTensor<B>,
    ) -> DenseUpstream<B> {
        let [batch, time, hidden] = dims;
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
        let last = self.last.map(|g| B::float_reshape(g, Shape::from([batch, 1, hidden])));
        let to_hidden = add(None, &given, self.hidden);
        let to_hidden = add(to_hidden, &storing_steps(options, time), self.stored);
        DenseUpstream {
            hidden: add(to_hidden, &[time - 1], last),
            summary: add(None, &given, self.summary),
            cell: self.cell,
        }
    }
}

fn storing_steps(options: &SabOptions, time: usize) -> Vec<usize> {
    (0..time).filter(|t| options.stores_slot(*t)).collect()
}

/// Steps as a tensor on the device of `like`.
fn indices<B: Backend>(steps: &[usize], like: &FloatTensor<B>) -> IntTensor<B> {
    let device = like.device();
    let dtype = get_device_settings::<B>(&device).int_dtype;
    let steps: Vec<i64> = steps.iter().map(|step| *step as i64).collect();
    let count = steps.len();
    B::int_from_data(TensorData::new(steps, [count]).convert_dtype(dtype.into()), &device)
}
