//! The state of a stack.

use std::path::Path;

use burn::store::RecordError;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::record::{Pack, SabLstmStateRecord, invalid};
use super::rows::StateError;
use super::state::SabLstmState;

/// The state that a [`SabLstmStack`](super::SabLstmStack) carries from one call to the next.
#[derive(Clone, Debug)]
pub struct SabLstmStackState {
    /// The states of the layers, from the bottom up. In both directions, the forward one comes first, as in PyTorch's
    /// `h_n`.
    pub layers: Vec<SabLstmState>,
}

/// A [`SabLstmStackState`] as data, for any format of serde.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SabLstmStackStateRecord {
    layers: Vec<SabLstmStateRecord>,
}

impl SabLstmStackState {
    /// See [`SabLstmState::detach`].
    pub fn detach(self) -> Self {
        self.map(SabLstmState::detach)
    }

    /// See [`SabLstmState::valid`].
    pub fn valid(self) -> Self {
        self.map(SabLstmState::valid)
    }

    /// See [`SabLstmState::to_device`].
    pub fn to_device(self, device: &Device) -> Self {
        self.map(|state| state.to_device(device))
    }

    /// See [`SabLstmState::select`].
    ///
    /// # Panics
    ///
    /// If `rows` is empty or names a row that does not exist.
    #[track_caller]
    pub fn select(&self, rows: &[usize]) -> Self {
        Self { layers: self.layers.iter().map(|state| state.select(rows)).collect() }
    }

    /// See [`SabLstmState::split`].
    ///
    /// # Panics
    ///
    /// If a number is 0, or if they do not add up to the rows of the state.
    #[track_caller]
    pub fn split(&self, sizes: &[usize]) -> Vec<Self> {
        let mut parts: Vec<_> = sizes.iter().map(|_| Self { layers: vec![] }).collect();
        for state in &self.layers {
            for (part, state) in parts.iter_mut().zip(state.split(sizes)) {
                part.layers.push(state);
            }
        }
        parts
    }

    /// See [`SabLstmState::cat`].
    ///
    /// # Errors
    ///
    /// If there is no state, or if the states of a layer cannot be one batch.
    ///
    /// # Panics
    ///
    /// If the states are of stacks with other numbers of layers.
    #[track_caller]
    pub fn cat(states: &[Self]) -> Result<Self, StateError> {
        let first = states.first().ok_or(StateError::Empty)?;
        let count = first.layers.len();
        assert!(
            states.iter().all(|state| state.layers.len() == count),
            "SabLstmStackState::cat: the states are of stacks with other numbers of layers"
        );
        let layer = |index: usize| {
            let layer: Vec<_> = states.iter().map(|state| state.layers[index].clone()).collect();
            SabLstmState::cat(&layer)
        };
        Ok(Self { layers: (0..count).map(layer).collect::<Result<_, _>>()? })
    }

    /// See [`SabLstmState::into_record`].
    pub fn into_record(self) -> SabLstmStackStateRecord {
        let layers = self.layers.into_iter().map(SabLstmState::into_record).collect();
        SabLstmStackStateRecord { layers }
    }

    /// See [`SabLstmState::from_record`].
    ///
    /// # Errors
    ///
    /// If the parts of the record do not fit each other.
    pub fn from_record(
        record: SabLstmStackStateRecord,
        device: &Device,
    ) -> Result<Self, RecordError> {
        let layers = record.layers.into_iter();
        let layers = layers.map(|record| SabLstmState::from_record(record, device));
        Ok(Self { layers: layers.collect::<Result<_, _>>()? })
    }

    /// See [`SabLstmState::save_file`].
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn save_file(self, path: impl AsRef<Path>) -> Result<(), RecordError> {
        let mut pack = Pack::default();
        pack.set_count("layers", self.layers.len());
        for (index, record) in self.into_record().layers.into_iter().enumerate() {
            record.pack(&format!("{index}."), &mut pack);
        }
        pack.save(path.as_ref())
    }

    /// Reads a state that [`save_file`](Self::save_file) wrote.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or does not hold the state of a stack.
    pub fn load_file(path: impl AsRef<Path>, device: &Device) -> Result<Self, RecordError> {
        let mut pack = Pack::load(path.as_ref())?;
        let count = pack.count("layers")?;
        if count == 0 {
            return Err(invalid("layers = 0: a stack has at least one".to_owned()));
        }
        let unpack = |index: usize| SabLstmStateRecord::unpack(&format!("{index}."), &mut pack);
        let layers = (0..count).map(unpack).collect::<Result<_, _>>()?;
        Self::from_record(SabLstmStackStateRecord { layers }, device)
    }

    fn map(self, state: impl Fn(SabLstmState) -> SabLstmState) -> Self {
        Self { layers: self.layers.into_iter().map(state).collect() }
    }
}
