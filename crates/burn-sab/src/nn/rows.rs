//! Rows of a carried state: sessions that are batched into one call and split again.

use burn::tensor::ops::PadMode;
use burn::tensor::{Device, Int, Tensor};
use thiserror::Error;

use super::budget::Origins;
use super::state::{RowState, SabLstmState};
use crate::op::SlotMemory;

/// States that cannot be rows of one batch.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StateError {
    /// No state at all.
    #[error("no states: a batch has at least one")]
    Empty,
    /// States with different numbers of hidden units.
    #[error("states 0 and {other} have {sizes:?} hidden units: they come from other layers")]
    Sizes {
        /// Index of the state that differs from the first.
        other: usize,
        /// H of the first and of the other state.
        sizes: [usize; 2],
    },
}

impl SabLstmState {
    /// B, the number of rows.
    pub fn batch(&self) -> usize {
        self.hidden.dims()[0]
    }

    /// These rows, in this order. A row may be taken more than once. The result has the rows' slots, their numbers under
    /// a budget, and their keys, and carries gradient.
    ///
    /// # Panics
    ///
    /// If `rows` is empty or names a row that does not exist.
    #[track_caller]
    pub fn select(&self, rows: &[usize]) -> Self {
        let batch = self.batch();
        assert!(
            !rows.is_empty() && rows.iter().all(|row| *row < batch),
            "SabLstmState::select: rows {rows:?} of a state of {batch} rows: name at least one, each below {batch}"
        );
        let indices = indices(rows, &self.hidden.device());
        let of_matrix = |tensor: &Tensor<2>| tensor.clone().select(0, indices.clone());
        let of_slots = |tensor: &Tensor<3>| tensor.clone().select(0, indices.clone());
        let of_origins = |origins: Origins| origins.map(|kept| kept.select(0, indices.clone()));
        let (cell, hidden) = (of_matrix(&self.cell), of_matrix(&self.hidden));
        let slots = self.slots.iter().map(of_slots).collect();
        let memory = self.memory.select(rows);
        if let Some(all) = &self.rows {
            let rows = rows.iter().map(|row| all[*row].clone()).collect();
            return Self::of_ragged(cell, hidden, slots, memory, rows);
        }
        let origins = self.origins.clone().map(of_origins);
        Self { cell, hidden, slots, memory, origins, step: self.step, rows: None }
    }

    /// Splits the rows into consecutive parts of these sizes. The inverse of [`cat`](Self::cat).
    ///
    /// # Panics
    ///
    /// If a number is 0, or if they do not add up to the rows of the state.
    #[track_caller]
    pub fn split(&self, sizes: &[usize]) -> Vec<Self> {
        let batch = self.batch();
        assert!(
            sizes.iter().sum::<usize>() == batch && !sizes.contains(&0),
            "SabLstmState::split: parts of {sizes:?} rows of a state of {batch} rows: each has to be at least 1, \
             and their sum {batch}"
        );
        let mut from = 0;
        let mut part = |size: usize| {
            let rows: Vec<usize> = (from..from + size).collect();
            from += size;
            self.select(&rows)
        };
        sizes.iter().map(|size| part(*size)).collect()
    }

    /// All rows of `states`, in their order, as one batch. The result has the rows' slots, their numbers under a budget,
    /// and their keys, and carries gradient.
    ///
    /// The states can have different steps: each row continues from its own step and slots
    /// ([`steps`](Self::steps), [`slot_counts`](Self::slot_counts)).
    ///
    /// # Errors
    ///
    /// If there is no state, or if the states differ in hidden units.
    ///
    /// # Panics
    ///
    /// If the states are on different devices or have different data types.
    pub fn cat(states: &[Self]) -> Result<Self, StateError> {
        let first = states.first().ok_or(StateError::Empty)?;
        for (other, state) in states.iter().enumerate().skip(1) {
            let sizes = [first, state].map(|state| state.hidden.dims()[1]);
            if sizes[0] != sizes[1] {
                return Err(StateError::Sizes { other, sizes });
            }
        }
        Ok(cat_states(states))
    }

    /// Step, number of slots, and how many a budget dropped, if rows are alike.
    fn extent(&self) -> Option<[usize; 3]> {
        let dropped = self.origins.as_ref().map_or(0, Origins::dropped);
        (!self.is_ragged()).then(|| [self.step, self.num_slots(), dropped])
    }
}

/// All rows of states, at least one, of one layer.
pub(super) fn cat_states(states: &[SabLstmState]) -> SabLstmState {
    let first = &states[0];
    let join = |of: fn(&SabLstmState) -> &Tensor<2>| {
        Tensor::cat(states.iter().map(|state| of(state).clone()).collect(), 0)
    };
    let (cell, hidden) = (join(|state| &state.cell), join(|state| &state.hidden));
    let memories: Vec<SlotMemory> = states.iter().map(|state| state.memory.clone()).collect();
    let memory = SlotMemory::cat(&memories).unwrap_or_default();
    // No common form of a kernel: the next call computes the keys.
    let most = states.iter().map(SabLstmState::num_slots).max().unwrap_or(0);
    let slots = if memory.is_empty() && most > 0 {
        vec![Tensor::cat(states.iter().map(|state| padded_slots(state, most)).collect(), 0)]
    } else {
        vec![]
    };
    let extent = first.extent();
    if extent.is_some() && states.iter().all(|state| state.extent() == extent) {
        let origins: Vec<&Origins> = states.iter().filter_map(|s| s.origins.as_ref()).collect();
        let origins = (!origins.is_empty()).then(|| Origins::cat(&origins, first.num_slots()));
        return SabLstmState { cell, hidden, slots, memory, origins, step: first.step, rows: None };
    }
    let rows = states.iter().flat_map(SabLstmState::row_states);
    let rows = rows.map(|row| RowState { slots: most - row.slots.len()..most, ..row });
    SabLstmState::of_ragged(cell, hidden, slots, memory, rows.collect())
}

/// The slots of a state as the last of `[B, most, H]`, with zeros before them.
fn padded_slots(state: &SabLstmState, most: usize) -> Tensor<3> {
    let [batch, hidden] = state.hidden.dims();
    match state.slots() {
        None => {
            let options = (&state.hidden.device(), state.hidden.dtype());
            Tensor::zeros([batch, most, hidden], options)
        }
        Some(slots) => match most - slots.dims()[1] {
            0 => slots,
            missing => slots.pad([(missing, 0), (0, 0)], PadMode::Constant(0.0)),
        },
    }
}

pub(super) fn indices(rows: &[usize], device: &Device) -> Tensor<1, Int> {
    let rows: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
    Tensor::from_data(rows.as_slice(), device)
}
