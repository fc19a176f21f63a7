//! A learned priority for a bounded memory (`slot_budget`).
//!
//! Which slots will be needed cannot be seen from their weights so far: a network that waits retrieves
//! whatever there is. But a trained network shows, on sequences whose slots all fit, which slots it retrieves at
//! the steps that matter. The priority is the linear function of a slot that predicts this best.

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};

use super::lstm::SabLstm;

/// Added to the variances of the slots' elements, as a share of their mean: units that never change would make
/// the least squares singular.
const RIDGE: f64 = 1e-4;

impl SabLstm {
    /// Fits the priority by which a [`slot_budget`](crate::SabSettings::slot_budget) keeps slots, for a trained
    /// layer.
    ///
    /// Runs `x` (`[B, T, I]`, or `[T, B, I]` without `batch_first`) from an empty state with all slots kept. The
    /// weights that a slot receives at `steps`, at most 1 in all, say how much it was needed; `steps` are 0-based
    /// and rising, those at which the network is read. The priority is the least-squares fit of this to the
    /// slots' values. It is a constant of the layer: saved with it, and not trained. Sequences as in training serve; a
    /// few hundred slots for each hidden unit are enough.
    ///
    /// # Panics
    ///
    /// If `x` does not fit the layer, if the steps do not rise or lie beyond the sequence, or if nothing is stored.
    #[track_caller]
    pub fn fit_priority(mut self, x: Tensor<3>, steps: &[usize]) -> Self {
        let budget = self.settings.slot_budget.take();
        let output = self.forward_at(x, steps, None);
        self.settings.slot_budget = budget;
        let slots =
            output.state.slots().expect("SabLstm::fit_priority: the sequence stores no slot");
        let [batch, count, hidden] = slots.dims();
        let options = (&slots.device(), slots.dtype());
        let (indices, weights) = if self.batch_first {
            (output.slots, output.weights)
        } else {
            (output.slots.swap_dims(0, 1), output.weights.swap_dims(0, 1))
        };
        let [_, given, width] = weights.dims();
        let mut needed = vec![0.0; batch * count];
        let pairs = indices.into_data().iter::<i64>().zip(weights.into_data().iter::<f64>());
        for (at, (slot, weight)) in pairs.collect::<Vec<_>>().into_iter().enumerate() {
            needed[at / (given * width) * count + slot as usize] += weight;
        }
        let needed = needed.into_iter().map(|sum| sum.min(1.0)).collect();
        let needed: Tensor<2> =
            Tensor::from_data(TensorData::new::<f64, _>(needed, [batch * count, 1]), options);
        let centred = |of: Tensor<2>| of.clone() - of.mean_dim(0);
        let (slots, needed) =
            (centred(slots.detach().reshape([batch * count, hidden])), centred(needed));
        let scale = 1.0 / (batch * count) as f64;
        let to_host = |of: Tensor<2>| of.mul_scalar(scale).into_data().iter::<f64>().collect();
        let mut covariance: Vec<f64> = to_host(slots.clone().transpose().matmul(slots.clone()));
        let target: Vec<f64> = to_host(slots.transpose().matmul(needed));
        let mean = (0..hidden).map(|k| covariance[k * hidden + k]).sum::<f64>() / hidden as f64;
        for k in 0..hidden {
            covariance[k * hidden + k] += RIDGE * mean;
        }
        let priority = TensorData::new(solve(&covariance, &target), [hidden]);
        let priority = Tensor::from_data(priority, options);
        self.priority = Some(Param::from_tensor(priority).set_require_grad(false));
        self
    }
}

/// Solves `matrix · x = target` for a symmetric positive definite matrix, by conjugate gradients.
fn solve(matrix: &[f64], target: &[f64]) -> Vec<f64> {
    let n = target.len();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut x = vec![0.0; n];
    let (mut residual, mut direction) = (target.to_vec(), target.to_vec());
    let mut norm = dot(&residual, &residual);
    let small = norm * 1e-20;
    // In exact arithmetic n rounds are enough; rounding takes some more.
    for _ in 0..4 * n {
        if norm <= small {
            break;
        }
        let image: Vec<f64> = matrix.chunks(n).map(|row| dot(row, &direction)).collect();
        let step = norm / dot(&direction, &image);
        for k in 0..n {
            x[k] += step * direction[k];
            residual[k] -= step * image[k];
        }
        let next = dot(&residual, &residual);
        for k in 0..n {
            direction[k] = residual[k] + next / norm * direction[k];
        }
        norm = next;
    }
    x
}

#[cfg(test)]
mod tests {
    use super::solve;

    #[test]
    fn conjugate_gradients_solve() {
        // Hilbert's matrix with a ridge: badly conditioned.
        let n = 8;
        let matrix: Vec<f64> = (0..n * n)
            .map(|at| {
                1.0 / ((at / n + at % n + 1) as f64) + if at / n == at % n { 1e-4 } else { 0.0 }
            })
            .collect();
        let x: Vec<f64> = (0..n).map(|k| (k as f64 - 3.0) / 2.0).collect();
        let target: Vec<f64> =
            matrix.chunks(n).map(|row| row.iter().zip(&x).map(|(a, b)| a * b).sum()).collect();
        for (found, x) in solve(&matrix, &target).iter().zip(&x) {
            assert!((found - x).abs() < 1e-5, "{found} for {x}");
        }
        assert_eq!(solve(&matrix, &[0.0; 8]), [0.0; 8]);
    }
}
