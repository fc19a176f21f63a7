use std::sync::Arc;

use super::rows::{Row, RowTable};
use super::settings::{SabSettings, Sparsifier};
use super::tensors::SabInputs;

/// The steps whose outputs a call gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Readout {
    /// Every step.
    #[default]
    All,
    /// Only these steps, 0-based within the call, rising, at least one. On the CPU kernel no array over all
    /// hidden states then exists, in either pass; other implementations compute them all and select.
    At(Arc<[usize]>),
}

impl Readout {
    /// N, the number of steps that are given, out of `time`.
    pub fn len(&self, time: usize) -> usize {
        match self {
            Self::All => time,
            Self::At(steps) => steps.len(),
        }
    }

    /// The place of step `t` among those that are given.
    pub fn place(&self, t: usize) -> Option<usize> {
        match self {
            Self::All => Some(t),
            Self::At(steps) => steps.binary_search(&t).ok(),
        }
    }

    /// The last step before `t` that is given.
    pub fn before(&self, t: usize) -> Option<usize> {
        match self {
            Self::All => t.checked_sub(1),
            Self::At(steps) => steps[..steps.partition_point(|step| *step < t)].last().copied(),
        }
    }
}

/// What the op computes, apart from its tensors.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SabOptions {
    /// The settings of the memory. The op itself takes no notice of `slot_budget` and `initial_slot`, which
    /// the layer carries out between calls, nor of `learned_gain`: it has learned factors if its inputs do.
    pub settings: SabSettings,
    /// Steps processed before this call; storing and truncation count on from here.
    pub first_step: usize,
    /// The steps whose outputs are given.
    pub readout: Readout,
    /// Whether summaries, retrieved slots and weights are outputs too.
    pub reminders: bool,
    /// The extent of each row, where they differ; `first_step` then has no meaning. Only kernels whose
    /// [coverage](super::sab_coverage) says so run such a call.
    pub rows: Option<Arc<[Row]>>,
}

/// Keeps the normalising sum of the threshold sparsifiers away from zero (the authors' release).
pub(crate) const EPSILON: f64 = 1e-7;

impl SabOptions {
    /// Whether gradient stops between step `t` of this call (0-based) and the step before it.
    pub fn starts_window(&self, t: usize) -> bool {
        self.window_starts_at(self.first_step + t)
    }

    /// Whether gradient stops before step `step` of a sequence.
    pub(crate) fn window_starts_at(&self, step: usize) -> bool {
        let (k_trunc, truncation_offset) =
            (self.settings.k_trunc, self.settings.truncation_offset());
        // Modulo first: an offset may be any number.
        (step > 0 || truncation_offset > 0)
            && (step % k_trunc + truncation_offset % k_trunc).is_multiple_of(k_trunc)
    }

    /// Whether the hidden state of step `t` of this call (0-based) becomes a slot.
    pub fn stores_slot(&self, t: usize) -> bool {
        self.stores_at(self.first_step + t)
    }

    /// Whether the hidden state of step `step` of a sequence becomes a slot.
    pub(crate) fn stores_at(&self, step: usize) -> bool {
        (step + 1).is_multiple_of(self.settings.k_att)
    }

    /// Slots that this call adds over `time` steps, if its rows are alike.
    pub fn slots_stored(&self, time: usize) -> usize {
        (self.first_step + time) / self.settings.k_att - self.first_step / self.settings.k_att
    }

    /// Most slots that this call, of `time` steps, adds to a row.
    pub(crate) fn most_stored(&self, time: usize) -> usize {
        let Some(rows) = &self.rows else { return self.slots_stored(time) };
        let stored =
            |row: &Row| RowTable::new(row, self, row.carried).visible_at_end().end - row.carried;
        rows.iter().map(stored).max().unwrap_or(0)
    }

    /// How many of `slots` best scores decide the weights: those with weight and the one that supplies the
    /// threshold.
    pub fn ranks(&self, slots: usize) -> usize {
        let most = match self.settings.sparsifier {
            Sparsifier::Threshold => self.settings.k_top.saturating_add(1),
            Sparsifier::Released | Sparsifier::Softmax => self.settings.k_top,
        };
        most.min(slots)
    }

    /// Parallel gradients ("lanes") of the backward pass: one per number of reminders used so far.
    pub fn lanes(&self) -> usize {
        self.settings.max_hops.map_or(1, |hops| hops + 1)
    }

    /// The same options as these inputs bind them. There is a limit on hops only where a path can meet it: a path
    /// uses at most one reminder per step, so that a higher limit is none, and would cost lanes. Factors on the
    /// summary are learned if there are any.
    pub(crate) fn bound_by(&self, inputs: &SabInputs) -> Self {
        let [_, time, _] = inputs.x.dims();
        let mut options = self.clone();
        options.settings.max_hops = options.settings.max_hops.filter(|hops| *hops < time);
        options.settings.learned_gain = inputs.summary_gain.is_some();
        options
    }
}
