//! A carried state as data: for serde and for files, so that a session can be stored and go on bit for bit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::store::RecordError;
use burn::tensor::{Bytes, DType, Device, Tensor, TensorData};
use burn_pack::{Reader, Scalar, Writer};
use serde::{Deserialize, Serialize};

use super::budget::Origins;
use super::state::{RowState, SabLstmState};
use crate::op::{SlotKeys, SlotMemory};

/// A [`SabLstmState`] as data: cell and hidden state, slots, their keys and their numbers under a budget, and the step.
/// Any serde format can write it. [`SabLstmState::save_file`] writes Burn's own format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SabLstmStateRecord {
    /// Cell state, `[B, H]`.
    cell: TensorData,
    /// Hidden state, `[B, H]`.
    hidden: TensorData,
    /// Slots, `[B, M, H]`; `None` while there are none.
    slots: Option<TensorData>,
    /// Their keys, if the last call was a step of a kernel that keeps them. Computed anew they could differ in
    /// the last bits, as a product of other rows at a time rounds otherwise.
    keys: Option<SlotKeys>,
    /// The names of the slots, once a budget has dropped some.
    origins: Option<OriginsRecord>,
    /// Steps processed so far; of rows that differ, the most.
    step: usize,
    /// What each row has, where they differ.
    #[serde(default)]
    rows: Option<Vec<RowRecord>>,
}

/// [`RowState`] as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct RowRecord {
    step: usize,
    /// The row's slots: the last so many of M.
    slots: usize,
    origins: Option<OriginsRecord>,
}

/// [`Origins`] as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OriginsRecord {
    /// `[B, K]`
    kept: TensorData,
    stored: usize,
}

impl SabLstmState {
    /// The state as data. The call waits for the device.
    pub fn into_record(self) -> SabLstmStateRecord {
        let rows = self.rows.as_ref().map(|rows| {
            let row = |row: &RowState| RowRecord {
                step: row.step,
                slots: row.slots.len(),
                origins: row.origins.clone().map(OriginsRecord::new),
            };
            rows.iter().map(row).collect()
        });
        SabLstmStateRecord {
            slots: self.memory.slots().or_else(|| self.slots().map(Tensor::into_data)),
            keys: self.memory.keys(),
            cell: self.cell.into_data(),
            hidden: self.hidden.into_data(),
            origins: self.origins.map(OriginsRecord::new),
            step: self.step,
            rows,
        }
    }

    /// The state of a record, on `device`. With the same layer on a device of the same kind, it continues with
    /// identical results.
    ///
    /// # Errors
    ///
    /// If the parts of the record do not fit each other.
    pub fn from_record(record: SabLstmStateRecord, device: &Device) -> Result<Self, RecordError> {
        record.check()?;
        let SabLstmStateRecord { cell, hidden, slots, keys, origins, step, rows } = record;
        let options = (device, hidden.dtype());
        let count = slots.as_ref().map_or(0, second);
        let counts = match &rows {
            None => vec![count; hidden.shape()[0]],
            Some(rows) => rows.iter().map(|row| row.slots).collect(),
        };
        let (slots, memory) = match (slots, keys) {
            (Some(slots), Some(keys)) => (vec![], SlotMemory::recorded(slots, keys, counts)),
            (slots, _) => {
                let slots = slots.map(|slots| Tensor::from_data(slots, options));
                (slots.into_iter().collect(), SlotMemory::default())
            }
        };
        Ok(Self {
            cell: Tensor::from_data(cell, options),
            hidden: Tensor::from_data(hidden, options),
            slots,
            memory,
            origins: origins.map(|origins| origins.on(device)),
            step,
            rows: rows.map(|rows| {
                let row = |row: RowRecord| RowState {
                    step: row.step,
                    slots: count - row.slots..count,
                    origins: row.origins.map(|origins| origins.on(device)),
                };
                rows.into_iter().map(row).collect()
            }),
        })
    }

    /// Writes the state into a file in Burn's format (`.bpk` if the path has no extension). An existing file is replaced
    /// atomically.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn save_file(self, path: impl AsRef<Path>) -> Result<(), RecordError> {
        let mut pack = Pack::default();
        self.into_record().pack("", &mut pack);
        pack.save(path.as_ref())
    }

    /// Reads a state that [`save_file`](Self::save_file) wrote.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or does not hold a state.
    pub fn load_file(path: impl AsRef<Path>, device: &Device) -> Result<Self, RecordError> {
        let mut pack = Pack::load(path.as_ref())?;
        Self::from_record(SabLstmStateRecord::unpack("", &mut pack)?, device)
    }
}

