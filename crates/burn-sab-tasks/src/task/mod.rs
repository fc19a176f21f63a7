//! The tasks: what a sequence looks like, what is asked about it, and how an answer is judged.

pub(crate) mod adding;
pub(crate) mod copying;
pub(crate) mod induction;
mod metrics;
pub(crate) mod recall;
pub(crate) mod selective;

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
/// Steps of a series of ACSF1.
pub(crate) const APPLIANCE_STEPS: usize = 1460;

/// A task on sequences that are generated on the fly, or come from files.
///
/// Every task has a *span*, the distance over which the network has to remember: the delay of the
/// copying tasks and of the marked symbol, the length of a sequence in the others; of recordings, the most samples
/// that are read. A curriculum grows it,
/// and tests stretch it; for images it is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Repeat a string of symbols after a delay.
    ///
    /// A sequence is `symbols` symbols drawn from `alphabet`, `delay - 1` blanks, one marker, and
    /// `symbols` blanks during which the symbols are to be repeated in their order: `delay + 2 *
    /// symbols` steps. The input is one-hot over the alphabet, the blank and the marker.
    Copying {
        /// Symbols to be remembered, 10 in the literature.
        symbols: usize,
        /// How many different symbols there are, 8 in the literature. Chance is one in `alphabet`.
        alphabet: usize,
    },
    /// Repeat the symbols that stand among distractors.
    ///
    /// A sequence is `symbols` symbols drawn from `alphabet` at random places among `delay` random
    /// distractors, then `symbols` marks during which the symbols are to be repeated in their order: `delay +
    /// 2 * symbols` steps. The input is one-hot over the alphabet, the distractors and the mark.
    ///
    /// After Gu and Dao 2023, arXiv 2312.00752, section 4.1.1, where blanks stand for the distractors.
    SelectiveCopying {
        /// Symbols to be remembered.
        symbols: usize,
        /// How many different symbols there are. Chance is one in `alphabet`.
        alphabet: usize,
        /// How many different distractors there are.
        distractors: usize,
    },
    /// Name the one symbol among distractors: selective copying of one symbol, `delay + 2` steps.
    MarkedSymbol {
        /// How many different symbols there are. Chance is one in `alphabet`.
        alphabet: usize,
        /// How many different distractors there are.
        distractors: usize,
    },
    /// Name the token that followed the special token when that comes again.
    ///
    /// A sequence is random tokens drawn from `vocabulary`, the special token in the place of one of them,
    /// anywhere but at the end, and the special token again at the last step, which gives the answer. The
    /// input is one-hot over the vocabulary and the special token.
    ///
    /// Gu and Dao 2023, arXiv 2312.00752, section 4.1.2 (vocabulary 16, trained at length 256).
    Induction {
        /// How many different tokens there are. Chance is one in `vocabulary`.
        vocabulary: usize,
    },
    /// Name the values of keys: multi-query associative recall.
    ///
    /// A sequence is `pairs` keys, all different, each followed by its value; then noise of random
    /// distractors, in which `queries` of the keys, all different, stand at random places. The value of a
    /// key is to be named at the step at which the key comes again. The input is one-hot over the keys, the values
    /// and the distractors.
    ///
    /// After Arora et al. 2023, arXiv 2312.04927 (MQAR), where the noise is drawn from keys and values too and
    /// queries are more frequent soon after the pairs. Here their places are uniform.
    Recall {
        /// Pairs of a key and its value in a sequence.
        pairs: usize,
        /// Keys that are asked for in a sequence, at most `pairs`.
        queries: usize,
        /// How many different keys there are, at least `pairs`.
        keys: usize,
        /// How many different values there are. Chance is one in `values`; one in `pairs` for a network that names any
        /// of the values in the sequence.
        values: usize,
        /// How many different distractors there are.
        distractors: usize,
    },
    /// Add two marked numbers.
    ///
    /// Each step has a number in `[0, 1)` and a mark; one step in each half of the sequence is
    /// marked, and the sum of the two marked numbers is asked for at the last step. Always
    /// answering 1 gives a mean squared error of 1/6.
    Adding,
    /// Name the digit that an image of MNIST shows after its 784 pixels have been seen one by one.
    PixelMnist {
        /// Whether the pixels come in an order that was drawn once and for all, not line by line.
        permuted: bool,
    },
    /// Name the class of an image of CIFAR-10 after its 1,024 pixels have been seen one by one, each as three
    /// values.
    PixelCifar,
    /// Predict the next character, at every step, of a window of a text; the network knows nothing of what
    /// came before the window.
    Text {
        /// How many different bytes the text has.
        characters: usize,
    },
    /// Name the digit that is spoken in a recording (8 kHz) after its samples have been heard. Recordings differ in length;
    /// of longer ones than the span, as many samples are heard.
    Digits {
        /// Samples of a step, which are its features: 1 for one sample after the other.
        frame: usize,
    },
    /// Name the kind of an appliance, one of ten, after 1,460 samples of the power that it drew (ACSF1).
    Appliances,
}

