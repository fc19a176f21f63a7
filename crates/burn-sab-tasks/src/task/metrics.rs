//! How well a task was done.

use std::f64::consts::LN_2;

use burn::tensor::{Tensor, activation::log_softmax};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Target, Task};

/// How well a task was done on a set of sequences.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Metrics {
    /// Symbols or classes that had to be said.
    Classes {
        /// Share of them said right, 0 to 1.
        #[serde(deserialize_with = "number_or_null")]
        accuracy: f64,
        /// Nats per answer; the logarithm of the number of classes for a network that knows nothing.
        #[serde(deserialize_with = "number_or_null")]
        cross_entropy: f64,
    },
    /// Next characters of a text.
    Text {
        /// Cross-entropy in bits.
        #[serde(deserialize_with = "number_or_null")]
        bits_per_character: f64,
        /// Share of characters said right, 0 to 1.
        #[serde(deserialize_with = "number_or_null")]
        accuracy: f64,
    },
    /// Sums of the adding task.
    Adding {
        /// Mean squared error of the sums; 0.167 for a network that always says 1.
        #[serde(deserialize_with = "number_or_null")]
        mse: f64,
    },
}

/// JSON has no NaN and no infinity; both are written as null.
fn number_or_null<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

impl Metrics {
    /// Whether this is better than `other`: higher accuracy, then lower cross-entropy; fewer bits; lower
    /// error.
    pub fn is_better_than(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Classes { accuracy, cross_entropy },
                Self::Classes { accuracy: other, cross_entropy: other_entropy },
            ) => accuracy > other || (accuracy == other && cross_entropy < other_entropy),
            (
                Self::Text { bits_per_character: bits, .. },
                Self::Text { bits_per_character: other, .. },
            ) => bits < other,
            (Self::Adding { mse }, Self::Adding { mse: other }) => mse < other,
            _ => false,
        }
    }

    /// Whether no metric is infinite or not a number.
    pub(crate) fn is_finite(&self) -> bool {
        self.named().iter().all(|(_, value)| value.is_finite())
    }

    /// Whether the accuracy is at least `level`, or bits or mean squared error at most `level`.
    pub fn reaches(&self, level: f64) -> bool {
        match self {
            Self::Classes { accuracy, .. } => *accuracy >= level,
            Self::Text { bits_per_character, .. } => *bits_per_character <= level,
            Self::Adding { mse } => *mse <= level,
        }
    }

    /// The metrics by name, in the order in which tables show them.
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        match *self {
            Self::Classes { accuracy, cross_entropy } => {
                vec![("accuracy", accuracy), ("cross_entropy", cross_entropy)]
            }
            Self::Text { bits_per_character, accuracy } => {
                vec![("bits_per_character", bits_per_character), ("accuracy", accuracy)]
            }
            Self::Adding { mse } => vec![("mse", mse)],
        }
    }
}

/// Sums over the batches of an evaluation.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    answers: f64,
    loss: f64,
    right: f64,
}

impl Tally {
    /// Counts a batch; `answers` is `[batch, answers, d_output]`.
    pub(crate) fn add(&mut self, answers: Tensor<3>, target: Target) {
        let answers = target.asked(answers);
        let [rows, per_row, _] = answers.dims();
        self.answers += (rows * per_row) as f64;
        match target {
            Target::Symbols(symbols) | Target::SymbolsAt { symbols, .. } => {
                let symbols = symbols.unsqueeze_dim::<3>(2);
                let right = answers.clone().argmax(2).equal(symbols.clone()).int().sum();
                self.right += right.into_scalar::<i64>() as f64;
                let loss = log_softmax(answers, 2).gather(2, symbols).sum().neg();
                self.loss += loss.into_scalar::<f64>();
            }
            Target::Sums(sums) => {
                let loss = (answers.squeeze_dim::<2>(2) - sums).square().sum();
                self.loss += loss.into_scalar::<f64>();
            }
        }
    }

    pub(crate) fn metrics(&self, task: &Task) -> Metrics {
        let per_answer = |sum: f64| rounded(sum / self.answers);
        match task {
            Task::Text { .. } => Metrics::Text {
                bits_per_character: per_answer(self.loss / LN_2),
                accuracy: per_answer(self.right),
            },
            Task::Adding => Metrics::Adding { mse: per_answer(self.loss) },
            _ => Metrics::Classes {
                accuracy: per_answer(self.right),
                cross_entropy: per_answer(self.loss),
            },
        }
    }
}

