//! The tensors of a call, in any form: user-level tensors, backend primitives, slices, gradients, or needs
//! of gradients.

use std::cell::RefCell;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{
    Backend, BackendTensor, Dispatch, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind,
    ExtensionType, TensorMetadata,
};
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use super::options::SabOptions;
use super::score::Score;

/// The inputs of the op: vectors `V`, matrices `M`, sequences `S`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SabInputs<V = Tensor<1>, M = Tensor<2>, S = Tensor<3>> {
    /// Inputs, `[B, T, I]`.
    pub x: S,
    /// Input weights, `[I, 4H]`; gates in the order i, f, g, o.
    pub w_ih: M,
    /// Recurrent weights, `[H, 4H]`.
    pub w_hh: M,
    /// Bias of the gates, `[4H]`.
    pub bias: V,
    /// Hidden state before the first step, `[B, H]`.
    pub h0: M,
    /// Cell state before the first step, `[B, H]`.
    pub c0: M,
    /// Slots stored before this call, `[B, M0, H]`; `None` if there are none.
    pub slots: Option<S>,
    /// Factors γ on the summary in h = ĥ + γ ⊙ s, `[H]`; `None` for the constant
    /// [`summary_scale`](super::SabSettings::summary_scale).
    pub summary_gain: Option<V>,
    /// Parameters of the score.
    pub score: Score<V, M>,
}

/// The inputs as primitives of a backend.
pub(crate) type BackendInputs<B> = SabInputs<FloatTensor<B>, FloatTensor<B>, FloatTensor<B>>;

/// Which inputs need a gradient.
pub(crate) type Needs = SabInputs<bool, bool, bool>;

/// The gradients of the inputs that need one.
pub(crate) type Gradients<B> =
    SabInputs<Option<FloatTensor<B>>, Option<FloatTensor<B>>, Option<FloatTensor<B>>>;

/// Most tensors of a call: eight, and four parameters of a score.
pub(crate) const MOST_INPUTS: usize = 12;

impl<V, M, S> SabInputs<V, M, S> {
    /// References to the tensors.
    pub fn as_ref(&self) -> SabInputs<&V, &M, &S> {
        let Self { x, w_ih, w_hh, bias, h0, c0, slots, summary_gain, score } = self;
        SabInputs {
            x,
            w_ih,
            w_hh,
            bias,
            h0,
            c0,
            slots: slots.as_ref(),
            summary_gain: summary_gain.as_ref(),
            score: score.as_ref(),
        }
    }

    /// The same inputs in another form, in the order of the fields; each rank through its own function.
    pub fn map_ranks<W, N, U>(
        self,
        mut vector: impl FnMut(V) -> W,
        mut matrix: impl FnMut(M) -> N,
        mut sequence: impl FnMut(S) -> U,
    ) -> SabInputs<W, N, U> {
        SabInputs {
            x: sequence(self.x),
            w_ih: matrix(self.w_ih),
            w_hh: matrix(self.w_hh),
            bias: vector(self.bias),
            h0: matrix(self.h0),
            c0: matrix(self.c0),
            slots: self.slots.map(sequence),
            summary_gain: self.summary_gain.map(&mut vector),
            score: self.score.map_ranks(vector, matrix),
        }
    }
}

impl<P> SabInputs<P, P, P> {
    /// The same inputs in another form, in the order of the fields.
    pub fn map<Q>(self, f: impl FnMut(P) -> Q) -> SabInputs<Q, Q, Q> {
        let f = RefCell::new(f);
        let f = |input| f.borrow_mut()(input);
        self.map_ranks(f, f, f)
    }

    /// The tensors, in the order of the fields.
    pub fn iter(&self) -> impl Iterator<Item = &P> {
        let Self { x, w_ih, w_hh, bias, h0, c0, slots, summary_gain, score } = self;
        let states = [x, w_ih, w_hh, bias, h0, c0].into_iter();
        states.chain(slots).chain(summary_gain).chain(score.iter())
    }

    /// The tensors with their names, in the order of the fields.
    pub fn named(self) -> Vec<(&'static str, P)> {
        let Self { x, w_ih, w_hh, bias, h0, c0, slots, summary_gain, score } = self;
        let mut named = vec![("x", x), ("w_ih", w_ih), ("w_hh", w_hh), ("bias", bias)];
        named.extend([("h0", h0), ("c0", c0)]);
        named.extend(slots.map(|slots| ("slots", slots)));
        named.extend(summary_gain.map(|gain| ("summary_gain", gain)));
        named.extend(score.named());
        named
    }
}

