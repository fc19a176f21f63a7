use burn::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn::tensor::{Device, Int, Tensor};

use super::budget::{join_reminders, readout_of_part, steps_until_full};
use super::config::{InitialSlot, SabLstmConfig};
use super::scorer::Scorer;
use super::state::SabLstmState;
use crate::op::{
    self, Activations, Cell, Readout, Recompute, SabOptions, SequenceInputs, SequenceOutputs,
    SequenceReminders, SlotMemory, Sparsifier, Strategy,
};

/// An LSTM that stores its own past states as slots, retrieves a few of them at every step, and sends
/// gradient back only through those and through short truncation windows.
///
/// Made by [`SabLstmConfig`]. Stands where a `burn::nn::Lstm` was: same shapes, same weights, same
/// values while the memory is empty. The gates are packed in the order i, f, g, o (i, g, o with
/// `input_forget`), as in PyTorch; weights are `[in, out]`, as in Burn.
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
    /// What scores the slots.
    pub scorer: Scorer,
    /// Activations, if not the standard ones.
    pub activations: Option<Activations>,
    /// Hidden units H.
    pub d_hidden: usize,
    /// See [`SabLstmConfig::k_top`].
    pub k_top: usize,
    /// See [`SabLstmConfig::k_att`].
    pub k_att: usize,
    /// See [`SabLstmConfig::k_trunc`].
    pub k_trunc: usize,
    /// See [`SabLstmConfig::truncation_offset`].
    pub truncation_offset: usize,
    /// See [`SabLstmConfig::summary_scale`].
    pub summary_scale: f64,
    /// See [`SabLstmConfig::max_hops`].
    pub max_hops: Option<usize>,
    /// See [`SabLstmConfig::slot_budget`].
    pub slot_budget: Option<usize>,
    /// See [`SabLstmConfig::sparsifier`].
    #[module(skip)]
    pub sparsifier: Sparsifier,
    /// See [`SabLstmConfig::initial_slot`].
    #[module(skip)]
    pub initial_slot: InitialSlot,
    /// See [`SabLstmConfig::batch_first`].
    pub batch_first: bool,
    /// See [`SabLstmConfig::reverse`].
    pub reverse: bool,
    /// See [`SabLstmConfig::clip`].
    pub clip: Option<f64>,
    /// See [`SabLstmConfig::input_forget`].
    pub input_forget: bool,
    /// See [`SabLstmConfig::recompute`].
    #[module(skip)]
    pub recompute: Recompute,
    /// See [`SabLstmConfig::strategy`].
    #[module(skip)]
    pub strategy: Strategy,
}

/// All that a pass over a sequence gives, at all its T steps or at those that were asked for; time and
/// batch lie as in the input.
#[derive(Clone, Debug)]
pub struct SabLstmOutput {
    /// Hidden states after retrieval, `[B, T, H]`.
    pub hidden: Tensor<3>,
    /// Summaries of what was retrieved, `[B, T, H]`, for readouts `y = V1 h + V2 s + b`.
    pub summary: Tensor<3>,
    /// Retrieved slots, best first, `[B, T, K]` with K = min(k_top, slots at the end); unused places
    /// hold 0. Slot 0 is the oldest; slots that a [budget](SabLstmConfig::slot_budget) dropped still count.
    pub slots: Tensor<3, Int>,
    /// Their weights, `[B, T, K]`; unused places hold 0. For inspection: carries no gradient.
    pub weights: Tensor<3>,
    /// State after the last step.
    pub state: SabLstmState,
}

impl ModuleDisplay for SabLstm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        content
            .add("d_input", &self.weight_ih.shape()[0])
            .add("d_hidden", &self.d_hidden)
            .add("bias", &self.bias_ih.is_some())
            .add("k_top", &self.k_top)
            .add("k_att", &self.k_att)
            .add("k_trunc", &self.k_trunc)
            .add_debug_attribute("score", &self.scorer.config())
            .add_debug_attribute("sparsifier", &self.sparsifier)
            .optional()
    }
}

