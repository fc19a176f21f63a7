//! Sequences of different lengths in one batch, and rows that start anew: what every row gives is what it gives
//! when it is run alone.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::kind::Numeric;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use super::budget::{Origins, join_reminders, readout_of_part};
use super::lstm::{SabLstm, SabLstmOutput, expect};
use super::rows::{cat_states, indices};
use super::state::{RowState, SabLstmState};
use crate::op::{
    self, InitialSlot, InputError, Readout, Reminders, Row, RowTable, SabOptions, SlotMemory,
    Strategy,
};

/// The lengths of the rows of a batch, and the steps at which a row starts a new sequence.
///
/// Steps after the length of a row are padding. Padding has no effect: outputs there are zero, no slot is stored, the
/// state does not change, and no gradient comes from there. At a reset, a row starts a new sequence: the state is zero,
/// the step is 0, earlier slots cannot be retrieved, and no gradient crosses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    time: usize,
    lengths: Vec<usize>,
    resets: Vec<Vec<usize>>,
}

impl Segments {
    /// A batch of `batch` rows of `time` steps, without padding and resets.
    pub fn new(batch: usize, time: usize) -> Self {
        Self { time, lengths: vec![time; batch], resets: vec![vec![]; batch] }
    }

    /// The same with these lengths, one per row, each from 0 to the number of steps.
    ///
    /// # Errors
    ///
    /// Names the first row whose length does not fit.
    pub fn with_lengths(mut self, lengths: &[usize]) -> Result<Self, InputError> {
        self.expect_rows("lengths", lengths.len())?;
        self.lengths = lengths.to_vec();
        self.checked()
    }

    /// The same with resets before these steps of each row, 0-based and in ascending order. A reset at padding has no
    /// effect.
    ///
    /// # Errors
    ///
    /// Names the first row whose resets do not fit.
    pub fn with_resets(mut self, resets: &[Vec<usize>]) -> Result<Self, InputError> {
        self.expect_rows("lists of resets", resets.len())?;
        self.resets = resets.to_vec();
        self.checked()
    }

    /// The same with resets before the steps at which `mask`, `[B, T]`, is true. Reads the mask from its device.
    ///
    /// # Errors
    ///
    /// If the mask has another shape.
    pub fn with_reset_mask(self, mask: Tensor<2, Bool>) -> Result<Self, InputError> {
        let (found, expected) = (mask.dims(), [self.lengths.len(), self.time]);
        if found != expected {
            let (found, expected) = (found.to_vec(), expected.to_vec());
            let why = "batch and steps of the segments";
            return Err(InputError::Shape { name: "mask", found, expected, why });
        }
        let mask: Vec<bool> = mask.into_data().iter::<bool>().collect();
        let steps = |row: &[bool]| (0..row.len()).filter(|t| row[*t]).collect();
        let resets: Vec<Vec<usize>> = mask.chunks(self.time.max(1)).map(steps).collect();
        if self.time == 0 { Ok(self) } else { self.with_resets(&resets) }
    }

    fn expect_rows(&self, what: &str, found: usize) -> Result<(), InputError> {
        let batch = self.lengths.len();
        if found == batch {
            return Ok(());
        }
        let what = format!("there are {found} {what}, expected {batch}, one for each row");
        Err(InputError::Row { row: found.min(batch), what })
    }

    fn checked(self) -> Result<Self, InputError> {
        let rows: Vec<Row> = (0..self.lengths.len()).map(|row| self.row(row, 0, 0)).collect();
        op::check_rows(&rows, [self.lengths.len(), self.time, 0])?;
        Ok(self)
    }

    /// The extent of a row that had `first_step` steps and has `carried` slots.
    fn row(&self, row: usize, first_step: usize, carried: usize) -> Row {
        let (length, resets) = (self.lengths[row], self.resets[row].clone());
        Row { first_step, carried, length, resets }
    }

    /// The parts of a row between resets, none of them empty, with whether a reset precedes each.
    fn parts(&self, row: usize) -> Vec<(Range<usize>, bool)> {
        let length = self.lengths[row];
        let mut starts: Vec<usize> =
            self.resets[row].iter().copied().filter(|t| *t < length).collect();
        let reset_at_start = starts.first() == Some(&0);
        if !reset_at_start {
            starts.insert(0, 0);
        }
        let ends = starts.iter().skip(1).copied().chain([length]);
        let parts = starts.iter().copied().zip(ends).enumerate();
        parts
            .map(|(n, (from, to))| (from..to, n > 0 || reset_at_start))
            .filter(|(part, _)| !part.is_empty())
            .collect()
    }

