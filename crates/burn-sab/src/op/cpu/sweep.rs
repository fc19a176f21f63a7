//! The reverse sweep over the steps of one tile: it computes all gradients of the tile's rows.
//!
//! The sweep carries the gradients of h and c for every row and lane. A lane counts the reminders used
//! so far (see `max_hops` in [`SabSettings`](crate::op::SabSettings)). A lane that no gradient has
//! entered, or whose gradient has vanished, is not live and costs nothing. At each step, gradient comes
//! from the loss, from the next step, and from the slot that the step stored. It passes to the retrieved
//! slots and, unless a truncation window starts at this step, to the previous step.

use super::call::augmented;
use super::cell;
use super::float::Float;
use super::matrix::{Matrix, MatrixMut, Target, multiply};
use super::pairs::RowPairs;
use super::replay::Replay;
use super::score_backward::{self, ScoreSweep};
use super::slot_gradients::SlotGradients;
use super::sparsify::{self, Rule};
use super::tile::{Parameters, Shared, Tile};
use super::vector::{add, add_product, add_scaled, dot, is_zero, scratch};
use crate::op::tensors::Dims;

/// Carried slots whose key gradients are passed on together. This is more than the 16 rows at which the
/// product reaches full speed, and still a small block.
const KEY_ROWS: usize = 64;

/// The sweep over one tile. A path is a pair of row and lane, with the index `row * lanes + lane`.
pub(super) struct Sweep<'a, T: Float> {
    shared: &'a Shared<'a, T>,
    tile: Tile<'a, T>,
    parameters: &'a mut Parameters<T>,
    replay: Replay<'a, T>,
    /// Gradients of h_t and c_t, `[paths, H]`; undefined for paths that are not live.
    grad_h: Vec<T>,
    grad_c: Vec<T>,
    live: Vec<bool>,
    /// Live paths of the current step.
    paths: Vec<usize>,
    /// The path that receives each gradient of the current step's slot; `None` beyond the limit on hops.
    receivers: Vec<Option<usize>>,
    /// Gradients of a slot and of its key, `[H + key width]`, by the lane that retrieved the slot.
    stored: SlotGradients<T>,
    /// Gradients of the carried slots' keys, `[rows, M0, key width]`.
    carried_keys: Vec<T>,
    scores: ScoreSweep<'a, T>,
    /// Pairs ([1 | x_t | h_{t-1}], gradient of the pre-activations).
    cells: RowPairs<T>,
    /// The tile's row and the step of each pair in `cells`.
    origins: Vec<(usize, usize)>,
    /// One row per path, `[paths, H]` each.
    tanh_cell: Vec<T>,
    slope: Vec<T>,
    provisional: Vec<T>,
    grad_provisional: Vec<T>,
    block: Vec<T>,
    /// A summary and its gradient, `[H]` each.
    summary: Vec<T>,
    grad_s: Vec<T>,
    /// One element per rank.
    grad_weights: Vec<T>,
    grad_scores: Vec<T>,
    /// Gradients of the inputs, `[pairs, I]`.
    grad_x: Vec<T>,
}

/// Makes a path live, with zero gradients, unless it is already live.
#[inline(always)]
fn wake<T: Float>(path: usize, live: &mut [bool], grad_h: &mut [T], grad_c: &mut [T]) {
    if !std::mem::replace(&mut live[path], true) {
        let hidden = grad_h.len() / live.len();
        grad_h[path * hidden..(path + 1) * hidden].fill(T::ZERO);
        grad_c[path * hidden..(path + 1) * hidden].fill(T::ZERO);
    }
}

