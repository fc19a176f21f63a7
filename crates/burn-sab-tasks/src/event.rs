use std::io;

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
        /// What was not finite: "loss", "gradient of PATH" with the path of a parameter in the network, or "norm of
        /// the gradient" if every gradient is finite and the sum of their squares is not.
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

    /// The event as one line of JSON, with its line end.
    ///
    /// # Errors
    ///
    /// None that a caller can cause: every event can be written as JSON.
    pub fn to_line(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// Length and CRC-32 of events as JSON lines: tells whether a file has all that happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSum {
    /// Bytes of the lines, line ends included.
    pub bytes: u64,
    /// Their CRC-32.
    pub crc32: u32,
}

impl EventSum {
    /// The sum of `lines`.
    pub fn of(lines: &[u8]) -> Self {
        let mut sum = Self::default();
        sum.add(lines);
        sum
    }

    pub(crate) fn add(&mut self, lines: &[u8]) {
        let mut hasher = crc32fast::Hasher::new_with_initial_len(self.crc32, self.bytes);
        hasher.update(lines);
        self.bytes += lines.len() as u64;
        self.crc32 = hasher.finalize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_of_parts_is_that_of_the_whole() {
        let mut sum = EventSum::of(b"one\n");
        sum.add(b"");
        sum.add(b"two\n");
        assert_eq!(sum, EventSum::of(b"one\ntwo\n"));
        assert_ne!(sum, EventSum::of(b"one\ntwp\n"));
    }
}