impl SabLstmStateRecord {
    /// # Errors
    ///
    /// If shapes or data types do not fit each other.
    fn check(&self) -> Result<(), RecordError> {
        let (rows, hidden) = match self.hidden.shape().as_slice() {
            [rows, hidden] if *rows > 0 && *hidden > 0 => (*rows, *hidden),
            other => return Err(misfit("hidden", other, "[rows, units], both at least 1")),
        };
        let float = self.hidden.dtype();
        if !float.is_float() {
            return Err(invalid(format!("hidden is {float:?}, expected floating-point numbers")));
        }
        // Later steps are counted on from it.
        if isize::try_from(self.step).is_err() {
            return Err(invalid(format!("step = {}: too large a number", self.step)));
        }
        fits("cell", &self.cell, &[rows, hidden], float)?;
        let count = self.slots.as_ref().map_or(0, second);
        if let Some(slots) = &self.slots {
            fits("slots", slots, &[rows, count.max(1), hidden], float)?;
        }
        if let Some(keys) = &self.keys {
            let size = keys.values.shape().as_slice().get(2).copied().unwrap_or(0);
            fits("keys", &keys.values, &[rows, count.max(1), size.max(1)], float)?;
        }
        if let Some(origins) = &self.origins {
            origins.check([rows, count])?;
        }
        self.check_rows([rows, count])
    }

    /// # Errors
    ///
    /// If what rows have does not fit this number of rows and slots.
    fn check_rows(&self, [batch, count]: [usize; 2]) -> Result<(), RecordError> {
        let Some(rows) = &self.rows else { return Ok(()) };
        let most = |of: fn(&RowRecord) -> usize| rows.iter().map(of).max();
        let found = (rows.len(), most(|row| row.step), most(|row| row.slots));
        if found != (batch, Some(self.step), Some(count)) || self.origins.is_some() {
            let [steps, slots] = [found.1, found.2].map(Option::unwrap_or_default);
            return Err(invalid(format!(
                "rows are {}, of at most {steps} steps and {slots} slots, expected {batch}, of at most {} steps and \
                 {count} slots, with origins of their own",
                found.0, self.step
            )));
        }
        rows.iter().try_for_each(|row| match &row.origins {
            None => Ok(()),
            Some(origins) => origins.check([1, row.slots]),
        })
    }

    /// Adds the parts to a file, under names that begin with `prefix`.
    pub(super) fn pack(self, prefix: &str, pack: &mut Pack) {
        let mut tensor = |name: &str, data: TensorData| {
            pack.tensors.insert(format!("{prefix}{name}"), data);
        };
        tensor("cell", self.cell);
        tensor("hidden", self.hidden);
        let mut numbers = vec![("step", self.step as u64)];
        if let Some(slots) = self.slots {
            tensor("slots", slots);
        }
        if let Some(SlotKeys { values, parameters }) = self.keys {
            tensor("keys", values);
            numbers.push(("parameters", parameters));
        }
        if let Some(rows) = &self.rows {
            numbers.push(("rows", rows.len() as u64));
        }
        pack.numbers.extend(numbers.into_iter().map(|(name, n)| (format!("{prefix}{name}"), n)));
        if let Some(origins) = self.origins {
            origins.pack(prefix, pack);
        }
        for (index, row) in self.rows.into_iter().flatten().enumerate() {
            let prefix = format!("{prefix}row.{index}.");
            pack.set_count(&format!("{prefix}step"), row.step);
            pack.set_count(&format!("{prefix}slots"), row.slots);
            if let Some(origins) = row.origins {
                origins.pack(&prefix, pack);
            }
        }
    }

    /// Takes the parts whose names begin with `prefix` from a file.
    ///
    /// # Errors
    ///
    /// If one is missing.
    pub(super) fn unpack(prefix: &str, pack: &mut Pack) -> Result<Self, RecordError> {
        let keys = pack.tensors.remove(&format!("{prefix}keys"));
        let rows = pack.numbers.remove(&format!("{prefix}rows"));
        let row = |index: u64| {
            let prefix = format!("{prefix}row.{index}.");
            Ok(RowRecord {
                step: pack.count(&format!("{prefix}step"))?,
                slots: pack.count(&format!("{prefix}slots"))?,
                origins: OriginsRecord::unpack(&prefix, pack)?,
            })
        };
        // As many as there are: a damaged number ends at the first row that is missing.
        let rows = rows.map(|rows| (0..rows).map(row).collect::<Result<_, RecordError>>());
        Ok(Self {
            slots: pack.tensors.remove(&format!("{prefix}slots")),
            cell: pack.tensor(&format!("{prefix}cell"))?,
            hidden: pack.tensor(&format!("{prefix}hidden"))?,
            keys: match keys {
                None => None,
                Some(values) => Some(SlotKeys {
                    values,
                    parameters: pack.number(&format!("{prefix}parameters"))?,
                }),
            },
            origins: OriginsRecord::unpack(prefix, pack)?,
            step: pack.count(&format!("{prefix}step"))?,
            rows: rows.transpose()?,
        })
    }
}

impl OriginsRecord {
    fn new(origins: Origins) -> Self {
        Self { kept: origins.kept.into_data(), stored: origins.stored }
    }

    fn on(self, device: &Device) -> Origins {
        Origins { kept: Tensor::from_data(self.kept, device), stored: self.stored }
    }

