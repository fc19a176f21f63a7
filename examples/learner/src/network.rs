//! The network, and what Burn's `Learner` asks of it.

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor};
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};
use burn_sab::{SabLstm, SabLstmConfig};

use crate::digits::{BANDS, Batch, CLASSES};

/// Names the digit of a recording.
///
/// With `burn::nn::Lstm` in the place of [`SabLstm`] the whole program compiles and runs as well: the change is the type
/// of the field and the line that makes it.
#[derive(Module, Debug)]
pub struct SpokenDigits {
    layer: SabLstm,
    readout: Linear,
}

impl SpokenDigits {
    /// A network with `d_hidden` units.
    pub fn new(d_hidden: usize, device: &Device) -> Self {
        Self {
            // let layer = burn::nn::LstmConfig::new(BANDS, d_hidden, true).init(device);
            layer: SabLstmConfig::new(BANDS, d_hidden, true)
                // Windows of ten steps, a slot for every fourth, and a small part of what is retrieved.
                .with_k_att(4)
                .with_summary_scale(0.1)
                .init(device),
            readout: LinearConfig::new(d_hidden, CLASSES).init(device),
        }
    }

    /// Logits `[B, CLASSES]` after the last step of each recording.
    pub fn forward(&self, features: Tensor<3>, last: Tensor<1, Int>) -> Tensor<2> {
        let (hidden, _) = self.layer.forward(features, None);
        let [rows, _, units] = hidden.dims();
        let last = last.reshape([rows, 1, 1]).expand([rows, 1, units]);
        self.readout.forward(hidden.gather(1, last).squeeze_dim(1))
    }

    fn classify(&self, batch: Batch) -> ClassificationOutput {
        let output = self.forward(batch.features, batch.last);
        let cross_entropy = CrossEntropyLossConfig::new().init(&output.device());
        let loss = cross_entropy.forward(output.clone(), batch.digits.clone());
        ClassificationOutput::new(loss, output, batch.digits)
    }
}

impl TrainStep for SpokenDigits {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let item = self.classify(batch);
        TrainOutput::new(self, item.loss.backward(), item)
    }
}

impl InferenceStep for SpokenDigits {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.classify(batch)
    }
}