impl<'a, T: Float> Sweep<'a, T> {
    /// Creates the sweep, positioned after the last step of the sequence.
    pub(super) fn new(
        shared: &'a Shared<'a, T>,
        tile: Tile<'a, T>,
        parameters: &'a mut Parameters<T>,
    ) -> Self {
        let call = shared.call;
        let Dims { hidden, carried, .. } = call.dims;
        let rows = tile.rows;
        let paths = rows * shared.lanes;
        let (slots, carried) =
            if call.attends() { (call.schedule.stored_slots(), carried) } else { (0, 0) };
        Self {
            shared,
            parameters,
            replay: Replay::new(call, shared.saved, shared.past, tile.first, rows),
            grad_h: scratch(paths * hidden),
            grad_c: scratch(paths * hidden),
            live: vec![false; paths],
            paths: Vec::with_capacity(paths),
            receivers: Vec::with_capacity(paths),
            stored: SlotGradients::new(shared.lanes, rows, slots, hidden + call.key_width()),
            carried_keys: vec![T::ZERO; rows * carried * call.key_width()],
            scores: ScoreSweep::new(call, &shared.score, paths.max(KEY_ROWS)),
            cells: RowPairs::new(augmented(&call.dims), 4 * hidden, paths),
            origins: Vec::new(),
            tanh_cell: scratch(paths * hidden),
            slope: scratch(paths * hidden),
            provisional: scratch(paths * hidden),
            grad_provisional: scratch(paths * hidden),
            block: scratch(paths.max(KEY_ROWS) * hidden),
            summary: scratch(hidden),
            grad_s: scratch(hidden),
            grad_weights: scratch(call.width),
            grad_scores: scratch(call.width),
            grad_x: Vec::new(),
            tile,
        }
    }