/// To 12 decimals. Such numbers survive the way through JSON to the last bit, which a resumed run needs
/// in order to choose the same best checkpoint (a parser may be one bit off for 17 digits).
fn rounded(x: f64) -> f64 {
    (x * 1e12).round() / 1e12
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn accuracy_and_cross_entropy_of_known_answers() {
        let device = Device::flex();
        // Two of three right; the logits are log-probabilities of 1/2 and 1/2, or 3/4 and 1/4.
        let answers =
            Tensor::<3>::from_data([[[0.75f32, 0.25], [0.25, 0.75], [0.75, 0.25]]], &device).log();
        let said = Target::Symbols(Tensor::from_data([[0i64, 1, 1]], &device));
        let mut tally = Tally::default();
        tally.add(answers, said);
        let Metrics::Classes { accuracy, cross_entropy } = tally.metrics(&Task::copying()) else {
            panic!("metrics of another task")
        };
        let expected = -(2.0 * 0.75f64.ln() + 0.25f64.ln()) / 3.0;
        assert!((accuracy - 2.0 / 3.0).abs() < 1e-11);
        assert!((cross_entropy - expected).abs() < 1e-6, "{cross_entropy} {expected}");
        let Metrics::Text { bits_per_character, accuracy } =
            tally.metrics(&Task::Text { characters: 2 })
        else {
            panic!("metrics of another task")
        };
        assert!((bits_per_character - expected / LN_2).abs() < 1e-6, "{bits_per_character}");
        assert!((accuracy - 2.0 / 3.0).abs() < 1e-11);
    }

    #[test]
    fn only_what_is_asked_for_counts() {
        let device = Device::flex();
        // Rows of three steps; only the third step of the first and the first of the second are right.
        let (sure, wrong) = ([9.0f32, 0.0], [0.0, 9.0]);
        let answers = Tensor::<3>::from_data([[wrong, wrong, sure], [sure, wrong, wrong]], &device);
        let at = |places: [[i64; 2]; 2]| Target::SymbolsAt {
            symbols: Tensor::from_data([[0i64, 0], [0, 0]], &device),
            places: Tensor::from_data(places, &device),
        };
        for (places, right) in [([[1, 2], [0, 1]], 0.5), ([[2, 2], [0, 0]], 1.0)] {
            let mut tally = Tally::default();
            tally.add(answers.clone(), at(places));
            let Metrics::Classes { accuracy, cross_entropy } = tally.metrics(&Task::recall())
            else {
                panic!("metrics of another task")
            };
            assert_eq!(accuracy, right);
            let loss = Task::recall().loss(answers.clone(), at(places)).into_scalar::<f64>();
            assert!((loss - cross_entropy).abs() < 1e-6, "{loss} {cross_entropy}");
        }
    }

    #[test]
    fn mean_squared_error_over_batches() {
        let device = Device::flex();
        let mut tally = Tally::default();
        for (answer, sum) in [(1.0f32, 0.5f32), (1.0, 2.0)] {
            tally.add(
                Tensor::from_data([[[answer]]], &device),
                Target::Sums(Tensor::from_data([[sum]], &device)),
            );
        }
        assert_eq!(tally.metrics(&Task::Adding), Metrics::Adding { mse: (0.25 + 1.0) / 2.0 });
    }

    #[test]
    fn better_means_more_right_then_surer() {
        let text = |bits_per_character| Metrics::Text { bits_per_character, accuracy: 0.5 };
        assert!(text(1.4).is_better_than(&text(1.5)) && text(1.4).reaches(1.4));
        let copying = |accuracy, cross_entropy| Metrics::Classes { accuracy, cross_entropy };
        assert!(copying(0.9, 1.0).is_better_than(&copying(0.8, 0.1)));
        assert!(copying(0.9, 0.1).is_better_than(&copying(0.9, 0.2)));
        assert!(!copying(0.9, 0.1).is_better_than(&copying(0.9, 0.1)));
        assert!(Metrics::Adding { mse: 0.1 }.is_better_than(&Metrics::Adding { mse: 0.2 }));
        assert!(copying(0.99, 0.0).reaches(0.99) && !Metrics::Adding { mse: 0.1 }.reaches(0.01));
    }
}
