//! The layer: configuration, state, module, and the way from and to `burn::nn::Lstm` and PyTorch; layers in both
//! directions and one above the other.

mod bidirectional;
mod budget;
mod config;
mod convert;
mod lstm;
mod record;
mod rows;
mod scorer;
mod segments;
mod stack;
mod stack_state;
mod state;
#[cfg(feature = "safetensors")]
mod torch;

pub use bidirectional::SabBiLstm;
pub use config::{SabLstmConfig, ScoreConfig};
pub use lstm::{SabLstm, SabLstmOutput};
pub use record::SabLstmStateRecord;
pub use rows::StateError;
pub use scorer::{AdditiveScorer, DotScorer, MlpScorer, Scorer};
pub use segments::Segments;
pub use stack::{MemoryLayers, SabLstmStack, SabLstmStackConfig, StackLayer};
pub use stack_state::{SabLstmStackState, SabLstmStackStateRecord};
pub use state::SabLstmState;
#[cfg(feature = "safetensors")]
pub use torch::{TorchError, TorchWeights};
