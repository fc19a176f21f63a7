//! The layer: configuration, state, module, and the way from and to `burn::nn::Lstm`.

mod budget;
mod config;
mod convert;
mod lstm;
mod scorer;
mod state;

pub use config::{InitialSlot, SabLstmConfig, ScoreConfig};
pub use lstm::{SabLstm, SabLstmOutput};
pub use scorer::Scorer;
pub use state::SabLstmState;
