//! Between kernels that give every step and calls that ask for some.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_device_settings};
use burn::tensor::{IndexingUpdateOp, Shape, TensorData};

use super::{Readout, RetrievedSlots, SabOptions, SabOutputs, StoredSlots, UpstreamGrads};

/// Outputs of every step, in the shapes of [`SabOutputs`] with N = T.
pub(crate) struct DenseOutputs<B: Backend> {
    pub hidden: FloatTensor<B>,
    pub last: FloatTensor<B>,
    pub cell: FloatTensor<B>,
    pub stored: Option<FloatTensor<B>>,
    pub reminders: Option<DenseReminders<B>>,
}

/// What was retrieved at every step.
pub(crate) struct DenseReminders<B: Backend> {
    pub summary: FloatTensor<B>,
    pub slots: IntTensor<B>,
    pub weights: FloatTensor<B>,
}

/// Gradients of [`DenseOutputs`], those of the stored slots among those of the hidden states; `None` where
/// none arrived.
pub(crate) struct DenseUpstream<B: Backend> {
    pub hidden: Option<FloatTensor<B>>,
    pub last: Option<FloatTensor<B>>,
    pub cell: Option<FloatTensor<B>>,
    pub summary: Option<FloatTensor<B>>,
}

impl<B: Backend> DenseOutputs<B> {
    /// What a call with these options asks for.
    pub fn read_out(self, options: &SabOptions) -> SabOutputs<B> {
        let Self { hidden, last, cell, stored, reminders } = self;
        let steps = match &options.readout {
            Readout::All => None,
            Readout::At(steps) => Some(indices::<B>(steps, &hidden)),
        };
        let given = |tensor: FloatTensor<B>| match &steps {
            None => tensor,
            Some(steps) => B::float_select(tensor, 1, steps.clone()),
        };
        SabOutputs {
            hidden: given(hidden),
            last,
            cell,
            stored: stored.map_or(StoredSlots::None, StoredSlots::Some),
            reminders: match reminders {
                None => RetrievedSlots::None,
                Some(DenseReminders { summary, slots, weights }) => RetrievedSlots::Some {
                    summary: given(summary),
                    slots: match &steps {
                        None => slots,
                        Some(steps) => B::int_select(slots, 1, steps.clone()),
                    },
                    weights: given(weights),
                },
            },
        }
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
        let to_hidden = add(None, &given, self.hidden);
        DenseUpstream {
            hidden: add(to_hidden, &storing, self.stored),
            last: self.last,
            cell: self.cell,
            summary: add(None, &given, self.summary),
        }
    }
}

/// Steps as a tensor on the device of `like`.
fn indices<B: Backend>(steps: &[usize], like: &FloatTensor<B>) -> IntTensor<B> {
    let device = like.device();
    let dtype = get_device_settings::<B>(&device).int_dtype;
    let steps: Vec<i64> = steps.iter().map(|step| *step as i64).collect();
    let count = steps.len();
    B::int_from_data(TensorData::new(steps, [count]).convert_dtype(dtype.into()), &device)
}
