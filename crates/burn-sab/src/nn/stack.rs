//! Stacks of layers, in one direction or two.

use std::fmt;

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::{Dropout, DropoutConfig, LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use super::config::SabLstmConfig;
use super::lstm::SabLstm;
use super::segments::Segments;
use super::stack_state::SabLstmStackState;
use super::state::SabLstmState;
use crate::error::ConfigError;
use crate::op::settings_setters;

/// The layers of a stack that have a memory, numbered from 0 at the bottom. The others are LSTMs with the same
/// truncation windows ([`SabLstmConfig::without_memory`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemoryLayers {
    /// Every layer.
    All,
    /// The last layer alone. Each layer with a memory scores its slots at every step, so this is the cheapest form.
    Top,
    /// These layers.
    Only(Vec<usize>),
}

/// Configuration of a [`SabLstmStack`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default = "SabLstmStackConfig::without_sizes")]
#[non_exhaustive]
pub struct SabLstmStackConfig {
    /// The settings of every layer. `d_input` is that of the first layer.
    pub layer: SabLstmConfig,
    /// Number of layers, at least 1.
    pub num_layers: usize,
    /// Whether every layer runs in both directions.
    pub bidirectional: bool,
    /// Probability, in [0, 1), that an element between two layers is zero in training.
    pub dropout: f64,
    /// Whether the input of every layer but the first is normalised.
    pub layer_norm: bool,
    /// Whether the input of every layer but the first is added to its output.
    pub residual: bool,
    /// The layers that have a memory.
    pub memory: MemoryLayers,
}

// Written out, as for the layer: a file that lacks a field gives it its default.
impl Config for SabLstmStackConfig {}

impl fmt::Display for SabLstmStackConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&burn::config::config_to_json(self))
    }
}

settings_setters! {
    [SabLstmStackConfig ()]
    /// Sets whether every layer runs in both directions
    bidirectional: bool;
    /// Sets the probability that an element between two layers is zero in training
    dropout: f64;
    /// Sets whether the input of every layer but the first is normalised
    layer_norm: bool;
    /// Sets whether the input of every layer but the first is added to its output
    residual: bool;
    /// Sets the layers that have a memory
    memory: MemoryLayers;
}

impl SabLstmStackConfig {
    /// A stack of `num_layers` layers in one direction, each with a memory, without dropout, normalisation or residual
    /// connections.
    pub fn new(layer: SabLstmConfig, num_layers: usize) -> Self {
        Self {
            layer,
            num_layers,
            bidirectional: false,
            dropout: 0.0,
            layer_norm: false,
            residual: false,
            memory: MemoryLayers::All,
        }
    }

    /// What a file begins with that names no layer; [`validate`](Self::validate) refuses it.
    fn without_sizes() -> Self {
        Self::new(SabLstmConfig::new(0, 0, true), 0)
    }

    /// Features of the outputs: H, or 2 H in both directions.
    pub fn d_output(&self) -> usize {
        self.layer.d_hidden * if self.bidirectional { 2 } else { 1 }
    }

    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first invalid setting, and the remedy.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.num_layers == 0 {
            return Err(ConfigError::Zero { name: "num_layers", hint: "" });
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(ConfigError::Dropout { value: self.dropout });
        }
        if let MemoryLayers::Only(layers) = &self.memory
            && let Some(layer) = layers.iter().find(|layer| **layer >= self.num_layers)
        {
            return Err(ConfigError::NoLayer { layer: *layer, num_layers: self.num_layers });
        }
        if self.bidirectional && self.layer.reverse {
            return Err(ConfigError::Reversed);
        }
        self.layer.validate()
    }

    /// The configuration of layer `index`.
    pub(super) fn layer(&self, index: usize) -> SabLstmConfig {
        let d_input = if index == 0 { self.layer.d_input } else { self.d_output() };
        let config = SabLstmConfig { d_input, ..self.layer.clone() };
        let remembers = match &self.memory {
            MemoryLayers::All => true,
            MemoryLayers::Top => index + 1 == self.num_layers,
            MemoryLayers::Only(layers) => layers.contains(&index),
        };
        if remembers { config } else { config.without_memory() }
    }

    /// Makes the stack.
    ///
    /// # Errors
    ///
    /// If the settings are not [valid](Self::validate).
    pub fn try_init(&self, device: &Device) -> Result<SabLstmStack, ConfigError> {
        self.validate()?;
        let layer = |index, reverse| {
            SabLstm::from_config(&SabLstmConfig { reverse, ..self.layer(index) }, device)
        };
        let both = |index| {
            let forward = layer(index, self.layer.reverse);
            (forward, self.bidirectional.then(|| layer(index, true)))
        };
        Ok(self.stack(device, (0..self.num_layers).map(both)))
    }

    /// Makes the stack.
    ///
    /// # Panics
    ///
    /// If the settings are not [valid](Self::validate).
    pub fn init(&self, device: &Device) -> SabLstmStack {
        self.try_init(device).unwrap_or_else(|error| panic!("SabLstmStackConfig: {error}"))
    }

    /// The stack of these layers, with their reverse directions, and of what lies between them.
    pub(super) fn stack(
        &self,
        device: &Device,
        layers: impl IntoIterator<Item = (SabLstm, Option<SabLstm>)>,
    ) -> SabLstmStack {
        let layers = layers.into_iter().enumerate().map(|(index, (forward, reverse))| {
            let norm = self.layer_norm && index > 0;
            let norm = norm.then(|| LayerNormConfig::new(self.d_output()).init(device));
            StackLayer { norm, forward, reverse }
        });
        SabLstmStack {
            layers: layers.collect(),
            dropout: DropoutConfig::new(self.dropout).init(),
            residual: self.residual,
        }
    }
}

