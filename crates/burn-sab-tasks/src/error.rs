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
    /// A folder has no checkpoint.
    #[error("{}: there is no checkpoint in this folder", .0.display())]
    NoCheckpoint(PathBuf),
    /// A checkpoint is damaged.
    #[error("{0}")]
    Checkpoint(Damage),
    /// Every checkpoint of a run is damaged.
    #[error(
        "no checkpoint is intact: {}; restore one from a copy, or start the run again from its settings",
        in_words(.0)
    )]
    NoIntactCheckpoint(Vec<Damage>),
    /// The training was stopped by [`Trainer::stop_when`](crate::Trainer::stop_when); if there is a folder, its latest
    /// checkpoint is of this update.
    #[error("stopped after update {update}")]
    Stopped {
        /// The last update that was made.
        update: usize,
    },
    /// An [`Event`](crate::Event) could not be passed on.
    #[error(transparent)]
    Observer(io::Error),
    /// Loss or gradients stayed infinite or not a number.
    #[error(
        "update {update}: the {what} is not finite, and nor was the loss or a gradient in the {} updates before it; \
         a smaller learning rate or clipping norm may help", skipped - 1
    )]
    Diverged {
        /// The last of these updates.
        update: usize,
        /// How many there were.
        skipped: usize,
        /// What was not finite in the last one, as in [`Event::Skipped`](crate::Event::Skipped).
        what: String,
    },
}

/// A file of a checkpoint that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

fn in_words(damage: &[Damage]) -> String {
    damage.iter().map(Damage::to_string).collect::<Vec<_>>().join("; ")
}
