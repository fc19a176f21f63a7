//! Streams: one step after another, without gradient.
//!
//! As an ordinary call of one step, each step would copy all slots that were stored before it and compute
//! their keys again. A kernel can keep both from step to step in a form of its own.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Backend, BackendTensor, Dispatch, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind,
    ExtensionType, TensorMetadata,
};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::tensors::{BackendInputs, SabOutputs, to_dispatch};

/// The slots of a stream in the form of the kernel that runs it; empty where that has none.
#[derive(Clone, Default)]
pub struct SlotMemory(Option<Arc<dyn SlotStore>>);

/// A form of slots.
pub(crate) trait SlotStore: Any + Send + Sync {
    /// M, the number of slots; the most that a row has.
    fn len(&self) -> usize;
    /// Slots of each row.
    fn counts(&self) -> Vec<usize>;
    /// The slots, `[B, M, H]`. Of a row that has fewer they are the last, with zeros before them.
    fn slots(&self) -> TensorData;
    /// Their keys, if it has them all, in the same places.
    fn keys(&self) -> Option<SlotKeys>;
    /// These rows, in this order.
    fn select(&self, rows: &[usize]) -> SlotMemory;
    /// All rows of this form and then of others; `None` if one of them has another form.
    fn cat(&self, others: &[SlotMemory]) -> Option<SlotMemory>;
}

/// The keys of slots, as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SlotKeys {
    /// `[B, M, A]`; A is 1 for additive scores.
    pub values: TensorData,
    /// The fingerprint of the parameters that they were computed with.
    pub parameters: u64,
}

/// A fingerprint of parameters by the bytes of their elements: FNV-1a, 64 bits.
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Slots and keys of a record, in no kernel's form. The next step of a kernel puts them into its own, and
/// takes the keys over if they belong to its parameters.
struct Recorded {
    slots: TensorData,
    keys: SlotKeys,
    /// Slots of each row: the last so many.
    counts: Vec<usize>,
}

impl SlotStore for Recorded {
    fn len(&self) -> usize {
        self.slots.shape()[1]
    }

    fn counts(&self) -> Vec<usize> {
        self.counts.clone()
    }

    fn slots(&self) -> TensorData {
        self.slots.clone()
    }

    fn keys(&self) -> Option<SlotKeys> {
        Some(self.keys.clone())
    }

    fn select(&self, rows: &[usize]) -> SlotMemory {
        let counts: Vec<usize> = rows.iter().map(|row| self.counts[*row]).collect();
        let Some(most) = counts.iter().copied().max().filter(|most| *most > 0) else {
            return SlotMemory::default();
        };
        let SlotKeys { values, parameters } = &self.keys;
        let keys = SlotKeys { values: last_of_rows(values, rows, most), parameters: *parameters };
        SlotMemory::recorded(last_of_rows(&self.slots, rows, most), keys, counts)
    }

    fn cat(&self, _: &[SlotMemory]) -> Option<SlotMemory> {
        None
    }
}

/// The last `count` of these rows of `data`, `[B, M, N]`.
fn last_of_rows(data: &TensorData, rows: &[usize], count: usize) -> TensorData {
    let mut shape = data.shape().clone();
    let size = data.as_bytes().len() / shape[0].max(1);
    let skipped = size / shape[1] * (shape[1] - count);
    let bytes = rows.iter().flat_map(|row| &data.as_bytes()[row * size..][skipped..size]);
    let bytes = bytes.copied().collect();
    (shape[0], shape[1]) = (rows.len(), count);
    TensorData::from_bytes_vec(bytes, shape, data.dtype())
}