/// The outputs of the op: matrices `M`, sequences `S`, integer sequences `I`.
#[derive(Clone, Debug)]
pub struct SabOutputs<M = Tensor<2>, S = Tensor<3>, I = Tensor<3, Int>> {
    /// Hidden states h_t of the N steps of [`SabOptions::readout`], `[B, N, H]`.
    pub hidden: S,
    /// Hidden state after the last step, `[B, H]`.
    pub last: M,
    /// Cell state after the last step, `[B, H]`.
    pub cell: M,
    /// Slots that this call stored, oldest first, `[B, M, H]`; `None` if it stored none.
    pub stored: Option<S>,
    /// What was retrieved, if [`SabOptions::reminders`] asks for it.
    pub reminders: Option<Reminders<S, I>>,
}

/// What was retrieved at the N steps of [`SabOptions::readout`], K = min(k_top, M).
#[derive(Clone, Debug)]
pub struct Reminders<S = Tensor<3>, I = Tensor<3, Int>> {
    /// Summaries s_t, `[B, N, H]`.
    pub summary: S,
    /// Retrieved slots, best first, `[B, N, K]`; unused places hold slot 0.
    pub slots: I,
    /// Their weights, `[B, N, K]`; unused places hold 0. Carries no gradient.
    pub weights: S,
}

/// The outputs as primitives of a backend.
pub(crate) type BackendOutputs<B> = SabOutputs<FloatTensor<B>, FloatTensor<B>, IntTensor<B>>;

impl<M, S, I> SabOutputs<M, S, I> {
    /// The same outputs in another form; each rank and kind through its own function.
    pub fn map_ranks<N, U, J>(
        self,
        mut matrix: impl FnMut(M) -> N,
        mut sequence: impl FnMut(S) -> U,
        integers: impl FnOnce(I) -> J,
    ) -> SabOutputs<N, U, J> {
        SabOutputs {
            hidden: sequence(self.hidden),
            last: matrix(self.last),
            cell: matrix(self.cell),
            stored: self.stored.map(&mut sequence),
            reminders: self.reminders.map(|reminders| Reminders {
                summary: sequence(reminders.summary),
                slots: integers(reminders.slots),
                weights: sequence(reminders.weights),
            }),
        }
    }
}

/// One value per output that carries gradient: the gradients that reached the op, `None` where none did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Upstream<P> {
    /// Of [`SabOutputs::hidden`], `[B, N, H]`.
    pub hidden: Option<P>,
    /// Of the last hidden state, `[B, H]`.
    pub last: Option<P>,
    /// Of the last cell state, `[B, H]`.
    pub cell: Option<P>,
    /// Of the stored slots, `[B, M, H]`.
    pub stored: Option<P>,
    /// Of the summaries, `[B, N, H]`.
    pub summary: Option<P>,
}

impl<P> Upstream<P> {
    /// No gradient at all.
    pub fn none() -> Self {
        Self { hidden: None, last: None, cell: None, stored: None, summary: None }
    }

    /// Whether there is no gradient at all.
    pub fn is_none(&self) -> bool {
        let Self { hidden, last, cell, stored, summary } = self;
        [hidden, last, cell, stored, summary].into_iter().all(Option::is_none)
    }

    /// The same gradients in another form.
    pub fn map<Q>(self, mut f: impl FnMut(P) -> Q) -> Upstream<Q> {
        Upstream {
            hidden: self.hidden.map(&mut f),
            last: self.last.map(&mut f),
            cell: self.cell.map(&mut f),
            stored: self.stored.map(&mut f),
            summary: self.summary.map(&mut f),
        }
    }

    /// References to the gradients.
    #[allow(dead_code)] // in a build without the CPU kernel
    pub fn as_ref(&self) -> Upstream<&P> {
        let Self { hidden, last, cell, stored, summary } = self;
        Upstream {
            hidden: hidden.as_ref(),
            last: last.as_ref(),
            cell: cell.as_ref(),
            stored: stored.as_ref(),
            summary: summary.as_ref(),
        }
    }
}

/// The sizes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dims {
    /// B, rows of the batch.
    pub batch: usize,
    /// T, steps.
    pub time: usize,
    /// I, input features.
    pub input: usize,
    /// H, hidden units.
    pub hidden: usize,
    /// A, elements of a key; 1 for additive scores, whose keys are scalars.
    pub attention: usize,
    /// M0, slots before the first step.
    pub carried: usize,
    /// Slots that the call stores.
    pub stored: usize,
}