impl SabLstm {
    /// Of settings that were found valid.
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
        let vector = |fan_in: usize| {
            let gate = || initializer.init_with([*d_hidden], Some(fan_in), Some(*d_hidden), device);
            let packed = Tensor::cat((0..gates).map(|_| gate().val()).collect(), 0);
            Param::from_tensor(packed.detach())
        };
        Self {
            weight_ih: matrix(*d_input),
            weight_hh: matrix(*d_hidden),
            bias_ih: config.bias.then(|| vector(*d_input)),
            bias_hh: config.bias.then(|| vector(*d_hidden)),
            scorer: Scorer::new(config.score, config.score_gain, *d_hidden, device),
            activations: (!config.has_standard_activations()).then(|| Activations {
                gate: config.gate_activation.init(device),
                cell: config.cell_activation.init(device),
                hidden: config.hidden_activation.init(device),
            }),
            d_hidden: *d_hidden,
            k_top: config.k_top,
            k_att: config.k_att,
            k_trunc: config.k_trunc,
            truncation_offset: config.truncation_offset,
            summary_scale: config.summary_scale,
            max_hops: config.max_hops,
            slot_budget: config.slot_budget,
            sparsifier: config.sparsifier,
            initial_slot: config.initial_slot,
            batch_first: config.batch_first,
            reverse: config.reverse,
            clip: config.clip,
            input_forget: config.input_forget,
            recompute: config.recompute,
            strategy: config.strategy,
        }
    }

    /// Runs a sequence, as `burn::nn::Lstm::forward` does.
    ///
    /// `x` is `[B, T, I]`, or `[T, B, I]` without `batch_first`; so is the returned sequence of hidden
    /// states, with H. Without a state the run starts from zeros.
    ///
    /// # Panics
    ///
    /// If shapes do not fit.
    pub fn forward(&self, x: Tensor<3>, state: Option<SabLstmState>) -> (Tensor<3>, SabLstmState) {
        let (hidden, _, state) = self.run(self.in_time(x), state, Readout::All, false);
        (self.as_given(hidden), state)
    }

    /// As [`forward`](Self::forward), with the summaries and with which slots were retrieved and how
    /// strongly.
    pub fn forward_with_reminders(
        &self,
        x: Tensor<3>,
        state: Option<SabLstmState>,
    ) -> SabLstmOutput {
        self.reminded(x, state, Readout::All)
    }

    /// As [`forward_with_reminders`](Self::forward_with_reminders), but gives the outputs of `steps`
    /// only: positions in `x`, 0-based and rising. For readouts of few steps, `&[T - 1]` say, of very
    /// long sequences: no array over all hidden states exists in either pass, and the cost of the backward
    /// pass is that of the steps that gradient reaches.
    ///
    /// # Panics
    ///
    /// If shapes do not fit, or if the steps do not rise or lie beyond the sequence.
    pub fn forward_at(
        &self,
        x: Tensor<3>,
        steps: &[usize],
        state: Option<SabLstmState>,
    ) -> SabLstmOutput {
        let time = x.dims()[if self.batch_first { 1 } else { 0 }];
        let steps: Vec<usize> = if self.reverse {
            steps.iter().rev().map(|step| time.wrapping_sub(step + 1)).collect()
        } else {
            steps.to_vec()
        };
        self.reminded(x, state, Readout::At(steps.into()))
    }

    /// One time step of a stream: `x` is `[B, I]`, the returned hidden state `[B, H]`.
    ///
    /// # Panics
    ///
    /// If shapes do not fit.
    pub fn step(&self, x: Tensor<2>, state: Option<SabLstmState>) -> (Tensor<2>, SabLstmState) {
        let cell = self.cell();
        if !cell.is_standard() || self.strategy == Strategy::Reference {
            let (_, _, state) = self.run(x.unsqueeze_dim(1), state, Readout::All, false);
            return (state.hidden.clone(), state);
        }
        let x = x.unsqueeze_dim(1);
        let mut state = self.within_budget(self.checked(&x, state));
        let options = self.options(state.step, Readout::All, false);
        let memory = std::mem::take(&mut state.memory);
        let slots = if memory.is_empty() { self.slots(&state) } else { None };
        let inputs = self.inputs(x, &state, slots.clone());
        let step = op::sab_step(inputs, memory, &options);
        let slots = if step.memory.is_empty() {
            slots.into_iter().chain(step.stored).collect()
        } else {
            vec![]
        };
        let state = SabLstmState {
            cell: step.cell,
            hidden: step.hidden.clone(),
            slots,
            memory: step.memory,
            origins: state.origins,
            step: state.step + 1,
        };
        (step.hidden, self.within_budget(state))
    }

    fn reminded(
        &self,
        x: Tensor<3>,
        state: Option<SabLstmState>,
        readout: Readout,
    ) -> SabLstmOutput {
        let (hidden, reminders, state) = self.run(self.in_time(x), state, readout, true);
        let SequenceReminders { summary, slots, weights } =
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
    fn run(
        &self,
        x: Tensor<3>,
        state: Option<SabLstmState>,
        readout: Readout,
        reminders: bool,
    ) -> (Tensor<3>, Option<SequenceReminders>, SabLstmState) {
        let [_, time, _] = x.dims();
        let mut state = self.within_budget(self.checked(&x, state));
        let Some(budget) = self.slot_budget else {
            let (outputs, state) = self.run_part(x, state, readout, reminders);
            return (outputs.hidden, outputs.reminders, state);
        };
        readout.check(time);
        let (mut hidden, mut reminded) = (Vec::new(), Vec::new());
        let mut from = 0;
        while from < time {
            let slots = self.slots_before(&state);
            let to = time.min(from + steps_until_full(state.step, slots, self.k_att, budget));
            let wanted = readout_of_part(&readout, from, to);
            let part = x.clone().narrow(1, from, to - from);
            // A call gives one step at least.
            let asked = wanted.clone().unwrap_or(Readout::At([to - from - 1].into()));
            let (outputs, next) = self.run_part(part, state, asked, reminders);
            if wanted.is_some() {
                hidden.push(outputs.hidden);
                reminded.extend(outputs.reminders.map(|part| match &next.origins {
                    None => part,
                    Some(origins) => {
                        let slots = origins.of(part.slots, next.num_slots());
                        SequenceReminders { slots, ..part }
                    }
                }));
            }
            state = self.within_budget(next);
            from = to;
        }
        let reminded = (!reminded.is_empty()).then(|| join_reminders(reminded));
        (Tensor::cat(hidden, 1), reminded, state)
    }

    /// Runs `[B, T, I]` in the order of time with one call of the op.
    fn run_part(
        &self,
        x: Tensor<3>,
        state: SabLstmState,
        readout: Readout,
        reminders: bool,
    ) -> (SequenceOutputs, SabLstmState) {
        let [_, time, _] = x.dims();
        let slots = self.slots(&state);
        let options = self.options(state.step, readout, reminders);
        let inputs = self.inputs(x, &state, slots.clone());
        let cell = self.cell();
        let outputs = if cell.is_standard() {
            op::sab_sequence(inputs, &options)
        } else {
            op::sab_sequence_with_cell(inputs, &options, &cell)
        };
        let state = SabLstmState {
            cell: outputs.cell.clone(),
            hidden: outputs.last.clone(),
            // What was joined for this call stays joined; the new part waits for the next.
            slots: slots.into_iter().chain(outputs.stored.clone()).collect(),
            memory: SlotMemory::default(),
            origins: state.origins,
            step: state.step + time,
        };
        (outputs, state)
    }

    /// The state that a run over `x`, `[B, T, I]`, begins with.
    fn checked(&self, x: &Tensor<3>, state: Option<SabLstmState>) -> SabLstmState {
        let [batch, _, input] = x.dims();
        let [d_input, _] = self.weight_ih.shape().dims();
        assert_eq!(
            input,
            d_input,
            "SabLstm: the input {:?} has {input} features, the layer d_input = {d_input}",
            x.dims()
        );
        let state = state.unwrap_or_else(|| {
            let zeros = Tensor::zeros([batch, self.d_hidden], (&x.device(), x.dtype()));
            SabLstmState::new(zeros.clone(), zeros)
        });
        assert_eq!(
            state.hidden.dims(),
            [batch, self.d_hidden],
            "SabLstm: the state's shape does not fit an input of {:?} and d_hidden = {}",
            x.dims(),
            self.d_hidden
        );
        state
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
        state.step == 0 && self.initial_slot == InitialSlot::Hidden
    }

    fn within_budget(&self, state: SabLstmState) -> SabLstmState {
        match self.slot_budget {
            Some(budget) => state.within(budget),
            None => state,
        }
    }

    fn options(&self, first_step: usize, readout: Readout, reminders: bool) -> SabOptions {
        SabOptions {
            k_top: self.k_top,
            k_att: self.k_att,
            k_trunc: self.k_trunc,
            truncation_offset: self.truncation_offset,
            sparsifier: self.sparsifier,
            summary_scale: self.summary_scale,
            max_hops: self.max_hops,
            first_step,
            readout,
            reminders,
            recompute: self.recompute,
            strategy: self.strategy,
        }
    }

    fn inputs(
        &self,
        x: Tensor<3>,
        state: &SabLstmState,
        slots: Option<Tensor<3>>,
    ) -> SequenceInputs {
        let [_, packed] = self.weight_ih.shape().dims();
        let bias = match (&self.bias_ih, &self.bias_hh) {
            (Some(ih), Some(hh)) => ih.val() + hh.val(),
            (Some(bias), None) | (None, Some(bias)) => bias.val(),
            (None, None) => Tensor::zeros([packed], (&x.device(), x.dtype())),
        };
        SequenceInputs {
            x,
            w_ih: self.weight_ih.val(),
            w_hh: self.weight_hh.val(),
            bias,
            h0: state.hidden.clone(),
            c0: state.cell.clone(),
            slots,
            score: self.scorer.tensors(),
        }
    }

    fn cell(&self) -> Cell {
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