/// All rows of `parts`, `[B, M, N]` each, as the last of `[B, most, N]`, with zeros before them; `None` if the parts
/// differ in data type or N.
fn cat_of_rows(parts: &[TensorData], most: usize) -> Option<TensorData> {
    let first = parts.first()?;
    let width = first.shape()[2];
    let mut bytes = Vec::new();
    for part in parts {
        if part.dtype() != first.dtype() || part.shape()[2] != width {
            return None;
        }
        let [rows, count] = [part.shape()[0], part.shape()[1]];
        let size = part.as_bytes().len() / rows;
        for row in part.as_bytes().chunks(size) {
            bytes.resize(bytes.len() + size / count * (most - count), 0);
            bytes.extend(row);
        }
    }
    let rows = parts.iter().map(|part| part.shape()[0]).sum::<usize>();
    Some(TensorData::from_bytes_vec(bytes, [rows, most, width], first.dtype()))
}

impl fmt::Debug for SlotMemory {
    /// The number of slots: all of them would be millions of characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotMemory").field("slots", &self.len()).finish()
    }
}

impl SlotMemory {
    #[cfg(any(feature = "flex", feature = "ndarray"))]
    pub(crate) fn new(store: Arc<dyn SlotStore>) -> Self {
        Self(Some(store))
    }

    /// The form, if it is a `T`.
    #[cfg(any(feature = "flex", feature = "ndarray"))]
    pub(crate) fn of_form<T: SlotStore>(&self) -> Option<&T> {
        let store: &dyn Any = &**self.0.as_ref()?;
        store.downcast_ref()
    }

    /// The form, if it is a `T`; else the memory as it was.
    #[cfg(any(feature = "flex", feature = "ndarray"))]
    pub(crate) fn into<T: SlotStore>(self) -> Result<Arc<T>, Self> {
        match self.0 {
            Some(store) if (&*store as &dyn Any).is::<T>() => {
                let store: Arc<dyn Any + Send + Sync> = store;
                Ok(store.downcast().expect("tested"))
            }
            other => Err(Self(other)),
        }
    }

    /// Whether it has no form of slots.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// M, the number of slots.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |store| store.len())
    }

    /// Slots, `[B, M, H]`, and keys of a record, and how many of the last slots are each row's.
    pub(crate) fn recorded(slots: TensorData, keys: SlotKeys, counts: Vec<usize>) -> Self {
        Self(Some(Arc::new(Recorded { slots, keys, counts })))
    }

    /// Whether it has a form that a kernel made. Only that kernel leaves such a form behind.
    pub(crate) fn is_kernels(&self) -> bool {
        self.0.as_ref().is_some_and(|store| !(&**store as &dyn Any).is::<Recorded>())
    }

    /// The keys, if it has those of all slots.
    pub(crate) fn keys(&self) -> Option<SlotKeys> {
        self.0.as_ref()?.keys()
    }

    /// These rows, in this order.
    pub(crate) fn select(&self, rows: &[usize]) -> Self {
        self.0.as_ref().map_or_else(Self::default, |store| store.select(rows))
    }

    /// All rows of some memories, in their order; `None` if they have neither one form nor keys of the same
    /// parameters.
    pub(crate) fn cat(memories: &[Self]) -> Option<Self> {
        let (first, others) = memories.split_first()?;
        first.0.as_ref()?.cat(others).or_else(|| Self::cat_recorded(memories))
    }

    /// The same for memories of different forms, or of records: as that of a record.
    fn cat_recorded(memories: &[Self]) -> Option<Self> {
        let stores: Option<Vec<_>> = memories.iter().map(|memory| memory.0.as_ref()).collect();
        let stores = stores?;
        let keys: Option<Vec<_>> = stores.iter().map(|store| store.keys()).collect();
        let keys = keys?;
        let parameters = keys[0].parameters;
        if keys.iter().any(|keys| keys.parameters != parameters) {
            return None;
        }
        let most = memories.iter().map(Self::len).max()?;
        let slots: Vec<_> = stores.iter().map(|store| store.slots()).collect();
        let keys: Vec<_> = keys.into_iter().map(|keys| keys.values).collect();
        let (slots, values) = (cat_of_rows(&slots, most)?, cat_of_rows(&keys, most)?);
        let counts = stores.iter().flat_map(|store| store.counts()).collect();
        Some(Self::recorded(slots, SlotKeys { values, parameters }, counts))
    }

    /// The slots, `[B, M, H]`, if it holds any.
    pub fn slots(&self) -> Option<TensorData> {
        let store = self.0.as_ref()?;
        (store.len() > 0).then(|| store.slots())
    }

    /// The inputs of an ordinary call that carries these slots, or those of `inputs` if it is empty.
    pub(crate) fn into_inputs<B: Backend>(self, mut inputs: BackendInputs<B>) -> BackendInputs<B> {
        if let Some(slots) = self.slots() {
            let slots = slots.convert_dtype(inputs.x.dtype());
            inputs.slots = Some(B::float_from_data(slots, &inputs.x.device()));
        }
        inputs
    }
}

