//! An exponential moving average of a network's weights.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// Moves the weights of `average` towards those of `model`: θ̄ ← d θ̄ + (1 − d) θ.
///
/// `average` is without autodiff, and has the parameters of `model` (with the same identifiers: a clone).
///
/// `update` is the number of updates so far. d is `decay`, or (1 + `update`) / (10 + `update`) where that is smaller, so
/// that the drawn weights, which the average starts from, are forgotten soon: what TensorFlow's `ExponentialMovingAverage` does
/// with `num_updates`.
pub(crate) fn follow<M: Module>(average: M, model: &M, decay: f64, update: usize) -> M {
    let mut weights = Weights(GradientsParams::new());
    model.visit(&mut weights);
    let early = (1.0 + update as f64) / (10.0 + update as f64);
    average.map(&mut Follow { weights: weights.0, share: 1.0 - decay.min(early) })
}

/// The weights by identifier. Burn's container for gradients holds any tensors.
struct Weights(GradientsParams);

impl ModuleVisitor for Weights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.register(param.id, param.val().inner());
    }
}

struct Follow {
    weights: GradientsParams,
    share: f64,
}

impl ModuleMapper for Follow {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let weight = self.weights.remove::<D>(param.id).expect("the network's own parameters");
        param.map(|average| average.clone() + (weight - average) * self.share)
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn the_average_follows_the_weights() {
        let device = Device::flex().autodiff();
        let drawn = LinearConfig::new(1, 1).with_bias(false).init(&device);
        let at = |value: f32| {
            let mut layer = drawn.clone();
            layer.weight = layer.weight.map(|weight| weight.zeros_like() + value);
            layer
        };
        let average = |of: burn::nn::Linear, model: f32, decay, update| {
            follow(of.valid(), &at(model), decay, update).weight.val().into_scalar::<f32>()
        };
        // Early on: (1 + 2) / (10 + 2) of the old average.
        assert_eq!(average(at(4.0), 8.0, 0.75, 2), 0.25 * 4.0 + 0.75 * 8.0);
        // Later: the decay.
        assert_eq!(average(at(4.0), 8.0, 0.75, 1_000), 0.75 * 4.0 + 0.25 * 8.0);
    }
}
