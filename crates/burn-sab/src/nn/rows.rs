//! Rows of a carried state: sessions that are batched into one call and split again.

use burn::tensor::{Device, Int, Tensor};
use thiserror::Error;

use super::budget::Origins;
use super::state::SabLstmState;
use crate::op::SlotMemory;

/// States that cannot be rows of one batch.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StateError {
    /// No state at all.
    #[error("no states: a batch has at least one")]
    Empty,
    /// States of different ages. The steps at which slots are stored and windows begin count from a state's
    /// start, and the rows of a batch share them.
    #[error(
        "states 0 and {other} have processed {steps:?} steps: the rows of a batch have to be of one age. Batch \
         sessions of one age together, or step them one by one"
    )]
    Ages {
        /// Index of the state that differs from the first.
        other: usize,
        /// Steps of the first and of the other state.
        steps: [usize; 2],
    },
    /// States with other numbers of hidden units.
    #[error("states 0 and {other} have {sizes:?} hidden units: they come from other layers")]
    Sizes {
        /// Index of the state that differs from the first.
        other: usize,
        /// H of the first and of the other state.
        sizes: [usize; 2],
    },
    /// States of one age with other numbers of slots, or with slots that a budget dropped.
    #[error(
        "states 0 and {other} have {slots:?} slots and have dropped {dropped:?}: they come from other settings of \
         the memory"
    )]
    Slots {
        /// Index of the state that differs from the first.
        other: usize,
        /// Slots of the first and of the other state.
        slots: [usize; 2],
        /// Slots that each has dropped.
        dropped: [usize; 2],
    },
}

impl SabLstmState {
    /// B, the number of rows.
    pub fn batch(&self) -> usize {
        self.hidden.dims()[0]
    }

    /// These rows, in this order; a row may be taken more than once. Slots, their names under a budget, and keys go
    /// along, and so does gradient.
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
        Self {
            cell: of_matrix(&self.cell),
            hidden: of_matrix(&self.hidden),
            slots: self.slots.iter().map(of_slots).collect(),
            memory: self.memory.select(rows),
            origins: self.origins.clone().map(of_origins),
            step: self.step,
            rows: None,
        }
    }

    /// Consecutive parts of these numbers of rows; the inverse of [`cat`](Self::cat).
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

    /// All rows of `states`, in their order, as one batch. Slots, their names under a budget, and keys go along,
    /// and so does gradient.
    ///
    /// # Errors
    ///
    /// If there is no state, or if the states differ in age, in hidden units or in the number of slots.
    ///
    /// # Panics
    ///
    /// If the states are on different devices or have different data types.
    pub fn cat(states: &[Self]) -> Result<Self, StateError> {
        let first = states.first().ok_or(StateError::Empty)?;
        for (other, state) in states.iter().enumerate().skip(1) {
            let pair = |of: fn(&Self) -> usize| [of(first), of(state)];
            let differ = |pair: [usize; 2]| pair[0] != pair[1];
            let (sizes, steps) = (pair(|state| state.hidden.dims()[1]), pair(|state| state.step));
            let (slots, dropped) = (pair(Self::num_slots), pair(Self::dropped));
            if differ(sizes) {
                return Err(StateError::Sizes { other, sizes });
            }
            if differ(steps) {
                return Err(StateError::Ages { other, steps });
            }
            if differ(slots) || differ(dropped) {
                return Err(StateError::Slots { other, slots, dropped });
            }
        }
        let join = |of: fn(&Self) -> &Tensor<2>| {
            Tensor::cat(states.iter().map(|state| of(state).clone()).collect(), 0)
        };
        let memories: Vec<SlotMemory> = states.iter().map(|state| state.memory.clone()).collect();
        let origins: Vec<&Origins> = states.iter().filter_map(|s| s.origins.as_ref()).collect();
        let batch = Self {
            cell: join(|state| &state.cell),
            hidden: join(|state| &state.hidden),
            slots: vec![],
            memory: SlotMemory::cat(&memories).unwrap_or_default(),
            origins: (!origins.is_empty()).then(|| Origins::cat(&origins, first.num_slots())),
            step: first.step,
            rows: None,
        };
        if first.num_slots() == 0 || !batch.memory.is_empty() {
            return Ok(batch);
        }
        // No common form of a kernel: the next call computes the keys.
        let slots = states.iter().filter_map(Self::slots).collect();
        Ok(Self { slots: vec![Tensor::cat(slots, 0)], ..batch })
    }

    /// The number of slots that a budget dropped in each row.
    fn dropped(&self) -> usize {
        self.origins.as_ref().map_or(0, Origins::dropped)
    }
}

fn indices(rows: &[usize], device: &Device) -> Tensor<1, Int> {
    let rows: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
    Tensor::from_data(rows.as_slice(), device)
}