/// Classes of MNIST, of CIFAR-10, of spoken digits and of appliances.
pub(crate) const CLASSES: usize = 10;

/// Sequences of a task and the answers to them.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[batch, time, d_input]`
    pub input: Tensor<3>,
    /// Steps of each row, where they differ: what is behind them is padding, and the answer is asked for at the last of
    /// them.
    pub lengths: Option<Vec<usize>>,
    /// What the last steps should answer.
    pub target: Target,
}

/// The right answers of a batch.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // one value a batch: nothing is gained by boxing
pub enum Target {
    /// The symbol, class or next character at each of the last steps, `[batch, answers]`.
    Symbols(Tensor<2, Int>),
    /// The same for some of the last steps, which differ from row to row; both `[batch, asked]`.
    SymbolsAt {
        /// The symbols.
        symbols: Tensor<2, Int>,
        /// Their steps, counted from the first of the last steps.
        places: Tensor<2, Int>,
    },
    /// The sum at the last step, `[batch, 1]`.
    Sums(Tensor<2>),
}

impl Target {
    /// The answers among `answers`, `[batch, answers, d_output]`, that are asked for.
    pub(crate) fn asked(&self, answers: Tensor<3>) -> Tensor<3> {
        let Self::SymbolsAt { places, .. } = self else { return answers };
        let [_, _, outputs] = answers.dims();
        answers.gather(1, places.clone().unsqueeze_dim::<3>(2).repeat_dim(2, outputs))
    }
}

impl Task {
    /// The copying task as the literature has it: 10 symbols out of 8.
    pub fn copying() -> Self {
        Self::Copying { symbols: 10, alphabet: 8 }
    }

    /// Selective copying of as many symbols among 8 distractors.
    pub fn selective_copying() -> Self {
        Self::SelectiveCopying { symbols: 10, alphabet: 8, distractors: 8 }
    }

    /// One symbol out of 4 among 8 distractors.
    pub fn marked_symbol() -> Self {
        Self::MarkedSymbol { alphabet: 4, distractors: 8 }
    }

    /// Induction heads as the literature has them: a vocabulary of 16.
    pub fn induction() -> Self {
        Self::Induction { vocabulary: 16 }
    }

    /// Eight pairs of 16 keys and 16 values, of which four are asked for among 8 distractors.
    pub fn recall() -> Self {
        Self::Recall { pairs: 8, queries: 4, keys: 16, values: 16, distractors: 8 }
    }

    /// The numbers that make the task larger or smaller, by their names on the command line.
    pub fn sizes(&mut self) -> Vec<(&'static str, &mut usize)> {
        match self {
            Self::Copying { symbols, alphabet } => {
                vec![("symbols", symbols), ("alphabet", alphabet)]
            }
            Self::SelectiveCopying { symbols, alphabet, distractors } => {
                vec![("symbols", symbols), ("alphabet", alphabet), ("distractors", distractors)]
            }
            Self::MarkedSymbol { alphabet, distractors } => {
                vec![("alphabet", alphabet), ("distractors", distractors)]
            }
            Self::Induction { vocabulary } => vec![("vocabulary", vocabulary)],
            Self::Recall { pairs, queries, keys, values, distractors } => vec![
                ("pairs", pairs),
                ("queries", queries),
                ("keys", keys),
                ("values", values),
                ("distractors", distractors),
            ],
            Self::Digits { frame } => vec![("frame", frame)],
            Self::Adding
            | Self::PixelMnist { .. }
            | Self::PixelCifar
            | Self::Text { .. }
            | Self::Appliances => Vec::new(),
        }
    }

