//! The network that is trained on a task: one recurrent layer and a readout.

use std::sync::{Mutex, PoisonError};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use burn_sab::SabLstm;

use crate::config::{ModelKind, TrainConfig};
use crate::error::TrainError;

/// A recurrent layer and the paper's readout `y = V1 h + V2 s + b` at the last steps of a sequence.
///
/// The baselines, which retrieve nothing, have no `V2`.
#[derive(Module, Debug)]
pub struct TaskModel {
    layer: SabLstm,
    /// V1 and b.
    from_hidden: Linear,
    /// V2.
    from_summary: Option<Linear>,
}

/// Steps that are handed to the layer at once when gradients are not needed. What the layer puts out
/// for a chunk is dropped before the next one, so a test at a delay of 10,000 needs little more memory
/// than its slots; at 1,000 steps the cost of carrying those over is far below that of the steps.
const CHUNK: usize = 1000;

/// Burn's random numbers come from one generator per backend, seeded and then drawn from.
static SEEDING: Mutex<()> = Mutex::new(());

/// Where weights are drawn. Every backend has a generator of its own; drawn on one CPU backend, a seed
/// means the same network on all of them.
#[cfg(feature = "flex")]
fn drawing_device(_: &Device) -> Device {
    Device::flex().autodiff()
}

/// Where weights are drawn: a build without flex draws where it trains.
#[cfg(not(feature = "flex"))]
fn drawing_device(device: &Device) -> Device {
    device.clone()
}

impl TaskModel {
    /// The network of `config`, its weights drawn from the configuration's seed.
    ///
    /// # Errors
    ///
    /// If a setting of the layer is out of its range.
    pub fn new(config: &TrainConfig, device: &Device) -> Result<Self, TrainError> {
        // Two networks that are made at the same time must not draw from each other's numbers.
        let _guard = SEEDING.lock().unwrap_or_else(PoisonError::into_inner);
        let host = drawing_device(device);
        host.seed(config.seed);
        let layer = config.effective_layer();
        let readout = LinearConfig::new(layer.d_hidden, config.task.d_output());
        let model = Self {
            from_hidden: readout.init(&host),
            from_summary: (config.model == ModelKind::Sab)
                .then(|| readout.clone().with_bias(false).init(&host)),
            layer: layer.try_init(&host)?,
        };
        // Parameters are drawn when they are first used; use them while the generator is ours.
        model.visit(&mut Draw);
        Ok(if host == *device { model } else { model.map(&mut Settle { device }) })
    }

    /// The recurrent layer.
    pub fn layer(&self) -> &SabLstm {
        &self.layer
    }

    /// Answers at the last `answers` steps of `input` `[batch, time, d_input]`, as
    /// `[batch, answers, d_output]`, from one pass of the layer over the whole sequence.
    ///
    /// # Panics
    ///
    /// Panics if the sequence is shorter than `answers`.
    pub fn forward(&self, input: Tensor<3>, answers: usize) -> Tensor<3> {
        let [_, steps, _] = input.dims();
        self.forward_in_chunks(input, answers, steps)
    }

    /// The same as [`forward`](Self::forward), in memory that does not grow with the sequence but for
    /// its slots. For use without autodiff.
    pub fn infer(&self, input: Tensor<3>, answers: usize) -> Tensor<3> {
        self.forward_in_chunks(input, answers, CHUNK)
    }

    fn forward_in_chunks(&self, input: Tensor<3>, answers: usize, chunk: usize) -> Tensor<3> {
        let [_, steps, _] = input.dims();
        assert!(answers <= steps, "{answers} answers cannot be read from {steps} steps");
        let first_answer = steps - answers;
        let mut state = None;
        let mut parts = Vec::new();
        for start in (0..steps).step_by(chunk) {
            let length = chunk.min(steps - start);
            // Copying the only chunk would be copying the input.
            let x = if length == steps {
                input.clone()
            } else {
                input.clone().narrow(1, start, length)
            };
            let (hidden, summary) = match &self.from_summary {
                Some(_) => {
                    let output = self.layer.forward_with_reminders(x, state);
                    state = Some(output.state);
                    (output.hidden, Some(output.summary))
                }
                None => {
                    let (hidden, carried) = self.layer.forward(x, state);
                    state = Some(carried);
                    (hidden, None)
                }
            };
            let skip = first_answer.saturating_sub(start);
            if skip < length {
                let last = |steps: Tensor<3>| steps.narrow(1, skip, length - skip);
                parts.push(self.read(last(hidden), summary.map(last)));
            }
        }
        if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 1) }
    }

    fn read(&self, hidden: Tensor<3>, summary: Option<Tensor<3>>) -> Tensor<3> {
        let from_hidden = self.from_hidden.forward(hidden);
        match (&self.from_summary, summary) {
            (Some(readout), Some(summary)) => from_hidden + readout.forward(summary),
            _ => from_hidden,
        }
    }
}

/// Makes every parameter draw its value now.
struct Draw;

impl ModuleVisitor for Draw {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        param.val();
    }
}

/// Copies parameters to another device. `to_device` would leave them results of an operation in the
/// autodiff graph there, and no leaves.
struct Settle<'a> {
    device: &'a Device,
}

impl ModuleMapper for Settle<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, _) = param.consume();
        let tensor = Tensor::from_data(tensor.into_data(), self.device);
        Param::initialized(id, tensor.require_grad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{DataStream, Purpose};
    use crate::task::Task;
    use burn::tensor::Tolerance;
    use rstest::rstest;

    fn tiny(model: ModelKind) -> TrainConfig {
        let task = Task::Copying { symbols: 3, alphabet: 4 };
        let mut config = TrainConfig { model, ..TrainConfig::new(task) };
        config.layer.d_hidden = 8;
        config.layer = config.layer.with_k_top(3).with_k_trunc(4);
        config
    }

    #[rstest]
    #[case(ModelKind::Sab)]
    #[case(ModelKind::Lstm)]
    #[case(ModelKind::Tbptt)]
    fn chunks_give_the_answers_of_the_whole(#[case] kind: ModelKind) {
        let device = Device::flex();
        let config = tiny(kind);
        let model = TaskModel::new(&config, &device).unwrap();
        let mut stream = DataStream::new(1, Purpose::Test);
        let batch = config.task.batch(&mut stream, 11, 2, &device);
        let whole = model.forward(batch.input.clone(), 3);
        assert_eq!(whole.dims(), [2, 3, 4]);
        for chunk in [1, 2, 5, 16, 17, 40] {
            let parts = model.forward_in_chunks(batch.input.clone(), 3, chunk);
            parts.into_data().assert_approx_eq::<f32>(&whole.to_data(), Tolerance::absolute(1e-5));
        }
    }

    #[test]
    fn a_seed_gives_the_same_weights_again() {
        let device = Device::flex();
        let weights = |seed| {
            let config = TrainConfig { seed, ..tiny(ModelKind::Sab) };
            TaskModel::new(&config, &device).unwrap().from_hidden.weight.val().into_data()
        };
        assert_eq!(weights(1), weights(1));
        assert_ne!(weights(1), weights(2));
    }
}
