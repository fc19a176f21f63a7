//! The modern yardstick: a small causal Transformer.

use burn::module::Module;
use burn::nn::attention::generate_autoregressive_mask;
use burn::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{Linear, LinearConfig, generate_sinusoids};
use burn::tensor::{Device, Tensor};

/// Two layers, four heads and a feed-forward part four times as wide as the model: the usual shape of a
/// Transformer, at the smallest depth at which one layer can look for what another has marked.
const LAYERS: usize = 2;
const WIDTH: usize = 4;

/// Heads; the hidden size has to be a multiple of it.
pub(crate) const HEADS: usize = 4;

/// The slowest of the positions' waves: that of Vaswani et al. 2017, or longer for longer sequences, as
/// Burn asks for.
const SLOWEST: usize = 10_000;

/// Layer normalisation before each part, no dropout, sinusoidal positions; a step sees itself and the
/// steps before it.
#[derive(Module, Debug)]
pub struct CausalTransformer {
    embedding: Linear,
    encoder: TransformerEncoder,
    d_hidden: usize,
}

impl CausalTransformer {
    pub(crate) fn new(d_input: usize, d_hidden: usize, device: &Device) -> Self {
        let encoder = TransformerEncoderConfig::new(d_hidden, WIDTH * d_hidden, HEADS, LAYERS)
            .with_dropout(0.0)
            .with_norm_first(true);
        Self {
            embedding: LinearConfig::new(d_input, d_hidden).init(device),
            encoder: encoder.init(device),
            d_hidden,
        }
    }

    /// From `[batch, time, d_input]` to `[batch, time, d_hidden]`.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, time, _] = x.dims();
        let device = x.device();
        let positions = generate_sinusoids(time, self.d_hidden, SLOWEST.max(time), &device);
        let embedded = self.embedding.forward(x) + positions.unsqueeze::<3>();
        // Burn's mask says which steps are hidden.
        let hidden = generate_autoregressive_mask(batch, time, &device);
        self.encoder.forward(TransformerEncoderInput::new(embedded).mask_attn(hidden))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, Tolerance};

    #[test]
    fn no_step_sees_a_later_one() {
        let device = Device::flex();
        let _generator = crate::draw::generator();
        let model = CausalTransformer::new(3, 8, &device);
        let x = Tensor::<3>::random([2, 6, 3], Distribution::Default, &device);
        let whole = model.forward(x.clone());
        assert_eq!(whole.dims(), [2, 6, 8]);
        for steps in 1..6 {
            let start = model.forward(x.clone().narrow(1, 0, steps));
            let of_whole = whole.clone().narrow(1, 0, steps);
            start
                .into_data()
                .assert_approx_eq::<f32>(&of_whole.into_data(), Tolerance::absolute(1e-5));
        }
        let other = Tensor::cat(vec![x.clone().narrow(1, 1, 1), x.narrow(1, 1, 5)], 1);
        let changed = (model.forward(other) - whole).abs().sum_dim(2).into_data();
        assert!(changed.iter::<f32>().all(|change| change > 1e-4), "the first step reaches all");
    }
}
