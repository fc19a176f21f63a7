//! A bounded memory (`slot_budget`): it drops slots that differ little from their predecessor.
//!
//! A memory that reaches twice the budget is thinned to the budget. The slots that differ most from
//! their predecessors remain. At most 2 · budget slots thus span a sequence of any length. They are
//! dense where the hidden state changed much, and sparse where it changed little. The time of thinning
//! depends on the number of steps alone, not on the division of a sequence into calls.

use burn::tensor::ops::PadMode;
use burn::tensor::{Int, Tensor, TensorData};

use crate::op::{Readout, Reminders};

/// The origins of the slots in a thinned memory: their indices in the order of storage.
#[derive(Clone, Debug)]
pub(super) struct Origins {
    /// The origin of each slot that the last thinning kept, `[B, budget]`.
    pub(super) kept: Tensor<2, Int>,
    /// Number of slots stored up to that thinning. All later slots are still in the memory.
    pub(super) stored: usize,
}

impl Origins {
    /// The origins of all rows of some memories of `slots` slots each, which have dropped equally many.
    pub(super) fn cat(memories: &[&Self], slots: usize) -> Self {
        let kept = memories.iter().map(|origins| origins.of_all(slots)).collect();
        Self { kept: Tensor::cat(kept, 0), stored: memories[0].dropped() + slots }
    }

    /// The number of slots that were dropped in each row.
    pub(super) fn dropped(&self) -> usize {
        self.stored - self.kept.dims()[1]
    }

    /// The origins of all `slots` current slots, `[B, M]`.
    fn of_all(&self, slots: usize) -> Tensor<2, Int> {
        let [batch, kept] = self.kept.dims();
        let later = slots - kept;
        if later == 0 {
            return self.kept.clone();
        }
        let first = self.stored as i64;
        let counts = Tensor::arange(first..first + later as i64, &self.kept.device());
        Tensor::cat(vec![self.kept.clone(), counts.unsqueeze::<2>().expand([batch, later])], 1)
    }

    /// The origins of one row.
    pub(super) fn row(&self, row: usize) -> Self {
        Self { kept: self.kept.clone().narrow(0, row, 1), stored: self.stored }
    }

    /// The same origins in another form.
    pub(super) fn map(self, kept: impl FnOnce(Tensor<2, Int>) -> Tensor<2, Int>) -> Self {
        Self { kept: kept(self.kept), stored: self.stored }
    }

    /// The origins of the slots at `places` (`[B, N, K]`) in a memory of `slots` slots, `[B, N, K]`.
    pub(super) fn of(&self, places: Tensor<3, Int>, slots: usize) -> Tensor<3, Int> {
        let [batch, steps, width] = places.dims();
        let places = places.reshape([batch, steps * width]);
        self.of_all(slots).gather(1, places).reshape([batch, steps, width])
    }
}

/// Whether a memory of `slots` slots must be thinned.
pub(super) fn is_full(slots: usize, budget: usize) -> bool {
    slots >= budget.saturating_mul(2)
}

/// Number of steps, from step `step` on, until a memory that now holds `slots` slots is full.
fn steps_until_full(step: usize, slots: usize, k_att: usize, budget: usize) -> usize {
    let room = budget.saturating_mul(2).saturating_sub(slots).max(1);
    (k_att - step % k_att).saturating_add((room - 1).saturating_mul(k_att))
}

/// Divides a sequence of `time` steps, which begins at step `step` with `slots` slots, into parts after
/// which the memory is full. Returns the ends of the parts and the end of the sequence.
pub(super) fn ends_of_parts(
    time: usize,
    step: usize,
    mut slots: usize,
    k_att: usize,
    budget: usize,
) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut from = 0;
    while from < time {
        let at = step + from;
        let to = time.min(from.saturating_add(steps_until_full(at, slots, k_att, budget)));
        slots += (step + to) / k_att - at / k_att;
        if is_full(slots, budget) {
            slots = budget;
        }
        ends.push(to);
        from = to;
    }
    ends
}

