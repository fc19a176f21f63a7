use burn::config::Config;
use burn::module::Initializer;
use burn::nn::activation::ActivationConfig;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::SabLstm;
use crate::error::ConfigError;
use crate::op::{Recompute, Sparsifier, Strategy};

/// How a state scores the slots (specification, step 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScoreConfig {
    /// `u·tanh(h) + v·tanh(m)`, the authors' release. With a threshold it ranks moments without
    /// looking at the present state.
    Additive,
    /// `v·tanh(W_q h + W_m m + b)` with one hidden layer.
    Mlp {
        /// Attention size A, at least 1.
        d_attention: usize,
    },
    /// `(W_q h)·(W_k m) / sqrt(A)`.
    Dot {
        /// Attention size A, at least 1.
        d_attention: usize,
    },
}

/// What the memory holds before the first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InitialSlot {
    /// Nothing (the paper).
    None,
    /// One slot with the initial hidden state (the authors' release).
    Hidden,
}

/// Configuration of a [`SabLstm`]; made like `burn::nn::LstmConfig`, with `init(&device)`.
///
/// The defaults are what trains well on the copying task, not what was published: see
/// [`paper`](Self::paper) and [`released`](Self::released) for that, and the book, chapter "Design
/// decisions", for the runs behind them.
#[derive(Config, Debug)]
pub struct SabLstmConfig {
    /// Input features I.
    pub d_input: usize,
    /// Hidden units H.
    pub d_hidden: usize,
    /// Whether the gates have biases (one with the input weights, one with the recurrent ones).
    pub bias: bool,
    /// Slots that are retrieved per step, at least 1.
    #[config(default = 10)]
    pub k_top: usize,
    /// A slot is stored after every `k_att` steps, at least 1.
    #[config(default = 1)]
    pub k_att: usize,
    /// Steps in a truncation window, at least 1.
    #[config(default = 10)]
    pub k_trunc: usize,
    /// Shifts the windows: one starts where `(t + truncation_offset) % k_trunc == 0`.
    #[config(default = 1)]
    pub truncation_offset: usize,
    /// How a state scores the slots.
    #[config(default = "ScoreConfig::Dot { d_attention: 64 }")]
    pub score: ScoreConfig,
    /// Weights of the score are drawn from `score_gain · U(±1/sqrt(fan_in))`: the initial sharpness.
    #[config(default = 2.0)]
    pub score_gain: f64,
    /// From scores to sparse weights.
    #[config(default = "Sparsifier::Softmax")]
    pub sparsifier: Sparsifier,
    /// What the memory holds before the first step.
    #[config(default = "InitialSlot::Hidden")]
    pub initial_slot: InitialSlot,
    /// Factor on what was retrieved on its way into the hidden state: h = ĥ + `summary_scale` · s. Below 1 it
    /// bounds h: with weights that sum to 1, |h| is at most 1 / (1 - `summary_scale`) everywhere.
    #[config(default = 1.0)]
    pub summary_scale: f64,
    /// Most reminders that a gradient path may use; `None` for no limit. Never changes a value.
    pub max_hops: Option<usize>,
    /// Slots that are kept of a long past, at least 1; `None` for all. Whenever the memory holds twice as many,
    /// those that differ most from the one before them stay, row by row (the chapter "The layer" of the book).
    pub slot_budget: Option<usize>,
    /// Initializer of the gates.
    #[config(default = "Initializer::XavierNormal{gain:1.0}")]
    pub initializer: Initializer,
    /// `[batch, time, features]` if true, `[time, batch, features]` if false.
    #[config(default = true)]
    pub batch_first: bool,
    /// Whether the sequence is processed from its end.
    #[config(default = false)]
    pub reverse: bool,
    /// Bound on the absolute value of the cell state after each step.
    pub clip: Option<f64>,
    /// Forget gate = 1 - input gate, which saves a quarter of the gate parameters.
    #[config(default = false)]
    pub input_forget: bool,
    /// Activation of the input, forget and output gate.
    #[config(default = "ActivationConfig::Sigmoid")]
    pub gate_activation: ActivationConfig,
    /// Activation of the candidate cell state.
    #[config(default = "ActivationConfig::Tanh")]
    pub cell_activation: ActivationConfig,
    /// Activation of the cell state on its way to the hidden state.
    #[config(default = "ActivationConfig::Tanh")]
    pub hidden_activation: ActivationConfig,
    /// What the backward pass computes again instead of having it kept: memory against time.
    #[config(default = "Recompute::Auto")]
    pub recompute: Recompute,
    /// Which implementation runs; all give the same numbers up to rounding.
    #[config(default = "Strategy::Auto")]
    pub strategy: Strategy,
}

