//! One case computed, and compared with what its file expects.

use anyhow::{Context, ensure};
use burn::module::Param;
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};
use burn_sab::{SabLstm, SabLstmOutput, SabLstmState, Scorer, Strategy};

use super::case::{Case, Values};

/// Largest `max |got - want| / max(1, max |want|)` over tensors.
pub struct Errors {
    pub outputs: f64,
    pub gradients: f64,
}

/// Runs the layer on the case, forward and backward.
///
/// # Errors
///
/// If the strategy does not cover the case, or something comes out in another shape.
pub fn check(
    case: &Case,
    strategy: Strategy,
    dtype: DType,
    device: &Device,
) -> anyhow::Result<Errors> {
    let given = Given { case, dtype, device };
    let layer = given.layer(strategy)?;
    let x = given.tensor::<3>("in.x").require_grad();
    let h0 = given.tensor::<2>("in.h0").require_grad();
    let c0 = given.tensor::<2>("in.c0").require_grad();
    let state = SabLstmState::new(c0.clone(), h0.clone());
    let output = layer.forward_with_reminders(x.clone(), Some(state));

    let loss = (given.tensor("up.h") * output.hidden.clone()).sum()
        + (given.tensor("up.s") * output.summary.clone()).sum()
        + (given.tensor("up.c") * output.state.cell.clone()).sum();
    let grads = loss.backward();

    let mut outputs = Worst::new(case);
    outputs.see("out.h", output.hidden.to_data())?;
    outputs.see("out.s", output.summary.to_data())?;
    outputs.see("out.c", output.state.cell.to_data())?;
    outputs.see("out.slots", TensorData::from([output.state.num_slots() as f64]))?;
    outputs.see("out.weights", dense_weights(&output))?;

    let mut gradients = Worst::new(case);
    gradients.see("grad.in.x", gradient(&x, &grads))?;
    gradients.see("grad.in.h0", gradient(&h0, &grads))?;
    gradients.see("grad.in.c0", gradient(&c0, &grads))?;
    let mut vector =
        |name: &str, param: &Param<Tensor<1>>| gradients.see(name, gradient(&param.val(), &grads));
    for (name, bias) in [("grad.b.ih", &layer.bias_ih), ("grad.b.hh", &layer.bias_hh)] {
        vector(name, bias.as_ref().context("no bias")?)?;
    }
    if let Some(gain) = &layer.summary_gain {
        vector("grad.summary_gain", gain)?;
    }
    match &layer.scorer {
        Scorer::Additive(scorer) => {
            vector("grad.score.u", &scorer.u)?;
            vector("grad.score.v", &scorer.v)?;
        }
        Scorer::Mlp(scorer) => {
            vector("grad.score.query_bias", &scorer.query_bias)?;
            vector("grad.score.v", &scorer.v)?;
        }
        Scorer::Dot(_) => {}
    }
    let mut matrix = |name: &str, param: &Param<Tensor<2>>| {
        gradients.see(name, transposed(gradient(&param.val(), &grads)))
    };
    matrix("grad.w.ih", &layer.weight_ih)?;
    matrix("grad.w.hh", &layer.weight_hh)?;
    match &layer.scorer {
        Scorer::Additive(_) => {}
        Scorer::Mlp(scorer) => {
            matrix("grad.score.query", &scorer.query)?;
            matrix("grad.score.memory", &scorer.memory)?;
        }
        Scorer::Dot(scorer) => {
            matrix("grad.score.query", &scorer.query)?;
            matrix("grad.score.key", &scorer.key)?;
        }
    }
    assert_eq!(gradients.seen, case.gradients(), "gradients that are compared");
    Ok(Errors { outputs: outputs.error, gradients: gradients.error })
}

/// The tensors of a case on a device.
struct Given<'a> {
    case: &'a Case,
    dtype: DType,
    device: &'a Device,
}

impl Given<'_> {
    fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        let Values { shape, values } = self.case.values(name);
        let data = TensorData::new(values.clone(), shape.clone());
        Tensor::from_data(data, (self.device, self.dtype))
    }

    /// The layer with the case's weights. PyTorch keeps matrices as `[out, in]`, Burn as `[in, out]`.
    fn layer(&self, strategy: Strategy) -> anyhow::Result<SabLstm> {
        let vector = |name| Param::from_tensor(self.tensor::<1>(name));
        let matrix = |name| Param::from_tensor(self.tensor::<2>(name).transpose());
        let mut layer = self.case.config.clone().with_strategy(strategy).try_init(self.device)?;
        layer.weight_ih = matrix("w.ih");
        layer.weight_hh = matrix("w.hh");
        layer.bias_ih = Some(vector("b.ih"));
        layer.bias_hh = Some(vector("b.hh"));
        layer.summary_gain = layer.summary_gain.map(|_| vector("summary_gain"));
        match &mut layer.scorer {
            Scorer::Additive(scorer) => {
                scorer.u = vector("score.u");
                scorer.v = vector("score.v");
            }
            Scorer::Mlp(scorer) => {
                scorer.query = matrix("score.query");
                scorer.query_bias = vector("score.query_bias");
                scorer.memory = matrix("score.memory");
                scorer.v = vector("score.v");
            }
            Scorer::Dot(scorer) => {
                scorer.query = matrix("score.query");
                scorer.key = matrix("score.key");
            }
        }
        Ok(layer)
    }
}

/// The largest error so far.
struct Worst<'a> {
    case: &'a Case,
    error: f64,
    seen: usize,
}

impl<'a> Worst<'a> {
    fn new(case: &'a Case) -> Self {
        Self { case, error: 0.0, seen: 0 }
    }

    fn see(&mut self, name: &str, got: TensorData) -> anyhow::Result<()> {
        let Values { shape, values: want } = self.case.values(name);
        ensure!(
            got.shape().as_slice() == &shape[..],
            "{name} comes out in shape {:?}, and not {shape:?}",
            got.shape()
        );
        let got: Vec<f64> = got.iter::<f64>().collect();
        let largest = want.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
        for (got, want) in got.iter().zip(want) {
            let error = (got - want).abs() / largest;
            // `max` alone would let a NaN pass.
            self.error = if error.is_nan() { f64::INFINITY } else { self.error.max(error) };
        }
        self.seen += 1;
        Ok(())
    }
}

fn gradient<const D: usize>(tensor: &Tensor<D>, grads: &Gradients) -> TensorData {
    // A tensor that no gradient reached has none.
    tensor.grad(grads).unwrap_or_else(|| tensor.clone().inner().zeros_like()).to_data()
}

fn transposed(data: TensorData) -> TensorData {
    let [rows, columns]: [usize; 2] = data.shape().dims();
    let values: Vec<f64> = data.iter::<f64>().collect();
    let by_column = (0..rows * columns).map(|at| values[(at % rows) * columns + at / rows]);
    TensorData::new(by_column.collect(), [columns, rows])
}

/// `[B, T, M]` from the retrieved slots and their weights.
fn dense_weights(output: &SabLstmOutput) -> TensorData {
    let slots = output.state.num_slots();
    let [batch, time, places] = output.weights.dims();
    let mut dense = vec![0.0; batch * time * slots];
    let indices = output.slots.to_data();
    let weights = output.weights.to_data();
    for (at, (slot, weight)) in indices.iter::<i64>().zip(weights.iter::<f64>()).enumerate() {
        if weight != 0.0 {
            dense[at / places * slots + slot as usize] += weight;
        }
    }
    TensorData::new(dense, [batch, time, slots])
}
