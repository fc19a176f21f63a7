use burn::module::{Content, DisplaySettings, Initializer, Module, ModuleDisplay, Param};
use burn::tensor::{Device, Int, Tensor};

use super::budget::{cut, ends_of_parts, join_reminders, readout_of_part};
use super::config::SabLstmConfig;
use super::scorer::Scorer;
use super::segments::Segments;
use super::state::SabLstmState;
use crate::op::{
    self, Activations, Cell, Coverage, InitialSlot, InputError, NotCovered, Readout, Reminders,
    SabInputs, SabOptions, SabOutputs, SabSettings, SlotMemory, Strategy,
};

/// A recurrent layer with Sparse Attentive Backtracking: an LSTM that stores past hidden states as slots and retrieves
/// a few of them at every step. Gradient flows only through short truncation windows and along the retrieved slots.
///
/// [`SabLstmConfig`] creates it. It replaces a `burn::nn::Lstm`: same shapes, same weights, and the same values while
/// the memory is empty.
///
/// # Equations
///
/// At each step t, for each row of the batch, with the stored slots m_1 … m_M:
///
/// ```text
/// i, f, o = σ(x_t W + h_{t-1} U + b)          input, forget and output gate, each with its own W, U, b
/// g       = tanh(x_t W + h_{t-1} U + b)       candidate
/// c_t     = f ⊙ c_{t-1} + i ⊙ g
/// ĥ_t     = o ⊙ tanh(c_t)
/// a_j     = score(ĥ_t, m_j)                   for every slot j that was stored before step t
/// w       = sparsify(a)                       at most k_top weights are not zero
/// s_t     = Σ_j w_j m_j                       the summary
/// h_t     = ĥ_t + summary_scale · s_t         the output, and the state for step t + 1
/// ```
///
/// After every `k_att` steps, h_t is stored as a slot. At the start of a truncation window, h_{t-1} and c_{t-1} are
/// constants, so no gradient crosses. The gradient of a slot enters the step that stored it. From there it runs back to
/// the start of the window.
///
/// | score | a_j | parameters |
/// | --- | --- | --- |
/// | [`Dot`](crate::ScoreConfig::Dot), the default | (ĥ_t W_q) · (m_j W_k) / √A | W_q, W_k `[H, A]` |
/// | [`Mlp`](crate::ScoreConfig::Mlp) | v · tanh(ĥ_t W_q + b_q + m_j W_m) | W_q, W_m `[H, A]`, b_q, v `[A]` |
/// | [`Additive`](crate::ScoreConfig::Additive) | u · tanh(ĥ_t) + v · tanh(m_j) | u, v `[H]` |
///
/// | sparsifier | weights |
/// | --- | --- |
/// | [`Softmax`](crate::Sparsifier::Softmax), the default | softmax over the `k_top` largest scores |
/// | [`Threshold`](crate::Sparsifier::Threshold) | relu(a_j - δ), normalised; δ is the (k_top + 1)-th largest score |
/// | [`Released`](crate::Sparsifier::Released) | the same with δ just above the k_top-th largest score |
///
/// # Shapes
///
/// B batch, T steps, I input features, H hidden units, M slots, K retrieved slots.
///
/// | call | input | output |
/// | --- | --- | --- |
/// | [`forward`](Self::forward) | x `[B, T, I]` | hidden states `[B, T, H]` and the state |
/// | [`forward_at`](Self::forward_at) | x `[B, T, I]`, n steps | outputs of these steps, `[B, n, H]` |
/// | [`forward_with_reminders`](Self::forward_with_reminders) | x `[B, T, I]` | also summaries `[B, T, H]`, retrieved slots and weights `[B, T, K]` |
/// | [`forward_padded`](Self::forward_padded) | x `[B, T, I]`, the length of each row | as `forward`; zeros at padding |
/// | [`forward_segments`](Self::forward_segments) | x `[B, T, I]`, [`Segments`] | as `forward_with_reminders`; zeros at padding |
/// | [`step`](Self::step) | x `[B, I]` | hidden state `[B, H]` and the state; without gradient |
/// | [`step_with_summary`](Self::step_with_summary) | x `[B, I]` | also the summary `[B, H]` |
///
/// With [`batch_first`](SabLstmConfig::batch_first) = false, sequences are `[T, B, …]`. The state is a [`SabLstmState`]:
/// cell and hidden state `[B, H]`, slots `[B, M, H]`, and the number of steps so far.
///
/// # Settings
///
/// Settings of the memory, in [`settings`](Self::settings):
///
/// | setting | default | |
/// | --- | --- | --- |
/// | [`k_top`](SabSettings::k_top) | 10 | slots retrieved per step |
/// | [`k_att`](SabSettings::k_att) | 1 | steps between two stored slots |
/// | [`k_trunc`](SabSettings::k_trunc) | 20 | steps of a truncation window |
/// | [`truncation_offset`](field@SabSettings::truncation_offset) | `None` | shift of the windows; `None` is 0 where `k_att` > 1, and 1 with `k_att` 1 |
/// | [`sparsifier`](SabSettings::sparsifier) | `Softmax` | how scores become weights |
/// | [`initial_slot`](SabSettings::initial_slot) | `Hidden` | memory before the first step |
/// | [`summary_scale`](SabSettings::summary_scale) | 0.1 | factor on the summary |
/// | [`learned_gain`](SabSettings::learned_gain) | false | whether each unit learns its own factor |
/// | [`detach_scores`](SabSettings::detach_scores) | false | whether gradient to states through scores is cut |
/// | [`max_hops`](SabSettings::max_hops) | `None` | most reminders on a gradient path |
/// | [`slot_budget`](SabSettings::slot_budget) | `None` | slots kept; `None` keeps all |
/// | [`n_probe`](SabSettings::n_probe) | `None` | lists of similar slots searched per step; `None` scores every slot |
/// | [`recompute`](SabSettings::recompute) | `Auto` | whether the backward pass recomputes the gates |
/// | [`strategy`](SabSettings::strategy) | `Auto` | implementation |
///
/// Settings of the cell and of the score, in [`SabLstmConfig`]: `bias`, `score` (`Dot` with attention size 64), `score_gain` (2),
/// `forget_bias` (0), `initializer`, `batch_first` (true), `reverse`, `clip`, `input_forget`, and three activations.
///
/// # Parameters
///
/// The gates are packed in the order i, f, g, o (i, g, o with `input_forget`), as in PyTorch. Weights are `[in, out]`, as
/// in Burn.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sab::SabLstmConfig;
///
/// let device = Device::flex();
/// let layer = SabLstmConfig::new(10, 16, true).with_k_top(5).with_k_att(2).init(&device);
/// let x = Tensor::<3>::random([4, 20, 10], Distribution::Default, &device);
///
/// let (hidden, state) = layer.forward(x.clone(), None);
/// assert_eq!(hidden.dims(), [4, 20, 16]);
/// assert_eq!(state.hidden.dims(), [4, 16]);
/// assert_eq!(state.num_slots(), 11);                // the initial state, and one every two steps
///
/// // The next chunk of the same sequences, and a step after it.
/// let (_, state) = layer.forward(x.clone(), Some(state));
/// let (hidden, state) = layer.step(Tensor::zeros([4, 10], &device), Some(state));
/// assert_eq!(hidden.dims(), [4, 16]);
/// assert_eq!(state.step, 41);
///
/// // Which slots were retrieved at the last step, best first.
/// let output = layer.forward_at(x, &[19], None);
/// assert_eq!(output.slots.dims(), [4, 1, 5]);
/// # }
/// ```
///
/// For training, create the layer and its inputs on `Device::flex().autodiff()`.
///
/// Source: Ke et al., NeurIPS 2018, [arXiv 1809.03702](https://arxiv.org/abs/1809.03702).
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct SabLstm {
    /// Input weights, `[I, 4H]`.
    pub weight_ih: Param<Tensor<2>>,
    /// Recurrent weights, `[H, 4H]`.
    pub weight_hh: Param<Tensor<2>>,
    /// Bias with the input weights, `[4H]`.
    pub bias_ih: Option<Param<Tensor<1>>>,
    /// Bias with the recurrent weights, `[4H]`.
    pub bias_hh: Option<Param<Tensor<1>>>,
    /// Learned factors on the summary, `[H]`, with [`SabSettings::learned_gain`]. Otherwise `None`, and the factor is
    /// [`SabSettings::summary_scale`].
    pub summary_gain: Option<Param<Tensor<1>>>,
    /// Parameters of the score.
    pub scorer: Scorer,
    /// Activations; `None` for sigmoid, tanh and tanh.
    pub activations: Option<Activations>,
    /// Hidden units H.
    pub d_hidden: usize,
    /// The settings of the memory. They can be changed, except for `learned_gain`, which is fixed with the parameters.
    #[module(skip)]
    pub settings: SabSettings,
    /// See [`SabLstmConfig::batch_first`].
    pub batch_first: bool,
    /// See [`SabLstmConfig::reverse`].
    pub reverse: bool,
    /// See [`SabLstmConfig::clip`].
    pub clip: Option<f64>,
    /// See [`SabLstmConfig::input_forget`].
    pub input_forget: bool,
}

