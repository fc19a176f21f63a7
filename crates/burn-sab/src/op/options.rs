use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How raw scores become the sparse weights of at most `k_top` slots (specification, step 4).
///
/// M is the number of slots that are stored when the weights are computed; among equal scores the
/// older slot wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Sparsifier {
    /// The paper's: `relu(a - delta)` normalised to sum to one, where `delta` is the
    /// (k_top + 1)-th largest score, or the smallest score minus one while M <= k_top.
    Threshold,
    /// The authors' PyTorch release: `delta` is the k_top-th largest score plus 1e-7, so that at most
    /// k_top - 1 slots are live; while M <= k_top the raw scores are the weights.
    Released,
    /// Softmax over the k_top largest scores.
    Softmax,
}

/// Which implementation of the sequence op runs. All give the same numbers up to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Strategy {
    /// The fastest one that covers the options, the backend and the data type.
    #[default]
    Auto,
    /// The readable twin: ordinary tensor operations under Burn's own autodiff. Covers every option.
    Reference,
    /// Plain backend primitives with the hand-written backward pass, one autodiff node; any backend.
    Primitives,
    /// The backend's own kernel; an error where it has none.
    Fused,
}

/// Where the backward pass finds the gates of a step. Never changes a value beyond rounding; heeded by
/// the CPU kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Recompute {
    /// Kept while they fit a budget and most of them will be read, else recomputed.
    #[default]
    Auto,
    /// Forward keeps the gates of every step: 5 H + A numbers a step and row.
    Never,
    /// Forward keeps the state once in 32 steps or fewer; backward recomputes, from there on, the
    /// steps that gradient reaches.
    Always,
}

/// Whose outputs a call gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Readout {
    /// Every step's.
    #[default]
    All,
    /// Only those of these steps, 0-based within the call, rising, at least one: with them no array over
    /// all hidden states exists, in either pass.
    At(Arc<[usize]>),
}

impl Readout {
    /// # Panics
    ///
    /// If the steps do not rise, if there is none, or if one is not among `time` steps.
    pub(crate) fn check(&self, time: usize) {
        if let Self::At(steps) = self {
            let rising = steps.windows(2).all(|pair| pair[0] < pair[1]);
            assert!(
                rising && steps.last().is_some_and(|last| *last < time),
                "steps to read out have to rise, be at least one, and lie below {time}, the length of \
                 the sequence: {steps:?}"
            );
        }
    }

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

/// What the sequence op computes, apart from its tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct SabOptions {
    /// Slots that are retrieved per step (at least 1).
    pub k_top: usize,
    /// A slot is stored after every `k_att` steps (at least 1).
    pub k_att: usize,
    /// Steps in a truncation window (at least 1).
    pub k_trunc: usize,
    /// Shifts the truncation windows: a window starts where `(t + offset) % k_trunc == 0`, and with
    /// an offset of zero never at t = 0 (where the initial state enters).
    pub truncation_offset: usize,
    /// From scores to weights.
    pub sparsifier: Sparsifier,
    /// Factor on the summary on its way into the hidden state, h = ĥ + scale · s; 1 in the specification.
    pub summary_scale: f64,
    /// Most reminders that a gradient path may use; `None` for no limit. Never changes a value.
    pub max_hops: Option<usize>,
    /// Steps processed before this call; both rules above count on from here.
    pub first_step: usize,
    /// Whose outputs are given.
    pub readout: Readout,
    /// Whether summaries, retrieved slots and weights are outputs too.
    pub reminders: bool,
    /// What the forward pass leaves to the backward pass to compute again.
    pub recompute: Recompute,
    /// Which implementation to use.
    pub strategy: Strategy,
}

/// Keeps the normalising sum of the threshold sparsifiers away from zero (the authors' release).
pub const EPSILON: f64 = 1e-7;

impl SabOptions {
    /// Whether gradient stops between step `t` of this call (0-based) and the step before it.
    pub fn starts_window(&self, t: usize) -> bool {
        let t = self.first_step + t;
        (t > 0 || self.truncation_offset > 0)
            && (t + self.truncation_offset).is_multiple_of(self.k_trunc)
    }

    /// Whether the hidden state of step `t` of this call (0-based) becomes a slot.
    pub fn stores_slot(&self, t: usize) -> bool {
        (self.first_step + t + 1).is_multiple_of(self.k_att)
    }

    /// Slots that this call adds over `time` steps.
    pub fn slots_stored(&self, time: usize) -> usize {
        (self.first_step + time) / self.k_att - self.first_step / self.k_att
    }

    /// How many of `slots` best scores decide the weights: the live ones and the one that supplies
    /// the threshold.
    pub fn ranks(&self, slots: usize) -> usize {
        let most = match self.sparsifier {
            Sparsifier::Threshold => self.k_top.saturating_add(1),
            Sparsifier::Released | Sparsifier::Softmax => self.k_top,
        };
        most.min(slots)
    }

    /// The limit on hops, if it can be met within `time` steps: a path uses at most one reminder per
    /// step, so a higher limit is none.
    pub fn binding_hops(&self, time: usize) -> Option<usize> {
        self.max_hops.filter(|hops| *hops < time)
    }

    /// Parallel gradients that the backward pass keeps: one per number of reminders used so far.
    pub fn lanes(&self) -> usize {
        self.max_hops.map_or(1, |hops| hops + 1)
    }
}
