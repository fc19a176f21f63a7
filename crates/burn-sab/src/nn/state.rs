use std::fmt;
use std::ops::Range;

use burn::nn::LstmState;
use burn::tensor::{Device, Tensor};

use super::budget::{Origins, is_full, thin};
use super::rows::cat_states;
use crate::op::SlotMemory;

/// The state that the layer carries from one call to the next: a `burn::nn::LstmState` with a memory.
///
/// A sequence in chunks gives the outputs of the whole, up to rounding. Gradients are those of the whole as well, unless
/// the state is [detached](Self::detach) or `max_hops` is set, which counts hops within one call. Rounding can change a
/// choice: if two scores, or two distances of a thinned memory, are equal except for rounding, chunks and whole can take
/// different slots.
#[derive(Clone)]
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
    /// Steps processed so far, from which storing and truncation continue. If rows differ, the largest number.
    pub step: usize,
    /// What each row has, where they differ.
    pub(super) rows: Option<Vec<RowState>>,
}

/// What one row of a state has, where rows differ.
#[derive(Clone, Debug)]
pub(super) struct RowState {
    /// Steps processed so far.
    pub step: usize,
    /// The row's slots among those of the state.
    pub slots: Range<usize>,
    /// Which slots these are, once some have been dropped.
    pub origins: Option<Origins>,
}

impl fmt::Debug for SabLstmState {
    /// Shapes, not elements: a memory of a thousand slots would be millions of characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SabLstmState")
            .field("cell", &self.cell.dims())
            .field("hidden", &self.hidden.dims())
            .field("slots", &self.num_slots())
            .field("step", &self.step)
            .finish()
    }
}

impl SabLstmState {
    /// A state at step 0 with an empty memory. Both tensors are `[B, H]`.
    pub fn new(cell: Tensor<2>, hidden: Tensor<2>) -> Self {
        assert_eq!(
            cell.dims(),
            hidden.dims(),
            "SabLstmState: cell and hidden state differ in shape"
        );
        Self {
            cell,
            hidden,
            slots: vec![],
            memory: SlotMemory::default(),
            origins: None,
            step: 0,
            rows: None,
        }
    }

    /// A state of zeros with shape `[B, H]`, as `burn::nn::LstmState::initial`.
    pub fn initial(shape: [usize; 2], device: &Device) -> Self {
        LstmState::initial(shape, device).into()
    }

    /// The memory, oldest slot first, `[B, M, H]`; `None` while it is empty. If rows have different numbers of slots, M
    /// is the largest number, and zeros precede the slots of the other rows ([`slot_counts`](Self::slot_counts)).
    pub fn slots(&self) -> Option<Tensor<3>> {
        let slots = self.joined_slots();
        match &self.rows {
            // A memory has them so already.
            Some(rows) if self.memory.is_empty() => Self::aligned_slots(slots?, rows),
            _ => slots,
        }
    }

    fn joined_slots(&self) -> Option<Tensor<3>> {
        match self.slots.as_slice() {
            [] => {
                let options = (&self.hidden.device(), self.hidden.dtype());
                self.memory.slots().map(|slots| Tensor::from_data(slots, options))
            }
            [slots] => Some(slots.clone()),
            parts => Some(Tensor::cat(parts.to_vec(), 1)),
        }
    }

    /// The same state with these slots as its memory, `[B, M, H]`. With M = 0, the memory is empty.
    pub fn with_slots(mut self, slots: Tensor<3>) -> Self {
        let [_, count, _] = slots.dims();
        self.slots = if count == 0 { vec![] } else { vec![slots] };
        self.memory = SlotMemory::default();
        self.origins = None;
        for row in self.rows.iter_mut().flatten() {
            (row.slots, row.origins) = (0..count, None);
        }
        self
    }

    /// The state with a memory that is not full.
    pub(super) fn within(self, budget: usize) -> Self {
        if !is_full(self.num_slots(), budget) {
            return self;
        }
        if self.is_ragged() {
            let rows = (0..self.batch()).map(|row| self.select(&[row]).within(budget));
            return cat_states(&rows.collect::<Vec<_>>());
        }
        let slots = self.slots().expect("it is full of them");
        let (slots, origins) = thin(slots, self.origins.as_ref(), budget);
        Self { origins: Some(origins), ..self.with_slots(slots) }
    }

    /// The same state some steps later, of a call that has no rows, or no steps.
    pub(super) fn after(mut self, steps: usize) -> Self {
        self.step += steps;
        for row in self.rows.iter_mut().flatten() {
            row.step += steps;
        }
        self
    }

    /// M, the number of slots. If rows differ, the largest number.
    pub fn num_slots(&self) -> usize {
        if let Some(rows) = &self.rows {
            return rows.iter().map(|row| row.slots.len()).max().unwrap_or(0);
        }
        self.slots.iter().map(|slots| slots.dims()[1]).sum::<usize>() + self.memory.len()
    }

    /// The same values as constants, including the memory: no gradient flows back from here. Call it between two
    /// updates on a stream, so that the autodiff graph does not grow without end. The state stays on its autodiff
    /// device; [`valid`](Self::valid) takes it off.
    pub fn detach(self) -> Self {
        self.map(Tensor::detach, Tensor::detach)
    }

    /// The same values without autodiff, for a layer from `layer.valid()`. Drops the autodiff graph of the state.
    pub fn valid(self) -> Self {
        self.map(Tensor::inner, Tensor::inner)
    }

    /// The same state on another device.
    pub fn to_device(mut self, device: &Device) -> Self {
        if !self.memory.is_empty() {
            // Of rows that differ, these are each row's last, as in the memory.
            self.slots = self.slots().into_iter().collect();
            self.memory = SlotMemory::default();
        }
        let origins = self.origins.take().map(|origins| origins.map(|kept| kept.to_device(device)));
        for row in self.rows.iter_mut().flatten() {
            row.origins =
                row.origins.take().map(|origins| origins.map(|kept| kept.to_device(device)));
        }
        let state = self.map(|tensor| tensor.to_device(device), |slots| slots.to_device(device));
        Self { origins, ..state }
    }

    fn map(
        self,
        state: impl Fn(Tensor<2>) -> Tensor<2>,
        slots: impl Fn(Tensor<3>) -> Tensor<3>,
    ) -> Self {
        Self {
            cell: state(self.cell),
            hidden: state(self.hidden),
            slots: self.slots.into_iter().map(slots).collect(),
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
