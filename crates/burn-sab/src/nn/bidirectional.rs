//! Both directions of time, as in `burn::nn::BiLstm`.

use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::BiLstm;
use burn::tensor::{Device, Tensor};

use super::config::SabLstmConfig;
use super::lstm::SabLstm;
use super::state::SabLstmState;
use crate::error::ConfigError;

/// Two layers over one sequence: one runs forward, the other from the end. It replaces a `burn::nn::BiLstm`.
///
/// [`SabLstmConfig::init_bidirectional`] creates it. Each direction has its own memory. The slots of the reverse
/// direction are states from later in the sequence.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct SabBiLstm {
    /// The layer that runs forward.
    pub forward: SabLstm,
    /// The layer that runs from the end; its [`reverse`](SabLstm::reverse) is set.
    pub reverse: SabLstm,
}

impl ModuleDisplay for SabBiLstm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        self.forward.custom_content(content)
    }
}

impl SabLstmConfig {
    /// Makes two layers, one for each direction.
    ///
    /// # Errors
    ///
    /// If the settings are not [valid](Self::validate), or if `reverse` is set.
    pub fn try_init_bidirectional(&self, device: &Device) -> Result<SabBiLstm, ConfigError> {
        if self.reverse {
            return Err(ConfigError::Reversed);
        }
        self.validate()?;
        let forward = SabLstm::from_config(self, device);
        let reverse = SabLstm::from_config(&self.clone().with_reverse(true), device);
        Ok(SabBiLstm { forward, reverse })
    }

    /// Makes two layers, one for each direction.
    ///
    /// # Panics
    ///
    /// If the settings are not [valid](Self::validate), or if `reverse` is set.
    pub fn init_bidirectional(&self, device: &Device) -> SabBiLstm {
        self.try_init_bidirectional(device).unwrap_or_else(|error| panic!("SabLstmConfig: {error}"))
    }
}

impl SabBiLstm {
    /// Runs a sequence in both directions, as `burn::nn::BiLstm::forward` does.
    ///
    /// `x` is `[B, T, I]`, or `[T, B, I]` without `batch_first`. The returned hidden states have the same layout, with
    /// 2 H features: first those of the forward direction. The returned states are `[forward, reverse]`, each after the
    /// last step of its direction; for the reverse direction, this is the first step of the sequence.
    ///
    /// # Panics
    ///
    /// If an input does not fit the layers.
    #[track_caller]
    pub fn forward(
        &self,
        x: Tensor<3>,
        states: Option<[SabLstmState; 2]>,
    ) -> (Tensor<3>, [SabLstmState; 2]) {
        let [forward, reverse] = states.map_or([None, None], |states| states.map(Some));
        let (ahead, forward) = self.forward.forward(x.clone(), forward);
        let (back, reverse) = self.reverse.forward(x, reverse);
        (Tensor::cat(vec![ahead, back], 2), [forward, reverse])
    }

    /// As [`forward`](Self::forward), for rows of different lengths, each from 0 to T. Padding has no effect, and
    /// hidden states there are zero. The reverse direction of a row begins at the row's own end. See
    /// [`SabLstm::forward_padded`].
    ///
    /// # Panics
    ///
    /// If an input does not fit the layers, or a length the batch.
    #[track_caller]
    pub fn forward_padded(
        &self,
        x: Tensor<3>,
        lengths: &[usize],
        states: Option<[SabLstmState; 2]>,
    ) -> (Tensor<3>, [SabLstmState; 2]) {
        let [forward, reverse] = states.map_or([None, None], |states| states.map(Some));
        let (ahead, forward) = self.forward.forward_padded(x.clone(), lengths, forward);
        let (back, reverse) = self.reverse.forward_padded(x, lengths, reverse);
        (Tensor::cat(vec![ahead, back], 2), [forward, reverse])
    }

    /// As [`forward`](Self::forward), but returns the hidden states at `steps` only: positions in `x`, 0-based and in
    /// ascending order. See [`SabLstm::forward_at`].
    ///
    /// # Panics
    ///
    /// If an input does not fit the layers, or if the steps are not in ascending order or lie beyond the sequence.
    #[track_caller]
    pub fn forward_at(
        &self,
        x: Tensor<3>,
        steps: &[usize],
        states: Option<[SabLstmState; 2]>,
    ) -> (Tensor<3>, [SabLstmState; 2]) {
        let [forward, reverse] = states.map_or([None, None], |states| states.map(Some));
        let ahead = self.forward.forward_at(x.clone(), steps, forward);
        let back = self.reverse.forward_at(x, steps, reverse);
        (Tensor::cat(vec![ahead.hidden, back.hidden], 2), [ahead.state, back.state])
    }
}

/// Converts a trained `BiLstm`. Each direction is converted as by `SabLstm::from`.
impl From<BiLstm> for SabBiLstm {
    fn from(lstm: BiLstm) -> Self {
        let batch_first = lstm.batch_first;
        let with = |lstm: burn::nn::Lstm, reverse| SabLstm { reverse, batch_first, ..lstm.into() };
        Self { forward: with(lstm.forward, false), reverse: with(lstm.reverse, true) }
    }
}