impl Dims {
    /// Reads the sizes off the inputs.
    pub fn of<B: Backend>(inputs: &BackendInputs<B>, options: &SabOptions) -> Self {
        let [batch, time, input] = inputs.x.shape().dims();
        let [_, hidden] = inputs.h0.shape().dims();
        Self {
            batch,
            time,
            input,
            hidden,
            attention: match &inputs.score {
                Score::Additive { .. } => 1,
                Score::Mlp { query, .. } | Score::Dot { query, .. } => query.shape()[1],
            },
            carried: inputs.slots.as_ref().map_or(0, |slots| slots.shape()[1]),
            stored: options.most_stored(time),
        }
    }

    /// M, slots at the end of the call.
    pub fn slots(&self) -> usize {
        self.carried + self.stored
    }

    /// K, the places per step in [`Reminders`]; at least 1, as tensors have no empty sides.
    pub fn places(&self, options: &SabOptions) -> usize {
        options.settings.k_top.min(self.slots()).max(1)
    }
}

impl SabInputs {
    /// The inputs as primitives of the dispatching backend.
    pub(crate) fn into_dispatch(self) -> InputsOf<Dispatch> {
        InputsOf(self.map_ranks(
            Tensor::into_dispatch,
            Tensor::into_dispatch,
            Tensor::into_dispatch,
        ))
    }
}

impl SabOutputs {
    /// User-level tensors from primitives of the dispatching backend.
    pub(crate) fn from_dispatch(outputs: OutputsOf<Dispatch>) -> Self {
        outputs.0.map_ranks(Tensor::from_dispatch, Tensor::from_dispatch, Tensor::from_dispatch)
    }
}

/// Wraps a backend's tensor for the dispatching backend.
pub(crate) fn to_dispatch<B: Backend>(
    tensor: BackendTensor<B>,
    wrap: &impl Fn(BackendTensor<B>) -> DispatchTensorKind,
    autodiff: DispatchAutodiffContext,
) -> DispatchTensor {
    DispatchTensor { kind: wrap(tensor), autodiff }
}

/// The autodiff context of some tensors together.
fn context<'a>(tensors: impl Iterator<Item = &'a DispatchTensor>) -> DispatchAutodiffContext {
    tensors.fold(DispatchAutodiffContext::Disabled, |all, tensor| all.merge(tensor.autodiff))
}

/// The inputs as they cross to a backend: a type that names it, as primitives alone do not.
pub(crate) struct InputsOf<B: Backend>(pub BackendInputs<B>);

/// The outputs as they cross from a backend.
pub(crate) struct OutputsOf<B: Backend>(pub BackendOutputs<B>);

// Written out: the derive wants fields of a literal tensor type.
impl<B: Backend> ExtensionType<B> for InputsOf<B> {
    type Target = InputsOf<Dispatch>;

    fn map_to_dispatch<F>(self, wrap: F, autodiff: DispatchAutodiffContext) -> Self::Target
    where
        F: Fn(BackendTensor<B>) -> DispatchTensorKind,
    {
        InputsOf(self.0.map(|tensor| to_dispatch(BackendTensor::Float(tensor), &wrap, autodiff)))
    }

    fn map_from_dispatch<F>(target: Self::Target, unwrap: F) -> Self
    where
        F: Fn(DispatchTensor) -> BackendTensor<B>,
    {
        Self(target.0.map(|tensor| unwrap(tensor).float()))
    }

    fn routing_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        Some(&target.0.x)
    }

    fn routing_float_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        Some(&target.0.x)
    }

    fn autodiff_context(target: &Self::Target) -> DispatchAutodiffContext {
        context(target.0.iter())
    }
}

impl<B: Backend> ExtensionType<B> for OutputsOf<B> {
    type Target = OutputsOf<Dispatch>;

    fn map_to_dispatch<F>(self, wrap: F, autodiff: DispatchAutodiffContext) -> Self::Target
    where
        F: Fn(BackendTensor<B>) -> DispatchTensorKind,
    {
        let float = |tensor| to_dispatch(BackendTensor::Float(tensor), &wrap, autodiff);
        let int = |tensor| to_dispatch(BackendTensor::Int(tensor), &wrap, autodiff);
        OutputsOf(self.0.map_ranks(float, float, int))
    }

    fn map_from_dispatch<F>(target: Self::Target, unwrap: F) -> Self
    where
        F: Fn(DispatchTensor) -> BackendTensor<B>,
    {
        let float = |tensor| unwrap(tensor).float();
        Self(target.0.map_ranks(float, float, |tensor| unwrap(tensor).int()))
    }

    fn routing_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        Some(&target.0.hidden)
    }

    fn routing_float_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        Some(&target.0.hidden)
    }

    fn autodiff_context(target: &Self::Target) -> DispatchAutodiffContext {
        let SabOutputs { hidden, last, cell, stored, reminders: _ } = &target.0;
        context([hidden, last, cell].into_iter().chain(stored))
    }
}
