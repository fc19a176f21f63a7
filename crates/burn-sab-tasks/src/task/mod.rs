//! The tasks: what a sequence looks like, what is asked about it, and how an answer is judged.

pub(crate) mod adding;
pub(crate) mod copying;
mod metrics;

pub use metrics::Metrics;
pub(crate) use metrics::Tally;

use burn::tensor::{Int, Tensor, activation::log_softmax};
use serde::{Deserialize, Serialize};

/// Pixels of a side of an image of MNIST, of an image of it and of CIFAR-10, and what a pixel of CIFAR-10
/// consists of.
pub(crate) const MNIST_SIDE: usize = 28;
pub(crate) const MNIST_PIXELS: usize = MNIST_SIDE * MNIST_SIDE;
pub(crate) const CIFAR_PIXELS: usize = 32 * 32;
pub(crate) const CIFAR_CHANNELS: usize = 3;

/// A task on sequences that are generated on the fly, or come from files.
///
/// Every task has a *span*, the distance over which the network has to remember: the delay of the
/// copying task, the length of a sequence in the others. A curriculum grows it, and tests stretch it; for
/// images it is what it is.
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
    /// Say which digit an image of MNIST shows after its 784 pixels have been seen one by one.
    PixelMnist {
        /// Whether the pixels come in an order that was drawn once and for all, not line by line.
        permuted: bool,
    },
    /// Say what an image of CIFAR-10 shows after its 1,024 pixels have been seen one by one, each as three
    /// values.
    PixelCifar,
    /// Say the next character, at every step, of a window of a text; the network knows nothing of what
    /// came before the window.
    Text {
        /// How many different bytes the text has.
        characters: usize,
    },
}

/// Classes of MNIST and of CIFAR-10.
const CLASSES: usize = 10;

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
    /// The symbol, class or next character at each of the last steps, `[batch, answers]`.
    Symbols(Tensor<2, Int>),
    /// The sum at the last step, `[batch, 1]`.
    Sums(Tensor<2>),
}

impl Task {
    /// The copying task as the literature has it: 10 symbols out of 8.
    pub fn copying() -> Self {
        Self::Copying { symbols: 10, alphabet: 8 }
    }

    /// The name by which the task is called on the command line and in run folders.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Copying { .. } => "copying",
            Self::Adding => "adding",
            Self::PixelMnist { .. } => "mnist",
            Self::PixelCifar => "cifar",
            Self::Text { .. } => "text",
        }
    }

    /// What the span is called: "delay" or "length".
    pub fn span_name(&self) -> &'static str {
        match self {
            Self::Copying { .. } => "delay",
            _ => "length",
        }
    }

    /// The smallest span for which the task exists.
    pub fn shortest_span(&self) -> usize {
        match self {
            Self::Copying { .. } | Self::Text { .. } => 1,
            Self::Adding => 2,
            Self::PixelMnist { .. } => MNIST_PIXELS,
            Self::PixelCifar => CIFAR_PIXELS,
        }
    }

    /// Whether there is only one span.
    pub fn has_one_span(&self) -> bool {
        matches!(self, Self::PixelMnist { .. } | Self::PixelCifar)
    }

    /// Whether the sequences come from files.
    pub fn needs_files(&self) -> bool {
        !matches!(self, Self::Copying { .. } | Self::Adding)
    }

    /// Input features per step.
    pub fn d_input(&self) -> usize {
        match self {
            Self::Copying { alphabet, .. } => alphabet + 2,
            Self::Adding => 2,
            Self::PixelMnist { .. } => 1,
            Self::PixelCifar => CIFAR_CHANNELS,
            Self::Text { characters } => *characters,
        }
    }

    /// Outputs per answering step.
    pub fn d_output(&self) -> usize {
        match self {
            Self::Copying { alphabet, .. } => *alphabet,
            Self::Adding => 1,
            Self::PixelMnist { .. } | Self::PixelCifar => CLASSES,
            Self::Text { characters } => *characters,
        }
    }

    /// Steps of a sequence with this span.
    pub fn steps(&self, span: usize) -> usize {
        match self {
            Self::Copying { symbols, .. } => span + 2 * symbols,
            _ => span,
        }
    }

    /// How many steps of a sequence with this span, the last ones, give an answer. Only these enter the
    /// loss.
    ///
    /// The authors' release takes the loss over all steps of the copying task, most of which say
    /// "blank"; that adds an easy part to the loss and nothing to what is learnt.
    pub fn answers(&self, span: usize) -> usize {
        match self {
            Self::Copying { symbols, .. } => *symbols,
            Self::Adding | Self::PixelMnist { .. } | Self::PixelCifar => 1,
            Self::Text { .. } => span,
        }
    }

    /// What training minimises, `[1]`: the cross-entropy in nats per answer, or the mean squared error.
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
