//! The one check of a call's inputs, on every path.

use burn::tensor::{DType, Device, Tensor};
use thiserror::Error;

use super::coverage::NotCovered;
use super::options::{Readout, SabOptions};
use super::rows::Row;
use super::score::Score;
use super::tensors::SabInputs;
use crate::error::ConfigError;

/// An input that a call cannot use.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum InputError {
    /// A tensor of another shape.
    #[error("{name} has shape {found:?}, expected {expected:?} ({why})")]
    Shape {
        /// The tensor.
        name: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that it has to have.
        expected: Vec<usize>,
        /// Where that comes from.
        why: &'static str,
    },
    /// A tensor of another data type than the weights.
    #[error("{name} (shape {shape:?}) is {found:?}, expected {expected:?} as the weights: cast it")]
    DataType {
        /// The tensor.
        name: &'static str,
        /// Its shape.
        shape: Vec<usize>,
        /// Its data type.
        found: DType,
        /// That of the weights.
        expected: DType,
    },
    /// A tensor on another device than the weights.
    #[error(
        "{name} (shape {shape:?}) is on {found}, expected {expected} as the weights: move it with to_device"
    )]
    Device {
        /// The tensor.
        name: &'static str,
        /// Its shape.
        shape: Vec<usize>,
        /// Its device.
        found: String,
        /// That of the weights.
        expected: String,
    },
    /// Requested steps that are empty, not in ascending order, or beyond the sequence.
    #[error(
        "steps {steps:?}: they have to rise, be at least one, and be below {time}, the length of the sequence"
    )]
    Steps {
        /// The steps.
        steps: Vec<usize>,
        /// T
        time: usize,
    },
    /// Lengths or resets that do not fit the batch.
    #[error("row {row}: {what}")]
    Row {
        /// The row.
        row: usize,
        /// What does not fit, and what would.
        what: String,
    },
    /// Rows of different lengths, or with resets, that no kernel runs.
    #[error("rows of different extent: {why}")]
    Rows {
        /// Why not.
        why: String,
    },
    /// More slots than the kernels can index.
    #[error("{slots} slots: at most 2^31 - 1 can be numbered; set slot_budget or a larger k_att")]
    Slots {
        /// Slots at the end of the call.
        slots: usize,
    },
    /// A call for the server of a remote device, which does not run it.
    #[error("{why}")]
    Server {
        /// Why not.
        why: NotCovered,
    },
    /// A setting out of its range.
    #[error(transparent)]
    Setting(#[from] ConfigError),
}

/// # Errors
///
/// If the steps do not rise, if there is none, or if one is not below `time`.
pub(crate) fn steps(steps: &[usize], time: usize) -> Result<(), InputError> {
    let rising = steps.windows(2).all(|pair| pair[0] < pair[1]);
    if rising && steps.last().is_some_and(|last| *last < time) {
        Ok(())
    } else {
        Err(InputError::Steps { steps: steps.to_vec(), time })
    }
}

/// # Errors
///
/// If there are not as many rows as the batch has, or if one does not fit a call of `time` steps that carries
/// `carried` slots.
pub(crate) fn rows(rows: &[Row], [batch, time, carried]: [usize; 3]) -> Result<(), InputError> {
    if rows.len() != batch {
        let what = format!("there are {} rows, expected {batch}, the batch of x", rows.len());
        return Err(InputError::Row { row: rows.len().min(batch), what });
    }
    for (row, Row { length, resets, carried: of_row, .. }) in rows.iter().enumerate() {
        let wrong = |what| Err(InputError::Row { row, what });
        if *length > time {
            return wrong(format!("length {length}, expected at most {time}, the steps of x"));
        }
        let rising = resets.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || resets.last().is_some_and(|last| *last >= time) {
            return wrong(format!(
                "resets at {resets:?}: they have to rise and be below {time}, the steps of x"
            ));
        }
        if *of_row > carried {
            return wrong(format!("{of_row} carried slots, expected at most {carried}"));
        }
    }
    Ok(())
}