    /// # Errors
    ///
    /// If these do not name slots of a memory of this number of rows and slots.
    fn check(&self, [rows, count]: [usize; 2]) -> Result<(), RecordError> {
        let Self { kept, stored } = self;
        let width = second(kept);
        fits("origins", kept, &[rows, width.clamp(1, count.max(1))], kept.dtype())?;
        let names = 0..isize::try_from(*stored).unwrap_or(0) as i64;
        let valid = kept.dtype().is_int() && kept.iter::<i64>().all(|name| names.contains(&name));
        if width > count || *stored < width || !valid {
            return Err(invalid(format!(
                "origins name {width} of {count} slots by numbers of {:?}, and {stored} were stored: they have to be \
                 whole numbers from 0 to {stored}",
                kept.dtype()
            )));
        }
        Ok(())
    }

    fn pack(self, prefix: &str, pack: &mut Pack) {
        pack.tensors.insert(format!("{prefix}origins"), self.kept);
        pack.set_count(&format!("{prefix}stored"), self.stored);
    }

    fn unpack(prefix: &str, pack: &mut Pack) -> Result<Option<Self>, RecordError> {
        let Some(kept) = pack.tensors.remove(&format!("{prefix}origins")) else { return Ok(None) };
        Ok(Some(Self { kept, stored: pack.count(&format!("{prefix}stored"))? }))
    }
}

/// The contents of a file of states.
#[derive(Default)]
pub(super) struct Pack {
    tensors: BTreeMap<String, TensorData>,
    numbers: BTreeMap<String, u64>,
}

impl Pack {
    pub(super) fn save(self, path: &Path) -> Result<(), RecordError> {
        let tensors = self.tensors.into_iter().map(|(name, data)| {
            let (bytes, shape, dtype) = data.into_parts();
            burn_pack::Tensor::new(name, dtype, shape, None, bytes)
        });
        let file = Writer::new(tensors.collect());
        let file = self
            .numbers
            .iter()
            .fold(file, |file, (name, n)| file.with_scalar(name, Scalar::UInt(*n)));
        Ok(file.write_to_file(path)?)
    }

    pub(super) fn load(path: &Path) -> Result<Self, RecordError> {
        // As the writer names files.
        let path = match path.extension() {
            None if !path.exists() => path.with_extension(burn_pack::EXTENSION),
            _ => path.to_owned(),
        };
        // All of it: a reader of a file takes the lengths in its head for true, and allocates what they say.
        let bytes = fs::read(&path)
            .map_err(|error| RecordError::Io(format!("{}: {error}", path.display())))?;
        let file = Reader::from_bytes(Bytes::from_bytes_vec(bytes))?;
        let number =
            |(name, number): (&String, &Scalar)| Some((name.clone(), u64::try_from(*number).ok()?));
        let numbers = file.scalars().iter().filter_map(number).collect();
        let mut tensors = BTreeMap::new();
        for tensor in file.into_tensors()? {
            let (name, dtype, shape, _, bytes) = tensor.into_parts()?;
            let data = TensorData::try_from_bytes(bytes, shape, dtype)
                .map_err(|error| invalid(format!("{name}: {error}")))?;
            tensors.insert(name, data);
        }
        Ok(Self { tensors, numbers })
    }

    fn tensor(&mut self, name: &str) -> Result<TensorData, RecordError> {
        self.tensors.remove(name).ok_or_else(|| missing(name))
    }

    pub(super) fn number(&mut self, name: &str) -> Result<u64, RecordError> {
        self.numbers.remove(name).ok_or_else(|| missing(name))
    }

    pub(super) fn count(&mut self, name: &str) -> Result<usize, RecordError> {
        let number = self.number(name)?;
        usize::try_from(number)
            .map_err(|_| invalid(format!("{name} = {number}: too large a number")))
    }

    pub(super) fn set_count(&mut self, name: &str, number: usize) {
        self.numbers.insert(name.to_owned(), number as u64);
    }
}

/// Of a record that does not hold a state.
pub(super) fn invalid(message: String) -> RecordError {
    RecordError::Validation(message)
}

/// The size of the second dimension.
fn second(data: &TensorData) -> usize {
    data.shape().as_slice().get(1).copied().unwrap_or(0)
}

fn missing(name: &str) -> RecordError {
    invalid(format!("no {name} in the file: is it a file of a state?"))
}

fn misfit(name: &str, found: &[usize], expected: &str) -> RecordError {
    invalid(format!("{name} has shape {found:?}, expected {expected}"))
}

/// # Errors
///
/// If the data do not have this shape and data type.
fn fits(name: &str, data: &TensorData, shape: &[usize], dtype: DType) -> Result<(), RecordError> {
    if data.shape().as_slice() != shape {
        return Err(misfit(name, data.shape().as_slice(), &format!("{shape:?}")));
    }
    if data.dtype() != dtype {
        let found = data.dtype();
        return Err(invalid(format!("{name} is {found:?}, expected {dtype:?}")));
    }
    Ok(())
}
