//! Streams: one step after another without gradient.
//!
//! As an ordinary call of one step, each step would copy all slots that were stored before it and compute
//! their keys again. A backend with a kernel keeps both from step to step in a form of its own.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType, TensorMetadata};
use burn::tensor::{Tensor, TensorData};

use super::{SabInputs, SabOutputs, StoredSlots};

/// The slots of a stream in the form of the backend that runs it; empty where that has none.
#[derive(Clone, Debug, Default)]
pub struct SlotMemory(Option<Arc<dyn Recall>>);

/// A form of slots.
pub(crate) trait Recall: Any + Debug + Send + Sync {
    /// M, the number of slots.
    fn count(&self) -> usize;
    /// The slots, `[B, M, H]`.
    fn slots(&self) -> TensorData;
}

impl SlotMemory {
    #[cfg(any(feature = "flex", feature = "ndarray"))]
    pub(crate) fn new(recall: Arc<dyn Recall>) -> Self {
        Self(Some(recall))
    }

    /// The form, if it is a `T`; else the memory as it was.
    #[cfg(any(feature = "flex", feature = "ndarray"))]
    pub(crate) fn into<T: Recall>(self) -> Result<Arc<T>, Self> {
        match self.0 {
            Some(recall) if (&*recall as &dyn Any).is::<T>() => {
                let recall: Arc<dyn Any + Send + Sync> = recall;
                Ok(recall.downcast().expect("tested"))
            }
            other => Err(Self(other)),
        }
    }

    /// Whether it holds no slots in any form.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// M, the number of slots.
    pub fn count(&self) -> usize {
        self.0.as_ref().map_or(0, |recall| recall.count())
    }

    /// The slots, `[B, M, H]`, if it holds any.
    pub fn slots(&self) -> Option<TensorData> {
        Some(self.0.as_ref()?.slots()).filter(|_| self.count() > 0)
    }
}

/// What comes out of one step.
#[derive(Clone, Debug, ExtensionType)]
pub struct StepOutputs<B: Backend> {
    /// Hidden state after retrieval, `[B, H]`.
    pub hidden: FloatTensor<B>,
    /// Cell state, `[B, H]`.
    pub cell: FloatTensor<B>,
    /// The slot that was stored, unless `memory` has it.
    #[extension_type]
    pub stored: StoredSlots<B>,
    /// All slots, or empty.
    pub memory: SlotMemory,
}

/// Of an ordinary call of one step, which leaves no memory.
impl<B: Backend> From<SabOutputs<B>> for StepOutputs<B> {
    fn from(outputs: SabOutputs<B>) -> Self {
        let SabOutputs { last, cell, stored, .. } = outputs;
        Self { hidden: last, cell, stored, memory: SlotMemory::default() }
    }
}

/// [`StepOutputs`] as user-level tensors.
#[derive(Clone, Debug)]
pub struct SequenceStep {
    /// Hidden state after retrieval, `[B, H]`.
    pub hidden: Tensor<2>,
    /// Cell state, `[B, H]`.
    pub cell: Tensor<2>,
    /// The slot that was stored, `[B, 1, H]`, unless `memory` has it.
    pub stored: Option<Tensor<3>>,
    /// All slots, or empty.
    pub memory: SlotMemory,
}

impl<B: Backend> SabInputs<B> {
    /// The inputs of an ordinary call that carries the slots of this memory, unless it is empty.
    pub(super) fn with_slots_of(mut self, memory: &SlotMemory) -> Self {
        if let Some(slots) = memory.slots() {
            self.carried = memory.count();
            let slots = slots.convert_dtype(self.x.dtype());
            self.slots = B::float_from_data(slots, &self.x.device());
        }
        self
    }
}