    /// Whether every row is whole and without resets.
    fn are_whole(&self) -> bool {
        self.lengths.iter().all(|length| *length == self.time)
            && self.resets.iter().all(Vec::is_empty)
    }
}

impl SabLstm {
    /// As [`forward`](Self::forward), for rows of different lengths. `lengths` has the length of each row, from 0 to T.
    /// Steps after the length of a row are padding. Padding has no effect, and hidden states there are zero. The
    /// returned state is that after the last step of each row.
    ///
    /// With `reverse`, each row is processed from its own last step.
    ///
    /// # Panics
    ///
    /// If an input does not fit the layer, or a length the batch.
    #[track_caller]
    pub fn forward_padded(
        &self,
        x: Tensor<3>,
        lengths: &[usize],
        state: Option<SabLstmState>,
    ) -> (Tensor<3>, SabLstmState) {
        let segments = expect(self.whole_rows(&x).with_lengths(lengths));
        let (hidden, _, state) = self.in_segments(x, &segments, state, false);
        (hidden, state)
    }

    /// As [`forward_with_reminders`](Self::forward_with_reminders), for rows of different lengths and with resets.
    /// Each row gives what it gives when it is run alone, part by part. Slots are numbered from a row's last reset.
    ///
    /// The kernels run all rows in one call. Where no kernel runs, rows are run one by one; so are rows with a
    /// `slot_budget`.
    ///
    /// # Panics
    ///
    /// If an input does not fit the layer, if the segments are of another batch or number of steps, or if there
    /// are resets with `reverse`.
    #[track_caller]
    pub fn forward_segments(
        &self,
        x: Tensor<3>,
        segments: &Segments,
        state: Option<SabLstmState>,
    ) -> SabLstmOutput {
        let (hidden, reminders, state) = self.in_segments(x, segments, state, true);
        let Reminders { summary, slots, weights } =
            reminders.expect("asked for, and every implementation gives them");
        SabLstmOutput { hidden, summary, slots, weights, state }
    }

    fn whole_rows(&self, x: &Tensor<3>) -> Segments {
        let [first, second, _] = x.dims();
        match self.batch_first {
            true => Segments::new(first, second),
            false => Segments::new(second, first),
        }
    }

    /// From the layout of the input to the order of time and back, row by row.
    #[track_caller]
    fn in_segments(
        &self,
        x: Tensor<3>,
        segments: &Segments,
        state: Option<SabLstmState>,
        reminders: bool,
    ) -> (Tensor<3>, Option<Reminders>, SabLstmState) {
        let Segments { time, lengths, resets } = segments;
        let whole = self.whole_rows(&x);
        if (whole.time, whole.lengths.len()) != (*time, lengths.len()) {
            let found = vec![lengths.len(), *time];
            let expected = vec![whole.lengths.len(), whole.time];
            let why = "batch and steps of x";
            expect::<()>(Err(InputError::Shape { name: "segments", found, expected, why }));
        }
        if self.reverse && resets.iter().any(|resets| !resets.is_empty()) {
            let why = "resets of a layer with reverse; reverse the sequences instead".to_owned();
            expect::<()>(Err(InputError::Rows { why }));
        }
        let x = if self.batch_first { x } else { x.swap_dims(0, 1) };
        let device = x.device();
        let order = self.reverse.then(|| reversed_within(lengths, *time, &device));
        let order = order.as_ref();
        let x = in_order(x, order);
        let (hidden, reminded, state) =
            self.run_segments(x, segments, state, Readout::All, reminders);
        let reminded = reminded.map(|Reminders { summary, slots, weights }| Reminders {
            summary: self.rows_as_given(summary, order),
            slots: self.rows_as_given(slots, order),
            weights: self.rows_as_given(weights, order),
        });
        (self.rows_as_given(hidden, order), reminded, state)
    }

