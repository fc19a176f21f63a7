//! The layer: configuration, state, module, and the way from and to `burn::nn::Lstm`.

mod budget;
mod config;
mod convert;
mod lstm;
mod scorer;
mod segments;
mod state;

pub use config::{SabLstmConfig, ScoreConfig};
pub use lstm::{SabLstm, SabLstmOutput};
pub use scorer::{AdditiveScorer, DotScorer, MlpScorer, Scorer};
pub use segments::Segments;
pub use state::SabLstmState;
