//! minGRU, the small modern recurrent network whose steps can be computed in parallel.

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, activation::sigmoid};

/// Layers, as in the paper's selective copying (table 1: 99.5 % with three, 37 % with one).
const LAYERS: usize = 3;

/// minGRU in its vanilla form (Feng et al. 2024, arXiv 2410.01201, section 3.1): z = sigmoid(W_z x + b_z),
/// h_t = (1 - z_t) h_{t-1} + z_t (W_h x_t + b_h).
///
/// Neither z nor the candidate depends on the state, so what a layer remembers depends on its inputs only. The
/// paper therefore stacks layers. Here each stands in a residual block behind a layer normalisation, after an
/// embedding of the input; there is no convolution, feed-forward part or dropout.
#[derive(Module, Debug)]
pub(crate) struct MinGru {
    embedding: Linear,
    blocks: Vec<Block>,
}

#[derive(Module, Debug)]
struct Block {
    norm: LayerNorm,
    gate: Linear,
    candidate: Linear,
}

impl MinGru {
    pub(crate) fn new(d_input: usize, d_hidden: usize, device: &Device) -> Self {
        let square = LinearConfig::new(d_hidden, d_hidden);
        let block = |_| Block {
            norm: LayerNormConfig::new(d_hidden).init(device),
            gate: square.init(device),
            candidate: square.init(device),
        };
        Self {
            embedding: LinearConfig::new(d_input, d_hidden).init(device),
            blocks: (0..LAYERS).map(block).collect(),
        }
    }

    /// From `[batch, time, d_input]` and a state `[batch, d_hidden]` a layer to `[batch, time, d_hidden]` and
    /// the states after the last step.
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        states: Option<Vec<Tensor<2>>>,
    ) -> (Tensor<3>, Vec<Tensor<2>>) {
        let [batch, time, _] = x.dims();
        let mut stream = self.embedding.forward(x);
        let [.., width] = stream.dims();
        let zeros = || vec![Tensor::zeros([batch, width], &stream.device()); self.blocks.len()];
        let states = states.unwrap_or_else(zeros);
        let mut last = Vec::new();
        for (block, state) in self.blocks.iter().zip(states) {
            let y = block.norm.forward(stream.clone());
            let z = sigmoid(block.gate.forward(y.clone()));
            let candidate = block.candidate.forward(y);
            let hidden = scan(z.clone().neg().add_scalar(1.0), z * candidate, state);
            last.push(hidden.clone().narrow(1, time - 1, 1).squeeze_dim(1));
            stream = stream + hidden;
        }
        (stream, last)
    }
}

/// The states h_t = a_t h_{t-1} + b_t after `before`, for `a` and `b` `[batch, time, width]`.
///
/// Two steps at a time are one step of a sequence that is half as long, so the elements of all levels together
/// are twice those of the sequence. On the CPU this is faster than a loop over the steps, each of which costs
/// the autodiff graph several nodes.
fn scan(a: Tensor<3>, b: Tensor<3>, before: Tensor<2>) -> Tensor<3> {
    let [batch, time, width] = a.dims();
    let before = before.unsqueeze_dim::<3>(1);
    if time == 1 {
        return a * before + b;
    }
    let half = time / 2;
    let halves = |x: &Tensor<3>| {
        let pairs = x.clone().narrow(1, 0, 2 * half).reshape([batch, half, 2, width]);
        let place = |place| pairs.clone().narrow(2, place, 1).squeeze_dim::<3>(2);
        (place(0), place(1))
    };
    let ((a_even, a_odd), (b_even, b_odd)) = (halves(&a), halves(&b));
    let odd = scan(
        a_odd.clone() * a_even.clone(),
        a_odd * b_even.clone() + b_odd,
        before.clone().squeeze_dim(1),
    );
    let before_even = Tensor::cat(vec![before, odd.clone()], 1).narrow(1, 0, half);
    let even = a_even * before_even + b_even;
    let both = Tensor::stack::<4>(vec![even, odd.clone()], 2).reshape([batch, 2 * half, width]);
    if time == 2 * half {
        return both;
    }
    let at_end = |x: Tensor<3>, at: usize| x.narrow(1, at, 1);
    let last = at_end(a, time - 1) * at_end(odd, half - 1) + at_end(b, time - 1);
    Tensor::cat(vec![both, last], 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, Tolerance};

    #[test]
    fn the_scan_is_the_loop_in_values_and_gradients() {
        let device = Device::flex().autodiff();
        let _generator = crate::draw::generator();
        let draw = |time| Tensor::<3>::random([2, time, 3], Distribution::Default, &device);
        for time in [1, 2, 3, 4, 5, 7, 8, 13, 33] {
            let (a, b) = (draw(time).require_grad(), draw(time).require_grad());
            let before = draw(1).squeeze_dim::<2>(1).require_grad();
            let up = draw(time);
            let of = |hidden: Tensor<3>| {
                let grads = (hidden.clone() * up.clone()).sum().backward();
                let of_inputs = [a.grad(&grads).unwrap(), b.grad(&grads).unwrap()];
                let of_before = before.grad(&grads).unwrap().unsqueeze_dim(1);
                let all = Tensor::cat(
                    [vec![hidden.inner()], of_inputs.to_vec(), vec![of_before]].concat(),
                    1,
                );
                all.into_data()
            };
            let mut state = before.clone().unsqueeze_dim::<3>(1);
            let mut steps = Vec::new();
            for t in 0..time {
                state = a.clone().narrow(1, t, 1) * state + b.clone().narrow(1, t, 1);
                steps.push(state.clone());
            }
            let looped = of(Tensor::cat(steps, 1));
            let scanned = of(scan(a.clone(), b.clone(), before.clone()));
            scanned.assert_approx_eq::<f32>(&looped, Tolerance::absolute(1e-5));
        }
    }
}
