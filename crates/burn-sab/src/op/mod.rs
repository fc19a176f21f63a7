//! The sequence op: a whole SAB-LSTM pass over time as one operation with one autodiff node.
//!
//! *Unstable*: this module is what [`SabLstm`](crate::SabLstm) is made of. It is public for those who build
//! another layer on it, and can change in any release.
//!
//! | file | purpose |
//! | --- | --- |
//! | `settings`, `options` | the settings of the memory; what a call computes apart from its tensors |
//! | `rows` | rows of different lengths, and with resets, in one call |
//! | `score`, `tensors` | the parameters of a score, and the tensors of a call, in any form |
//! | `check` | the one check of a call's inputs |
//! | `index` | the rule by which a step searches a few lists of slots, in plain code |
//! | `reference` | the readable twin: ordinary tensor operations under Burn's own autodiff |
//! | `kernel`, `route`, `coverage` | what a kernel is, which one runs a call, and why one does not |
//! | `primitives` | forward and hand-written backward in backend primitives, for every backend |
//! | `cpu`, `host` | the fused CPU kernel over slices, and flex and ndarray on it |
//! | `gpu` | the kernels of every CubeCL runtime: wgpu, CUDA, ROCm |
//! | `prim` | backend primitives as arithmetic, for the two above that use them |
//! | `backend`, `autodiff` | the op as a backend extension, and as one node of Burn's graph |
//! | `remote` | the op on a device of another machine |
//! | `stream` | one step after another, with a memory in the kernel's own form |
//!
//! Shapes: B batch, T steps, I inputs, H units, A attention size, M slots. Gate order i, f, g, o.
//! Time and memory of a call: O(T (H (I + H) + M A)) and O(T H + M (H + A)) elements per row.

#[cfg(feature = "autodiff")]
mod autodiff;
mod backend;
mod check;
mod coverage;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod cpu;
#[cfg(feature = "cube")]
mod gpu;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;
mod index;
mod kernel;
mod options;
mod prim;
mod primitives;
mod reference;
#[cfg(feature = "remote")]
mod remote;
mod route;
mod rows;
mod score;
mod settings;
mod stream;
mod tensors;

pub use check::InputError;
pub(crate) use check::{fits as check_tensor, rows as check_rows, steps as check_steps};
pub use coverage::{Coverage, NotCovered};
pub use options::{Readout, SabOptions};
pub use reference::{Activations, Cell};
#[cfg(feature = "remote-server")]
pub use remote::register_ops;
pub use rows::Row;
pub(crate) use rows::RowTable;
pub use score::{Score, ScoreKind};
pub use settings::{
    InitialSlot, Recompute, SabSettings, Setting, SettingValue, Sparsifier, Strategy,
};
pub(crate) use settings::{for_each_setting, place, positive, settings_setters};
pub(crate) use stream::SlotKeys;
pub use stream::{SlotMemory, StepOutputs};
pub use tensors::{Reminders, SabInputs, SabOutputs};

use backend::SabBackend;
use burn::backend::Dispatch;

/// Runs a standard cell over the sequence with one autodiff node, whatever T is; for
/// [`Strategy::Reference`] runs the readable twin.
///
/// # Errors
///
/// If an input does not fit the others, or a setting is out of its range.
///
/// # Panics
///
/// If the tensors live on a backend that this crate was not built for (its cargo feature is off), or
/// if [`Strategy::Fused`] is asked of a backend whose kernel does not cover the call.
pub fn sab_sequence(inputs: SabInputs, options: &SabOptions) -> Result<SabOutputs, InputError> {
    if options.settings.strategy == Strategy::Reference {
        return sab_sequence_with_cell(inputs, options, &Cell::standard());
    }
    inputs.check(options, Cell::standard().gates())?;
    let options = options.bound_by(&inputs);
    expect_runs(&inputs, &options)?;
    Ok(SabOutputs::from_dispatch(Dispatch::sab_sequence(inputs.into_dispatch(), options)))
}

/// # Errors
///
/// If rows differ and no kernel runs them, or if the server of a remote device does not answer.
fn expect_runs(inputs: &SabInputs, options: &SabOptions) -> Result<(), InputError> {
    #[cfg(feature = "remote")]
    remote::expect_answer(&inputs.x.device(), options)?;
    if options.rows.is_none() {
        return Ok(());
    }
    if options.settings.strategy == Strategy::Primitives {
        return Err(InputError::Rows { why: "backend primitives do not run them".to_owned() });
    }
    let coverage = Dispatch::sab_coverage(inputs.clone().into_dispatch(), options.clone());
    coverage.map_err(|why| InputError::Rows { why: why.to_string() })
}

/// Runs the readable twin, whose cell may be any.
///
/// # Errors
///
/// If an input does not fit the others, or a setting is out of its range.
pub fn sab_sequence_with_cell(
    inputs: SabInputs,
    options: &SabOptions,
    cell: &Cell,
) -> Result<SabOutputs, InputError> {
    inputs.check(options, cell.gates())?;
    if options.rows.is_some() {
        return Err(InputError::Rows { why: "the reference does not run them".to_owned() });
    }
    Ok(reference::sab_sequence(inputs, options, cell))
}

/// Whether the backend's own kernel runs a call; if not, [`Strategy::Auto`] takes backend primitives.
///
/// # Errors
///
/// If an input does not fit the others, or a setting is out of its range.
pub fn sab_coverage(inputs: SabInputs, options: &SabOptions) -> Result<Coverage, InputError> {
    inputs.check(options, Cell::standard().gates())?;
    let options = options.bound_by(&inputs);
    Ok(Dispatch::sab_coverage(inputs.into_dispatch(), options))
}

/// Runs one step (`inputs.x` is `[B, 1, I]`) of a stream whose slots are in `memory`, or in `inputs` if
/// that is empty. For use without gradient: tracked inputs take an ordinary call.
///
/// # Errors
///
/// If an input does not fit the others, or a setting is out of its range.
pub fn sab_step(
    inputs: SabInputs,
    memory: SlotMemory,
    options: &SabOptions,
) -> Result<StepOutputs, InputError> {
    inputs.check_beside(memory.len(), options, Cell::standard().gates())?;
    let options = options.bound_by(&inputs);
    expect_runs(&inputs, &options)?;
    Ok(StepOutputs::from_dispatch(Dispatch::sab_step(inputs.into_dispatch(), memory, options)))
}

/// Frees the memory that the CPU kernel keeps for its next call: at most 512 MiB for each data type.
pub fn release_memory() {
    #[cfg(any(feature = "flex", feature = "ndarray"))]
    cpu::release();
}