/// The outputs of a sequence, at all T steps or at the requested ones. Batch and time are in the order of the input.
#[derive(Clone, Debug)]
pub struct SabLstmOutput {
    /// Hidden states after retrieval, `[B, T, H]`.
    pub hidden: Tensor<3>,
    /// Summaries, without the factor on them, `[B, T, H]`, for readouts `y = V1 h + V2 s + b`.
    pub summary: Tensor<3>,
    /// Indices of the retrieved slots, best first, `[B, T, K]` with K = min(k_top, slots at the end). Unused places
    /// have 0. Slots are numbered from the oldest, 0, including those that a [budget](SabSettings::slot_budget)
    /// dropped.
    pub slots: Tensor<3, Int>,
    /// The weights of these slots, `[B, T, K]`. Unused places have 0. They carry no gradient.
    pub weights: Tensor<3>,
    /// State after the last step.
    pub state: SabLstmState,
}

/// Place of the forget gate among the packed gates.
const FORGET: usize = 1;

impl ModuleDisplay for SabLstm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        content
            .add("d_input", &self.weight_ih.shape()[0])
            .add("d_hidden", &self.d_hidden)
            .add("bias", &self.bias_ih.is_some())
            .add("k_top", &self.settings.k_top)
            .add("k_att", &self.settings.k_att)
            .add("k_trunc", &self.settings.k_trunc)
            .add_debug_attribute("score", &self.scorer.config())
            .add_debug_attribute("sparsifier", &self.settings.sparsifier)
            .optional()
    }
}

