use serde::{Deserialize, Serialize};

use crate::task::Metrics;

/// Something that happened during training. Serialised, an event is one line of `metrics.jsonl`.
///
/// Events hold nothing that differs between two runs of one configuration (no times), so that a
/// resumed run can be compared with an uninterrupted one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// The weights were updated.
    Update {
        /// Updates so far, this one included.
        update: usize,
        /// The span that the batch had.
        span: usize,
        /// The loss before the update: nats per symbol, or mean squared error.
        loss: f64,
        /// Norm of the gradient of all weights together, before clipping.
        gradient_norm: f64,
        /// The learning rate.
        lr: f64,
    },
    /// Loss or gradient were infinite or not a number; the weights were left as they were.
    Skipped {
        /// Updates so far, this one included.
        update: usize,
        /// The span that the batch had.
        span: usize,
        /// What was not finite: "loss" or "gradient".
        what: String,
    },
    /// The network masters the longest span of the curriculum, which therefore grew.
    Grown {
        /// Updates so far.
        update: usize,
        /// What the network achieved at the span `from`.
        metrics: Metrics,
        /// The longest span until now.
        from: usize,
        /// The longest span from now on.
        to: usize,
    },
    /// The network was tried on the held-out sequences at the target span.
    Evaluation {
        /// Updates so far.
        update: usize,
        /// The target span.
        span: usize,
        /// How well it did.
        metrics: Metrics,
        /// Whether this is the best evaluation so far.
        best: bool,
        /// The longest span of the curriculum so far.
        longest: usize,
    },
}

impl Event {
    /// The update after which this happened (counted from 1).
    pub fn update(&self) -> usize {
        match *self {
            Self::Update { update, .. }
            | Self::Skipped { update, .. }
            | Self::Grown { update, .. }
            | Self::Evaluation { update, .. } => update,
        }
    }
}