    /// From the order of time, batch first, to the layout of the input.
    fn rows_as_given<K: Numeric>(
        &self,
        sequence: Tensor<3, K>,
        order: Option<&Tensor<2, Int>>,
    ) -> Tensor<3, K> {
        let sequence = in_order(sequence, order);
        if self.batch_first { sequence } else { sequence.swap_dims(0, 1) }
    }

    /// Runs `[B, T, I]` in the order of time.
    #[track_caller]
    pub(super) fn run_segments(
        &self,
        x: Tensor<3>,
        segments: &Segments,
        state: Option<SabLstmState>,
        readout: Readout,
        reminders: bool,
    ) -> (Tensor<3>, Option<Reminders>, SabLstmState) {
        let [batch, time, _] = x.dims();
        let state = expect(self.checked(&x, state));
        if batch == 0 || time == 0 {
            return self.empty(&x, state, &readout, reminders);
        }
        if segments.are_whole() && !state.is_ragged() {
            return self.run(x, Some(state), readout, reminders);
        }
        let by_strategy = matches!(self.settings.strategy, Strategy::Auto | Strategy::Fused);
        if self.settings.slot_budget.is_some() || !by_strategy || !self.cell().is_standard() {
            return self.run_apart(&x, segments, &state, &readout, reminders);
        }
        let (slots, counts) = self.slots_of_rows(&state);
        let steps = state.steps();
        let rows = (0..batch).map(|row| segments.row(row, steps[row], counts[row]));
        let rows: Arc<[Row]> = rows.collect();
        let options =
            SabOptions { rows: Some(rows.clone()), ..self.options(0, readout.clone(), reminders) };
        let inputs = self.inputs(x.clone(), &state, slots.clone());
        if expect(op::sab_coverage(inputs.clone(), &options)).is_err() {
            return self.run_apart(&x, segments, &state, &readout, reminders);
        }
        let outputs = expect(op::sab_sequence(inputs, &options));
        let carried = slots.as_ref().map_or(0, |slots| slots.dims()[1]);
        let state = SabLstmState::of_ragged(
            outputs.cell.clone(),
            outputs.last.clone(),
            slots.into_iter().chain(outputs.stored.clone()).collect(),
            SlotMemory::default(),
            ends_of_rows(&state.row_states(), &options, &rows, carried),
        );
        (outputs.hidden, outputs.reminders, state)
    }

    /// The readable twin, and what runs where no kernel covers the rows: each part of each row by itself.
    #[track_caller]
    fn run_apart(
        &self,
        x: &Tensor<3>,
        segments: &Segments,
        state: &SabLstmState,
        readout: &Readout,
        reminders: bool,
    ) -> (Tensor<3>, Option<Reminders>, SabLstmState) {
        let [batch, time, _] = x.dims();
        let given = readout.len(time);
        let (mut hidden, mut reminded, mut states) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..batch {
            let x = x.clone().narrow(0, row, 1);
            let mut state = state.select(&[row]);
            let (mut hidden_of_row, mut reminded_of_row) = (Vec::new(), Vec::new());
            for (part, reset) in segments.parts(row) {
                if reset {
                    let zeros = state.hidden.zeros_like();
                    state = SabLstmState::new(zeros.clone(), zeros);
                }
                let x = x.clone().narrow(1, part.start, part.len());
                let wanted = readout_of_part(readout, part.start, part.end);
                // A call gives one step at least.
                let asked = wanted.clone().unwrap_or(Readout::At([part.len() - 1].into()));
                let (hidden, of_part, next) = self.run(x, Some(state), asked, reminders);
                if wanted.is_some() {
                    hidden_of_row.push(hidden);
                    reminded_of_row.extend(of_part);
                }
                state = next;
            }
            let steps = hidden_of_row.iter().map(|part| part.dims()[1]).sum::<usize>();
            if steps < given {
                // What is behind the last step that counts.
                let behind = given - steps;
                let (zeros, of_padding, _) = self.empty(&x, state.clone(), readout, reminders);
                hidden_of_row.push(zeros.narrow(1, 0, behind));
                reminded_of_row.extend(of_padding.map(|padding| Reminders {
                    summary: padding.summary.narrow(1, 0, behind),
                    slots: padding.slots.narrow(1, 0, behind),
                    weights: padding.weights.narrow(1, 0, behind),
                }));
            }
            states.push(state);
            hidden.push(Tensor::cat(hidden_of_row, 1));
            reminded
                .extend((!reminded_of_row.is_empty()).then(|| join_reminders(reminded_of_row, 1)));
        }
        let reminded = (!reminded.is_empty()).then(|| join_reminders(reminded, 0));
        (Tensor::cat(hidden, 0), reminded, cat_states(&states))
    }