impl SabLstm {
    /// Builds the layer from validated settings.
    pub(super) fn from_config(config: &SabLstmConfig, device: &Device) -> Self {
        let SabLstmConfig { d_input, d_hidden, initializer, .. } = config;
        let gates = if config.input_forget { 3 } else { 4 };
        // Gate by gate, as Burn's Lstm does: an initializer such as Orthogonal sees one gate's matrix.
        let matrix = |rows: usize| {
            let gate =
                || initializer.init_with([rows, *d_hidden], Some(rows), Some(*d_hidden), device);
            let packed = Tensor::cat((0..gates).map(|_| gate().val()).collect(), 1);
            Param::from_tensor(packed.detach())
        };
        let vector = |fan_in: usize, forget: f64| {
            let gate = || initializer.init_with([*d_hidden], Some(fan_in), Some(*d_hidden), device);
            let mut biases: Vec<Tensor<1>> = (0..gates).map(|_| gate().val()).collect();
            if forget != 0.0 && !config.input_forget {
                biases[FORGET] = biases[FORGET].clone() + forget;
            }
            Param::from_tensor(Tensor::cat(biases, 0).detach())
        };
        Self {
            weight_ih: matrix(*d_input),
            weight_hh: matrix(*d_hidden),
            bias_ih: config.bias.then(|| vector(*d_input, config.forget_bias)),
            bias_hh: config.bias.then(|| vector(*d_hidden, 0.0)),
            summary_gain: config.settings.learned_gain.then(|| {
                let gain = Initializer::Constant { value: config.settings.summary_scale };
                gain.init([*d_hidden], device)
            }),
            scorer: Scorer::new(config.score, config.score_gain, *d_hidden, device),
            activations: (!config.has_standard_activations()).then(|| Activations {
                gate: config.gate_activation.init(device),
                cell: config.cell_activation.init(device),
                hidden: config.hidden_activation.init(device),
            }),
            d_hidden: *d_hidden,
            settings: config.settings,
            batch_first: config.batch_first,
            reverse: config.reverse,
            clip: config.clip,
            input_forget: config.input_forget,
        }
    }

