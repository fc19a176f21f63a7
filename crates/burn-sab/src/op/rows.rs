//! Rows of different extent in one call: where each begins, ends, and starts anew.
//!
//! Every row equals the row run alone. A kernel that covers rows of its own plans each by a [`RowTable`].

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::options::SabOptions;
use super::settings::InitialSlot;

/// The extent of one row of a call.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Row {
    /// Steps that the row's sequence had before this call.
    pub first_step: usize,
    /// Slots of the row before this call: the last so many of those that the call carries.
    pub carried: usize,
    /// Steps of this call that belong to the row; those behind them are padding. Padding has no effect, its
    /// outputs are zero, and the state stays.
    pub length: usize,
    /// Steps at which the row starts anew, 0-based within the call, rising: state zero, step 0, earlier slots out
    /// of sight, no gradient across. Those at padding have no effect.
    pub resets: Vec<usize>,
}

/// What a row does at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RowStep {
    /// The visible slots before the step, numbered as the call numbers those of the row.
    first: usize,
    end: usize,
    stores: bool,
    cuts: bool,
    resets: bool,
}

/// What a row does at each of its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowTable {
    steps: Vec<RowStep>,
    /// The carried slots that are the row's.
    carried: Range<usize>,
    /// The visible slots after the last step.
    visible_at_end: Range<usize>,
    /// Steps of the row's sequence after the call.
    step_at_end: usize,
}

#[allow(dead_code)] // in a build without a kernel that runs rows
impl RowTable {
    /// Plans a row of a call that carries `carried` slots.
    pub fn new(row: &Row, options: &SabOptions, carried: usize) -> Self {
        let of_row = carried - row.carried..carried;
        let (mut first, mut end, mut step) = (of_row.start, of_row.end, row.first_step);
        let mut resets = row.resets.iter().peekable();
        let mut steps = Vec::with_capacity(row.length);
        for t in 0..row.length {
            let resets = resets.next_if_eq(&&t).is_some();
            if resets {
                (first, step) = (end, 0);
                // The initial hidden state is a slot, and it is zero.
                end += usize::from(options.settings.initial_slot == InitialSlot::Hidden);
            }
            let stores = options.stores_at(step);
            let cuts = resets || options.window_starts_at(step);
            steps.push(RowStep { first, end, stores, cuts, resets });
            end += usize::from(stores);
            step += 1;
        }
        Self { steps, carried: of_row, visible_at_end: first..end, step_at_end: step }
    }

    /// The row's steps.
    pub fn length(&self) -> usize {
        self.steps.len()
    }

    /// The carried slots that are the row's.
    pub fn carried(&self) -> Range<usize> {
        self.carried.clone()
    }

    /// The slots that step `t` can attend to.
    pub fn visible(&self, t: usize) -> Range<usize> {
        self.steps.get(t).map_or(0..0, |step| step.first..step.end)
    }

    /// The slot that step `t` stores.
    pub fn stores(&self, t: usize) -> Option<usize> {
        let step = self.steps.get(t)?;
        step.stores.then_some(step.end)
    }

    /// Whether gradient stops between step `t` and the step before it.
    pub fn cuts(&self, t: usize) -> bool {
        self.steps.get(t).is_some_and(|step| step.cuts)
    }

    /// Whether the row starts anew at step `t`.
    pub fn resets(&self, t: usize) -> bool {
        self.steps.get(t).is_some_and(|step| step.resets)
    }

    /// The visible slots after the last step.
    pub fn visible_at_end(&self) -> Range<usize> {
        self.visible_at_end.clone()
    }

    /// Steps of the row's sequence after the call.
    pub fn step_at_end(&self) -> usize {
        self.step_at_end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::settings::SabSettings;

    fn table(row: &Row, initial_slot: InitialSlot, carried: usize) -> RowTable {
        let settings = SabSettings {
            k_att: 2,
            k_trunc: 3,
            truncation_offset: Some(0),
            initial_slot,
            ..Default::default()
        };
        RowTable::new(row, &SabOptions { settings, ..Default::default() }, carried)
    }

    #[test]
    fn a_row_counts_from_its_reset() {
        let row = Row { first_step: 3, carried: 1, length: 7, resets: vec![2, 9] };
        let table = table(&row, InitialSlot::None, 4);
        assert_eq!((table.length(), table.carried()), (7, 3..4));
        let visible = [3..4, 3..5, 5..5, 5..5, 5..6, 5..6, 5..7, 0..0];
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(|t| table.visible(t)), visible);
        let stores = [Some(4), None, None, Some(5), None, Some(6), None, None];
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(|t| table.stores(t)), stores);
        let cuts = [true, false, true, false, false, true, false, false];
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(|t| table.cuts(t)), cuts);
        assert_eq!((table.visible_at_end(), table.step_at_end()), (5..7, 5));
    }

    #[test]
    fn a_reset_brings_the_initial_slot() {
        let row = Row { first_step: 0, carried: 0, length: 4, resets: vec![0, 3] };
        let table = table(&row, InitialSlot::Hidden, 0);
        assert_eq!([0, 1, 2, 3].map(|t| table.visible(t)), [0..1, 0..1, 0..2, 2..3]);
        assert_eq!((table.visible_at_end(), table.step_at_end()), (2..3, 1));
        let empty = Row { first_step: 5, carried: 2, length: 0, resets: vec![0] };
        let table = self::table(&empty, InitialSlot::Hidden, 3);
        assert_eq!((table.visible_at_end(), table.step_at_end()), (1..3, 5));
    }
}