    /// One step of rows that differ, `[B, 1, I]`, without gradient, with the summary `[B, H]` if `summary`. Where no
    /// kernel covers them, each is stepped by itself, and their slots are joined again.
    #[track_caller]
    pub(super) fn step_ragged(
        &self,
        x: Tensor<3>,
        mut state: SabLstmState,
        summary: bool,
    ) -> (Option<Tensor<2>>, SabLstmState) {
        let batch = state.batch();
        let begins = self.begin_with_a_slot(&state);
        let (first, others): (Vec<_>, Vec<_>) = (0..batch).partition(|row| begins[*row]);
        if state.memory.is_kernels() && !first.is_empty() && !others.is_empty() {
            // The kernel's form of the others has no place for the slot that these begin with.
            return self.step_apart(&x, &state, &[first, others], summary);
        }
        let in_memory = state.memory.is_kernels();
        let (slots, counts) =
            if in_memory { (None, state.slot_counts()) } else { self.slots_of_rows(&state) };
        let rows = state.steps().into_iter().zip(counts);
        let rows = rows.map(|(first_step, carried)| Row {
            first_step,
            carried,
            length: 1,
            resets: vec![],
        });
        let rows: Arc<[Row]> = rows.collect();
        let options =
            SabOptions { rows: Some(rows.clone()), ..self.options(0, Readout::All, summary) };
        let inputs = self.inputs(x.clone(), &state, slots.clone());
        let inputs = inputs.map_ranks(Tensor::inner, Tensor::inner, Tensor::inner);
        let by_strategy = matches!(self.settings.strategy, Strategy::Auto | Strategy::Fused);
        let covers = || expect(op::sab_coverage(inputs.clone(), &options)).is_ok();
        // Slots in a kernel's form are those of the kernel that covers the rows.
        if !(by_strategy && (in_memory || covers())) {
            let rows: Vec<_> = (0..batch).map(|row| vec![row]).collect();
            return self.step_apart(&x, &state, &rows, summary);
        }
        let carried = if in_memory {
            state.memory.len()
        } else {
            slots.as_ref().map_or(0, |slots| slots.dims()[1])
        };
        let ends = ends_of_rows(&state.row_states(), &options, &rows, carried);
        let memory = std::mem::take(&mut state.memory);
        let step = expect(op::sab_step(inputs, memory, &options));
        let slots = if step.memory.is_empty() {
            slots.into_iter().chain(step.stored).collect()
        } else {
            vec![]
        };
        let state = SabLstmState::of_ragged(step.cell, step.hidden, slots, step.memory, ends);
        (step.summary.map(|summary| summary.squeeze_dim(1)), state)
    }

    /// One step of some rows of a state at a time.
    #[track_caller]
    fn step_apart(
        &self,
        x: &Tensor<3>,
        state: &SabLstmState,
        groups: &[Vec<usize>],
        summary: bool,
    ) -> (Option<Tensor<2>>, SabLstmState) {
        let step = |rows: &Vec<usize>| {
            let x = rows.iter().map(|row| x.clone().narrow(0, *row, 1)).collect();
            self.stepped(Tensor::cat(x, 0).squeeze_dim(1), Some(state.select(rows)), summary)
        };
        let (summaries, states): (Vec<_>, Vec<_>) = groups.iter().map(step).unzip();
        let summaries: Option<Vec<_>> = summaries.into_iter().collect();
        let (summary, stepped) =
            (summaries.map(|parts| Tensor::cat(parts, 0)), cat_states(&states));
        let order = groups.concat();
        if order.is_sorted() {
            return (summary, stepped);
        }
        let mut places = vec![0; order.len()];
        for (place, row) in order.into_iter().enumerate() {
            places[row] = place;
        }
        let of_rows = |summary: Tensor<2>| {
            let places = indices(&places, &summary.device());
            summary.select(0, places)
        };
        (summary.map(of_rows), stepped.select(&places))
    }