/// Longer than any sequence; a round number in a configuration file.
const NEVER: usize = u32::MAX as usize;

impl SabLstmConfig {
    /// The settings of the paper's copying experiment: additive scores, threshold, k_top 5, k_att 1,
    /// k_trunc 5, an empty memory at the start.
    pub fn paper(d_input: usize, d_hidden: usize) -> Self {
        Self::new(d_input, d_hidden, true)
            .with_k_top(5)
            .with_k_trunc(5)
            .with_truncation_offset(0)
            .with_score(ScoreConfig::Additive)
            .with_score_gain(1.0)
            .with_summary_scale(1.0)
            .with_sparsifier(Sparsifier::Threshold)
            .with_initial_slot(InitialSlot::None)
    }

    /// The settings of the authors' PyTorch release: as [`paper`](Self::paper), with its own
    /// sparsifier, windows shifted by one step, and the initial hidden state as first slot.
    pub fn released(d_input: usize, d_hidden: usize) -> Self {
        Self::paper(d_input, d_hidden)
            .with_truncation_offset(1)
            .with_sparsifier(Sparsifier::Released)
            .with_initial_slot(InitialSlot::Hidden)
    }

    /// The same layer without memory: no slot is ever stored, which leaves an LSTM trained by
    /// backpropagation truncated to windows of `k_trunc` steps. Limits on the memory are gone, too.
    pub fn without_memory(self) -> Self {
        self.with_k_att(NEVER)
            .with_initial_slot(InitialSlot::None)
            .with_max_hops(None)
            .with_slot_budget(None)
    }

    /// The same layer without truncation windows: gradient runs through the whole sequence.
    pub fn full_backpropagation(self) -> Self {
        self.with_k_trunc(NEVER).with_truncation_offset(0)
    }

    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first setting that makes no sense, and what to do.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let zero = |name, hint| Err(ConfigError::Zero { name, hint });
        match self {
            Self { d_input: 0, .. } => return zero("d_input", ""),
            Self { d_hidden: 0, .. } => return zero("d_hidden", ""),
            Self { k_top: 0, .. } => {
                return zero("k_top", " (for a layer without memory use without_memory())");
            }
            Self { k_att: 0, .. } => {
                return zero("k_att", " (for a layer without memory use without_memory())");
            }
            Self { slot_budget: Some(0), .. } => {
                return zero("slot_budget", " (None keeps every slot)");
            }
            Self { k_trunc: 0, .. } => {
                return zero("k_trunc", " (to switch truncation off use full_backpropagation())");
            }
            _ => {}
        }
        if let ScoreConfig::Mlp { d_attention: 0 } | ScoreConfig::Dot { d_attention: 0 } =
            self.score
        {
            return zero("d_attention", "");
        }
        let positive = [
            ("score_gain", Some(self.score_gain)),
            ("summary_scale", Some(self.summary_scale)),
            ("clip", self.clip),
        ];
        for (name, value) in positive.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            if !(value.is_finite() && value > 0.0) {
                return Err(ConfigError::NotPositive { name, value });
            }
        }
        let strategy = match self.strategy {
            Strategy::Auto | Strategy::Reference => return Ok(()),
            Strategy::Primitives => "Primitives",
            Strategy::Fused => "Fused",
        };
        let option = match self {
            Self { clip: Some(_), .. } => "clip",
            Self { input_forget: true, .. } => "input_forget",
            _ if !self.has_standard_activations() => "activations other than sigmoid and tanh",
            _ => return Ok(()),
        };
        Err(ConfigError::NotCovered { strategy, option })
    }

    pub(crate) fn has_standard_activations(&self) -> bool {
        matches!(self.gate_activation, ActivationConfig::Sigmoid)
            && matches!(self.cell_activation, ActivationConfig::Tanh)
            && matches!(self.hidden_activation, ActivationConfig::Tanh)
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If the settings are not [valid](Self::validate).
    pub fn try_init(&self, device: &Device) -> Result<SabLstm, ConfigError> {
        self.validate()?;
        Ok(SabLstm::from_config(self, device))
    }

    /// Makes the layer.
    ///
    /// # Panics
    ///
    /// If the settings are not [valid](Self::validate).
    pub fn init(&self, device: &Device) -> SabLstm {
        self.try_init(device).unwrap_or_else(|error| panic!("SabLstmConfig: {error}"))
    }
}