/// Splits `x`, `[B, T, I]`, which begins at step `from`, at `ends`. The last of these is the end of `x`.
///
/// The splits form a balanced tree. Burn pads the gradient of each slice to the length of the tensor
/// that it was sliced from. Slices of the whole sequence would cost O(T²).
pub(super) fn cut(x: Tensor<3>, from: usize, ends: &[usize]) -> Vec<Tensor<3>> {
    let [_, time, _] = x.dims();
    if ends.len() < 2 {
        return vec![x];
    }
    let (first, second) = ends.split_at(ends.len() / 2);
    let middle = first[first.len() - 1];
    let mut parts = cut(x.clone().narrow(1, 0, middle - from), from, first);
    parts.extend(cut(x.narrow(1, middle - from, from + time - middle), middle, second));
    parts
}

/// Returns the `budget` slots to keep of `slots`, `[B, M, H]`, and their origins. `before` holds the
/// origins of `slots`, if they were thinned before.
pub(super) fn thin(
    slots: Tensor<3>,
    before: Option<&Origins>,
    budget: usize,
) -> (Tensor<3>, Origins) {
    let [batch, count, hidden] = slots.dims();
    let places = most_distinct(&slots, budget);
    let origins = match before {
        None => Origins { kept: places.clone(), stored: count },
        Some(before) => Origins {
            kept: before.of_all(count).gather(1, places.clone()),
            stored: before.stored + count - before.kept.dims()[1],
        },
    };
    let places = places.unsqueeze_dim::<3>(2).expand([batch, budget, hidden]);
    (slots.gather(1, places), origins)
}

/// Returns the positions, in ascending order, of the `budget` slots that differ most from their
/// predecessors, `[B, budget]`. The oldest slot always remains. Among equal differences the older slot
/// remains.
fn most_distinct(slots: &Tensor<3>, budget: usize) -> Tensor<2, Int> {
    let [batch, count, _] = slots.dims();
    let values = slots.clone().detach();
    let step = values.clone().narrow(1, 1, count - 1) - values.narrow(1, 0, count - 1);
    let distances = step.powi_scalar(2).sum_dim(2).into_data();
    let distances: Vec<f64> = distances.iter::<f64>().collect();
    let mut places = Vec::with_capacity(batch * budget);
    for row in distances.chunks(count - 1) {
        let mut by_distance: Vec<usize> = (1..count).collect();
        // The sort is stable: the older of two equals comes first.
        by_distance.sort_by(|a, b| row[b - 1].total_cmp(&row[a - 1]));
        let mut kept = by_distance[..budget - 1].to_vec();
        kept.push(0);
        kept.sort_unstable();
        places.extend(kept.into_iter().map(|place| place as i64));
    }
    Tensor::from_data(TensorData::new(places, [batch, budget]), &slots.device())
}

/// Restricts the readout of a call to the steps `from..to`, counted from `from`. Returns `None` if no
/// step remains.
pub(super) fn readout_of_part(readout: &Readout, from: usize, to: usize) -> Option<Readout> {
    let Readout::At(steps) = readout else { return Some(Readout::All) };
    let within = steps.iter().filter(|step| (from..to).contains(*step));
    let within: Vec<usize> = within.map(|step| step - from).collect();
    (!within.is_empty()).then(|| Readout::At(within.into()))
}

/// Joins the retrievals of the parts of a sequence (`dim` 1) or of the rows of a batch (`dim` 0). Some parts may have
/// fewer places per step.
pub(super) fn join_reminders(parts: Vec<Reminders>, dim: usize) -> Reminders {
    let places = |part: &Reminders| part.weights.dims()[2];
    let width = parts.iter().map(places).max().unwrap_or(0);
    let mut summary = Vec::new();
    let (mut slots, mut weights) = (Vec::new(), Vec::new());
    for part in parts {
        let missing = width - places(&part);
        summary.push(part.summary);
        slots.push(part.slots.pad([(0, 0), (0, missing)], PadMode::Constant(0.0)));
        weights.push(part.weights.pad([(0, 0), (0, missing)], PadMode::Constant(0.0)));
    }
    Reminders {
        summary: Tensor::cat(summary, dim),
        slots: Tensor::cat(slots, dim),
        weights: Tensor::cat(weights, dim),
    }
}