    /// Which rows begin with their initial hidden state as a slot.
    fn begin_with_a_slot(&self, state: &SabLstmState) -> Vec<bool> {
        let hidden = self.settings.initial_slot == InitialSlot::Hidden;
        let rows = state.steps().into_iter().zip(state.slot_counts());
        rows.map(|(step, count)| hidden && step == 0 && count == 0).collect()
    }

    /// The slots that rows of different extent begin with, `[B, M, H]`, and how many of the last are each row's.
    fn slots_of_rows(&self, state: &SabLstmState) -> (Option<Tensor<3>>, Vec<usize>) {
        let (mut counts, begins) = (state.slot_counts(), self.begin_with_a_slot(state));
        for (count, begins) in counts.iter_mut().zip(&begins) {
            *count += usize::from(*begins);
        }
        let first = || state.hidden.clone().unsqueeze_dim(1);
        if !begins.contains(&true) {
            return (state.slots(), counts);
        }
        let Some(slots) = state.slots() else { return (Some(first()), counts) };
        let [batch, count, width] = slots.dims();
        let mask = TensorData::new(begins, [batch, 1, 1]);
        let mask = Tensor::<3, Bool>::from_data(mask, &slots.device()).expand([batch, 1, width]);
        let last = slots.clone().narrow(1, count - 1, 1).mask_where(mask, first());
        let slots = match count {
            1 => last,
            _ => Tensor::cat(vec![slots.narrow(1, 0, count - 1), last], 1),
        };
        (Some(slots), counts)
    }
}

/// What rows have after a call that carries `carried` slots and began with `before`.
fn ends_of_rows(
    before: &[RowState],
    options: &SabOptions,
    rows: &[Row],
    carried: usize,
) -> Vec<RowState> {
    let end = |(row, before): (&Row, &RowState)| {
        let table = RowTable::new(row, options, carried);
        let slots = match row.length {
            // An initial slot is not stored before the first step.
            0 => carried - before.slots.len()..carried,
            _ => table.visible_at_end(),
        };
        let reset = row.resets.iter().any(|t| *t < row.length);
        let origins = if reset { None } else { before.origins.clone() };
        RowState { step: table.step_at_end(), slots, origins }
    };
    rows.iter().zip(before).map(end).collect()
}

/// The order of steps, `[B, T]`, that reverses each row within its length.
fn reversed_within(lengths: &[usize], time: usize, device: &Device) -> Tensor<2, Int> {
    let of_row = |length: &usize| {
        let length = *length;
        (0..time).map(move |t| if t < length { length - 1 - t } else { t } as i64)
    };
    let order: Vec<i64> = lengths.iter().flat_map(of_row).collect();
    Tensor::from_data(TensorData::new(order, [lengths.len(), time]), device)
}

/// The steps of `[B, T, N]`, each row's in its own order, `[B, T]`, if there is one.
fn in_order<K: Numeric>(sequence: Tensor<3, K>, order: Option<&Tensor<2, Int>>) -> Tensor<3, K> {
    let Some(order) = order else { return sequence };
    let [batch, time, width] = sequence.dims();
    sequence.gather(1, order.clone().unsqueeze_dim::<3>(2).expand([batch, time, width]))
}

impl SabLstmState {
    /// Whether rows differ in steps or slots.
    pub(super) fn is_ragged(&self) -> bool {
        self.rows.is_some()
    }

    /// The number of steps that each row has processed.
    pub fn steps(&self) -> Vec<usize> {
        let [batch, _] = self.hidden.dims();
        match &self.rows {
            Some(rows) => rows.iter().map(|row| row.step).collect(),
            None => vec![self.step; batch],
        }
    }

    /// The number of slots of each row. With n slots, these are the last n of the row in [`slots`](Self::slots).
    pub fn slot_counts(&self) -> Vec<usize> {
        let [batch, _] = self.hidden.dims();
        match &self.rows {
            Some(rows) => rows.iter().map(|row| row.slots.len()).collect(),
            None => vec![self.num_slots(); batch],
        }
    }

