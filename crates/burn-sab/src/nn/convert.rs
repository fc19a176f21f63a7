//! Conversion between `burn::nn::Lstm` and [`SabLstm`], with the trained weights.

use burn::module::{Initializer, Param};
use burn::nn::activation::{Activation, ActivationConfig};
use burn::nn::{GateController, Linear, Lstm, LstmConfig};
use burn::tensor::Tensor;

use super::config::SabLstmConfig;
use super::lstm::SabLstm;
use crate::error::ConfigError;
use crate::op::Activations;

impl SabLstmConfig {
    /// Converts a trained `Lstm` into a [`SabLstm`]. The weights, sizes and cell options are those of
    /// the `Lstm`, and the memory settings are those of this configuration.
    ///
    /// # Errors
    ///
    /// Returns an error if the memory settings are not [valid](Self::validate), or if the strategy does
    /// not cover the cell options of the `Lstm`.
    pub fn try_init_from(&self, lstm: Lstm) -> Result<SabLstm, ConfigError> {
        let weight = &lstm.input_gate.input_transform.weight;
        let ([d_input, d_hidden], device) = (weight.dims(), weight.device());
        let config = Self {
            d_input,
            d_hidden,
            bias: false,
            batch_first: lstm.batch_first,
            reverse: lstm.reverse,
            clip: lstm.clip,
            input_forget: lstm.input_forget,
            gate_activation: ActivationConfig::Sigmoid,
            cell_activation: ActivationConfig::Tanh,
            hidden_activation: ActivationConfig::Tanh,
            // Overwritten below, so random initialisation is unnecessary.
            initializer: Initializer::Zeros,
            ..self.clone()
        };
        config.validate()?;
        let activations = (&lstm.gate_activation, &lstm.cell_activation, &lstm.hidden_activation);
        let standard = matches!(
            activations,
            (Activation::Sigmoid(_), Activation::Tanh(_), Activation::Tanh(_))
        );
        config.check_strategy(standard)?;
        let mut layer = SabLstm::from_config(&config, &device);

        // Order of the packed gates: i, f, g, o.
        let gates: Vec<GateController> =
            [Some(lstm.input_gate), lstm.forget_gate, Some(lstm.cell_gate), Some(lstm.output_gate)]
                .into_iter()
                .flatten()
                .collect();
        let weight = |part: fn(&GateController) -> &Linear| {
            let gates = gates.iter().map(|gate| part(gate).weight.val()).collect();
            Param::from_tensor(Tensor::cat(gates, 1).detach())
        };
        let bias = |part: fn(&GateController) -> &Linear| {
            let gates: Option<Vec<_>> =
                gates.iter().map(|gate| Some(part(gate).bias.as_ref()?.val())).collect();
            gates.map(|gates| Param::from_tensor(Tensor::cat(gates, 0).detach()))
        };
        layer.weight_ih = weight(|gate| &gate.input_transform);
        layer.weight_hh = weight(|gate| &gate.hidden_transform);
        layer.bias_ih = bias(|gate| &gate.input_transform);
        layer.bias_hh = bias(|gate| &gate.hidden_transform);
        layer.activations = (!standard).then_some(Activations {
            gate: lstm.gate_activation,
            cell: lstm.cell_activation,
            hidden: lstm.hidden_activation,
        });
        Ok(layer)
    }
}

/// Converts a trained `Lstm`. The memory has the default settings, except for the factors on the summary, which are
/// learned and begin at 0. The layer therefore first computes the outputs of the `Lstm`. See
/// [`SabLstmConfig::try_init_from`] for other settings.
impl From<Lstm> for SabLstm {
    fn from(lstm: Lstm) -> Self {
        let config = SabLstmConfig::new(1, 1, true).with_learned_gain(true).with_summary_scale(0.0);
        config.try_init_from(lstm).expect("the defaults are valid")
    }
}

/// Keeps the weights and options of the cell. Drops the memory settings and the score parameters.
impl From<SabLstm> for Lstm {
    fn from(layer: SabLstm) -> Self {
        let [d_input, _] = layer.weight_ih.dims();
        let d_hidden = layer.d_hidden;
        let mut lstm = LstmConfig::new(d_input, d_hidden, false)
            .with_initializer(Initializer::Zeros)
            .with_batch_first(layer.batch_first)
            .with_reverse(layer.reverse)
            .with_clip(layer.clip)
            .with_input_forget(layer.input_forget)
            .init(&layer.weight_ih.device());
        if let Some(activations) = layer.activations {
            lstm.gate_activation = activations.gate;
            lstm.cell_activation = activations.cell;
            lstm.hidden_activation = activations.hidden;
        }
        let part = |packed: &Param<Tensor<2>>, gate: usize| {
            Param::from_tensor(packed.val().narrow(1, gate * d_hidden, d_hidden).detach())
        };
        let bias = |packed: &Option<Param<Tensor<1>>>, gate: usize| {
            let packed = packed.as_ref()?.val();
            Some(Param::from_tensor(packed.narrow(0, gate * d_hidden, d_hidden).detach()))
        };
        let gates = [
            Some(&mut lstm.input_gate),
            lstm.forget_gate.as_mut(),
            Some(&mut lstm.cell_gate),
            Some(&mut lstm.output_gate),
        ];
        for (k, gate) in gates.into_iter().flatten().enumerate() {
            gate.input_transform.weight = part(&layer.weight_ih, k);
            gate.input_transform.bias = bias(&layer.bias_ih, k);
            gate.hidden_transform.weight = part(&layer.weight_hh, k);
            gate.hidden_transform.bias = bias(&layer.bias_hh, k);
        }
        lstm
    }
}
