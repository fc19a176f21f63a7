use std::fmt;

use burn::config::Config;
use burn::module::Initializer;
use burn::nn::activation::ActivationConfig;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::SabLstm;
use crate::error::ConfigError;
use crate::op::{
    InitialSlot, Recompute, SabSettings, ScoreKind, Sparsifier, Strategy, for_each_setting,
    positive, settings_setters,
};

/// How a state scores the slots (the algorithm, step 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScoreConfig {
    /// `u·tanh(h) + v·tanh(m)`, the authors' release. Which slots are retrieved then does not depend on the present
    /// state (the book, chapter "The algorithm").
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

impl ScoreConfig {
    /// A score of this form. Additive scores ignore `d_attention`.
    pub fn new(kind: ScoreKind, d_attention: usize) -> Self {
        match kind {
            ScoreKind::Additive => Self::Additive,
            ScoreKind::Mlp => Self::Mlp { d_attention },
            ScoreKind::Dot => Self::Dot { d_attention },
        }
    }

    /// The form.
    pub fn kind(self) -> ScoreKind {
        match self {
            Self::Additive => ScoreKind::Additive,
            Self::Mlp { .. } => ScoreKind::Mlp,
            Self::Dot { .. } => ScoreKind::Dot,
        }
    }

    /// The attention size A; `None` for additive scores.
    pub fn d_attention(self) -> Option<usize> {
        match self {
            Self::Additive => None,
            Self::Mlp { d_attention } | Self::Dot { d_attention } => Some(d_attention),
        }
    }
}

/// Configuration of a [`SabLstm`]. Use it like `burn::nn::LstmConfig`: `new`, setters, `init(&device)`.
///
/// The defaults are one set of settings that trained every task of this project's suite; the book, chapter "Design
/// decisions", has the experiments. The published settings are [`paper`](Self::paper) and [`released`](Self::released).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default = "SabLstmConfig::without_sizes")]
#[non_exhaustive]
pub struct SabLstmConfig {
    /// Input features I.
    pub d_input: usize,
    /// Hidden units H.
    pub d_hidden: usize,
    /// Whether the gates have biases (one with the input weights, one with the recurrent ones).
    pub bias: bool,
    /// The settings of the memory. In a file they are on the same level as the other fields.
    #[serde(flatten)]
    pub settings: SabSettings,
    /// How a state scores the slots.
    pub score: ScoreConfig,
    /// The initial weights of the score are uniform in `± score_gain / sqrt(fan_in)`. A larger factor makes the
    /// initial scores differ more.
    pub score_gain: f64,
    /// Initializer of the gates.
    pub initializer: Initializer,
    /// Added to the initial biases of the forget gates, so that the cell initially keeps its state (Gers et al.,
    /// 2000). It has no effect without biases, or without forget gates.
    pub forget_bias: f64,
    /// `[batch, time, features]` if true, `[time, batch, features]` if false.
    pub batch_first: bool,
    /// Whether the sequence is processed from its end.
    pub reverse: bool,
    /// Bound on the absolute value of the cell state after each step.
    pub clip: Option<f64>,
    /// Whether the forget gate is 1 minus the input gate. This saves a quarter of the gate parameters.
    pub input_forget: bool,
    /// Activation of the input, forget and output gate.
    pub gate_activation: ActivationConfig,
    /// Activation of the candidate cell state.
    pub cell_activation: ActivationConfig,
    /// Activation of the cell state on its way to the hidden state.
    pub hidden_activation: ActivationConfig,
}

// Written out, not derived: the derive cannot flatten the settings, nor give a missing field its default.
impl Config for SabLstmConfig {}

impl fmt::Display for SabLstmConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&burn::config::config_to_json(self))
    }
}

for_each_setting!(settings_setters SabLstmConfig (settings));
settings_setters! {
    [SabLstmConfig ()]
    /// Sets how a state scores the slots
    score: ScoreConfig;
    /// Sets the factor on the initial weights of the score
    score_gain: f64;
    /// Sets the initializer of the gates
    initializer: Initializer;
    /// Sets the constant that is added to the initial biases of the forget gates
    forget_bias: f64;
    /// Sets the layout of sequences: `[batch, time, features]` if true
    batch_first: bool;
    /// Sets whether the sequence is processed from its end
    reverse: bool;
    /// Sets the bound on the absolute value of the cell state
    clip: Option<f64>;
    /// Sets whether the forget gate is 1 - input gate
    input_forget: bool;
    /// Sets the activation of the input, forget and output gate
    gate_activation: ActivationConfig;
    /// Sets the activation of the candidate cell state
    cell_activation: ActivationConfig;
    /// Sets the activation of the cell state on its way to the hidden state
    hidden_activation: ActivationConfig;
}