    /// A state whose rows end as `rows` says, with their slots among `slots`, or those of `memory`. Rows that are
    /// alike give an ordinary state.
    pub(super) fn of_ragged(
        cell: Tensor<2>,
        hidden: Tensor<2>,
        slots: Vec<Tensor<3>>,
        memory: SlotMemory,
        mut rows: Vec<RowState>,
    ) -> Self {
        let most = memory.len();
        if !memory.is_empty() {
            // A memory has as many slots as its longest row, which are each row's last.
            for row in &mut rows {
                row.slots = most - row.slots.len()..most;
            }
        }
        let about = |row: &RowState| {
            (row.step, row.slots.len(), row.origins.as_ref().map_or(0, Origins::dropped))
        };
        let alike = rows.iter().all(|row| about(row) == about(&rows[0]));
        let (step, count) =
            (rows.iter().map(|row| row.step).max().unwrap_or(0), rows[0].slots.len());
        let state = Self { slots, memory, step, rows: Some(rows), ..Self::new(cell, hidden) };
        if !alike {
            return state;
        }
        let slots = if state.memory.is_empty() { state.slots() } else { None };
        let origins: Vec<_> =
            state.rows.iter().flatten().filter_map(|row| row.origins.as_ref()).collect();
        let origins = (!origins.is_empty()).then(|| Origins::cat(&origins, count));
        Self { slots: slots.into_iter().collect(), origins, rows: None, ..state }
    }

    /// What each row has.
    pub(super) fn row_states(&self) -> Vec<RowState> {
        if let Some(rows) = &self.rows {
            return rows.clone();
        }
        let row = |row| RowState {
            step: self.step,
            slots: 0..self.num_slots(),
            origins: self.origins.as_ref().map(|origins| origins.row(row)),
        };
        (0..self.batch()).map(row).collect()
    }

    /// The slots of rows that differ, each row's as the last of `[B, M, H]`, with zeros before them.
    pub(super) fn aligned_slots(slots: Tensor<3>, rows: &[RowState]) -> Option<Tensor<3>> {
        let [batch, _, width] = slots.dims();
        let most = rows.iter().map(|row| row.slots.len()).max().filter(|most| *most > 0)?;
        let places = rows.iter().flat_map(|row| {
            let (first, missing) = (row.slots.start, most - row.slots.len());
            (0..most).map(move |at| (first + at.saturating_sub(missing)) as i64)
        });
        // A row without slots may end behind the last one.
        let last = slots.dims()[1] as i64 - 1;
        let places: Vec<i64> = places.map(|place| place.min(last)).collect();
        let unused = rows.iter().flat_map(|row| {
            let missing = most - row.slots.len();
            (0..most).map(move |at| at < missing)
        });
        let unused: Vec<bool> = unused.collect();
        let (device, shape) = (slots.device(), [batch, most, width]);
        let places = Tensor::<2, Int>::from_data(TensorData::new(places, [batch, most]), &device);
        let unused = Tensor::<2, Bool>::from_data(TensorData::new(unused, [batch, most]), &device);
        let wide = places.unsqueeze_dim::<3>(2).expand(shape);
        Some(slots.gather(1, wide).mask_fill(unused.unsqueeze_dim::<3>(2).expand(shape), 0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_between_resets_and_before_the_end() {
        let segments = Segments::new(3, 9)
            .with_lengths(&[9, 5, 0])
            .unwrap()
            .with_resets(&[vec![0, 4], vec![2, 7], vec![0]])
            .unwrap();
        assert_eq!(segments.parts(0), [(0..4, true), (4..9, true)]);
        assert_eq!(segments.parts(1), [(0..2, false), (2..5, true)]);
        assert_eq!(segments.parts(2), []);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let segments = || Segments::new(2, 4);
        let message = |outcome: Result<Segments, InputError>| outcome.unwrap_err().to_string();
        let told = message(segments().with_lengths(&[4]));
        assert_eq!(told, "row 1: there are 1 lengths, expected 2, one for each row");
        let told = message(segments().with_lengths(&[4, 5]));
        assert_eq!(told, "row 1: length 5, expected at most 4, the steps of x");
        let told = message(segments().with_resets(&[vec![1, 1], vec![]]));
        assert!(told.starts_with("row 0: resets at [1, 1]: they have to rise"), "{told}");
        assert!(message(segments().with_resets(&[vec![], vec![4]])).starts_with("row 1: resets"));
    }
}