/// The outputs of one step: matrices `M`, sequences `S`.
#[derive(Clone, Debug)]
pub struct StepOutputs<M = Tensor<2>, S = Tensor<3>> {
    /// Hidden state after retrieval, `[B, H]`.
    pub hidden: M,
    /// Cell state, `[B, H]`.
    pub cell: M,
    /// Summary, `[B, 1, H]`, if [`SabOptions::reminders`](super::SabOptions::reminders) asks for it.
    pub summary: Option<S>,
    /// The slot that was stored, `[B, 1, H]`, unless `memory` has it.
    pub stored: Option<S>,
    /// All slots, or empty.
    pub memory: SlotMemory,
}

/// The outputs of one step as primitives of a backend.
pub(crate) type BackendStep<B> = StepOutputs<FloatTensor<B>, FloatTensor<B>>;

/// Of an ordinary call of one step, which leaves no memory.
impl<F, I> From<SabOutputs<F, F, I>> for StepOutputs<F, F> {
    fn from(outputs: SabOutputs<F, F, I>) -> Self {
        let SabOutputs { last, cell, stored, reminders, .. } = outputs;
        let summary = reminders.map(|reminders| reminders.summary);
        Self { hidden: last, cell, summary, stored, memory: SlotMemory::default() }
    }
}

impl<M, S> StepOutputs<M, S> {
    /// The same outputs in another form.
    fn map_ranks<N, U>(
        self,
        mut matrix: impl FnMut(M) -> N,
        mut sequence: impl FnMut(S) -> U,
    ) -> StepOutputs<N, U> {
        StepOutputs {
            hidden: matrix(self.hidden),
            cell: matrix(self.cell),
            summary: self.summary.map(&mut sequence),
            stored: self.stored.map(sequence),
            memory: self.memory,
        }
    }
}

/// The outputs of one step as they cross from a backend.
pub(crate) struct StepOf<B: Backend>(pub BackendStep<B>);

impl StepOutputs {
    /// User-level tensors from primitives of the dispatching backend.
    pub(crate) fn from_dispatch(outputs: StepOf<Dispatch>) -> Self {
        outputs.0.map_ranks(Tensor::from_dispatch, Tensor::from_dispatch)
    }
}

impl<B: Backend> ExtensionType<B> for StepOf<B> {
    type Target = StepOf<Dispatch>;

    fn map_to_dispatch<F>(self, wrap: F, autodiff: DispatchAutodiffContext) -> Self::Target
    where
        F: Fn(BackendTensor<B>) -> DispatchTensorKind,
    {
        let float = |tensor| to_dispatch(BackendTensor::Float(tensor), &wrap, autodiff);
        StepOf(self.0.map_ranks(float, float))
    }

    fn map_from_dispatch<F>(target: Self::Target, unwrap: F) -> Self
    where
        F: Fn(DispatchTensor) -> BackendTensor<B>,
    {
        let float = |tensor| unwrap(tensor).float();
        Self(target.0.map_ranks(float, float))
    }

    fn routing_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        Some(&target.0.hidden)
    }

    fn routing_float_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        Some(&target.0.hidden)
    }

    fn autodiff_context(target: &Self::Target) -> DispatchAutodiffContext {
        target.0.hidden.autodiff.merge(target.0.cell.autodiff)
    }
}
