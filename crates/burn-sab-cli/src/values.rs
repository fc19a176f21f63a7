//! The words and numbers that flags take, where more than one file has to know them.

use burn_sab_tasks::{Curriculum, ModelKind, Task};
use clap::ValueEnum;

/// A level to be reached, or never.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LevelOrNever(pub Option<f64>);

/// Parses a level or "never".
///
/// # Errors
///
/// If the text is neither.
pub fn level_or_never(text: &str) -> Result<LevelOrNever, String> {
    match text {
        "never" => Ok(LevelOrNever(None)),
        _ => text
            .parse()
            .map(|x| LevelOrNever(Some(x)))
            .map_err(|_| "give a number or \"never\"".into()),
    }
}

/// A set of defaults for the other flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// What trains well
    Default,
    /// The settings of the paper
    Paper,
    /// The settings of the authors' release
    Released,
}

/// Gives an enum of a library its names on the command line.
macro_rules! command_line_names {
    ($(#[$doc:meta])* $name:ident for $of:ty {
        $($(#[$about:meta])* $variant:ident => $value:expr),+ $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
        pub enum $name { $(#[allow(missing_docs)] $(#[$about])* $variant),+ }

        impl From<$name> for $of {
            fn from(name: $name) -> Self {
                match name { $($name::$variant => $value),+ }
            }
        }
    };
}

command_line_names! {
    /// A task to train on, with the sizes that it has by default.
    TaskName for Task {
        /// Repeat a string of symbols after a delay
        Copying => Self::copying(),
        /// Repeat the symbols that stand among distractors
        SelectiveCopying => Self::selective_copying(),
        /// Name the one symbol among distractors
        MarkedSymbol => Self::marked_symbol(),
        /// Name the token that followed the special one
        Induction => Self::induction(),
        /// Name the values of keys
        Recall => Self::recall(),
        /// Add two marked numbers
        Adding => Self::Adding,
        /// Name the digit of an image of MNIST, seen pixel by pixel
        Mnist => Self::PixelMnist { permuted: false },
        /// Name the class of an image of CIFAR-10, seen pixel by pixel
        Cifar => Self::PixelCifar,
        /// Predict the next character of a text
        Text => Self::Text { characters: 0 },
        /// Name the digit that is spoken in a recording, heard sample by sample
        Digits => Self::Digits { frame: 1 },
        /// Name the kind of an appliance from its power, seen sample by sample
        Appliances => Self::Appliances,
    }
}
command_line_names! {
    /// A model to train.
    ModelName for ModelKind {
        Sab => Self::Sab,
        Lstm => Self::Lstm,
        Tbptt => Self::Tbptt,
        Attention => Self::Attention,
        Gru => Self::Gru,
        MinGru => Self::MinGru,
        Transformer => Self::Transformer,
    }
}
command_line_names! {
    /// A model to compare with, or none.
    CompareName for Option<ModelKind> {
        Sab => Some(ModelKind::Sab),
        Lstm => Some(ModelKind::Lstm),
        Tbptt => Some(ModelKind::Tbptt),
        Attention => Some(ModelKind::Attention),
        Gru => Some(ModelKind::Gru),
        MinGru => Some(ModelKind::MinGru),
        Transformer => Some(ModelKind::Transformer),
        None => Option::None,
    }
}
command_line_names! {
    /// A curriculum: how the spans of training sequences grow.
    CurriculumName for Curriculum { None => Self::None, Grow => Self::Grow }
}

/// Returns the name of a value on the command line.
pub fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
