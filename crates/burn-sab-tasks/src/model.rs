//! The network that is trained on a task: one recurrent layer and a readout.

use std::path::Path;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_sab::{SabLstm, SabLstmState, Segments};

use crate::checkpoint;
use crate::config::{ALL, CHUNK, ModelKind, TrainConfig};
use crate::draw::draw;
use crate::error::TrainError;
use crate::gru::StepwiseGru;
use crate::mingru::MinGru;
use crate::task::Batch;
use crate::transformer::CausalTransformer;

/// A network that reads a sequence, and the paper's readout `y = V1 h + V2 s + b` at its last steps.
///
/// Those that retrieve nothing have no `V2`.
#[derive(Module, Debug)]
pub struct TaskModel {
    network: Network,
    /// V1 and b.
    from_hidden: Linear,
    /// V2.
    from_summary: Option<Linear>,
}

/// What stands below the readout.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // one value a run: nothing is gained by boxing
enum Network {
    Recurrent(SabLstm),
    Gru(StepwiseGru),
    MinGru(MinGru),
    Transformer(CausalTransformer),
}

/// What a network carries from one chunk of a sequence to the next.
#[allow(clippy::large_enum_variant)] // one value a chunk: nothing is gained by boxing
enum State {
    Recurrent(SabLstmState),
    Gru(Option<Tensor<2>>),
    MinGru(Vec<Tensor<2>>),
}

/// Which steps of a chunk are read.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    /// All but so many of the first.
    From(usize),
    /// All, of rows of these lengths.
    Padded(&'a [usize]),
}

/// Hidden states and summaries of the steps that are read, `[batch, steps, d_hidden]`, and the state after
/// the last one.
struct Steps {
    hidden: Tensor<3>,
    summary: Option<Tensor<3>>,
    state: Option<State>,
}

impl TaskModel {
    /// The network of `config`, its weights drawn from the configuration's seed.
    ///
    /// # Errors
    ///
    /// If a setting of the layer is out of its range.
    pub fn new(config: &TrainConfig, device: &Device) -> Result<Self, TrainError> {
        let layer = config.effective_layer();
        layer.validate()?;
        let readout = LinearConfig::new(layer.d_hidden, config.task.d_output());
        let init = |device: &Device| Self {
            from_hidden: readout.init(device),
            from_summary: config
                .model
                .retrieves()
                .then(|| readout.clone().with_bias(false).init(device)),
            network: match config.model {
                ModelKind::Gru => {
                    Network::Gru(StepwiseGru::new(layer.d_input, layer.d_hidden, device))
                }
                ModelKind::MinGru => {
                    Network::MinGru(MinGru::new(layer.d_input, layer.d_hidden, device))
                }
                ModelKind::Transformer => {
                    let network = CausalTransformer::new(layer.d_input, layer.d_hidden, device);
                    Network::Transformer(network)
                }
                _ => Network::Recurrent(layer.init(device)),
            },
        };
        Ok(draw(config.seed, device, init))
    }

    /// The settings and the best network, without autodiff, of the run whose latest intact checkpoint is in `folder`. Reads
    /// no data of the task.
    ///
    /// # Errors
    ///
    /// If there is no checkpoint, or if none is intact.
    pub fn of_run(folder: &Path, device: &Device) -> Result<(TrainConfig, Self), TrainError> {
        let (trained, _) = checkpoint::latest(folder, |mut found| {
            let config = found.state.config.clone();
            config.validate()?;
            let fresh = Self::new(&config, device)?;
            Ok((config, found.load_network(fresh)?.valid()))
        })?;
        Ok(trained)
    }

    /// The recurrent layer, if there is one.
    pub fn layer(&self) -> Option<&SabLstm> {
        match &self.network {
            Network::Recurrent(layer) => Some(layer),
            _ => None,
        }
    }

    /// The recurrent layer, to change its settings.
    pub fn layer_mut(&mut self) -> Option<&mut SabLstm> {
        match &mut self.network {
            Network::Recurrent(layer) => Some(layer),
            _ => None,
        }
    }