    /// Runs a sequence, as `burn::nn::Lstm::forward` does.
    ///
    /// `x` is `[B, T, I]`, or `[T, B, I]` without `batch_first`. The returned hidden states have the same layout, with
    /// H features. Without a state, the run starts from zeros. An empty batch, or a sequence of no steps, gives empty
    /// tensors.
    ///
    /// If neither the layer nor `x` is on autodiff, the state is taken off autodiff: its graph would only grow.
    ///
    /// # Panics
    ///
    /// If an input does not fit the layer. The message is that of an [`InputError`]: the tensor, its shape or type, and
    /// the expected one.
    #[track_caller]
    pub fn forward(&self, x: Tensor<3>, state: Option<SabLstmState>) -> (Tensor<3>, SabLstmState) {
        let (hidden, _, state) = self.run(self.in_time(x), state, Readout::All, false);
        (self.as_given(hidden), state)
    }

    /// As [`forward`](Self::forward), and also returns the summaries, the retrieved slots and their weights.
    #[track_caller]
    pub fn forward_with_reminders(
        &self,
        x: Tensor<3>,
        state: Option<SabLstmState>,
    ) -> SabLstmOutput {
        self.reminded(x, state, Readout::All)
    }

    /// As [`forward_with_reminders`](Self::forward_with_reminders), but returns the outputs of `steps` only: positions
    /// in `x`, 0-based and in ascending order.
    ///
    /// Use it for losses on few steps of long sequences, such as `&[T - 1]`. The backward pass computes only the steps
    /// that gradient reaches. On the CPU kernel, neither pass has an array of all hidden states. Other implementations
    /// compute all hidden states and select from them.
    ///
    /// # Panics
    ///
    /// If an input does not fit the layer, or if the steps are not in ascending order or lie beyond the sequence.
    #[track_caller]
    pub fn forward_at(
        &self,
        x: Tensor<3>,
        steps: &[usize],
        state: Option<SabLstmState>,
    ) -> SabLstmOutput {
        let time = x.dims()[if self.batch_first { 1 } else { 0 }];
        expect(op::check_steps(steps, time));
        let steps: Vec<usize> = if self.reverse {
            steps.iter().rev().map(|step| time - 1 - step).collect()
        } else {
            steps.to_vec()
        };
        self.reminded(x, state, Readout::At(steps.into()))
    }

    /// Runs one step of a stream. `x` is `[B, I]`, and the returned hidden state is `[B, H]`. The step runs without
    /// gradient, so a stream keeps only its slots.
    ///
    /// # Panics
    ///
    /// If an input does not fit the layer, or if autodiff tracks the layer, `x` or the state: each step would then keep
    /// all slots for its own backward pass, T² of them over a sequence. Call it on `layer.valid()`, and train with
    /// [`forward`](Self::forward).
    #[track_caller]
    pub fn step(&self, x: Tensor<2>, state: Option<SabLstmState>) -> (Tensor<2>, SabLstmState) {
        let (_, state) = self.stepped(x, state, false);
        (state.hidden.clone(), state)
    }

    /// As [`step`](Self::step), and also returns the summary, without the factor on it, `[B, H]`: the hidden state, the
    /// summary, and the state. For readouts `y = V1 h + V2 s + b`.
    #[track_caller]
    pub fn step_with_summary(
        &self,
        x: Tensor<2>,
        state: Option<SabLstmState>,
    ) -> (Tensor<2>, Tensor<2>, SabLstmState) {
        let (summary, state) = self.stepped(x, state, true);
        let summary = summary.expect("asked for, and every implementation gives it");
        (state.hidden.clone(), summary, state)
    }