/// Longer than any sequence; a round number in a configuration file.
const NEVER: usize = u32::MAX as usize;

impl SabLstmConfig {
    /// The default settings for these sizes. `bias` is whether the gates have biases.
    pub fn new(d_input: usize, d_hidden: usize, bias: bool) -> Self {
        Self {
            d_input,
            d_hidden,
            bias,
            settings: SabSettings::default(),
            score: ScoreConfig::Dot { d_attention: 64 },
            score_gain: 2.0,
            initializer: Initializer::XavierNormal { gain: 1.0 },
            forget_bias: 0.0,
            batch_first: true,
            reverse: false,
            clip: None,
            input_forget: false,
            gate_activation: ActivationConfig::Sigmoid,
            cell_activation: ActivationConfig::Tanh,
            hidden_activation: ActivationConfig::Tanh,
        }
    }

    /// What a file begins with that names no sizes; [`validate`](Self::validate) refuses it.
    fn without_sizes() -> Self {
        Self::new(0, 0, true)
    }

    /// The settings of the paper's copying experiment: additive scores, threshold, `k_top` 5, `k_att` 1, `k_trunc` 5,
    /// factor 1 on the summary, and an empty memory at the start.
    pub fn paper(d_input: usize, d_hidden: usize) -> Self {
        Self::new(d_input, d_hidden, true)
            .with_k_top(5)
            .with_k_trunc(5)
            .with_truncation_offset(Some(0))
            .with_score(ScoreConfig::Additive)
            .with_score_gain(1.0)
            .with_summary_scale(1.0)
            .with_learned_gain(false)
            .with_detach_scores(false)
            .with_sparsifier(Sparsifier::Threshold)
            .with_initial_slot(InitialSlot::None)
    }

    /// The settings of the authors' PyTorch release: those of [`paper`](Self::paper), with another sparsifier, windows
    /// shifted by one step, and the initial hidden state as the first slot.
    pub fn released(d_input: usize, d_hidden: usize) -> Self {
        Self::paper(d_input, d_hidden)
            .with_truncation_offset(Some(1))
            .with_sparsifier(Sparsifier::Released)
            .with_initial_slot(InitialSlot::Hidden)
    }

    /// The same layer without memory: it never stores a slot. What remains is an LSTM with backpropagation truncated
    /// to the same windows of `k_trunc` steps. `max_hops`, `slot_budget`, `n_probe` and `learned_gain` are reset to their
    /// defaults, as they have no effect without memory.
    pub fn without_memory(self) -> Self {
        let truncation_offset = self.settings.truncation_offset();
        self.with_k_att(NEVER)
            .with_truncation_offset(Some(truncation_offset))
            .with_initial_slot(InitialSlot::None)
            .with_max_hops(None)
            .with_slot_budget(None)
            .with_n_probe(None)
            .with_learned_gain(false)
    }

    /// The same layer without truncation windows: gradient runs through the whole sequence.
    pub fn full_backpropagation(self) -> Self {
        self.with_k_trunc(NEVER).with_truncation_offset(Some(0))
    }

    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first invalid setting, and the remedy.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let zero = |name| Err(ConfigError::Zero { name, hint: "" });
        match self {
            Self { d_input: 0, .. } => return zero("d_input"),
            Self { d_hidden: 0, .. } => return zero("d_hidden"),
            _ => {}
        }
        self.settings.validate_with(self.score.kind())?;
        if let ScoreConfig::Mlp { d_attention: 0 } | ScoreConfig::Dot { d_attention: 0 } =
            self.score
        {
            return zero("d_attention");
        }
        positive("score_gain", self.score_gain)?;
        if !self.forget_bias.is_finite() {
            return Err(ConfigError::NotFinite { name: "forget_bias", value: self.forget_bias });
        }
        if let Some(clip) = self.clip {
            positive("clip", clip)?;
        }
        self.check_strategy(self.has_standard_activations())
    }

    /// # Errors
    ///
    /// If the strategy does not cover the options of the cell.
    pub(super) fn check_strategy(&self, standard_activations: bool) -> Result<(), ConfigError> {
        let strategy = match self.settings.strategy {
            Strategy::Auto | Strategy::Reference => return Ok(()),
            Strategy::Primitives => "Primitives",
            Strategy::Fused => "Fused",
        };
        let option = match self {
            Self { clip: Some(_), .. } => "clip",
            Self { input_forget: true, .. } => "input_forget",
            _ if !standard_activations => "activations other than sigmoid and tanh",
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
