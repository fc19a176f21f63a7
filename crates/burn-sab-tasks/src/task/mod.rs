//! The tasks: what a sequence looks like, what is asked about it, and how an answer is judged.

mod adding;
mod copying;
mod metrics;

pub use metrics::Metrics;
pub(crate) use metrics::Tally;

use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};
use serde::{Deserialize, Serialize};

use crate::stream::DataStream;

/// A task on sequences that are generated on the fly.
///
/// Every task has a *span*, the distance over which the network has to remember: the delay of the
/// copying task, the length of the adding task. A curriculum grows it, and tests stretch it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Say a string of symbols again after a delay.
    ///
    /// A sequence is `symbols` symbols drawn from `alphabet`, `delay - 1` blanks, one marker, and
    /// `symbols` blanks during which the symbols are to be said in their order: `delay + 2 *
    /// symbols` steps. The input is one-hot over the alphabet, the blank and the marker.
    Copying {
        /// Symbols to be remembered, 10 in the literature.
        symbols: usize,
        /// How many different symbols there are, 8 in the literature. Chance is one in `alphabet`.
        alphabet: usize,
    },
    /// Add two marked numbers.
    ///
    /// Each step has a number in `[0, 1)` and a mark; one step in each half of the sequence is
    /// marked, and the sum of the two marked numbers is asked for at the last step. Always
    /// answering 1 gives a mean squared error of 1/6.
    Adding,
}

/// Sequences of a task and the answers to them.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[batch, time, d_input]`
    pub input: Tensor<3>,
    /// What the last steps should answer.
    pub target: Target,
}

/// The right answers of a batch.
#[derive(Debug, Clone)]
pub enum Target {
    /// The symbol at each of the last steps, `[batch, symbols]`.
    Symbols(Tensor<2, Int>),
    /// The sum at the last step, `[batch, 1]`.
    Sums(Tensor<2>),
}

impl Task {
    /// The copying task as the literature has it: 10 symbols out of 8.
    pub fn copying() -> Self {
        Self::Copying { symbols: 10, alphabet: 8 }
    }

    /// The name by which the task is called in run folders.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Copying { .. } => "copying",
            Self::Adding => "adding",
        }
    }

    /// What the span is called: "delay" or "length".
    pub fn span_name(&self) -> &'static str {
        match self {
            Self::Copying { .. } => "delay",
            Self::Adding => "length",
        }
    }

    /// The smallest span for which the task exists.
    pub fn shortest_span(&self) -> usize {
        match self {
            Self::Copying { .. } => 1,
            Self::Adding => 2,
        }
    }

    /// Input features per step.
    pub fn d_input(&self) -> usize {
        match self {
            Self::Copying { alphabet, .. } => alphabet + 2,
            Self::Adding => 2,
        }
    }

    /// Outputs per answering step.
    pub fn d_output(&self) -> usize {
        match self {
            Self::Copying { alphabet, .. } => *alphabet,
            Self::Adding => 1,
        }
    }

    /// Steps of a sequence with this span.
    pub fn steps(&self, span: usize) -> usize {
        match self {
            Self::Copying { symbols, .. } => span + 2 * symbols,
            Self::Adding => span,
        }
    }

    /// How many steps, the last ones, give an answer. Only these enter the loss.
    ///
    /// The authors' release takes the loss over all steps of the copying task, most of which say
    /// "blank"; that adds an easy part to the loss and nothing to what is learnt.
    pub fn answers(&self) -> usize {
        match self {
            Self::Copying { symbols, .. } => *symbols,
            Self::Adding => 1,
        }
    }

    /// Draws `rows` sequences with this span.
    pub fn batch(
        &self,
        stream: &mut DataStream,
        span: usize,
        rows: usize,
        device: &Device,
    ) -> Batch {
        let input_shape = [rows, self.steps(span), self.d_input()];
        let answer_shape = [rows, self.answers()];
        let (input, target) = match *self {
            Self::Copying { symbols, alphabet } => {
                let (input, said) = copying::sequences(stream, rows, symbols, alphabet, span);
                let said = Tensor::from_data(TensorData::new(said, answer_shape), device);
                (input, Target::Symbols(said))
            }
            Self::Adding => {
                let (input, sums) = adding::sequences(stream, rows, span);
                let sums = Tensor::from_data(TensorData::new(sums, answer_shape), device);
                (input, Target::Sums(sums))
            }
        };
        let input = Tensor::from_data(TensorData::new(input, input_shape), device);
        Batch { input, target }
    }

    /// What training minimises, `[1]`: the cross-entropy in nats per symbol, or the mean squared error.
    ///
    /// `answers` is `[batch, answers, d_output]`: logits, or the sum.
    pub fn loss(&self, answers: Tensor<3>, target: Target) -> Tensor<1> {
        match target {
            Target::Symbols(symbols) => {
                log_softmax(answers, 2).gather(2, symbols.unsqueeze_dim(2)).mean().neg()
            }
            Target::Sums(sums) => (answers.squeeze_dim::<2>(2) - sums).square().mean(),
        }
    }
}