impl SabInputs {
    /// Checks settings, shapes, data types and devices; the packed weights hold `gates` gates. B, T are those
    /// of `x`, I and H those of the weights.
    ///
    /// # Errors
    ///
    /// The first input that does not fit.
    pub(crate) fn check(&self, options: &SabOptions, gates: usize) -> Result<(), InputError> {
        self.check_beside(0, options, gates)
    }

    /// As [`check`](Self::check), where a memory beside the inputs has this number of slots.
    ///
    /// # Errors
    ///
    /// The first input that does not fit.
    pub(crate) fn check_beside(
        &self,
        memory: usize,
        options: &SabOptions,
        gates: usize,
    ) -> Result<(), InputError> {
        options.settings.validate_with(self.score.kind())?;
        let [batch, time, _] = self.x.dims();
        let ([input, _], [hidden, _]) = (self.w_ih.dims(), self.w_hh.dims());
        if let Readout::At(given) = &options.readout {
            steps(given, time)?;
        }
        let carried = self.slots.as_ref().map_or(memory, |slots| slots.dims()[1]);
        if let Some(all) = &options.rows {
            rows(all, [batch, time, carried])?;
        }
        let slots = carried.saturating_add(options.most_stored(time));
        if i32::try_from(slots).is_err() {
            return Err(InputError::Slots { slots });
        }
        let like = (self.w_hh.dtype(), self.w_hh.device());
        let packed = gates * hidden;
        let of_x = "batch of x, hidden size of w_hh";
        let Self { x, w_ih, w_hh, bias, h0, c0, slots, summary_gain, score } = self;
        fits("x", x, [batch, time, input], "[batch, time, features], features of w_ih", &like)?;
        fits("w_ih", w_ih, [input, packed], "packed gates", &like)?;
        fits("w_hh", w_hh, [hidden, packed], "packed gates", &like)?;
        fits("bias", bias, [packed], "packed gates", &like)?;
        fits("h0", h0, [batch, hidden], of_x, &like)?;
        fits("c0", c0, [batch, hidden], of_x, &like)?;
        if let Some(slots) = slots {
            fits("slots", slots, [batch, carried, hidden], of_x, &like)?;
        }
        if let Some(gain) = summary_gain {
            fits("summary_gain", gain, [hidden], "hidden size of w_hh", &like)?;
        }
        let of_score = "hidden size of w_hh, attention size of the score";
        match score {
            Score::Additive { u, v } => {
                fits("u", u, [hidden], of_score, &like)?;
                fits("v", v, [hidden], of_score, &like)
            }
            Score::Mlp { query, query_bias, memory, v } => {
                let [size] = v.dims();
                fits("query", query, [hidden, size], of_score, &like)?;
                fits("query_bias", query_bias, [size], of_score, &like)?;
                fits("memory", memory, [hidden, size], of_score, &like)?;
                fits("v", v, [size], of_score, &like)
            }
            Score::Dot { query, key } => {
                let [_, size] = key.dims();
                fits("query", query, [hidden, size], of_score, &like)?;
                fits("key", key, [hidden, size], of_score, &like)
            }
        }
    }
}

/// # Errors
///
/// If the tensor does not have this shape, which comes from `why`, and data type and device of the weights.
pub(crate) fn fits<const D: usize>(
    name: &'static str,
    tensor: &Tensor<D>,
    expected: [usize; D],
    why: &'static str,
    (dtype, device): &(DType, Device),
) -> Result<(), InputError> {
    let shape = || tensor.dims().to_vec();
    if tensor.dims() != expected {
        return Err(InputError::Shape { name, found: shape(), expected: expected.to_vec(), why });
    }
    if tensor.dtype() != *dtype {
        return Err(InputError::DataType {
            name,
            shape: shape(),
            found: tensor.dtype(),
            expected: *dtype,
        });
    }
    if tensor.device() != *device {
        return Err(InputError::Device {
            name,
            shape: shape(),
            found: format!("{:?}", tensor.device()),
            expected: format!("{device:?}"),
        });
    }
    Ok(())
}