    /// The name by which the task is called on the command line and in run folders.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Copying { .. } => "copying",
            Self::SelectiveCopying { .. } => "selective-copying",
            Self::MarkedSymbol { .. } => "marked-symbol",
            Self::Induction { .. } => "induction",
            Self::Recall { .. } => "recall",
            Self::Adding => "adding",
            Self::PixelMnist { .. } => "mnist",
            Self::PixelCifar => "cifar",
            Self::Text { .. } => "text",
            Self::Digits { .. } => "digits",
            Self::Appliances => "appliances",
        }
    }

    /// What the span is called: "delay" or "length".
    pub fn span_name(&self) -> &'static str {
        match self {
            Self::Copying { .. } | Self::SelectiveCopying { .. } | Self::MarkedSymbol { .. } => {
                "delay"
            }
            _ => "length",
        }
    }

    /// The smallest span for which the task exists.
    pub fn shortest_span(&self) -> usize {
        match self {
            Self::Copying { .. }
            | Self::SelectiveCopying { .. }
            | Self::MarkedSymbol { .. }
            | Self::Text { .. }
            | Self::Digits { .. } => 1,
            Self::Induction { .. } => 3,
            Self::Recall { pairs, queries, .. } => 2 * pairs + queries,
            Self::Adding => 2,
            Self::PixelMnist { .. } => MNIST_PIXELS,
            Self::PixelCifar => CIFAR_PIXELS,
            Self::Appliances => APPLIANCE_STEPS,
        }
    }

    /// Whether there is only one span.
    pub fn has_one_span(&self) -> bool {
        matches!(self, Self::PixelMnist { .. } | Self::PixelCifar | Self::Appliances)
    }

    /// Whether the sequences come from files.
    pub fn needs_files(&self) -> bool {
        matches!(
            self,
            Self::PixelMnist { .. }
                | Self::PixelCifar
                | Self::Text { .. }
                | Self::Digits { .. }
                | Self::Appliances
        )
    }

    /// Input features per step.
    pub fn d_input(&self) -> usize {
        match self {
            Self::Copying { alphabet, .. } => alphabet + 2,
            Self::SelectiveCopying { alphabet, distractors, .. }
            | Self::MarkedSymbol { alphabet, distractors } => alphabet + distractors + 1,
            Self::Induction { vocabulary } => vocabulary + 1,
            Self::Recall { keys, values, distractors, .. } => keys + values + distractors,
            Self::Adding => 2,
            Self::PixelMnist { .. } => 1,
            Self::PixelCifar => CIFAR_CHANNELS,
            Self::Text { characters } => *characters,
            Self::Digits { frame } => *frame,
            Self::Appliances => 1,
        }
    }

    /// Outputs per answering step.
    pub fn d_output(&self) -> usize {
        match self {
            Self::Copying { alphabet, .. }
            | Self::SelectiveCopying { alphabet, .. }
            | Self::MarkedSymbol { alphabet, .. } => *alphabet,
            Self::Induction { vocabulary } => *vocabulary,
            Self::Recall { values, .. } => *values,
            Self::Adding => 1,
            Self::PixelMnist { .. } | Self::PixelCifar | Self::Digits { .. } | Self::Appliances => {
                CLASSES
            }
            Self::Text { characters } => *characters,
        }
    }

    /// Steps of a sequence with this span; of a recording, the most.
    pub fn steps(&self, span: usize) -> usize {
        match self {
            Self::Copying { symbols, .. } | Self::SelectiveCopying { symbols, .. } => {
                span + 2 * symbols
            }
            Self::MarkedSymbol { .. } => span + 2,
            Self::Digits { frame } => span.div_ceil(*frame),
            _ => span,
        }
    }

    /// How many steps of a sequence with this span, the last ones, give an answer. Only these, or of them those
    /// that the [target](Target) names, enter the loss.
    ///
    /// The authors' release takes the loss over all steps of the copying task, most of which say
    /// "blank"; that adds an easy part to the loss and nothing to what is learnt.
    pub fn answers(&self, span: usize) -> usize {
        match self {
            Self::Copying { symbols, .. } | Self::SelectiveCopying { symbols, .. } => *symbols,
            Self::Recall { pairs, .. } => span - 2 * pairs,
            Self::MarkedSymbol { .. }
            | Self::Induction { .. }
            | Self::Adding
            | Self::PixelMnist { .. }
            | Self::PixelCifar
            | Self::Digits { .. }
            | Self::Appliances => 1,
            Self::Text { .. } => span,
        }
    }

    /// The input of a step, `[d_input]`, in words: "symbol 3", "number 0.42, marked". Tokens count from 0. The
    /// characters of a text are known to its [`Examples`](crate::Examples) only; here they have numbers.
    ///
    /// # Panics
    ///
    /// Panics if the step is not one of this task.
    pub(crate) fn input_in_words(&self, step: &[f32]) -> String {
        match *self {
            Self::Copying { alphabet, .. } => copying::in_words(token(step), alphabet),
            Self::SelectiveCopying { alphabet, distractors, .. }
            | Self::MarkedSymbol { alphabet, distractors } => {
                selective::in_words(token(step), [alphabet, distractors])
            }
            Self::Induction { vocabulary } => induction::in_words(token(step), vocabulary),
            Self::Recall { keys, values, .. } => recall::in_words(token(step), keys, values),
            Self::Adding => adding::in_words(step),
            Self::PixelMnist { .. } | Self::PixelCifar => format!("pixel {}", in_hundredths(step)),
            Self::Text { .. } => format!("character {}", token(step)),
            Self::Digits { .. } => format!("samples {}", in_hundredths(step)),
            Self::Appliances => format!("power {}", in_hundredths(step)),
        }
    }

    /// What training minimises, `[1]`: the cross-entropy in nats per answer, or the mean squared error.
    ///
    /// `answers` is `[batch, answers, d_output]`: logits, or the sum.
    pub fn loss(&self, answers: Tensor<3>, target: Target) -> Tensor<1> {
        let answers = target.asked(answers);
        match target {
            Target::Symbols(symbols) | Target::SymbolsAt { symbols, .. } => {
                log_softmax(answers, 2).gather(2, symbols.unsqueeze_dim(2)).mean().neg()
            }
            Target::Sums(sums) => (answers.squeeze_dim::<2>(2) - sums).square().mean(),
        }
    }
}

/// Values as people read them.
fn in_hundredths(values: &[f32]) -> String {
    let values: Vec<_> = values.iter().map(|value| format!("{value:.2}")).collect();
    values.join(" ")
}

/// One vector of `features` elements a token, flat: 1 at the token, else 0.
fn one_hot(tokens: &[usize], features: usize) -> Vec<f32> {
    let mut vectors = vec![0.0; tokens.len() * features];
    for (vector, token) in vectors.chunks_exact_mut(features).zip(tokens) {
        vector[*token] = 1.0;
    }
    vectors
}

/// The token of a [`one_hot`] vector.
pub(crate) fn token(vector: &[f32]) -> usize {
    vector.iter().position(|&x| x == 1.0).expect("a one-hot vector has a 1")
}

/// The tokens of [`one_hot`] vectors.
#[cfg(test)]
fn read_one_hot(vectors: &[f32], features: usize) -> Vec<usize> {
    let checked = |vector: &[f32]| {
        assert_eq!(vector.iter().sum::<f32>(), 1.0);
        token(vector)
    };
    vectors.chunks(features).map(checked).collect()
}
