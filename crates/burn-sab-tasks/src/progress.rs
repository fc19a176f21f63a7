//! How far a training run is.

use serde::{Deserialize, Serialize};

use crate::config::TrainConfig;
use crate::event::EventSum;
use crate::stream::{DataStream, Purpose};
use crate::task::Metrics;

/// The best evaluation of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The update after which it was made.
    pub update: usize,
    /// What it showed, at the target span.
    pub metrics: Metrics,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// An evaluation reached [`TrainConfig::stop_at`].
    Reached,
    /// All updates were made.
    BudgetSpent,
}

/// How far a run is: with weights and optimiser, all that it needs to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) update: usize,
    pub(crate) stream: DataStream,
    pub(crate) longest: usize,
    pub(crate) longest_trained: usize,
    pub(crate) skipped: usize,
    pub(crate) skipped_in_a_row: usize,
    pub(crate) best: Option<Best>,
    pub(crate) ending: Option<Ending>,
    pub(crate) seconds: f64,
    /// `None` in a run that an earlier version began.
    #[serde(default)]
    pub(crate) events: Option<EventSum>,
}

impl Progress {
    /// That of a run that has not begun.
    pub(crate) fn new(config: &TrainConfig) -> Self {
        Self {
            update: 0,
            stream: DataStream::new(config.seed, Purpose::Training),
            longest: config.curriculum.first_longest(&config.task, config.span),
            longest_trained: 0,
            skipped: 0,
            skipped_in_a_row: 0,
            best: None,
            ending: None,
            seconds: 0.0,
            events: Some(EventSum::default()),
        }
    }
}
