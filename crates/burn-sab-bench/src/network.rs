//! The layer and the recurrent layers beside it behind one interface.

use bunsen::blocks::rnn::lstm::{FusedLstm, FusedLstmConfig};
use bunsen::burner::module::ModuleInit;
use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{Lstm, LstmConfig, LstmState};
use burn::tensor::{Device, Gradients, Tensor};
use burn_sab::{SabLstm, SabLstmState, Strategy};
use burn_sab_cli::backend::Backend;

use crate::args::Model;
use crate::case::{Case, Loss};

/// A layer to measure, with newly drawn weights.
#[allow(clippy::large_enum_variant)] // one value a process
pub enum Network {
    Sab(Box<SabLstm>),
    Lstm(Box<Lstm>),
    Bunsen(Box<FusedLstm>),
}

#[allow(clippy::large_enum_variant)] // one value at a time
pub enum State {
    Sab(SabLstmState),
    Lstm(LstmState<2>),
}

impl State {
    pub fn hidden(&self) -> Tensor<2> {
        match self {
            Self::Sab(state) => state.hidden.clone(),
            Self::Lstm(state) => state.hidden.clone(),
        }
    }
}

impl Clone for State {
    fn clone(&self) -> Self {
        match self {
            Self::Sab(state) => Self::Sab(state.clone()),
            Self::Lstm(state) => {
                Self::Lstm(LstmState::new(state.cell.clone(), state.hidden.clone()))
            }
        }
    }
}

/// The result of a pass over sequences.
pub struct Pass {
    /// Outputs whose mean is the loss, `[B, T, H]` or `[B, 1, H]`.
    pub read_out: Tensor<3>,
    pub state: State,
}

impl Pass {
    /// The pass of an LSTM with these hidden states, which are not asked for where the last one is the output.
    fn of_lstm(hidden: impl FnOnce() -> Tensor<3>, state: LstmState<2>, loss: Loss) -> Self {
        let read_out = match loss {
            Loss::Mean => hidden(),
            Loss::Last => state.hidden.clone().unsqueeze_dim(1),
        };
        Self { read_out, state: State::Lstm(state) }
    }
}

impl Network {
    pub fn new(case: &Case, model: Model, device: &Device) -> anyhow::Result<Self> {
        Ok(match model {
            Model::Lstm => {
                Self::Lstm(Box::new(LstmConfig::new(case.input, case.hidden, true).init(device)))
            }
            Model::Bunsen => Self::Bunsen(Box::new(FusedLstmConfig::new(case.hidden).init(device))),
            Model::Sab | Model::Reference | Model::Primitives => {
                let strategy = strategy(model, case.backend);
                Self::Sab(Box::new(case.layer().with_strategy(strategy).try_init(device)?))
            }
        })
    }

    /// The same without autodiff.
    pub fn valid(&self) -> Self {
        match self {
            Self::Sab(layer) => Self::Sab(Box::new(layer.valid())),
            Self::Lstm(layer) => Self::Lstm(Box::new(layer.valid())),
            Self::Bunsen(layer) => Self::Bunsen(Box::new(layer.valid())),
        }
    }

    pub fn forward(&self, x: Tensor<3>, loss: Loss) -> Pass {
        let last = x.dims()[1] - 1;
        match (self, loss) {
            (Self::Sab(layer), Loss::Mean) => {
                let (read_out, state) = layer.forward(x, None);
                Pass { read_out, state: State::Sab(state) }
            }
            (Self::Sab(layer), Loss::Last) => {
                let output = layer.forward_at(x, &[last], None);
                Pass { read_out: output.hidden, state: State::Sab(output.state) }
            }
            (Self::Lstm(layer), loss) => {
                let (hidden, state) = layer.forward(x, None);
                Pass::of_lstm(|| hidden, state, loss)
            }
            (Self::Bunsen(layer), loss) => {
                let mut steps = x.iter_dim(1).map(|x| x.squeeze_dim(1));
                let first = steps.next().expect("a sequence has steps");
                let mut state = bunsen_step(layer, first, None);
                let mut hidden = vec![state.hidden.clone().unsqueeze_dim(1)];
                for x in steps {
                    state = bunsen_step(layer, x, Some(state));
                    hidden.push(state.hidden.clone().unsqueeze_dim(1));
                }
                Pass::of_lstm(|| Tensor::cat(hidden, 1), state, loss)
            }
        }
    }