    /// Runs one step, with the summary if `summary`.
    #[track_caller]
    pub(super) fn stepped(
        &self,
        x: Tensor<2>,
        state: Option<SabLstmState>,
        summary: bool,
    ) -> (Option<Tensor<2>>, SabLstmState) {
        self.refuse_tracked(&x, state.as_ref());
        let cell = self.cell();
        if !cell.is_standard() || self.settings.strategy == Strategy::Reference {
            let (_, reminders, state) = self.run(x.unsqueeze_dim(1), state, Readout::All, summary);
            return (reminders.map(|reminders| reminders.summary.squeeze_dim(1)), state);
        }
        let x = x.inner().unsqueeze_dim(1);
        let mut state = self.within_budget(expect(self.checked(&x, state)).valid());
        if x.dims()[0] == 0 {
            return (summary.then(|| state.hidden.clone()), state.after(1));
        }
        if state.is_ragged() {
            let (summary, state) = self.step_ragged(x, state, summary);
            return (summary, self.within_budget(state));
        }
        let options = self.options(state.step, Readout::All, summary);
        // Slots in another form than a kernel's come back as the tensors that they went in as.
        let slots = if state.memory.is_kernels() { None } else { self.slots(&state) };
        let memory = std::mem::take(&mut state.memory);
        let inputs = self.inputs(x, &state, slots.clone());
        let inputs = inputs.map_ranks(Tensor::inner, Tensor::inner, Tensor::inner);
        let step = expect(op::sab_step(inputs, memory, &options));
        let slots = if step.memory.is_empty() {
            slots.into_iter().chain(step.stored).collect()
        } else {
            vec![]
        };
        let state = SabLstmState {
            cell: step.cell,
            hidden: step.hidden,
            slots,
            memory: step.memory,
            origins: state.origins,
            step: state.step + 1,
            rows: None,
        };
        (step.summary.map(|summary| summary.squeeze_dim(1)), self.within_budget(state))
    }

    /// Whether the backend's kernel runs a sequence like `x` that begins with `state`. If not, returns the reason why
    /// backend primitives or the reference run it.
    ///
    /// # Panics
    ///
    /// If an input does not fit the layer.
    #[track_caller]
    pub fn coverage(&self, x: Tensor<3>, state: Option<SabLstmState>) -> Coverage {
        let cell = self.cell();
        if cell.clip.is_some() {
            return Err(NotCovered::Option { option: "clip" });
        }
        if cell.input_forget {
            return Err(NotCovered::Option { option: "input_forget" });
        }
        if !cell.is_standard() {
            return Err(NotCovered::Option { option: "activations other than sigmoid and tanh" });
        }
        let x = self.in_time(x);
        let state = self.within_budget(expect(self.checked(&x, state)));
        let options = self.options(state.step, Readout::All, false);
        expect(op::sab_coverage(self.inputs(x, &state, self.slots(&state)), &options))
    }

    #[track_caller]
    fn reminded(
        &self,
        x: Tensor<3>,
        state: Option<SabLstmState>,
        readout: Readout,
    ) -> SabLstmOutput {
        let (hidden, reminders, state) = self.run(self.in_time(x), state, readout, true);
        let Reminders { summary, slots, weights } =
            reminders.expect("asked for, and every implementation gives them");
        SabLstmOutput {
            hidden: self.as_given(hidden),
            summary: self.as_given(summary),
            slots: self.as_given(slots),
            weights: self.as_given(weights),
            state,
        }
    }

    /// Runs `[B, T, I]` in the order of time: with a budget part by part, thinning the memory in between.
    #[track_caller]
    pub(super) fn run(
        &self,
        x: Tensor<3>,
        state: Option<SabLstmState>,
        readout: Readout,
        reminders: bool,
    ) -> (Tensor<3>, Option<Reminders>, SabLstmState) {
        let [batch, time, _] = x.dims();
        let mut state = self.within_budget(expect(self.checked(&x, state)));
        if state.is_ragged() {
            let segments = Segments::new(batch, time);
            return self.run_segments(x, &segments, Some(state), readout, reminders);
        }
        if batch == 0 || time == 0 {
            return self.empty(&x, state, &readout, reminders);
        }
        let Some(budget) = self.settings.slot_budget else {
            let (outputs, state) = self.run_part(x, state, readout, reminders);
            return (outputs.hidden, outputs.reminders, state);
        };
        let (slots, k_att) = (self.slots_before(&state), self.settings.k_att);
        let ends = ends_of_parts(time, state.step, slots, k_att, budget);
        let (mut hidden, mut reminded) = (Vec::new(), Vec::new());
        let mut from = 0;
        for (part, to) in cut(x, 0, &ends).into_iter().zip(ends) {
            let wanted = readout_of_part(&readout, from, to);
            // A call gives one step at least.
            let asked = wanted.clone().unwrap_or(Readout::At([to - from - 1].into()));
            let (outputs, next) = self.run_part(part, state, asked, reminders);
            if wanted.is_some() {
                hidden.push(outputs.hidden);
                reminded.extend(outputs.reminders.map(|part| match &next.origins {
                    None => part,
                    Some(origins) => {
                        let slots = origins.of(part.slots, next.num_slots());
                        Reminders { slots, ..part }
                    }
                }));
            }
            state = self.within_budget(next);
            from = to;
        }
        let reminded = (!reminded.is_empty()).then(|| join_reminders(reminded, 1));
        (Tensor::cat(hidden, 1), reminded, state)
    }

