use std::io;
use std::path::PathBuf;

use burn_sab::ConfigError;

use crate::data::DataError;

/// Why training could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting of the layer is out of its range.
    #[error(transparent)]
    Layer(#[from] ConfigError),
    /// The task's files cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A setting of the training is out of its range.
    #[error("{setting} is {value}, but {rule}")]
    Setting {
        /// The setting's name, as in [`TrainConfig`](crate::TrainConfig).
        setting: &'static str,
        /// The value that was given.
        value: String,
        /// What the value has to be.
        rule: &'static str,
    },
    /// More memory than any request that is meant.
    #[error("{what} would take at least {gib} GiB, more than {most} GiB: {remedy}")]
    Memory {
        /// What takes it.
        what: &'static str,
        /// GiB that it takes.
        gib: u128,
        /// Most GiB.
        most: u128,
        /// What to change.
        remedy: &'static str,
    },
    /// A span of a test out of its range.
    #[error("a test at {span}: it has to be at least {least}, and at most 2147483648")]
    TestSpan {
        /// The span.
        span: usize,
        /// The shortest span of the task.
        least: usize,
    },
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A checkpoint is there but cannot be used.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The checkpoint's folder or file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An [`Event`](crate::Event) could not be passed on.
    #[error(transparent)]
    Observer(io::Error),
    /// Loss or gradients stayed infinite or not a number.
    #[error(
        "the loss or its gradient was not finite for {skipped} updates in a row, up to update \
         {update}; a smaller learning rate or clipping norm may help"
    )]
    Diverged {
        /// The last of these updates.
        update: usize,
        /// How many there were.
        skipped: usize,
    },
}
