use burn::nn::LstmState;
use burn::tensor::{Device, Tensor};

use super::budget::{Origins, is_full, thin};
use crate::op::SlotMemory;

/// What the layer carries from one call to the next: as `burn::nn::LstmState`, with the memory.
///
/// A sequence cut into chunks gives what the whole gives, gradients included as long as the state is
/// not [detached](Self::detach) (only `max_hops` counts anew in each call).
#[derive(Clone, Debug)]
pub struct SabLstmState {
    /// Cell state, `[B, H]`.
    pub cell: Tensor<2>,
    /// Hidden state after retrieval, `[B, H]`.
    pub hidden: Tensor<2>,
    /// Slots as the calls left them, each `[B, m, H]`: joined only when they are read.
    pub(super) slots: Vec<Tensor<3>>,
    /// All slots, if the last call was a step on a backend that keeps them its own way; then `slots` is
    /// empty.
    pub(super) memory: SlotMemory,
    /// Which slots these are, once some have been dropped.
    pub(super) origins: Option<Origins>,
    /// Steps processed so far: storing and truncation count on from here.
    pub step: usize,
}

impl SabLstmState {
    /// A state at step 0 with an empty memory; both tensors `[B, H]`.
    pub fn new(cell: Tensor<2>, hidden: Tensor<2>) -> Self {
        assert_eq!(cell.dims(), hidden.dims(), "cell and hidden state differ in shape");
        Self { cell, hidden, slots: vec![], memory: SlotMemory::default(), origins: None, step: 0 }
    }

    /// Zeros.
    pub fn initial(batch: usize, d_hidden: usize, device: &Device) -> Self {
        LstmState::initial([batch, d_hidden], device).into()
    }

    /// The memory, oldest slot first, `[B, M, H]`; `None` while it is empty.
    pub fn slots(&self) -> Option<Tensor<3>> {
        match self.slots.as_slice() {
            [] => {
                let options = (&self.hidden.device(), self.hidden.dtype());
                self.memory.slots().map(|slots| Tensor::from_data(slots, options))
            }
            [slots] => Some(slots.clone()),
            parts => Some(Tensor::cat(parts.to_vec(), 1)),
        }
    }

    /// The same state with this memory, `[B, M, H]`.
    pub fn with_slots(mut self, slots: Tensor<3>) -> Self {
        self.slots = vec![slots];
        self.memory = SlotMemory::default();
        self.origins = None;
        self
    }

    /// The state with a memory that is not full.
    pub(super) fn within(self, budget: usize) -> Self {
        if !is_full(self.num_slots(), budget) {
            return self;
        }
        let slots = self.slots().expect("it is full of them");
        let (slots, origins) = thin(slots, self.origins.as_ref(), budget);
        Self { origins: Some(origins), ..self.with_slots(slots) }
    }

    /// M, the number of slots.
    pub fn num_slots(&self) -> usize {
        self.slots.iter().map(|slots| slots.dims()[1]).sum::<usize>() + self.memory.count()
    }

    /// The same values as constants: no gradient goes back from here, not to the memory either. What
    /// a stream needs between two updates, so that its graph does not grow for ever.
    pub fn detach(self) -> Self {
        Self {
            cell: self.cell.detach(),
            hidden: self.hidden.detach(),
            slots: self.slots.into_iter().map(Tensor::detach).collect(),
            ..self
        }
    }
}

/// A state of step 0 with an empty memory.
impl From<LstmState<2>> for SabLstmState {
    fn from(state: LstmState<2>) -> Self {
        Self::new(state.cell, state.hidden)
    }
}

/// Drops the memory and the step counter.
impl From<SabLstmState> for LstmState<2> {
    fn from(state: SabLstmState) -> Self {
        Self::new(state.cell, state.hidden)
    }
}
