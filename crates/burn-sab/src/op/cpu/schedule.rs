//! The schedule of one call: the steps that store slots, and the segments that the backward pass
//! recomputes.

use std::ops::Range;

use crate::op::options::SabOptions;
use crate::op::rows::RowTable;

/// Steps that are recomputed together; see [`Recompute`](crate::op::settings::Recompute). The matrix
/// product that recomputes them then runs at full speed (from 16 rows on). The saved
/// cell states, H / 32 elements per step, are negligible beside the hidden states.
const SEGMENT: usize = 32;

/// The schedule of a call.
#[derive(Debug, Clone)]
pub struct Schedule {
    options: SabOptions,
    time: usize,
    carried: usize,
    stored: usize,
    /// What each row does, where they differ.
    rows: Option<Vec<RowTable>>,
}

impl Schedule {
    /// Creates the schedule of a call of `time` steps with `carried` slots from earlier calls.
    pub fn new(options: &SabOptions, time: usize, carried: usize) -> Self {
        let table = |row| RowTable::new(row, options, carried);
        Self {
            options: options.clone(),
            time,
            carried,
            stored: options.most_stored(time),
            rows: options.rows.as_ref().map(|rows| rows.iter().map(table).collect()),
        }
    }

    /// Whether rows differ in what they do at a step.
    pub fn is_ragged(&self) -> bool {
        self.rows.is_some()
    }

    #[inline(always)]
    fn table(&self, row: usize) -> Option<&RowTable> {
        Some(&self.rows.as_ref()?[row])
    }

    /// Number of steps of a row. The steps behind them are padding.
    #[inline(always)]
    pub fn length(&self, row: usize) -> usize {
        self.table(row).map_or(self.time, RowTable::length)
    }

    /// The carried slots that are a row's.
    #[inline(always)]
    pub fn carried(&self, row: usize) -> Range<usize> {
        self.table(row).map_or(0..self.carried, RowTable::carried)
    }

    /// The slots that step `t` of a row can attend to.
    #[inline(always)]
    pub fn visible(&self, row: usize, t: usize) -> Range<usize> {
        self.table(row).map_or_else(|| 0..self.slots_before(t), |table| table.visible(t))
    }

    /// The slot that step `t` of a row stores, counted over those that this call stores.
    #[inline(always)]
    pub fn stores(&self, row: usize, t: usize) -> Option<usize> {
        let slot = match self.table(row) {
            Some(table) => table.stores(t),
            None => self.options.stores_slot(t).then(|| self.slots_before(t)),
        };
        slot.map(|slot| slot - self.carried)
    }

    /// Whether gradient stops between step `t` of a row and the step before it.
    #[inline(always)]
    pub fn cuts(&self, row: usize, t: usize) -> bool {
        self.table(row).map_or_else(|| self.options.starts_window(t), |table| table.cuts(t))
    }

    /// Whether a row starts anew at step `t`.
    #[inline(always)]
    pub fn resets(&self, row: usize, t: usize) -> bool {
        self.table(row).is_some_and(|table| table.resets(t))
    }

    /// Number of slots that the call stores, at most in a row.
    pub fn stored_slots(&self) -> usize {
        self.stored
    }

    /// Number of slots at the end of the call, at most in a row.
    pub fn total_slots(&self) -> usize {
        self.carried + self.stored
    }

    /// Number of slots that step `t` can attend to, if rows are alike.
    pub fn slots_before(&self, t: usize) -> usize {
        self.carried + self.options.slots_stored(t)
    }

    /// The step that stored the `index`-th slot of this call, if rows are alike.
    pub fn step_of(&self, index: usize) -> usize {
        let k_att = self.options.settings.k_att;
        (k_att - 1 - self.options.first_step % k_att) + index * k_att
    }

    /// Returns the first steps of the segments, in ascending order from 0. A segment consists of whole
    /// truncation windows, or of a part of a long one. It has at most [`SEGMENT`] steps and, except for
    /// the first and last segment, more than half as many.
    pub fn segments(&self) -> Vec<usize> {
        let mut starts = vec![0];
        let mut last = 0;
        for t in 1..self.time {
            let len = t - last;
            let next_does_not_fit = len.saturating_add(self.options.settings.k_trunc) > SEGMENT;
            if len >= SEGMENT || (self.options.starts_window(t) && next_does_not_fit) {
                starts.push(t);
                last = t;
            }
        }
        starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::settings::SabSettings;

    fn schedule(k_att: usize, k_trunc: usize, first_step: usize, time: usize) -> Schedule {
        let settings =
            SabSettings { k_att, k_trunc, truncation_offset: Some(0), ..Default::default() };
        let options = SabOptions { settings, first_step, ..Default::default() };
        Schedule::new(&options, time, 3)
    }

    #[test]
    fn step_of_inverts_slots_before() {
        for k_att in 1..6 {
            for first_step in 0..9 {
                let schedule = schedule(k_att, 4, first_step, 20);
                let mut stored = 0;
                for t in 0..20 {
                    assert_eq!(schedule.slots_before(t), 3 + stored);
                    if schedule.options.stores_slot(t) {
                        assert_eq!(schedule.step_of(stored), t);
                        stored += 1;
                    }
                }
                assert_eq!(schedule.stored_slots(), stored);
            }
        }
    }

    #[test]
    fn segments_are_whole_windows_where_these_are_short() {
        assert_eq!(schedule(1, 10, 0, 70).segments(), [0, 30, 60]);
        assert_eq!(schedule(1, 20, 0, 70).segments(), [0, 20, 40, 60]);
        assert_eq!(schedule(1, 20, 5, 70).segments(), [0, 15, 35, 55]);
        assert_eq!(schedule(1, usize::MAX, 0, 70).segments(), [0, 32, 64]);
        assert_eq!(schedule(1, 100, 0, 110).segments(), [0, 32, 64, 96, 100]);
        assert_eq!(schedule(1, 1, 0, 1).segments(), [0]);
    }
}