    /// Runs a training step and fetches what came of it, or panics. A GPU that has no room for an array does not
    /// say so until somebody reads it; whoever only waits would find it very fast.
    pub fn read_all(&self, x: Tensor<3>, loss: Loss) {
        let loss = self.forward(x, loss).read_out.mean();
        let gradients = loss.backward();
        drop(loss.into_data());
        let mut read = ReadAll(&gradients);
        match self {
            Self::Sab(layer) => layer.visit(&mut read),
            Self::Lstm(layer) => layer.visit(&mut read),
            Self::Bunsen(layer) => layer.visit(&mut read),
        }
    }

    /// A state with these slots, `[B, M, H]`, if there is a memory for them.
    pub fn remembering(&self, slots: Tensor<3>) -> Option<State> {
        let [batch, _, hidden] = slots.dims();
        match self {
            Self::Sab(_) => {
                let state = SabLstmState::initial([batch, hidden], &slots.device());
                Some(State::Sab(state.with_slots(slots)))
            }
            Self::Lstm(_) | Self::Bunsen(_) => None,
        }
    }

    pub fn step(&self, x: Tensor<2>, state: Option<State>) -> State {
        match (self, state) {
            (Self::Sab(layer), Some(State::Sab(state))) => State::Sab(layer.step(x, Some(state)).1),
            (Self::Lstm(layer), Some(State::Lstm(state))) => {
                State::Lstm(layer.forward(x.unsqueeze_dim(1), Some(state)).1)
            }
            (Self::Bunsen(layer), Some(State::Lstm(state))) => {
                State::Lstm(bunsen_step(layer, x, Some(state)))
            }
            (Self::Sab(layer), _) => State::Sab(layer.step(x, None).1),
            (Self::Lstm(layer), _) => State::Lstm(layer.forward(x.unsqueeze_dim(1), None).1),
            (Self::Bunsen(layer), _) => State::Lstm(bunsen_step(layer, x, None)),
        }
    }
}

/// One step from a state, or from zeros. `x` is as wide as the layer.
fn bunsen_step(layer: &FusedLstm, x: Tensor<2>, state: Option<LstmState<2>>) -> LstmState<2> {
    let state = state.unwrap_or_else(|| {
        let zeros = Tensor::zeros(x.dims(), &x.device());
        LstmState::new(zeros.clone(), zeros)
    });
    let (hidden, cell) = layer.step(x, state.hidden, state.cell);
    LstmState::new(cell, hidden)
}

/// Has every number fetched.
struct ReadAll<'a>(&'a Gradients);

impl ModuleVisitor for ReadAll<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        drop(param.val().grad(self.0).map(Tensor::into_data));
    }
}

/// The implementation of the layer that a model stands for. On a GPU the layer alone is its kernels: where
/// they do not cover a case it would take the primitives, and the figure would be another model's.
pub fn strategy(model: Model, backend: Backend) -> Strategy {
    match model {
        Model::Reference => Strategy::Reference,
        Model::Primitives => Strategy::Primitives,
        Model::Sab if backend.is_gpu() => Strategy::Fused,
        Model::Sab | Model::Lstm | Model::Bunsen => Strategy::Auto,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Tolerance;

    #[test]
    fn bunsen_gives_the_same_step_by_step() {
        let case =
            Case { batch: 2, time: 3, input: 4, hidden: 4, ..Case::main(Backend::Flex, 1, 1) };
        let device = Backend::Flex.device().unwrap();
        let network = Network::new(&case, Model::Bunsen, &device).unwrap();
        let x = crate::run::normal([2, 3, 4], &device);
        let whole = network.forward(x.clone(), Loss::Mean).read_out;
        let mut state = None;
        for (t, x) in x.clone().iter_dim(1).enumerate() {
            let next = network.step(x.squeeze_dim(1), state);
            let expected = whole.clone().narrow(1, t, 1).squeeze_dim::<2>(1).into_data();
            next.hidden().into_data().assert_approx_eq::<f32>(&expected, Tolerance::default());
            state = Some(next);
        }
        let last = network.forward(x, Loss::Last).read_out.into_data();
        last.assert_approx_eq::<f32>(&whole.narrow(1, 2, 1).into_data(), Tolerance::default());
    }
}