/// A stack of [`SabLstm`] layers, as `torch.nn.LSTM` with `num_layers`, `bidirectional` and `dropout`.
///
/// Layer l = 0, 1, … computes
///
/// ```text
/// u = dropout(y_{l-1})             l > 0; u = x for the first layer
/// z = norm(u)                      with layer_norm, l > 0; else z = u
/// y_l = [forward(z) | reverse(z)]  the second with `bidirectional`
/// y_l = y_l + u                    with `residual`, l > 0
/// ```
///
/// [`SabLstmStackConfig`] creates it. All layers store slots and start windows at the same steps.
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sab::{MemoryLayers, SabLstmConfig, SabLstmStackConfig};
///
/// let device = Device::flex();
/// let stack = SabLstmStackConfig::new(SabLstmConfig::new(8, 16, true), 3)
///     .with_memory(MemoryLayers::Top)
///     .with_dropout(0.1)
///     .with_residual(true)
///     .init(&device);
/// let x = Tensor::<3>::random([4, 20, 8], Distribution::Default, &device);
/// let (hidden, state) = stack.forward(x.clone(), None);
/// assert_eq!(hidden.dims(), [4, 20, 16]);
/// assert_eq!(state.layers.len(), 3);
/// // A chunk later, and one step after that.
/// let (_, state) = stack.forward(x, Some(state));
/// let (hidden, _) = stack.step(Tensor::zeros([4, 8], &device), Some(state));
/// assert_eq!(hidden.dims(), [4, 16]);
/// # }
/// ```
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct SabLstmStack {
    /// The layers, from the bottom up.
    pub layers: Vec<StackLayer>,
    /// Dropout between two layers, on devices with autodiff.
    pub dropout: Dropout,
    /// Whether the input of every layer but the first is added to its output.
    pub residual: bool,
}

/// One layer of a [`SabLstmStack`].
#[derive(Module, Debug)]
pub struct StackLayer {
    /// Normalises the layer's input.
    pub norm: Option<LayerNorm>,
    /// The layer, or its forward direction.
    pub forward: SabLstm,
    /// Its reverse direction.
    pub reverse: Option<SabLstm>,
}

impl ModuleDisplay for SabLstmStack {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let first = &self.layers[0];
        content
            .add("d_input", &first.forward.weight_ih.shape()[0])
            .add("d_hidden", &first.forward.d_hidden)
            .add("num_layers", &self.layers.len())
            .add("bidirectional", &first.reverse.is_some())
            .add("dropout", &self.dropout.prob)
            .add("layer_norm", &self.layers.iter().any(|layer| layer.norm.is_some()))
            .add("residual", &self.residual)
            .optional()
    }
}

impl SabLstmStack {
    /// Runs a sequence through all layers.
    ///
    /// `x` is `[B, T, I]`, or `[T, B, I]` without `batch_first`. The returned outputs of the last layer have the same
    /// layout, with H features, or 2 H in both directions. Without a state, the run starts from zeros.
    ///
    /// # Panics
    ///
    /// If an input does not fit the layers, or if the state has another number of layers or directions.
    #[track_caller]
    pub fn forward(
        &self,
        x: Tensor<3>,
        state: Option<SabLstmStackState>,
    ) -> (Tensor<3>, SabLstmStackState) {
        self.run(x, state, |_, layer, x, state| layer.forward(x, state), |_, input| input)
    }