    /// Runs `[B, T, I]` in the order of time with one call of the op.
    #[track_caller]
    fn run_part(
        &self,
        x: Tensor<3>,
        state: SabLstmState,
        readout: Readout,
        reminders: bool,
    ) -> (SabOutputs, SabLstmState) {
        let [_, time, _] = x.dims();
        let slots = self.slots(&state);
        let options = self.options(state.step, readout, reminders);
        let inputs = self.inputs(x, &state, slots.clone());
        let cell = self.cell();
        let outputs = expect(if cell.is_standard() {
            op::sab_sequence(inputs, &options)
        } else {
            op::sab_sequence_with_cell(inputs, &options, &cell)
        });
        let state = SabLstmState {
            cell: outputs.cell.clone(),
            hidden: outputs.last.clone(),
            // What was joined for this call stays joined; the new part waits for the next.
            slots: slots.into_iter().chain(outputs.stored.clone()).collect(),
            memory: SlotMemory::default(),
            origins: state.origins,
            step: state.step + time,
            rows: None,
        };
        (outputs, state)
    }

    /// The outputs of a batch of no rows or a sequence of no steps.
    pub(super) fn empty(
        &self,
        x: &Tensor<3>,
        state: SabLstmState,
        readout: &Readout,
        reminders: bool,
    ) -> (Tensor<3>, Option<Reminders>, SabLstmState) {
        let [batch, time, _] = x.dims();
        let options = (&x.device(), x.dtype());
        let given = readout.len(time);
        let zeros = |size: usize| Tensor::<3>::zeros([batch, given, size], options);
        let reminders = reminders.then(|| Reminders {
            summary: zeros(self.d_hidden),
            slots: Tensor::zeros([batch, given, 1], &x.device()),
            weights: zeros(1),
        });
        (zeros(self.d_hidden), reminders, state.after(time))
    }

    /// The state that a run over `x`, `[B, T, I]`, begins with.
    ///
    /// # Errors
    ///
    /// If settings, `x` or the state do not fit.
    pub(super) fn checked(
        &self,
        x: &Tensor<3>,
        state: Option<SabLstmState>,
    ) -> Result<SabLstmState, InputError> {
        self.settings.validate()?;
        let [batch, time, _] = x.dims();
        let [d_input, _] = self.weight_ih.dims();
        let weights = self.weight_hh.val();
        let like = (weights.dtype(), weights.device());
        op::check_tensor("x", x, [batch, time, d_input], "[batch, time, d_input]", &like)?;
        let Some(state) = state else {
            let zeros = Tensor::zeros([batch, self.d_hidden], (&x.device(), x.dtype()));
            return Ok(SabLstmState::new(zeros.clone(), zeros));
        };
        let why = "batch of x, d_hidden";
        let shape = [batch, self.d_hidden];
        op::check_tensor("state.hidden", &state.hidden, shape, why, &like)?;
        op::check_tensor("state.cell", &state.cell, shape, why, &like)?;
        for slots in &state.slots {
            let shape = [batch, slots.dims()[1], self.d_hidden];
            op::check_tensor("state.slots", slots, shape, why, &like)?;
        }
        let on_autodiff = x.is_autodiff() || weights.is_autodiff();
        Ok(if on_autodiff { state } else { state.valid() })
    }

