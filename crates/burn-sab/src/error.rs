use thiserror::Error;

/// An invalid setting of the layer.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A size or count that has to be at least 1.
    #[error("{name} = 0: it has to be at least 1{hint}")]
    Zero {
        /// The setting.
        name: &'static str,
        /// What to do instead, or nothing.
        hint: &'static str,
    },
    /// A number that has to be finite and positive.
    #[error("{name} = {value}: it has to be a finite number above 0")]
    NotPositive {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// A number that has to be finite.
    #[error("{name} = {value}: it has to be a finite number")]
    NotFinite {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// A number that has to be finite and not negative.
    #[error("{name} = {value}: it has to be a finite number, 0 or above")]
    Negative {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// [`Strategy::Fused`](crate::Strategy::Fused) or [`Strategy::Primitives`](crate::Strategy::Primitives)
    /// with an option that only the reference covers.
    #[error("strategy {strategy} does not cover {option}: use Auto or Reference")]
    NotCovered {
        /// The strategy that was asked for.
        strategy: &'static str,
        /// The option that rules it out.
        option: &'static str,
    },
    /// An index over slots beside something that it does not work with.
    #[error("n_probe = {n_probe} with {beside}: {remedy}")]
    Index {
        /// Lists that a step searches.
        n_probe: usize,
        /// The setting or score that rules it out.
        beside: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// A dropout outside of [0, 1).
    #[error("dropout = {value}: it has to be at least 0 and below 1")]
    Dropout {
        /// Its value.
        value: f64,
    },
    /// A number of a layer that the stack does not have.
    #[error("memory names layer {layer} of {num_layers}: layers are numbered from 0")]
    NoLayer {
        /// The layer.
        layer: usize,
        /// Layers of the stack.
        num_layers: usize,
    },
    /// A bidirectional layer whose configuration sets `reverse`.
    #[error("reverse = true: a bidirectional layer has both directions; leave reverse false")]
    Reversed,
    /// A text that cannot be read as a value of the setting.
    #[error("{name} = {text:?}: it has to be {expected}")]
    Text {
        /// The setting.
        name: &'static str,
        /// The text.
        text: String,
        /// What it has to be.
        expected: &'static str,
    },
    /// A setting that does not exist.
    #[error("there is no setting {name}")]
    Unknown {
        /// The name that was given.
        name: String,
    },
}