    /// As [`forward`](Self::forward), but returns the outputs at `steps` only: positions in `x`, 0-based and in
    /// ascending order. The last layer runs [`SabLstm::forward_at`]. The layers below compute their outputs at all
    /// steps.
    ///
    /// # Panics
    ///
    /// If an input does not fit the layers, or if the steps are not in ascending order or lie beyond the sequence.
    #[track_caller]
    pub fn forward_at(
        &self,
        x: Tensor<3>,
        steps: &[usize],
        state: Option<SabLstmStackState>,
    ) -> (Tensor<3>, SabLstmStackState) {
        let last = self.layers.len() - 1;
        let time = if self.layers[0].forward.batch_first { 1 } else { 0 };
        let call = |index, layer: &SabLstm, x, state| {
            if index < last {
                return layer.forward(x, state);
            }
            let output = layer.forward_at(x, steps, state);
            (output.hidden, output.state)
        };
        let shortcut = |index, input: Tensor<3>| {
            if index < last {
                return input;
            }
            let steps: Vec<i64> = steps.iter().map(|step| *step as i64).collect();
            let steps = Tensor::<1, Int>::from_data(steps.as_slice(), &input.device());
            input.select(time, steps)
        };
        self.run(x, state, call, shortcut)
    }

    /// As [`forward`](Self::forward), for rows of different lengths, each from 0 to T. Padding has no effect, and
    /// outputs there are zero. See [`SabLstm::forward_padded`].
    ///
    /// # Panics
    ///
    /// If an input does not fit the layers, or a length the batch.
    #[track_caller]
    pub fn forward_padded(
        &self,
        x: Tensor<3>,
        lengths: &[usize],
        state: Option<SabLstmStackState>,
    ) -> (Tensor<3>, SabLstmStackState) {
        self.run(
            x,
            state,
            |_, layer, x, state| layer.forward_padded(x, lengths, state),
            |_, input| input,
        )
    }

    /// As [`forward`](Self::forward), for rows of different lengths and with resets. See
    /// [`SabLstm::forward_segments`].
    ///
    /// # Panics
    ///
    /// If an input does not fit the layers, if the segments are of another batch or number of steps, or if there are
    /// resets and a layer runs in reverse.
    #[track_caller]
    pub fn forward_segments(
        &self,
        x: Tensor<3>,
        segments: &Segments,
        state: Option<SabLstmStackState>,
    ) -> (Tensor<3>, SabLstmStackState) {
        let call = |_, layer: &SabLstm, x, state| {
            let output = layer.forward_segments(x, segments, state);
            (output.hidden, output.state)
        };
        self.run(x, state, call, |_, input| input)
    }

    /// Runs one step of a stream, without gradient. `x` is `[B, I]`, and the returned output is `[B, H]`. See
    /// [`SabLstm::step`].
    ///
    /// # Panics
    ///
    /// If an input does not fit the layers, if autodiff tracks an input, or if a layer runs in reverse, which needs the
    /// whole sequence.
    #[track_caller]
    pub fn step(
        &self,
        x: Tensor<2>,
        state: Option<SabLstmStackState>,
    ) -> (Tensor<2>, SabLstmStackState) {
        let in_reverse = |layer: &StackLayer| layer.reverse.is_some() || layer.forward.reverse;
        assert!(
            !self.layers.iter().any(in_reverse),
            "SabLstmStack::step: a layer that runs in reverse needs the whole sequence: call forward, or make the \
             stack without bidirectional and reverse"
        );
        self.run(x, state, |_, layer, x, state| layer.step(x, state), |_, input| input)
    }

    /// Runs the layers with `call`. `shortcut` is what a layer's input adds to its output.
    #[track_caller]
    fn run<const D: usize>(
        &self,
        x: Tensor<D>,
        state: Option<SabLstmStackState>,
        call: impl Fn(usize, &SabLstm, Tensor<D>, Option<SabLstmState>) -> (Tensor<D>, SabLstmState),
        shortcut: impl Fn(usize, Tensor<D>) -> Tensor<D>,
    ) -> (Tensor<D>, SabLstmStackState) {
        let directions = self.directions();
        let mut before = match state {
            None => vec![None; directions],
            Some(state) => state.layers.into_iter().map(Some).collect(),
        }
        .into_iter();
        assert_eq!(
            before.len(),
            directions,
            "SabLstmStack: the state holds as many states as there are layers and directions"
        );
        let mut after = Vec::with_capacity(directions);
        let mut run = |index, layer: &SabLstm, x: &Tensor<D>| {
            let (output, state) = call(index, layer, x.clone(), before.next().flatten());
            after.push(state);
            output
        };
        let mut output = x;
        for (index, StackLayer { norm, forward, reverse }) in self.layers.iter().enumerate() {
            let input = if index == 0 { output } else { self.dropout.forward(output) };
            let x = norm.as_ref().map_or_else(|| input.clone(), |norm| norm.forward(input.clone()));
            output = run(index, forward, &x);
            if let Some(reverse) = reverse {
                output = Tensor::cat(vec![output, run(index, reverse, &x)], D - 1);
            }
            if self.residual && index > 0 {
                output = output + shortcut(index, input);
            }
        }
        (output, SabLstmStackState { layers: after })
    }

    /// The number of layers, counting directions.
    fn directions(&self) -> usize {
        self.layers.iter().map(|layer| 1 + usize::from(layer.reverse.is_some())).sum()
    }
}