    /// # Panics
    ///
    /// If anything that a step reads is tracked by autodiff.
    #[track_caller]
    fn refuse_tracked(&self, x: &Tensor<2>, state: Option<&SabLstmState>) {
        #[cfg(feature = "autodiff")]
        {
            let state_is = state.is_some_and(|state| {
                state.hidden.is_tracked()
                    || state.cell.is_tracked()
                    || state.slots.iter().any(Tensor::is_tracked)
            });
            // A tracked state alone cannot be served; one that is merely left from training is taken off autodiff.
            let served = !self.weight_ih.val().is_autodiff() && !x.is_autodiff();
            let tracked = [
                (
                    "the layer",
                    self.weight_ih.val().is_tracked() || self.weight_hh.val().is_tracked(),
                ),
                ("x", x.is_tracked()),
                ("the state", state_is && !served),
            ];
            if let Some((name, _)) = tracked.iter().find(|(_, is)| *is) {
                panic!(
                    "SabLstm::step runs without gradient, and {name} is tracked by autodiff: call valid() on \
                     it, or train with SabLstm::forward"
                );
            }
        }
        #[cfg(not(feature = "autodiff"))]
        let _ = (x, state);
    }

    /// The slots that a run begins with.
    fn slots(&self, state: &SabLstmState) -> Option<Tensor<3>> {
        let first = || self.begins_with_a_slot(state);
        state.slots().or_else(|| first().then(|| state.hidden.clone().unsqueeze_dim(1)))
    }

    /// Their number.
    fn slots_before(&self, state: &SabLstmState) -> usize {
        match state.num_slots() {
            0 => self.begins_with_a_slot(state).into(),
            slots => slots,
        }
    }

    fn begins_with_a_slot(&self, state: &SabLstmState) -> bool {
        state.step == 0 && self.settings.initial_slot == InitialSlot::Hidden
    }

    fn within_budget(&self, state: SabLstmState) -> SabLstmState {
        match self.settings.slot_budget {
            Some(budget) => state.within(budget),
            None => state,
        }
    }

    pub(super) fn options(
        &self,
        first_step: usize,
        readout: Readout,
        reminders: bool,
    ) -> SabOptions {
        SabOptions { settings: self.settings, first_step, readout, reminders, rows: None }
    }

    pub(super) fn inputs(
        &self,
        x: Tensor<3>,
        state: &SabLstmState,
        slots: Option<Tensor<3>>,
    ) -> SabInputs {
        let [_, packed] = self.weight_ih.shape().dims();
        let bias = match (&self.bias_ih, &self.bias_hh) {
            (Some(ih), Some(hh)) => ih.val() + hh.val(),
            (Some(bias), None) | (None, Some(bias)) => bias.val(),
            (None, None) => Tensor::zeros([packed], (&x.device(), x.dtype())),
        };
        SabInputs {
            x,
            w_ih: self.weight_ih.val(),
            w_hh: self.weight_hh.val(),
            bias,
            h0: state.hidden.clone(),
            c0: state.cell.clone(),
            slots,
            summary_gain: self.summary_gain.as_ref().map(Param::val),
            score: self.scorer.parameters().map_ranks(Param::val, Param::val),
        }
    }

    pub(super) fn cell(&self) -> Cell {
        Cell {
            clip: self.clip,
            input_forget: self.input_forget,
            activations: self.activations.clone(),
        }
    }

    /// From the layout of the input to the order of time, batch first.
    fn in_time(&self, x: Tensor<3>) -> Tensor<3> {
        let x = if self.batch_first { x } else { x.swap_dims(0, 1) };
        if self.reverse { x.flip([1]) } else { x }
    }

    /// From the order of time, batch first, to the layout of the input.
    fn as_given<K: burn::tensor::kind::Basic>(&self, sequence: Tensor<3, K>) -> Tensor<3, K> {
        let sequence = if self.reverse { sequence.flip([1]) } else { sequence };
        if self.batch_first { sequence } else { sequence.swap_dims(0, 1) }
    }
}

/// # Panics
///
/// With the input that does not fit.
#[track_caller]
pub(super) fn expect<T>(outcome: Result<T, InputError>) -> T {
    outcome.unwrap_or_else(|error| panic!("SabLstm: {error}"))
}
