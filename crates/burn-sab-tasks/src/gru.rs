//! Burn's GRU, step by step.

use burn::module::Module;
use burn::nn::gru::{Gru, GruConfig};
use burn::tensor::{Device, Tensor};

/// A GRU (Cho et al. 2014, the form of PyTorch), trained by backpropagation through the whole sequence.
///
/// Burn's own loop over a sequence of T steps assigns each step to a slice of `[batch, T, d_hidden]`, whose
/// gradient is a copy of all T steps. Sequences of one step each keep that copy small.
#[derive(Module, Debug)]
pub(crate) struct StepwiseGru {
    cell: Gru,
}

impl StepwiseGru {
    pub(crate) fn new(d_input: usize, d_hidden: usize, device: &Device) -> Self {
        Self { cell: GruConfig::new(d_input, d_hidden, true).init(device) }
    }

    /// From `[batch, time, d_input]` and the state `[batch, d_hidden]` to the hidden states
    /// `[batch, time, d_hidden]` and the state after the last step.
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        state: Option<Tensor<2>>,
    ) -> (Tensor<3>, Option<Tensor<2>>) {
        let mut state = state;
        let mut steps = Vec::new();
        for x in x.iter_dim(1) {
            let hidden = self.cell.forward(x, state);
            state = Some(hidden.clone().squeeze_dim(1));
            steps.push(hidden);
        }
        (Tensor::cat(steps, 1), state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, Tolerance};

    #[test]
    fn steps_give_values_and_gradients_of_burns_own_loop() {
        let device = Device::flex().autodiff();
        let _generator = crate::draw::generator();
        let model = StepwiseGru::new(3, 5, &device);
        let draw = |shape| Tensor::<3>::random(shape, Distribution::Default, &device);
        for steps in [1, 2, 7] {
            let x = draw([2, steps, 3]).require_grad();
            let up = draw([2, steps, 5]);
            let of = |hidden: Tensor<3>| {
                let grads = (hidden.clone() * up.clone()).sum().backward();
                let of_x = x.grad(&grads).unwrap();
                let of_weight = model.cell.new_gate.hidden_transform.weight.grad(&grads).unwrap();
                (hidden.into_data(), of_x.into_data(), of_weight.into_data())
            };
            let stepwise = of(model.forward(x.clone(), None).0);
            let whole = of(model.cell.forward(x.clone(), None));
            let near = Tolerance::absolute(1e-5);
            stepwise.0.assert_approx_eq::<f32>(&whole.0, near);
            stepwise.1.assert_approx_eq::<f32>(&whole.1, near);
            stepwise.2.assert_approx_eq::<f32>(&whole.2, near);
        }
    }
}