    /// Weights that are trained: those of a scorer are not, where there is nothing to score.
    pub fn live_parameters(&self) -> usize {
        let idle = self.layer().filter(|_| self.from_summary.is_none());
        self.num_params() - idle.map_or(0, |layer| layer.scorer.num_params())
    }

    /// Whether memory grows with the square of a sequence's length.
    pub(crate) fn looks_at_all_pairs(&self) -> bool {
        match &self.network {
            Network::Recurrent(layer) => layer.settings.k_top >= ALL,
            Network::Gru(_) | Network::MinGru(_) => false,
            Network::Transformer(_) => true,
        }
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

    /// The answers to a batch, `[batch, answers, d_output]`: at the last `answers` steps of every row, or at the last
    /// step of each where rows differ in length.
    ///
    /// # Panics
    ///
    /// Panics if a sequence is shorter than `answers`, or if a row has no step.
    pub fn answer(&self, batch: &Batch, answers: usize) -> Tensor<3> {
        let [_, steps, _] = batch.input.dims();
        self.answer_in_chunks(batch, answers, steps)
    }

    /// Answers at one step of a stream, `[batch, d_output]`, and the state after it; `x` is `[batch, d_input]`. For use
    /// without autodiff. `None` if the network is not a [`SabLstm`].
    pub fn step(
        &self,
        x: Tensor<2>,
        state: Option<SabLstmState>,
    ) -> Option<(Tensor<2>, SabLstmState)> {
        let (hidden, summary, state) = self.layer()?.step_with_summary(x, state);
        Some((self.read(hidden, Some(summary)), state))
    }

    fn answer_in_chunks(&self, batch: &Batch, answers: usize, chunk: usize) -> Tensor<3> {
        match &batch.lengths {
            None => self.forward_in_chunks(batch.input.clone(), answers, chunk),
            Some(lengths) => self.padded_in_chunks(batch.input.clone(), lengths, chunk),
        }
    }

    /// The same as [`answer`](Self::answer), in memory that does not grow with the sequence but for
    /// its slots. For use without autodiff.
    pub fn infer(&self, batch: &Batch, answers: usize) -> Tensor<3> {
        let [_, steps, _] = batch.input.dims();
        let chunk = match &self.network {
            Network::Recurrent(_) | Network::Gru(_) | Network::MinGru(_) => CHUNK,
            // It has no state that could be carried.
            Network::Transformer(_) => steps,
        };
        self.answer_in_chunks(batch, answers, chunk)
    }

    fn forward_in_chunks(&self, input: Tensor<3>, answers: usize, chunk: usize) -> Tensor<3> {
        let [_, steps, _] = input.dims();
        assert!(answers <= steps, "{answers} answers cannot be read from {steps} steps");
        let first_answer = steps - answers;
        let mut state = None;
        let mut parts = Vec::new();
        for start in (0..steps).step_by(chunk) {
            let length = chunk.min(steps - start);
            let x = part(&input, start, length);
            let skip = first_answer.saturating_sub(start).min(length);
            let Steps { hidden, summary, state: carried } = self.run(x, Wanted::From(skip), state);
            state = carried;
            if skip < length {
                parts.push(self.read(hidden, summary));
            }
        }
        if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 1) }
    }

    /// Answers at the last step of each row, `[batch, 1, d_output]`.
    fn padded_in_chunks(&self, input: Tensor<3>, lengths: &[usize], chunk: usize) -> Tensor<3> {
        let [rows, steps, _] = input.dims();
        assert!(rows == lengths.len() && !lengths.contains(&0), "a step at least for each row");
        let (mut state, mut parts, mut order) = (None, Vec::new(), Vec::new());
        for start in (0..steps).step_by(chunk) {
            let width = chunk.min(steps - start);
            let here: Vec<usize> =
                lengths.iter().map(|length| length.saturating_sub(start).min(width)).collect();
            let Steps { hidden, summary, state: carried } =
                self.run(part(&input, start, width), Wanted::Padded(&here), state);
            state = carried;
            let ends = |row: &usize| (start + 1..=start + width).contains(&lengths[*row]);
            let ending: Vec<usize> = (0..rows).filter(ends).collect();
            if !ending.is_empty() {
                let places = ending.iter().map(|row| (row * width + here[*row] - 1) as i64);
                let places: Vec<i64> = places.collect();
                let last = |sequence| steps_at(sequence, &places);
                parts.push(self.read(last(hidden), summary.map(last)));
                order.extend(ending);
            }
        }
        let mut places = vec![0i64; rows];
        for (place, row) in order.into_iter().enumerate() {
            places[row] = place as i64;
        }
        steps_at(Tensor::cat(parts, 0), &places)
    }

    /// Goes over `x`, and gives what the readout needs of its steps.
    fn run(&self, x: Tensor<3>, wanted: Wanted, state: Option<State>) -> Steps {
        let [batch, length, _] = x.dims();
        let skip = match wanted {
            // Of a chunk without answers only the state is needed; one step is the least to ask for.
            Wanted::From(skip) => skip.min(length - 1),
            Wanted::Padded(_) => 0,
        };
        let read = |hidden: Tensor<3>| hidden.narrow(1, skip, length - skip);
        match &self.network {
            Network::Recurrent(layer) => {
                let state = match state {
                    Some(State::Recurrent(state)) => Some(state),
                    _ => None,
                };
                let steps: Vec<usize> = (skip..length).collect();
                let output = match wanted {
                    Wanted::Padded(lengths) => {
                        let segments = Segments::new(batch, length).with_lengths(lengths);
                        let segments = segments.expect("no row is longer than the chunk");
                        layer.forward_segments(x, &segments, state)
                    }
                    Wanted::From(0) => layer.forward_with_reminders(x, state),
                    Wanted::From(_) => layer.forward_at(x, &steps, state),
                };
                let summary = self.from_summary.is_some().then_some(output.summary);
                let state = Some(State::Recurrent(output.state));
                Steps { hidden: output.hidden, summary, state }
            }
            Network::Gru(network) => {
                let state = match state {
                    Some(State::Gru(state)) => state,
                    _ => None,
                };
                let (hidden, state) = network.forward(x, state);
                Steps { hidden: read(hidden), summary: None, state: Some(State::Gru(state)) }
            }
            Network::MinGru(network) => {
                let states = match state {
                    Some(State::MinGru(states)) => Some(states),
                    _ => None,
                };
                let (hidden, states) = network.forward(x, states);
                Steps { hidden: read(hidden), summary: None, state: Some(State::MinGru(states)) }
            }
            Network::Transformer(network) => {
                Steps { hidden: read(network.forward(x)), summary: None, state: None }
            }
        }
    }

    fn read<const D: usize>(&self, hidden: Tensor<D>, summary: Option<Tensor<D>>) -> Tensor<D> {
        let from_hidden = self.from_hidden.forward(hidden);
        match (&self.from_summary, summary) {
            (Some(readout), Some(summary)) => from_hidden + readout.forward(summary),
            _ => from_hidden,
        }
    }
}