    /// Returns one row's part, at `place`, of an upstream gradient (`[B, places, H]`), or `None` if that
    /// part is zero.
    #[inline(always)]
    fn upstream(
        &self,
        up: Option<&'a [T]>,
        row: usize,
        places: usize,
        place: usize,
    ) -> Option<&'a [T]> {
        let hidden = self.shared.call.dims.hidden;
        let part = &up?[((self.tile.first + row) * places + place) * hidden..][..hidden];
        (!is_zero(part)).then_some(part)
    }

    /// Returns the last step before `t` that the sweep must process.
    pub(super) fn before(&self, t: usize) -> Option<usize> {
        let Shared { call, up, .. } = self.shared;
        if t == call.dims.time || self.live.contains(&true) || call.schedule.is_ragged() {
            return t.checked_sub(1);
        }
        let given = if up.hidden.is_some() || up.summary.is_some() {
            call.options.readout.before(t)
        } else {
            None
        };
        let slots = call.schedule.slots_before(t) - call.dims.carried;
        let slot = match up.stored {
            Some(_) => slots.checked_sub(1),
            None if call.attends() => self.stored.last_before(slots),
            None => None,
        };
        given.max(slot.map(|slot| call.schedule.step_of(slot)))
    }

    /// Processes step `t`: adds the upstream gradients of the step and passes the sum on. Steps must
    /// come in reverse order.
    #[inline(always)]
    pub(super) fn step(&mut self, t: usize) {
        let shared = self.shared;
        let call = shared.call;
        let Dims { time, hidden, .. } = call.dims;
        let (given, place) = (call.options.readout.len(time), call.options.readout.place(t));
        for row in 0..self.tile.rows {
            let length = call.schedule.length(self.tile.first + row);
            if t >= length {
                continue;
            }
            let path = row * shared.lanes;
            let at = path * hidden..(path + 1) * hidden;
            let last = if t == length - 1 {
                [self.upstream(shared.up.last, row, 1, 0), self.upstream(shared.up.cell, row, 1, 0)]
            } else {
                [None, None]
            };
            let [given_h, given_s] = [shared.up.hidden, shared.up.summary]
                .map(|up| place.and_then(|place| self.upstream(up, row, given, place)));
            if [given_h, given_s, last[0], last[1]].iter().all(Option::is_none) {
                continue;
            }
            wake(path, &mut self.live, &mut self.grad_h, &mut self.grad_c);
            for up in [given_h, last[0]].into_iter().flatten() {
                add(&mut self.grad_h[at.clone()], up);
            }
            if let Some(up) = last[1] {
                add(&mut self.grad_c[at], up);
            }
        }
        self.enter_slots(t);
        if call.attends() {
            self.leave_slots(t);
        }
        self.paths.clear();
        self.paths.extend((0..self.live.len()).filter(|&path| self.live[path]));
        if !self.paths.is_empty() {
            self.retrieval(t);
            self.cell(t);
            self.end_vanished();
            self.settle(false);
        }
    }

    /// Adds the upstream gradients of the slots that step `t` stored.
    #[inline(always)]
    fn enter_slots(&mut self, t: usize) {
        let (shared, hidden) = (self.shared, self.shared.call.dims.hidden);
        for row in 0..self.tile.rows {
            let Some(slot) = shared.call.schedule.stores(self.tile.first + row, t) else {
                continue;
            };
            let slots = shared.call.schedule.stored_slots();
            if let Some(up) = self.upstream(shared.up.stored, row, slots, slot) {
                let path = row * shared.lanes;
                wake(path, &mut self.live, &mut self.grad_h, &mut self.grad_c);
                add(&mut self.grad_h[path * hidden..(path + 1) * hidden], up);
            }
        }
    }

    /// Passes the gradients of the slots that step `t` stored to the hidden states that they hold.
    #[inline(always)]
    fn leave_slots(&mut self, t: usize) {
        let (shared, hidden) = (self.shared, self.shared.call.dims.hidden);
        self.receivers.clear();
        for row in 0..self.tile.rows {
            let carried = shared.call.dims.carried;
            let Some(slot) = shared.call.schedule.stores(self.tile.first + row, t) else {
                continue;
            };
            let value =
                shared.call.slot(self.tile.first + row, self.replay.past(row), carried + slot);
            for lane in 0..shared.lanes {
                let Some(gradient) = self.stored.take(lane, row, slot) else {
                    continue;
                };
                let (grad_slot, grad_key) = gradient.split_at(hidden);
                self.scores.key(value, grad_key);
                match shared.hops {
                    Some(hops) if lane == hops => self.receivers.push(None),
                    hops => {
                        let path = row * shared.lanes + lane + usize::from(hops.is_some());
                        wake(path, &mut self.live, &mut self.grad_h, &mut self.grad_c);
                        add(&mut self.grad_h[path * hidden..(path + 1) * hidden], grad_slot);
                        self.receivers.push(Some(path));
                    }
                }
            }
        }
        let n = self.receivers.len();
        if n > 0 {
            if !shared.call.options.settings.detach_scores {
                self.scores.keys_to_slots(n, &mut self.block[..n * hidden]);
                for (path, grad_slot) in self.receivers.iter().zip(self.block.chunks(hidden)) {
                    if let Some(path) = *path {
                        add(&mut self.grad_h[path * hidden..(path + 1) * hidden], grad_slot);
                    }
                }
            }
            self.scores.settle(false, &mut self.parameters.score);
        }
    }

    /// Computes the gradients of the retrieved slots and of the provisional hidden state
    /// (`grad_provisional`) from those of h_t and s_t.
    #[inline(always)]
    fn retrieval(&mut self, t: usize) {
        let (shared, call) = (self.shared, self.shared.call);
        let settings = &call.options.settings;
        let Dims { time, hidden, carried, .. } = call.dims;
        let (key_width, total) = (call.key_width(), call.schedule.total_slots());
        let paths = std::mem::take(&mut self.paths);
        let given = call.options.readout.len(time);
        let place = call.options.readout.place(t);
        self.replay.prepare(t, paths.iter().map(|path| path / shared.lanes));
        let visible = |row: usize| call.schedule.visible(self.tile.first + row, t).len();
        let attends = paths.iter().any(|path| visible(path / shared.lanes) > 0);
        for (k, &path) in paths.iter().enumerate() {
            let (row, lane) = (path / shared.lanes, path % shared.lanes);
            let (at, here) = (path * hidden..(path + 1) * hidden, k * hidden..(k + 1) * hidden);
            let past = self.replay.past(row);
            let record = self.replay.record(t, row);
            let provisional = &mut self.provisional[here.clone()];
            cell::provisional(
                record,
                &mut self.tanh_cell[here.clone()],
                &mut self.slope[here.clone()],
                provisional,
            );
            let grad_provisional = &mut self.grad_provisional[here];
            grad_provisional.copy_from_slice(&self.grad_h[at.clone()]);
            let slots = visible(row);
            if slots == 0 {
                if attends {
                    // Every path has a query, or none.
                    self.scores.query(provisional);
                }
                continue;
            }

            let ranks = call.options.ranks(slots);
            let rule = Rule::new(settings.sparsifier, settings.k_top, slots);
            let batch_row = self.tile.first + row;
            let step = batch_row * time + t;
            let selected = &shared.saved.ranks[step * call.width..][..ranks];
            let weights = &shared.saved.weights[step * call.width..][..ranks];
            self.grad_s.fill(T::ZERO);
            add_product(&mut self.grad_s, &call.summary_gain, &self.grad_h[at.clone()]);
            if shared.wanted.summary_gain {
                self.replay.summary(t, row, &mut self.summary);
                add_product(&mut self.parameters.summary_gain, &self.summary, &self.grad_h[at]);
            }
            if lane == 0
                && let (Some(up), Some(place)) = (shared.up.summary, place)
            {
                add(&mut self.grad_s, &up[(batch_row * given + place) * hidden..][..hidden]);
            }
            let grad_s = &self.grad_s;
            let grad_weights = &mut self.grad_weights[..ranks];
            for ((grad, &slot), &weight) in grad_weights.iter_mut().zip(selected).zip(weights) {
                *grad = T::ZERO;
                if weight != T::ZERO || rule == Rule::Raw {
                    *grad = dot(grad_s, call.slot(batch_row, past, slot as usize));
                }
            }
            let grad_scores = &mut self.grad_scores[..ranks];
            sparsify::backward(rule, weights, shared.saved.sums[step], grad_weights, grad_scores);

            let query = &record[call.query_at()..];
            let grad_query = self.scores.query(provisional);
            let mut grad_shift = T::ZERO;
            for ((&slot, &weight), &grad_score) in
                selected.iter().zip(weights).zip(grad_scores.iter())
            {
                if weight == T::ZERO && grad_score == T::ZERO {
                    continue;
                }
                let slot = slot as usize;
                let key = &shared.saved.keys[(batch_row * total + slot) * key_width..][..key_width];
                let (grad_slot, grad_key) = match slot.checked_sub(carried) {
                    // Carried slots are inputs of the call: they receive gradient from every lane.
                    None => {
                        let at = row * carried + slot;
                        let grad_slot = if shared.wanted.slots {
                            &mut self.tile.slots[at * hidden..(at + 1) * hidden]
                        } else {
                            &mut []
                        };
                        (grad_slot, &mut self.carried_keys[at * key_width..(at + 1) * key_width])
                    }
                    Some(stored) => self.stored.entry(lane, row, stored).split_at_mut(hidden),
                };
                add_scaled(grad_slot, weight, grad_s);
                grad_shift += grad_score;
                let parameters = &mut self.parameters.score;
                score_backward::score(
                    &call.inputs.score,
                    grad_score,
                    (query, &mut *grad_query),
                    (key, grad_key),
                    parameters,
                );
            }
            if rule.depends_on_shift() {
                let parameters = &mut self.parameters.score;
                score_backward::additive_query(
                    &call.inputs.score,
                    grad_shift,
                    provisional,
                    if settings.detach_scores { &mut [] } else { grad_provisional },
                    parameters,
                );
            }
        }
        if attends && !settings.detach_scores {
            let n = paths.len();
            self.scores.queries_to_provisional(n, &mut self.grad_provisional[..n * hidden]);
        }
        self.paths = paths;
    }

    /// Computes the gradients of the pre-activations and of the previous step's state from those of the
    /// provisional hidden state and of c_t.
    #[inline(always)]
    fn cell(&mut self, t: usize) {
        let (shared, call) = (self.shared, self.shared.call);
        let hidden = call.dims.hidden;
        let n = self.paths.len();
        let first = self.cells.len();
        for (k, &path) in self.paths.iter().enumerate() {
            let (row, here) = (path / shared.lanes, k * hidden..(k + 1) * hidden);
            self.replay.announce_previous(t, row);
            let (input, grad) = self.cells.push();
            self.replay.augment(t, row, input);
            cell::backward(
                self.replay.record(t, row),
                &self.tanh_cell[here.clone()],
                &self.slope[here.clone()],
                self.replay.previous_cell(t, row),
                &self.grad_provisional[here],
                &mut self.grad_c[path * hidden..(path + 1) * hidden],
                grad,
            );
            self.origins.push((row, t));
        }
        let cuts = |path: usize| call.schedule.cuts(self.tile.first + path / shared.lanes, t);
        let cut = self.paths.iter().filter(|path| cuts(**path)).count();
        if cut == n {
            self.live.fill(false);
            return;
        }
        if t == 0 && !(shared.wanted.h0 || shared.wanted.c0) {
            return;
        }
        // If all paths are live, the product is the next `grad_h`, in place.
        let in_place = t > 0 && n == self.live.len() && cut == 0;
        multiply(
            MatrixMut::new(if in_place { &mut self.grad_h } else { &mut self.block }, n, hidden),
            Matrix::new(self.cells.right_from(first), n, 4 * hidden),
            Matrix::new(&shared.w_hh, 4 * hidden, hidden),
            T::ONE,
            Target::Replace,
        );
        if in_place {
            return;
        }
        for (&path, grad_h) in self.paths.iter().zip(self.block.chunks(hidden)) {
            let at = path * hidden..(path + 1) * hidden;
            if cuts(path) {
                self.live[path] = false;
            } else if t > 0 {
                self.grad_h[at].copy_from_slice(grad_h);
            } else {
                let row = path / shared.lanes;
                let row = row * hidden..(row + 1) * hidden;
                if shared.wanted.h0 {
                    add(&mut self.tile.h0[row.clone()], grad_h);
                }
                if shared.wanted.c0 {
                    add(&mut self.tile.c0[row], &self.grad_c[at]);
                }
            }
        }
    }

    /// Ends the paths whose gradients are zero.
    #[inline(always)]
    fn end_vanished(&mut self) {
        let hidden = self.shared.call.dims.hidden;
        for &path in &self.paths {
            let at = path * hidden..(path + 1) * hidden;
            self.live[path] &= !(is_zero(&self.grad_h[at.clone()]) && is_zero(&self.grad_c[at]));
        }
    }

    /// Converts the collected pairs into gradients, if there are enough pairs or if `all` is set.
    #[inline(always)]
    fn settle(&mut self, all: bool) {
        let Dims { time, input, hidden, .. } = self.shared.call.dims;
        self.scores.settle(all, &mut self.parameters.score);
        let n = self.cells.len();
        if n == 0 || !(all || self.cells.is_full()) {
            return;
        }
        let columns = self.shared.wanted.columns.clone();
        if !columns.is_empty() {
            self.cells.add_columns_to(columns, &mut self.parameters.stacked, T::ONE);
        }
        if self.shared.wanted.x {
            self.grad_x.resize((n * input).max(self.grad_x.len()), T::ZERO);
            multiply(
                MatrixMut::new(&mut self.grad_x, n, input),
                Matrix::new(self.cells.right_from(0), n, 4 * hidden),
                Matrix::new(&self.shared.w_ih, 4 * hidden, input),
                T::ONE,
                Target::Replace,
            );
            for (&(row, t), grad) in self.origins.iter().zip(self.grad_x.chunks(input)) {
                add(&mut self.tile.x[(row * time + t) * input..][..input], grad);
            }
        }
        self.origins.clear();
        self.cells.clear();
    }

    /// Completes the gradients after the first step: the remaining pairs, and the keys of the carried
    /// slots.
    #[inline(always)]
    pub(super) fn finish(&mut self) {
        let call = self.shared.call;
        let Dims { hidden, carried, .. } = call.dims;
        let width = call.key_width();
        self.settle(true);
        for row in
            (0..self.tile.rows).filter(|row| call.schedule.length(self.tile.first + row) == 0)
        {
            // The last state of a row without steps is its first one.
            let at = row * hidden..(row + 1) * hidden;
            if let (true, Some(up)) = (self.shared.wanted.h0, self.shared.up.last) {
                add(&mut self.tile.h0[at.clone()], &up[self.tile.first * hidden..][at.clone()]);
            }
            if let (true, Some(up)) = (self.shared.wanted.c0, self.shared.up.cell) {
                add(&mut self.tile.c0[at.clone()], &up[self.tile.first * hidden..][at]);
            }
        }
        // Indices, `row * M0 + slot`, of the carried slots whose keys have gradient.
        let touched: Vec<usize> = (self.carried_keys.chunks(width).enumerate())
            .filter(|(_, grad)| !is_zero(grad))
            .map(|(at, _)| at)
            .collect();
        for some in touched.chunks(KEY_ROWS) {
            for &at in some {
                let slot = call.carried(self.tile.first + at / carried, at % carried, 1);
                self.scores.key(slot, &self.carried_keys[at * width..(at + 1) * width]);
            }
            if self.shared.wanted.slots && !call.options.settings.detach_scores {
                self.scores.keys_to_slots(some.len(), &mut self.block[..some.len() * hidden]);
                for (&at, grad_slot) in some.iter().zip(self.block.chunks(hidden)) {
                    add(&mut self.tile.slots[at * hidden..(at + 1) * hidden], grad_slot);
                }
            }
            self.scores.settle(true, &mut self.parameters.score);
        }
    }
}
