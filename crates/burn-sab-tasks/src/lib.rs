//! Tasks on which networks with a long memory are compared, and what is needed to train on
//! them: data, metrics, a model around [`SabLstm`](burn_sab::SabLstm), the baselines, a curriculum,
//! and a training loop that can be interrupted and resumed exactly.
//!
//! Nothing here prints or reads a terminal: [`Trainer::run`] reports through [`Event`]s.
//!
//! ```no_run
//! use burn::tensor::Device;
//! use burn_sab_tasks::{Task, TrainConfig, Trainer};
//!
//! # fn main() -> Result<(), burn_sab_tasks::TrainError> {
//! let config = TrainConfig::new(Task::copying());
//! let mut trainer = Trainer::new(config, &Device::default())?;
//! trainer.run(None, |event| {
//!     println!("{event:?}");
//!     Ok(())
//! })?;
//! # Ok(())
//! # }
//! ```

mod average;
mod checkpoint;
mod clip;
mod config;
mod curriculum;
mod data;
mod draw;
mod error;
mod evaluate;
mod event;
mod gru;
mod mingru;
mod model;
mod progress;
mod recall;
mod reminders;
mod stream;
mod task;
mod train;
mod transformer;

pub use config::{ModelKind, TrainConfig};
pub use curriculum::Curriculum;
#[cfg(feature = "download")]
pub use data::download_mnist;
#[doc(hidden)]
pub use data::fuzz;
pub use data::{DataError, Examples, Recording};
pub use draw::draw;
pub use error::{Damage, TrainError};
pub use evaluate::evaluate;
pub use event::{Event, EventSum};
pub use model::TaskModel;
pub use progress::{Best, Ending};
pub use recall::recall;
pub use reminders::{Moment, Reminded, Reminder, reminders};
pub use stream::{DataStream, Purpose};
pub use task::{Batch, Metrics, Target, Task};
pub use train::Trainer;