/// Steps of a sequence. Copying the only chunk would be copying the input.
fn part(input: &Tensor<3>, start: usize, length: usize) -> Tensor<3> {
    match input.dims()[1] == length {
        true => input.clone(),
        false => input.clone().narrow(1, start, length),
    }
}

/// The steps at these places of `[batch, time, width]`, counted through all rows, as `[places, 1, width]`.
fn steps_at(sequence: Tensor<3>, places: &[i64]) -> Tensor<3> {
    let [batch, time, width] = sequence.dims();
    let data = TensorData::new(places.to_vec(), [places.len()]);
    let places = Tensor::<1, Int>::from_data(data, &sequence.device());
    sequence.reshape([batch * time, width]).select(0, places).unsqueeze_dim(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{DataStream, Purpose};
    use crate::task::{Batch, Task};
    use burn::module::Param;
    use burn::tensor::Tolerance;
    use rstest::rstest;

    fn tiny(model: ModelKind) -> TrainConfig {
        let task = Task::Copying { symbols: 3, alphabet: 4 };
        let mut config = TrainConfig { model, ..TrainConfig::new(task) };
        config.layer.d_hidden = 8;
        config.layer = config.layer.with_k_top(3).with_k_trunc(4);
        config
    }

    fn batch(config: &TrainConfig, span: usize, rows: usize, device: &Device) -> Batch {
        let mut stream = DataStream::new(1, Purpose::Training);
        config.examples().unwrap().training_batch(&mut stream, span, rows, device)
    }

    #[rstest]
    #[case(ModelKind::Sab)]
    #[case(ModelKind::Lstm)]
    #[case(ModelKind::Tbptt)]
    #[case(ModelKind::Attention)]
    #[case(ModelKind::Gru)]
    #[case(ModelKind::MinGru)]
    fn chunks_give_the_answers_of_the_whole(#[case] kind: ModelKind) {
        let device = Device::flex();
        let config = tiny(kind);
        let model = TaskModel::new(&config, &device).unwrap();
        let batch = batch(&config, 11, 2, &device);
        let whole = model.forward(batch.input.clone(), 3);
        assert_eq!(whole.dims(), [2, 3, 4]);
        for chunk in [1, 2, 5, 16, 17, 40] {
            let parts = model.forward_in_chunks(batch.input.clone(), 3, chunk);
            parts.into_data().assert_approx_eq::<f32>(&whole.to_data(), Tolerance::absolute(1e-5));
        }
    }

    #[rstest]
    #[case(ModelKind::Sab, true)]
    #[case(ModelKind::Lstm, true)]
    #[case(ModelKind::Tbptt, true)]
    #[case(ModelKind::Attention, true)]
    #[case(ModelKind::Gru, false)]
    #[case(ModelKind::MinGru, false)]
    #[case(ModelKind::Transformer, false)]
    fn steps_give_the_answers_of_the_whole(#[case] kind: ModelKind, #[case] steps: bool) {
        let device = Device::flex();
        let config = tiny(kind);
        let model = TaskModel::new(&config, &device).unwrap().valid();
        let input = batch(&config, 11, 2, &device).input;
        let [_, time, _] = input.dims();
        let whole = model.forward(input.clone(), time);
        let (mut answers, mut state) = (vec![], None);
        for x in input.iter_dim(1) {
            let Some((answer, next)) = model.step(x.squeeze_dim(1), state.take()) else {
                assert!(!steps);
                return;
            };
            answers.push(answer);
            state = Some(next);
        }
        assert!(steps);
        let answers: Tensor<3> = Tensor::stack(answers, 1);
        answers.into_data().assert_approx_eq::<f32>(&whole.into_data(), Tolerance::absolute(1e-5));
    }

    #[rstest]
    #[case(ModelKind::Sab)]
    #[case(ModelKind::Lstm)]
    #[case(ModelKind::Tbptt)]
    #[case(ModelKind::Attention)]
    #[case(ModelKind::Gru)]
    #[case(ModelKind::MinGru)]
    #[case(ModelKind::Transformer)]
    fn padding_changes_neither_answers_nor_gradients(#[case] kind: ModelKind) {
        let device = Device::flex().autodiff();
        let config = tiny(kind);
        let model = TaskModel::new(&config, &device).unwrap();
        let lengths = [17, 1, 9, 12];
        let Batch { input, target, .. } = batch(&config, 11, 4, &device);
        let input = input.require_grad();
        let padded = Batch { input: input.clone(), lengths: Some(lengths.to_vec()), target };
        let weights = Tensor::<3>::from_data([[[1.0f32, -2.0, 3.0, 0.5]]], &device);
        let answers = model.answer(&padded, 1);
        let grads = (answers.clone() * weights.clone()).sum().backward();
        let grad = input.grad(&grads).unwrap();
        let near = Tolerance::absolute(1e-5);
        for (row, length) in lengths.into_iter().enumerate() {
            let alone =
                input.clone().narrow(0, row, 1).narrow(1, 0, length).detach().require_grad();
            let answer = model.forward(alone.clone(), 1);
            let found = answers.clone().narrow(0, row, 1).into_data();
            found.assert_approx_eq::<f32>(&answer.to_data(), near);
            let grads = (answer * weights.clone()).sum().backward();
            let of_row = grad.clone().narrow(0, row, 1);
            let found = of_row.clone().narrow(1, 0, length).into_data();
            found.assert_approx_eq::<f32>(&alone.grad(&grads).unwrap().into_data(), near);
            if length < 17 {
                let behind = of_row.narrow(1, length, 17 - length).abs().max();
                assert_eq!(behind.into_scalar::<f32>(), 0.0);
            }
        }
        if kind == ModelKind::Transformer {
            return;
        }
        for chunk in [1, 5, 9, 16] {
            let parts = model.answer_in_chunks(&padded, 1, chunk);
            parts.into_data().assert_approx_eq::<f32>(&answers.to_data(), near);
        }
    }

    #[rstest]
    #[case(ModelKind::Sab)]
    #[case(ModelKind::Tbptt)]
    #[case(ModelKind::Lstm)]
    #[case(ModelKind::Attention)]
    #[case(ModelKind::Gru)]
    #[case(ModelKind::MinGru)]
    #[case(ModelKind::Transformer)]
    fn the_last_answer_sends_gradient_where_the_model_says(#[case] kind: ModelKind) {
        let device = Device::flex().autodiff();
        let mut config = tiny(kind);
        // A window of one step, and a memory of four slots at most.
        config.layer = config.layer.with_k_trunc(1).with_k_att(3);
        let model = TaskModel::new(&config, &device).unwrap();
        let input = batch(&config, 5, 1, &device).input.require_grad();
        let grads = model.forward(input.clone(), 1).sum().backward();
        let grad = input.grad(&grads).unwrap().abs().sum_dim(2).into_data();
        let grad: Vec<f32> = grad.iter().collect();
        assert_eq!(grad.len(), 11);
        assert!(grad.iter().all(|g| g.is_finite()));
        for (step, g) in grad.iter().enumerate() {
            match kind {
                // The slots are the states of steps 2, 5 and 8, and the initial one.
                ModelKind::Sab => assert_eq!(*g > 0.0, [2, 5, 8, 10].contains(&step), "{grad:?}"),
                ModelKind::Tbptt => assert_eq!(*g > 0.0, step == 10, "{grad:?}"),
                _ => assert!(*g > 0.0, "{grad:?}"),
            }
        }
    }

    #[rstest]
    #[case(ModelKind::Sab)]
    #[case(ModelKind::Lstm)]
    #[case(ModelKind::Tbptt)]
    #[case(ModelKind::Attention)]
    #[case(ModelKind::Gru)]
    #[case(ModelKind::MinGru)]
    #[case(ModelKind::Transformer)]
    fn no_answer_depends_on_a_later_step(#[case] kind: ModelKind) {
        let device = Device::flex();
        let config = tiny(kind);
        let model = TaskModel::new(&config, &device).unwrap();
        let input = batch(&config, 5, 2, &device).input;
        let whole = model.forward(input.clone(), 11);
        for steps in 1..11 {
            let start = model.forward(input.clone().narrow(1, 0, steps), steps);
            let of_whole = whole.clone().narrow(1, 0, steps);
            let near = Tolerance::absolute(1e-5);
            start.into_data().assert_approx_eq::<f32>(&of_whole.into_data(), near);
        }
    }

    #[rstest]
    #[case(ModelKind::Sab)]
    #[case(ModelKind::Lstm)]
    #[case(ModelKind::Tbptt)]
    #[case(ModelKind::Attention)]
    #[case(ModelKind::Gru)]
    #[case(ModelKind::MinGru)]
    #[case(ModelKind::Transformer)]
    fn live_parameters_are_those_that_get_a_gradient(#[case] kind: ModelKind) {
        let device = Device::flex().autodiff();
        let config = tiny(kind);
        let model = TaskModel::new(&config, &device).unwrap();
        let grads = model.forward(batch(&config, 5, 2, &device).input, 3).sum().backward();
        let grads = burn::optim::GradientsParams::from_grads(grads, &model);
        struct Count<'a>(&'a burn::optim::GradientsParams, usize);
        impl burn::module::ModuleVisitor for Count<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if self
                    .0
                    .get::<D>(param.id)
                    .is_some_and(|grad| grad.abs().max().into_scalar::<f32>() > 0.0)
                {
                    self.1 += param.shape().num_elements();
                }
            }
        }
        let mut count = Count(&grads, 0);
        model.visit(&mut count);
        assert_eq!(model.live_parameters(), count.1);
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
